"""Owns the step size: a base per network times a schedule, evaluated in float64 to a table of multipliers."""

from typing import Any

import numpy as np

from ..errors import SpecError
from . import elementary
from .check import BELOW_ONE, Array, as_array, finite, frozen, one_of, per_network, used
from .record import Record, record

__all__ = ["Constant", "Cosine", "Schedule", "StepSize", "StepTable", "Warmup"]
DECAY_TIMINGS = ("before", "after")


@record()
class Warmup(Record):
    """Growth of the step size from its base until the first decay (or `until`), with t_w = int(until * T).

    shape "power":        multiplier(t) = 1 + (factor - 1) * s**power
    shape "exponential":  multiplier(t) = factor**s
    clock "run": s = min(t, t_w) / T, so that the peak is base * (1 + (factor - 1) * until**power): the convention of
        the authors' ReLU experiments (arXiv 2210.05337)
    clock "own": s = min(t, t_w) / t_w, so that the peak is base * factor

    factor [] or [N]: multiplier at s = 1, > 0
    power [] or [N]: exponent of shape "power", > 0 (1 linear, 0.5 square root)
    until [] or [N]: fraction of the run at which growth ends, in [0, 1]; by default the decay time, or 1
    """

    factor: float | Array
    power: float | Array = 1.0
    until: float | Array | None = None
    shape: str = "power"
    clock: str = "run"

    def __post_init__(self):
        put = object.__setattr__
        put(self, "factor", per_network(self.factor, "warmup.factor", 0, low_open=True))
        put(self, "power", per_network(self.power, "warmup.power", 0, low_open=True))
        if self.until is not None:
            put(self, "until", per_network(self.until, "warmup.until", 0, high=1))
        one_of(self.shape, "warmup.shape", ("power", "exponential"))
        one_of(self.clock, "warmup.clock", ("run", "own"))

    def __call__(self, t: Any, T: int, factor: Any, power: Any, until: Any) -> Any:
        """Multipliers at steps t, for columns of factor, power and until."""
        end = np.floor(until * T)
        s = np.minimum(t, end) / (T if self.clock == "run" else np.maximum(end, 1.0))
        if self.shape == "exponential":
            return elementary.exp(s * elementary.log(factor))
        return 1 + (factor - 1) * elementary.power(s, power)


@record()
class Cosine(Record):
    """Cosine annealing from 1 at step t_0 = int(start * T) to `final` at step T.

    multiplier(t) = final + (1 - final) * (1 + cos(pi * (max(t, t_0) - t_0) / (T - t_0))) / 2

    final [] or [N]: in [0, 1]; start [] or [N]: fraction of the run, in [0, 1). Source: arXiv 1608.03983
    """

    final: float | Array = 0.0
    start: float | Array = 0.0

    def __post_init__(self):
        object.__setattr__(self, "final", per_network(self.final, "cosine.final", 0, high=1))
        object.__setattr__(self, "start", per_network(self.start, "cosine.start", 0, high=BELOW_ONE))

    def __call__(self, t: Any, T: int, final: Any, start: Any) -> Any:
        """Multipliers at steps t, for columns of final and start."""
        begin = np.floor(start * T)
        half = (np.maximum(t, begin) - begin) / (2 * (T - begin))  # turns: half a turn over the whole
        return final + (1 - final) * (1 + elementary.sincos_turns(half)[1]) / 2


class Schedule(Record):
    """A number for each network and step: base[k] * multiplier[row[k], t]."""

    constant = False  # whether each network has one step size all along

    def lengths(self) -> dict[str, int]:
        """{field: number of networks it was given for}, fields given once left out."""
        return {}

    def compile(self, N: int, T: int) -> tuple:
        """Return (base [N] float64, row [N] int32, table): networks of equal schedule share one row of the table.

        table(t0, t1) gives multipliers [Q, t1 - t0] in float64, one row per distinct schedule.
        """
        raise NotImplementedError


