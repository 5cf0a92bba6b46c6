"""Owns Lau et al. 2023: the local learning coefficient of singular models by localised Langevin chains."""

import numpy as np

from ... import metrics, models, rules
from ...spec.problem import Dataset
from ...spec.save import SaveAt
from ...train import train
from ..record import Reproduction, Verdict
from .page import COLOURS, columns, number, sheet

NAME = "lau2023"
TITLE = "The local learning coefficient of singular models (Lau et al. 2023, arXiv 2308.12108)"

GAMMA = 1.0  # of the localisation, (gamma / 2) ||w - w*||^2 beside n beta L
FINE = 0.02  # squared length of a chain's step over that of the narrowest direction; less for powers, which are steeper
ACROSS = np.linspace(-9.0, 9.0, 2401)  # where the exact integrals are taken, in units of a prior's deviation
D = 5  # parameters of the regular model


def make(replicas=None, seed=0, progress=None, quick=False):
    """Six models x four inverse temperatures n beta x 64 chains of 100,000 steps (if quick 16 of 20,000)."""
    replicas, steps = (replicas or 16, 20_000) if quick else (replicas or 64, 100_000)
    heat, results, found = np.array([10.0, 30.0, 100.0, 300.0]), {}, {}
    for k, (name, (model, learning, narrow, exact)) in enumerate(cases().items()):
        n_beta = heat.repeat(replicas)
        result = local_learning_coefficient(model, data(model.d), n_beta, FINE * narrow(n_beta), steps, seed + k,
                                            progress and f"{NAME} {name}")
        chains = estimates(result, n_beta).reshape(len(heat), replicas)
        results[name.replace(" ", "_")] = result
        found[name] = {"mean": np.nanmean(chains, axis=1), "error": np.nanstd(chains, axis=1) / replicas**0.5,
                       "exact": np.array([exact(one) for one in heat]), "limit": learning,
                       "lost": int((result.lost >= 0).sum())}
    return Reproduction(NAME, TITLE, _table(heat, found, steps, replicas), _verdicts(found), results,
                        lambda path: _draw(heat, found, path))


def local_learning_coefficient(model, data, n_beta, epsilon, steps, seed=0, progress=None, gamma=GAMMA):
    """Chains w <- w - (epsilon / 2) grad (n beta L(w) + (gamma / 2) ||w - w*||^2) + sqrt(epsilon) z from w* = 0.

    L is the training loss. As a rule: gradient descent of step size eta = epsilon n beta / 2 with gradient noise of
    deviation sqrt(epsilon) / eta and localisation gamma / (n beta). n_beta, epsilon [N]: one of each a chain
    Returns the Result, of which `estimates` makes n beta (E L - L(w*)).
    """
    eta = epsilon * n_beta / 2
    rule = rules.GD(gradient_noise=np.sqrt(epsilon) / eta, localisation=gamma / n_beta)
    start = {name: np.zeros(shape) for name, shape in model.shapes().items()}
    return train(model, data, rule=rule, step_size=eta, steps=steps, init=start, dtype="float64", seed=seed,
                 metrics=(metrics.TrainLoss(),), save=SaveAt(linear=1001), progress=progress)


def estimates(result, n_beta, burn_in=0.2):
    """n beta (mean L - L(w*)) [N] of each chain over its saved steps, the first part of them left out."""
    loss = result.numpy("train_loss")
    first = int(burn_in * loss.shape[1])
    return n_beta * (loss[:, first:].mean(axis=1) - loss[:, 0])


def data(d):
    """Inputs with mean x x^T = 1 and labels 0: L = (1/2) sum_j h_j^2 where coordinate j has factor h_j."""
    X = np.linalg.qr(np.random.default_rng(0).standard_normal((2 * d, d)))[0] * (2 * d) ** 0.5
    return Dataset(X, np.zeros(2 * d))


def cases():
    """{name: (model, learning coefficient, narrowest squared width at n beta, exact finite estimate at n beta)}."""
    def flat(depth):
        return lambda heat: heat ** (-1 / depth) / depth**2

    return {
        f"regular, {D} weights": (models.MLP(D, (), bias=False), D / 2, flat(1), lambda heat: D * power(heat, 1)),
        "w^2": (models.DiagonalPower(1, 2, signed=False), 1 / 4, flat(2), lambda heat: power(heat, 2)),
        "w^3": (models.DiagonalPower(1, 3, signed=False), 1 / 6, flat(3), lambda heat: power(heat, 3)),
        "u v": (models.DiagonalLinear(1), 1 / 2, flat(1), lambda heat: product(heat, 2)),
        "w^2 - z^2": (models.DiagonalPower(1, 2), 1 / 2, lambda heat: 1 / (2 * heat), difference),
        "w1 w2 w3": (models.DiagonalProduct(1, 3), 1 / 2, flat(1), lambda heat: product(heat, 3))}


