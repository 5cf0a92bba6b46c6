"""Owns plans that serve more than one call: the same choices for another step size, seed or start."""

import os
from typing import Any

import numpy as np

from .errors import FastsgdError, PlanError
from .native import default_threads
from .plan import count, dtypes, filled, may_step, members, representable, schedule, start_of, with_tables
from .plan import plan as make_plan
from .spec.check import whole
from .spec.fields import start_lengths
from .spec.planned import Groups, Plan, Tuning
from .spec.record import like
from .spec.run import Run, initial, schedule_of
from .spec.schedule import Schedule


def again(plan: Any, step_size: Any = None, seed: int | None = None, init: dict | None = None) -> Any:
    """The Plan, or Groups, of the same run with another step size, seed or start; nothing else is looked at again.

    step_size, seed, init: as in fs.Run, for as many networks; None leaves what the plan has
    Raises SpecError or PlanError where the run could not have them.
    """
    if isinstance(plan, Groups):
        plans = tuple(again(one, step_size, seed, init) for one in plan.plans)
        fields = {name: getattr(plans[0].run, name) for name in ("step_size", "seed", "init")}
        return like(plan, run=like(plan.run, **fields), plans=plans)
    run, changes = plan.run, {}  # fields of the run
    if step_size is not None:
        changes["step_size"] = schedule_of(step_size)
    if seed is not None and whole(seed, "seed", 0, 2**64 - 1) != run.seed:
        changes["seed"] = int(seed)
    if init is not None:
        changes["init"] = initial(init)
    other, population = like(run, **changes), plan.N
    if run.ids is not None or (init is not None and start_lengths(other) != start_lengths(run)) or (
            step_size is not None and other.step_size.lengths() != run.step_size.lengths()):
        N, population = count(other)
        if N != plan.N:
            raise PlanError(f"{', '.join(changes)}: for N={N} network{'s' * (N > 1)}, the plan has N={plan.N}; give "
                            "one for each, or make a plan with networks=...")
    number = type(step_size) in (int, float)  # which has no dtype
    dtypes(other, [name for name in changes if name == "init" or (name == "step_size" and not number)])
    own = other if run.ids is None else members(other, plan.ids, population)
    made = {"run": other, "work": plan.work.again(other)}
    if init is not None or ("seed" in changes and run.init is None):
        made["start"] = start_of(own, plan.ids, plan.keys)
    if step_size is None:
        return like(plan, **made)
    if hasattr(own.step_size, "steps") or not plan.work.ours:
        may_step(own)
    if not plan.noises and run.step_size.constant and own.step_size.constant:
        representable(own.dtype, {"step_size": own.step_size.base})
        return like(plan, base=filled(own.step_size.base, plan.N, plan.base.dtype), **made)
    made["base"], made["row"], made["table"] = schedule(own.step_size.compile(plan.N, own.steps), plan.N)
    made["noises"] = {name: schedule(own.rule.noise_schedule(name, own, plan.N), plan.N) for name in plan.noises}
    representable(own.dtype, {"step_size": made["base"]})
    made = like(plan, **made)
    made.__dict__.pop("schedules", None)
    return with_tables(made)


# ---- of a run by its fields

MOST = 32  # plans that are kept
LARGEST = 1 << 20  # bytes of the data and weights of a run whose plan is kept
SHORT = 1e8  # parameters that such a run moves: planning is nothing beside more
PLAIN = (float, int, str, bool, type(None))
_PLANS = {}


def ready(fields: tuple, tuning: Tuning | None, run: Run | None = None) -> Plan:
    """The Plan of a run. For a small run it is made by `again` where one like it was planned before.

    fields: of the Run, in its order; run: itself, where it is made
    """
    key = known = None
    try:
        key = _key(*fields, tuning)
        known = _PLANS.get(key)
    except (TypeError, ValueError, FastsgdError):  # of something that is no field of a run: `Run` has more to say
        key = None
    if known is not None:
        step_size, init, seed = fields[3], fields[6], fields[14]
        return again(known, step_size, seed, init)
    made = make_plan(Run(*fields) if run is None else run, tuning)
    if key is not None and isinstance(made, Plan) and _worth_keeping(made):
        if len(_PLANS) >= MOST:
            _PLANS.clear()
        _PLANS[key] = made
    return made


def _key(model, data, rule, step_size, steps, networks, init, order, save, metrics, loss, dtype, backend, device, seed,
         ids, keys, stop, tuning):
    """What to look a plan up by: equal for runs that one plan serves, None for a run whose plan is not kept."""
    plain = type(steps) is int and type(networks) in (int, type(None)) and seed is not None  # 1.0 and True are 1 too
    plain = plain and isinstance(metrics, (tuple, list)) and isinstance(tuning, (Tuning, type(None)))
    if ids is not None or keys is not None or stop or not plain:
        return None
    return (_token(model), data, _token(rule), steps, networks, order, _token(save), *map(_token, metrics),
            _token(loss), dtype, backend, device, tuning, _sizes(step_size), _sizes(init),
            os.environ.get("FASTSGD_ISA"), (tuning and tuning.threads) or default_threads())


def _token(record):
    """What to look a record up by: its class and numbers, or the record itself where it holds more than these."""
    if not hasattr(type(record), "__dataclass_fields__"):
        return record
    parts = [type(record)]
    for value in vars(record).values():
        if type(value) is np.ndarray and not value.ndim and value.dtype == np.float64:
            value = value.item()
        if not isinstance(value, PLAIN):
            return record
        parts.append(value)
    return tuple(parts)


def _sizes(given):
    """For how many networks step sizes or starts are given, and what are arrays of which shape."""
    if isinstance(given, Schedule):
        return type(given), *given.lengths().items()
    if isinstance(given, dict):
        return tuple((name, np.shape(a)) for name, a in given.items())
    return None if given is None else np.shape(given)


def _worth_keeping(made):
    """Whether a plan is small, made of nothing but what this package computes, and its backend is always the same."""
    run, work = made.run, made.work
    arrays = (run.data.X, run.data.y, run.data.X_test, run.data.y_test, made.start)
    size = sum(a.nbytes for a in arrays if a is not None)
    return made.backend == "cpu" and work.ours and size <= LARGEST and made.N * work.P * run.steps <= SHORT
