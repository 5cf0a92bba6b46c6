"""Owns what a store is read as: labelled arrays over the sweep's axes, read when asked for; one network's run again."""

import json
from collections import Counter
from functools import cached_property
from math import prod

import numpy as np

from ..errors import SpecError
from ..spec.check import whole
from ..spec.record import described
from ..spec.save import SaveAt
from .axes import put, scalar

FLAGS = "stopped", "stopped_by"  # -1 for networks of groups that have no stop
MOST_SAVED = 10_000_000  # steps that a replay saves unasked


def open(store, allow_incomplete=False):
    """An xarray.Dataset of a store's records, read from disk when they are asked for.

    Dims are the sweep's axes, `replica`, `step`, and those of each metric. Where only some networks are kept, the dim
    `network` replaces the axes, whose values are coordinates then. `lost` is -1 for survivors and -2 for networks that
    are not done yet.
    allow_incomplete: whether ranges may be missing; their records are NaN
    Raises SpecError if ranges are missing or damaged, or if groups have records of different shapes.
    """
    import xarray

    _whole(store, allow_incomplete)
    sweep, unfolded = store.sweep, all(one.stride == 1 for one in store.layouts.values())
    saves = {name: group.run.save.resolve(group.run.steps) for name, group in store.groups.items()}
    arrays = {name: {a.name: a for a in store.arrays(name)} for name in store.groups}
    first = max(arrays.values(), key=len)  # groups whose networks never stop have fewer flags
    for name, own in arrays.items():
        full = dict.fromkeys(FLAGS, ((), ())) | {k: (a.shape, a.dims) for k, a in own.items()}
        if full != dict.fromkeys(FLAGS, ((), ())) | {k: (a.shape, a.dims) for k, a in first.items()}:
            raise SpecError(f"sweep: records of group {name} have other shapes than those of the first; open the "
                            "groups one by one: xarray.open_zarr(path / group)")
    dims, coords = labels(sweep)
    data = {}
    for name, array in first.items():
        if array.records and not unfolded:
            data[name] = ("network", *array.dims), _lazy(Kept(store, name))
        else:
            data[name] = (*dims, "replica", *array.dims), _lazy(Unfolded(store, name))
    steps = list(saves.values())
    if all(np.array_equal(s, steps[0]) for s in steps):
        coords["step"] = steps[0]
    else:
        data["saved_step"] = (*dims, "step"), _by_group(store, saves)
    if not unfolded:
        coords |= kept_labels(store)
    coords |= _metric_labels(store)
    return xarray.Dataset(data, coords, attributes(store))


def _whole(store, allow_incomplete):
    bad = store.check()
    if bad:
        raise SpecError(f"sweep: ranges {', '.join(bad[:5])}{' ...' if len(bad) > 5 else ''} are damaged; `fastsgd "
                        f"sweep work {store.path}` does them anew")
    missing = store.missing()
    if missing and not allow_incomplete:
        raise SpecError(f"sweep: {len(missing)} of {len(store.names)} ranges are missing; allow_incomplete=True opens "
                        "what is done")


def labels(sweep):
    """(names of the axes' dims, {coordinate: values}) of a sweep."""
    label, coords = sweep.labels, {}
    for axis in sweep.axes:
        for name, values in axis.columns.items():
            coords[label[name]] = (axis.dim, _shown(values))
    return [axis.dim for axis in sweep.axes], coords | {"replica": np.arange(sweep.replicas)}


def _shown(values):
    if isinstance(values, np.ndarray):
        return values
    plain = all(isinstance(value, (int, float, bool, str)) for value in values)
    if plain and len({type(value) for value in values}) == 1:
        return list(values)
    words = [value if isinstance(value, str) else repr(value) for value in values]
    often = Counter(words)  # datasets of one shape, say, and functions
    return [word if often[word] == 1 else f"{word} ({k})" for k, word in enumerate(words)]


def _metric_labels(store):
    run = next(iter(store.groups.values())).run
    return {axis: list(values) for metric in run.metrics for axis, values in (
        metric.axes(run.model, run.data.one) or {}).items()}


