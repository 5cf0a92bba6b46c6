"""Data made on the way: moments of inputs, labels of teachers, streams of the caller's own."""

from itertools import pairwise

import numpy as np
import pytest
from cases import BACKENDS, DTYPES
from general_cases import CASES, EACH, NETWORKS, RELU, TAUGHT, TEACHER, D, general, samples
from tolerances import EQUATION

import fastsgd as fs

M, R, L = fs.models, fs.rules, fs.losses
ONE = fs.Tuning(threads=1)


def shown(data, batch=1, N=4000, dtype="float64", **fields):
    """Inputs [N, d] of the first sample, read back from a linear network whose label it meets with residual -1."""
    model = M.MLP(data.d, (), bias=False, W_scale=0.0)
    run = fs.Run(model, data, R.SGD(batch_size=batch), 1.0, 1, networks=N, dtype=dtype, seed=6, **fields)
    return fs.train(run, tuning=ONE).weights


CONSTANT = M.MLP(D, ())  # label 1 for any input
ONES = {"W1": np.zeros((1, D)), "b1": np.ones(1)}


def test_gaussian_inputs_have_their_moments():
    x = shown(fs.data.Fresh(D, CONSTANT, ONES), N=40_000)
    error = 1 / np.sqrt(len(x))
    assert np.abs(x.mean(axis=0)).max() < 5 * error
    assert np.abs(np.cov(x.T) - np.eye(D)).max() < 7 * error
    assert np.abs((x**4).mean(axis=0) - 3).max() < 5 * np.sqrt(96) * error
    assert np.abs((x**2 * np.roll(x, 1, axis=1) ** 2).mean(axis=0) - 1).max() < 5 * np.sqrt(8) * error


def test_sparse_inputs_have_their_moments():
    x = shown(fs.data.Fresh(D, CONSTANT, ONES, inputs="sparse", density=0.3), N=40_000)
    on = x > 0
    assert x.min() == 0 and x.max() < 1
    assert np.abs(on.mean(axis=0) - 0.3).max() < 5 * np.sqrt(0.21 / len(x))
    assert abs(x[on].mean() - 0.5) < 5 / np.sqrt(12 * on.sum())
    assert np.abs(np.corrcoef(x.T) - np.eye(D)).max() < 5 / np.sqrt(len(x))


@pytest.mark.parametrize("kind", ("gaussian", "sparse"))
@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_kernels_make_the_inputs_of_the_contract(kind, dtype):
    data = fs.data.Fresh(D, CONSTANT, ONES, inputs=kind, density=0.4).astype(dtype)
    want = data.draw(6, np.arange(50), 0, 1, 1)[:, 0, 0].astype(dtype)
    np.testing.assert_array_equal(shown(data, N=50, dtype=dtype, backend="cpu"), want)


