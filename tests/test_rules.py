"""Rules against other people's code and their own equations: torch.optim, SAM in NumPy, laws of noise and balance."""

import numpy as np
import pytest
import torch
from general_cases import D, general, labelled
from tolerances import EQUATION, LAW

import fastsgd as fs

M, R, L = fs.models, fs.rules, fs.losses
NET = M.MLP(D, (6, 4), activation="tanh", b_scale=0.3)
T = 30
EVERY = fs.SaveAt(linear=T + 1, params=True)


class Signed:
    """Signum as its paper has it, m <- beta m + (1 - beta) g, w <- w - eta sign(m)."""

    def __init__(self, p, beta=0.0):
        self.w, self.beta, self.m = p[0], beta, 0.0

    def step(self):
        self.m = self.beta * self.m + (1 - self.beta) * self.w.grad
        self.w.data -= 0.05 * self.m.sign()


class Lion:
    """Algorithm 2 of arXiv 2302.06675."""

    def __init__(self, p):
        self.w, self.m = p[0], 0.0

    def step(self):
        g = self.w.grad
        self.w.data -= 0.05 * ((0.8 * self.m + (1 - 0.8) * g).sign() + 0.2 * self.w.data)
        self.m = 0.95 * self.m + (1 - 0.95) * g


OPTIM = {
    "momentum": (R.SGD(momentum=0.9), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)),
    "nesterov": (R.SGD(momentum=0.8, nesterov=True, weight_decay=0.1, batch_size=3),
                 lambda p: torch.optim.SGD(p, 0.05, momentum=0.8, nesterov=True, weight_decay=0.1)),
    "adam": (R.Adam(batch_size=2), lambda p: torch.optim.Adam(p, 0.05)),
    "adam_decay": (R.Adam(beta1=0.7, beta2=0.95, epsilon=1e-5, weight_decay=0.2),
                   lambda p: torch.optim.Adam(p, 0.05, betas=(0.7, 0.95), eps=1e-5, weight_decay=0.2)),
    "adamw": (R.Adam(weight_decay=0.2, decoupled=True, batch_size=None),
              lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.2)),
    "dampening": (R.SGD(momentum=0.8, dampening=0.3, weight_decay=0.1),
                  lambda p: torch.optim.SGD(p, 0.05, momentum=0.8, dampening=0.3, weight_decay=0.1)),
    "rmsprop": (R.RMSProp(beta2=0.9, weight_decay=0.1),
                lambda p: torch.optim.RMSprop(p, 0.05, alpha=0.9, weight_decay=0.1)),
    "adagrad": (R.Adagrad(batch_size=2), lambda p: torch.optim.Adagrad(p, 0.05)),
    "sign": (R.SignSGD(batch_size=2), Signed), "signum": (R.SignSGD(momentum=0.8), lambda p: Signed(p, 0.8)),
    "lion": (R.Lion(beta1=0.8, beta2=0.95, weight_decay=0.2, batch_size=3), Lion),
}


def mean_gradient(run, w, index, labels=None):
    """Gradient [P] of the mean loss of the samples `index` at w [P]."""
    y = run.data.y if labels is None else labels
    flat = torch.tensor(w, requires_grad=True)
    X, y = torch.tensor(run.data.X[index]), torch.tensor(y[index])
    run.loss.value(run.model.forward(run.model.unflatten(flat), X), y, run.model.outputs).mean().backward()
    return flat.grad.numpy()


@pytest.mark.parametrize("name", OPTIM)
def test_step_for_step_as_torch_optim(name):
    rule, optimiser = OPTIM[name]
    run = general({"model": NET, "rule": rule}, steps=T, networks=1, step_size=0.05, save=EVERY)
    got = fs.train(run).saved_weights[0]
    n, batch = run.data.n, rule.batch(run.data.n)
    order = np.tile(np.arange(n), (T, 1)) if rule.full else run.order.indices(run.seed, [0], 0, T, n, batch)[0]
    w = torch.tensor(got[0], requires_grad=True)
    other = optimiser([w])
    for t in range(T):
        w.grad = torch.tensor(mean_gradient(run, w.detach().numpy(), order[t]))
        other.step()
        np.testing.assert_allclose(got[t + 1], w.detach().numpy(), rtol=EQUATION, atol=1e-12)


