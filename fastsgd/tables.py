"""Owns results as other tools have them: labelled arrays, long tables, zarr and netCDF; and several made one."""

import os
from pathlib import Path

import numpy as np

from .errors import BackendUnavailable, PlanError, SpecError
from .spec.fields import chosen, joined, lengths, swept, without_ids
from .spec.record import described

PER_NETWORK = ("model", "rule", "step_size", "init", "order", "keys", "stop", "loss")  # fields of a run that may be
SUFFIXES = {".zarr": "zarr", ".nc": "netCDF"}


def to_xarray(result):
    """See `Result.to_xarray`."""
    import json

    import xarray

    run, data, labels = result.run, {}, {}
    axes = {metric.name: metric.axes(run.model, run.data.one) for metric in run.metrics}
    for name, a in result.records.items():
        own = axes.get(name) or {f"{name}_{k}": range(size) for k, size in enumerate(a.shape[2:])}
        data[name] = (("net", "step", *own), a)
        labels |= {axis: list(values) for axis, values in own.items()}
    for name, a in run.model.unflatten(result.weights).items():
        data[name] = (("net", *(f"{name}_{k}" for k in range(a.ndim - 1))), a)
    if result.saved_weights is not None:
        for name, a in run.model.unflatten(result.saved_weights).items():
            data[f"saved_{name}"] = (("net", "step", *(f"{name}_{k}" for k in range(a.ndim - 2))), a)
    for name, a in swept(run).items():
        labels[name] = (("net", *(f"{name}_{k}" for k in range(a.ndim - 1))), a)
    keys = result.ids if run.keys is None else run.keys if run.ids is None else run.keys[run.ids]
    if not np.array_equal(keys, result.ids):
        labels["key"] = "net", keys
    labels |= {"net": result.ids, "step": result.steps, "step_size": ("net", result.base), "lost": ("net", result.lost)}
    labels |= {name: ("net", a) for name, a in stops(result).items()}
    labels |= {name: (("net", "step")[-a.ndim:], a) for name, a in times(result).items()}
    attributes = {k: str(v) for k, v in result.provenance.items()}
    attributes |= {"request": json.dumps(described(run)), "seed": run.seed}
    return xarray.Dataset(data, coords=labels, attrs=attributes)


def stops(result):
    """{"stopped", "stopped_by": [N]} of a result, if its run has stops."""
    return {"stopped": result.stopped, "stopped_by": result.stopped_by} if result.run.stop else {}


def times(result):
    """{"time": [S], or [N, S] where networks have their own}: saved times of gradient flow; {} of other runs."""
    run = result.run
    if not run.rule.flows:
        return {}
    population = next(iter(lengths(run).values()), None)
    size = run.step_size if run.ids is None or population is None else chosen(run.step_size, run.ids, population)
    base, row, table = size.compile(len(result.ids), run.steps)
    since = np.cumsum(np.pad(table(0, run.steps), ((0, 0), (1, 0))), axis=1)[:, result.steps]
    since = np.asarray(base, np.float64)[:, None] * since[row]
    return {"time": since[0] if (since == since[:1]).all() else since}


def to_pandas(result):
    """See `Result.to_pandas`."""
    import pandas

    N, S = len(result.ids), len(result.steps)
    columns = {"net": np.repeat(result.ids, S), "step": np.tile(result.steps, N),
               "step_size": np.repeat(result.base, S), "lost": np.repeat(result.lost, S)}
    columns |= {name: np.repeat(a, S) for name, a in stops(result).items()}
    columns |= {name: np.repeat(a, S) for name, a in swept(result.run).items() if a.ndim == 1 and name not in columns}
    columns |= {name: np.broadcast_to(a, (N, S)).reshape(-1) for name, a in times(result).items()}
    columns |= {name: a.reshape(-1) for name, a in result.records.items() if a.ndim == 2}
    return pandas.DataFrame(columns)


