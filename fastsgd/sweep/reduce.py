"""Owns reductions: what a worker makes of a range's records, with the same bits on every machine.

Sums are formed by halves, entry by entry, so that no instruction set has its own order; parts of a cell are put
together in the order of ranges; what counts is whole numbers. Records of lost networks are NaN and are left out.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import SpecError
from ..spec.check import real
from ..spec.record import Record

SUB = 4  # bins of a histogram within a factor of two
LEAST = -256  # exponent of the smallest number that has a bin of its own
DENSE = 1 << 20  # bins that are counted in a table
INFINITE = 2**30  # bin of what has no logarithm


@dataclass(frozen=True, eq=False)
class Part(Record):
    """Some networks of some cells, as a worker has them.

    values {metric: [cells, R, S] float64}: NaN where a network was lost; lost [cells, R] int64; steps [S]
    stopped [cells, R] int64: after how many steps they stopped, -1 if they did not
    """

    values: dict
    lost: np.ndarray
    steps: np.ndarray
    stopped: np.ndarray | None = None


class Reduction(Record, ABC):
    """A summary of the networks of each cell.

    `of` makes a state {key: array [cells, ...]} of a Part; `join` makes one state of those of the parts of the same
    cells, in order; `finish` gives {variable: (names of its axes after the cell's, array [cells, ...])}.
    """

    name = None
    by_cell = True  # whether a state has a row for each cell
    joins = True  # whether `join` gives what `of` would of the whole

    @abstractmethod
    def of(self, part: Any) -> Any:
        """The state of a Part."""

    @abstractmethod
    def join(self, states: Any) -> Any:
        """One state of the states of the parts of the same cells."""

    @abstractmethod
    def finish(self, state: Any) -> Any:
        """{variable: (axes, array)} of a state."""


def total(a: Any) -> np.ndarray:
    """Sum of a [cells, R, ...] over R, by halves: a fixed tree of additions, whatever the machine."""
    while a.shape[1] > 1:
        half, odd = a.shape[1] // 2, a[:, -1:] if a.shape[1] % 2 else None
        a = a[:, :half] + a[:, half:2 * half]
        if odd is not None:
            a = np.concatenate([a, odd], axis=1)
    return a[:, 0]


@dataclass(frozen=True, eq=False)
class Moments(Reduction):
    """Number, mean, deviation (over n - 1), smallest and largest of each metric at each saved step, over survivors."""

    name = "moments"

    def of(self, part: Any) -> Any:
        out = {}
        for metric, a in part.values.items():
            there = np.isfinite(a)
            whole = there.all()  # as most parts are

            def known(values, other, there=there, whole=whole):
                return values if whole else np.where(there, values, other)

            n = there.sum(axis=1)
            mean = np.where(n, total(known(a, 0.0)) / np.maximum(n, 1), np.nan)
            with np.errstate(over="ignore", invalid="ignore"):
                square = total(known((a - mean[:, None]) ** 2, 0.0))
            out |= {f"{metric}.n": n, f"{metric}.mean": mean, f"{metric}.square": np.where(n, square, np.nan),
                    f"{metric}.min": known(a, np.inf).min(axis=1), f"{metric}.max": known(a, -np.inf).max(axis=1)}
        return out

    def join(self, states: Any) -> Any:
        out = dict(states[0])
        for state in states[1:]:
            for metric in {key.rpartition(".")[0] for key in state}:
                a, b = ({key: s[f"{metric}.{key}"] for key in ("n", "mean", "square")} for s in (out, state))
                n = a["n"] + b["n"]
                with np.errstate(over="ignore", invalid="ignore"):
                    gap, share = b["mean"] - a["mean"], b["n"] / np.maximum(n, 1)
                    both = {"n": n, "mean": a["mean"] + gap * share,
                            "square": a["square"] + b["square"] + gap * gap * (a["n"] * share)}
                for key, value in both.items():
                    out[f"{metric}.{key}"] = value if key == "n" else np.where(a["n"] == 0, b[key], np.where(
                        b["n"] == 0, a[key], value))
                out[f"{metric}.min"] = np.minimum(out[f"{metric}.min"], state[f"{metric}.min"])
                out[f"{metric}.max"] = np.maximum(out[f"{metric}.max"], state[f"{metric}.max"])
        return out

    def finish(self, state: Any) -> Any:
        out = {}
        for metric in _metrics(state, "n"):
            n = state[f"{metric}.n"]
            with np.errstate(invalid="ignore", over="ignore"):
                deviation = np.where(n > 1, np.sqrt(state[f"{metric}.square"] / np.maximum(n - 1, 1)), np.nan)
            out |= {f"{metric}_n": (("step",), n), f"{metric}_mean": (("step",), state[f"{metric}.mean"]),
                    f"{metric}_std": (("step",), deviation)}
            for end in ("min", "max"):
                out[f"{metric}_{end}"] = ("step",), np.where(n > 0, state[f"{metric}.{end}"], np.nan)
        return out


@dataclass(frozen=True, eq=False)
class Quantiles(Reduction):
    """Exact quantiles of each metric at each saved step within each cell, over survivors, linear between neighbours.

    at: numbers in [0, 1]. A cell that lies in several ranges is reduced from its records, if all of them are kept
    """

    at: tuple = (0.1, 0.5, 0.9)
    name = "quantiles"
    joins = False

    def __post_init__(self):
        given = self.at if isinstance(self.at, (tuple, list, np.ndarray)) else (self.at,)
        object.__setattr__(self, "at", tuple(real(q, "quantiles.at", 0, high=1) for q in given))
        if not self.at:
            raise SpecError("quantiles.at: nothing given, expected numbers in [0, 1]")

    def of(self, part: Any) -> Any:
        return {metric: quantiles(a, self.at) for metric, a in part.values.items()}

    def join(self, states: Any) -> Any:
        return {key: np.full_like(a, np.nan) if len(states) > 1 else a for key, a in states[0].items()}

    def finish(self, state: Any) -> Any:
        return {f"{metric}_quantiles": (("quantile", "step"), a) for metric, a in state.items()}


def quantiles(a: Any, at: Any) -> np.ndarray:
    """Quantiles [cells, Q, S] of a [cells, R, S] over R, NaN left out; NaN where nothing is left."""
    a = np.sort(a, axis=1)  # NaN comes last
    n = (~np.isnan(a)).sum(axis=1)[:, None]
    out = []
    for q in at:
        place = q * np.maximum(n - 1, 0)
        low = np.floor(place).astype(np.int64)
        x, y = (np.take_along_axis(a, np.minimum(k, np.maximum(n - 1, 0)), axis=1) for k in (low, low + 1))
        with np.errstate(invalid="ignore"):
            out.append(np.where(n > 0, np.where(x == y, x, x + (y - x) * (place - low)), np.nan))
    return np.concatenate(out, axis=1)


@dataclass(frozen=True, eq=False)
class LostShare(Reduction):
    """Share of the networks of each cell that were lost before the end."""

    name = "lost"

    def of(self, part: Any) -> Any:
        return {"lost": (part.lost >= 0).sum(axis=1), "n": np.full(len(part.lost), part.lost.shape[1])}

    def join(self, states: Any) -> Any:
        return {key: sum(state[key] for state in states) for key in states[0]}

    def finish(self, state: Any) -> Any:
        share = np.where(state["n"] > 0, state["lost"] / np.maximum(state["n"], 1), np.nan)
        return {"lost_share": ((), share), "networks": ((), state["n"])}


@dataclass(frozen=True, eq=False)
class Survival(Reduction):
    """Share of the networks of each cell that are not lost at each saved step."""

    name = "survival"

    def of(self, part: Any) -> Any:
        lost = part.lost[:, :, None]
        return {"alive": ((lost < 0) | (lost > part.steps)).sum(axis=1), "n": np.full(len(lost), lost.shape[1])}

    def join(self, states: Any) -> Any:
        return {key: sum(state[key] for state in states) for key in states[0]}

    def finish(self, state: Any) -> Any:
        n = state["n"][:, None]
        return {"survival": (("step",), np.where(n > 0, state["alive"] / np.maximum(n, 1), np.nan))}


@dataclass(frozen=True, eq=False)
class FirstPassage(Reduction):
    """Share of the networks of each cell that a stop ended, and mean and deviation (over n - 1) of their steps."""

    name = "first_passage"

    def of(self, part: Any) -> Any:
        there = part.stopped >= 0
        n = there.sum(axis=1)
        steps = np.where(there, part.stopped, 0).astype(np.float64)
        mean = total(steps) / np.maximum(n, 1)
        square = total(np.where(there, (steps - mean[:, None]) ** 2, 0.0))
        return {"n": n, "networks": np.full(len(n), there.shape[1]), "mean": mean, "square": square}

    def join(self, states: Any) -> Any:
        out = states[0]
        for state in states[1:]:
            n = out["n"] + state["n"]
            gap, share = state["mean"] - out["mean"], state["n"] / np.maximum(n, 1)
            out = {"n": n, "networks": out["networks"] + state["networks"], "mean": out["mean"] + gap * share,
                   "square": out["square"] + state["square"] + gap * gap * (out["n"] * share)}
        return out

    def finish(self, state: Any) -> Any:
        n, networks = state["n"], state["networks"]
        with np.errstate(invalid="ignore", divide="ignore"):
            deviation = np.where(n > 1, np.sqrt(state["square"] / np.maximum(n - 1, 1)), np.nan)
        return {"stopped_share": ((), np.where(networks > 0, n / np.maximum(networks, 1), np.nan)),
                "stopped_mean": ((), np.where(n > 0, state["mean"], np.nan)), "stopped_std": ((), deviation)}


@dataclass(frozen=True, eq=False)
class Histogram(Reduction):
    """Counts of each metric at each saved step over all cells, in bins of the logarithm, a quarter of an octave wide.

    Whole numbers: whatever the order in which ranges are counted, the outcome is the same. It has no cells: states are
    {metric.bin [B], metric.step [B], metric.count [B]}, of the bins that are not empty. `bounds` says what a bin holds.
    """

    name = "histogram"
    by_cell = False

    def of(self, part: Any) -> Any:
        out = {}
        for metric, a in part.values.items():
            a = a.reshape(-1, a.shape[-1])
            there, steps = ~np.isnan(a), np.arange(a.shape[1])
            if not there.all():
                a, steps = a[there], np.broadcast_to(steps, a.shape)[there]
            out |= _counted(metric, bins(a), steps)
        return out

    def join(self, states: Any) -> Any:
        out = {}
        for metric in _metrics(states[0], "bin"):
            keys = (f"{metric}.{key}" for key in ("bin", "step", "count"))
            out |= _counted(metric, *(np.concatenate([state[key] for state in states]) for key in keys))
        return out

    def finish(self, state: Any) -> Any:
        return {f"{metric}_{key}": ((f"{metric}_bins",), state[f"{metric}.{key}"])
                for metric in _metrics(state, "bin") for key in ("bin", "step", "count")}


def bins(values: Any) -> np.ndarray:
    """The bin of each value [M]: an exact function of its bits, of either sign; 0 and infinities have their own."""
    values = np.asarray(values, np.float64)
    size = values.view(np.int64) >> 50  # sign, exponent, and the two digits after the first: SUB is 4
    negative = size < 0
    size &= 0x1FFF
    size -= SUB * (1022 + LEAST) - 1
    if values.size and (size.min() <= SUB or size.max() > SUB * (1024 - LEAST)):  # too small, 0, or infinite
        rare = (size <= SUB) | (size > SUB * (1024 - LEAST))
        some = values[rare]
        fraction = np.frexp(np.abs(some))[0]
        size[rare] = np.where(some == 0, 0, np.where(np.isinf(some), INFINITE, np.where(
            size[rare] > 0, size[rare], 1 + np.floor((fraction - 0.5) * (2 * SUB)))))
    return np.negative(size, out=size, where=negative)


def bounds(bin: Any) -> tuple:
    """(smallest size, next bin's smallest size) of what a bin > 0 holds."""
    place = abs(int(bin)) - 1
    exponent, part = LEAST + place // SUB, place % SUB
    return tuple(float(np.ldexp(0.5 + k / (2 * SUB), exponent)) for k in (part, part + 1))


def _counted(metric, bin, step, count=None):
    """Equal (bin, step) added up, in order; count: of each, by default 1."""
    steps = int(step.max(initial=0)) + 1
    code = (bin.astype(np.int64, copy=False) * steps + step).reshape(-1)
    low, high = (int(code.min()), int(code.max())) if len(code) else (0, 0)
    count = np.ones(len(code), np.int64) if count is None and high - low >= DENSE else count
    if count is None:
        sums = np.bincount(code - low)
        kinds = np.flatnonzero(sums)
        kinds, sums = kinds + low, sums[kinds]
    elif high - low < DENSE:  # counting is quicker than sorting
        sums = np.zeros(high - low + 1, np.int64)
        np.add.at(sums, code - low, count)
        kinds = np.flatnonzero(sums)
        kinds, sums = kinds + low, sums[kinds]
    else:
        kinds, where = np.unique(code, return_inverse=True)
        sums = np.zeros(len(kinds), np.int64)
        np.add.at(sums, where.reshape(-1), count)
    return {f"{metric}.bin": kinds // steps, f"{metric}.step": kinds % steps, f"{metric}.count": sums}


def _metrics(state, key):
    return [name.removesuffix(f".{key}") for name in state if name.endswith(f".{key}")]


def usual(replicas: int, stops: bool = False) -> tuple:
    """The reductions of a sweep that names none; stops: whether its run has any."""
    more = (FirstPassage(),) if stops else ()
    if replicas >= 8:
        return (Moments(), Quantiles(), LostShare(), Survival(), *more, Histogram())
    return (LostShare(), *more, Histogram())
