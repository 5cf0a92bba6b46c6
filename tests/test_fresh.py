"""Data made on the way: moments of inputs, labels of teachers, streams of the caller's own."""

from itertools import pairwise

import numpy as np
import pytest
from cases import BACKENDS
from general_cases import RELU, TAUGHT, TEACHER, D, general, samples
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
