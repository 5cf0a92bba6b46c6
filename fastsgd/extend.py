"""Owns going on with a result: the same run, of more steps."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .errors import PlanError, SpecError
from .execute import Progress, execute
from .plan import plan as make_plan
from .result import Result
from .spec.check import whole
from .spec.planned import Tuning
from .watch import watcher

STRETCH = 1 << 14  # steps whose schedules are compared at a time


def extend(result: Result, steps: int, *, step_size: Any = None, order: Any = None,
           progress: bool | str | Callable[[int, int, int], object] | None = None,
           tuning: Tuning | None = None) -> Result:
    """Go on with a result to so many steps in all: weights, records and bits of one run of so many steps.

    Time, draws, weights and what the rule carries go on from where the result ends. Lost networks stay lost, and what
    has stopped stays so, unless the look at the result's last step was none that the longer run takes. Saved steps are
    those of the result, and behind them those that its `save` has in a run of the new length.

    result: from fs.train, fs.resume or fs.extend. One that was loaded from a file has no buffers: it can be extended if
        its rule carries none (plain SGD and GD)
    steps: T in all, more than the result has
    step_size, order: of the whole run, where those of the result say something of its length: an fs.StepTable, an
        explicit order, or a schedule with fractions of the run (decays, warm-up, cosine). On the steps that are done
        the step size must be what it was
    progress, tuning: as for fs.train
    Returns a Result whose run is the longer one. Raises SpecError, PlanError before anything runs.
    """
    if not isinstance(result, Result):
        raise SpecError(f"result: {type(result).__name__} given, expected an fs.Result")
    run, done = result.run, result.run.steps
    steps = whole(steps, "steps", done + 1)
    if run.rule.buffers() and result.buffers is None:
        raise SpecError(f"result: {type(run.rule).__name__} carries {', '.join(run.rule.buffers())} from step to step, "
                        "which files of results do not keep; extend the result before it is saved, or train with a "
                        "checkpoint")
    changes = {name: value for name, value in (("step_size", step_size), ("order", order)) if value is not None}
    later = run.save.resolve(max(steps, int(result.steps[-1])))
    save = replace(run.save, steps=np.concatenate([result.steps, later[later > done]]), linear=None, log=None, first=0)
    plan, before = make_plan(run.replace(steps=steps, save=save, **changes), tuning), make_plan(run)
    _same_so_far(plan, before, done)
    records = {name: _longer(a, len(plan.saves)) for name, a in result.records.items()}
    saved = None if result.saved_weights is None else _longer(result.saved_weights, len(plan.saves))
    buffers = plan.fresh_buffers() if result.buffers is None else result.buffers
    again = result.stopped == done  # at which the longer run looks anew, if a look is due there
    stopped, by = (np.where(again, -1, a) for a in (result.stopped, result.stopped_by))
    start = Progress(done, len(result.steps), result.weights, result.lost, buffers, records, saved,
                     {"training": 0.0, "metrics": 0.0}, stopped, by)
    with watcher(plan, progress) as watch:
        return execute(plan, start, watch)


def _longer(array, S):
    """Records or weights [N, S', ...] with NaN for the steps that are to come."""
    return np.concatenate([array, np.full((len(array), S - array.shape[1], *array.shape[2:]), np.nan, array.dtype)], 1)


def _same_so_far(plan, before, done):
    """Raise PlanError unless two plans have the same step sizes, noises and order at steps 0 .. done - 1."""
    pairs = {"step_size": ((plan.base, plan.row, plan.table), (before.base, before.row, before.table))}
    pairs |= {name: (plan.noises[name], before.noises[name]) for name in plan.noises}
    for name, ((base, row, table), (base_then, row_then, table_then)) in pairs.items():
        for t in range(0, done, STRETCH):
            now, then = (made(t, min(done, t + STRETCH)) for made in (table, table_then))
            if not (np.array_equal(base, base_then) and np.array_equal(now[row], then[row_then])):
                raise PlanError(f"{name}: is another one on steps 0 .. {done - 1} in a run of {plan.run.steps} steps, "
                                "since it goes by fractions of the run; give step_size= that is what it was there")
    if plan.run.order.kind == "table":
        given, then = (np.broadcast_to(one.run.order.table[:, :done], (len(one.run.order.table), done, plan.batch))
                       for one in (plan, before))
        fewer, fewer_then = (one.counts(0, done) for one in (plan, before))
        many, many_then = (np.broadcast_to(plan.batch if a is None else a, (plan.N, done)) for a in (fewer, fewer_then))
        if not (np.array_equal(given, then) and np.array_equal(many, many_then)):
            raise PlanError(f"order: is another one on steps 0 .. {done - 1}, which are done")