def test_every_sample_is_new():
    x = fs.data.Fresh(D).draw(1, np.arange(5), 0, 8, 3).reshape(-1, D)
    assert len(np.unique(x)) == x.size
    part = fs.data.Fresh(D).draw(1, np.array([3]), 5, 7, 3)
    np.testing.assert_array_equal(part[0], x.reshape(5, 8, 3, D)[3, 5:7])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", [M.MLP(D, (4, 3), activation="erf", b_scale=0.3), RELU, M.DiagonalLinear(D, u0=0.4),
                                   M.MLP(D, 3, outputs=2), M.DiagonalPower(D, 3), M.DiagonalProduct(D, 3, 0.5)],
                         ids=["mlp", "relu2", "diagonal", "two", "power", "product"])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(model, backend):
    weights = {name: a[0] for name, a in model.unflatten(model.start(1, [0])).items()}
    run = general({"model": model, "data": fs.data.Fresh(D, model, weights), "rule": R.SGD(batch_size=2)},
                  backend=backend, init=weights, step_size=0.1, networks=3)
    result = fs.train(run, tuning=ONE)
    start = model.flatten(weights, 1)
    np.testing.assert_allclose(result.weights, np.repeat(start, 3, axis=0), atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_a_teacher_the_label_is_the_input(backend):
    """W = I reconstructs inputs that are not negative, and has nothing to learn; W = 0.9 I has."""
    for size, still in ((1.0, True), (0.9, False)):
        init = {"W": size * np.eye(D), "b": np.zeros(D)}
        run = general({"model": M.TiedAutoencoder(D, D), "data": fs.data.Fresh(D, inputs="sparse", density=0.5)},
                      backend=backend, init=init, networks=2, step_size=0.1)
        moved = np.abs(fs.train(run, tuning=ONE).weights - M.TiedAutoencoder(D, D).flatten(init, 1)).max()
        assert (moved < 1e-15) == still


def test_one_input_that_is_its_own_label():
    run = general({"model": M.TiedAutoencoder(1, 2), "data": fs.data.Fresh(1, inputs="sparse")}, networks=3,
                  step_size=0.5)
    result, other = fs.train(run), fs.train(run.replace(backend="reference"))
    np.testing.assert_allclose(result.weights, other.weights, rtol=EQUATION)
    assert (result.weights != fs.plan(run).start).any()


def test_a_student_learns_its_teacher():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, D))
    data = fs.data.Fresh(D, TEACHER, TAUGHT, X_test=X, y_test=TEACHER.forward(TAUGHT, X))
    run = fs.Run(M.MLP(D, 8, activation="erf", b_scale=0.3), data, R.Adam(batch_size=10), fs.StepSize(0.01, 0.8, 10.0),
                 4000, networks=8, metrics=fs.metrics.TestLoss(), save=fs.SaveAt(linear=2), dtype="float64")
    loss = fs.train(run).numpy("test_loss")
    assert np.median(loss[:, 1] / loss[:, 0]) < 0.01


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", [RELU, M.MLP(D, 4, activation="tanh")], ids=["relu2", "mlp"])
def test_a_stream_of_a_data_set_is_the_data_set(model, backend):
    """A stream that follows an order through a data set trains as that order does."""
    plain = general({"model": model, "rule": R.SGD(batch_size=3, momentum=0.3)}, backend=backend, metrics=())
    data, n = plain.data, plain.data.n

    def stretch(ids, t0, t1, batch):
        which = plain.order.indices(plain.seed, ids, t0, t1, n, batch)
        return data.X[which], data.y[which]

    streamed = plain.replace(data=fs.data.Stream(D, stretch))
    for choice in (ONE, fs.Tuning(threads=1, segment=4)):
        got = fs.train(streamed, tuning=choice)
        assert got.weights.tobytes() == fs.train(plain, tuning=choice).weights.tobytes()


def test_a_stream_is_asked_for_the_networks_and_steps_of_the_run():
    asked = []

    def watched(ids, t0, t1, batch):
        asked.append((ids.tolist(), t0, t1, batch))
        return samples(ids, t0, t1, batch)

    run = general({"model": RELU, "data": fs.data.Stream(D, watched), "rule": R.SGD(batch_size=2)}, ids=[7, 2],
                  step_size=0.01)
    fs.train(run, tuning=fs.Tuning(segment=4, threads=1))
    assert all(ids == [7, 2] and batch == 2 for ids, _, _, batch in asked)
    edges = [(t0, t1) for _, t0, t1, _ in asked]
    assert edges[0][0] == 0 and edges[-1][1] == run.steps
    assert all(a[1] == b[0] and a[1] - a[0] <= 4 for a, b in pairwise(edges))


OWN = CASES["fresh_each"]["data"]


def own_networks(dtype="float64", **changes):
    """A run in which each network has a teacher, a density and a scale of its own."""
    return general("fresh_each", dtype, **({"backend": "cpu"} | changes))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_each_network_has_of_its_own_is_as_if_all_had_it(dtype):
    whole = fs.train(own_networks(dtype), tuning=fs.Tuning(threads=2))
    data = OWN.astype(dtype)
    for k in (0, 3, NETWORKS - 1):
        alone = own_networks(dtype, data=data.of(k), ids=[k])
        assert fs.train(alone, tuning=fs.Tuning(lanes=1, threads=1, segment=4)).weights.tobytes() == \
            whole.weights[k].tobytes()
    part = fs.train(own_networks(dtype, ids=[7, 2, 9]))
    assert part.weights.tobytes() == whole.weights[[7, 2, 9]].tobytes()
    joined = fs.concat([whole.select([1, 5]), whole.select([7, 2])])
    assert fs.train(joined.run).weights.tobytes() == whole.weights[[1, 5, 7, 2]].tobytes()
    labels = whole.to_xarray()
    np.testing.assert_array_equal(labels["data.scale"], OWN.scale)
    np.testing.assert_array_equal(labels["data.density"], OWN.density)


