"""Ranks and spectra of Jacobians by kernels against their definition, and which method a plan takes."""

import numpy as np
import pytest
from cases import problem

import fastsgd as fs
from fastsgd.lowering.work import Work
from fastsgd.measure.host import Host
from fastsgd.metrics.jacobian_rank import count_above, jacobians, trained_jacobians

MLP, ReLU2 = fs.models.MLP, fs.models.ReLU2
MODELS = {
    "relu2": ReLU2(3, 21), "relu2 plain": ReLU2(2, 20, False, False), "deep": MLP(5, (10, 10)),
    "leaky, outputs": MLP(3, (7, 5), outputs=3, activation="leaky", scaling="ntk"),
    "linear": MLP(3, (), outputs=2), "linear, deep": MLP(4, (6, 3), activation="identity", bias=False),
    "square": MLP(4, (6, 5, 4), activation="square", bias=(True, False, True, False)),
    "abs": MLP(4, (9,), activation="abs", scaling="mean_field"), "product": fs.models.DiagonalProduct(6, 3),
    "power": fs.models.DiagonalPower(5, 3), "unsigned": fs.models.DiagonalPower(5, 1, signed=False),
    "diagonal": fs.models.DiagonalLinear(7),
    "fixed": MLP(3, (6, 4), fixed=("W2", "b1", "W3")), "fixed start": MLP(3, 6, fixed=("W1",), activation="tanh"),
    **{name: MLP(3, (6, 5), activation=name, outputs=2) for name in ("tanh", "erf", "sigmoid", "softplus")},
}


def measured(model, metric, weights, dtype="float64"):
    """A metric of weights [N, P] as the CPU backend measures it."""
    run = fs.Run(model, problem(model.d).astype(dtype), fs.rules.GD(), 0.1, 1, dtype=dtype)
    return Host(Work(run), len(weights)).measure(metric, weights)