def write(result, path):
    """Write the labelled arrays of a result to PATH.zarr or PATH.nc, compressed, whole or not at all."""
    import shutil
    import tempfile

    path = Path(path)
    dataset, made = to_xarray(result), None
    dataset.attrs["seed"] = str(result.run.seed)  # netCDF has no number that large
    if path.suffix == ".nc":
        from .files import writable
        writable(path, "path")
    elif path.exists() and not (path / "zarr.json").exists():
        raise SpecError(f"path: {str(path)!r} is there and is no zarr store")
    folder = tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        made = Path(folder) / path.name
        if path.suffix == ".zarr":
            dataset.to_zarr(made, mode="w", consolidated=False, zarr_format=3)  # which zarr compresses by itself
            if path.exists():
                os.rename(path, Path(folder) / "old")
        else:
            numbers = {name: {"zlib": True, "complevel": 4} for name, a in dataset.variables.items()
                       if a.ndim and a.dtype.kind in "fiu"}
            dataset.to_netcdf(made, engine=_engine(), encoding=numbers)
        os.replace(made, path)
    except ImportError as error:
        raise BackendUnavailable(f"path: {SUFFIXES[path.suffix]} files need {error.name or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _engine():
    """Who writes netCDF here."""
    from importlib.util import find_spec

    for name, engine in (("netCDF4", "netcdf4"), ("h5netcdf", "h5netcdf")):
        if find_spec(name):
            return engine
    raise ImportError("netCDF4 or h5netcdf", name="netCDF4 or h5netcdf")


def positions(result, mask, labels):
    """Positions [M] of the networks that a mask, or places, and values of labels choose."""
    N = len(result.ids)
    chosen = np.ones(N, bool)
    known = swept(result.run) | {"net": result.ids, "step_size": result.base, "lost": result.lost}
    known |= stops(result)
    for name, wanted in labels.items():
        match = [full for full in known if full == name] or [full for full in known if full.endswith(f".{name}")]
        if len(match) != 1:
            raise SpecError(f"select: {name!r} given, the networks' labels are {', '.join(sorted(known))}")
        values = known[match[0]]
        if values.ndim > 1:
            raise SpecError(f"select: {name!r} has {values.shape[1]} values for each network; choose by a mask")
        chosen &= np.isin(values, np.atleast_1d(wanted))
    if mask is None:
        return np.flatnonzero(chosen)
    mask = np.asarray(mask.detach().cpu() if hasattr(mask, "detach") else mask)
    if mask.dtype == bool and mask.shape == (N,):
        return np.flatnonzero(chosen & mask)
    if mask.dtype.kind not in "iu" or mask.ndim != 1 or (mask.size and (mask.min() < -N or mask.max() >= N)) or len(
            np.unique(mask % N)) < len(mask):
        raise SpecError(f"select: a mask of shape {mask.shape}, {mask.dtype} given, expected [{N}] true or false, or "
                        f"different places in 0 .. {N - 1}")
    return (mask % N)[chosen[mask % N]]


def members(run, positions):
    """The Run of the networks at `positions` of a run's own."""
    population = next(iter(lengths(run).values()), 1)
    ids = np.arange(population) if run.ids is None else run.ids
    return without_ids(run.replace(ids=ids[positions]))


def together(runs, counts):
    """One Run of the networks of several, which may differ in per-network fields alone. Raises PlanError."""
    runs = [without_ids(run, bits=False) for run in runs]
    runs = [run if run.keys is not None else run.replace(keys=np.arange(N), networks=None)
            for run, N in zip(runs, counts, strict=True)]
    fields = {}
    for name in type(runs[0]).__dataclass_fields__:
        values = [getattr(run, name) for run in runs]
        if name == "data" and any(run.data.sets for run in runs) and runs[0].data.kind == "given":
            fields[name] = _data(values)
        elif name == "networks" or all(value is values[0] for value in values):
            fields[name] = None if name == "networks" else values[0]
        elif name == "order" and all(getattr(value, "kind", None) == "table" for value in values):
            fields[name] = _order(values, counts)
        elif name == "init" and all(values):
            fields[name] = _init(values, counts, runs[0].model.shapes())
        elif (any(value.sets for value in values) if name == "data" else
              any(value.lengths() for value in values) if name == "loss" else name in PER_NETWORK):
            try:
                fields[name] = joined(values, counts, name)
            except SpecError as error:
                raise PlanError(f"concat: {error}") from None
        elif all(_text(value) == _text(values[0]) for value in values):
            fields[name] = values[0]
        else:
            raise PlanError(f"concat: {name} differs between the results, and is not for each network")
    return type(runs[0])(**fields)


def _order(values, counts):
    """The explicit order of the networks of several runs: the one that all have, or a row for each network."""
    tables = [value.order[(None,) * (value.order.ndim == 1)] for value in values]
    if all(np.array_equal(a, tables[0]) and len(a) == 1 for a in tables):
        return values[0]
    if len({a.shape[1:] for a in tables}) > 1:
        raise PlanError("concat: order differs between the results in its number of steps or samples")
    return type(values[0])(_rows(tables, counts))


def _init(values, counts, shapes):
    """Starting parameters of the networks of several runs: by name those that all have, or some for each network."""
    if any(set(value) != set(shapes) for value in values):
        raise PlanError("concat: init differs between the results in the names of its parameters")
    out = {}
    for name, shape in shapes.items():
        arrays = [value[name] for value in values]
        one = all(a.ndim == len(shape) and np.array_equal(a, arrays[0]) for a in arrays)
        out[name] = arrays[0] if one else _rows([a[(None,) * (a.ndim == len(shape))] for a in arrays], counts)
    return out


def _rows(arrays, counts):
    """Arrays [1 or N, ...] of several runs as one with a row for each of their networks."""
    return np.concatenate([np.broadcast_to(a, (N, *a.shape[1:])) for a, N in zip(arrays, counts, strict=True)])


def _data(values):
    """The data of networks that have a set each, of several runs: sets of one run after those of the other."""
    first = values[0]
    names = [name for name in ("X", "y", "X_test", "y_test") if getattr(first, name, None) is not None]
    shapes = [[(getattr(data, name).dtype, getattr(data, name).shape[1:]) for name in names] if data.sets else None
              for data in values]
    if any(shape != shapes[0] or (data.X_test is None) != (first.X_test is None)
           for shape, data in zip(shapes, values, strict=True)):
        raise PlanError("concat: data differ between the results in more than their numbers; each needs sets "
                        "X [K, n, d] of the same n, d and test sets")
    begins = np.cumsum([0, *(data.sets for data in values)])
    which = np.concatenate([data.numbers + begin for data, begin in zip(values, begins[:-1], strict=True)])
    arrays = {name: np.concatenate([getattr(data, name) for data in values]) for name in names}
    return type(first)(**arrays, which=which)


def _text(value):
    """What tells values of one field apart."""
    from .spec import codec

    try:
        return codec.digest(*codec.encode(value))
    except SpecError:  # functions
        return id(value)
