"""Metrics against their definitions: losses, norms, Jacobian rank, feature sparsity by the sequential rule."""

import numpy as np
import pytest
from cases import MODELS, problem, request
from tolerances import METRIC

import fastsgd as fs
from fastsgd.metrics.feature_sparsity import sparsity
from fastsgd.metrics.jacobian_rank import count_above, jacobians


def weights_of(model, N=5, seed=0):
    """Random parameters {name: [N, ...]}."""
    record = MODELS[model]
    return record.unflatten(np.random.default_rng(seed).standard_normal((N, record.P)))


def evaluate(model, metric, params, backend, data=None, dtype="float64"):
    """A metric [N] of given parameters, through a run whose first saved step is its start."""
    N = len(next(iter(params.values())))
    run = fs.Run(MODELS[model], data or problem(MODELS[model].d), fs.rules.SGD(), 1e-3, 1, init=params, networks=N,
                 save=fs.SaveAt(steps=[0]), metrics=[metric], dtype=dtype, backend=backend)
    return fs.train(run).numpy(metric.name)[:, 0]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("model", MODELS)
def test_losses(model, backend):
    params, data = weights_of(model), problem(MODELS[model].d)
    for metric, X, y in ((fs.metrics.TrainLoss(), data.X, data.y), (fs.metrics.TestLoss(), data.X_test, data.y_test)):
        each = [{k: a[i] for k, a in params.items()} for i in range(5)]
        want = [0.5 * np.mean((MODELS[model].forward(one, X) - y) ** 2) for one in each]
        np.testing.assert_allclose(evaluate(model, metric, params, backend, data), want, rtol=METRIC)


def test_loss_conventions():
    run = request("relu2_3_21", N=2)
    half = fs.train(run).numpy("train_loss")[:, 0]
    full = fs.train(run.replace(loss=fs.losses.Squared.full())).numpy("train_loss")[:, 0]
    np.testing.assert_allclose(full, 2 * half, rtol=1e-15)
    doubled = fs.train(run.replace(loss=fs.losses.Squared.full(), step_size=0.01, networks=2, metrics=()))
    plain = fs.train(run.replace(step_size=0.02, networks=2, metrics=()))
    np.testing.assert_array_equal(doubled.weights, plain.weights)


def test_norms_of_a_diagonal_network():
    params = weights_of("diagonal_13")
    u, v = params["u"], params["v"]
    params["u"][0, :4] = 1e-30
    params["v"][0, :4] = 1e-25
    for metric, want in ((fs.metrics.ParameterNorm(), np.sqrt((u**2 + v**2).sum(1))),
                         (fs.metrics.Balancedness(), np.sqrt(((abs(u) - abs(v)) ** 2).sum(1))),
                         (fs.metrics.L0(), (abs(u * v) > 1e-50).sum(1)),
                         (fs.metrics.L0(1e-3), (abs(u * v) > 1e-3).sum(1))):
        np.testing.assert_allclose(evaluate("diagonal_13", metric, params, "cpu"), want, rtol=METRIC)
    assert evaluate("diagonal_13", fs.metrics.L0(), params, "cpu")[0] == 9


def test_l0_does_not_underflow_in_float32():
    params = {"u": np.full((1, 13), 1e-20, np.float32), "v": np.full((1, 13), 1e-20, np.float32)}
    assert evaluate("diagonal_13", fs.metrics.L0(), params, "cpu", problem(13).astype("float32"), "float32") == 13


@pytest.mark.parametrize("model", ["relu2_3_21", "diagonal_13", "relu2_2_20_plain"])
def test_jacobians_are_those_of_finite_differences(model):
    record, params = MODELS[model], weights_of(model, N=1)
    X = problem(record.d).X
    flat = np.concatenate([a.reshape(1, -1) for a in params.values()], axis=1)[0]
    up, down = (np.stack([record.forward(record.unflatten(flat + e), X) for e in step * np.eye(record.P)], axis=1)
                for step in (1e-6, -1e-6))
    difference = (up - down) / 2e-6
    np.testing.assert_allclose(jacobians(record, params, X)[0], difference, atol=1e-7)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("model", ["diagonal_13", "diagonal_70", "relu2_3_21"])
