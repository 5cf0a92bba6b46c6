"""Owns the records that the planner fills and backends read: a Plan, and one Segment of its time."""

from dataclasses import field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import SpecError
from ..limits import MOST_THREADS
from .check import flag, whole
from .record import Record, record

TABLES = 64 << 20  # bytes that tables of a launch may take, or as many as the weights


@record(eq=True)
class Tuning:
    """Choices that change speed and never a bit of the result; None lets the plan choose.

    threads: CPU threads, 1 .. 4096
    team: lanes that share one network: on a CPU 1 or the vector's width, on a card 1 .. 32, or the threads of a block
    lanes: networks side by side in one vector; 1 with team 1 means scalar code
    segment: most steps in one launch, >= 1
    isa: instruction set of the CPU module, e.g. "v3"
    compiled: whether the CPU's time loop is compiled for this very run, its sizes and its rule known to the compiler:
        True (raises where there is no such loop or no g++), False, or None, where it pays
    networks, warps: of one program of the Triton backend, powers of two; they change its sums in the last bit
    """

    threads: int | None = None
    team: int | None = None
    lanes: int | None = None
    segment: int | None = None
    isa: str | None = None
    networks: int | None = None
    warps: int | None = None
    compiled: bool | None = None

    def __post_init__(self):
        for name in ("threads", "team", "lanes", "segment", "networks", "warps"):
            if getattr(self, name) is not None:
                high = MOST_THREADS if name == "threads" else None
                object.__setattr__(self, name, whole(getattr(self, name), f"tuning.{name}", 1, high))
        if self.compiled is not None:
            object.__setattr__(self, "compiled", flag(self.compiled, "tuning.compiled"))
        if not (self.isa is None or isinstance(self.isa, str)):
            raise SpecError(f"tuning.isa: {self.isa!r} given, expected the name of an instruction set, e.g. 'v3'")

    @property
    def chosen(self) -> dict[str, Any]:
        """{name: choice} of those that were made."""
        return {name: value for name, value in self.__dict__.items() if value is not None}


@record()
class Segment(Record):
    """Steps t0..t1 of every network in a plan.

    multiplier [Q, t1 - t0]: schedule values in the run's dtype; network k uses row plan.row[k]
    indices [1 or N, t1 - t0, B] uint32: explicit sample order, None if the backend draws
    counts [1 or N, t1 - t0] uint32: samples of each step, of B in a row; None where all have B
    noise {name: multiplier [Q, t1 - t0]}: as `multiplier`, for the amplitudes in plan.noises
    samples (X [N, t1 - t0, B, d], y [N, t1 - t0, B(, o)]): of a Stream, else None
    """

    t0: int
    t1: int
    multiplier: np.ndarray
    indices: np.ndarray | None
    noise: dict = field(default_factory=dict)
    samples: tuple | None = None
    counts: np.ndarray | None = None

    def part(self, t0, t1):
        """The Segment of steps t0..t1 of these; a Stream is not asked again."""
        def cut(array):
            return None if array is None else np.ascontiguousarray(array[:, t0 - self.t0:t1 - self.t0])
        noise = {name: cut(array) for name, array in self.noise.items()}
        samples = self.samples and tuple(map(cut, self.samples))
        return Segment(t0, t1, cut(self.multiplier), cut(self.indices), noise, samples, cut(self.counts))