def attributes(store):
    sweep = store.sweep
    return {"request": json.dumps(described(sweep.base)), "seed": sweep.base.seed, "draws": sweep.draws,
            "store": store.fingerprint, "ranges": len(store.names), "done": len(store.done())}


def _by_group(store, saves):
    """Saved steps [axes..., S] where groups have different ones."""
    sweep = store.sweep
    out = np.zeros((*sweep.shape[:-1], len(next(iter(saves.values())))), np.int64)
    for name, group in store.groups.items():
        out[np.ix_(*group.members)] = saves[name]
    return out


def kept_labels(store):
    """Coordinates of the networks whose records are kept: values of the axes, and their replicas."""
    columns = {name: [] for name in (*store.sweep.labels.values(), "replica")}
    shown = {field: _shown(values) for axis in store.sweep.axes for field, values in axis.columns.items()}
    for name, one in store.layouts.items():
        group = store.groups[name]
        for k in range(one.ranges):
            range_ = one.range(k)
            low, high = range_.replicas
            kept = one.kept(range_.networks)
            cell, replica = kept // (high - low), kept % (high - low) + low
            for a, (axis, members) in enumerate(zip(store.sweep.axes, group.members, strict=True)):
                which = members[range_.cells[cell, a]]
                for field in axis.columns:
                    columns[store.sweep.labels[field]] += [shown[field][j] for j in which]
            columns["replica"] += replica.tolist()
    return {f"{name}_of": ("network", values) for name, values in columns.items()}


class Kept:
    """Records of the networks that are kept, group after group: an array that is read where it is indexed."""

    def __init__(self, store, name):
        self.parts, at = [], 0
        for group, one in store.layouts.items():
            rows = [np.arange(len(one.kept(one.range(k).networks))) + k * one.kept_size for k in range(one.ranges)]
            self.parts.append((store.path / group / name, np.concatenate(rows)))
            at += sum(map(len, rows))
        array = next(a for a in store.arrays(group) if a.name == name)
        self.shape, self.dtype = (at, *array.shape), np.dtype(array.dtype)

    def read(self, index):
        """Numbers at an outer index: an array of positions for each axis."""
        out, at = np.full(tuple(map(len, index)), np.nan, self.dtype), 0
        for path, rows in self.parts:
            inside = (index[0] >= at) & (index[0] < at + len(rows))
            if inside.any():
                out[inside] = _rows(path, rows[index[0][inside] - at], index[1:])
            at += len(rows)
        return out


class Unfolded:
    """An array over all axes of a sweep that is read where it is indexed."""

    def __init__(self, store, name):
        self.store, self.name = store, name
        self.groups = [group for group in store.groups if any(a.name == name for a in store.arrays(group))]
        array = next(a for a in store.arrays(self.groups[0]) if a.name == name)
        self.lead, self.dtype = len(store.sweep.shape), np.dtype(array.dtype)
        self.shape = (*store.sweep.shape, *array.shape)

    @cached_property
    def positions(self):
        """For each group and axis, where in the group a value of the sweep is, -1 for elsewhere."""
        out = {}
        for name, group in self.store.groups.items():
            out[name] = []
            for size, members in zip(self.store.sweep.shape[:-1], group.members, strict=True):
                position = np.full(size, -1)
                position[members] = np.arange(len(members))
                out[name].append(position)
        return out

    def read(self, index):
        """Numbers at an outer index: an array of positions for each axis."""
        lead, rest = index[:self.lead], index[self.lead:]
        shape = tuple(map(len, lead))
        fill = -2 if self.dtype.kind == "i" else np.nan
        out = np.full((prod(shape), *map(len, rest)), fill, self.dtype)
        for name, one in self.store.layouts.items():
            own = [position[k] for position, k in zip(self.positions[name], lead[:-1], strict=True)] + [lead[-1]]
            grid = np.stack([a.reshape(-1) for a in np.meshgrid(*own, indexing="ij")], axis=-1)
            here = np.flatnonzero((grid >= 0).all(axis=1))
            rows = one.rows(grid[here])
            here, rows = here[rows >= 0], rows[rows >= 0]
            if len(here) and name not in self.groups:
                out[here] = -1
            elif len(here):
                out[here] = _rows(self.store.path / name / self.name, rows, rest)
        return out.reshape(*shape, *out.shape[1:])


