"""Owns the only loop over segments: advance, read, measure, note what was lost."""

import os
import platform
import time
from functools import cache, cached_property

import numpy as np

from . import backends, measure, origin
from .errors import SpecError
from .plan import PART
from .plan import plan as make_plan
from .result import Result
from .rules import GD
from .settle import settle
from .spec.planned import Tuning

LAUNCH_SECONDS = 0.25  # of a launch: bars move and checkpoints are written between launches, which cost nothing then


class Progress:
    """Everything that changes during an execution, and all that a checkpoint needs besides the run.

    t: steps done; taken: saved steps done; seconds: spent so far, by what
    weights [N, P]; lost [N]; buffers [N, K, P]: what the rule carries from step to step
    records {metric: [N, S, ...]}; saved_weights [N, S, P] or None
    alive: networks that are not lost
    After a launch weights, buffers and `lost` are read from the backend when somebody asks, since they may be far away.
    """

    def __init__(self, t, taken, weights, lost, buffers, records, saved_weights, seconds):
        self.t, self.taken, self.seconds, self.alive = t, taken, seconds, int(np.count_nonzero(lost < 0))
        self.records, self.saved_weights = records, saved_weights
        self._state, self._read, self._lost, self._flags = (weights, buffers), None, lost, None

    @classmethod
    def fresh(cls, plan):
        """The progress of a plan that has not begun."""
        kept = None
        if plan.run.save.params:
            kept = np.full((plan.N, len(plan.saves), plan.run.model.P), np.nan, plan.run.dtype)
        return cls(0, 0, plan.start, np.full(plan.N, -1, np.int64), plan.fresh_buffers(), {}, kept,
                   {"training": 0.0, "metrics": 0.0})

    @property
    def lost(self):
        if self._lost is None:
            self._lost = self._flags()
        return self._lost

    @property
    def weights(self):
        return self._now()[0]

    @property
    def buffers(self):
        return self._now()[1]

    def _now(self):
        if self._state is None:
            self._state = self._read()
        return self._state

    def moved(self, backend, state, alive):
        """The state has changed: take note of how many are left, and of how to read the rest."""
        self._state, self._read = None, lambda: backend.read(state)
        self._lost, self._flags = None, lambda: backend.lost(state)
        self.alive = alive

    def copy(self):
        """A Progress that no launch changes."""
        return Progress(self.t, self.taken, self.weights.copy(), self.lost.copy(), self.buffers.copy(), self.records,
                        self.saved_weights, self.seconds)


def execute(plan, progress=None, on_launch=None):
    """Run a plan from `progress` (by default its beginning) to its end.

    on_launch: called with the Progress after every launch, e.g. to draw a bar or write a checkpoint; what it
        reads of the live state is not to be written to
    Returns a Result.
    """
    backend = backends.by_name(plan.backend)
    done = Progress.fresh(plan) if progress is None else progress
    place = measure.place(plan.backend, plan.work, plan.N).begin(plan) if plan.run.metrics else None
    state = backend.load(plan, done.weights, done.lost, done.buffers, place and place.reserved)
    pace = _Pace(plan, backend)
    done.moved(backend, state, done.alive)
    while done.taken < len(plan.saves) or done.t < plan.run.steps:
        stop = int(plan.saves[done.taken]) if done.taken < len(plan.saves) else plan.run.steps
        while done.t < stop and done.alive:
            segment = plan.segment(done.t, min(stop, done.t + pace.steps))
            began = time.perf_counter()
            backend.advance(state, segment)
            spent = time.perf_counter() - began
            alive = settle(backend, state, segment)
            done.t = segment.t1
            done.seconds["training"] += time.perf_counter() - began
            done.moved(backend, state, alive)
            pace.learn(segment.t1 - segment.t0, spent)
            if on_launch:
                on_launch(done)
        done.t = stop
        if done.taken < len(plan.saves):
            began = time.perf_counter()
            _record(plan, place, state, done, pace)
            done.seconds["metrics"] += time.perf_counter() - began
            if on_launch:
                on_launch(done)
    return Result(run=plan.run, steps=plan.saves, ids=plan.ids, base=plan.base, lost=done.lost,
                  weights=done.weights, records=done.records, saved_weights=done.saved_weights,
                  provenance=_provenance(plan, done), buffers=done.buffers if done.buffers.shape[1] else None)