def power(heat, depth):
    """E heat w^(2 depth) / 2 under exp(-heat w^(2 depth) / 2 - gamma w^2 / 2)."""
    w = ACROSS * min(GAMMA**-0.5, heat ** (-1 / (2 * depth)))
    energy = heat * w ** (2 * depth) / 2
    weight = np.exp(-energy - GAMMA * w**2 / 2)
    return (energy * weight).sum() / weight.sum()


def product(heat, depth):
    """E heat (w_1 ... w_depth)^2 / 2, the last factor integrated in closed form: a Gaussian given the others."""
    w = ACROSS * GAMMA**-0.5
    others, weight = w**2, np.exp(-GAMMA * w**2 / 2)
    for _ in range(depth - 2):
        others, weight = others[..., None] * w**2, weight[..., None] * np.exp(-GAMMA * w**2 / 2)
    stiff = heat * others + GAMMA
    weight = weight * stiff**-0.5
    return (weight * heat * others / (2 * stiff)).sum() / weight.sum()


def difference(heat):
    """E heat (w^2 - z^2)^2 / 2: in turned coordinates a product u v of twice the size."""
    return product(4 * heat, 2)


def _table(heat, found, steps, replicas):
    rows = [(name, *(f"{m:.3f} ({e:.3f}) {x:.3f}" for m, e, x in zip(one["mean"], one["error"], one["exact"],
                                                                     strict=True)), one["limit"])
            for name, one in found.items()]
    return columns(TITLE, ("model", *(f"n beta = {number(one)}" for one in heat), "lambda"), rows,
                   f"Each column: mean over {replicas} chains of {steps} steps (its standard error), exact integral.",
                   f"Loss 1/2 mean h^2, w* = 0, gamma = {number(GAMMA)}; lambda: the limit of large n beta.",
                   f"{sum(one['lost'] for one in found.values())} chains were lost.")


def _verdicts(found):
    off = {name: np.abs(one["mean"] - one["exact"]) for name, one in found.items()}
    near = {name: bool((off[name] <= 4 * one["error"] + 0.03 * one["exact"]).all()) for name, one in found.items()}
    worst = {name: float((off[name] / one["exact"]).max()) for name, one in found.items()}
    regular, *powers = (found[name] for name in list(found)[:3])
    products = [found[name] for name in list(found)[3:]]
    last = [one["mean"][-1] for one in products]
    return (
        Verdict("chains give the exact local posterior's value, for all models and temperatures", all(near.values()),
                ", ".join(f"{name} {100 * w:.1f} %" for name, w in worst.items()) + " off at most"),
        Verdict("the regular model has half its number of parameters",
                bool(abs(regular["mean"][-1] / regular["limit"] - 1) < 0.05),
                f"{regular['mean'][-1]:.3f} of {regular['limit']:.3f} at the largest n beta"),
        Verdict("w^D has 1 / (2 D)", all(abs(one["mean"][-1] / one["limit"] - 1) < 0.1 for one in powers),
                " and ".join(f"{one['mean'][-1]:.3f} of {one['limit']:.3f}" for one in powers)),
        Verdict("products rise slowly to 1/2, three factors more slowly than two",
                bool(all(one["mean"][0] < one["mean"][-1] < 0.5 for one in products) and last[2] < last[0]),
                ", ".join(f"{one:.3f}" for one in last) + " at the largest n beta"))


def _draw(heat, found, path):
    note = ("points: mean over chains, two standard errors, set apart a little; lines: exact integrals; "
            f"{sum(one['lost'] for one in found.values())} chains lost")
    with sheet(path, 2, TITLE, note) as axes:
        for k, (colour, (name, one)) in enumerate(zip(COLOURS, found.items(), strict=False)):
            axis, limit = axes[int(one["limit"] == 0.5)], one["limit"]
            axis.plot(heat, one["exact"] / limit, color=colour, linewidth=1.2)
            axis.errorbar(heat * 1.06 ** (k % 3 - 1), one["mean"] / limit, 2 * one["error"] / limit, fmt="o",
                          color=colour, markersize=4, label=f"{name}: {limit:.3g}")
            axis.axhline(1, color="black", linestyle=":", linewidth=0.8)
        for axis in axes:
            axis.set(xscale="log", xlabel="n beta", ylabel="n beta (E L - L(w*)) over its limit")
            axis.legend(frameon=False, fontsize=8, title="model: its limit", title_fontsize=8, loc="best")
