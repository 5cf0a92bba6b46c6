"""Owns the request of a sweep: a run, axes over its fields, replicas; and the groups of cells that one kernel runs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from .. import losses
from ..errors import SpecError
from ..lowering.own import bound
from ..spec import codec, draws
from ..spec.check import one_of, real, shown, what_is, whole
from ..spec.metric import Custom
from ..spec.planned import Tuning
from ..spec.record import Record
from ..spec.run import Run
from .axes import Axis, classes, column, idle, put, readable, scalar, several, short, twice
from .reduce import Reduction, usual

if TYPE_CHECKING:
    from .store import Store

KINDS = ("linear", "log")
GRAPHS = ("loss", "rule", "rule.penalty")  # fields whose values may be functions with graphs of their own


@dataclass(frozen=True, eq=False)
class Keep(Record):
    """What of each network stays in the store.

    networks: of how many networks, evenly spread over the sweep, the records at every saved step are kept, >= 1; None:
        of all. Of the others the reductions and the step at which they were lost remain; `replay` gives the rest back
    weights: whether final weights are kept, of all networks
    """

    networks: int | None = None
    weights: bool = False

    def __post_init__(self):
        if self.networks is not None:
            object.__setattr__(self, "networks", whole(self.networks, "keep.networks", 1))
        if not isinstance(self.weights, bool):
            raise SpecError(f"keep.weights: {shown(self.weights)} given, expected True or False")


@dataclass(frozen=True, eq=False)
class Random(Record):
    """Points drawn at random: point k is a function of seed, k and the field's name alone, so that more may be added.

    fields: {dotted name: ("linear" or "log", low, high)}, low < high, both > 0 for "log"
    points: how many, >= 1
    """

    fields: dict
    points: int
    seed: int = 0

    def __post_init__(self):
        put_ = object.__setattr__
        put_(self, "points", whole(self.points, "random.points", 1, 2**32))
        put_(self, "seed", whole(self.seed, "random.seed", 0, 2**64 - 1))
        if not isinstance(self.fields, dict) or not self.fields:
            raise SpecError(f"random.fields: {shown(self.fields)} given, expected "
                            '{"step_size": ("log", 0.01, 1.0)}')
        for name, given in self.fields.items():
            if not isinstance(given, (tuple, list)) or len(given) != 3:
                raise SpecError(f"random: {name}: {shown(given)} given, expected ('linear' or 'log', low, high)")
            kind = one_of(given[0], f"random: {name}", KINDS)
            low, high = (real(x, f"random: {name}") for x in given[1:])
            if low >= high or (kind == "log" and low <= 0):
                raise SpecError(f"random: {name}: {low:g} .. {high:g} given, expected low < high"
                                + (", both > 0" if kind == "log" else ""))
        put_(self, "fields", {str(name): (given[0], float(given[1]), float(given[2]))
                              for name, given in self.fields.items()})

    def columns(self) -> dict:
        """{dotted name: values [points]}."""
        out = {}
        for name, (kind, low, high) in self.fields.items():
            word = crc32(name.encode())
            u = draws.uniforms(self.seed, np.arange(self.points), 0, 1, "init", word)[:, 0, 0]
            ends = np.log((low, high)) if kind == "log" else (low, high)
            x = ends[0] + (ends[1] - ends[0]) * u
            out[name] = np.clip(np.exp(x), low, high) if kind == "log" else x
        return out


@dataclass(frozen=True, eq=False)
class Group(Record):
    """Cells that share a kernel: one run cut into ranges.

    name: what a store calls it that is made now; run: with the values that these cells share
    members: for each axis, which of its values [v]; vector: names of the fields that are per network
    """

    name: str
    run: Run
    members: tuple
    vector: tuple

    @property
    def first(self):
        """The first of its values on each axis, which no other group has all of and no growth changes."""
        return tuple(int(members[0]) for members in self.members)


@dataclass(frozen=True, eq=False)
class Sweep(Record):
    """A run over all combinations of values of its fields, each by so many networks.

    base: fs.Run of one network: what all cells share
    grid {dotted name: values}: every value with every other, e.g. {"step_size": np.geomspace(.01, 1, 100),
        "rule.momentum": [0, .9]}. Any field of any record may be swept; those that kernels take per network are one
        run, others (steps, dtype, model.d, ...) are runs one after another. Whole records are values too
    zip {dotted name: values}: fields that change together, all of one length; one axis, "point"
    cases: list of {dotted name: value}, all of the same names; one axis, "case"
    random: fs.sweep.Random; one axis, "sample"
    replicas: networks of each cell, >= 1; they differ in their draws
    keep: fs.Keep: what stays of each network
    reduce: what workers make of each range, from fs.reduce; by default moments, quantiles, what was lost and survival
        where cells have 8 networks or more, a histogram else
    draws: "common": replica k has the draws of network k in every cell; "own": cells have draws of their own, by what
        their values are. Either way a cell has the same draws whatever else the sweep holds
    Raises SpecError for fields that do not exist and values that they cannot have.
    """

    base: Run
    grid: dict | None = None
    zip: dict | None = None
    cases: object = None
    random: Random | None = None
    replicas: int = 1
    keep: Keep | None = None
    reduce: object = None
    draws: str = "common"

    def __post_init__(self):
        put_ = object.__setattr__
        if not isinstance(self.base, Run):
            raise SpecError(f"sweep.base: {what_is(self.base)} given, expected fs.Run(...)")
        if self.base.networks == 1:
            put_(self, "base", self.base.replace(networks=None))
        wide = [*several(self.base), *["ids"] * (self.base.ids is not None)]
        if wide:
            raise SpecError(f"sweep.base: {', '.join(wide)} given as arrays over networks, expected a run of one, with "
                            "a number or an array without that axis; what differs between networks is for grid=, zip=, "
                            "cases= and replicas= to say")
        if self.base.save.params:
            raise SpecError("sweep.base: save.params given; a sweep keeps records, and store.replay(...) gives weights "
                            "back at any step (keep=fs.Keep(weights=True) keeps the final ones)")
        if any(isinstance(metric, Custom) for metric in self.base.metrics):
            raise SpecError("sweep.base: a metric that is a function given; workers read metrics from a file, so that "
                            "they must be records: make it a dataclass on fs.metrics.Metric")
        put_(self, "base", bound(self.base))
        readable(self.base, "sweep.base")
        put_(self, "grid", _traced(_table(self.grid, "grid", False), self.base, False))
        for name, values in (self.grid or {}).items():
            again = twice(values)
            if again is not None:
                raise SpecError(f"sweep.grid: {name}: {again} given twice, expected values that differ; more networks "
                                "of one value are replicas")
        put_(self, "zip", _traced(_table(self.zip, "zip", True), self.base, True))
        put_(self, "cases", _traced(_cases(self.cases), self.base, True))
        if not (self.random is None or isinstance(self.random, Random)):
            raise SpecError(f"sweep.random: {what_is(self.random)} given, expected fs.sweep.Random(fields, "
                            "points)")
        put_(self, "replicas", whole(self.replicas, "sweep.replicas", 1, 2**32))
        put_(self, "keep", Keep() if self.keep is None else self.keep)
        if not isinstance(self.keep, Keep):
            raise SpecError(f"sweep.keep: {what_is(self.keep)} given, expected fs.Keep(...)")
        if self.reduce is not None:
            made = tuple(self.reduce) if isinstance(self.reduce, (tuple, list)) else (self.reduce,)
            if not all(isinstance(r, Reduction) for r in made) or len({r.name for r in made}) < len(made):
                raise SpecError(f"sweep.reduce: {shown(made)} given, expected different ones of fs.reduce, e.g. "
                                "Moments()")
            put_(self, "reduce", made)
        one_of(self.draws, "sweep.draws", ("common", "own"))
        names = [name for axis in self.axes for name in axis.columns]
        if self.base.data.sets and "data.which" not in names:
            raise SpecError(f"sweep.base: data has {self.base.data.sets} data sets; say which in grid={{'data.which': "
                            "[0, 1, ...]}, or give one, data.of(0)")
        again = {name for name in names if names.count(name) > 1}
        numbers = {name for axis in self.axes for name, a in axis.columns.items() if isinstance(a, np.ndarray)}
        again |= {"step_size", "step_size.base"} if {"step_size", "step_size.base"} <= numbers else set()
        if again:
            raise SpecError(f"sweep: {', '.join(sorted(again))} given twice")
        _ = self._classes  # which looks at every value
        self._graphs_fit(names)

    def store(self, path: str | Path, size: int | None = None, classes: Sequence[type] = ()) -> "Store":
        """The Store of this sweep in the folder `path`, made or grown where it must be; nothing is computed.

        size: networks of a range, by default about two seconds of work
        classes: dataclasses of your own that the run holds
        """
        from .store import create  # a floor above

        return create(path, self, size, classes)

    def run(self, path: str | Path, engine: object = None, *, workers: int | None = None, size: int | None = None,
            tuning: Tuning | None = None, progress: object = None, stale: float = 240.0,
            classes: Sequence[type] = ()) -> "Store":
        """Do what of this sweep is missing in the folder `path`; returns its Store. Any number may do so at a time.

        engine: None, this process; "local", `workers` processes, by default one a processor; any concurrent.futures
            executor; a dask.distributed.Client; a submitit executor, for an array of `workers` jobs; the module ray.
            Their machines must see the folder. `fastsgd sweep work PATH` is a worker of its own, anywhere
        size, classes: as in `store`; tuning: fs.Tuning, of each worker
        progress: True (a line on stderr for each range), or a function called with (store, name of the range)
        stale: seconds without a sign of life after which a worker on another machine counts as gone
        """
        from . import engines  # a floor above

        store = self.store(path, size, classes)
        engines.run(store, engine, workers, tuning, progress, stale)
        return store

    @cached_property
    def axes(self) -> tuple:
        """The axes, in the order in which results have them; replicas come after them."""
        drawn = self.random.fields if self.random else ()
        names = [*(self.grid or ()), *(self.zip or ()), *(self.cases or ()), *drawn]
        label = short(names, [metric.name for metric in self.base.metrics])
        axes = [Axis(label[name], {name: values}) for name, values in (self.grid or {}).items()]
        for dim, columns in (("point", self.zip), ("case", self.cases),
                             ("sample", self.random.columns() if self.random else None)):
            if columns:
                axes.append(Axis(dim, columns))
        return tuple(axes)

    @property
    def reductions(self) -> tuple:
        """The reductions: those given, or the usual ones."""
        stops = bool(self.base.stop) or any("stop" in axis.columns for axis in self.axes)
        return usual(self.replicas, stops) if self.reduce is None else self.reduce

    @property
    def labels(self) -> dict:
        """{dotted name: its label in results}."""
        return short([name for axis in self.axes for name in axis.columns], [m.name for m in self.base.metrics])

    @cached_property
    def shape(self) -> tuple:
        """Values of each axis, and replicas."""
        return (*(len(axis) for axis in self.axes), self.replicas)

    @property
    def networks(self) -> int:
        """Networks in all."""
        return int(np.prod(self.shape, dtype=object))

    @cached_property
    def _classes(self):
        run, out = self.base, []
        for axis in self.axes:
            try:
                out.append(classes(run, axis))
            except TypeError as error:
                raise SpecError(f"sweep: {', '.join(axis.columns)}: {error}") from None
        return tuple(out)

    @cached_property
    def groups(self) -> Any:
        """The groups of cells, in the order of their first."""
        parts = [[np.flatnonzero(kind == c) for c in range(kind.max() + 1)] for kind, _ in self._classes]
        out = []
        for members in product(*parts):
            run, shared, vector, fixed = self.base, [], [], {}
            for axis, which, (_, names) in zip(self.axes, members, self._classes, strict=True):
                vector += names
                for name, values in axis.columns.items():
                    if name not in names:
                        fixed[name] = scalar(values[which[0]])
                    elif name.startswith("rule."):
                        shared.append(f"{name} {'=' if values[which[0]] == idle(name) else '!='} {idle(name)}")
            for name in sorted(fixed, key=lambda name: name.count(".")):  # a rule, say, before what changes in it
                run = put(run, name, fixed[name])
            digest = codec.digest(*codec.encode(run))
            name = "g" + hashlib.sha256(f"{digest} {vector} {shared}".encode()).hexdigest()[:12]
            out.append(Group(name, run, members, tuple(vector)))
        if len({group.name for group in out}) < len(out):
            raise SpecError(f"sweep: {', '.join(axis.dim for axis in self.axes)}: two values make one run, as None and "
                            "what it stands for do, expected values that differ")
        return tuple(out)

    def _graphs_fit(self, names):
        """Refuse a loss or penalty whose graph is for other models or data than a group's."""
        others = [name for name in names if name.partition(".")[0] in ("model", "data")]
        if not others or not any(_own(group.run) for group in self.groups):
            return
        for group in self.groups:
            if bound(group.run) is not group.run:
                own = _own(group.run)
                field = own.partition(".")[0]
                raise SpecError(f"sweep: {own} is a function, traced for one model and data, which {', '.join(others)} "
                                f"changes; let them change together, zip={{{others[0]!r}: [...], {field!r}: [...]}}, "
                                f"with the {field} once for each value")

    def keys(self, cells: Any, replicas: int) -> np.ndarray:
        """Whose draws each network has [cells, replicas] int64.

        cells [cells, axes]: index of each cell's value on each axis; replicas [replicas]: their numbers
        """
        replicas = np.asarray(replicas, np.int64)
        if self.draws == "common":
            return np.broadcast_to(replicas, (len(cells), len(replicas)))
        first = [int(hashlib.sha256("|".join(axis.text(k) for axis, k in zip(self.axes, cell, strict=True)).encode())
                     .hexdigest()[:8], 16) for cell in cells]
        return (np.array(first, np.int64)[:, None] + replicas) % 2**32

    def fingerprint(self) -> str:
        """A hash of what a sweep keeps when it grows: all but values, replicas and reductions."""
        names = [sorted(axis.columns) for axis in self.axes]
        random = self.random and Random(self.random.fields, 1, self.random.seed)
        text = [codec.digest(*codec.encode(part)) for part in (self.base, random, self.keep)]
        dims = [axis.dim for axis in self.axes]
        return hashlib.sha256(f"{text} {dims} {names} {self.draws}".encode()).hexdigest()[:16]


