"""Owns the store of a sweep: a folder of zarr arrays, of markers of what is done, and of what the sweep asks for."""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .. import archive, storage  # noqa: F401  archive fills codec.KINDS
from ..errors import SpecError
from ..plan import one as make_plan
from ..result import Result
from ..spec import codec
from ..spec.check import shown, what_is, whole
from ..spec.planned import Tuning
from ..spec.record import Record, described
from . import layout, reduce, shards
from .axes import put, repeated, scalar
from .request import Keep, Random, Sweep

FORMAT = 1
MANIFEST = "sweep.npz"
FOLDERS = ("claims", "done", "parts")
KINDS = (Sweep, Keep, Random, reduce.Moments, reduce.Quantiles, reduce.LostShare, reduce.Survival,
         reduce.FirstPassage, reduce.Histogram)
codec.KINDS |= {codec.name_of(kind): kind for kind in KINDS}


@dataclass(frozen=True, eq=False)
class Array(Record):
    """One array of a group: its name, its shape and axes after the first, dtype, rows of a shard and of a chunk.

    records: whether only networks whose records are kept have rows
    """

    name: str
    shape: tuple
    dims: tuple
    dtype: str
    rows: int
    chunk: int
    records: bool


class Store:
    """A sweep in a folder, finished or not. Nothing is computed here; see `fastsgd.sweep.work`.

    path: folder; sweep: what it holds, in the order in which values were added
    """

    def __init__(self, path: str | Path, sweep: Sweep, layouts: Any, classes: Sequence[type] = (),
                 fingerprint: str | None = None) -> None:
        self.path, self.sweep = Path(path), sweep
        self.classes = (classes,) if isinstance(classes, type) else tuple(classes)
        self.layouts = {one.name: one for one in layouts}
        groups = {group.first: group for group in sweep.groups}
        self.groups = {one.name: groups[one.first] for one in layouts}
        # what tells this store's files from those of others: made once, since records get new fields in time
        self.fingerprint = fingerprint or codec.digest(
            sweep.fingerprint() + codec.digest(*codec.encode(sweep.reductions)), {})[:16]

    def __repr__(self):
        return f"Store({str(self.path)!r}, networks={self.sweep.networks}, ranges={len(self.names)})"

    # ---- what there is

    @cached_property
    def names(self) -> list[str]:
        """Names of all ranges."""
        return [name for one in self.layouts.values() for name in one.names()]

    def range(self, name: str) -> Any:
        """The Range called `name`."""
        group, _, number = name.partition(".")
        if group not in self.layouts or not number.isdecimal() or int(number) >= self.layouts[group].ranges:
            raise SpecError(f"range: {shown(name)} given, expected one of Store.names, e.g. {self.names[0]!r}")
        return self.layouts[group].range(int(number))

    def arrays(self, name: str) -> dict:
        """The arrays of the group called `name`."""
        run, one = self.groups[name].run, self.layouts[name]
        S = len(run.save.resolve(run.steps))
        flags = ("lost", "stopped", "stopped_by") if run.stop else ("lost",)
        out = [Array(flag, (), (), "int64", one.size, one.chunk(one.size, 8), False) for flag in flags]
        for metric in run.metrics:
            axes = metric.axes(run.model, run.data.one) or {}
            shape = (S, *map(len, axes.values()))
            out.append(Array(metric.name, shape, ("step", *axes), "float64", one.kept_size,
                             one.chunk(one.kept_size, 8 * prod(shape)), True))
        if self.sweep.keep.weights:
            shape = (run.model.P,)
            out.append(Array("weights", shape, ("parameter",), run.dtype, one.size,
                             one.chunk(one.size, prod(shape) * np.dtype(run.dtype).itemsize), False))
        return out

    def shard(self, array: Any, range_: Any) -> Any:
        """The file of a range's shard of an array."""
        return self.path / range_.group / array.name / shards.key(range_.number, 1 + len(array.shape))

    # ---- markers

    def marker(self, name: str) -> Any:
        """What was said when the range called `name` was done, None if it is not done, or not whole.

        A marker of another store, one that is damaged, and one whose files have other sizes than it says do not count.
        """
        try:
            record = json.loads((self.path / "done" / f"{name}.json").read_text())
            check = record.pop("check")
            if check != sealed(record) or record["store"] != self.fingerprint or record["range"] != name:
                return None
            for file, (size, _) in record["files"].items():
                if os.stat(self.path / file).st_size != size:
                    return None
            return record
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def done(self) -> list[str]:
        """Names of the ranges that have a marker; whether their files are whole is for `marker` to say."""
        return {name[:-5] for name in os.listdir(self.path / "done") if name.endswith(".json")} & set(self.names)

    def missing(self) -> list[str]:
        """Names of the ranges that are not done, in order."""
        done = self.done()
        return [name for name in self.names if name not in done]

    def check(self, thorough: bool = False) -> list[str]:
        """Names of the ranges that have a marker but are not whole: files that lack, or have another size.

        thorough: whether each file is read and its numbers are compared with the checksum that the marker has
        """
        bad = []
        for name in sorted(self.done()):
            record = self.marker(name)
            if record is None or (thorough and not self._sound(name, record)):
                bad.append(name)
        return bad

    def _sound(self, name, record):
        range_ = self.range(name)
        try:
            for array in self.arrays(range_.group):
                file = self.shard(array, range_)
                values = shards.decoded(file.read_bytes(), array.rows, array.chunk, array.shape, array.dtype)
                if checksum(values) != record["files"][str(file.relative_to(self.path))][1]:
                    return False
            part = self.part(name)
            return codec.digest(name, part) == record["files"][f"parts/{name}.npz"][1]
        except (OSError, ValueError, KeyError, SpecError):
            return False

    def repair(self, thorough: bool = True) -> list[str]:
        """Let damaged ranges be done anew: their markers go. Returns their names."""
        bad = self.check(thorough)
        for name in bad:
            (self.path / "done" / f"{name}.json").unlink(missing_ok=True)
            for claim in (self.path / "claims").glob(f"{name}.*"):
                claim.unlink(missing_ok=True)  # nobody works on them any more
        return bad

    def part(self, name: str) -> Any:
        """What the reductions made of a range: {"REDUCTION/key": array}. Raises SpecError if it cannot be read."""
        header, arrays = storage.read(self.path / "parts" / f"{name}.npz", "part of a sweep")
        if header.get("store") != self.fingerprint or header.get("range") != name:
            raise SpecError(f"sweep: parts/{name}.npz is of another store or range")
        return arrays

    # ---- conveniences, which have rooms of their own

    def open(self, allow_incomplete: bool = False) -> Any:
        """The records as an xarray.Dataset, read when they are asked for; see fastsgd/sweep/view.py."""
        from . import view

        return view.open(self, allow_incomplete)

    def reduced(self, allow_incomplete: bool = False) -> Any:
        """What the reductions say of each cell, as an xarray.Dataset; see fastsgd/sweep/cells.py."""
        from . import cells

        return cells.reduced(self, allow_incomplete)

    def progress(self) -> Any:
        """How far the sweep is: a record that prints as a few lines; see fastsgd/sweep/progress.py."""
        from . import progress

        return progress.of(self)

    def replay(self, replica: int = 0, save: Any = None, *, backend: str | None = None, device: str | None = None,
               tuning: Tuning | None = None, **values: Any) -> Result:
        """The Result of one network's run, with all steps saved and the sweep's bits.

        values: one for each axis, by its label or its number of a compound axis, e.g. step_size=0.1 or case=3; a label
            of one value may be left out. A value that is a record is named as results label it: str(ds.model[2].values)
        save: fs.SaveAt, by default every step
        backend, device: by default the sweep's; "cpu" and "cuda" have the same bits, whatever computed the sweep
        tuning: fs.Tuning, e.g. how many threads
        """
        from . import view

        return view.replay(self, replica, save, values, backend, device, tuning)

    def work(self, **given: Any) -> int:
        """Compute what is missing, in this process; see `fastsgd.sweep.work`."""
        from .work import work

        return work(self, **given)


