"""Owns the planner: fields against each other, choice of backend and layout, size of memory."""

import sys
import warnings
from functools import partial
from math import prod

import numpy as np

from . import backends, limits, measure
from .errors import BackendUnavailable, PlanError, SlowBackendWarning, SpecError
from .lowering.own import bound
from .lowering.work import Work
from .models.base import Model, started
from .models.exact import refuse_population
from .spec import draws
from .spec.check import all_finite, other_dtype, what_is
from .spec.fields import arrays, by_batch_size, chosen, lengths, shares, spread
from .spec.planned import Groups, Plan, Tuning
from .spec.record import like
from .spec.run import Run
from .trial import trial

PART = 16 << 20  # bytes of starting weights made, or of networks measured, at a time
BESIDES = 2 << 20  # bytes of objects of any size, and of what the allocator keeps
SURELY = 128 << 20  # bytes that any machine has
SAFE = 1e-30  # between it and its inverse any dtype has a number
AXES = ("net", "step", "step_size", "lost", "stopped", "stopped_by")  # names that a labelled result gives away itself


def plan(run: Run, tuning: Tuning | None = None) -> Plan | Groups:
    """Check a Run as a whole and choose how to do it. Nothing is computed yet; `plan(run).explain()` says what and why.

    run: fs.Run
    tuning: fs.Tuning, optional - choices of your own; they change speed, never a bit of the result
    Returns a Plan, or the Groups of those of a run with batch sizes [N]. Raises PlanError where fields disagree,
    BackendUnavailable if a named backend cannot run here.
    """
    return in_groups(run, lambda each: one(each, tuning))


def in_groups(run, make):
    """The Plan that `make` makes of a run; where networks have batch sizes of their own, the Groups of each size's."""
    if not isinstance(run, Run) or getattr(run.rule, "batches", None) is None:
        return make(run)
    run = bound(run)
    count(run)  # which refuses numbers of networks that differ
    runs, where = zip(*by_batch_size(run), strict=True)
    plans = tuple(map(make, runs))
    return Groups(run, spread([one.ids for one in plans], where), plans, where)


def one(run: Run, tuning: Tuning | None = None) -> Plan:
    """The Plan of a run of one batch size."""
    made, start = prepared(run, tuning)
    object.__setattr__(made, "start", start())  # last, since it takes memory
    return made


def prepared(run, tuning=None):
    """(Plan without starting weights, the function that makes them), for runs that go on from other weights."""
    if not isinstance(run, Run):
        raise SpecError(f"run: {what_is(run)} given, expected fs.Run(...)")
    tuning = Tuning() if tuning is None else tuning
    if not isinstance(tuning, Tuning):
        raise SpecError(f"tuning: {what_is(tuning)} given, expected fs.Tuning(...)")
    try:
        saves = run.save.resolve(run.steps)
    except SpecError as error:
        raise PlanError(str(error)) from None
    why = refuse_population(run.model, run.data, run.loss, run.rule)
    if why:
        raise PlanError(why)
    trial(run)
    _agree(run)
    run = bound(run)
    work = Work(run)
    _ = work.stops  # which refuses what cannot be looked at
    N, population = count(run)
    backend, reasons = _backend(work)
    place = measure.place(backend.name, work.one, N)
    tuning, memory, more = backend.choose(work, N, tuning, place.reserved)
    tuning, loop = backend.quicken(work, N, tuning, lambda: _expected(
        work, backend.name, N, saves, tuning)[0].get("training"))
    more = (*more, *loop, *place.explain())
    memory |= _memory(work, N, saves)
    _fit(N, memory)
    ids = np.arange(N, dtype=np.int64) if run.ids is None else run.ids
    keys = ids if run.keys is None else run.keys[ids]
    own = run if run.ids is None else members(run, ids, population)
    base, row, table = schedule(own.step_size.compile(N, run.steps), N)
    numbers = run.rule.numbers()  # by all networks, so that what is 0 for some of them is in use, as it is for all
    numbers = numbers if run.ids is None else chosen(numbers, ids, population)
    numbers = {name: filled(a, N, np.float64) for name, a in numbers.items()}
    each = _each(own, N, work)
    noises = {name: schedule(own.rule.noise_schedule(name, own, N), N) for name in own.rule.noises()}
    representable(run.dtype, _hypers(work, base, numbers, noises, each))
    made = Plan(run=run, backend=backend.name, reasons=(*reasons, *more), ids=ids, keys=keys, start=None,
                base=base, row=row, table=table, saves=saves, tuning=tuning, numbers=numbers, noises=noises,
                sets=run.data.numbers[ids] if run.data.sets else None,
                losses=work.own_losses(ids) if work.losses else None,
                levels=tuple(np.array(np.broadcast_to(stop.level, (N,)), np.float64) for stop in own.stop),
                memory=memory, cost=partial(_expected, work, backend.name, N, saves, tuning), work=work, each=each)
    return with_tables(made), partial(start_of, own, ids, keys)


