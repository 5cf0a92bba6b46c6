"""Exact laws: balance, SGD as label noise, and loss stabilisation of the one-dimensional model."""

import numpy as np
import pytest
from cases import problem, request
from tolerances import LAW

import fastsgd as fs


def test_balance_law():
    """u^2 - v^2 <- (u^2 - v^2) (1 - eta^2 g^2), g = dL_batch/d(u v): exact in discrete time for any minibatch."""
    eta, T, N, n = 0.05, 200, 6, 11
    run = request("diagonal_13", steps=T, N=N, step_size=eta, networks=N, save=fs.SaveAt(linear=T + 1, params=True),
                  metrics=())
    result = fs.train(run)
    u, v = (result.saved_params[k].cpu().numpy() for k in "uv")  # [N, T + 1, d]
    index = fs.orders.PerNetwork().indices(run.seed, np.arange(N), 0, T, n, 1)[..., 0]
    x, y = run.data.X[index], run.data.y[index]
    g = (np.einsum("ntd,ntd->nt", (u * v)[:, :-1], x) - y)[..., None] * x
    want = (u**2 - v**2)[:, :1] * np.cumprod(1 - (eta * g) ** 2, axis=1)
    np.testing.assert_allclose((u**2 - v**2)[:, 1:], want, rtol=LAW, atol=1e-14)


@pytest.mark.parametrize("model", ["diagonal_13", "relu2_3_21"])
def test_sgd_is_gd_on_noisy_labels(model):
    """One SGD step equals one full-batch step on labels y + xi, xi_i = r_i (1 - n 1{i = i_t})."""
    run = request(model, N=1, steps=1, step_size=0.05, order=fs.orders.Replay([4]))
    one = fs.train(run)
    start = run.model.unflatten(fs.plan(run).start[0])
    n, data = run.data.n, run.data
    r = run.model.forward(start, data.X) - data.y
    xi = r * (1 - n * (np.arange(n) == 4))
    assert abs(xi.sum() - (r.sum() - n * r[4])) < 1e-12
    noisy = fs.Dataset(data.X, data.y + xi, data.X_test, data.y_test)
    full = fs.train(run.replace(rule=fs.rules.GD(), order=None, data=noisy))
    np.testing.assert_allclose(one.weights, full.weights, rtol=1e-12)


def one_dimensional(g, steps, a0=0.6, x=1.3, beta=0.7, saves=None):
    """Losses [N, S] of h(x) = theta^2 x started at a = theta / theta_star = a0, step size eta = g / (x^2 beta)."""
    g = np.asarray(g, dtype=float)
    data = fs.Dataset([[x]], [beta * x])
    theta = a0 * np.sqrt(beta)
    run = fs.Run(fs.models.DiagonalLinear(1, u0=theta, v0=theta), data, fs.rules.SGD(), fs.StepSize(g / (x**2 * beta)),
                 steps, save=fs.SaveAt(steps=np.arange(steps - 63, steps + 1) if saves is None else saves),
                 metrics=[fs.metrics.TrainLoss()], dtype="float64")
    return fs.train(run), 0.5 * (x * beta) ** 2


def test_stabilised_level_has_its_closed_form():
    """1 < g < sqrt(5) - 1: a stable 2-cycle whose mean of (a^2 - 1)^2 is (1 - 1/g^2) / 2."""
    g = np.linspace(1.02, 1.22, 21)
    result, unit = one_dimensional(g, 20_000)
    assert result.survived.all()
    np.testing.assert_allclose(result.numpy("train_loss").mean(axis=1) / unit, (1 - 1 / g**2) / 2, rtol=1e-9)


def test_small_steps_converge_and_larger_ones_stay_bounded():
    converging, _ = one_dimensional(np.linspace(0.1, 0.95, 18), 5_000)
    assert (converging.numpy("train_loss")[:, -1] < 1e-25).all()
    bounded, unit = one_dimensional(np.linspace(1.25, 1.99, 75), 20_000, a0=0.61803)
    assert bounded.survived.all() and np.nanmax(bounded.numpy("train_loss")) / unit < 16


def test_escape_above_two():
    g = np.concatenate([np.linspace(1.9, 1.999, 20), np.linspace(2.05, 3, 20)])
    result, _ = one_dimensional(g, 20_000, saves=[20_000])
    np.testing.assert_array_equal(result.lost >= 0, g > 2)


def test_random_samples_stabilise_within_two_positive_levels():
    """All g_i in (1, 1.25): the iterate alternates sides and |a^2 - 1| stays between two positive levels."""
    rng = np.random.default_rng(0)
    N, T, beta = 200, 20_000, 0.7
    x = np.sqrt(np.linspace(1.02, 1.23, 8) / beta)[:, None]  # g_i = eta x_i^2 beta with eta = 1
    theta = np.sqrt(beta) * rng.uniform(0.85, 0.95, N)
    run = fs.Run(fs.models.DiagonalLinear(1, u0=theta, v0=theta), fs.Dataset(x, beta * x[:, 0]), fs.rules.SGD(), 1.0, T,
                 save=fs.SaveAt(steps=np.arange(T - 199, T + 1), params=True), dtype="float64")
    a2 = fs.train(run).saved_params["u"].cpu().numpy()[:, :, 0] ** 2 / beta
    assert (np.sign(a2[:, 1:] - 1) == -np.sign(a2[:, :-1] - 1)).all()
    assert 0.05 < np.abs(a2 - 1).min() and np.abs(a2 - 1).max() < 0.6


def test_small_steps_reach_a_stationary_point():
    data = problem(13)
    run = fs.Run(fs.models.DiagonalLinear(13), data, fs.rules.GD(), 0.05, 20_000, metrics=[fs.metrics.TrainLoss()],
                 dtype="float64", save=fs.SaveAt(steps=[0, 19_999, 20_000]))
    result = fs.train(run)
    loss = result.numpy("train_loss")[0]
    assert loss[2] <= loss[1] < loss[0] and loss[1] - loss[2] < 1e-9
