"""Owns what results and checkpoints share in a file: which records it may name, and whether its arrays fit its run."""

import numpy as np

from . import losses, metrics, models, orders, rules, stops, storage
from .errors import SpecError
from .spec import codec, noise, population, problem, run, save, schedule
from .spec.fields import by_batch_size, portion

RECORDS = (run.Run, problem.Dataset, problem.Fresh, population.Population, problem.Stream, save.SaveAt,
           save.Floor, noise.LabelNoise, noise.GradientNoise)
codec.KINDS |= {codec.name_of(kind): kind for kind in RECORDS}
for shelf in (losses, metrics, models, orders, rules, schedule, stops):
    codec.KINDS |= {codec.name_of(kind): kind for kind in codec.records_on(shelf).values()}


def write(path, header, request, arrays, records, saved_weights, previous=None):
    """Write a run, its results and a header to a file; the caller checks that it can be read back.

    request: the Run; arrays {name: array}, records, saved_weights: as `read` gives them back
    previous: name that a file which is replaced gets
    """
    text, own = codec.encode(request)
    header = header | {"run": text, "fingerprint": codec.digest(text, own)[:16]}
    kept = {} if saved_weights is None else {"saved_weights": saved_weights}
    named = {f"record.{name}": a for name, a in records.items()}
    storage.write(path, header, own | arrays | named | kept, previous)


def read(path, kind, names, classes=(), of_stops=(), perhaps=()):
    """(header, Run, {name: array}, records, saved weights or None) of a file that `write` made.

    names: the arrays that every file of this kind has; of_stops: more arrays, where the run has stops
    perhaps: arrays that it may have, None for one that it lacks
    classes: dataclasses of the caller's own that the run may hold
    Raises SpecError if the file is another. Whether the arrays fit the run is for `validate`, which must follow.
    """
    header, arrays = storage.read(path, kind)
    own = {name: a for name, a in arrays.items() if name.startswith("run.")}
    records = {name.removeprefix("record."): a for name, a in arrays.items() if name.startswith("record.")}
    try:
        text = header.get("run")
        if not isinstance(text, str):
            raise SpecError("says nothing of its run")
        request = codec.decode(text, own, classes)
        if not isinstance(request, run.Run):
            raise SpecError(f"has a {type(request).__name__} for its run")
        names = (*names, *of_stops) if request.stop else names
        known = {*own, *(f"record.{name}" for name in records), *names, *perhaps, "saved_weights"}
        missing, more = [name for name in names if name not in arrays], sorted(set(arrays) - known)
        if missing or more:
            raise SpecError(f"lacks {', '.join(missing)}" if missing else f"holds {', '.join(more)[:200]} besides")
        if set(codec.encode(request)[1]) != set(own):
            raise SpecError("holds arrays that its run does not have")
        if header["format"] == storage.FORMAT and header.get("fingerprint") != codec.digest(text, own)[:16]:
            raise SpecError("has the fingerprint of another run")
    except SpecError as error:
        raise SpecError(f"path: {str(path)!r} is no {kind} that can be read: {error}") from None
    parts = {name: arrays.get(name) for name in (*names, *perhaps)}
    return header, request, parts, records, arrays.get("saved_weights")


def validate(request, lost, weights, records, saved_weights, *, t, taken, ids=None, steps=None, base=None,
             buffers=None, stopped=None, stopped_by=None):
    """Raise SpecError unless arrays are what a run can have computed; see `Result` and `Progress` for their meaning.

    t, taken: steps and saved steps done; of a checkpoint lists where networks have batch sizes of their own
    ids, steps, base: of a result; buffers: of a checkpoint, or of a result that has them
    """
    try:
        if isinstance(t, list) or (steps is None and request.rule.batches is not None):
            return _groups(request, lost, weights, records, saved_weights, t, taken, buffers, stopped, stopped_by)
        _validate(request, lost, weights, records, saved_weights, t, taken, ids, steps, base, buffers)
        if request.stop:
            _stopped(request, lost, t, stopped, stopped_by)
    except SpecError:
        raise
    except Exception as error:  # fields that disagree may raise anything in a model or metric, perhaps the caller's own
        raise SpecError(f"file: its run does not hold together ({type(error).__name__}: {str(error)[:200]})") from None


