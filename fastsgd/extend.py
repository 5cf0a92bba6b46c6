"""Owns going on with a result: the same run, of more steps; or other ways on from one of its states."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .errors import PlanError, SpecError
from .execute import execute, stages
from .plan import in_groups, prepared
from .plan import plan as make_plan
from .progress import begun, fresh
from .result import Result
from .spec.check import what_is, whole
from .spec.fields import chosen, shares, without_ids
from .spec.planned import Tuning
from .spec.save import SaveAt
from .watch import watcher

STRETCH = 1 << 14  # steps whose schedules are compared at a time


def extend(result: Result, steps: int, *, step_size: Any = None, order: Any = None,
           progress: bool | str | Callable[[int, int, int], object] | None = None,
           tuning: Tuning | None = None) -> Result:
    """Go on with a result to so many steps in all: weights, records and bits of one run of so many steps.

    Time, draws, weights and what the rule carries go on from where the result ends. Lost networks stay lost. Stopped
    networks stay stopped, but for those that stopped at the result's last step if the longer run takes no look there.
    Saved steps are those of the result, and behind them those that its `save` has in a run of the new length. A new run
    with init=result.params is different: it begins at step 0, and with the same seed sees the same draws again.

    result: from fs.train, fs.resume, fs.extend or fs.fork, or loaded from a file
    steps: T in all, more than the result has
    step_size, order: of the whole run; needed where those of the result depend on its length: an fs.StepTable, an
        explicit order, or a schedule in fractions of the run (decays, warm-up, cosine). On the steps that are done they
        must be what they were
    progress, tuning: as for fs.train
    Returns a Result whose run is the longer one. Raises SpecError, PlanError before anything runs.
    """
    _need_result(result)
    run, done = result.run, result.run.steps
    steps = whole(steps, "steps", done + 1)
    buffers = _buffers_at_the_end(result)
    changes = {name: value for name, value in (("step_size", step_size), ("order", order)) if value is not None}
    later = run.save.resolve(max(steps, int(result.steps[-1])))
    save = replace(run.save, steps=np.concatenate([result.steps, later[later > done]]), linear=None, log=None, first=0)
    plan = _going_on(run.replace(steps=steps, save=save, **changes), tuning)
    for now, before in zip(plan.plans, in_groups(run, lambda one: prepared(one)[0]).plans, strict=True):
        _same_so_far(now, before, done)
    records = {name: _longer(a, len(plan.saves)) for name, a in result.records.items()}
    saved = None if result.saved_weights is None else _longer(result.saved_weights, len(plan.saves))
    again = result.stopped == done  # at which the longer run looks anew, if a look is due there
    stopped, by = (np.where(again, -1, a) for a in (result.stopped, result.stopped_by))
    start = begun(plan.where, done, len(result.steps), result.weights, result.lost, buffers, records, saved,
                  {"training": 0.0, "metrics": 0.0}, stopped, by)
    with watcher(plan, progress) as watch:
        return _forked(replace(execute(plan, start, watch), ids=result.ids), result)


def fork(result: Result, at: int | None = None, *, seed: int | None = None, copies: int = 1, steps: int | None = None,
         step_size: Any = None, rule: Any = None, order: Any = None, save: SaveAt | None = None, metrics: Any = None,
         progress: bool | str | Callable[[int, int, int], object] | None = None,
         tuning: Tuning | None = None) -> Result:
    """Go on from a state of a result in another way: new noise, another step size or rule, several copies of networks.

    The clock goes on: the first step is step `at`, with the schedule's value and the draws of that step. A fork that
    changes nothing has the bits of the result. A buffer goes on where the new rule has one of that name; others
    begin as at the start of a run. Networks that were lost or had stopped before `at` stay so.

    result: from fs.train, fs.resume, fs.extend or fs.fork, or loaded from a file
    at: step of the state, 0 .. T; by default T, the end. Where it is neither the end nor a step with saved parameters,
        the run is repeated up to there, to the same bits; a fork has only those two
    seed: of the draws from there on; by default that of the result
    copies: so many of each network, >= 1: those of network k are k copies .. (k + 1) copies - 1. More than one are
        numbered anew, and draw by these numbers
    steps: T in all, more than `at`; by default that of the result
    step_size, rule, order: of the fork, [copies N] where they are per network; by default those of the result
    save, metrics: by default those of the result. Saved steps are `at` and those after it, by default T as well
    progress, tuning: as for fs.train
    Returns a Result. Its run says what holds from step `at` on, and has the start of the first run as `init`, which
    metrics of step 0 are taken from; its provenance says where it was forked. Training that run anew begins at step 0.
    Raises SpecError, PlanError before anything runs.
    """
    _need_result(result)
    at = whole(result.run.steps if at is None else at, "at", 0, result.run.steps)
    steps = whole(result.run.steps if steps is None else steps, "steps", 1)
    if steps <= at:
        raise SpecError(f"steps: {steps} in all given, the state is that of step {at}; expected more")
    copies = whole(copies, "copies", 1, 2**32 // len(result.ids))
    weights, lost, buffers = _state(result, at)
    before_it = result.stopped < at
    stops = [np.repeat(np.where(before_it, a, -1), copies) for a in (result.stopped, result.stopped_by)]
    run = _copied(result, copies)
    changes = {"seed": seed, "step_size": step_size, "rule": rule, "order": order, "metrics": metrics}
    run = run.replace(steps=steps, **{name: value for name, value in changes.items() if value is not None})
    plan = _going_on(run.replace(save=_saves_from(at, run, save)), tuning)
    if plan.N != len(weights) * copies:
        raise PlanError(f"networks: the fork has {len(weights) * copies}, per-network fields are for {plan.N}")
    names, before = run.rule.buffers(), result.run.rule.buffers()
    weights, lost, buffers = (np.repeat(a, copies, axis=0) for a in (weights, lost, buffers))
    carried = np.zeros((len(weights), len(names), weights.shape[1]), weights.dtype)
    carried = run.rule.begin(carried, weights, run.model.shapes(), plan.ids)
    for name in set(names) & set(before):
        carried[:, names.index(name)] = buffers[:, before.index(name)]
    saved = np.full((plan.N, len(plan.saves), run.model.P), np.nan, run.dtype) if run.save.params else None
    start = begun(plan.where, at, 0, weights, lost, carried, {}, saved, {"training": 0.0, "metrics": 0.0}, *stops)
    with watcher(plan, progress) as watch:
        made = execute(plan, start, watch)
        if copies == 1:
            made = replace(made, ids=result.ids)
        return _forked(made, result, {"at": at, "seed": result.run.seed, "copies": copies})


def _need_result(result):
    if not isinstance(result, Result):
        raise SpecError(f"result: {what_is(result)} given, expected an fs.Result")


def _going_on(run, tuning):
    """The Plan, or Groups, of a run that has begun: starting weights are made if a metric looks at them."""
    def make(one):
        plan, start = prepared(one, tuning)
        if any(metric.needs_start for metric in plan.work.metrics):
            object.__setattr__(plan, "start", start())
        return plan
    return in_groups(run, make)


def _forked(result, before, more=None):
    """A result that says where its ancestors were forked."""
    forks = (*before.provenance.get("forked", ()), *((more,) if more else ()))
    return replace(result, provenance=result.provenance | {"forked": list(forks)}) if forks else result


def _buffers_at_the_end(result):
    """What the rule carried at the end, [N, K, P]."""
    names = result.run.rule.buffers()
    if names and result.buffers is None:
        raise SpecError(f"result: {type(result.run.rule).__name__} carries {', '.join(names)} from step to step, which "
                        "this result does not have; its file was written by an earlier version")
    if names:
        return result.buffers
    return np.empty((len(result.weights), 0, result.run.model.P), result.run.dtype)


def _state(result, at):
    """(weights [N, P], lost [N], buffers [N, K, P]) of a result after `at` steps."""
    run, lost = result.run, np.where(result.lost < at, result.lost, -1)
    if at == run.steps:
        return result.weights, result.lost, _buffers_at_the_end(result)
    plainly = run.save.of == "weights" and run.save.floor is None and not run.rule.buffers()
    if result.saved_weights is not None and plainly and at in result.steps:
        there = result.saved_weights[:, int(np.searchsorted(result.steps, at))]
        return np.where((lost < 0)[:, None], there, result.weights), lost, _buffers_at_the_end(result)
    if "forked" in result.provenance:
        raise SpecError(f"at: {at} given; this result was forked itself, and has the states of its end, {run.steps}, "
                        "and of saved steps if it kept their parameters and its rule carries nothing")
    plan = make_plan(run.replace(save=SaveAt(steps=[at]), metrics=()))
    done = fresh(plan)
    for one, part in zip(plan.plans, done.parts, strict=True):
        next(stages(one, part))
    return done.weights, done.lost, done.buffers


def _saves_from(at, run, given):
    """The SaveAt of a fork: its first step, and those after it that were given, or that the run has and its end."""
    if given is None:
        later = run.save.resolve(run.steps if run.save.steps is None else max(run.steps, int(run.save.steps[-1])))
        later = np.append(later[later < run.steps], run.steps)
    else:
        later = run.replace(save=given).save.resolve(run.steps)
    return replace(run.save if given is None else given, linear=None, log=None, first=0,
                   steps=np.append(at, later[later > at]))


def _copied(result, copies):
    """The run of `copies` of each network, with the start of its networks as `init`."""
    run = without_ids(result.run)
    if run.ids is not None:
        raise SpecError("result: its networks cannot be taken out of their run: the model has arrays that cannot be "
                        "cut, or a number of the rule is 0 for these networks and not for all; fork all, and select "
                        "then")
    start = run.model.unflatten(fresh(make_plan(run.replace(save=None, metrics=(), stop=()))).weights)
    run = run.replace(init=start)
    if copies == 1:
        return run
    N = len(result.ids)
    positions = np.repeat(np.arange(N), copies)
    changes = shares(run, positions, N) | {"model": chosen(run.model, positions, N)}
    if run.data.sets:
        changes["data"] = run.data.chosen(run.data.numbers[positions])
    if len(getattr(run.order, "table", ())) > 1:
        changes["order"] = type(run.order)(run.order.order[positions])
    return run.replace(networks=None, keys=np.arange(N * copies), **changes)


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
