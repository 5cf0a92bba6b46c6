"""Owns what a sweep says of itself before it runs: cells, groups, ranges, bytes, expected time."""

from math import prod

import numpy as np

from .axes import scalar
from .progress import in_words
from .store import Store, planned


def text(sweep, size=None):
    """Plain text: what `sweep` would compute and write, in ranges of `size` networks. Nothing is run or written."""
    return _outline(sweep, size)[0]


def data(sweep, size=None):
    """What `text` says, as numbers: {"networks", "cells", "ranges", "files", "bytes", "seconds"}, None if unknown."""
    return _outline(sweep, size)[1]


def _outline(sweep, size):
    lines = ["sweep     " + " x ".join([*(f"{axis.dim} {len(axis)}" for axis in sweep.axes),
                                        f"{sweep.replicas} replica{'s' * (sweep.replicas > 1)}"])
             + f" = {sweep.networks} networks in {prod(sweep.shape[:-1])} cells"]
    made = [planned(sweep, group, size) for group in sweep.groups]
    store = Store(".", sweep, [one for one, _ in made])
    total, seconds = 0, 0.0
    for group, (one, each) in zip(sweep.groups, made, strict=True):
        arrays = store.arrays(group.name)
        stored = sum(prod((one.ranges, a.rows, *a.shape)) * np.dtype(a.dtype).itemsize for a in arrays)
        networks = prod(map(len, group.members)) * sweep.replicas
        total += stored
        seconds = None if seconds is None or each is None else seconds + networks * each
        lines.append(f"{group.name}  {networks} networks, {one.ranges} range{'s' * (one.ranges != 1)} of {one.size}"
                     + (f" (about {in_words(one.size * each)} each)" if each is not None else "")
                     + f", {in_bytes(stored)}: " + (_in_common(sweep, group) or "all cells"))
    ranges = sum(one.ranges for one, _ in made)
    files = sum(one.ranges * (len(store.arrays(one.name)) + 3) for one, _ in made)
    lines += [f"store     {ranges} range{'s' * (ranges != 1)}, about {files} files, {in_bytes(total)} before "
              "compression, and reductions: "
              + (", ".join(one.name for one in sweep.reductions) or "none"),
              "expected  " + ("unknown" if seconds is None else f"{in_words(seconds)} of this machine")]
    return "\n".join(lines), {"networks": sweep.networks, "cells": prod(sweep.shape[:-1]), "ranges": ranges,
                              "files": files, "bytes": total, "seconds": seconds}


def _in_common(sweep, group):
    """What the cells of a group have in common, in words."""
    out = []
    for axis, members in zip(sweep.axes, group.members, strict=True):
        for name, values in axis.columns.items():
            if name not in group.vector:
                out.append(f"{name} = {scalar(values[members[0]])!r:.60}")
            elif name.startswith("rule.") and len(members) < len(axis):
                out.append(f"{name} {'=' if values[members[0]] == 0 else '!='} 0")
    return ", ".join(out)


def in_bytes(count):
    """A size in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