@record()
class Plan(Record):
    """A validated run with every choice made.

    run: the request
    backend: backend name; reasons: why it was chosen
    ids [N] int64: the networks to run; keys [N] int64: the network word of their draws
    start [N, P] in the run's dtype: their starting weights; None in a run that goes on from others
    base [N], row [N] int32: step size base and schedule row of each network; table(t0, t1) -> [Q, t1 - t0] float64
    saves [S] int64: saved steps
    numbers {name: [N] float64}: the rule's hyper-parameters in use
    each [N, G, 3] float64: step scale, weight decay and localisation of each named array of parameters; None where all
        have the same
    noises {name: (base [N], row [N] int32, table)}: amplitudes of the rule's noises, like those of the step size
    losses [N, L] float64 or None: bound, factor and more of each network's loss; None where all have the same
    sets [N] int64 or None: of K data sets, the one that each network has
    levels: [N] float64 of each of the run's stops
    tuning: Tuning with every choice made by the backend
    memory: {what: bytes}
    work: the run in the words of kernels, a lowering.work.Work
    most: steps whose tables a launch may have
    cost: function (plan=None) -> ({what: seconds}, what they rest on, metrics without an estimate); see fastsgd/cost.py
    """

    run: Any
    backend: str
    reasons: tuple
    ids: np.ndarray
    keys: np.ndarray
    start: np.ndarray
    base: np.ndarray
    row: np.ndarray
    table: Any
    saves: np.ndarray
    tuning: Tuning
    numbers: dict = field(default_factory=dict)
    noises: dict = field(default_factory=dict)
    sets: np.ndarray | None = None
    levels: tuple = ()
    memory: dict = field(default_factory=dict)
    cost: Any = None
    work: Any = None
    each: np.ndarray | None = None
    losses: np.ndarray | None = None
    most: int = 1

    @staticmethod
    def _door(*given: Any) -> Any:
        """The function of fastsgd/train.py, which that module puts here: it stands above this one."""
        raise NotImplementedError

    def train(self, *, step_size: Any = None, seed: int | None = None, init: dict | None = None, progress: Any = None,
              checkpoint: Any = None) -> Any:
        """Train by this plan, also with another step size, seed or start: the bits of `fs.train` of such a Run.

        step_size, seed, init: as in fs.Run, for as many networks; None leaves what the plan has. Nothing else is
            checked, chosen or measured again, so that a short call costs little more than its steps
        progress, checkpoint: as in fs.train
        Returns a fs.Result. Raises SpecError or PlanError before anything runs.
        """
        return self._door(self, step_size, seed, init, progress, checkpoint)

    @property
    def plans(self) -> tuple:
        """Itself alone: Groups have several."""
        return (self,)

    @property
    def where(self) -> None:
        """None: its networks are all of the run's, in their order."""
        return None

    @property
    def expected(self) -> dict[str, float]:
        """{what: seconds} that the run is expected to take; {} where nobody has calibrated its backend.

        Of gradient flow a few networks are sent ahead for a moment, to count the steps that their tolerance wants.
        """
        return self.cost(self)[0]

    @property
    def N(self) -> int:
        """Number of networks that run."""
        return len(self.ids)

    @property
    def first(self) -> np.ndarray | None:
        """[N] int64 row of all data sets, one after the other, at which a network's begins; None if all share one."""
        return None if self.sets is None or not self.run.data.n else self.sets * self.run.data.n

    @cached_property
    def fresh_each(self) -> dict[str, np.ndarray]:
        """{"density", "scale", "teachers": [N, ...]}: what samples made on the way have for each network."""
        return {name: np.ascontiguousarray(a[self.sets] if len(a) > 1 or self.sets is not None else
                                           np.broadcast_to(a, (self.N, *a.shape[1:])))
                for name, a in self.work.fresh_each.items()}

    @property
    def batch(self) -> int:
        """Samples in one step."""
        return self.work.batch

    def most_steps(self, table_bytes: int) -> int:
        """Steps whose tables, so many bytes each, a launch may have."""
        weights = self.N * self.work.P * self.work.item
        return max(1, max(TABLES, weights) // max(1, table_bytes))

    @property
    def made_bytes(self) -> int:
        """Bytes that one step takes more while a Segment is made: schedules in float64, samples as they are given."""
        stream = self.N * self.batch * (self.run.data.d + self.run.model.outputs) * (self.run.data.kind == "stream")
        return 28 * self.schedules + 16 * stream

    @cached_property
    def schedules(self) -> int:
        """Schedules of step sizes and noises: rows of multipliers in a Segment."""
        tables = (self.table, *(table for _, _, table in self.noises.values()))
        return sum(len(table) if hasattr(table, "__len__") else len(table(0, 1)) for table in tables)

    @property
    def step_bytes(self) -> int:
        """Bytes that one step takes in a Segment."""
        run, item = self.run, self.work.item
        order = getattr(run.order, "table", None)
        each = 4 * (self.batch + self.work.ragged)
        given = 0 if order is None else each * (1 if len(order) == 1 else self.N)
        stream = self.N * self.batch * (run.data.d + run.model.outputs) if run.data.kind == "stream" else 0
        return item * (self.schedules + stream) + given

    def segment(self, t0: int, t1: int) -> Segment:
        """The Segment of steps t0..t1."""
        run, table = self.run, getattr(self.run.order, "table", None)
        indices = None
        if table is not None:
            rows = table[:, t0:t1] if len(table) == 1 else table[self.ids, t0:t1]
            indices = np.ascontiguousarray(rows, dtype=np.uint32)
        noise = {name: np.ascontiguousarray(table(t0, t1), dtype=run.dtype)
                 for name, (_, _, table) in self.noises.items()}
        samples = run.data.draw(self.keys, t0, t1, self.batch, run.dtype) if run.data.kind == "stream" else None
        multiplier = np.ascontiguousarray(self.table(t0, t1), dtype=run.dtype)
        return Segment(t0, t1, multiplier, indices, noise, samples, self.counts(t0, t1))

    def counts(self, t0: int, t1: int) -> np.ndarray | None:
        """Samples of each step [1 or N, t1 - t0] uint32, None where all have the same number."""
        if not self.work.ragged:
            return None
        counts = self.run.order.counts(t0, t1, self.run.data.n, self.batch)
        return np.ascontiguousarray(counts if len(counts) == 1 else counts[self.ids])

    def part(self, positions: np.ndarray) -> "Plan":
        """The Plan of the networks at `positions` [M] alone, of the same choices and bits."""
        own = {name: getattr(self, name)[positions] for name in ("ids", "keys", "base", "row")}
        own["start"] = None if self.start is None else self.start[positions]
        noises = {name: (base[positions], row[positions], table) for name, (base, row, table) in self.noises.items()}
        return replace(self, **own, noises=noises, numbers={name: a[positions] for name, a in self.numbers.items()},
                       sets=None if self.sets is None else self.sets[positions],
                       each=None if self.each is None else self.each[positions],
                       losses=None if self.losses is None else self.losses[positions],
                       levels=tuple(level[positions] for level in self.levels))

    def fresh_buffers(self) -> np.ndarray:
        """What each network carries from step to step besides its weights, at the start: [N, K, P]."""
        out = np.zeros((self.N, len(self.work.buffers), self.work.P), self.run.dtype)
        return self.run.rule.begin(out, self.start, self.run.model.shapes(), self.ids) if self.work.buffers else out

    def _per_network(self):
        """What to say of step sizes [N] that may have been meant as [T]."""
        base = getattr(self.run.step_size, "base", None)
        if np.ndim(base) == 0 or len(base) != self.run.steps or len(base) == 1:
            return ""
        return (f"; {len(base)} were given, one for each network, as many as there are steps: for one at each step, "
                "say fs.StepTable(values)")

    def explain(self) -> str:
        """A plain text: backend, instruction set, lanes, segments, memory, and why."""
        run, tuning = self.run, self.tuning
        lines = [
            f"{type(run.model).__name__}: N={self.N} networks, P={run.model.P} parameters, T={run.steps} steps, "
            + ("all Gaussian inputs at once" if run.data.kind == "population" else
               f"n={run.data.n} samples" if run.data.n else "samples made on the way")
            + (f" of a data set of their own, of {run.data.sets}" if run.data.sets else "")
            + f", {type(run.rule).__name__} with {self.batch} a step, {run.dtype}",
            f"loss: {run.loss.name} with factor {_range(np.asarray(run.loss.factor))}; "
            f"order: {type(run.order).__name__}"
            + "".join(f"; {name} {_range(values)}" for name, values in self.numbers.items())
            + "".join(f"; {name} {_range(base * table(0, 1)[row, 0])} at the first step"
                      for name, (base, row, table) in self.noises.items()),
            f"step size: base {_range(self.base)}, {len(self.table(0, 1))} schedule(s)" + self._per_network(),
            f"saved steps: {len(self.saves)} ({self.saves[0]} .. {self.saves[-1]}), metrics: "
            + (", ".join(metric.name for metric in run.metrics) or "none"),
            *(f"stop: where {stop.named} {stop.sign} {_range(stop.level)}, looked at every {stop.every} steps"
              for stop in run.stop),
            *([f"starts from init, at step 0 with the draws of seed {run.seed}: weights that a run with this seed has "
               "left would meet its draws again; fs.extend and fs.fork go on"] * (run.init is not None)),
            f"backend: {self.backend}",
            *(f"  {reason}" for reason in self.reasons),
            "segments: cut at saved steps" + (f" and every {tuning.segment} steps" if tuning.segment else
                                               " and so that a launch takes about a quarter of a second"),
            "memory: " + ", ".join(f"{name} {_size(size)}" for name, size in self.memory.items())
            + f"; {_size(sum(self.memory.values()))} in all",
            _seconds(*self.cost(self)),
        ]
        return "\n".join(lines)


@record()
class Groups(Record):
    """The plans of a run whose networks have batch sizes of their own: one for each size.

    run: the request; ids [N] int64: its networks; plans; where: for each plan, positions of its networks among `ids`
    """

    run: Any
    ids: np.ndarray
    plans: tuple
    where: tuple
    _door = Plan._door
    train = Plan.train

    @property
    def N(self) -> int:
        """Number of networks that run."""
        return len(self.ids)

    @property
    def saves(self) -> np.ndarray:
        """[S] int64: saved steps."""
        return self.plans[0].saves

    @property
    def expected(self) -> dict[str, float]:
        """{what: seconds} that all groups together are expected to take; {} where that of one is not known."""
        return _summed([one.expected for one in self.plans])

    @property
    def memory(self) -> dict[str, int]:
        """{what: bytes} of all groups together: an upper bound, since they run one after the other."""
        return _summed([one.memory for one in self.plans])

    def explain(self) -> str:
        """A plain text: the groups, then each as a Plan explains itself."""
        sizes = ", ".join(f"{len(at)} with {one.batch} a step" for one, at in zip(self.plans, self.where, strict=True))
        return "\n".join([f"{self.N} networks in {len(self.plans)} groups, run one after the other: {sizes}",
                          *(one.explain() for one in self.plans)])


def _summed(parts):
    """{what: sum} of some {what: number}; {} where one of them is empty."""
    return {what: sum(part.get(what, 0) for part in parts) for part in parts for what in part} if all(parts) else {}


def _range(values):
    return f"{values.min():g}" if values.min() == values.max() else f"{values.min():g} .. {values.max():g}"


def _seconds(seconds, words, unknown):
    if not seconds:
        return f"expected: unknown, for {words}"
    parts = ", ".join(f"{name} {_time(s)}" for name, s in seconds.items())
    more = f"; no estimate for {', '.join(unknown)}" if unknown else ""
    return f"expected: {_time(sum(seconds.values()))} ({parts}{more}), by {words}"


def _time(seconds):
    """Two digits and a unit that suits them."""
    size, unit = next((pair for pair in ((1, "s"), (1e-3, "ms")) if seconds >= pair[0]), (1e-6, "us"))
    return f"{float(f'{seconds / size:.2g}'):.10g} {unit}"


def _size(count):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