class _Pace:
    """Steps a launch, and networks a metric call, so that each takes LAUNCH_SECONDS. They do not change bits.

    most: steps whose tables fit the memory; least: steps that are worth a launch, however long they take
    """

    def __init__(self, plan, backend):
        self.most = plan.most_steps(backend.table_bytes(plan))
        self.least = min(self.most, max(1, backend.worth_a_launch // plan.batch))
        self.fixed = plan.tuning.segment and min(plan.tuning.segment, self.most)
        self.networks = {}  # {metric: networks a call}
        self.steps = self.fixed or min(self.most, self._first(plan))

    def _first(self, plan):
        """Steps of the first launch: a guess that is safe anywhere, or what the plan expects, with room for error."""
        safe, T = max(self.least, int(1e8 // (plan.N * plan.run.model.P * plan.batch))), plan.run.steps
        expected = plan.expected.get("training") if safe < T else None  # costs as much as a short run
        return max(safe, int(T * LAUNCH_SECONDS / 3 / expected)) if expected else safe

    def learn(self, steps, spent):
        """Take note that a launch of so many steps took so many seconds."""
        if not self.fixed:
            better = min(steps * LAUNCH_SECONDS / max(spent, 1e-6), 4.0 * max(self.steps, steps))
            self.steps = int(min(self.most, max(self.least, better)))


def _record(plan, place, state, done, pace):
    """Evaluate all metrics at the current step into column `taken`; what is lost gets NaN."""
    alive = np.flatnonzero(done.lost < 0)
    s, run = done.taken, plan.run
    taken = _taken(plan, done, alive)
    for metric in run.metrics:
        for members, values in _measured(plan, place, state, metric, taken, pace):
            if metric.name not in done.records:
                done.records[metric.name] = _empty(plan, metric, values.shape[1:])
            record = done.records[metric.name]
            if values.shape[1:] != record.shape[2:]:
                raise SpecError(f"metrics: {metric.name} returned shape {values.shape}, expected "
                                f"{(len(members), *record.shape[2:])}")
            record[members, s] = values
        if metric.name not in done.records:  # no network was left to measure
            done.records[metric.name] = _empty(plan, metric, ())
    if done.saved_weights is not None:
        done.saved_weights[taken.who, s] = taken.weights
    done.taken += 1


class _Taken:
    """The networks that a step is measured on.

    who [M]: their positions; weights [M, P], read when somebody asks; held: whether they are the state's own
    """

    def __init__(self, who, read, held):
        self.who, self.held, self._read = who, held, read

    @cached_property
    def weights(self):
        return self._read()


def _empty(plan, metric, shape):
    """A record of NaN; `shape` is that of one value where the metric does not know it."""
    axes = metric.axes(plan.run.model, plan.run.data)
    shape = shape if axes is None else tuple(len(labels) for labels in axes.values())
    return np.full((plan.N, len(plan.saves), *shape), np.nan)


def _taken(plan, done, alive):
    """What the metrics of this step are taken on, as `SaveAt` says; the lost left out."""
    run = plan.run

    def read():
        weights = done.weights if run.save.of == "weights" else done.buffers[:, run.rule.buffers().index("average")]
        return weights[alive] if len(alive) < len(weights) else weights

    if run.save.floor is None or not len(alive):
        return _Taken(alive, read, run.save.of == "weights")
    down = run.replace(rule=GD(lost_above=run.rule.lost_above), step_size=run.save.floor.step_size, order=None,
                       steps=run.save.floor.steps, networks=len(alive), init=run.model.unflatten(read()), save=None,
                       metrics=(), ids=None, backend=plan.backend)
    result = execute(make_plan(down, Tuning(threads=plan.tuning.threads)))
    kept = result.lost < 0
    return _Taken(alive[kept], lambda: result.weights[kept], False)


def _measured(plan, place, state, metric, taken, pace):
    """Yield (positions, values) of a metric, so few networks at a time that Ctrl-C is answered within a second."""
    at, run = 0, plan.run
    points = max(run.data.n, 0 if run.data.X_test is None else len(run.data.X_test))
    most = max(4 * (plan.tuning.threads or 1), PART // (24 * run.model.P + 48 * points * run.model.outputs))
    while at < len(taken.who):
        size = min(pace.networks.get(metric.name) or place.first(metric), most)
        who = taken.who[at:at + size]
        began = time.perf_counter()
        with np.errstate(over="ignore"):  # a network about to be lost may overflow: inf is its value
            values = place.measure_held(state, metric, who) if taken.held else None
            if values is None:
                values = _read_and_measured(plan, place, metric, who, taken.weights[at:at + size])
        yield who, values
        at += len(who)
        spent = max(time.perf_counter() - began, 1e-6)
        pace.networks[metric.name] = int(min(4 * size, max(16, len(who) * LAUNCH_SECONDS / spent)))


def _read_and_measured(plan, place, metric, who, weights):
    """Values of a metric for the networks `who` [M] with weights [M, P], by a kernel or the metric's own definition."""
    run, start = plan.run, {}
    values = place.measure(metric, weights)
    if values is not None:
        return values
    if metric.needs_start:
        start["start"] = measure.float64_params(run.model, plan.start[who])
    return metric.compute(run.model, measure.float64_params(run.model, weights), run.data, run.loss, **start)


@cache
def _machine():
    return {"numpy": np.__version__, "python": platform.python_version(), "machine": platform.machine(),
            "processors": os.cpu_count()}


def _provenance(plan, done):
    from . import __version__

    return {"fastsgd": __version__, **_machine(), **origin.here(), "backend": plan.backend, "device": _device(plan),
            "tuning": {name: value for name, value in vars(plan.tuning).items() if value is not None},
            "seconds": {name: round(value, 4) for name, value in done.seconds.items()},
            "network_steps": int(np.where(done.lost < 0, plan.run.steps, done.lost).sum())}


def _device(plan):
    """The device that results go to: the first of the run's cards, or the CPU."""
    kind = backends.by_name(plan.backend).kind
    return "cpu" if kind == "cpu" else (plan.run.device or kind).partition(",")[0]
