"""Metrics of hidden units and spectra: small networks by hand, the authors' printed numbers, the sequential rule."""

import numpy as np
import pytest
from cases import problem
from tolerances import METRIC, PAPER_FLOAT32

import fastsgd as fs
from fastsgd.metrics.feature_sparsity import sparsity
from fastsgd.reproduce.study import request

M = fs.metrics
NET = fs.models.ReLU2(1, 4, output_bias=False)
DATA = fs.Dataset([[-1.0], [1.0], [2.0]], [0.0, 0.0, 0.0])


def hand(a=(1.0, 1.0, 1.0, 1.0), start=False):
    """One network with Phi = [[0, 1, 0, 0], [1, 0, 0, .04], [2, 0, 0, .08]]: on right, on left, dead, a small copy."""
    left = -1.0 if not start else 1.0
    return {"W1": np.array([[[1.0], [left], [-1.0], [0.04]]]), "b1": np.array([[0.0, 0.0, -3.0, 0.0]]),
            "W2": np.array([[a]])}


def of(metric, params=None, model=NET, data=DATA, **more):
    return metric.compute(model, hand() if params is None else params, data, fs.losses.Squared(), **more)[0]


def test_counts_of_a_network_by_hand():
    assert of(M.ActiveUnits()) == 3 and of(M.ActiveUnits(0.05)) == 3 and of(M.ActiveUnits(0.1)) == 2
    assert of(M.ActiveUnits(0.05, relative=True)) == 2  # 0.08 is below 5 % of 2
    assert of(M.ActivationDensity()) == 5 / 12
    assert of(M.DistinctUnits(threshold=0.0)) == 2  # the first unit is merged into its small copy
    assert of(M.DistinctUnits(threshold=0.1)) == 2  # the copy is not alive; the other two correlate at 0.87
    assert of(M.DistinctUnits(tau=0.85, threshold=0.1)) == 1
    assert of(M.PatternDistance(), start=hand(start=True)) == 3 / 12
    assert of(M.FeatureSparsity(normalise=False)) == 3 / 12


def test_spectra_of_a_network_by_hand():
    one, two = np.sqrt(5 * (1 + 0.04**2)), 1.0  # Phi has rank two, with orthogonal rows and columns
    assert of(M.NuclearNorm()) == pytest.approx(one + two, rel=1e-14)
    assert of(M.SchattenQuasiNorm(0.5)) == pytest.approx((np.sqrt(one) + 1) ** 2, rel=1e-14)
    assert of(M.SchattenQuasiNorm(1.0)) == pytest.approx(one + two, rel=1e-14)
    assert of(M.CountAbove(1.5)) == 1 and of(M.CountAbove()) == 2
    a = (2.0, -3.0, 7.0, 0.0)
    assert of(M.NuclearNorm("weighted"), hand(a)) == pytest.approx(2 * np.sqrt(5) + 3, rel=1e-14)
    assert of(M.NuclearNorm("neurons"), hand(a)) == pytest.approx(np.sqrt(2**2 + 3**2 + 7**2), rel=1e-14)
    share = one**2 / (one**2 + two**2)
    for metric, want in ((M.FeatureRank(share - 0.01, "none"), 1), (M.FeatureRank(share + 0.01, "none"), 2)):
        assert of(metric) == want
    p = np.array([np.sqrt(2), 1]) / (1 + np.sqrt(2))  # rows of unit length: sigma = sqrt 2 and 1
    points = DATA.X
    assert of(M.SpectrumEntropy(points=points)) == pytest.approx(-(p * np.log(p)).sum(), rel=1e-14)
    assert of(M.EffectiveRank(points=points)) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-14)


def test_feature_rank_counts_principal_components():
    rng = np.random.default_rng(0)
    model, data = fs.models.ReLU2(4, 30), problem(4, n=20)
    params = model.unflatten(rng.standard_normal((6, model.P)))
    for centre, axis in (("row", 1), ("column", 0)):
        for share in (0.5, 0.9, 0.9999):
            want = []
            for W, b in zip(params["W1"], params["b1"], strict=True):
                phi = np.maximum(data.X @ W.T + b, 0)
                phi = phi - phi.mean(axis=axis, keepdims=True)
                explained = np.linalg.eigvalsh(phi.T @ phi)[::-1].cumsum()
                want.append(np.searchsorted(explained / explained[-1], share, side="right") + 1)
            got = M.FeatureRank(share, centre).compute(model, params, data, None)
            np.testing.assert_array_equal(got, want)


def test_layers_are_measured_one_by_one():
    model, data = fs.models.MLP(3, (6, 5), activation="relu"), problem(3)
    params = model.unflatten(np.random.default_rng(0).standard_normal((4, model.P)))
    for kind in (M.ActiveUnits, M.ActivationDensity, M.DistinctUnits, M.FeatureRank, M.FeatureSparsity, M.NuclearNorm,
                 M.SchattenQuasiNorm, M.CountAbove):
        both = kind().compute(model, params, data, None)
        for k, layer in enumerate(("hidden1", "hidden2")):
            np.testing.assert_array_equal(kind(layer=layer).compute(model, params, data, None), both[:, k])
    first = fs.models.ReLU2(3, 6)
    alike = first.unflatten(np.zeros((4, first.P))) | {"W1": params["W1"], "b1": params["b1"]}
    one = M.FeatureSparsity(layer="hidden1").compute(model, params, data, None)
    np.testing.assert_array_equal(one, M.FeatureSparsity().compute(first, alike, data, None))


