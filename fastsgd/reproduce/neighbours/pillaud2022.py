"""Owns Pillaud-Vivien et al. 2022: SGD with label noise on w^2 - z^2 follows the path of the Lasso."""

import numpy as np

from ... import models, rules
from ...spec.noise import LabelNoise
from ...spec.problem import Dataset
from ...spec.save import SaveAt
from ...train import train
from ..record import Reproduction, Verdict
from .page import COLOURS, columns, number, sheet

NAME = "pillaud2022"
TITLE = "Label noise solves the Lasso (Pillaud-Vivien, Reygner and Flammarion 2022, arXiv 2206.09841)"

D, N_SAMPLES, NOISE = 8, 50, 0.5
BETA = np.array([2.0, -1.5, 1.0, 0.5, 0, 0, 0, 0])
PENALTIES = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.2])
COARSER = 4.0  # the other step size over the one of the path
START = 0.7  # of all w and z
GONE = 0.02  # a coefficient below this has left the model
SAVED = 600


def problem(seed=0):
    """A Dataset with columns of mean square 1: y = <beta, x> + noise, BETA sparse."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N_SAMPLES, D))
    X /= np.sqrt((X**2).mean(axis=0))
    return Dataset(X, X @ BETA + NOISE * rng.standard_normal(N_SAMPLES))


def lasso(X, y, penalty):
    """beta [d] of the least |y - X beta|^2 / (2 n) + penalty |beta|_1; columns have mean square 1. By coordinates."""
    beta, r = np.zeros(X.shape[1]), -np.asarray(y, float)
    for _ in range(10_000):
        moved = 0.0
        for j, x in enumerate(X.T):
            z = beta[j] - x @ r / len(y)
            new = np.sign(z) * max(abs(z) - penalty, 0.0)
            moved, r, beta[j] = max(moved, abs(new - beta[j])), r + x * (new - beta[j]), new
        if moved < 1e-14:
            break
    return beta


def make(replicas=None, seed=0, progress=None, quick=False):
    """Nine penalties eta sigma^2, `replicas` noises (8) of each, step sizes 0.002 and four times that, time 4000.

    If quick four penalties, four noises, steps of 0.004 and 0.016, time 500.
    """
    each, eta, time = (replicas or 4, 0.004, 500) if quick else (replicas or 8, 0.002, 4000)
    penalties = PENALTIES[1::2] if quick else PENALTIES
    data, found = problem(), {"penalties": penalties, "etas": (eta, COARSER * eta)}
    results = {name: _train(data, penalties, size, each, time, seed, progress)
               for name, size in (("path", eta), ("coarser", COARSER * eta))}
    found |= {name: _means(result, len(penalties)) for name, result in results.items()}
    found["lasso"] = np.array([lasso(data.X, data.y, one) for one in penalties])
    still = train(models.DiagonalPower(D, 2, w0=START, z0=START), data, rule=rules.GD(), step_size=0.01, steps=20_000,
                  dtype="float64")
    found["without"] = _beta(still.params)[0]
    found["squares"] = np.linalg.lstsq(data.X, data.y, rcond=None)[0]
    return Reproduction(NAME, TITLE, _table(found), _verdicts(found), results, lambda path: _draw(found, data, path))


def _train(data, penalties, eta, each, time, seed, progress):
    sigma = np.repeat(np.sqrt(penalties / eta), each)
    return train(models.DiagonalPower(D, 2, w0=START, z0=START), data, step_size=eta, steps=int(time / eta),
                 rule=rules.SGD(label_noise=LabelNoise(sigma, kind="rademacher")), dtype="float64", seed=seed,
                 save=SaveAt(linear=SAVED, params=True), progress=progress)


def _beta(params):
    w, z = (np.asarray(params[name]) for name in ("w", "z"))
    return w**2 - z**2


def _means(result, count):
    """Means over time, the first quarter left out: [penalties, noises, d]."""
    beta = _beta(result.saved_params)[:, SAVED // 4:]
    return beta.mean(axis=1).reshape(count, -1, D)


def _off(found, name):
    """(largest deviation of mean coefficients from the Lasso's, its standard error) of each penalty."""
    mean, each = found[name].mean(axis=1), found[name].shape[1]
    error = found[name].std(axis=1, ddof=1) / np.sqrt(each)
    off = np.abs(mean - found["lasso"])
    worst = off.argmax(axis=1)[:, None]
    return tuple(np.take_along_axis(a, worst, axis=1)[:, 0] for a in (off, error))


def _support(beta):
    return int((np.abs(beta) > GONE).sum())


def _table(found):
    fine, coarse = _off(found, "path"), _off(found, "coarser")
    rows = [(f"{penalty:g}", _support(lasso), _support(mean), np.abs(lasso).sum(), np.abs(mean).sum(),
             f"{off:.3f} +- {error:.3f}", f"{other:.3f} +- {its:.3f}")
            for penalty, lasso, mean, off, error, other, its in zip(
                found["penalties"], found["lasso"], found["path"].mean(axis=1), *fine, *coarse, strict=True)]
    eta, other = found["etas"]
    return columns(TITLE, ("eta sigma^2", "Lasso's support", "here", "|beta|_1 of the Lasso", "here",
                           f"off by, eta {eta:g}", f"eta {other:g}"), rows,
                   f"h = <w^2 - z^2, x>, d={D}, n={N_SAMPLES}, loss 1/2 r^2, one sample a step, labels y + sigma z, "
                   "z = +-1; beta: mean over time and noises.",
                   f"Lasso: |y - X beta|^2 / (2 n) + eta sigma^2 |beta|_1, columns of mean square 1. Support: "
                   f"beyond {GONE}.")


def _verdicts(found):
    (off, error), (coarse, _) = _off(found, "path"), _off(found, "coarser")
    eta = found["etas"][0]
    allowed = 4 * error + 30 * eta * found["penalties"]
    mean = found["path"].mean(axis=1)
    same = [_support(a) == _support(b) or np.abs(np.abs(b) - GONE).min() < GONE
            for a, b in zip(mean, found["lasso"], strict=True)]
    interpolates = np.abs(found["without"] - found["squares"]).max()
    return (
        Verdict("the mean of beta is the solution of the Lasso with penalty eta sigma^2", bool((off < allowed).all()),
                f"coefficients off by at most {number(off.max())}, standard errors up to {number(error.max())}"),
        Verdict("coefficients leave the model as the Lasso's do", all(same),
                f"{', '.join(str(_support(a)) for a in mean)} of {D}, the Lasso's "
                f"{', '.join(str(_support(a)) for a in found['lasso'])}"),
        Verdict("smaller steps at the same penalty come closer", bool(np.sum(off**2) < np.sum(coarse**2)),
                f"root mean square {number(np.sqrt(np.mean(off**2)))}, at {COARSER:g} times the step "
                f"{number(np.sqrt(np.mean(coarse**2)))}"),
        Verdict("without noise it is least squares, and no coefficient is zero", bool(interpolates < 1e-6),
                f"off by {number(interpolates)}"))


def _draw(found, data, path):
    fine = np.linspace(0, 1.1 * found["penalties"].max(), 80)
    curves = np.array([lasso(data.X, data.y, one) for one in fine])
    note = (f"lines: the Lasso; points: means over time of {found['path'].shape[1]} noises and two standard errors, "
            f"eta {found['etas'][0]:g}; right: root mean square over coefficients")
    with sheet(path, 2, TITLE, note, size=(5.2, 4.2)) as axes:
        mean = found["path"].mean(axis=1)
        error = 2 * found["path"].std(axis=1, ddof=1) / np.sqrt(found["path"].shape[1])
        for j in range(D):
            colour = COLOURS[j % len(COLOURS)]
            axes[0].plot(fine, curves[:, j], color=colour, linewidth=1.2)
            axes[0].errorbar(found["penalties"], mean[:, j], error[:, j], fmt="o", color=colour, markersize=4,
                             capsize=2)
        axes[0].set(xlabel="eta sigma^2", ylabel="beta_j")
        for name, eta, colour in zip(("path", "coarser"), found["etas"], COLOURS, strict=False):
            off = np.sqrt(((found[name].mean(axis=1) - found["lasso"])**2).mean(axis=1))
            axes[1].plot(found["penalties"], off, "o-", color=colour, label=f"eta {eta:g}")
        axes[1].set(yscale="log", xlabel="eta sigma^2", ylabel="distance from the Lasso")
        axes[1].legend(frameon=False, fontsize=8)