def _expected(*given, **more):
    """`cost.expected`, which a plan may ask for; a short run does not."""
    from .cost import expected

    return expected(*given, **more)


def with_tables(made):
    """The Plan that knows what the tables of its launches take, and how many steps they can be for."""
    a_step, T = backends.by_name(made.backend).table_bytes(made), made.run.steps
    most = made.most_steps(a_step)
    tables = min(T, made.tuning.segment or T, most) * (a_step + made.made_bytes)
    made = like(made, most=most, memory=made.memory | {"tables of a launch": tables})
    _fit(made.N, made.memory)
    return made


def members(run, ids, population):
    """The Run with the networks `ids` alone in its per-network fields, whose length is then theirs.

    Only what is made of it, network by network, is theirs: draws are by ids. The model keeps its scales, `start` picks.
    """
    return like(run, **shares(run, ids, population))


def _each(run, N, work):
    """[N, G, 3] of `Rule.each`, None where all parameters have the same numbers; what is fixed does not decay."""
    if not work.groups:
        return None
    given = [[a if k == 0 or run.model.trained(name) else 0.0 for k, a in enumerate(numbers)]
             for name, numbers in run.rule.each(run.model.shapes()).items()]
    rows = [np.stack([np.broadcast_to(np.asarray(a, np.float64), (N,)) for a in row], axis=-1) for row in given]
    return np.stack(rows, axis=1)


def schedule(compiled, N):
    """(base [N] float64, row [N] int32, table), owned."""
    base, row, table = compiled
    return filled(base, N, np.float64), filled(row, N, np.int32), table


def filled(values, N, dtype):
    """[] or [N] as an array [N] of its own."""
    out = np.empty(N, dtype)
    out[...] = values
    return out


def _agree(run):
    """Refuse fields that contradict each other."""
    model, data = run.model, run.data
    if model.d != data.d:
        raise PlanError(f"model.d: is {model.d}, but {'X' if data.n else 'data'} has d={data.d} inputs")
    dtypes(run)
    _labels(run)
    if data.n * max(1, data.sets) >= 2**32:
        raise PlanError(f"X: has {data.n * max(1, data.sets)} points, at most 2**32 - 1 can be drawn from")
    if model.P >= 2**31:
        raise PlanError(f"model: has P={model.P} parameters, kernels number at most 2**31 - 1")
    may_step(run)
    _order(run)
    _counters(run)
    for metric in run.metrics:
        why = metric.refuse(model, data.one)
        if why:
            raise PlanError(f"metrics: {metric.name} is not possible here: {why}")
        lacking = [name for name in metric.needs_carried if name not in run.rule.buffers()]
        if lacking:
            raise PlanError(f"metrics: {metric.name} is not possible here: {type(run.rule).__name__} does not carry "
                            f"{', '.join(lacking)} from step to step")
    taken = {*model.shapes(), *AXES, *(("time",) if run.rule.flows else ())}
    taken.update(axis for metric in run.metrics for axis in metric.axes(model, data.one) or ())
    for metric in run.metrics:
        if metric.name in taken:
            raise PlanError(f"metrics: the name {metric.name!r} belongs to a parameter or an axis of the result; give "
                            "another name=...")
    if run.save.of == "average" and "average" not in run.rule.buffers():
        raise PlanError("save.of: 'average' given, but the rule has no average; give it average=...")
    if run.save.floor is not None and not data.n:
        raise PlanError("save.floor: needs a training set to descend on, the data have none")


def may_step(run):
    """Refuse step sizes of other steps, and a rule that this run cannot have."""
    if getattr(run.step_size, "steps", run.steps) != run.steps:
        raise PlanError(f"step_size: the table has {run.step_size.steps} steps, the run has T={run.steps} "
                        f"(shape {list(run.step_size.values.shape)} given, read as [T] or [N, T])")
    why = run.rule.refuse(run)
    if why:
        raise PlanError(f"rule: {why}")


def dtypes(run, fields=("data", "init", "step_size", "model", "rule", "loss", "stop")):
    """Refuse arrays of these fields that the run could only take with other numbers in them."""
    for field in fields:
        given = {field: getattr(run, field)}
        if field == "data":
            given = {name: getattr(run.data, name) for name in ("X", "y", "X_test", "y_test")}
            given |= {f"data.{name}": getattr(run.data, name, None) for name in ("weights", "density", "scale")}
        for name, value in given.items():
            for where, array in arrays(value, name):
                exact = field == "init" or (field == "data" and not where.startswith(("data.density", "data.scale")))
                why = other_dtype(array, run.dtype, hyper=not exact)
                if why:
                    raise PlanError(f"{where}: {why}")


