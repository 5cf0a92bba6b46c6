"""Owns the planner: fields against each other, choice of backend and layout, size of memory."""

import os

import numpy as np

from . import backends
from .errors import BackendUnavailable, PlanError, SpecError
from .rules import GD
from .spec.order import Replay
from .spec.planned import Plan, Tuning
from .spec.run import Run
from .spec.schedule import StepTable

AXES = ("net", "step", "step_size", "lost")  # names that a labelled result gives away besides parameters and metrics


def plan(run, tuning=None):
    """Check a Run as a whole and choose how to do it. Nothing is computed yet; `plan(run).explain()` says what and why.

    run: fs.Run
    tuning: fs.Tuning, optional - choices of your own; they change speed, never a bit of the result
    Returns a Plan. Raises PlanError where fields disagree, BackendUnavailable if a named backend cannot run here.
    """
    if not isinstance(run, Run):
        raise SpecError(f"run: {type(run).__name__} given, expected fs.Run(...)")
    tuning = Tuning() if tuning is None else tuning
    if not isinstance(tuning, Tuning):
        raise SpecError(f"tuning: {type(tuning).__name__} given, expected fs.Tuning(...)")
    try:
        saves = run.save.resolve(run.steps)
    except SpecError as error:
        raise PlanError(str(error)) from None
    _agree(run)
    N, population = _count(run)
    backend, reasons = _backend(run)
    tuning, memory, more = backend.choose(run, N, tuning)
    item = np.dtype(run.dtype).itemsize
    memory["start"] = N * (run.model.P * item + 20)
    memory["records"] = 8 * N * len(saves) * len(run.metrics)
    if run.save.params:
        memory["saved parameters"] = N * len(saves) * run.model.P * item
    _fit(N, memory)
    ids = np.arange(N, dtype=np.int64) if run.ids is None else run.ids
    base, row, table = run.step_size.compile(population, run.steps)
    base, row = (a[ids] if len(a) > 1 else np.repeat(a, N) for a in (base, row))
    _representable(base, run.dtype)
    return Plan(run=run, backend=backend.name, reasons=(*reasons, *more), ids=ids, start=_start(run, ids, population),
                base=np.ascontiguousarray(base, dtype=np.float64), row=np.ascontiguousarray(row, dtype=np.int32),
                table=table, saves=saves, tuning=tuning, memory=memory)


def _agree(run):
    """Refuse fields that contradict each other."""
    model, data = run.model, run.data
    if model.d != data.d:
        raise PlanError(f"model.d: is {model.d}, but X has d={data.d} inputs")
    arrays = {"X": data.X, "y": data.y, "X_test": data.X_test, "y_test": data.y_test}
    arrays |= {f"init['{name}']": a for name, a in (run.init or {}).items()}
    for name, array in arrays.items():
        if array is not None and array.dtype.kind == "f" and str(array.dtype) != run.dtype:
            raise PlanError(f"{name}: holds {array.dtype}, but the run is {run.dtype}. Nothing is cast silently: pass "
                            f"dtype='{array.dtype}', or convert it with .astype('{run.dtype}')")
    if data.n >= 2**32:
        raise PlanError(f"X: has n={data.n} points, at most 2**32 - 1 can be drawn from")
    if isinstance(run.step_size, StepTable) and run.step_size.steps != run.steps:
        raise PlanError(f"step_size: the table has {run.step_size.steps} steps, the run has T={run.steps}")
    if isinstance(run.order, Replay):
        if isinstance(run.rule, GD):
            raise PlanError("order: Replay given, but GD uses all samples at every step; leave order out")
        _, T, batch = run.order.table.shape
        if T != run.steps:
            raise PlanError(f"order: has {T} steps, the run has T={run.steps}")
        if batch != run.rule.batch(data.n):
            raise PlanError(f"order: has {batch} samples a step, the rule takes {run.rule.batch(data.n)}")
        if run.order.order.max() >= data.n:
            raise PlanError(f"order: holds index {run.order.order.max()}, legal are 0 .. {data.n - 1} (n={data.n} "
                            "points)")
    for metric in run.metrics:
        why = metric.refuse(model, data)
        if why:
            raise PlanError(f"metrics: {metric.name} is not possible here: {why}")
        if metric.name in (*model.shapes(), *AXES):
            raise PlanError(f"metrics: the name {metric.name!r} belongs to a parameter or an axis of the result; give "
                            "another name=...")


