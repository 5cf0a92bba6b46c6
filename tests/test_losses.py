"""Losses against torch.nn.functional, at extremes and kinks, and their laws, in every backend."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import BACKENDS
from general_cases import D, labelled
from tolerances import EQUATION, VALUE

import fastsgd as fs

M, R, L = fs.models, fs.rules, fs.losses
DTYPES = ("float32", "float64")
rng = np.random.default_rng(3)
LOGITS, SIGNS = rng.standard_normal((50, 4)) * 5, rng.choice([-1.0, 1.0], 50)
CLASSES, TARGETS = rng.integers(0, 4, 50), rng.standard_normal((50, 4))
WEIGHTS = np.array([1, 0.5, 0, 3])
VALUES = {  # {loss: (ours at predictions and labels, torch's)}
    "squared": (L.Squared(0.7), LOGITS[:, 0], TARGETS[:, 0], lambda f, y: 0.7 * F.mse_loss(f, y, reduction="none")),
    "weights": (L.Squared(0.5, WEIGHTS), LOGITS, TARGETS,
                lambda f, y: 0.5 * (torch.tensor(WEIGHTS) * F.mse_loss(f, y, reduction="none")).sum(1)),
    "logistic": (L.Logistic(2.0), LOGITS[:, 0], SIGNS, lambda f, y: 2 * F.soft_margin_loss(f, y, reduction="none")),
    "hinge": (L.Hinge(), LOGITS[:, 0], SIGNS,
              lambda f, y: F.multi_margin_loss(torch.stack([f * y, 0 * f], 1), 0 * f.long(), reduction="none") * 2),
    "cross_entropy": (L.CrossEntropy(1.3), LOGITS, CLASSES,
                      lambda f, y: 1.3 * F.cross_entropy(f, y.long(), reduction="none")),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_are_those_of_torch(name):
    loss, f, y, other = VALUES[name]
    want = other(torch.tensor(f), torch.tensor(y)).numpy()
    outputs = f.shape[1] if f.ndim > 1 else 1
    np.testing.assert_allclose(loss.value(f, y, outputs), want, rtol=VALUE, atol=1e-14)
    ours = loss.value(torch.tensor(f), torch.tensor(y), outputs).numpy()
    np.testing.assert_allclose(ours, want, rtol=VALUE, atol=1e-14)


def test_values_do_not_overflow():
    far = np.array([1e4, -1e4, 1e300, -1e300])
    np.testing.assert_allclose(L.Logistic().value(far, np.ones(4)), [0, 1e4, 0, 1e300])
    both = np.stack([far, -far], axis=1)
    np.testing.assert_allclose(L.CrossEntropy().value(both[:2], np.zeros(2, int), 2), [0, 2e4])


def slope(loss, f, y, backend, dtype="float64"):
    """Derivative [o] of the loss of one sample with respect to the outputs f [o], read from a step of size 1 of a
    network that is its own bias."""
    o = len(f)
    model = M.MLP(1, (), outputs=o)
    data = fs.Dataset(np.zeros((1, 1), dtype), np.asarray(y)[None].astype(dtype))
    run = fs.Run(model, data, R.GD(momentum=0.5), 2.0**20, 1, loss=loss, dtype=dtype, backend=backend,
                 init={"W1": np.zeros((o, 1), dtype), "b1": np.asarray(f, dtype)})
    result = fs.train(run, tuning=fs.Tuning(threads=1))
    assert result.survived.all()
    return (np.asarray(f) - result.weights[0, o:]) / 2.0**20


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_slopes_at_extremes_and_kinks(backend, dtype):
    def of(loss, f, y):
        return slope(loss, np.atleast_1d(np.float64(f)), y, backend, dtype)

    near = {"rtol": 1e-6, "atol": 1e-7} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-14}
    for f in (0.0, 1.0, -1.0, 30.0, 800.0, -800.0, 1e4):
        for y in (-1.0, 1.0):
            np.testing.assert_allclose(of(L.Logistic(), f, y), -y / (1 + np.exp(np.minimum(y * f, 700))), **near)
            np.testing.assert_allclose(of(L.Hinge(), f, y), -y if y * f < 1 else 0, **near)  # at the kink 0
    for f in ([0, 0, 0], [800, 0, -800], [-1e4, 1e4, 0]):
        f = np.array(f, np.float64)
        p = np.exp(f - f.max()) / np.exp(f - f.max()).sum()
        for y in range(3):
            np.testing.assert_allclose(of(L.CrossEntropy(0.5), f, float(y)), 0.5 * (p - (np.arange(3) == y)), **near)


KINKS = {"relu": 0.0, "abs": 0.0, "leaky": 0.3}
SMOOTH = {"tanh": 1.0, "identity": 1.0, "square": 0.0, "sigmoid": 0.25, "softplus": 0.5, "erf": 2 / np.sqrt(np.pi)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_activations_at_their_kinks(backend):
    """relu'(0) = abs'(0) = 0, leaky'(0) = slope."""
    for activation, want in KINKS.items():
        np.testing.assert_allclose(slope_at_zero(activation, backend), want, rtol=VALUE)


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("backend", BACKENDS)
def test_smooth_activations_at_zero(backend, activation):
    np.testing.assert_allclose(slope_at_zero(activation, backend), SMOOTH[activation], rtol=VALUE)