@pytest.mark.parametrize("kind", ["gaussian", "sparse"])
@pytest.mark.parametrize("field", ["scale", "density", "weights"])
def test_each_of_these_may_be_for_each_network_alone(field, kind):
    given = {"scale": EACH + 0.5, "density": EACH + 0.2, "weights": OWN.weights}[field]
    data = fs.data.Fresh(D, TEACHER, **({"weights": TAUGHT, "inputs": kind, "density": 0.5} | {field: given}))
    run = general({"model": RELU, "data": data})
    whole = fs.train(run)
    np.testing.assert_allclose(whole.weights, fs.train(run.replace(backend="reference")).weights, rtol=EQUATION)
    assert data.sets == NETWORKS and data.lengths() == {f"data.{field}": NETWORKS}
    assert fs.train(run.replace(data=data.of(4), ids=[4])).weights.tobytes() == whole.weights[4].tobytes()


def test_a_scale_is_a_factor_of_inputs_that_the_teacher_sees():
    """A linear student of a linear teacher, from zero: the first step is scale^2 times that of scale 1."""
    line, weights = M.MLP(D, (), bias=False, W_scale=0.0), {"W1": np.arange(1.0, D + 1)[None]}
    steps = [fs.train(general({"model": line, "data": fs.data.Fresh(D, line, weights, scale=scale)}, steps=1,
                              networks=NETWORKS, step_size=0.1)).weights for scale in (1.0, 2.0, EACH)]
    np.testing.assert_allclose(steps[1], 4 * steps[0], rtol=1e-14)
    np.testing.assert_allclose(steps[2], EACH[:, None]**2 * steps[0], rtol=1e-14)


@pytest.mark.parametrize("shared", [True, False])
def test_test_sets_follow(shared):
    X = np.random.default_rng(3).standard_normal((NETWORKS, 6, D))
    y = OWN.labels(X, range(NETWORKS))
    data = fs.data.Fresh(D, TEACHER, OWN.weights, X_test=X[0] if shared else X, y_test=y[0] if shared else y)
    found = fs.train(general({"model": RELU, "data": data}, metrics=fs.metrics.TestLoss(),
                             stop=fs.stops.Below("test_loss", 0.1))).numpy("test_loss")
    for k in (0, 6):
        alone = general({"model": RELU, "data": data.of(k)}, metrics=fs.metrics.TestLoss(), ids=[k],
                        stop=fs.stops.Below("test_loss", 0.1))
        np.testing.assert_array_equal(fs.train(alone).numpy("test_loss")[0], found[k])


@pytest.mark.parametrize(("change", "why"), [
    ({"scale": 0.0}, "data.scale: 0"), ({"scale": [1.0, np.inf]}, "data.scale"),
    ({"density": [0.5, 1.5]}, "data.density"),
    ({"scale": np.ones(3), "density": np.ones(2)}, "data.density is for 2 networks, data.scale is for 3"),
    ({"scale": np.ones(3), "weights": OWN.weights}, "data.scale is for 3 networks, data.weights is for 11"),
    ({"weights": OWN.weights | {"b2": np.ones((4, 1))}}, "same number N"),
    ({"X_test": np.ones((3, 4, D)), "y_test": np.ones((3, 4))}, "X_test"),
    ({"scale": np.ones(3), "X_test": np.ones((2, 4, D)), "y_test": np.ones((2, 4))}, "X_test: has 2 test sets"),
])
def test_bad_fields_of_fresh_data_are_refused(change, why):
    with pytest.raises(fs.SpecError, match=why):
        fs.data.Fresh(**({"d": D, "teacher": TEACHER, "weights": TAUGHT} | change))


def test_plans_and_sweeps_refuse_what_does_not_fit(nothing_runs):
    for change, why in (({"networks": 3}, "networks has 3"), ({"backend": "triton"}, "cannot run this"),
                        ({"dtype": "float32"}, "float64"), ({"step_size": np.ones(4)}, "step_size has 4")):
        with pytest.raises(fs.errors.FastsgdError, match=why):
            fs.train(own_networks().replace(**change))
    with pytest.raises(fs.SpecError, match=r"data\.density, data\.scale, data\.weights given as arrays over networks"):
        fs.Sweep(own_networks(step_size=0.1), grid={"step_size": [0.1, 0.2]})