def _table(given, field, equal):
    """{dotted name: column} of a field that was given as {name: values}, None if it is empty."""
    if given is None:
        return None
    if not isinstance(given, dict):
        raise SpecError(f"sweep.{field}: {shown(given)} given, expected {{name of a field: values}}")
    columns = {str(name): column(values, name) for name, values in given.items()}
    for name in columns:
        if not all(name.split(".")):
            raise SpecError(f"sweep.{field}: {name!r} given, expected the dotted name of a field, e.g. 'rule.momentum'")
    sizes = {name: len(values) for name, values in columns.items()}
    if equal and len(set(sizes.values())) > 1:
        raise SpecError(f"sweep.{field}: lengths differ: {sizes}")
    return columns or None


def _traced(columns, base, together):
    """Columns as files have them: losses and rules with graphs for the model and data of `base`.

    together: whether the columns' values go row by row, so that another column may have the model and data
    """
    for name in [name for name in columns or () if name in (*GRAPHS, "dtype", "stop")]:
        made = []
        for k, value in enumerate(columns[name]):
            row = {other: scalar(column[k]) for other, column in columns.items()} if together else {name: value}
            run = put(base, name, value)
            if _own(run):
                for other in row:
                    run = put(run, other, row[other])
                run = bound(run)
            made.append(attrgetter(name)(run))
        columns = columns | {name: tuple(made)}
    return columns


def _own(run):
    """What of a run is a function of the user's whose graph depends on the model or data, None if there is none."""
    if getattr(run.rule, "penalty", None) is not None:
        return "rule.penalty"
    return "loss" if isinstance(run.loss, losses.Function) else None


def _cases(given):
    if given is None or isinstance(given, dict):  # columns, as files have them
        return _table(given, "cases", True)
    cases = list(given) if isinstance(given, (list, tuple)) else []
    if not cases or not all(isinstance(case, dict) and case and set(case) == set(cases[0]) for case in cases):
        raise SpecError("sweep.cases: expected a list of {name of a field: value}, all of the same names")
    return _table({name: [case[name] for case in cases] for name in cases[0]}, "cases", True)