def sealed(record):
    """The checksum of a marker."""
    return codec.digest(json.dumps(record, sort_keys=True), {})[:16]


def checksum(values):
    """The checksum of a shard's numbers, NaN for NaN."""
    return codec.digest("values", {"values": values})[:32]


def _folder(path):
    """A store's path as it was given, if it can be one."""
    if not isinstance(path, (str, Path)) or not str(path) or "://" in str(path) or "\0" in str(path):
        raise SpecError(f"path: {shown(path)} given, expected the name of a folder on a disk")
    try:
        Path(path).is_dir()
    except OSError as error:
        raise SpecError(f"path: {shown(path)} cannot be a folder ({error.strerror})") from None
    return Path(path)


def create(path: str | Path, sweep: Sweep, size: int | None = None, classes: Sequence[type] = ()) -> Store:
    """The Store of a sweep in the folder `path`: made if nothing is there, grown if it has fewer values of this sweep.

    size: networks of a range, by default about two seconds of work
    classes: dataclasses of your own that the sweep's run holds
    Raises SpecError where `path` holds anything else.
    """
    if not isinstance(sweep, Sweep):
        raise SpecError(f"sweep: {what_is(sweep)} given, expected fs.Sweep(...)")
    shards.needed()
    codec.require_readable(sweep, classes)
    path = _folder(path)
    there = os.listdir(path) if path.is_dir() else []
    ours = all(name in (*FOLDERS, "zarr.json") or name.startswith((".", "g")) for name in there)
    if path.exists() and MANIFEST not in there and not (path.is_dir() and ours):
        raise SpecError(f"path: {str(path)!r} is there and is no sweep's store; give another name")
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = open(path / ".lock", "a")
    except OSError as error:
        raise SpecError(f"path: the store {str(path)!r} cannot be written ({error.strerror or error})") from None
    with file:
        with suppress(OSError):  # some file systems lock nothing
            fcntl.flock(file, fcntl.LOCK_EX)  # two that make or grow a store at once
        if (path / MANIFEST).exists():
            return _grown(open_store(path, classes), sweep)
        sweep = replace(sweep, reduce=sweep.reductions)  # which stay when it grows
        store = Store(path, sweep, [planned(sweep, group, size)[0] for group in sweep.groups], classes)
        _publish(store)
        return store


