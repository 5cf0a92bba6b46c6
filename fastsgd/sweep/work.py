"""Owns the work of a sweep: one range computed and written, and a worker that does so until nothing is missing."""

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .. import storage
from ..errors import SpecError
from ..execute import execute
from ..plan import one as make_plan
from ..spec import codec
from ..spec.check import real, shown
from ..spec.planned import Tuning
from . import shards
from .axes import put, repeated
from .claims import STALE, Claims, Folder
from .reduce import Part
from .store import MANIFEST, Store, checksum, open_store, sealed

WAIT = 0.1, 10.0  # seconds before a worker that finds no free range looks again, at first and at most


def run_of(store, range_):
    """The Run of a range: its networks' own values, as many as it has, and whose draws they have."""
    sweep, group = store.sweep, store.groups[range_.group]
    replicas, run = np.arange(*range_.replicas), group.run
    where = np.stack([members[k] for members, k in zip(group.members, range_.cells.T, strict=True)], axis=-1) if (
        group.members) else np.zeros((len(range_.cells), 0), np.int64)
    for axis, k in zip(sweep.axes, where.T, strict=True):
        for name, values in axis.columns.items():
            if name in group.vector:
                run = put(run, name, np.repeat(values[k], len(replicas)))
    keys = sweep.keys(where, replicas).reshape(-1)
    return repeated(run, len(keys)).replace(keys=keys)