def _rows(path, rows, rest):
    """Rows [M] of a zarr array, at positions of its other axes."""
    import zarr

    array = zarr.open_array(path, mode="r")
    wanted, back = np.unique(rows, return_inverse=True)
    rest = tuple(_slice(k) for k in rest)
    block = _slice(wanted)
    index = (block, *rest)
    values = array[index] if all(isinstance(k, slice) for k in index) else array.oindex[index]
    return values if len(wanted) == len(rows) and (np.diff(rows) > 0).all() else values[back.reshape(-1)]


def _slice(positions):
    """Positions as a slice, where they are one."""
    if len(positions) and np.array_equal(positions, np.arange(positions[0], positions[0] + len(positions))):
        return slice(int(positions[0]), int(positions[0]) + len(positions))
    return positions


def _lazy(source):
    """An xarray variable's data that is read when it is asked for."""
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class Array(BackendArray):
        shape, dtype = source.shape, source.dtype

        def __getitem__(self, key):
            return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._get)

        def _get(self, key):
            positions = [np.arange(n)[k] if isinstance(k, slice) else np.atleast_1d(k) for n, k in zip(
                self.shape, key, strict=True)]
            gone = tuple(axis for axis, k in enumerate(key) if not isinstance(k, slice) and np.ndim(k) == 0)
            return source.read(positions).squeeze(gone)

    return indexing.LazilyIndexedArray(Array())


def run_of_one(store, replica, values):
    """The Run of one network, by values of the axes' labels, or numbers of compound axes."""
    sweep, label = store.sweep, store.sweep.labels
    known = {axis.dim for axis in sweep.axes} | set(label) | set(label.values())
    unknown = sorted(set(values) - known)
    if unknown:
        raise SpecError(f"replay: {', '.join(unknown)} given, the sweep has {', '.join(sorted(known))}")
    replica = whole(replica, "replay: replica", 0, sweep.replicas - 1)
    cell = []
    for axis in sweep.axes:
        fits = np.ones(len(axis), bool)
        if axis.dim in values and (len(axis.columns) > 1 or axis.dim not in label.values()):
            fits &= np.arange(len(axis)) == values[axis.dim]
        for name, column in axis.columns.items():
            for word in {name, label[name]} & set(values):
                near = np.array([_same(value, values[word]) for value in column])
                exact = np.array([np.ndim(values[word]) == 0 and shown == values[word] for shown in _shown(column)])
                fits &= exact if exact.any() else near
        if fits.sum() != 1:
            raise SpecError(f"replay: {int(fits.sum())} values of {', '.join(label[n] for n in axis.columns)} fit what "
                            f"was given, expected one; there are {', '.join(map(str, _shown(column)[:8]))}"
                            f"{' ...' if len(axis) > 8 else ''}")
        cell.append(int(np.flatnonzero(fits)[0]))
    for group in sweep.groups:
        if all(k in members for k, members in zip(cell, group.members, strict=True)):
            break
    run = group.run
    for axis, k in zip(sweep.axes, cell, strict=True):
        for name, column in axis.columns.items():
            if name in group.vector:
                run = put(run, name, column[k:k + 1])
    return run.replace(keys=sweep.keys(np.array([cell], np.int64).reshape(1, -1), [replica]).reshape(-1))


def _same(value, given):
    value = scalar(value)
    if isinstance(value, float) and isinstance(given, (int, float)):
        return bool(np.isclose(value, given, rtol=1e-9, atol=0))
    return value == given if isinstance(value, (int, float, str, bool, type(None))) else repr(value) == str(given)


def replay(store, replica, save, values, backend, device, tuning):
    """See `Store.replay`."""
    from ..train import train

    run = run_of_one(store, replica, values)
    if save is None:
        if run.steps > MOST_SAVED:
            raise SpecError(f"replay: {run.steps} steps are many to save; say save=fs.SaveAt(...)")
        save = SaveAt(steps=np.arange(run.steps + 1))
    given = {name: value for name, value in (("backend", backend), ("device", device)) if value is not None}
    return train(run.replace(save=save, **given), tuning=tuning)
