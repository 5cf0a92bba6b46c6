"""Owns the only loop over segments: advance, look, measure, note what was lost and what has stopped."""

import os
import platform
import time
from functools import cache

import numpy as np

from . import backends, measure, origin
from .errors import SpecError
from .plan import one as make_plan
from .progress import Progress, fresh, unset
from .result import Result, gathered
from .running import LAUNCH_SECONDS, Running, Taken
from .settle import settle
from .spec.planned import Groups, Tuning

SURELY_SHORT = 1e8  # parameters moved in a launch that is short on any machine


def execute(plan, progress=None, on_launch=None):
    """Run a plan, or Groups, from `progress` (by default its beginning) to its end.

    on_launch: called with the Progress after every launch, e.g. to draw a bar or write a checkpoint; what it
        reads of the live state is not to be written to
    Returns a Result.
    """
    if isinstance(plan, Groups):
        return _in_turn(plan, progress, on_launch)
    if progress is None and on_launch is None and _is_one_launch(plan):
        return finished(plan, _launched(plan))
    done = fresh(plan) if progress is None else progress
    for _ in stages(plan, done, on_launch):
        pass
    return finished(plan, done)


def _in_turn(plan, progress, on_launch):
    """The Result of Groups, run one after the other."""
    if progress is None and on_launch is None:
        return gathered(plan.run, plan.ids, plan.where, [execute(one) for one in plan.plans])
    done, results = fresh(plan) if progress is None else progress, []
    for k, one in enumerate(plan.plans):
        part = done.begin(k)
        results.append(execute(one, part, on_launch and (lambda _: on_launch(done))))
        part.settle()
    return gathered(plan.run, plan.ids, plan.where, results)


def _is_one_launch(plan):
    """Whether a run is one short launch, on the way of which nothing is measured."""
    return (plan.N * plan.work.P * plan.batch * plan.run.steps <= SURELY_SHORT and not plan.work.metrics
            and not plan.run.save.params and plan.run.steps <= min(plan.most, plan.tuning.segment or plan.most))


def _launched(plan):
    """The Progress at the end of such a run."""
    backend, began = backends.by_name(plan.backend), time.perf_counter()
    state = backend.load(plan, plan.start, unset(plan.N), plan.fresh_buffers())
    segment = plan.segment(0, plan.run.steps)
    backend.advance(state, segment)
    alive = settle(backend, state, segment)
    weights, buffers = backend.read(state)
    return Progress(segment.t1, len(plan.saves), weights, backend.lost(state), buffers, {}, None,
                    {"training": time.perf_counter() - began, "metrics": 0.0}, alive=alive)


def stages(plan, done, on_launch=None):
    """Move a Progress along its plan; yields each saved step, after its records were taken."""
    place = measure.place(plan.backend, plan.work.one, plan.N).begin(plan) if plan.work.metrics else None
    running, pace = Running(plan, done, place), _Pace(plan, backends.by_name(plan.backend))
    done.moved(running)
    if plan.run.stop:
        _look(plan, running, done)
    while done.taken < len(plan.saves) or done.t < plan.run.steps:
        stop = int(plan.saves[done.taken]) if done.taken < len(plan.saves) else plan.run.steps
        while done.t < stop and done.alive:
            t0, t1 = done.t, min(stop, done.t + pace.steps, running.next_look(done.t))
            began = time.perf_counter()
            spent = running.advance(t0, t1)
            done.t = t1
            done.seconds["training"] += time.perf_counter() - began
            done.moved(running)
            pace.learn(t1 - t0, spent)
            if plan.run.stop:
                _look(plan, running, done)
            if on_launch:
                on_launch(done)
        done.t = stop
        if done.taken < len(plan.saves):
            began = time.perf_counter()
            if plan.run.metrics or done.saved_weights is not None:
                _record(plan, running, done)
            done.taken += 1
            done.seconds["metrics"] += time.perf_counter() - began
            if on_launch:
                on_launch(done)
            yield done.t


def finished(plan, done):
    """The Result of a Progress that is at the end of its plan."""
    return Result(run=plan.run, steps=plan.saves, ids=plan.ids, base=plan.base, lost=done.lost,
                  weights=done.weights, records=done.records, saved_weights=done.saved_weights,
                  provenance=_provenance(plan, done), buffers=done.buffers if done.buffers.shape[1] else None,
                  stopped=done.stopped, stopped_by=done.stopped_by)


