"""Owns Even et al. 2023: how the step size moves the solution of diagonal networks, for GD and for SGD."""

import numpy as np

from ... import metrics, models, rules
from ...spec.problem import Dataset
from ...train import train
from ..record import Reproduction, Verdict
from .page import COLOURS, FEW, FEWEST, band, columns, draw_band, sheet

NAME = "even2023"
TITLE = "(S)GD over diagonal linear networks: step sizes (Even et al. 2023, arXiv 2302.08982)"

N_SAMPLES, D, SUPPORT = 20, 30, 3
STEPS = 100_000
START = np.sqrt(2) * 0.1
CONVERGED = 1e-4  # of a start near 1/2: past the largest converging step GD stays above 1e-3, and SGD is lost


def problem(seed):
    """(Dataset, beta* [d]): Gaussian inputs, labels of a vector with three equal entries and length 1."""
    rng = np.random.default_rng(seed)
    beta = np.zeros(D)
    beta[:SUPPORT] = SUPPORT**-0.5
    X = rng.standard_normal((N_SAMPLES, D))
    return Dataset(X, X @ beta), beta


def make(replicas=None, seed=0, progress=None, quick=False):
    """30 step sizes (12 if quick) for GD and SGD on 8 data sets (4), `replicas` sample orders (8, 4) of each."""
    etas = np.geomspace(0.08, 3, 12) if quick else np.geomspace(1e-2, 10, 30)
    sets, orders, steps = (4, replicas or 4, STEPS // 4) if quick else (8, replicas or 8, STEPS)
    results, parts = {}, {"gd": [], "sgd": []}
    for k in range(sets):
        data, beta = problem(seed + k)
        for rule, record, each in (("gd", rules.GD(), 1), ("sgd", rules.SGD(), orders)):
            result = results[f"{rule}_data{k}"] = train(
                models.DiagonalLinear(D, u0=START), data, rule=record, step_size=np.repeat(etas, each), steps=steps,
                metrics=(metrics.TrainLoss(), metrics.DistanceToTeacher(beta), metrics.Gain()), dtype="float64",
                seed=seed, progress=progress)
            parts[rule].append({name: a[:, -1].reshape(len(etas), each, *a.shape[2:])
                                for name, a in result.records.items()})
    found = {rule: _summary(part, etas) for rule, part in parts.items()}
    return Reproduction(NAME, TITLE, _table(found, etas, orders, steps), _verdicts(found), results,
                        lambda path: _draw(found, _lost(results, etas), etas, orders, steps, path))


def _summary(parts, etas):
    """Of one rule: records [E, data, orders], which runs converged, and by data set the largest converging step."""
    loss = np.stack([part["train_loss"] for part in parts], axis=1)
    converged = loss < CONVERGED  # lost runs have NaN
    most = converged.mean(axis=2) >= 0.5  # [E, data]
    last = len(etas) - 1 - most[::-1].argmax(axis=0)
    distance = np.stack([part["distance_to_teacher"] for part in parts], axis=1)
    gain = np.stack([part["gain"] for part in parts], axis=1)
    on, off = (np.where(converged, np.median(gain[..., where], axis=-1), np.nan)
               for where in (slice(0, SUPPORT), slice(SUPPORT, None)))
    return {"distance": np.where(converged, distance, np.nan), "converged": converged.mean(axis=(1, 2)),
            "lost": np.isnan(loss).mean(axis=(1, 2)), "on": on, "off": off, "last": last, "largest": etas[last]}


def _lost(results, etas):
    """{"GD, step size 3": lost [M]}: of each rule, the smallest and the largest step size at which runs are lost."""
    out = {}
    for rule in ("gd", "sgd"):
        lost = np.concatenate([result.lost.reshape(len(etas), -1) for name, result in results.items()
                               if name.startswith(f"{rule}_")], axis=1)
        some = np.flatnonzero((lost >= 0).any(axis=1))
        out |= {f"{rule.upper()}, step size {etas[k]:.3g}": lost[k] for k in some[[0, -1]]} if len(some) else {}
    return out


def _at(found, name, steps):
    """Median over data sets and orders of a record at the given index of the step size of each data set [data]."""
    return float(np.nanmedian([found[name][s, k] for k, s in enumerate(steps)]))


def _table(found, etas, orders, steps):
    rows = []
    for rule, one in found.items():
        last = one["last"]
        for label, at in (("smallest", 0 * last), ("1/4 of the largest", [np.argmin(np.abs(etas - s / 4))
                                                                         for s in one["largest"]]), ("largest", last)):
            rows.append((rule, label, np.median(etas[at]), *(_at(one, name, at) for name in ("distance", "on", "off"))))
    return columns(TITLE, ("rule", "converging step size", "median eta", "||u v - beta*||", "gain on support",
                           "gain off support"), rows,
                   f"h = <u v, x>, d={D}, n={N_SAMPLES}, {SUPPORT} equal entries of beta*, ||beta*|| = 1, loss 1/2 "
                   f"mean r^2, u0 = sqrt(2) 0.1, v0 = 0, {steps} steps.",
                   f"Medians over {len(found['gd']['last'])} data sets and, for SGD, {orders} sample orders of each; "
                   f"{len(etas)} step sizes in {etas[0]:g} .. {etas[-1]:g}.",
                   f"Converged: training loss below {CONVERGED:g} at the end, for at least half of the orders.")


def _verdicts(found):
    sgd, gd = found["sgd"], found["gd"]
    small, edge = {}, {}
    for rule, one in found.items():
        small[rule], edge[rule] = _at(one, "distance", 0 * one["last"]), _at(one, "distance", one["last"])
    best = band(sgd["distance"], axis=2)[1]  # [E, data]
    at_best = np.nanargmin(best, axis=0)
    near = np.mean([abs(b - s) <= 1 for b, s in zip(at_best, sgd["last"], strict=True)])
    ratio = {rule: _at(one, "on", one["last"]) / _at(one, "off", one["last"]) for rule, one in found.items()}
    gains = {rule: (_at(one, "off", 0 * one["last"]), _at(one, "off", one["last"])) for rule, one in found.items()}
    order = np.median(gd["largest"] / sgd["largest"])
    return (
        Verdict("SGD diverges at smaller step sizes than GD", bool(order > 1),
                f"largest converging step {np.median(sgd['largest']):.3g} (SGD), {np.median(gd['largest']):.3g} (GD)"),
        Verdict("large steps bring SGD closer to the sparse solution, best near the largest converging step",
                bool(edge["sgd"] < small["sgd"] / 2 and near > 0.7),
                f"distance {small['sgd']:.3g} at the smallest step, {edge['sgd']:.3g} at the largest; the best step is "
                f"within one grid point of the largest on {near:.0%} of the data sets"),
        Verdict("large steps take GD away from the sparse solution", bool(edge["gd"] > 1.2 * small["gd"]),
                f"distance {small['gd']:.3g} at the smallest step, {edge['gd']:.3g} at the largest"),
        Verdict("the gain grows with the step size", all(a < b for a, b in gains.values()),
                "; ".join(f"{rule}, off the support: {a:.3g} to {b:.3g}" for rule, (a, b) in gains.items())),
        Verdict("at the largest step the gain of GD sits on the support more than that of SGD",
                bool(ratio["gd"] > ratio["sgd"]),
                f"median gain on the support over that off it: {ratio['gd']:.3g} (GD), {ratio['sgd']:.3g} (SGD)"))


def _draw(found, gone, etas, orders, steps, path):
    note = (f"median and 10 to 90 % over {len(found['gd']['last'])} data sets (SGD: and {orders} orders) of the runs "
            f"that converged in {steps} steps; {FEW}; dotted upright: median largest converging step")
    survive = {"T": steps, "curves": list(zip(gone.values(), COLOURS[2:], strict=False)), "of": "runs",
               "labels": list(gone)}
    with sheet(path, 3, TITLE, note, (4.1, 4.2), survive) as axes:
        for (rule, one), colour in zip(found.items(), COLOURS, strict=False):
            label = rule.upper()
            axes[0].plot(etas, one["converged"], "o-", color=colour, markersize=3, label=f"{label}: converged")
            axes[0].plot(etas, one["lost"], "x:", color=colour, markersize=4, label=f"{label}: lost (not finite)")
            draw_band(axes[1], etas, one["distance"].reshape(len(etas), -1).T, colour, label=label, marker="o",
                      markersize=3)
            for name, style in (("on", "-"), ("off", "--")):
                axes[2].plot(etas, band(one[name].reshape(len(etas), -1), 1, FEWEST)[1], style, color=colour,
                             label=f"{label}, {name} the support")
            for axis in axes:
                axis.axvline(np.median(one["largest"]), color=colour, linestyle=":", linewidth=1)
        axes[2].set_yscale("log")
        for axis, label in zip(axes, ("share of runs", "distance ||u v - beta*||",
                                      "gain of a coordinate (median)"), strict=True):
            axis.set(xscale="log", xlabel="step size", ylabel=label)
            axis.legend(frameon=False, fontsize=8)