PRINTED = [("S4", "A", {"nuclear_features": M.NuclearNorm("weighted"), "active": M.ActivationDensity(),
                        "pattern_distance": M.PatternDistance()}),
           ("S7", "0.13", {"nuclear_neurons": M.NuclearNorm("neurons"), "pattern_distance": M.PatternDistance()})]


@pytest.mark.parametrize(("name", "label", "metrics"), PRINTED, ids=[f"{c[0]} {c[1]}" for c in PRINTED])
def test_the_authors_printed_digits(name, label, metrics):
    system = fs.data.paper(name)
    paper_run = next(run for run in system.runs if label in run.label)
    result = fs.train(request(system, [paper_run], fs.orders.Replay(system.order()),
                              fs.SaveAt(steps=[system.printed_at]), wanted=tuple(metrics.values())))
    for key, metric in metrics.items():
        np.testing.assert_allclose(result.numpy(metric.name)[0, 0], paper_run.printed[key], rtol=PAPER_FLOAT32)


def three_layers_by_hand(system, run):
    """Weights of S9 after its printed step: the backward pass written out, one sample at a time, in NumPy."""
    W1, b1, W2, b2, W3, b3 = (system.init[name].copy() for name in ("W1", "b1", "W2", "b2", "W3", "b3"))
    X, y, order, rate = system.data.X, system.data.y, system.order(), run.step_sizes(system.steps)
    for t in range(system.printed_at):
        x, eta = X[order[t]], rate[t]
        p = np.maximum(W1 @ x + b1, 0)
        q = np.maximum(W2 @ p + b2, 0)
        g = 2 * system.loss_factor * ((W3 @ q + b3)[0] - y[order[t]])
        dq = g * W3[0] * (q > 0)
        dp = (W2.T @ dq) * (p > 0)
        W3 -= eta * g * q
        b3 -= eta * g
        W2 -= eta * np.outer(dq, p)
        b2 -= eta * dq
        W1 -= eta * np.outer(dp, x)
        b1 -= eta * dp
    return dict(zip(system.init, (a[None] for a in (W1, b1, W2, b2, W3, b3)), strict=True))


def test_the_authors_three_layer_network():
    """Entropy of the spectrum as printed; sparsity of both layers as plotted, at the start and at the end."""
    system = fs.data.paper("S9")
    run, model = system.runs[0], fs.models.MLP(5, (10, 10))
    start = {name: a[None] for name, a in system.init.items()}
    end = three_layers_by_hand(system, run)
    printed = run.printed
    entropy = M.SpectrumEntropy(points=system.rank_points).compute(model, end, system.data, None)
    np.testing.assert_allclose(entropy, printed["entropy"], rtol=PAPER_FLOAT32)
    for when, params in (("start", start), ("end", end)):
        got = M.FeatureSparsity(system.sparsity_threshold).compute(model, params, system.data, None)
        np.testing.assert_allclose(got[0], [printed[f"sparsity1_{when}"], printed[f"sparsity2_{when}"]], rtol=METRIC)


@pytest.mark.parametrize("h", (3, 8, 21, 150))
def test_constant_units_are_no_copies_whatever_their_mean_rounds_to(h):
    """Six times 0.1 is no multiple of six: the mean of a constant column is not always the constant."""
    rng = np.random.default_rng(h)
    phi = np.repeat(rng.uniform(0.1, 1, (9, 1, h)), 7, axis=1)
    assert (np.abs(phi - phi.mean(axis=1, keepdims=True)).max(axis=1) > 0).any(), "some means are rounded"
    np.testing.assert_array_equal(sparsity(phi, 0.99, False), 1)
    np.testing.assert_array_equal(fs.metrics.feature_sparsity(phi, 0.99, normalise=False), 1)
    phi[:, :, -1] = phi[:, :, 0]
    for moved, copies in ((1 + 2e-16, 0), (1 + 1e-12, 1)):  # a few units in the last place are rounding, 1e-12 is not
        phi[:, 3, 0] = phi[:, 3, -1] = phi[:, 0, 0] * moved
        for count in (sparsity(phi, 0.99, False), fs.metrics.feature_sparsity(phi, 0.99, normalise=False)):
            np.testing.assert_allclose(count, (h - copies) / h)


def collinear(n, h, seed=0):
    """(activations [8, n, h] of ReLU units without biases on positive inputs, shares [8] of units that are on).

    Scaled rows make all that are on constant, but for rounding.
    """
    W = np.random.default_rng(seed).standard_normal((8, 1, h))
    phi = np.maximum(np.linspace(0.1, 1, n)[:, None] * W, 0)
    return phi, (phi > 0).mean(axis=(1, 2))


