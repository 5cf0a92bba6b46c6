"""Owns Lewkowycz et al. 2020: lazy, catapult and divergent phases of gradient descent on a wide linear network."""

import numpy as np

from ... import metrics, models, rules
from ...spec.problem import Dataset
from ...spec.save import SaveAt
from ...train import train
from ..record import Reproduction, Verdict
from .page import COLOURS, columns, number, sheet

NAME = "lewkowycz2020"
TITLE = "The catapult phase of a wide linear network (Lewkowycz et al. 2020, arXiv 2003.02218)"

STEPS = 2000
FLAT = 0.05  # distance in eta lambda_0 from a phase boundary within which a run is not judged: time diverges there


def make(replicas=None, seed=0, progress=None, quick=False):
    """47 values of eta lambda_0 in (0, 4.8) (23 if quick) x `replicas` starts (6, 2) x widths 512 and 1024 (512)."""
    products = np.linspace(0.2, 4.8, 24 if quick else 47)
    starts, widths = replicas or (2 if quick else 6), (512,) if quick else (512, 1024)
    results, found = {}, {}
    for m in widths:
        model = models.MLP(1, m, activation="identity", bias=False, scaling=(1.0, m**-0.5), W_scale=1.0)
        c = np.repeat(products, starts)
        first = model.start(seed, np.arange(len(c)))
        kernel = (first**2).sum(axis=1) / m
        result = results[f"width_{m}"] = train(
            model, Dataset(np.ones((1, 1)), np.zeros(1)), rule=rules.GD(lost_above=1e8), step_size=c / kernel,
            steps=STEPS, metrics=(metrics.TrainLoss(), metrics.NTKEigenvalue()), dtype="float64", seed=seed,
            save=SaveAt(log=12, first=25), progress=progress)
        f = np.sqrt(2 * result.numpy("train_loss"))
        K = result.numpy("ntk_eigenvalue")
        found[m] = {"c": c, "loss": result.numpy("train_loss"), "eta": result.base, "kernel": K, "steps": result.steps,
                    "gone": result.lost, "lost": ~result.survived,
                    "gap": recursion(f[:, 0], K[:, 0], c < 4 - FLAT, result, m)}
    return Reproduction(NAME, TITLE, _table(found), _verdicts(found), results, lambda path: _draw(found, path))


def recursion(f, kernel, judged, result, m):
    """Largest |difference| / lambda_0 [N] of the kernel from the paper's two numbers, at saved steps of `judged` runs.

    f <- (1 - eta lambda + eta^2 f^2 / m) f,  lambda <- lambda + (eta f^2 / m) (eta lambda - 4)
    """
    alive, eta = result.survived & judged, result.base
    f, now, gap = f * alive, kernel * alive, np.zeros(len(f))
    measured = dict(zip(result.steps, result.numpy("ntk_eigenvalue").T, strict=True))
    for t in range(STEPS + 1):
        if t in measured:
            gap = np.maximum(gap, np.abs(now - measured[t]) / kernel)
        f, now = (1 - eta * now + eta**2 * f**2 / m) * f, now + eta * f**2 / m * (eta * now - 4)
    return np.where(alive, gap, np.nan)


def phases(one):
    """{phase: [N] bool} of the runs away from the boundaries, by eta lambda_0."""
    c = one["c"]
    return {"lazy": c < 2 - FLAT, "catapult": (c > 2 + FLAT) & (c < 4 - FLAT), "divergent": c > 4 + FLAT}


def _measured(one, phase):
    """Of the runs in a phase: (growth max L / L_0, share converged, eta lambda at the end, lambda_T / lambda_0)."""
    loss, kernel, eta = one["loss"][phase], one["kernel"][phase], one["eta"][phase]
    growth = np.nanmax(loss, axis=1) / loss[:, 0]
    return growth, loss[:, -1] < 1e-6 * np.nanmax(loss, axis=1), eta * kernel[:, -1], kernel[:, -1] / kernel[:, 0]


def _table(found):
    rows = []
    for m, one in found.items():
        for name, phase in phases(one).items():
            growth, converged, end, ratio = _measured(one, phase)
            finite = np.isfinite(end)
            end, ratio = end[finite], ratio[finite]
            cells = (np.median(end), end.max(), np.median(ratio)) if finite.any() else (None, None, None)
            rows.append((f"{m} {name}", int(phase.sum()), f"{converged.mean():.0%}",
                         f"{one['lost'][phase].mean():.0%}", np.median(growth), *cells))
    return columns(TITLE, ("width, phase", "runs", "converged", "lost", "max loss / first (median)",
                           "eta lambda_T (median)", "(largest)", "lambda_T / lambda_0"), rows,
                   "f = m^(-1/2) v u x, one sample x = 1, y = 0, loss 1/2 f^2, u, v ~ N(0, I), GD, "
                   f"{STEPS} steps. Published: lazy for eta lambda_0 < 2,",
                   "catapult between 2 and 4 (the loss grows first, then lambda_T < 2 / eta), divergence above 4. "
                   f"Runs within {FLAT} of 2 or 4 are left out.",
                   "Converged: the loss ends below 1e-6 of its largest value.")


