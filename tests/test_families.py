"""Families of the general loop: special cases of each other, what stays fixed, where they start, hidden layers."""

import numpy as np
import pytest
from cases import BACKENDS
from general_cases import D, general, labelled
from tolerances import EQUATION, WEIGHTS

import fastsgd as fs

M, R, L = fs.models, fs.rules, fs.losses
ONE = fs.Tuning(threads=1)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("rule", [R.SGD(), R.SGD(batch_size=3), R.GD(), R.SGD(momentum=0.5, label_noise=0.1)])
@pytest.mark.parametrize("pair", [
    (M.ReLU2(D, 6, hidden_bias=True, output_bias=False), M.MLP(D, 6, bias=(True, False))),
    (M.ReLU2(D, 6, hidden_bias=False, output_bias=True), M.MLP(D, 6, bias=(False, True))),
    (M.DiagonalLinear(D), M.DiagonalProduct(D, 2)),
], ids=["relu2", "relu2_output_bias", "diagonal"])
def test_one_family_under_two_names_and_in_two_loops(pair, rule, dtype):
    """Plain SGD and GD of the older family have a loop of their own; the rest run in the general one, to the bit."""
    data = labelled(pair[0], L.Squared()).astype(dtype)
    first, second = (fs.train(general({"model": model, "rule": rule, "data": data}, dtype), tuning=ONE)
                     for model in pair)
    if rule.plain():
        error = np.abs(first.weights - second.weights).max() / np.abs(first.weights).max()
        assert error < WEIGHTS[dtype]
    else:
        assert first.weights.tobytes() == second.weights.tobytes()


def test_more_special_cases():
    """One factor is a power of one; a square of a vector is a product of it with itself at equal starts."""
    data = labelled(M.DiagonalLinear(D), L.Squared())
    first = general({"model": M.DiagonalProduct(D, 1, 0.3), "data": data})
    second = general({"model": M.DiagonalPower(D, 1, signed=False, w0=0.3), "data": data})
    np.testing.assert_allclose(fs.train(first).weights, fs.train(second).weights, rtol=EQUATION)
    twice = fs.StepSize(np.linspace(0.02, 0.05, 11), 0.6, 2.0)
    product = fs.train(general({"model": M.DiagonalProduct(D, 2, 0.3), "data": data, "step_size": twice}))
    half = fs.StepSize(np.linspace(0.01, 0.025, 11), 0.6, 2.0)
    power = fs.train(general({"model": M.DiagonalPower(D, 2, signed=False, w0=0.3), "data": data, "step_size": half}))
    np.testing.assert_allclose(product.weights[:, :D], power.weights, rtol=EQUATION)


def test_a_linear_network_of_one_layer_solves_least_squares():
    data = labelled(M.MLP(D, (), outputs=2), L.Squared(), n=30)
    run = fs.Run(M.MLP(D, (), outputs=2), data, R.GD(momentum=0.5), 0.3, 2000, dtype="float64")
    A = np.c_[data.X, np.ones(30)]
    want = np.linalg.lstsq(A, data.y, rcond=None)[0]
    params = run.model.unflatten(fs.train(run).weights[0])
    np.testing.assert_allclose(params["W1"], want[:D].T, rtol=EQUATION)
    np.testing.assert_allclose(params["b1"], want[D], rtol=EQUATION)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", [
    R.SGD(), R.SGD(batch_size=3, momentum=0.9, nesterov=True, weight_decay=0.5, gradient_noise=0.3, normalised=True),
    R.SAM(rho=0.3, per_sample=True), R.SAM(rho=0.3, batch_size=None, unit=False),
    R.Adam(weight_decay=0.5, decoupled=True), R.Adam(weight_decay=0.5, gradient_noise=0.1),
    R.GD(label_noise=fs.LabelNoise(0.5, on="one")), R.SDE(sgd_step=0.1, loss_level=0.5)],
    ids=["sgd", "all", "sam_each", "sam_full", "adamw", "adam", "one_label", "sde"])