def do(store, name, tuning=None, on_launch=None):
    """Compute the range called `name`, write its shards, then its reductions, then its marker; returns the marker.

    Done twice it gives the same numbers. Raises SpecError where the disk refuses: then there is no marker.
    """
    range_, began = store.range(name), time.perf_counter()
    result = execute(make_plan(run_of(store, range_), tuning), on_launch=on_launch)
    kept = store.layouts[range_.group].kept(range_.networks)
    values = {name: getattr(result, name) for name in ("lost", "stopped", "stopped_by", "weights")}
    values |= {metric: a if len(kept) == len(a) else a[kept] for metric, a in result.records.items()}
    files = {}
    try:
        for array in store.arrays(range_.group):
            a = values[array.name]
            if a.shape[1:] != array.shape:
                raise SpecError(f"metrics: {array.name} has values of shape {a.shape[2:]}, the store has room for "
                                f"{array.shape[1:]}; a metric of more than a number needs `axes`")
            file, data = store.shard(array, range_), shards.encoded(a, array.rows, array.chunk)
            shards.write(file, data)
            files[str(file.relative_to(store.path))] = len(data), checksum(_padded(a, array.rows))
        part = reduced(store, range_, result)
        path = store.path / "parts" / f"{name}.npz"
        storage.write(path, {"kind": "part of a sweep", "store": store.fingerprint, "range": name}, part)
        files[str(path.relative_to(store.path))] = os.stat(path).st_size, codec.digest(name, part)
        record = {"store": store.fingerprint, "range": name, "networks": range_.networks, "files": files,
                  "lost": int((result.lost >= 0).sum()), "steps": result.provenance["network_steps"],
                  "seconds": round(time.perf_counter() - began, 4), "backend": result.provenance["backend"],
                  "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), **_here()}
        shards.write(store.path / "done" / f"{name}.json", _text(record))
    except OSError as error:
        raise SpecError(f"sweep: range {name} could not be written to {str(store.path)!r} ({error.strerror or error}); "
                        "what is done stays, and the same call goes on from there") from None
    return record


def _text(record):
    record = json.loads(json.dumps(record))
    return (json.dumps(record | {"check": sealed(record)}) + "\n").encode()


def _padded(values, rows):
    if len(values) == rows:
        return values
    fill = shards.NOT_DONE if values.dtype.kind == "i" else np.nan
    return np.concatenate([values, np.full((rows - len(values), *values.shape[1:]), fill, values.dtype)])


@cache
def _here():
    import numcodecs

    from .. import __version__

    return {"fastsgd": __version__, "numpy": np.__version__, "numcodecs": numcodecs.__version__,
            "host": platform.node()}


def reduced(store, range_, result):
    """What the sweep's reductions make of a range: {"REDUCTION/key": array}."""
    cells = len(range_.cells)
    part = Part({name: a.reshape(cells, -1, a.shape[1]) for name, a in result.records.items() if a.ndim == 2},
                result.lost.reshape(cells, -1), result.steps, result.stopped.reshape(cells, -1))
    return {f"{one.name}/{key}": a for one in store.sweep.reductions for key, a in one.of(part).items()}


def work(store: Any, *, tuning: Tuning | None = None, stale: float = STALE, shard: tuple[int, int] | None = None,
         seconds: float | None = None, thorough: bool = False, progress: object = None, until: Any = None,
         classes: Sequence[type] = ()) -> int:
    """Do ranges of a store until none is missing, beside any number of other workers; returns how many were done here.

    store: a Store, or the folder of one
    tuning: fs.Tuning, e.g. how many threads
    stale: seconds without a sign of life after which another machine's worker counts as gone, > 0
    shard (k, K): of all ranges only number k, k + K, ..., 1 <= k <= K
    seconds: no range is begun after so long; until: function that says whether none is to be begun
    thorough: whether what is done is read and compared with its checksums first
    progress: True (a line on stderr a range), or a function called with (store, name of the range done)
    """
    store = store if isinstance(store, Store) else open_store(store, classes)
    shards.needed()
    tell = checked(tuning, progress, stale)
    if seconds is not None:
        real(seconds, "seconds", 0)
    if not os.access(store.path / "claims", os.W_OK | os.X_OK):
        raise SpecError(f"path: the store {str(store.path)!r} may not be written to")
    mine, began, count, wait = _mine(store, shard), time.monotonic(), 0, WAIT[0]
    store.repair(thorough)
    claims = Claims(Folder(store.path / "claims"), stale)

    def missing():
        return [name for name in store.missing() if name in mine]

    while (seconds is None or time.monotonic() - began < seconds) and not (until and until()):
        claim = _taken(store, claims, missing)
        if claim is None:
            if not missing():
                break
            time.sleep(min(wait, stale / 4))
            wait = min(2 * wait, WAIT[1])
            continue
        name, wait = claim[0], WAIT[0]
        if (store.path / "done" / f"{name}.json").exists():
            continue  # somebody was quicker than our list
        with claims.alive(claim):
            do(store, name, tuning)
        count += 1
        tell(store, name)
    return count


def checked(tuning, progress, stale):
    """A function of (store, name of the range done) that tells of progress. Raises SpecError for what cannot be."""
    if not (tuning is None or isinstance(tuning, Tuning)):
        raise SpecError(f"tuning: {type(tuning).__name__} given, expected fs.Tuning(...)")
    if not (isinstance(stale, (int, float)) and stale > 0):
        raise SpecError(f"stale: {stale!r} given, expected seconds > 0")
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise SpecError(f"progress: {shown(progress)} given, expected True, False or a function of (store, name)")
    return _tell if progress is True else progress or (lambda store, name: None)


def _taken(store, claims, missing):
    try:
        return claims.take(missing)
    except OSError as error:
        raise SpecError(f"path: the store {str(store.path)!r} cannot be written to ({error.strerror or error}); what "
                        "is done stays") from None


def _mine(store, shard):
    """The ranges of one of K shards."""
    if shard is None:
        return set(store.names)
    sound = isinstance(shard, (tuple, list)) and len(shard) == 2 and all(type(one) is int for one in shard)
    if not (sound and 1 <= shard[0] <= shard[1]):
        raise SpecError(f"shard: {shown(shard)} given, expected (k, K), k/K on the command line, with 1 <= k <= K")
    k, K = shard
    return set(store.names[k - 1::K])


def _tell(store, name):
    done = len(store.done())
    print(f"{name}: {done} of {len(store.names)} ranges done", file=sys.stderr, flush=True)


def assigned(path, name, tuning=None, classes=()):
    """Do one range that a scheduler gave to us, whoever has claimed it; returns its name. For executors."""
    store = opened(str(path), classes, os.stat(Path(path) / MANIFEST).st_mtime_ns)
    if store.marker(name) is None:
        claims = Claims(Folder(store.path / "claims"))
        with claims.alive(claims.force(name)):
            do(store, name, tuning)
    return name


@lru_cache(8)
def opened(path, classes, changed):
    """The Store in a folder, read once a process and again when it has grown."""
    return open_store(path, classes)