@record()
class StepSize(Schedule):
    """Step size of network k at step t: base[k] * multiplier[k, t].

    multiplier(t) = warmup(t) cosine(t) / prod over decays with t >= t_star of decay_by,  t_star = int(decay_at * T)

    base [] or [N]: step size per sample-gradient step, finite and > 0
    decay_at [], [N] or [N, m]: fraction of the run after which the step is divided, in [0, 1]; [1, m] or [N, m] gives
        m decays in a row; 1 means never
    decay_by, like decay_at: the divisor, > 0
    decay_timing: "before" divides before step t_star is taken (the authors' ReLU code), "after" divides after it, so
        that t_star + 1 is the first smaller step (the authors' diagonal code)
    warmup: a Warmup, or None
    cosine: a Cosine, or None
    Raises SpecError if a field is outside its range.
    """

    base: float | Array
    decay_at: float | Array | None = None
    decay_by: float | Array = 1.0
    decay_timing: str = "before"
    warmup: Warmup | None = None
    cosine: Cosine | None = None

    def __post_init__(self):
        put = object.__setattr__
        put(self, "base", per_network(self.base, "step_size", 0, low_open=True))
        never = type(self.decay_by) is float and self.decay_by == 1.0  # as most step sizes have it
        put(self, "decay_by", per_network(self.decay_by, "step_size.decay_by", 0, low_open=True, extra_axes=1))
        if self.decay_at is None:
            if not never and used(self.decay_by - 1):
                raise SpecError("step_size.decay_by: given without decay_at, say when to divide")
        else:
            put(self, "decay_at", per_network(self.decay_at, "step_size.decay_at", 0, high=1, extra_axes=1))
            decays, divisors = (_rows(a).shape[1] for a in (self.decay_at, self.decay_by))
            if divisors not in (1, decays):
                raise SpecError(f"step_size.decay_by: has {divisors} divisors, decay_at has {decays} decays")
        one_of(self.decay_timing, "step_size.decay_timing", DECAY_TIMINGS)
        if self.warmup is not None and not isinstance(self.warmup, Warmup):
            raise SpecError(f"step_size.warmup: {type(self.warmup).__name__} given, expected fs.Warmup or None")
        if self.cosine is not None and not isinstance(self.cosine, Cosine):
            raise SpecError(f"step_size.cosine: {type(self.cosine).__name__} given, expected fs.Cosine or None")

    @property
    def constant(self) -> bool:
        """Whether it is so: no decay, no warmup, no cosine."""
        return self.decay_at is None and self.warmup is None and self.cosine is None

    def lengths(self) -> dict[str, int]:
        if self.constant and not self.decay_by.ndim:
            return {"step_size": len(self.base)} if self.base.ndim else {}
        fields = {"step_size": self.base, "step_size.decay_at": self.decay_at, "step_size.decay_by": self.decay_by}
        if self.warmup is not None:
            fields |= {f"warmup.{name}": getattr(self.warmup, name) for name in ("factor", "power", "until")}
        if self.cosine is not None:
            fields |= {f"cosine.{name}": getattr(self.cosine, name) for name in ("final", "start")}
        long = {name: a.shape[0] for name, a in fields.items() if a is not None and a.ndim and a.shape[0] > 1}
        if self.base.ndim:
            long["step_size"] = len(self.base)
        return long

    def compile(self, N: int, T: int) -> tuple:
        if self.constant:
            base = self.base if self.base.ndim else np.full(N, self.base)
            return np.broadcast_to(base, (N,)) if len(base) != N else base, np.zeros(N, np.int32), _Table(
                np.empty((1, 0)), 0, (), T)
        population, N = N, N if self.lengths().keys() - {"step_size"} else 1  # one row where all have one schedule
        wide = np.full((N, 1), np.inf) if self.decay_at is None else np.broadcast_to(_rows(self.decay_at), (
            N, _rows(self.decay_at).shape[1]))
        starts = np.where(wide < 1, np.floor(wide * T), np.inf)  # [N, m] first smaller step
        if self.decay_timing == "after":
            starts = starts + 1
        divisor = np.broadcast_to(_rows(self.decay_by), starts.shape)
        columns, parts = [starts, divisor], []
        if self.warmup is not None:
            until = self.warmup.until
            if until is None:
                until = 1.0 if self.decay_at is None else np.minimum(_rows(self.decay_at).min(axis=1), 1)
            columns += [_column(a, N) for a in (self.warmup.factor, self.warmup.power, until)]
            parts.append((self.warmup, 3))
        if self.cosine is not None:
            columns += [_column(a, N) for a in (self.cosine.final, self.cosine.start)]
            parts.append((self.cosine, 2))
        kinds, row = np.concatenate(columns, axis=1), np.zeros(population, np.int32)
        if N > 1:
            kinds, row = distinct(kinds)
        table = _Table(kinds, starts.shape[1], tuple(parts), T)
        return np.broadcast_to(self.base, (population,)), row.reshape(population).astype(np.int32), table


