"""Owns the only loop over segments: advance, read, measure, note what was lost."""

import os
import platform
import time
from dataclasses import dataclass

import numpy as np

from . import backends
from .backends.base import float64_params
from .result import Result

LAUNCH_SECONDS = 0.25  # a launch this long is answered by Ctrl-C within a second, and costs nothing


@dataclass(eq=False)
class Progress:
    """Everything that changes during an execution, and all that a checkpoint needs besides the run.

    t: steps done; taken: saved steps done; seconds: spent so far, by what
    weights [N, P], lost [N]; records {metric: [N, S, ...]}; saved_weights [N, S, P] or None
    """

    t: int
    taken: int
    weights: np.ndarray
    lost: np.ndarray
    records: dict
    saved_weights: np.ndarray | None
    seconds: dict

    @classmethod
    def fresh(cls, plan):
        """The progress of a plan that has not begun."""
        kept = None
        if plan.run.save.params:
            kept = np.full((plan.N, len(plan.saves), plan.run.model.P), np.nan, plan.run.dtype)
        return cls(0, 0, plan.start, np.full(plan.N, -1, np.int64), {}, kept, {"training": 0.0, "metrics": 0.0})


def execute(plan, progress=None, on_launch=None):
    """Run a plan from `progress` (by default its beginning) to its end.

    on_launch: called with the Progress after every launch, e.g. to draw a bar or write a checkpoint; its weights and
        lost are views of the live state
    Returns a Result.
    """
    backend = backends.by_name(plan.backend)
    done = Progress.fresh(plan) if progress is None else progress
    state = backend.load(plan, done.weights, done.lost)
    pace = _Pace(plan)
    done.weights, done.lost = backend.read(state)
    while done.taken < len(plan.saves) or done.t < plan.run.steps:
        stop = int(plan.saves[done.taken]) if done.taken < len(plan.saves) else plan.run.steps
        while done.t < stop and (done.lost < 0).any():
            segment = plan.segment(done.t, min(stop, done.t + pace.steps))
            began = time.perf_counter()
            backend.advance(state, segment)
            spent = time.perf_counter() - began
            done.t = segment.t1
            done.seconds["training"] += spent
            done.weights, done.lost = backend.read(state)
            pace.learn(segment.t1 - segment.t0, spent)
            if on_launch:
                on_launch(done)
        done.t = stop
        if done.taken < len(plan.saves):
            began = time.perf_counter()
            _record(plan, backend, state, done, pace)
            done.seconds["metrics"] += time.perf_counter() - began
            if on_launch:
                on_launch(done)
    return Result(run=plan.run, steps=plan.saves, ids=plan.ids, base=plan.base, lost=done.lost.copy(),
                  weights=done.weights.copy(), records=done.records, saved_weights=done.saved_weights,
                  provenance=_provenance(plan, done))


class _Pace:
    """Steps a launch, and networks a metric call, so that each takes LAUNCH_SECONDS. They do not change bits."""

    def __init__(self, plan):
        rows = len(plan.table(0, 1)) + plan.N * plan.batch * (getattr(plan.run.order, "table", None) is not None)
        self.most = max(1, (16 << 20) // rows)
        self.fixed = plan.tuning.segment and min(plan.tuning.segment, self.most)
        work = plan.N * plan.run.model.P * plan.batch
        self.networks = {}  # {metric: networks a call}
        self.steps = self.fixed or int(min(self.most, max(4, 1e8 // work)))

    def learn(self, steps, spent):
        if not self.fixed:
            better = steps * LAUNCH_SECONDS / max(spent, 1e-6)
            self.steps = int(min(self.most, max(1, min(better, 4.0 * max(self.steps, steps)))))


def _record(plan, backend, state, done, pace):
    """Evaluate all metrics at the current step into column `taken`; what is lost gets NaN."""
    alive = np.flatnonzero(done.lost < 0)
    broken = alive[~np.isfinite(done.weights[alive]).all(axis=1)]
    if len(broken):  # a parameter overflowed in a part of the network that its samples do not see
        done.lost[broken] = done.t
        alive = np.flatnonzero(done.lost < 0)
    s, run = done.taken, plan.run
    for metric in run.metrics:
        for who, values in _measured(plan, backend, state, done, metric, alive, pace):
            if metric.name not in done.records:
                done.records[metric.name] = np.full((plan.N, len(plan.saves), *values.shape[1:]), np.nan)
            done.records[metric.name][who, s] = values
        if metric.name not in done.records:  # no network was left to measure
            done.records[metric.name] = np.full((plan.N, len(plan.saves)), np.nan)
    if done.saved_weights is not None:
        done.saved_weights[alive, s] = done.weights[alive]
    done.taken += 1


def _measured(plan, backend, state, done, metric, alive, pace):
    """Yield (positions, values) of a metric, so many networks at a time that Ctrl-C is answered within a second."""
    run, at = plan.run, 0
    while at < len(alive):
        size = pace.networks.get(metric.name, 64)
        who = alive[at:at + size]
        began = time.perf_counter()
        with np.errstate(over="ignore"):  # a network about to be lost may overflow: inf is its value
            values = backend.measure(state, metric, who)
            if values is None:
                values = metric.compute(run.model, float64_params(run.model, done.weights[who]), run.data, run.loss)
        yield who, values
        at += len(who)
        spent = max(time.perf_counter() - began, 1e-6)
        pace.networks[metric.name] = int(min(4 * size, max(16, len(who) * LAUNCH_SECONDS / spent)))


def _provenance(plan, done):
    from . import __version__

    return {"fastsgd": __version__, "numpy": np.__version__, "python": platform.python_version(),
            "machine": platform.machine(), "processors": os.cpu_count(), "backend": plan.backend,
            "tuning": {name: value for name, value in vars(plan.tuning).items() if value is not None},
            "seconds": {name: round(value, 4) for name, value in done.seconds.items()},
            "network_steps": int(np.where(done.lost < 0, plan.run.steps, done.lost).sum())}
