"""Owns how records become text and arrays and come back: what checkpoints, results and hashes are made of."""

import hashlib
import json
from dataclasses import fields, is_dataclass
from inspect import isabstract

import numpy as np

from ..errors import SpecError

KINDS = {}  # {"module:name": class} of the records that a file may name by itself; archive.py fills it from shelves


def encode(record):
    """Return (JSON text, {key: array}) of a tree of records, dicts, tuples, numbers, strings and arrays."""
    arrays = {}

    def walk(value, path):
        if is_dataclass(value) and not isinstance(value, type):
            return {"record": name_of(type(value)), "fields": {
                given_as(f): walk(getattr(value, f.name), f"{path}.{f.name}") for f in kept_fields(value)}}
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "fiu":
                raise SpecError(f"{path}: an array of {value.dtype} cannot be written to a file")
            arrays[path] = value
            return {"array": path}
        if isinstance(value, dict):
            if not all(isinstance(name, str) for name in value):
                raise SpecError(f"{path}: a dict with keys that are no strings cannot be written to a file")
            return {"dict": {name: walk(item, f"{path}.{name}") for name, item in value.items()}}
        if isinstance(value, (tuple, list)):
            return {"tuple": [walk(item, f"{path}.{k}") for k, item in enumerate(value)]}
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        what = f"the function {value.__name__}" if hasattr(value, "__name__") else (
            f"a {type(value).__qualname__}, which is no part of fastsgd and no dataclass,")
        raise SpecError(f"{path}: {what} cannot be written to a file")

    return json.dumps(walk(record, "run")), arrays


def decode(text, arrays, classes=()):
    """The inverse of `encode`.

    classes: dataclasses of the caller's own that the text may name, besides the records of fastsgd; nothing else is
        made, and nothing is imported
    Raises SpecError if the text is none of `encode`'s, or a record refuses its fields.
    """
    own = _by_name(classes)

    def walk(node):
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        what, inner = _only(node)
        if what == "array":
            return arrays[inner]
        if what == "dict":
            return {name: walk(item) for name, item in inner.items()}
        if what == "tuple":
            return tuple(walk(item) for item in inner)
        return _kind(inner["record"], own)(**{field: walk(item) for field, item in inner["fields"].items()})

    try:
        return walk(json.loads(text))
    except SpecError:
        raise
    except Exception as error:  # a record, perhaps the caller's own, that its fields do not fit may raise anything
        raise SpecError(f"file: its run cannot be made ({type(error).__name__}: {str(error)[:200]})") from None


def _only(node):
    """(what, its content) of a node that is no plain value."""
    if isinstance(node, dict) and set(node) == {"record", "fields"} and isinstance(node["record"], str):
        return "record", node
    if isinstance(node, dict) and len(node) == 1 and (legal := {"array": str, "dict": dict, "tuple": list}.get(
            what := next(iter(node)))) and isinstance(node[what], legal):
        return what, node[what]
    raise SpecError("file: its run cannot be made (a part of it is no record, array, dict, tuple or plain value)")


def kept_fields(record):
    """The fields of a record that go into files: those it is made from, but for functions (metadata in_files=False)."""
    return [f for f in fields(record) if f.init and f.metadata.get("in_files", True)]


def given_as(field):
    """The argument from which a record makes a field, where that has another name (metadata given_as=...)."""
    return field.metadata.get("given_as", field.name)


def kept_whole(kind):
    """Whether files, and other texts, have all that a class of records is made from: no functions."""
    return len(kept_fields(kind)) == sum(f.init for f in fields(kind))


def require_readable(record, classes=()):
    """Raise SpecError unless `record` comes back from a file as it is, with `classes` given.

    classes: dataclasses of the caller's own that files may hold
    """
    own, parts = _by_name(classes), [record]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts += part.values()
        elif isinstance(part, (tuple, list)):
            parts += part
        elif is_dataclass(part) and not isinstance(part, type):
            _kind(name_of(type(part)), own)
            if getattr(part, "graph", "") is None:
                raise SpecError(f"file: {type(part).__module__}.{type(part).__name__} has no graph, and files keep no "
                                f"functions: {part.why_not() or 'a plan makes it'}")
            parts += [getattr(part, f.name) for f in kept_fields(part)]
    text, arrays = encode(record)
    if own and fingerprint(decode(text, arrays, classes)) != digest(text, arrays)[:16]:
        raise SpecError(f"file: of {', '.join(sorted(own))}, fields change when a record is made from them again; a "
                        "file could not bring it back")


def records_on(shelf):
    """{name: class} of the records that a shelf offers, those left out that others only build on."""
    public = {name: getattr(shelf, name) for name in shelf.__all__}
    return {name: kind for name, kind in public.items()
            if isinstance(kind, type) and is_dataclass(kind) and not isabstract(kind)}


def name_of(kind):
    """The name by which files know a class of records."""
    return f"{kind.__module__}:{kind.__qualname__}"


def _by_name(classes):
    """{name: class} of the caller's own classes. A file knows them by the name alone, wherever they were defined."""
    own = {}
    for kind in classes if isinstance(classes, (tuple, list, set, frozenset)) else (classes,):
        if not (isinstance(kind, type) and is_dataclass(kind)):
            raise SpecError(f"classes: {kind!r} given, expected dataclasses, e.g. classes=[MyModel]")
        if own.setdefault(kind.__name__, kind) is not kind:
            raise SpecError(f"classes: two are called {kind.__name__}, and files know them by that name")
    return own


def _kind(text, own):
    """The record class called "module:name", of fastsgd or of the caller's own."""
    kind = KINDS.get(text) or own.get(text.partition(":")[2].rpartition(".")[2])
    if kind is None:
        name = text.rpartition(":")[2].rpartition(".")[2]
        raise SpecError(f"file: a record of {text[:200]} is no part of fastsgd, and a file does not bring it back by "
                        f"itself; if it is a dataclass of your own, name it when it is written and when it is read: "
                        f"classes=[{name[:100] or '...'}]")
    return kind


def fingerprint(record):
    """A hash of everything in a record, arrays included: 16 hex digits."""
    return digest(*encode(record))[:16]


def digest(text, arrays):
    """SHA-256 of a text and named arrays, in hex digits."""
    out = hashlib.sha256(text.encode())
    for key in sorted(arrays):
        out.update(f"{key} {arrays[key].dtype.str} {arrays[key].shape}".encode())
        out.update(np.ascontiguousarray(arrays[key]).data)
    return out.hexdigest()