class _Pace:
    """Steps a launch, so that each takes LAUNCH_SECONDS. They do not change bits.

    most: steps whose tables fit the memory; least: steps that are worth a launch, however long they take
    """

    def __init__(self, plan, backend):
        self.most = plan.most
        self.least = min(self.most, max(1, backend.worth_a_launch // plan.batch))
        self.fixed = plan.tuning.segment and min(plan.tuning.segment, self.most)
        self.steps = self.fixed or min(self.most, self._first(plan))

    def _first(self, plan):
        """Steps of the first launch: a guess that is safe anywhere, or what the plan expects, with room for error."""
        safe, T = max(self.least, int(SURELY_SHORT // (plan.N * plan.work.P * plan.batch))), plan.run.steps
        expected = plan.cost()[0].get("training") if safe < T else None  # costs as much as a short run
        return max(safe, int(T * LAUNCH_SECONDS / 3 / expected)) if expected else safe

    def learn(self, steps, spent):
        """Take note that a launch of so many steps took so many seconds."""
        if not self.fixed:
            better = min(steps * LAUNCH_SECONDS / max(spent, 1e-6), 4.0 * max(self.steps, steps))
            self.steps = int(min(self.most, max(self.least, better)))


def _look(plan, running, done):
    """Stop what has reached a level at the current step, if a look is due."""
    began = time.perf_counter()
    if running.look(done):
        done.moved(running)
        done.seconds["metrics"] += time.perf_counter() - began


def _record(plan, running, done):
    """Evaluate all metrics at the current step into column `taken`; what is lost gets NaN.

    A network that had stopped by the saved step before keeps its values from there.
    """
    s, run = done.taken, plan.run
    same = (done.stopped >= 0) & (done.stopped <= plan.saves[s - 1]) if s and done.halted else None
    there = done.lost < 0
    taken = _taken(plan, done, np.flatnonzero(there if same is None else there & ~same))
    for metric in run.metrics:
        for members, values in running.measured(metric, taken):
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
        done.saved_weights[taken.positions, s] = taken.weights
    if same is not None:
        for record in (*done.records.values(), *(() if done.saved_weights is None else (done.saved_weights,))):
            record[same, s] = record[same, s - 1]


def _empty(plan, metric, shape):
    """A record of NaN; `shape` is that of one value where the metric does not know it."""
    axes = metric.axes(plan.run.model, plan.run.data.one)
    shape = shape if axes is None else tuple(len(labels) for labels in axes.values())
    return np.full((plan.N, len(plan.saves), *shape), np.nan)


def _taken(plan, done, alive):
    """What the metrics of this step are taken on, as `SaveAt` says; the lost left out."""
    run = plan.run

    def read():
        weights = done.weights if run.save.of == "weights" else done.buffers[:, run.rule.buffers().index("average")]
        return weights[alive] if len(alive) < len(weights) else weights

    if run.save.floor is None or not len(alive):
        return Taken(alive, read, run.save.of == "weights")
    from .rules.gd import GD

    data = run.data if plan.sets is None else run.data.chosen(plan.sets[alive])
    ids, most = plan.ids[alive], run.rule.lost_above
    down = run.replace(data=data, rule=GD(lost_above=most[ids] if np.ndim(most) else most),
                       loss=run.loss.picked(ids), step_size=run.save.floor.step_size,
                       order=None, steps=run.save.floor.steps, networks=len(alive), ids=None, save=None, metrics=(),
                       init=run.model.unflatten(read()), stop=(), backend=plan.backend)
    result = execute(make_plan(down, Tuning(threads=plan.tuning.threads)))
    kept = result.lost < 0
    return Taken(alive[kept], lambda: result.weights[kept], False)


@cache
def _machine():
    from . import __version__

    return {"fastsgd": __version__, "numpy": np.__version__, "python": platform.python_version(),
            "machine": platform.machine(), "processors": os.cpu_count()}


def _provenance(plan, done):
    return {**_machine(), **origin.here(), "backend": plan.backend, "device": _device(plan.backend, plan.run.device),
            "tuning": plan.tuning.chosen, "seconds": {name: round(value, 4) for name, value in done.seconds.items()},
            "network_steps": _network_steps(plan, done)}


def _network_steps(plan, done):
    """Steps that were taken, those of all networks together."""
    T = plan.run.steps
    if done.alive == plan.N:
        return plan.N * T
    return int(np.where(done.stopped >= 0, done.stopped, np.where(done.lost < 0, T, done.lost)).sum())


@cache
def _device(backend, asked):
    """The device that results go to: the first of the run's cards, or the CPU."""
    kind = backends.KINDS[backend]
    return "cpu" if kind == "cpu" else (asked or kind).partition(",")[0]