@pytest.mark.parametrize("rule", [R.SAM(rho=0.2, batch_size=3), R.SAM(rho=0.2, batch_size=3, per_sample=True),
                                  R.SAM(rho=0.2, batch_size=None), R.SAM(rho=0.2, batch_size=2, unit=False)],
                         ids=["batch", "each", "full", "long"])
def test_sam_is_its_equation(rule):
    run = general({"model": NET, "rule": rule}, steps=T, networks=1, step_size=0.05, save=EVERY)
    got = fs.train(run).saved_weights[0]
    n, batch = run.data.n, rule.batch(run.data.n)
    order = np.tile(np.arange(n), (T, 1)) if rule.full else run.order.indices(run.seed, [0], 0, T, n, batch)[0]
    w = got[0]
    for t in range(T):
        moved = []
        for part in ([[i] for i in order[t]] if rule.per_sample else [order[t]]):
            g = mean_gradient(run, w, part)
            moved.append(mean_gradient(run, w + 0.2 * g / (np.linalg.norm(g) if rule.unit else 1), part))
        w = w - 0.05 * np.mean(moved, axis=0)
        np.testing.assert_allclose(got[t + 1], w, rtol=EQUATION, atol=1e-12)


def test_averages_normalised_steps_and_penalties_are_their_equations():
    rule = R.GD(average=0.8, normalised=True, weight_decay=0.3, balance_penalty=0.7)
    model = M.DiagonalLinear(D, u0=0.5, v0=0.2)
    run = general({"model": model, "rule": rule}, steps=T, networks=1, step_size=0.02, save=EVERY)
    got = fs.train(run).saved_weights[0]
    averages = fs.train(run.replace(save=fs.SaveAt(linear=T + 1, params=True, of="average"))).saved_weights[0]
    w = average = got[0]
    for t in range(T):
        u, v = w[:D], w[D:]
        g = mean_gradient(run, w, np.arange(run.data.n)) + 0.3 * w
        g += 0.7 * np.concatenate([u * (u**2 - v**2), -v * (u**2 - v**2)])
        w = w - 0.02 * g / np.linalg.norm(g)
        average = 0.8 * average + 0.2 * w
        np.testing.assert_allclose(got[t + 1], w, rtol=LAW)
        np.testing.assert_allclose(averages[t + 1], average, rtol=LAW)


MANY = 40_000


def moves(rule, model=None, order=None, step_size=1.0, loss=None):
    """(run, first steps -(w1 - w0) / step size [MANY, P]) of networks that start alike and draw on their own."""
    model = M.DiagonalLinear(3, u0=0.5, v0=0.2) if model is None else model
    start = model.unflatten(model.start(0, [0])[0])
    run = fs.Run(model, labelled(model, L.Squared(), n=4), rule, step_size, 1, networks=MANY, init=start, order=order,
                 loss=loss, dtype="float64", seed=5)
    return run, (fs.plan(run).start - fs.train(run).weights) / step_size


def near(sample, mean, covariance):
    """Whether draws [MANY, P] have this mean and covariance, within five standard errors of normal draws."""
    spread = np.sqrt(np.diag(covariance))
    assert (np.abs(sample.mean(axis=0) - mean) <= 5 * spread / np.sqrt(MANY) + 1e-12).all()
    error = np.sqrt((np.outer(spread**2, spread**2) + covariance**2) / MANY)
    np.testing.assert_array_less(np.abs(np.cov(sample.T) - covariance), 6 * error + 1e-12)


def jacobian(run):
    """Derivatives [n, P] of the predictions at the start."""
    w, X = torch.tensor(fs.plan(run.replace(networks=1)).start[0]), torch.tensor(run.data.X)
    return torch.func.jacrev(lambda flat: run.model.forward(run.model.unflatten(flat), X))(w).numpy()


@pytest.mark.parametrize("kind", ("gaussian", "rademacher"))
def test_label_noise_on_a_full_step(kind):
    """The step is that of clean labels plus phi^T xi / n, xi of covariance sigma^2."""
    run, g = moves(R.GD(label_noise=fs.LabelNoise(0.3, kind)))
    phi, n = jacobian(run), run.data.n
    clean = mean_gradient(run, fs.plan(run).start[0], np.arange(n))
    near(g, clean, 0.3**2 * phi.T @ phi / n**2)