def _labels(run):
    """Refuse labels that the loss or the model cannot have."""
    model, data, loss = run.model, run.data.rows, run.loss
    for name, y in (("y", data.y), ("y_test", data.y_test)):
        why = loss.refuse(model.outputs, y) if y is not None or name == "y" else None
        if why and data is not run.data:  # sets one after the other: shapes are said as they were given
            lead = getattr(run.data, name).shape[:2]
            for shape in {y.shape, y.shape[:1], (len(y), model.outputs)}:
                why = why.replace(f" {shape}", f" {(*lead, *shape[1:])}")
        if why:
            raise PlanError(f"loss: {why.replace('y has', f'{name} has')}")
    made = getattr(data, "outputs", model.outputs)
    if made != model.outputs:
        raise PlanError(f"data: labels have {made} number(s), the model has {model.outputs} output(s)")


def _order(run):
    """Refuse an order that does not fit the rule or the data."""
    order, data, batch = run.order, run.data, run.rule.batch(run.data.n)
    if not data.n:
        if run.rule.full:
            raise PlanError(f"rule: {type(run.rule).__name__} takes all samples at every step, but these data are made "
                            "on the way and have no end; use a rule with a batch_size")
        if order.kind in ("epochs", "table") or order.network is not None:
            raise PlanError(f"order: {what_is(order)} given, but every sample is new; leave order out")
        return
    if order.kind == "epochs" and not run.rule.full and order.drop_last and batch > data.n:
        raise PlanError(f"order: drop_last leaves no step of an epoch of n={data.n} points, {batch} a step; take "
                        "drop_last=False, or a smaller batch_size")
    if order.kind == "permute" and not run.rule.full and batch > data.n:
        raise PlanError(f"order: {batch} samples a step without replacement, but X has n={data.n} points")
    if order.kind == "table":
        if run.rule.full:
            raise PlanError(f"order: Replay given, but {type(run.rule).__name__} uses all samples at every step; leave "
                            "order out")
        _, T, given = order.table.shape
        if T != run.steps:
            raise PlanError(f"order: has {T} steps, the run has T={run.steps} (order: {order.as_read()})")
        if given != batch:
            raise PlanError(f"order: has {given} samples a step, the rule takes {batch} (order: {order.as_read()})")
        if order.order.max() >= data.n:
            raise PlanError(f"order: holds index {order.order.max()}, legal are 0 .. {data.n - 1} (n={data.n} "
                            "points)")


def _counters(run):
    """Refuse runs that have more steps or items than the 32-bit counters of their draws; see spec/draws.py."""
    for draw, (items, of_what) in _drawn(run).items():
        steps, most = draws.LIMITS[draw]
        if run.steps > steps:
            raise PlanError(f"steps: {run.steps} given, with {draw} expected at most {steps}: draws would repeat")
        if items > most:
            raise PlanError(f"{of_what} are {items}, with {draw} expected at most {most}: draws would repeat")
    order, n = run.order, run.data.n
    if order.kind == "epochs" and _taken(run):
        epochs = draws.LIMITS["an order without replacement"][0]  # they are what has permutations
        most = epochs * order.epoch(n, _taken(run)) // _taken(run)
        if run.steps > most:
            raise PlanError(f"steps: {run.steps} given, with epochs of n={n} samples expected at most {most}: draws "
                            "would repeat")


def _taken(run):
    """Samples of a step that an order draws: none of a full step, but one for noise on one label."""
    one = any(getattr(record, "on", "batch") == "one" for record in run.rule.noises().values())
    return run.rule.batch(run.data.n) if not run.rule.full else int(one)