def _validate(request, lost, weights, records, saved_weights, t, taken, ids, steps, base, buffers):
    saves, N, P, T = request.save.resolve(request.steps), len(weights), request.model.P, request.steps
    S = len(saves)
    if not (type(t) is int and 0 <= t <= T and type(taken) is int and 0 <= taken <= S):
        raise SpecError(f"file: holds step {t!r:.50} and {taken!r:.50} saved steps, the run has {T} and {S}")
    if (taken and saves[taken - 1] > t) or (taken < S and saves[taken] < t):
        raise SpecError(f"file: holds {taken} saved steps at step {t}, which the run cannot have")
    _expect("weights", weights, request.dtype, (N, P))
    _expect("lost", lost, "int64", (N,))
    if not ((lost >= -1) & (lost <= t)).all():
        raise SpecError(f"file: lost holds a step outside -1 .. {t}")
    if not np.isfinite(weights[lost < 0]).all():
        raise SpecError("file: weights of a network that is not lost are not finite")
    _networks(request, N, ids, base)
    if steps is not None and not (steps.dtype == saves.dtype and np.array_equal(steps, saves)):
        raise SpecError("file: steps are not those that the run saves")
    if buffers is not None:
        _expect("buffers", buffers, request.dtype, (N, len(request.rule.buffers()), P))
        if not np.isfinite(buffers[lost < 0]).all():
            raise SpecError("file: buffers of a network that is not lost are not finite")
    if (saved_weights is not None) != request.save.params:
        raise SpecError(f"file: {'lacks' if request.save.params else 'has'} saved_weights, which the run "
                        f"{'keeps' if request.save.params else 'does not keep'}")
    if saved_weights is not None:
        _expect("saved_weights", saved_weights, request.dtype, (N, S, P))
    asked = {metric.name: metric for metric in request.metrics}
    if not set(records) <= set(asked) or (taken and set(records) != set(asked)):
        raise SpecError(f"file: has records {sorted(records)}, the run's metrics are {sorted(asked)}")
    for name, record in records.items():
        axes = asked[name].axes(request.model, request.data.one)
        shape = record.shape[2:] if axes is None else tuple(len(labels) for labels in axes.values())
        _expect(f"record {name}", record, "float64", (N, S, *shape))


def _groups(request, lost, weights, records, saved_weights, t, taken, buffers, stopped, by):
    """The same of each group of networks of one batch size; only then is the whole what it should be."""
    sizes = by_batch_size(request)
    if sizes is None or not (isinstance(t, list) and isinstance(taken, list)) or not len(t) == len(taken) == len(sizes):
        raise SpecError(f"file: holds steps {t!r:.50} and {taken!r:.50} saved steps, which are not those of its groups")
    N = sum(len(at) for _, at in sizes)
    for name, a in {"lost": lost, "weights": weights, "buffers": buffers, **records}.items():
        if len(a) != N:
            raise SpecError(f"file: {name} is of {len(a)} networks, its run has {N}")
    for k, (one, at) in enumerate(sizes):
        validate(one, lost[at], weights[at], {name: a[at] for name, a in records.items()}, portion(saved_weights, at),
                 t=t[k], taken=taken[k], buffers=portion(buffers, at), stopped=portion(stopped, at),
                 stopped_by=portion(by, at))


def _stopped(request, lost, t, stopped, by):
    """Raise SpecError unless networks of the run can have stopped after these steps, and by these stops."""
    _expect("stopped", stopped, "int64", lost.shape)
    _expect("stopped_by", by, "int64", lost.shape)
    there, never = stopped >= 0, (stopped == -1) & (by == -1)
    looked = np.zeros(lost.shape, bool)
    for k, stop in enumerate(request.stop):
        looked |= (by == k) & stop.due(stopped, request.steps)
    if not ((never | (there & looked & (stopped <= t) & (lost < 0))).all()):
        raise SpecError("file: stopped and stopped_by are not what the run's stops can give")


def _networks(request, N, ids, base):
    """Raise SpecError unless N networks called `ids` with base step sizes `base` are those of the run."""
    lengths = request.step_size.lengths() | request.rule.lengths()
    lengths |= {f"stop {k} {name}": N for k, stop in enumerate(request.stop) for name, N in stop.lengths().items()}
    if request.networks is not None:
        lengths["networks"] = request.networks
    if request.keys is not None:
        lengths["keys"] = len(request.keys)
    sizes = set(lengths.values())
    whole = request.ids is None
    if N == 0 or len(sizes) > 1 or (sizes - {N} if whole else len(request.ids) != N or min(
            sizes, default=2**32) <= request.ids.max()):
        raise SpecError(f"file: has {N} networks, which is not what its run has")
    if ids is None:
        return
    wanted = request.ids if not whole else np.arange(N) if request.keys is None else None
    if wanted is None:  # networks by their keys, whose numbers are those of the population that they were chosen from
        wrong = ids.dtype != np.int64 or ids.shape != (N,) or ids.min() < 0 or ids.max() >= 2**32 or len(
            np.unique(ids)) < N
    else:
        wrong = ids.dtype != np.int64 or not np.array_equal(ids, wanted)
    if wrong:
        raise SpecError("file: ids are not those of the run")
    given = np.asarray(getattr(request.step_size, "base", 1.0))
    _expect("base", base, "float64", (N,))
    if not np.array_equal(base, (given if whole else given[ids]) if given.size > 1 else np.broadcast_to(given, (N,))):
        raise SpecError("file: base is not the step size of the run")


def _expect(name, array, dtype, shape):
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        given = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise SpecError(f"file: {name} is {given}, expected {dtype} {shape}")
