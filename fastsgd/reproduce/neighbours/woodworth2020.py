"""Owns Woodworth et al. 2020: the scale of the start leads from the kernel regime to the rich one."""

import numpy as np

from ... import metrics, models, rules
from ...spec.problem import Dataset
from ...spec.save import SaveAt
from ...train import train
from ..record import Reproduction, Verdict
from .page import COLOURS, columns, number, sheet

NAME = "woodworth2020"
TITLE = "Kernel and rich regimes of diagonal networks (Woodworth et al. 2020, arXiv 2002.09277)"

N_SAMPLES, D, SUPPORT = 40, 100, 5
DEPTHS = {1: 0.1, 2: 0.02, 3: 0.02}  # depth: step size, divided by max(1, depth alpha^(depth - 1))^2


def make(replicas=None, seed=0, progress=None, quick=False):
    """Depths 1 to 3 x 13 scales of the start (if quick 5), full steps, one data set; `replicas` plays no part in GD."""
    alphas, steps = (np.geomspace(0.02, 3, 5), 20_000) if quick else (np.geomspace(0.01, 10, 13), 100_000)
    rng = np.random.default_rng(seed)
    X, beta = rng.standard_normal((N_SAMPLES, D)), np.where(np.arange(D) < SUPPORT, SUPPORT**-0.5, 0.0)
    y = X @ beta
    results = {f"depth_{depth}": train(
        models.DiagonalPower(D, depth, w0=alphas, z0=alphas), Dataset(X, y), rule=rules.GD(), steps=steps, seed=seed,
        step_size=eta / np.maximum(1, depth * alphas ** (depth - 1)) ** 2, dtype="float64", save=SaveAt(linear=1),
        metrics=(metrics.TrainLoss(), metrics.DistanceToTeacher(beta), metrics.LinearCoefficients()), progress=progress)
        for depth, eta in DEPTHS.items()}
    least = np.linalg.pinv(X) @ y  # of all interpolants that of least length: the kernel regime
    flow = np.array([potential(X, y, alpha) for alpha in alphas])
    end = results["depth_2"].numpy("beta")[:, -1]
    found = {"alphas": alphas, "kernel": float(np.linalg.norm(least - beta)),
             "gap": np.linalg.norm(end - flow, axis=1) / np.linalg.norm(flow, axis=1),
             "distance": {depth: results[f"depth_{depth}"].numpy("distance_to_teacher")[:, -1] for depth in DEPTHS},
             "loss": {depth: results[f"depth_{depth}"].numpy("train_loss")[:, -1] for depth in DEPTHS}}
    return Reproduction(NAME, TITLE, _table(found, steps), _verdicts(found), results, lambda path: _draw(found, path))


def potential(X, y, alpha):
    """The interpolant beta [d] that the gradient flow of depth 2 finds: beta = 2 alpha^2 sinh(X^T nu), X beta = y.

    It minimises sum_j beta_j arcsinh(beta_j / 2 alpha^2) - sqrt(4 alpha^4 + beta_j^2) over all interpolants: Newton's
    method with step halving on the dual, sum_j 2 alpha^2 cosh(x_j . nu) - y . nu.
    """
    def dual(nu):
        with np.errstate(over="ignore"):
            return 2 * alpha**2 * np.cosh(X.T @ nu).sum() - y @ nu

    nu = np.zeros(len(X))
    for _ in range(500):
        t = X.T @ nu
        gradient = X @ (2 * alpha**2 * np.sinh(t)) - y
        if np.abs(gradient).max() < 1e-11:
            break
        step, size = np.linalg.solve((X * (2 * alpha**2 * np.cosh(t))) @ X.T, gradient), 1.0
        while dual(nu - size * step) > dual(nu) - 1e-4 * size * (gradient @ step) and size > 1e-10:
            size /= 2
        nu = nu - size * step
    return 2 * alpha**2 * np.sinh(X.T @ nu)


def _table(found, steps):
    rows = [(f"{alpha:.3g}", *(found["distance"][depth][k] for depth in DEPTHS), found["gap"][k],
             max(found["loss"][depth][k] for depth in DEPTHS)) for k, alpha in enumerate(found["alphas"])]
    return columns(TITLE, ("alpha", *(f"distance, depth {depth}" for depth in DEPTHS),
                           "depth 2: from the flow", "train loss"), rows,
                   f"h = <w^D - z^D, x>, w0 = z0 = alpha, d={D}, n={N_SAMPLES}, {SUPPORT} equal entries of beta*, "
                   f"||beta*|| = 1, loss 1/2 mean r^2, {steps} full steps.",
                   f"Distance: ||beta - beta*||, of the interpolant of least length {number(found['kernel'])}. "
                   "Train loss: largest of the three.",
                   "From the flow: ||beta - beta_flow|| / ||beta_flow||, beta_flow from their potential Q.")


def _verdicts(found):
    distance, kernel = found["distance"], found["kernel"]
    worst = {depth: abs(distance[depth][-1] / kernel - 1) for depth in DEPTHS}
    small = {depth: distance[depth][0] for depth in DEPTHS}
    off = np.abs(distance[1] / kernel - 1).max()
    return (
        Verdict("large starts end at the interpolant of least length (kernel), at every depth",
                bool(max(worst.values()) < 0.01),
                f"distance to beta* within {max(worst.values()):.2g} of its {kernel:.3g}"),
        Verdict("depth 1 is there for every start", bool(off < 1e-3), f"within {off:.2g}"),
        Verdict("small starts end near the sparse solution (rich), sooner for larger depth",
                bool(small[2] < 0.8 * kernel and small[3] < small[2]),
                f"at alpha {found['alphas'][0]:.3g} distance {number(small[2])} (depth 2), {number(small[3])} (3)"),
        Verdict("the solution of depth 2 minimises their potential", bool(found["gap"].max() < 0.02),
                f"relative distance at most {found['gap'].max():.2g} over {len(found['gap'])} scales"))


def _draw(found, path):
    lost = sum(int(np.isnan(loss).sum()) for loss in found["loss"].values())
    note = f"one run of gradient descent each, {lost} lost; dashed: the interpolant of least length"
    with sheet(path, 2, TITLE, note) as axes:
        for (depth, values), colour in zip(found["distance"].items(), COLOURS, strict=False):
            axes[0].plot(found["alphas"], values, "o-", color=colour, markersize=3, label=f"depth {depth}")
        axes[0].axhline(found["kernel"], color="black", linestyle="--", linewidth=0.8)
        axes[1].plot(found["alphas"], found["gap"], "o-", color=COLOURS[1], markersize=3, label="depth 2")
        axes[0].set(xscale="log", yscale="log", xlabel="scale alpha of the start", ylabel="distance ||beta - beta*||")
        axes[1].set(xscale="log", yscale="log", xlabel="scale alpha of the start",
                    ylabel="relative distance from the limit of the flow")
        for axis in axes:
            axis.legend(frameon=False, fontsize=8)
