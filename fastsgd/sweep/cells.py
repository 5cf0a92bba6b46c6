"""Owns what a store's reductions say of each cell: ranges' parts put together in order, over the sweep's axes."""

from math import prod

import numpy as np

from ..errors import SpecError
from . import shards
from .reduce import Part
from .view import Unfolded, attributes, labels


def states(store, allow_incomplete=False):
    """{reduction: {group: state}}: per cell over the group's box, or one for all; ranges are joined in order."""
    missing = store.missing()
    if missing and not allow_incomplete:
        raise SpecError(f"sweep: {len(missing)} of {len(store.names)} ranges are missing; allow_incomplete=True takes "
                        "what is done")
    out, gone = {one.name: {} for one in store.sweep.reductions}, set(missing)
    for name, one in store.layouts.items():
        ranges = [store.range(n) for n in one.names() if n not in gone]
        parts = [store.part(r.name) for r in ranges]
        shape = tuple(map(len, store.groups[name].members))
        for reduction in store.sweep.reductions:
            own = [{key.partition("/")[2]: a for key, a in part.items() if key.startswith(f"{reduction.name}/")}
                   for part in parts]
            if own and reduction.by_cell:
                state, parts_of = _in_cells(reduction, ranges, own, shape)
                if not reduction.joins and one.stride == 1:
                    _anew(store, name, reduction, state, np.flatnonzero(parts_of > 1), shape)
                out[reduction.name][name] = state
            elif own:
                out[reduction.name][name] = reduction.join(own)
    return out


def _anew(store, name, reduction, state, cells, shape):
    """Reduce cells that lie in several ranges from their records, where all of these are done."""
    group, names = store.groups[name], [metric.name for metric in store.groups[name].run.metrics]
    sources = {metric: Unfolded(store, metric) for metric in ("lost", *names)}
    steps = group.run.save.resolve(group.run.steps)
    for cell in cells:
        at = [members[[k]] for members, k in zip(group.members, np.unravel_index(cell, shape), strict=True)]
        read = {metric: source.read([*at, *map(np.arange, source.shape[len(at):])])
                for metric, source in sources.items()}
        read = {metric: a.reshape(1, *a.shape[len(at):]) for metric, a in read.items()}
        lost = read.pop("lost")
        if (lost != shards.NOT_DONE).all():
            made = reduction.of(Part({metric: a for metric, a in read.items() if a.ndim == 3}, lost, steps))
            for key, a in made.items():
                state[key][cell] = a[0]


def _in_cells(reduction, ranges, own, shape):
    """(one state over a group's cells, in the order of the box `shape`; how many ranges hold a part of each)."""
    flat = [np.ravel_multi_index(tuple(r.cells.T), shape) if shape else np.zeros(1, np.int64) for r in ranges]
    rounds = []  # the k-th part of each cell, of all ranges that hold one
    seen = np.zeros(prod(shape), np.int64)
    for cells, state in zip(flat, own, strict=True):
        for k in np.unique(seen[cells]):
            while len(rounds) <= k:
                rounds.append([])
            mine = seen[cells] == k
            rounds[k].append((cells[mine], {key: a[mine] for key, a in state.items()}))
        seen[cells] += 1
    joined = None
    for pieces in rounds:
        cells = np.concatenate([c for c, _ in pieces])
        state = {key: np.concatenate([s[key] for _, s in pieces]) for key in pieces[0][1]}
        if joined is None:
            joined = {key: np.full((prod(shape), *a.shape[1:]), np.nan if a.dtype.kind == "f" else 0, a.dtype)
                      for key, a in state.items()}
            for key, a in state.items():
                joined[key][cells] = a
            continue
        both = reduction.join([{key: a[cells] for key, a in joined.items()}, state])
        for key, a in both.items():
            joined[key][cells] = a
    return joined, seen


def reduced(store, allow_incomplete=False):
    """What the reductions say of each cell, an xarray.Dataset over the axes; histograms are for `states`."""
    import xarray

    return xarray.Dataset(*labelled(store, allow_incomplete), attributes(store))


def labelled(store, allow_incomplete=False):
    """The same as ({name: (names of axes, array)}, {coordinate: values, or (axis, values)})."""
    dims, coords = labels(store.sweep)
    coords.pop("replica")
    data, all_states = {}, states(store, allow_incomplete)
    for reduction in store.sweep.reductions:
        if not reduction.by_cell:
            continue
        for name, state in all_states[reduction.name].items():
            members = store.groups[name].members
            for variable, (more, a) in reduction.finish(state).items():
                a = a.reshape((*map(len, members), *a.shape[1:]))
                if variable not in data:
                    data[variable] = (*dims, *more), np.full((*store.sweep.shape[:-1], *a.shape[len(members):]), np.nan)
                if a.shape[len(members):] != data[variable][1].shape[len(dims):]:
                    raise SpecError(f"sweep: {variable} has other shapes in group {name} than in the first, as where "
                                    "networks have different numbers of saved steps; `Store.part(range)` has each")
                if members:
                    data[variable][1][np.ix_(*members)] = a
                else:
                    data[variable] = data[variable][0], a
        if reduction.name == "quantiles":
            coords["quantile"] = list(reduction.at)
    saves = [group.run.save.resolve(group.run.steps) for group in store.groups.values()]
    if all(np.array_equal(s, saves[0]) for s in saves):
        coords["step"] = saves[0]
    return data, coords
