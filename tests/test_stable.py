"""Stable noise: its distribution against scipy's, the same draws everywhere, refusals where there is no kernel."""

import numpy as np
import pytest
from general_cases import D, general

import fastsgd as fs
from fastsgd.spec import draws

M, R = fs.models, fs.rules
MANY = 1 << 17


def drawn(alpha, many=MANY):
    return draws.stables(11, np.arange(many // 8), 0, 8, "gradient_noise", alpha=alpha).ravel()


@pytest.mark.parametrize("alpha", [0.5, 0.8, 1.0, 1.3, 1.7, 2.0])
def test_quantiles_are_those_of_scipy(alpha):
    from scipy import stats  # takes most of a second to import, which other processes need not

    z = drawn(alpha)
    for level in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99):
        below = np.mean(z <= stats.levy_stable.ppf(level, alpha, 0))
        assert abs(below - level) < 5 * np.sqrt(level * (1 - level) / MANY), (alpha, level)


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0, 1.999, 2.0])
def test_the_characteristic_function_is_the_stated_one(alpha):
    z = drawn(alpha)
    for s in (0.1, 0.5, 1.0, 2.0):
        assert abs(np.cos(s * z).mean() - np.exp(-s**alpha)) < 5 / np.sqrt(MANY), (alpha, s)
        assert abs(np.sin(s * z).mean()) < 5 / np.sqrt(MANY)


def test_special_cases_are_known_formulas_of_the_same_uniforms():
    """alpha = 1: tan(pi (u - 1/2)); alpha = 2: 2 sin(pi (u - 1/2)) sqrt(-log v), a normal number of variance 2."""
    u, v = np.moveaxis(draws.uniforms(11, np.arange(50), 0, 8, "gradient_noise"), -1, 0)
    z = draws.stables(11, np.arange(50), 0, 8, "gradient_noise", alpha=1.0)
    np.testing.assert_allclose(z, np.tan(np.pi * (u - 0.5)), rtol=1e-12)
    z = draws.stables(11, np.arange(50), 0, 8, "gradient_noise", alpha=2.0)
    np.testing.assert_allclose(z, 2 * np.sin(np.pi * (u - 0.5)) * np.sqrt(-np.log(v)), rtol=1e-12)


def test_no_draw_is_infinite(monkeypatch):
    """Where a uniform is 1, or next to 0, the formula still has a value."""
    ends = np.array([1.0, 2.0**-54, 0.5, 0.5 + 2.0**-53])
    pairs = np.stack(np.meshgrid(ends, ends, indexing="ij"), axis=-1).reshape(1, -1, 2)
    monkeypatch.setattr(draws, "uniforms", lambda *given: pairs)
    for alpha in (0.2, 1.0, 2.0):
        z = draws.stables(0, [0], 0, pairs.shape[1], "gradient_noise", alpha=alpha)
        if alpha == 2.0:
            assert np.isfinite(z).all() and np.abs(z).max() < 13
        assert not np.isnan(z).any()


ALPHA = np.array([0.6, 1.0, 1.5, 2.0, 1.9])


@pytest.mark.parametrize("backend", ["cpu", "reference", "cuda"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.usefixtures("a_card")
def test_a_step_takes_the_stated_draws(backend, dtype):
    """From weights 0 with a gradient of 0 the first step is -eta sigma z, entry p the draw of block t, item p."""
    data = fs.Dataset(np.ones((3, D), dtype), np.zeros(3, dtype))
    rule = R.SGD(gradient_noise=fs.GradientNoise(0.5, "stable", ALPHA))
    run = fs.Run(M.DiagonalLinear(D, u0=0.0), data, rule, 0.1, 2, dtype=dtype, seed=9, backend=backend,
                 save=fs.SaveAt(steps=[1], params=True))
    rounded = ALPHA.astype(dtype).astype("f8")
    z = draws.noise_vector(9, np.arange(5), 0, 2 * D, "stable", "gradient_noise", alpha=rounded)
    got = fs.train(run).saved_weights[:, 0]
    np.testing.assert_allclose(got, -0.05 * z, rtol=1e-5 if dtype == "float32" else 1e-12)


def test_noise_on_labels_is_drawn_a_step_and_label():
    data = fs.Dataset(np.ones((3, D)), np.zeros(3))
    rule = R.SGD(label_noise=fs.LabelNoise(0.5, "stable", alpha=ALPHA), batch_size=2)
    run = fs.Run(M.MLP(D, (), bias=False, W_scale=0.0), data, rule, 0.1, 1, dtype="float64", seed=9)
    z = np.stack([draws.stables(9, np.arange(5), 0, 1, "label_noise", item, ALPHA)[:, 0] for item in (0, 1)]).mean(0)
    np.testing.assert_allclose(fs.train(run).weights, np.repeat(0.05 * z[:, None], D, 1), rtol=1e-12)


def test_a_name_that_has_no_kernel_says_so():
    pytest.importorskip("triton")
    run = general({"model": M.ReLU2(D, 3), "rule": R.SGD(label_noise=fs.LabelNoise(0.1, "stable", alpha=1.5))})
    from fastsgd.backends.triton.backend import _no_kernel
    from fastsgd.lowering.work import Work

    assert _no_kernel(Work(run)) == "it has no kernel for stable noise on labels"
