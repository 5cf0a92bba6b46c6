"""Owns the arrays of a run's records by dotted names, such as rule.weight_decay, and which of them are per network."""

import numpy as np

PLAIN = (float, int, str, type(None))  # bool is an int


def arrays(value, name):
    """Yield (dotted name, array) of every array in a tree of records, dicts and tuples that is called `name`.

    Entries of a tuple are called name[0], name[1], ..., or name alone where all are one array.
    """
    if isinstance(value, np.ndarray):
        yield name, value
    elif hasattr(value, "__dataclass_fields__"):
        for field in value.__dataclass_fields__:
            inner = getattr(value, field, None)
            if not isinstance(inner, PLAIN):  # an amplitude and a table have but one array
                yield from arrays(inner, name if field in ("value", "values") else f"{name}.{field}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from arrays(item, f"{name}['{key}']")
    elif isinstance(value, tuple) and value:
        if all(item is value[0] for item in value):
            yield from arrays(value[0], name)
        else:
            for k, item in enumerate(value):
                yield from arrays(item, f"{name}[{k}]")


def lengths(run):
    """{field: number of networks it was given for} of a Run, fields given once left out."""
    given = run.step_size.lengths() | run.rule.lengths()
    if run.init is None:  # else the model's scales have no part
        given |= run.model.lengths()
    for name, array in (run.init or {}).items():
        shape = run.model.shapes().get(name)
        if shape is not None and array.ndim == len(shape) + 1:
            given[f"init['{name}']"] = len(array)
    table = getattr(run.order, "table", ())
    if len(table) > 1:
        given["order"] = len(table)
    if run.networks is not None:
        given["networks"] = run.networks
    return given


def swept(run, ids):
    """{dotted name: values [N] or [N, m] of the networks `ids`} of the hyper-parameters that were given per network."""
    population = next(iter(lengths(run).values()), None)
    out = {}
    for part in ("step_size", "rule", "model"):
        for name, array in arrays(getattr(run, part), part):
            table = part == name  # step sizes of every step are no labels
            if array.ndim and not table and len(array) == population and array.shape != (1, 1):
                out[name] = array[ids]
    return out


def chosen(value, ids, population):
    """A copy of a record whose per-network arrays are those of the networks `ids` alone; what has none is itself.

    population: number of networks that per-network arrays are for
    """
    if isinstance(value, np.ndarray):
        return value[ids] if value.ndim and len(value) == population else value
    if isinstance(value, tuple):
        return tuple(chosen(item, ids, population) for item in value)
    if not hasattr(value, "__dataclass_fields__") or (hasattr(value, "lengths") and not value.lengths()):
        return value  # a table [T] has no networks, however long it is
    copy = object.__new__(type(value))
    copy.__dict__.update(vars(value))
    for name in value.__dataclass_fields__:
        if name in vars(value):
            copy.__dict__[name] = chosen(vars(value)[name], ids, population)
    return copy