def _verdicts(found):
    claims = {"lazy": [], "catapult": [], "divergent": []}
    for one in found.values():
        for name, phase in phases(one).items():
            claims[name].append((*_measured(one, phase), one["lost"][phase]))
    growth, converged, end, ratio, lost = ({name: np.concatenate([part[k] for part in parts])
                                            for name, parts in claims.items()} for k in range(5))
    gap = max(np.nanmax(one["gap"][phase]) for one in found.values() for phase in list(phases(one).values())[:2])
    return (
        Verdict("below 2 / lambda_0 the loss falls from the first step and the kernel stays", bool(
            converged["lazy"].all() and (growth["lazy"] <= 1).all() and (ratio["lazy"] > 0.85).all()),
                f"{converged['lazy'].mean():.0%} of {len(lost['lazy'])} runs converge, lambda_T / lambda_0 >= "
                f"{number(ratio['lazy'].min())}"),
        Verdict("between 2 and 4 / lambda_0 the loss grows first, then converges where lambda < 2 / eta", bool(
            converged["catapult"].all() and (growth["catapult"] > 1).mean() > 0.95 and (end["catapult"] < 2).all()),
                f"{converged['catapult'].mean():.0%} of {len(lost['catapult'])} runs converge, "
                f"{(growth['catapult'] > 1).mean():.0%} after the loss grew (median by "
                f"{np.median(growth['catapult']):.3g}); largest eta lambda_T {number(end['catapult'].max())}"),
        Verdict("above 4 / lambda_0 training diverges", bool(lost["divergent"].all()),
                f"{lost['divergent'].mean():.0%} of {len(lost['divergent'])} runs are lost"),
        Verdict("loss and kernel follow the paper's recursion in two numbers", bool(gap < 1e-6),
                f"largest |difference| of lambda over the saved steps of the runs above: {gap:.1e} lambda_0"))


def _draw(found, path):
    m, one = list(found.items())[-1]
    shown = [int(np.argmin(np.abs(one["c"] - c))) for c in (1.0, 1.9, 2.4, 3.0, 3.6, 4.4)]
    note = (f"left two: width {m}, one start each; third: every run; right: all runs of a phase, of width {m}; "
            "dotted: the boundaries 2 and 4")
    survive = {"T": STEPS, "of": "runs", "labels": [*phases(one)],
               "curves": list(zip([one["gone"][phase] for phase in phases(one).values()],
                                  (COLOURS[0], COLOURS[3], COLOURS[5]), strict=True))}
    with sheet(path, 3, TITLE, note, (4.1, 4.2), survive) as axes:
        for k, colour in zip(shown, COLOURS, strict=False):
            label = f"{one['c'][k]:.2g}" + (" (lost)" if one["lost"][k] else "")
            loss = np.where(one["loss"][k] > 1e-12, one["loss"][k], np.nan)
            axes[0].plot(one["steps"], loss, color=colour, label=label)
            axes[1].plot(one["steps"], one["eta"][k] * one["kernel"][k], color=colour, label=label)
        axes[0].set(yscale="log", ylabel="training loss", ylim=(1e-12, 1e10))
        axes[1].set(ylabel="eta lambda_t", ylim=(0, 5))
        axes[1].axhline(2, color="black", linestyle=":", linewidth=1)
        for axis in axes[:2]:
            axis.set(xlabel="step", xlim=(0, 24))
            axis.legend(frameon=False, fontsize=8, title="eta lambda_0", title_fontsize=8, ncols=2)
        for (width, every), colour in zip(found.items(), COLOURS, strict=False):
            axes[2].plot(every["c"], every["kernel"][:, -1] / every["kernel"][:, 0], ".", color=colour,
                         label=f"width {width}")
            lost = every["lost"]
            axes[2].plot(every["c"][lost], np.zeros(lost.sum()), "x", color=colour, label=f"width {width}: lost")
        c = np.linspace(0.2, 4, 200)
        axes[2].plot(c, np.minimum(1, 2 / c), "k--", linewidth=1, label="2 / (eta lambda_0)")
        for edge in (2, 4):
            axes[2].axvline(edge, color="black", linestyle=":", linewidth=1)
        axes[2].set(xlabel="eta lambda_0", ylabel=f"lambda_T / lambda_0 after T = {STEPS} steps", ylim=(-0.05, 1.15))
        axes[2].legend(frameon=False, fontsize=8)
