"""Owns the result: labelled records with their provenance, in and out of files."""

from collections.abc import Iterable, Iterator, KeysView, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from . import tables
from .errors import SpecError
from .spec.check import whole
from .spec.fields import spread, without_ids
from .spec.record import record
from .spec.run import DEVICE, Run

ARRAYS = ("steps", "ids", "base", "lost", "weights")  # besides records and saved weights
STOPS = ("stopped", "stopped_by")  # besides, where the run has stops
PERHAPS = ("buffers",)  # that a result may have


def _origin(provenance):
    """`provenance`, if it is one that files may hold. Raises SpecError."""
    device = provenance.get("device", "cpu") if isinstance(provenance, dict) else None
    if not (isinstance(device, str) and DEVICE.fullmatch(device)):
        raise SpecError("file: its provenance does not say on which device it was computed")
    return provenance


def _named(ids):
    """A hash of the networks' numbers, for a file: its run has the fields of these networks alone, and no `ids`."""
    from .spec import codec

    return codec.digest("ids", {"ids": ids})[:16]


@record()
class Result:
    """What a run computed.

    run: the request
    steps [S]: saved steps; ids [N]: which networks; base [N]: their base step sizes
    lost [N]: first bad step of each network, -1 if none: a sample's loss was not finite or beyond `lost_above`, or the
        update would have made a weight or a buffer infinite or NaN. A lost network is frozen at the parameters it had
        before that step; its records from then on are NaN
    weights [N, P]: final parameters, flat; `params` names them
    records {metric: [N, S, ...]} float64; result["name"] gives one as a torch tensor on the device that computed it,
        `"name" in result`, `list(result)` and `result.keys()` know their names
    saved_weights [N, S, P] or None: parameters at the saved steps, if SaveAt(params=True)
    provenance: how and where it was computed
    buffers [N, K, P] or None: what the rule carried at the end, by `run.rule.buffers()`; None if it carries nothing
    stopped [N]: after how many steps each network stopped, -1 if it did not; stopped_by [N]: which of the run's stops
        did it, by its place in the list, -1 if none. A stopped network is frozen at the parameters that it had then:
        later saved steps show that state
    """

    run: Run
    steps: np.ndarray
    ids: np.ndarray
    base: np.ndarray
    lost: np.ndarray
    weights: np.ndarray
    records: dict
    saved_weights: np.ndarray | None
    provenance: dict
    buffers: np.ndarray | None = None
    stopped: np.ndarray | None = None
    stopped_by: np.ndarray | None = None

    def __post_init__(self):
        for name in STOPS:
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.full(len(self.ids), -1, np.int64))

    def __getitem__(self, name: str) -> Any:
        return self._tensor(self.numpy(name))

    def __contains__(self, name: object) -> bool:
        return name in self.records

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def keys(self) -> KeysView[str]:
        """Names of the records, in the order of the run's metrics."""
        return self.records.keys()

    def _tensor(self, array):
        """A torch tensor on the device that computed it, if this machine has that."""
        import torch

        kind, _, number = self.provenance.get("device", "cpu").partition(":")
        there = kind == "cuda" and int(number or 0) < torch.cuda.device_count()
        return torch.from_numpy(array).to(f"{kind}:{number}" if number else kind) if there else torch.from_numpy(array)

    def numpy(self, name: str) -> np.ndarray:
        """Record `name` as NumPy [N, S, ...]."""
        if name not in self.records:
            raise SpecError(f"result has no record {name!r}, it has {sorted(self.records)}")
        return self.records[name]

    @property
    def params(self) -> dict:
        """Final parameters {name: [N, ...]} as torch tensors."""
        return self.run.model.unflatten(self._tensor(self.weights))

    def predict(self, X: Any) -> Any:
        """Predictions of the networks at their final parameters, at inputs X [n, d]: see `Model.predict`.

        Returns a torch tensor [N, n], or [N, n, o] of o > 1 outputs, in float64; a lost network's are those of the
        parameters it was frozen at.
        """
        return self.run.model.predict(self._tensor(self.weights), X)

    def to_module(self, k: int, module: object = None) -> object:
        """The torch.nn.Module of network number k, of a model from `fs.models.from_module`, in the run's dtype.

        module: the module that the model was made of, which files do not keep; a copy gets the parameters
        Raises SpecError for another model, or a module with other parameters.
        """
        from .models.function import Function, to_module

        if not isinstance(self.run.model, Function):
            raise SpecError(f"to_module: {type(self.run.model).__name__} was not made of a torch.nn.Module")
        k = whole(k, "k", 0, len(self.weights) - 1)
        return to_module(self.run.model, self.run.model.unflatten(self.weights[k]), self.run.dtype, module)

    @property
    def saved_params(self) -> dict:
        """Parameters at the saved steps {name: [N, S, ...]} as torch tensors."""
        if self.saved_weights is None:
            raise SpecError("saved_params: were not kept, ask for them with SaveAt(..., params=True)")
        return self.run.model.unflatten(self._tensor(self.saved_weights))

    @property
    def survived(self) -> np.ndarray:
        """[N] bool: networks that were not lost."""
        return self.lost < 0

    def __repr__(self) -> str:
        stopped = f"stopped={int((self.stopped >= 0).sum())}, " if self.run.stop else ""
        return (f"Result({type(self.run.model).__name__}, N={len(self.ids)}, T={self.run.steps}, S={len(self.steps)}, "
                f"lost={int((self.lost >= 0).sum())}, {stopped}records={sorted(self.records)})")

    def to_xarray(self) -> Any:
        """An xarray.Dataset with dims net and step, coordinates net, step, step_size, lost. Needs xarray.

        Of a run with stops, `stopped` and `stopped_by` are coordinates as well; of gradient flow `time`, the saved
        times, along step, or along net and step where networks have their own.

        Hyper-parameters that were given per network are coordinates by their dotted names, such as rule.weight_decay,
        rule.weight_decay.W1, loss.constants.delta, stop.0.level or step_size.decay_at, and so are keys. Attributes:
        `request`, the Run as JSON (large arrays by dtype and shape), `seed`, and the provenance: host, date, commit of
        the checkout, versions. Records and final parameters have their names, parameters at the saved steps a `saved_`
        before it. Records of more than a number have the axes and labels that their metric gives them.
        """
        return tables.to_xarray(self)

    def to_pandas(self) -> Any:
        """A pandas.DataFrame in long form: a row for each network and saved step. Needs pandas.

        Columns are net, step, step_size, lost, of a run with stops stopped and stopped_by, of gradient flow time, the
        hyper-parameters that were given per network, and the records that are one number.
        """
        return tables.to_pandas(self)

    def select(self, mask: Any = None, **labels: Any) -> "Result":
        """The Result of some of the networks, in their order, or in that of the places given.

        mask: [N] true or false, or places [M], e.g. result.survived
        labels: values of the networks' labels, one or several: net=3, step_size=[0.1, 0.2], momentum=0.9 (by the last
            words of a dotted name, or all of it in **{"rule.momentum": 0.9})
        Its run is that of these networks alone: no `ids`, and `keys` that say whose draws each has.
        Raises SpecError for a label that there is not, or if no network is left.
        """
        places = tables.positions(self, mask, labels)
        if not len(places):
            raise SpecError("select: no network is left")
        saved = None if self.saved_weights is None else self.saved_weights[places]
        return replace(self, run=tables.members(self.run, places), ids=self.ids[places], base=self.base[places],
                       lost=self.lost[places], weights=self.weights[places], saved_weights=saved,
                       buffers=None if self.buffers is None else self.buffers[places],
                       stopped=self.stopped[places], stopped_by=self.stopped_by[places],
                       records={name: a[places] for name, a in self.records.items()})

    def save(self, path: str | Path, classes: Sequence[type] = ()) -> None:
        """Write everything to one npz file, whole or not at all; or what `to_xarray` gives to NAME.zarr or NAME.nc.

        `load` reads npz files alone. The others are compressed, for other tools, and need zarr, or netCDF4 or h5netcdf.

        Of per-network fields the file has the values of these networks alone: the run that `load` gives back has no
        `ids` but `keys`, which say whose draws each network has, and the same bits. Where a number of the rule is 0 for
        these networks and not for all, the file has the whole run and its `ids`.

        classes: dataclasses of your own that the run holds (a model, a rule, a loss, a metric); `load` needs them too
        Raises SpecError if `load` could not read the file, or if `path` is not the name of a file; OSError if the
        system refuses.
        """
        if isinstance(path, (str, Path)) and Path(path).suffix in tables.SUFFIXES:
            return tables.write(self, path)
        from . import archive
        from .spec import codec

        codec.require_readable(self.run, classes)
        run = without_ids(self.run)
        stops = {name: getattr(self, name) for name in STOPS if run.stop}
        arrays = {name: getattr(self, name) for name in (*ARRAYS, *PERHAPS) if getattr(self, name) is not None} | stops
        archive.validate(run, self.lost, self.weights, self.records, self.saved_weights, t=self.run.steps,
                         taken=len(self.steps), ids=self.ids, steps=self.steps, base=self.base, buffers=self.buffers,
                         **stops)
        header = {"kind": "result", "provenance": _origin(self.provenance), "ids": _named(self.ids)}
        archive.write(path, header, run, arrays, self.records, self.saved_weights)

    @classmethod
    def load(cls, path: str | Path, classes: Sequence[type] = ()) -> "Result":
        """Read a file that `save` wrote.

        classes: dataclasses of your own that the run holds; a file makes no records but these and fastsgd's
        Raises SpecError if it is none, or damaged, or its parts do not fit each other.
        """
        from . import archive

        header, run, parts, records, saved_weights = archive.read(path, "result", ARRAYS, classes, STOPS, PERHAPS)
        provenance = _origin(header.get("provenance"))
        archive.validate(run, records=records, saved_weights=saved_weights, t=run.steps, taken=len(parts["steps"]),
                         **parts)
        if header.get("ids", _named(parts["ids"])) != _named(parts["ids"]):
            raise SpecError("file: ids are not those of the run")
        return cls(run=run, records=records, saved_weights=saved_weights, provenance=provenance, **parts)