@pytest.mark.parametrize(("n", "h"), [(200, 6), (7, 90), (1000, 5), (5000, 3), (40, 300)])
def test_units_that_scaled_rows_make_constant_stay(n, h):
    phi, on = collinear(n, h)
    for tau in (0.5, 0.99, 0.999999999):
        np.testing.assert_allclose(sparsity(phi, tau, True), on, rtol=1e-14)
        np.testing.assert_allclose(fs.metrics.feature_sparsity(phi, tau), on, rtol=1e-14)
    np.testing.assert_allclose(fs.metrics.feature_sparsity(phi.astype(np.float32)), on, rtol=1e-14)
    one = np.repeat(phi[:, :, phi[0, 0].argmax()][..., None], h, axis=2)  # the same unit h times: lengths err the most
    np.testing.assert_array_equal(fs.metrics.feature_sparsity(one), (one > 0).mean(axis=(1, 2)))
    assert (fs.metrics.feature_sparsity(phi, normalise=False)[on > 1.5 / h] < on[on > 1.5 / h]).all(), "copies merge"


@pytest.mark.parametrize("n", [8, 200, 3000])
def test_units_that_vary_by_more_than_rounding_merge(n):
    """At a relative deviation of 1e-12, with any mean: correlations do not suffer from the mean's rounding."""
    rng = np.random.default_rng(n)
    wave = rng.standard_normal((n, 1))
    other = rng.standard_normal((n, 1))
    phi = np.concatenate([1 + 1e-12 * wave, 3 + 6e-12 * wave, 1 + 1e-12 * other, np.full((n, 1), 0.1)], axis=1)[None]
    for count in (sparsity(phi, 0.9, False), fs.metrics.feature_sparsity(phi, 0.9, normalise=False)):
        assert count == 0.75  # the first is a copy of the second
    assert fs.metrics.feature_sparsity(phi.astype(np.float32), 0.9, normalise=False) == 1  # no float32 varies so little


@pytest.mark.parametrize("h", [12, 300])
@pytest.mark.parametrize("normalise", [True, False])
def test_scales_of_activations_do_not_matter(normalise, h):
    rng = np.random.default_rng(h)
    phi = np.maximum(rng.standard_normal((9, 30, h)), 0)
    phi[:, :, 5], phi[:, :, 7], phi[:, :, 3] = 3 * phi[:, :, 2], phi[:, :, 1], 0
    want = sparsity(phi, 0.9, normalise)
    rows, columns = 10.0 ** rng.uniform(-150, 150, (30, 1)), 10.0 ** rng.uniform(-150, 150, h)
    for scale in (1e-170, 1e-300, 1e160, 1e200, 1e300, rows if normalise else columns):
        np.testing.assert_array_equal(sparsity(phi * scale, 0.9, normalise), want)
        np.testing.assert_array_equal(fs.metrics.feature_sparsity(phi * scale, 0.9, normalise), want)
    apart = phi * np.where(np.arange(h) % 2, 1e-170, 1e200)
    if not normalise:
        np.testing.assert_array_equal(sparsity(apart, 0.9, normalise), want)
    np.testing.assert_array_equal(fs.metrics.feature_sparsity(apart, 0.9, normalise), sparsity(apart, 0.9, normalise))


def test_edges_of_activations():
    """One sample, zeros, what is not finite, the largest numbers; tau = 1 merges nothing, not even copies."""
    for count in (lambda phi: fs.metrics.feature_sparsity(phi), lambda phi: sparsity(phi, 0.99, True)):
        np.testing.assert_array_equal(count(np.full((1, 1, 3), 1e-200)), 1)
        np.testing.assert_array_equal(count(np.zeros((1, 4, 3))), 0)
        np.testing.assert_array_equal(count(np.full((2, 4, 3), 1.7e308)), 1)
        assert np.isnan(count(np.full((1, 4, 3), np.inf))).all()
    phi = np.maximum(np.random.default_rng(0).standard_normal((9, 20, 12)), 0)
    phi[:, :, 6:] = phi[:, :, :6]
    for count in (sparsity(phi, 1.0, True), fs.metrics.feature_sparsity(phi, 1.0)):
        np.testing.assert_array_equal(count, (phi > 0).mean(axis=(1, 2)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_constant_units_of_a_run_stay(backend, dtype):
    X = np.linspace(0.1, 1, 200, dtype=dtype)[:, None]
    result = fs.train(fs.models.ReLU2(1, 6, hidden_bias=False), fs.Dataset(X, np.sin(3 * X[:, 0])), rule=fs.rules.SGD(),
                      step_size=0.01, steps=200, networks=9, dtype=dtype, backend=backend, save=fs.SaveAt(linear=6),
                      metrics=[fs.metrics.FeatureSparsity(tau=0.99), fs.metrics.ActiveUnits()])
    np.testing.assert_allclose(result.numpy("feature_sparsity") * 6, result.numpy("active_units"), rtol=1e-14)
