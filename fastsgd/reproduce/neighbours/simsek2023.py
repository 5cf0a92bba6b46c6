"""Owns Simsek et al. 2023: students with too few units copy and average a teacher's, by flow on the exact loss."""

import numpy as np

from ... import metrics, models
from ...flow import flow
from ...polish import polish
from ...spec.population import Population
from ..record import Reproduction, Verdict
from .page import COLOURS, columns, number, sheet

NAME = "simsek2023"
TITLE = "Too few units: copy or average the teacher's (Simsek et al. 2023, arXiv 2311.01644)"

UNITS = 6  # of the teacher, orthonormal, output weights one
SCALING = (2**-0.5, 1.0)  # erf(w . x / sqrt 2)
SAME = 1e-6  # difference of losses that are one
COPIED = 0.9  # cosine with a teacher unit


def average(m):
    """The least loss of one unit (a, w) against m orthonormal ones, w along their sum, over its length |w|.

    With overlaps w. w_j = |w| / sqrt(m) and a at its best it is (m / 3 - m^2 I(w, w_j)^2 / I(w, w)) / 2, where
    I(u, v) = (2 / pi) asin(u . v / sqrt((1 + u^2)(1 + v^2))).
    """
    size = np.exp(np.linspace(-3, 4, 2001))
    for _ in range(8):  # the grid closes in on the best
        shared = np.arcsin(size / np.sqrt(2 * m * (1 + size**2)))
        loss = (m / 3 - 2 / np.pi * m**2 * shared**2 / np.arcsin(size**2 / (1 + size**2))) / 2
        best = int(np.clip(loss.argmin(), 1, len(size) - 2))
        size = np.linspace(size[best - 1], size[best + 1], 2001)
    return float(loss.min())


def make(replicas=None, seed=0, progress=None, quick=False):
    """Students of 1 .. 5 units for a teacher of 6, `replicas` starts (32) of each, flow to time 10,000.

    If quick 3 and 5 units, 8 starts, time 1000.
    """
    starts, widths = (replicas or 8, (3, 5)) if quick else (replicas or 32, range(1, UNITS))
    times = np.geomspace(1, 1000 if quick else 10_000, 40)
    teacher = _network(UNITS)
    data = Population(UNITS, teacher, {"W1": np.eye(UNITS), "W2": np.ones((1, UNITS))})
    results, found = {}, {"widths": list(widths), "ends": [], "known": [average(UNITS - n + 1) for n in widths]}
    for n in widths:
        result = flow(_network(n), data, times, networks=starts, seed=seed, progress=progress,
                      metrics=metrics.TrainLoss())
        results[f"units_{n}"] = result
        found["ends"].append(polish(result))
    found["curves"] = [result.numpy("train_loss") for result in results.values()]
    found["times"] = np.concatenate([[0], times])
    return Reproduction(NAME, TITLE, _table(found), _verdicts(found), results, lambda path: _draw(found, path))


def _network(units):
    return models.MLP(UNITS, units, activation="erf", bias=False, scaling=SCALING,
                      W_scale=(UNITS**-0.5, units**-0.5))


def _copies(ends):
    """[N]: units that have the direction of a teacher unit, each of another."""
    w = ends.params["W1"] / np.linalg.norm(ends.params["W1"], axis=-1, keepdims=True)
    return (np.abs(w) > COPIED).any(axis=1).sum(axis=-1)


def _table(found):
    rows, starts = [], len(found["ends"][0].loss)
    for n, known, ends in zip(found["widths"], found["known"], found["ends"], strict=True):
        there = np.abs(ends.loss - known) < SAME
        others = ends.loss[~there]
        rows.append((str(n), known, float(ends.loss.min()), f"{there.sum()} of {len(there)}",
                     "-" if not len(others) else f"{len(others)} at {number(others.min())}",
                     ", ".join(map(str, np.unique(_copies(ends)))), float(ends.gradient_norm.max())))
    return columns(TITLE, ("units", "copy-average loss", "least loss", "there", "elsewhere", "units that copy",
                           "largest gradient"), rows,
                   f"erf(w . x / sqrt 2), x ~ N(0, I), teacher of {UNITS} orthonormal units with output weights one, "
                   "loss 1/2 E r^2.", f"Gradient flow to time {found['times'][-1]:g} from {starts} starts, "
                   "then Newton's method. "
                   "Copy-average: n - 1 units copy, the last has the least loss against the rest.")


def _verdicts(found):
    few = [k for k, n in enumerate(found["widths"]) if n < UNITS - 1]
    last = found["widths"].index(UNITS - 1)
    off = max(np.abs(found["ends"][k].loss - found["known"][k]).max() for k in few)
    copying = all((_copies(found["ends"][k]) == found["widths"][k] - 1).all() for k in few)
    ends, known = found["ends"][last], found["known"][last]
    there, copies = np.abs(ends.loss - known) < SAME, _copies(ends)
    either = bool((copies[~there] == UNITS - 1).all() and (copies[there] == UNITS - 2).all())
    gradient = max(end.gradient_norm.max() for end in found["ends"])
    return (
        Verdict("with two units too few or more, every flow ends at the best copy-average point", bool(off < SAME),
                f"losses within {number(off)} of the closed form's"),
        Verdict("there all units but one copy a teacher unit, each another", copying, "by cosines beyond "
                f"{COPIED:g}"),
        Verdict("with one unit too few it ends there, or where each unit copies another teacher unit", either,
                f"{there.sum()} there at {number(known)}, {(~there).sum()} copy alone"
                + (f" at {number(ends.loss[~there].min())}" if (~there).any() else "")),
        Verdict("all ends are minima", bool(all((end.index() == 0).all() for end in found["ends"])),
                f"no Hessian has a falling direction, |gradient| at most {number(gradient)}"))


def _draw(found, path):
    note = f"left: all starts; dashed: the copy-average point; right: losses at the ends, {UNITS} units in the teacher"
    with sheet(path, 2, TITLE, note, size=(5.2, 4.2)) as axes:
        for n, curve, known, colour in zip(found["widths"], found["curves"], found["known"], COLOURS, strict=False):
            axes[0].plot(found["times"][1:], curve[:, 1:].T, color=colour, linewidth=0.6, alpha=0.5)
            axes[0].plot([], [], color=colour, label=f"{n} unit{'s' * (n > 1)}")
            axes[0].axhline(known, color=colour, linestyle="--", linewidth=1)
        axes[0].set(xscale="log", yscale="log", xlabel="time", ylabel="loss")
        axes[0].legend(frameon=False, fontsize=8)
        axes[1].plot(found["widths"], found["known"], "k--", linewidth=1, label="copy-average")
        for n, ends in zip(found["widths"], found["ends"], strict=True):
            axes[1].plot(np.full(len(ends.loss), n), ends.loss, "o", color=COLOURS[0], markersize=4, alpha=0.4)
        axes[1].set(xlabel="units of the student", ylabel="loss at the end", xticks=found["widths"])
        axes[1].legend(frameon=False, fontsize=8)