def slope_at_zero(activation, backend):
    """What a bias below an output weight of 1 receives."""
    model = M.MLP(1, 1, activation=activation, slope=0.3)
    init = {"W1": np.zeros((1, 1)), "b1": np.zeros(1), "W2": np.ones((1, 1)), "b2": np.zeros(1)}
    value = float(model.forward(init, np.zeros((1, 1)))[0])
    run = fs.Run(model, fs.Dataset([[0.0]], [value - 1.0]), R.GD(), 1.0, 1, init=init, dtype="float64",
                 backend=backend)
    return -fs.train(run).params["b1"].item()


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_classes_are_the_logistic_loss_of_their_difference(backend):
    data = labelled(M.DiagonalLinear(D), L.Logistic())
    classes = fs.Dataset(data.X, (data.y > 0).astype(int))
    W = rng.standard_normal(D)
    common = {"steps": 20, "dtype": "float64", "backend": backend, "rule": R.SGD()}
    one = fs.train(M.MLP(D, (), bias=False), data=data, step_size=0.2, loss=L.Logistic(), init={"W1": W[None]},
                   **common)
    two = fs.train(M.MLP(D, (), bias=False, outputs=2), data=classes, step_size=0.1, loss=L.CrossEntropy(),
                   init={"W1": np.stack([-W / 2, W / 2])}, **common)
    difference = two.weights[0, D:] - two.weights[0, :D]
    np.testing.assert_allclose(difference, one.weights[0], rtol=EQUATION)
    np.testing.assert_allclose(two.weights[0, D:], -two.weights[0, :D], rtol=EQUATION)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_output_without_weight_is_not_trained(backend):
    model = M.MLP(D, (), outputs=3)
    result = fs.train(fs.Run(model, labelled(model, L.Squared()), R.SGD(), 0.1, 20, dtype="float64", backend=backend,
                             loss=L.Squared(weights=[1, 0, 2])))
    moved = (model.unflatten(result.weights)["W1"][0] != fs.plan(result.run).start[0, :3 * D].reshape(3, D)).any(axis=1)
    assert moved.tolist() == [True, False, True]


@pytest.mark.parametrize("factor", (0.5, 3.0))
@pytest.mark.parametrize("kind", (L.Squared, L.Logistic, L.Hinge, L.CrossEntropy))
def test_a_factor_is_a_step_size(kind, factor):
    model = M.MLP(D, 4, outputs=3 if kind is L.CrossEntropy else 1)
    data = labelled(model, kind())
    one = fs.train(fs.Run(model, data, R.SGD(), 0.02 * factor, 20, loss=kind(1.0), dtype="float64"))
    other = fs.train(fs.Run(model, data, R.SGD(), 0.02, 20, loss=kind(factor), dtype="float64"))
    np.testing.assert_allclose(one.weights, other.weights, rtol=EQUATION)