def planned(sweep, group, size=None):
    """(Layout of a group, seconds that one of its networks is expected to take, None if nobody knows).

    size: networks of a range
    """
    run, some = group.run, 256
    for axis, members in zip(sweep.axes, group.members, strict=True):
        for name, values in axis.columns.items():
            if name in group.vector:
                run = put(run, name, np.resize(values[members], some))
    plan = make_plan(repeated(run, some).replace(keys=np.arange(some)))
    seconds = sum(plan.expected.values()) / some if plan.expected else None
    record = sum(8 * len(plan.saves) * prod(map(len, (metric.axes(run.model, run.data.one) or {}).values()))
                 for metric in run.metrics)
    shape = (*map(len, group.members), sweep.replicas)
    stride = 1 if sweep.keep.networks is None else max(1, sweep.networks // sweep.keep.networks)
    if size is None:
        size = layout.size(prod(shape), sweep.replicas, seconds, record)
    else:
        size = min(whole(size, "size", 1, 2**32), prod(shape))
        size = max(size // sweep.replicas * sweep.replicas, min(size, sweep.replicas))
    one = layout.Layout(group.name, size, stride, [], group.first)
    one.grow(shape)
    return one, seconds


def _publish(store):
    """Make a store's folders and arrays, and its manifest last."""
    sweep, path = store.sweep, store.path
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name in FOLDERS:
            (path / name).mkdir(exist_ok=True)
        shards.write(path / "zarr.json", shards.group({"fastsgd_sweep": described(sweep.base)}))
        for one in store.layouts.values():
            (path / one.name).mkdir(exist_ok=True)
            shards.write(path / one.name / "zarr.json", shards.group({}))
            for array in store.arrays(one.name):
                (path / one.name / array.name).mkdir(exist_ok=True)
                dims = ("kept" if array.records and one.stride > 1 else "network", *array.dims)
                text = shards.array((one.ranges * array.rows, *array.shape), array.rows, array.chunk, array.dtype, dims)
                shards.write(path / one.name / array.name / "zarr.json", text)
        text, arrays = codec.encode(sweep)
        header = {"kind": "sweep", "store_format": FORMAT, "store": store.fingerprint, "sweep": text, "layouts": [
            {"name": one.name, "size": one.size, "stride": one.stride, "first": one.first,
             "blocks": [[block.low, block.high, block.first] for block in one.blocks]}
            for one in store.layouts.values()]}
        storage.write(path / MANIFEST, header, arrays)
    except OSError as error:
        raise SpecError(f"path: the store {str(path)!r} cannot be written ({error.strerror or error})") from None


def open_store(path: str | Path, classes: Sequence[type] = ()) -> Store:
    """The Store in the folder `path`. Raises SpecError if there is none, or it is damaged or of a newer format."""
    path = _folder(path)
    if not path.is_dir():
        raise SpecError(f"path: there is no store {str(path)!r}")
    if not (path / MANIFEST).exists():
        raise SpecError(f"path: {str(path)!r} is no sweep's store (it has no {MANIFEST})")
    header, arrays = storage.read(path / MANIFEST, "sweep")
    if header.get("store_format") != FORMAT:
        raise SpecError(f"path: {str(path)!r} is a store of format {header.get('store_format')!r:.50}, this fastsgd "
                        f"has {FORMAT}; a newer one may read it")
    try:
        sweep = codec.decode(header["sweep"], arrays, classes)
        made = [layout.Layout(str(one["name"]), int(one["size"]), int(one["stride"]), [
            layout.Block(tuple(low), tuple(high), int(first)) for low, high, first in one["blocks"]],
            tuple(one["first"])) for one in header["layouts"]]
        sound = isinstance(sweep, Sweep) and {one.first for one in made} == {group.first for group in sweep.groups}
        sound = sound and all(one.size > 0 and one.stride > 0 and one.blocks for one in made) and isinstance(
            header["store"], str) and all(os.path.isdir(path / name) for name in FOLDERS)
        if not sound:
            raise SpecError("its parts do not fit each other")
        store = Store(path, sweep, made, classes, header["store"])
    except SpecError as error:
        raise SpecError(f"path: {str(path)!r} cannot be read: {error}") from None
    except Exception as error:
        raise SpecError(f"path: {str(path)!r} cannot be read ({type(error).__name__}: {str(error)[:200]})") from None
    return store


def _grown(store, sweep):
    """The store with what `sweep` asks for and it lacks."""
    other = sweep.reduce is not None and codec.encode(sweep.reduce) != codec.encode(store.sweep.reduce)
    if other or store.sweep.fingerprint() != sweep.fingerprint():
        raise SpecError(f"path: {str(store.path)!r} holds another sweep (of another run, other axes, reductions or "
                        "kept records); remove it, or give another name")
    merged = _merged(store.sweep, sweep)
    if merged is store.sweep:
        return store
    known, made = {one.first: one for one in store.layouts.values()}, []
    like = next(iter(store.layouts.values()))
    for group in merged.groups:
        if group.first not in known:
            planned(merged, group)  # which refuses what cannot run
        one = known.get(group.first) or layout.Layout(group.name, like.size, like.stride, [], group.first)
        one = replace(one, blocks=list(one.blocks))
        one.grow((*map(len, group.members), merged.replicas))
        made.append(one)
    grown = Store(store.path, merged, made, store.classes, store.fingerprint)
    _publish(grown)
    return grown


def _merged(old, new):
    """A sweep with the values of `old`, then those of `new` that it lacks; `old` itself if there are none."""
    given = {}
    for field in ("grid", "zip", "cases"):
        before, after = getattr(old, field), getattr(new, field)
        if before is None:
            given[field] = None
        elif field == "grid":
            given[field] = {name: _joined({name: before[name]}, {name: after[name]})[name] for name in before}
        else:
            given[field] = _joined(before, {name: after[name] for name in before})
    random = old.random and Random(old.random.fields, max(old.random.points, new.random.points), old.random.seed)
    merged = Sweep(old.base, **given, random=random, replicas=max(old.replicas, new.replicas), keep=old.keep,
                   reduce=old.reduce, draws=old.draws)
    return old if merged.shape == old.shape else merged


def _joined(before, after):
    """Columns that go together, with the rows of `after` that `before` lacks put behind."""
    from .axes import Axis

    one, two = Axis("", before), Axis("", after)
    known, more = Counter(one.text(k) for k in range(len(one))), []
    for k in range(len(two)):
        text = two.text(k)
        known[text] -= 1  # points and cases may be there more than once
        if known[text] < 0:
            more.append(k)
    return {name: [scalar(value) for value in before[name]] + [scalar(after[name][k]) for k in more]
            for name in before}