def _drawn(run):
    """{draws of `draws.LIMITS`: (items of a step, what they are)} of a run."""
    model, data, rule, noises = run.model, run.data, run.rule, run.rule.noises()
    batch, taken, out = rule.batch(data.n), _taken(run), {}
    if taken and data.n and run.order.kind in ("replace", "permute"):
        name = "an order" if run.order.kind == "replace" else "an order without replacement"
        out[name] = taken, "rule.batch_size: samples of a step"
    if "label_noise" in noises:
        labels = (1 if rule.full and taken else batch) * model.outputs
        out[f"{noises['label_noise'].kind} noise on labels"] = labels, "rule.batch_size: labels of a step"
    if "gradient_noise" in noises:
        out[f"gradient noise ({noises['gradient_noise'].kind})"] = model.P, "model: parameters"
    if data.kind == "fresh":
        inputs = batch * ((data.d + 1) // 2 if data.inputs == "gaussian" else data.d)
        out[f"{data.inputs} inputs made on the way"] = inputs, "rule.batch_size: draws of a step's inputs"
    return out


def count(run):
    """(N, size of the population): members are numbered 0 .. population - 1, `ids` selects some of them."""
    given = lengths(run)
    if len(set(given.values())) > 1:
        read = [f"order: {run.order.as_read()}"] if "order" in given else []
        if given.get("step_size") == run.steps and hasattr(run.step_size, "base"):
            read.append(f"step_size: [{run.steps}] given, read as [N]; one for each step is fs.StepTable(values)")
        raise PlanError("per-network fields disagree about the number of networks: "
                        + ", ".join(f"{name} has {N}" for name, N in given.items()) + "".join(f" ({r})" for r in read))
    population = next(iter(given.values()), None)
    if run.ids is None:
        return population or 1, population or 1
    if population is not None and run.ids.max() >= population:
        raise PlanError(f"ids: holds {run.ids.max()}, but the population has {population} networks")
    return len(run.ids), 1 if population is None else population


def _size(metric, run):
    """Numbers that a metric has for one network at one step, 1 where it does not know."""
    return prod(len(labels) for labels in (metric.axes(run.model, run.data.one) or {}).values())


def _memory(work, N, saves):
    """{what: bytes} that a run takes besides its backend and tables: an upper bound, tests measure it."""
    run, P = work.run, work.run.model.P
    item, rule = np.dtype(run.dtype).itemsize, run.rule
    numbers, noises = len(rule.numbers()), len(rule.noises())
    groups = len(run.model.shapes()) if rule.grouped else 0
    out = {"start": N * P * item * (1 + len(rule.buffers())) + min(2 * PART, 64 * N * P),
           "of each network": N * (80 + 16 * numbers + 24 * noises + 56 * groups + 24 * work.losses + _fresh(run)),
           "final parameters": N * P * item, "besides": BESIDES}
    if run.stop:
        out["those that still run"] = N * (P * item * 2 * (1 + len(rule.buffers())) + 64)  # packed anew, and the whole
    if run.metrics or run.save.params or run.stop:
        out["records"] = 8 * N * len(saves) * sum(_size(metric, run) for metric in run.metrics)
        kinds = 40 * (work.losses + 1) if run.loss.lengths() or run.data.sets else 0  # who is measured with whom
        out["measuring"] = N * (P * item + kinds) + 4 * PART  # the survivors' weights where some are lost; parts
    if run.save.params:
        out["saved parameters"] = N * len(saves) * P * item
    return out


def _fresh(run):
    """Bytes that a network has of what is its own in samples made on the way."""
    data, item = run.data, np.dtype(run.dtype).itemsize
    return 16 + (data.teacher.P * item if data.teachers else 0) if data.kind == "fresh" and data.sets else 0


def _fit(N, memory):
    """Refuse what this machine's memory cannot hold, before the operating system ends the process for it."""
    need = sum(memory.values())
    if need < SURELY:  # looking takes longer than such a run
        return
    have = limits.memory()
    if need > have:
        raise PlanError(f"networks: N={N} networks need {need / 2**30:.4g} GiB ("
                        + ", ".join(f"{what} {size / 2**30:.3g}" for what, size in memory.items())
                        + f"), this machine and its limits leave {have / 2**30:.3g}; save fewer steps, or run some at "
                        "a time with ids=")


def _hypers(work, base, numbers, noises, each):
    """{name: the numbers of a run that are rounded to its dtype}."""
    run, given = work.run, {"step_size": base, "rule, of single parameters": each}
    given |= {f"rule.{name}": a for name, a in numbers.items()}
    given |= {f"rule.{name}": base for name, (base, _, _) in noises.items()}
    given |= {f"rule.state.{name}": a for name, a in run.rule.starts().items()}
    given |= {f"loss.{name}": np.asarray(a, np.float64) for name, a in run.loss.numbers().items()}
    given["loss.factor"] = 2 * given["loss.factor"]
    given["data.scale"] = getattr(run.data, "scale", None)
    if work.asked.data.kind == "population":
        given["data, as the closed form has them"] = run.data.X
    told = {} if work.form is None else work.form.described()
    given |= {f"model.{word}": told.get(name) for name, word in (("multipliers", "scaling"), ("slope", "slope"))}
    for name, point in ({} if run.rule.localisation is None else run.rule.localisation.at or {}).items():
        if len(large := point[np.abs(point) > np.finfo(run.dtype).max]):
            raise PlanError(f"rule.localisation.at.{name}: {large[0]:g} is too large for {run.dtype}; choose a "
                            "nearer point, or pass dtype='float64'")
    return given


def representable(dtype, given):
    """Refuse numbers {name: values} that a run's dtype turns into infinity, or into 0 where they are not."""
    for name, values in given.items():
        values = np.asarray(() if values is None else values, np.float64).reshape(-1)
        ends = (values.min(), values.max()) if len(values) > 1 else values.tolist()  # NumPy takes long for one number
        if all(SAFE <= end <= 1 / SAFE for end in ends):
            continue
        with np.errstate(over="ignore", under="ignore"):
            cast = values.astype(dtype)
        bad = np.flatnonzero(((cast == 0) & (values != 0)) | ~np.isfinite(cast))
        if len(bad):
            twice = " twice itself," if name == "loss.factor" else ""
            raise PlanError(f"{name}:{twice} {values[bad[0]]:g} becomes {cast[bad[0]]:g} in {dtype}; rescale it, "
                            "or pass dtype='float64'")


def _backend(work):
    """(backend, reasons). A named backend runs or raises; "auto" takes the first that can, and warns if it is slow."""
    run = work.run
    kind = run.device and run.device.partition(":")[0]
    if run.backend != "auto":
        its = backends.KINDS[run.backend]
        if kind not in (None, its):
            raise PlanError(f"device: {run.device!r} given, but the backend {run.backend!r} runs on {its!r}")
        why_not = backends.why_not(run.backend, work)
        if why_not:
            raise BackendUnavailable(f"backend {run.backend!r} cannot run this: {why_not}")
        return backends.by_name(run.backend), ("asked for by name",)
    reasons = []
    for name, its in backends.KINDS.items():
        why_not = backends.why_not(name, work) if kind in (None, its) else "it does not run there"
        if why_not is None:
            backend = backends.by_name(name)
            if backend.slow:
                warnings.warn(f"backend='auto' takes {name!r}, some thousand times slower than kernels: "
                              + "; ".join(reasons) + f". backend={name!r} takes it without this warning",
                              SlowBackendWarning, stacklevel=_depth())
            return backend, (*reasons, "chosen by backend='auto': the first that can")
        reasons.append(f"not {name}: {why_not}")
    if kind == "cuda":
        raise BackendUnavailable(f"no backend can run this on device {run.device!r}: " + "; ".join(reasons))
    raise PlanError("no backend can run this: " + "; ".join(reasons))


def _depth():
    """How many calls up a warning belongs: to the line that called this package."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, depth = frame.f_back, depth + 1
    return depth


def start_of(run, ids, keys):
    """Starting weights [N, P] in the run's dtype; what is not drawn is made for some networks at a time."""
    model, N = run.model, len(ids)
    if run.init is None and type(model).start is Model.start:
        start, fine = started(model, run.seed, ids, keys, run.dtype)
    else:
        start, at_once = np.empty((N, model.P), run.dtype), max(1, PART // (32 * model.P))
        with np.errstate(over="ignore"):
            for k in range(0, N, at_once):
                part = slice(k, k + at_once)
                start[part] = (_drawn_start(run, ids[part], keys[part]) if run.init is None else
                               _given_start(run, part, N))
        fine = all_finite(start)
    if not fine:
        raise PlanError(f"{'model' if run.init is None else 'init'}: starting weights overflow {run.dtype}; choose "
                        "smaller ones, or pass dtype='float64'")
    return start


def _drawn_start(run, ids, keys):
    model = run.model
    flat = model.start(run.seed, ids) if run.keys is None else _keyed_start(model, run.seed, ids, keys)
    if np.shape(flat) != (len(ids), model.P):
        raise PlanError(f"model.start: {type(model).__name__} returned shape {np.shape(flat)}, expected "
                        f"{(len(ids), model.P)}, a row for each network")
    return flat


def _keyed_start(model, seed, ids, keys):
    try:
        return model.start(seed, ids, keys)
    except TypeError as error:
        raise PlanError(f"keys: {type(model).__name__} has a start of its own, which must take (seed, ids, keys) for "
                        f"draws by keys ({error})") from None


def _given_start(run, which, N):
    shapes = run.model.shapes()
    part = {name: a[which] if a.ndim > len(shapes.get(name, a.shape)) and len(a) == N else a
            for name, a in run.init.items()}
    try:
        return run.model.flatten(part, len(range(N)[which]))
    except SpecError as error:
        raise PlanError(str(error)) from None