def drawn(model, seed=0, N=7):
    """Weights [N, P], one network with dead units, one of zeros, and points [40, d]."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((N, model.P))
    weights[1, :model.P // 3] = 0
    weights[2] = 0
    return weights, rng.standard_normal((40, model.d))


@pytest.mark.parametrize("name", MODELS)
def test_ranks_and_spectra_are_those_of_the_definition(name):
    model = MODELS[name]
    weights, points = drawn(model)
    for X in (points, points[:6]):
        sigma = np.linalg.svd(trained_jacobians(model, model.unflatten(weights), X), compute_uv=False)
        got = measured(model, fs.metrics.JacobianSpectrum(points=X), weights)
        np.testing.assert_allclose(got, sigma, atol=1e-13 * sigma.max())
        np.testing.assert_array_equal(measured(model, fs.metrics.JacobianSpectrum(2, X), weights), got[:, :2])
        for rtol in (1e-1, 1e-4, 1e-8):
            metric = fs.metrics.JacobianRank(rtol, X)
            np.testing.assert_array_equal(measured(model, metric, weights), count_above(sigma, rtol), rtol)


def test_networks_of_several_outputs_have_a_row_for_each():
    """J [m o, P] against finite differences."""
    model = MODELS["leaky, outputs"]
    weights, X = drawn(model)
    w, J = weights[0], jacobians(model, model.unflatten(weights[:1]), X)[0]
    step = 1e-6 * np.eye(model.P)
    up, down = (np.stack([model.forward(model.unflatten(w + s), X).ravel() for s in sign * step], axis=1)
                for sign in (1, -1))
    np.testing.assert_allclose(J, (up - down) / 2e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["relu2", "relu2 plain", "tanh plain"])
def test_weights_too_large_or_small_for_a_gram_matrix(name):
    """Entries whose squares overflow, underflow or lose digits are counted from J; what is not finite has no rank."""
    model = MLP(2, (20,), bias=False, activation="tanh") if name == "tanh plain" else MODELS[name]
    weights, X = drawn(model, N=5)
    metric = fs.metrics.JacobianRank(1e-4, X)
    want = measured(model, metric, weights)
    for scale in (1e170, 1e90, 1e60, 1e-60, 1e-90, 1e-170):
        big = weights * scale
        sigma = np.linalg.svd(jacobians(model, model.unflatten(big), X) / scale, compute_uv=False)
        np.testing.assert_array_equal(measured(model, metric, big), count_above(sigma, 1e-4), scale)
    if name != "tanh plain":
        weights[3] = 1e308
        got = measured(model, metric, weights)
        assert np.isnan(got[3])
        np.testing.assert_array_equal(np.delete(got, 3), np.delete(want, 3))


def drawn_alike(model, kind, rng, N=6):
    """Weights [N, P] of a two-layer network whose units are alike in some way."""
    h = model.sizes[1]
    weights = rng.standard_normal((N, model.P))
    params = model.unflatten(weights)  # views
    W1, b1, W2 = params["W1"], params.get("b1", np.zeros((N, h))), params["W2"]
    if kind == "copies":  # same kink, other sizes
        W1[:], b1[:] = W1[:, np.arange(h) % 5], b1[:, np.arange(h) % 5]
        size = rng.uniform(0.5, 2, (N, h))
        W1 *= size[:, :, None]
        b1 *= size
    if kind == "on and off everywhere":
        b1[:, ::2], b1[:, 1::3] = 50, -50
        W2[..., ::4] = 0
    if kind == "graded":
        W1 *= 10.0 ** -np.linspace(0, 6, h)[:, None]
        W2 *= 10.0 ** -np.linspace(0, 3, h)[::-1]
    if kind == "steep":  # far from the origin, w x and b cancel to four digits
        W1 *= 1e2
        b1[:] = rng.standard_normal((N, h)) - 30 * W1.sum(axis=2)
    return weights


@pytest.mark.parametrize("kind", ["random", "copies", "on and off everywhere", "graded", "steep"])
@pytest.mark.parametrize("options", [
    {}, {"bias": False}, {"bias": (True, False)}, {"activation": "leaky"}, {"scaling": "ntk"}, {"fixed": ("W1",)},
    {"fixed": ("W2", "b2")}, {"fixed": ("b1", "W1", "b2")}], ids=str)
def test_narrow_factors_of_two_layer_networks(kind, options):
    """Units that are on at the same points share columns; counted as by LAPACK off the threshold."""
    rng = np.random.default_rng(3)
    checked = 0
    for d, h, sizes in ((1, 30, (7, 65)), (2, 12, (7, 130)), (3, 7, (65,))):  # points: fewer and more than a tile
        model = MLP(d, h, **{"activation": "relu"} | options)
        for m in sizes:
            weights = drawn_alike(model, kind, rng)
            X = rng.standard_normal((m, d)) + (30 if kind == "steep" else 0)
            sigma = np.linalg.svd(trained_jacobians(model, model.unflatten(weights), X), compute_uv=False)
            for rtol in (1e-1, 1e-3, 1e-4):
                with np.errstate(divide="ignore", invalid="ignore"):
                    near = np.abs(sigma / (rtol * sigma[:, :1]) - 1) < 2 * (1e-10 + 1e-14 / rtol**2)
                clear = ~near.any(axis=1)
                got = measured(model, fs.metrics.JacobianRank(rtol, X, method="gram"), weights)
                np.testing.assert_array_equal(got[clear], count_above(sigma, rtol)[clear], (d, m, rtol))
                checked += clear.sum()
    assert checked > 50


@pytest.mark.parametrize("scale", [1e-170, 1e-100, 1.0, 1e100, 1e170])
@pytest.mark.parametrize("bias", [False, (False, True), (True, False)], ids=str)
def test_points_that_all_units_see_alike_are_few_rows_at_any_scale(bias, scale):
    """Equal points, points on a ray, cells of one point and of many: counted as by LAPACK."""
    rng = np.random.default_rng(5)
    model = MLP(2, 9, activation="relu", bias=bias)
    weights = rng.standard_normal((5, model.P))
    rays = rng.standard_normal((6, 2))
    along = [np.outer(rng.uniform(0.5, 2, 12), ray) for ray in rays]
    X = np.concatenate([*along, rays[:2], rays[:2], np.zeros((2, 2))])
    J = trained_jacobians(model, model.unflatten(weights), X * scale)
    J = J / np.abs(J).max(axis=(1, 2), keepdims=True)
    got = measured(model, fs.metrics.JacobianRank(1e-4, X * scale, method="gram"), weights)
    np.testing.assert_array_equal(got, count_above(np.linalg.svd(J, compute_uv=False), 1e-4))


@pytest.mark.parametrize(("model", "metric", "method"), [
    ("relu2", fs.metrics.JacobianRank(1e-4), "gram"), ("relu2", fs.metrics.JacobianRank(1e-5), "gram"),
    ("relu2", fs.metrics.JacobianRank(1e-6), "jacobi"), ("relu2", fs.metrics.JacobianSpectrum(), "jacobi"),
    ("diagonal", fs.metrics.JacobianRank(1e-15), "count"),
    ("diagonal", fs.metrics.JacobianSpectrum(), "jacobi"), ("diagonal", fs.metrics.JacobianRank(1e-160), "count"),
    ("diagonal", fs.metrics.JacobianRank(0), "count"), ("diagonal", fs.metrics.JacobianRank(1e-301), "jacobi")])
def test_the_plan_says_which_method(model, metric, method):
    model = MODELS[model]
    plan = fs.plan(fs.Run(model, problem(model.d), fs.rules.SGD(), 0.1, 5, metrics=[metric], dtype="float64"))
    line = next(line for line in plan.explain().splitlines() if f"{metric.name} by " in line)
    assert f"{metric.name} by '{method}'" in line and "MiB of scratch a thread" in line


@pytest.mark.parametrize(("model", "metric", "words"), [
    ("relu2", {"method": "count"}, ("count", "no diagonal network", "gram")),
    ("relu2", {"method": "gram", "rtol": 1e-7}, ("1e-07", "1e-06", "jacobi")),
    ("diagonal", {"method": "gram"}, ("diagonal", "count")),
    *((name, {"method": method, "rtol": 0}, ("rtol is 0", "rounding")) for name, method in (
        ("relu2", "auto"), ("relu2", "svd"), ("deep", "jacobi"), ("product", "jacobi")))])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_methods_that_are_not_possible_are_refused(model, metric, words, backend):
    model = MODELS[model]
    run = fs.Run(model, problem(model.d), fs.rules.SGD(), 0.1, 5, metrics=[fs.metrics.JacobianRank(**metric)],
                 dtype="float64", backend=backend)
    with pytest.raises(fs.PlanError) as error:
        fs.plan(run)
    assert all(word in str(error.value) for word in words if backend == "cpu"), error.value
    assert metric["method"] in str(error.value) or metric.get("rtol") == 0


@pytest.mark.parametrize("model", ["relu2", "diagonal"])
def test_named_methods_agree(model):
    model = MODELS[model]
    methods = ("svd", "jacobi", "count" if model is MODELS["diagonal"] else "gram")
    metrics = [fs.metrics.JacobianRank(1e-3, name=method, method=method) for method in methods]
    run = fs.Run(model, problem(model.d), fs.rules.SGD(), 0.05, 20, metrics=metrics, dtype="float64", networks=5)
    result = fs.train(run)
    for method in methods[1:]:
        np.testing.assert_array_equal(result.numpy(method), result.numpy("svd"))


def test_spectra_are_recorded():
    run = fs.Run(MODELS["relu2"], problem(3), fs.rules.SGD(), 0.05, 20, networks=4, dtype="float64",
                 metrics=[fs.metrics.JacobianSpectrum(), fs.metrics.JacobianSpectrum(3, name="top")],
                 save=fs.SaveAt(linear=3))
    ours = fs.train(run)
    truth = fs.train(run.replace(backend="reference"))
    assert ours.numpy("spectrum").shape == (4, 3, 9)
    np.testing.assert_allclose(ours.numpy("spectrum"), truth.numpy("spectrum"), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(ours.numpy("top"), ours.numpy("spectrum")[:, :, :3])
    assert fs.plan(run).memory["records"] == 8 * 4 * 3 * (9 + 3)
    with pytest.raises(fs.PlanError, match="k=10"):
        fs.plan(run.replace(metrics=[fs.metrics.JacobianSpectrum(10)]))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", ["diagonal", "product", "power", "unsigned"])
def test_rank_at_rtol_zero_counts_independent_live_inputs(name, backend):
    """At most min(m, live inputs), at any sizes of weights and points: nothing that rounding leaves is counted."""
    model, rng = MODELS[name], np.random.default_rng(4)
    d = model.d
    weights = np.repeat(rng.uniform(0.5, 2, (1, model.P)), 5, axis=0)
    params = model.unflatten(weights)  # views
    for a in params.values():
        a[1, :2] = a[3, 2] = a[4] = 0
        a[2] *= 10.0 ** -np.linspace(0, 70, d)
    ones = name == "unsigned"  # w^1: the Jacobian is that of the points, whatever w is
    alike = rng.standard_normal((9, d))
    alike[:, 1], alike[:, 3] = alike[:, 0], 0
    for X, want in ((rng.standard_normal((12, d)), [d, d - 2, d, d - 1, 0]),
                    (rng.standard_normal((3, d)), [3, min(3, d - 2), 3, min(3, d - 1), 0]),
                    (alike, [d - 2, d - 3, d - 2, d - 3, 0])):
        for scale in (1, 1e-170, 1e160, 10.0 ** rng.uniform(-150, 150, d)):
            for method in ("auto", "svd"):
                metric = fs.metrics.JacobianRank(0, X * scale, method=method)
                run = fs.Run(model, problem(d), fs.rules.SGD(), 0.1, 1, init=params, networks=5, dtype="float64",
                             metrics=[metric], save=fs.SaveAt(steps=[0]), backend=backend)
                np.testing.assert_array_equal(fs.train(run).numpy("rank")[:, 0], [want[0]] * 5 if ones else want)


@pytest.mark.parametrize("rtol", [1e-120, 1e-160, 1e-290])
def test_ranks_of_sizes_beyond_150_decades(rtol):
    """Points that are the same twice have one singular value for both, at any rtol."""
    u = 10.0 ** -np.array([0, 50, 100, 140, 180, 250, 320.0])
    X = np.linalg.qr(np.random.default_rng(1).standard_normal((9, 7)))[0]
    X[:, 1] = X[:, 0]
    got = measured(MODELS["diagonal"], fs.metrics.JacobianRank(rtol, X), np.concatenate([u, 0 * u])[None])
    assert got == (u > rtol).sum() - 1


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_network_without_trained_parameters_has_rank_zero_and_an_empty_spectrum(backend):
    for model in (MLP(2, (), bias=False, fixed=("W1",)), MLP(2, 3, fixed=("W1", "b1", "W2", "b2")),
                  MLP(2, (), outputs=2, fixed=("W1", "b1"))):
        for X in (np.ones((1, 2)), np.random.default_rng(0).standard_normal((70, 2))):
            ranks = [fs.metrics.JacobianRank(rtol, X, name=f"rank{rtol}") for rtol in (1e-1, 1e-4, 1e-6, 1e-15)]
            result = fs.train(model, fs.Dataset(X, np.zeros((len(X), model.outputs)).squeeze(1) if model.outputs == 1
                                                else np.zeros((len(X), 2))), rule=fs.rules.SGD(), step_size=0.1,
                              steps=2, networks=3, dtype="float64", backend=backend,
                              metrics=[*ranks, fs.metrics.JacobianSpectrum(points=X)])
            for metric in ranks:
                assert (result.numpy(metric.name) == 0).all()
            assert result.numpy("spectrum").shape[2] == 0


def test_spectra_hold_values_more_than_308_decades_apart():
    u = np.array([1e160, 1e-160, 1.0, 1e-300, 3e-310])
    X = np.linalg.qr(np.random.default_rng(1).standard_normal((9, 5)))[0]
    model = fs.models.DiagonalLinear(5)
    for points, scale in ((X, 1.0), (X * 2.0**500, 2.0**500)):
        got = measured(model, fs.metrics.JacobianSpectrum(points=points), np.concatenate([u, 0 * u])[None])
        with np.errstate(over="ignore"):
            want = np.sort(u * scale)[::-1]
        np.testing.assert_allclose(got[0, :5], want, rtol=1e-14, atol=1e-323)
        assert (got[0, 5:] == 0).all()