def test_label_noise_on_one_sample():
    """The step is the full one plus the noise of one random sample: covariance sigma^2 phi^T phi / n."""
    run, g = moves(R.GD(label_noise=fs.LabelNoise(0.3, on="one")))
    phi, n = jacobian(run), run.data.n
    covariance = 0.3**2 * phi.T @ phi / n
    clean = mean_gradient(run, fs.plan(run).start[0], np.arange(n))
    assert (np.abs(g.mean(axis=0) - clean) <= 5 * np.sqrt(np.diag(covariance) / MANY)).all()
    assert np.abs(np.cov(g.T) - covariance).max() < 0.05 * covariance.max()


def test_gradient_noise_is_independent_in_every_parameter():
    run, g = moves(R.GD(gradient_noise=0.3))
    near(g, mean_gradient(run, fs.plan(run).start[0], np.arange(4)), 0.09 * np.eye(run.model.P))


@pytest.mark.parametrize("loss", (L.Squared.half(), L.Squared.full()), ids=("half", "full"))
def test_the_noise_of_the_sde_is_that_of_sgd_on_equal_residuals(loss):
    """With r_i = +-r and a gradient that is taken off, SGD's steps of size eta have covariance eta^2 (2c)^2 r^2
    phi^T phi / n a step, that is eta (2c)^2 r^2 phi^T phi / n a time; the SDE's has loss level c r^2."""
    model, eta, gamma, r, c = M.DiagonalLinear(3, u0=0.5, v0=0.2), 0.1, 1e-3, 0.7, loss.factor
    start = model.start(0, [0])[0]
    X = labelled(model, L.Squared(), n=4).X
    y = model.forward(model.unflatten(start), X) + r * np.array([1, -1, 1, 1])
    rule = R.SDE(sgd_step=eta, loss_level=c * r**2)
    run = fs.Run(model, fs.Dataset(X, y), rule, gamma, 1, networks=MANY, init=model.unflatten(start), loss=loss,
                 dtype="float64")
    moved = fs.plan(run).start - fs.train(run).weights
    phi, drift = jacobian(run), gamma * mean_gradient(run, start, np.arange(4))
    near(moved, drift, gamma * eta * (2 * c) ** 2 * r**2 * phi.T @ phi / 4)
    sgd = run.replace(rule=R.SGD(), step_size=eta)
    steps = fs.plan(sgd).start - fs.train(sgd).weights
    second = steps.T @ steps / MANY  # of one step of SGD, about zero: covariance plus that of the drift
    np.testing.assert_allclose(second / eta**2, (2 * c) ** 2 * r**2 * phi.T @ phi / 4, rtol=0.1, atol=0.01)


@pytest.mark.parametrize("rule", (R.SGD(batch_size=3, label_noise=0.2), R.GD(), R.SGD(label_noise=0.5)))
def test_balance_law_of_any_batch(rule):
    """u^2 - v^2 <- (u^2 - v^2) (1 - eta^2 g^2) with g from u' = u - eta v g: exact for any batch and label noise."""
    run = general({"model": M.DiagonalLinear(D, u0=0.5, v0=0.2), "rule": rule}, steps=T, networks=4, step_size=0.05,
                  save=EVERY)
    u, v = np.moveaxis(fs.train(run).saved_weights.reshape(4, T + 1, 2, D), 2, 0)
    eta_g = (u[:, :-1] - u[:, 1:]) / v[:, :-1]
    want = (u**2 - v**2)[:, :1] * np.cumprod(1 - eta_g**2, axis=1)
    np.testing.assert_allclose((u**2 - v**2)[:, 1:], want, rtol=LAW)


def test_the_balance_penalty_balances():
    """Alone, from labels that are met, it brings u^2 and v^2 together and changes nothing where they are equal."""
    data = fs.Dataset(np.zeros((3, D)), np.zeros(3))
    run = fs.Run(M.DiagonalLinear(D, u0=[0.9, 0.6], v0=[0.3, 0.6]), data, R.GD(balance_penalty=1.0), 0.1, 400,
                 dtype="float64", metrics=fs.metrics.Balancedness(), save=fs.SaveAt(linear=2))
    balance = fs.train(run).numpy("balance")
    assert balance[0, 0] > 1 and balance[0, 1] < 1e-6 and balance[1].max() == 0