@pytest.mark.parametrize("rtol", [1e-4, 1e-1])
def test_rank_counts_the_singular_values_of_the_jacobian(model, rtol, backend):
    record, params = MODELS[model], weights_of(model)
    scale = 10.0 ** -np.linspace(0, 8, record.P // 2)
    for name, a in params.items():
        if record.d == a.shape[-1] and a.ndim == 2:
            params[name] = a * scale
    points = np.random.default_rng(1).standard_normal((2 * record.P, record.d))
    want = count_above(np.linalg.svd(jacobians(record, params, points), compute_uv=False), rtol)
    assert 1 < want.min() < record.P
    np.testing.assert_array_equal(evaluate(model, fs.metrics.JacobianRank(rtol, points), params, backend), want)


def test_rank_of_a_graded_diagonal_network():
    """Coordinates over 160 decades at rtol 1e-15, on orthonormal points: the coordinates above the threshold."""
    d = 40
    u = np.tile(10.0 ** -np.arange(0, 4 * d, 4.0), (3, 1))
    params = {"u": u, "v": np.zeros((3, d))}
    points = np.linalg.qr(np.random.default_rng(0).standard_normal((2 * d, d)))[0]
    run = fs.Run(fs.models.DiagonalLinear(d), problem(d), fs.rules.SGD(), 1e-3, 1, init=params, networks=3,
                 save=fs.SaveAt(steps=[0]), metrics=[fs.metrics.JacobianRank(1e-15, points)], dtype="float64")
    np.testing.assert_array_equal(fs.train(run).numpy("rank")[:, 0], 4)  # 1, 1e-4, 1e-8, 1e-12


def test_rank_at_the_ends_of_what_is_legal():
    params = weights_of("diagonal_13")
    params["v"][:, 5:] = params["u"][:, 5:] = 0
    points = np.random.default_rng(1).standard_normal((26, 13))
    for rtol, want in ((0.0, 5), (1e-200, 5), (1e-150, 5), (1 - 1e-12, 1)):
        got = evaluate("diagonal_13", fs.metrics.JacobianRank(rtol, points), params, "cpu")
        # below the kernel's least rtol LAPACK counts, and there rounding errors count as well
        assert (got == want).all() if rtol >= 1e-150 else (got >= want).all()


def test_rank_of_weights_whose_size_overflows_is_no_number():
    params = {"u": np.full((1, 13), 1.6e308), "v": np.full((1, 13), 1.6e308)}
    metric = fs.metrics.JacobianRank(1e-4, problem(13).X)
    run = fs.Run(MODELS["diagonal_13"], problem(13), fs.rules.SGD(), 1e-3, 1, init=params, networks=1,
                 save=fs.SaveAt(steps=[0]), metrics=[metric], dtype="float64")
    assert np.isnan(fs.train(run).numpy("rank")).all()


def test_rank_defaults_to_as_many_test_points_as_parameters():
    metric = fs.metrics.JacobianRank()
    assert metric.where(MODELS["diagonal_1"], problem(1)).shape == (2, 1)
    assert metric.where(MODELS["diagonal_13"], problem(13)).shape == (9, 13)


def sequential(features, tau, normalise):
    """The coefficient by the paper's procedure, unit by unit."""
    phi = features.copy()
    if normalise:
        length = np.linalg.norm(phi, axis=1, keepdims=True)
        phi = phi / np.where(length > 0, length, 1)
    kept = [j for j in range(phi.shape[1]) if (phi[:, j] > 0).any()]
    for i in list(kept):
        others = [j for j in kept if j != i]
        with np.errstate(invalid="ignore", divide="ignore"):
            if any(abs(np.corrcoef(phi[:, i], phi[:, j])[0, 1]) > tau for j in others):
                kept.remove(i)
    return (phi[:, kept] > 0).sum() / phi.size


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("tau", [0.5, 0.9, 0.99])
def test_sparsity_is_the_sequential_rule(tau, normalise):
    rng = np.random.default_rng(3)
    stack = []
    for _ in range(30):
        n, h = 15, 20
        phi = np.maximum(rng.standard_normal((n, h)), 0)
        phi[:, rng.integers(0, h, 6)] = 0  # dead units
        for _ in range(6):  # copies, scaled copies, near copies
            a, b = rng.integers(0, h, 2)
            phi[:, b] = np.maximum(phi[:, a] * rng.uniform(0.5, 2) + 0.05 * rng.standard_normal(n), 0)
        stack.append(phi)
    want = [sequential(phi, tau, normalise) for phi in stack]
    np.testing.assert_allclose(sparsity(np.array(stack), tau, normalise), want, rtol=1e-14)
    assert len(set(want)) > 5


@pytest.mark.parametrize(("n", "h"), [(15, 20), (12, 101), (50, 10), (7, 3), (5, 1), (1, 4), (40, 300), (33, 8)])
def test_the_sparsity_kernel_is_the_definition(n, h):
    """Units side by side and networks side by side, whole registers and what is left; one network is not finite."""
    rng = np.random.default_rng(h)
    phi = np.maximum(rng.standard_normal((21, n, h)), 0)
    phi[:, :, rng.random(h) < 0.2] = 0
    copies = rng.integers(0, h, (21, h // 2))
    for k, columns in enumerate(copies):
        phi[k][:, rng.integers(0, h, h // 2)] = phi[k][:, columns] * rng.uniform(0.5, 2, h // 2)
    phi[4, -1, -1] = np.nan
    for tau, normalise in ((0.6, True), (0.99, True), (0.99, False)):
        got = fs.metrics.feature_sparsity(phi, tau, normalise)
        assert np.isnan(got[4])
        np.testing.assert_array_equal(np.delete(got, 4), sparsity(np.delete(phi, 4, axis=0), tau, normalise))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_sparsity_of_a_network(backend):
    params = weights_of("relu2_3_21", N=3)
    for a in params.values():
        a[2] = a[2] * 0
    data = problem(3)
    got = evaluate("relu2_3_21", fs.metrics.FeatureSparsity(), params, backend, data)
    phi = [np.maximum(data.X @ params["W1"][k].T + params["b1"][k], 0) for k in range(3)]
    np.testing.assert_allclose(got, [sequential(p, 0.99, True) for p in phi], rtol=1e-14)
    assert got[2] == 0
