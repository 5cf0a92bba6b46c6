"""Owns the arrays of a run's records by dotted names, such as rule.weight_decay, and which of them are per network."""

import numpy as np

from ..errors import SpecError
from .metric import Metric
from .record import like

PLAIN = (float, int, str, type(None))  # bool is an int


def _shared(record, name):
    """Whether the arrays of a record's field are the same for all networks, however long they are."""
    return record.__dataclass_fields__[name].metadata.get("shared", False)


def arrays(value, name, shared=True):
    """Yield (dotted name, array) of every array in a tree of records, dicts and tuples that is called `name`.

    An entry of a dict or a tuple is a word more: init.W1, stop.0.level. A tuple of one array alone has its own name.
    shared: also of fields that are the same for all networks
    """
    if isinstance(value, np.ndarray):
        yield name, value
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, Metric):  # whose arrays are points
        for field in value.__dataclass_fields__:
            inner = getattr(value, field, None)
            if not isinstance(inner, PLAIN) and (shared or not _shared(value, field)):
                # an amplitude and a table have but one array
                yield from arrays(inner, name if field in ("value", "values") else f"{name}.{field}", shared)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from arrays(item, f"{name}.{key}", shared)
    elif isinstance(value, tuple) and value:
        if all(item is value[0] or _equal(item, value[0]) for item in value):  # one for all, also out of a file
            yield from arrays(value[0], name, shared)
        else:
            for k, item in enumerate(value):
                yield from arrays(item, f"{name}.{k}", shared)


def _equal(a, b):
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.array_equal(a, b)


def lengths(run):
    """{field: number of networks it was given for} of a Run, fields given once left out."""
    given = run.step_size.lengths() | run.rule.lengths()
    given |= run.data.lengths() | run.loss.lengths()
    given |= {f"stop.{k}.{name}": N for k, stop in enumerate(run.stop) for name, N in stop.lengths().items()}
    given |= start_lengths(run)
    table = getattr(run.order, "table", ())
    if len(table) > 1:
        given["order"] = len(table)
    if run.keys is not None:
        given["keys"] = len(run.keys)
    if run.networks is not None:
        given["networks"] = run.networks
    return given


def start_lengths(run):
    """The same of the starting weights alone: the model's scales do not count where weights are given."""
    if run.init is None:
        return run.model.lengths()
    shapes = run.model.shapes()
    return {f"init.{name}": len(array) for name, array in run.init.items()
            if name in shapes and array.ndim == len(shapes[name]) + 1}


def swept(run):
    """{dotted name: values [N] or [N, m] of a run's networks} of the hyper-parameters that were given per network."""
    population, ids = next(iter(lengths(run).values()), None), slice(None) if run.ids is None else run.ids
    out = {}
    for part in ("step_size", "rule", "model", "stop"):
        for name, array in arrays(getattr(run, part), part, shared=False):
            table = part == name  # step sizes of every step are no labels
            if array.ndim and not table and len(array) == population and array.shape != (1, 1):
                out[name] = array[ids]
    given = run.loss.lengths()
    out |= {f"loss.{name}": a[ids] for name, a in run.loss.numbers().items() if f"loss.{name}" in given}
    return out | {name: values[ids] for name, values in run.data.swept().items()}


def chosen(value, ids, population):
    """A copy of a record whose per-network arrays are those of the networks `ids` alone; what has none is itself.

    population: number of networks that per-network arrays are for
    """
    if isinstance(value, np.ndarray):
        return value[ids] if value.ndim and len(value) == population else value
    if isinstance(value, tuple):
        return tuple(chosen(item, ids, population) for item in value)
    if isinstance(value, dict):
        return {name: chosen(item, ids, population) for name, item in value.items()}
    if not hasattr(value, "__dataclass_fields__") or isinstance(value, Metric) or (
            hasattr(value, "lengths") and not value.lengths()):
        return value  # a table [T] has no networks, however long it is
    return like(value, **{name: chosen(vars(value)[name], ids, population) for name in value.__dataclass_fields__
                          if name in vars(value) and not _shared(value, name)})


def shares(run, ids, population):
    """{field: what the networks `ids` have of it} of the fields of a run that may hold arrays for its networks.

    The model, the data and the order are not among them: the caller has to see whether these can be cut.
    """
    shapes = run.model.shapes()
    init = run.init and {name: a[ids] if a.ndim > len(shapes.get(name, a.shape)) else a for name, a in run.init.items()}
    return {"init": init, "loss": run.loss.picked(ids)} | {
        name: chosen(getattr(run, name), ids, population) for name in ("step_size", "rule", "stop")}


def by_batch_size(run):
    """[(the Run of the networks of one batch size, their positions among the run's)], small sizes first.

    None of a run whose networks share one.
    """
    sizes = getattr(run.rule, "batches", None)
    if sizes is None:
        return None
    population, ids = len(sizes), np.arange(len(sizes), dtype=np.int64) if run.ids is None else run.ids
    where = [(int(size), np.flatnonzero(sizes[ids] == size)) for size in np.unique(sizes[ids])]
    return [(run.replace(rule=run.rule.of_batch(size), ids=ids[at], networks=population), at) for size, at in where]