def test_what_is_fixed_keeps_its_bits_and_the_rest_moves(rule, backend):
    model = M.MLP(D, (4, 3), activation="tanh", b_scale=0.3, fixed=("W2", "b1"))
    run = general({"model": model, "rule": rule}, backend=backend)
    start, end = (model.unflatten(weights) for weights in (fs.plan(run).start, fs.train(run, tuning=ONE).weights))
    for name in start:
        assert ((end[name] == start[name]).all() if name in model.fixed else
                (end[name] != start[name]).reshape(len(start[name]), -1).any(axis=1).all()), name


def test_starts_have_their_scales():
    model, many = M.MLP(D, (40, 30), outputs=2, W_scale=None, b_scale=(0.0, 0.5, 0.1)), 400
    start = model.unflatten(model.start(1, np.arange(many)))
    for name, scale in {"W1": D**-0.5, "W2": 40**-0.5, "W3": 30**-0.5, "b2": 0.5, "b3": 0.1}.items():
        error = scale / np.sqrt(2 * start[name].size)
        assert abs(start[name].std() - scale) < 5 * error and abs(start[name].mean()) < 8 * error, name
    assert not start["b1"].any()
    for scaling in ("ntk", "mean_field"):
        drawn = M.MLP(D, (40, 30), scaling=scaling)
        assert abs(drawn.unflatten(drawn.start(1, np.arange(many)))["W2"].std() - 1) < 0.01
    coder = M.TiedAutoencoder(20, 4)
    assert abs(coder.unflatten(coder.start(1, np.arange(many)))["W"].std() - 0.5) < 0.01


def test_starts_are_the_same_without_compiled_modules(monkeypatch):
    def absent():
        raise fs.BackendUnavailable("no module")

    model, ids = M.MLP(D, (4, 3), b_scale=(0.0, 0.5, 0.1)), np.array([7, 0, 2**32 - 1, *range(20, 33)])
    compiled = model.start(2**63 + 5, ids)
    monkeypatch.setattr("fastsgd.models.base.native", absent)
    assert model.start(2**63 + 5, ids).tobytes() == compiled.tobytes()


@pytest.mark.parametrize(("scaling", "want"), [
    ("standard", (1, 1, 1)), ("ntk", (5**-0.5, 0.5, 3**-0.5)), ("mean_field", (5**-0.5, 0.5, 1 / 3)),
    ((2.0, 3.0, 4.0), (2, 3, 4))])
def test_scalings(scaling, want):
    np.testing.assert_allclose(M.MLP(D, (4, 3), scaling=scaling).multipliers, want)


def test_hidden_layers_and_predictions_by_hand():
    rng = np.random.default_rng(0)
    model, X = M.MLP(D, (4, 3), outputs=2, activation="leaky", slope=0.2, scaling=(0.5, 2.0, 3.0)), rng.random((6, D))
    p = {name: rng.standard_normal(shape) for name, shape in model.shapes().items()}
    one = 0.5 * X @ p["W1"].T + p["b1"]
    one = np.where(one > 0, one, 0.2 * one)
    two = 2.0 * one @ p["W2"].T + p["b2"]
    two = np.where(two > 0, two, 0.2 * two)
    hidden = model.features(p, X)
    np.testing.assert_allclose(hidden["hidden1"], one)
    np.testing.assert_allclose(hidden["hidden2"], two)
    np.testing.assert_allclose(model.forward(p, X), 3.0 * two @ p["W3"].T + p["b3"])
    w, z = rng.standard_normal((2, D))
    np.testing.assert_allclose(M.DiagonalPower(D, 3).forward({"w": w, "z": z}, X), X @ (w**3 - z**3))
    np.testing.assert_allclose(M.DiagonalProduct(D, 2).forward({"w1": w, "w2": z}, X), X @ (w * z))
    W, b = rng.standard_normal((3, D)), rng.standard_normal(D)
    np.testing.assert_allclose(M.TiedAutoencoder(D, 3).forward({"W": W, "b": b}, X), np.maximum(X @ W.T @ W + b, 0))