def _count(run):
    """(N, size of the population): members are numbered 0 .. population - 1, `ids` selects some of them."""
    lengths = run.step_size.lengths() | run.model.lengths()
    for name, array in (run.init or {}).items():
        shape = run.model.shapes().get(name)
        if shape is not None and array.ndim == len(shape) + 1:
            lengths[f"init['{name}']"] = len(array)
    if isinstance(run.order, Replay) and len(run.order.table) > 1:
        lengths["order"] = len(run.order.table)
    if run.networks is not None:
        lengths["networks"] = run.networks
    if len(set(lengths.values())) > 1:
        raise PlanError("per-network fields disagree about the number of networks: "
                        + ", ".join(f"{name} has {N}" for name, N in lengths.items()))
    population = next(iter(lengths.values()), None)
    if run.ids is None:
        return population or 1, population or 1
    if population is not None and run.ids.max() >= population:
        raise PlanError(f"ids: holds {run.ids.max()}, but the population has {population} networks")
    return len(run.ids), 1 if population is None else population


def _fit(N, memory):
    """Refuse what this machine's memory cannot hold, before the operating system ends the process for it."""
    need, have = sum(memory.values()), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > have:
        raise PlanError(f"networks: N={N} networks need {need / 2**30:.4g} GiB ("
                        + ", ".join(f"{what} {size / 2**30:.3g}" for what, size in memory.items())
                        + f"), this machine has {have / 2**30:.3g}; save fewer steps, or run some at a time with ids=")


def _representable(base, dtype):
    """Refuse step sizes that the run's dtype turns into 0 or infinity."""
    with np.errstate(over="ignore", under="ignore"):
        cast = base.astype(dtype)
    bad = np.flatnonzero(~((cast > 0) & (cast < np.inf)))
    if len(bad):
        raise PlanError(f"step_size: {base[bad[0]]:g} becomes {cast[bad[0]]:g} in {dtype}; rescale it, or pass "
                        "dtype='float64'")


def _backend(run):
    """(backend, reasons). A named backend runs or raises; "auto" takes the first that can."""
    if run.backend != "auto":
        backend = backends.by_name(run.backend)
        why_not = backend.supports(run)
        if why_not:
            raise BackendUnavailable(f"backend {run.backend!r} cannot run this: {why_not}")
        return backend, ("asked for by name",)
    reasons = []
    for backend in backends.ALL:
        why_not = backend.supports(run)
        if why_not is None:
            return backend, (*reasons, "chosen by backend='auto': the first that can")
        reasons.append(f"not {backend.name}: {why_not}")
    raise PlanError("no backend can run this: " + "; ".join(reasons))


def _start(run, ids, population):
    """Starting weights [N, P] in the run's dtype."""
    if run.init is None:
        flat = run.model.start(run.seed, ids)
    else:
        try:
            flat = run.model.flatten(run.init, population)
        except SpecError as error:
            raise PlanError(str(error)) from None
        flat = flat[ids] if len(flat) > 1 else np.repeat(flat, len(ids), axis=0)
    with np.errstate(over="ignore"):
        start = np.array(flat, dtype=run.dtype, order="C")
    if not np.isfinite(start).all():
        raise PlanError(f"{'model' if run.init is None else 'init'}: starting weights overflow {run.dtype}; choose "
                        "smaller ones, or pass dtype='float64'")
    return start