def spread(parts, where):
    """One array [N, ...] of parts [M, ...] whose networks are at the positions `where` [M]; None where a part is."""
    if any(part is None for part in parts):
        return None
    out = np.empty((sum(map(len, where)), *parts[0].shape[1:]), parts[0].dtype)
    for at, part in zip(where, parts, strict=True):
        out[at] = part
    return out


def portion(array, at):
    """The part [M, ...] of an array [N, ...] at the positions `at` [M], which `spread` puts back; None where it is."""
    return None if array is None else array[at]


def without_ids(run, bits=True):
    """The Run of the networks `run.ids` and no others, of the same bits: fields hold their values, `keys` their draws.

    bits: whether bits must be the same; they are not where a rule's number is 0 for these networks and not for all
    Returns `run` itself if it has no ids, or a model or a rule that cannot be cut.
    """
    if run.ids is None:
        return run
    ids = run.ids
    population = next(iter(lengths(run).values()), None)
    model, rule = (part if population is None else chosen(part, ids, population) for part in (run.model, run.rule))
    if not _has(model, run.model, ids) or (bits and _in_use(rule) != _in_use(run.rule)):
        return run
    changes = {"ids": None, "networks": None, "keys": ids if run.keys is None else run.keys[ids], "model": model}
    if population is not None:
        changes |= shares(run, ids, population)
    if run.data.sets:
        changes["data"] = run.data.chosen(run.data.numbers[ids])
    if len(getattr(run.order, "table", ())) > 1:
        changes["order"] = type(run.order)(run.order.order[ids])
    return run.replace(**changes)


def _in_use(rule):
    """What makes a rule's time loop: names of its numbers and buffers, and its traits."""
    return set(rule.numbers()), rule.buffers(), rule.traits()


def _has(part, model, ids):
    """Whether `part` is the model of the networks `ids` alone: a model of the user's own may hold any arrays."""
    def scales(of, pick):
        return [np.broadcast_to(a[pick] if np.ndim(a) else a, len(ids)) for pair in of.scales().values() for a in pair]
    try:
        return part.shapes() == model.shapes() and all(map(np.array_equal, scales(part, slice(None)),
                                                           scales(model, ids)))
    except Exception:  # of code that is not ours
        return False


def joined(values, counts, name, may=None):
    """One value for the networks of several runs: itself where all are equal, else arrays [N] of all their networks.

    values: what each run has in the place of one per-network field, or of a record of such
    counts: networks of each; name: what messages call it; may: whether each can have arrays for its networks
    Raises SpecError where values differ that are not per network.
    """
    first, kinds = values[0], {type(value) for value in values}
    may = [True] * len(values) if may is None else may
    if kinds == {np.ndarray}:
        own = [can and value.ndim > 0 and len(value) == N for value, N, can in zip(values, counts, may, strict=True)]
        if not any(own) and all(np.array_equal(value, first) for value in values):
            return first
        shape = next((value.shape[1:] for value, wide in zip(values, own, strict=True) if wide), ())
        if all(value.shape[1:] == shape if wide else value.ndim == 0 and shape == ()
               for value, wide in zip(values, own, strict=True)):
            return np.concatenate([value if wide else np.full(N, value)
                                   for value, wide, N in zip(values, own, counts, strict=True)])
    elif len(kinds) == 1 and hasattr(first, "__dataclass_fields__"):
        if hasattr(first, "lengths"):  # a table [T] has no networks, however long it is
            may = [can and bool(value.lengths()) for value, can in zip(values, may, strict=True)]
        made = {}
        for field in first.__dataclass_fields__:
            if field not in vars(first):
                continue
            parts = [vars(value)[field] for value in values]
            made[field] = (_same(parts, f"{name}.{field}") if _shared(first, field) else
                           joined(parts, counts, f"{name}.{field}", may))
        return like(first, **made)
    elif kinds == {dict} and all(set(value) == set(first) for value in values):
        return {key: joined([value[key] for value in values], counts, f"{name}.{key}", may) for key in first}
    elif kinds == {tuple} and len({len(value) for value in values}) == 1:
        return tuple(joined(items, counts, f"{name}.{k}", may) for k, items in enumerate(zip(*values, strict=True)))
    elif all(value is first or (type(value) is type(first) and value == first) for value in values):
        return first
    raise SpecError(f"{name} differs between the results, and is not for each network")


def _same(values, name):
    """The one value, None or {name: array}, that all of `values` are."""
    first = values[0]
    for value in values[1:]:
        if (value is None) != (first is None) or (value is not None and not (
                set(value) == set(first) and all(np.array_equal(value[key], first[key]) for key in first))):
            raise SpecError(f"{name} differs between the results, and is not for each network")
    return first