@record()
class StepTable(Schedule):
    """An explicit step size for every step, in place of a schedule.

    values [T] or [N, T]: step sizes, finite and >= 0
    """

    values: Array

    def __post_init__(self):
        values = finite(as_array(self.values, "step_size", ndim=(1, 2)), "step_size")
        if values.size == 0 or values.min() < 0:
            given = values.min() if values.size else "nothing"
            raise SpecError(f"step_size: table of shape {values.shape} holds {given}, expected step sizes >= 0")
        object.__setattr__(self, "values", frozen(values))

    @property
    def steps(self) -> int:
        """Number of steps T the table covers."""
        return self.values.shape[-1]

    def lengths(self) -> dict[str, int]:
        return {"step_size": len(self.values)} if self.values.ndim == 2 else {}

    def compile(self, N: int, T: int) -> tuple:
        # base is 1 and each given row is its own schedule
        table = np.atleast_2d(self.values)
        row = np.zeros(N, np.int32) if len(table) == 1 else np.arange(N, dtype=np.int32)
        return np.ones(N), row, lambda t0, t1: table[:, t0:t1].astype(np.float64)


@record()
class Constant(Schedule):
    """One number for the whole run, which may be zero: an amplitude rather than a step size.

    value [] or [N]: >= 0
    """

    value: float | Array
    field: str = "value"

    def __post_init__(self):
        object.__setattr__(self, "value", per_network(self.value, self.field, 0))

    def lengths(self) -> dict[str, int]:
        return {self.field: len(self.value)} if self.value.ndim else {}

    def compile(self, N: int, T: int) -> tuple:
        return np.broadcast_to(self.value, (N,)), np.zeros(N, np.int32), lambda t0, t1: np.ones((1, t1 - t0))


@record()
class _Table(Record):
    """Distinct schedules `kinds` [Q, 2m + ...]: first smaller steps, divisors, then the columns of each of `parts`."""

    kinds: Array
    m: int
    parts: tuple
    T: int

    def __len__(self):
        return len(self.kinds)

    def __call__(self, t0, t1):
        out = np.empty((len(self.kinds), t1 - t0))
        out.fill(1.0)
        if not (self.m or self.parts):
            return out
        t = np.arange(t0, t1, dtype=np.float64)[None, :]
        at = 2 * self.m
        for part, count in self.parts:
            out = out * part(t, self.T, *(self.kinds[:, at + k, None] for k in range(count)))
            at += count
        for k in range(self.m):
            out = np.where(t >= self.kinds[:, k, None], out / self.kinds[:, self.m + k, None], out)
        return out


def distinct(rows):
    """(distinct rows in order, which of them each is) of an array [N, m]; neighbours are often equal."""
    new = np.ones(len(rows), bool)
    new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    kinds, which = np.unique(rows[new], axis=0, return_inverse=True)
    return kinds, which.reshape(-1)[np.cumsum(new) - 1]


def _column(array, N):
    """View [] or [N] as [N, 1]."""
    return np.broadcast_to(np.asarray(array, dtype=float).reshape(-1, 1), (N, 1))


def _rows(array):
    """View [] as [1, 1], [N] as [N, 1], [N, m] as it is, in float64."""
    array = np.asarray(array, dtype=float)
    return array.reshape(-1, 1) if array.ndim < 2 else array