def concat(results: Iterable[Result]) -> Result:
    """One Result of several, networks one after the other: shards of a population, or runs that differ by network.

    results: Results of runs that differ in per-network fields, ids and keys alone; where a number occurs twice, all
        networks are numbered anew
    Raises PlanError where their runs differ in anything else, SpecError if there is none.
    """
    results = list(results) if isinstance(results, Iterable) else []
    if not results or not all(isinstance(result, Result) for result in results):
        raise SpecError("concat: expected a list of one or more Results")
    first, counts = results[0], [len(result.ids) for result in results]
    run = tables.together([result.run for result in results], counts)
    ids = np.concatenate([result.ids for result in results])
    if len(np.unique(ids)) < len(ids):
        ids = np.arange(len(ids))

    def put(name):
        return np.concatenate([getattr(result, name) for result in results])

    records = {name: np.concatenate([result.records[name] for result in results]) for name in first.records}
    saved = None if first.saved_weights is None else put("saved_weights")
    buffers = None if any(result.buffers is None for result in results) else put("buffers")
    return Result(run=run, steps=first.steps, ids=ids, base=put("base"), lost=put("lost"), weights=put("weights"),
                  stopped=put("stopped"), stopped_by=put("stopped_by"),
                  records=records, saved_weights=saved, buffers=buffers, provenance=first.provenance | {"parts": [
                      result.provenance for result in results]})


def gathered(run, ids, where, parts):
    """The Result of a run whose networks, at positions `where` [M] each, were those of several Results."""
    made = {name: spread([getattr(part, name) for part in parts], where)
            for name in ("base", "lost", "weights", "saved_weights", "buffers", "stopped", "stopped_by")}
    return Result(run=run, steps=parts[0].steps, ids=ids, provenance=parts[0].provenance | {
        "parts": [part.provenance for part in parts]}, **made, records={
            name: spread([part.records[name] for part in parts], where) for name in parts[0].records})
