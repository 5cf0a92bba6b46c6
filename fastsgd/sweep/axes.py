"""Owns the axes of a sweep: any field of any record by its dotted name, and which of them one kernel takes together."""

from dataclasses import MISSING, dataclass, fields, is_dataclass

import numpy as np

from ..errors import SpecError, UnknownField
from ..spec import codec
from ..spec.check import as_array, near_or_all, shown
from ..spec.fields import lengths
from ..spec.record import Record, in_a_line

FIXED = ("ids", "keys", "networks", "save", "metrics", "backend", "device")  # what a sweep has one of, or makes itself
TAKEN = {"replica", "step", "lost", "stopped", "stopped_by", "network", "networks", "quantile", "weights", "saved_step",
         "point", "case", "sample"}  # names that labelled results have for other things


@dataclass(frozen=True, eq=False)
class Axis(Record):
    """One axis of a sweep: values of one field, or of several that go together.

    dim: its name in labelled results; columns {dotted name: values [V], an array of numbers or a tuple of anything}
    """

    dim: str
    columns: dict

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def text(self, k):
        """Value k as text: the same in every sweep, and another for every other value."""
        return "; ".join(f"{name}={_text(column[k])}" for name, column in self.columns.items())


def _text(value):
    if is_dataclass(value) and not isinstance(value, type):
        own = (f for f in fields(value) if f.metadata.get("in_files", True))  # of a function its graph, not its address
        inside = (f"{f.name}={_text(getattr(value, f.name))}" for f in own)
        return f"{type(value).__name__}({', '.join(inside)})"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.tolist()}"
    value = value.item() if isinstance(value, np.generic) else value
    if type(value) is int and abs(value) <= 2**53:
        value = float(value)  # 1 and 1.0 are one value
    return repr(value)


def _alike(a, b):
    """Whether two values have the same text, which takes long to write for an array."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b)
    return _text(a) == _text(b)


def _plain(value):
    """A value as it is when it comes from a file: tuples for lists, NumPy's arrays for those of others."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return as_array(value, "sweep") if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray) else value


def column(values, name):
    """Values of one field: whole numbers and floats as an array, all else as a tuple. Raises SpecError if empty."""
    if isinstance(values, (str, bytes, dict)) or (not hasattr(values, "__len__") and not hasattr(values, "__iter__")):
        raise SpecError(f"sweep: {name}: {shown(values)} given, expected a list or an array of values")
    if isinstance(values, np.ndarray) or hasattr(values, "detach"):
        values = as_array(values, f"sweep: {name}", ndim=1)
    values = values if isinstance(values, np.ndarray) else tuple(map(_plain, values))
    if not len(values):
        raise SpecError(f"sweep: {name}: no values given, expected at least one")
    kinds = {type(value) for value in values} if isinstance(values, tuple) else {values.dtype.type}
    if all(issubclass(kind, (int, float, np.integer, np.floating)) and kind is not bool for kind in kinds):
        whole = all(issubclass(kind, (int, np.integer)) for kind in kinds)
        if whole and not all(-2**63 <= value < 2**63 for value in values):
            return tuple(map(int, values))  # seeds may be larger
        values = np.array(values, np.int64 if whole else np.float64)
        values.setflags(write=False)
    return values


def twice(values):
    """The first value that is given a second time, as text; None if all differ."""
    if isinstance(values, np.ndarray):
        kinds, counts = np.unique(values, return_counts=True)
        return repr(kinds[counts > 1][0].item()) if (counts > 1).any() else None
    seen = set()
    for value in values:
        text = _text(value)
        if text in seen:
            return in_a_line(value)
        seen.add(text)
    return None


def short(names, taken=()):
    """{dotted name: label}: its last word, or all of it where two share that or it is `taken`."""
    last = {name: _last(name) for name in names}
    alone = {word for word in last.values() if list(last.values()).count(word) == 1} - TAKEN - set(taken)
    return {name: word if word in alone else "_".join(["sweep", *name.split(".")][name.count(".") > 0:])
            for name, word in last.items()}


def _last(name):
    words = [word for word in name.split(".") if word not in ("base", "value", "sigma")] or [name]
    return words[-1]


def put(run, name, value):
    """The Run with the field called `name`, such as rule.momentum, changed. Raises SpecError if there is none."""
    first, _, rest = name.partition(".")
    legal = [f.name for f in fields(run) if f.name not in FIXED]
    if first not in legal:
        why = " is not for a sweep to vary" if first in FIXED else " is no field of a run"
        raise UnknownField(f"sweep: {name!r}{why}{near_or_all(first, legal)}", first)
    if first == "step_size" and not rest and hasattr(run.step_size, "base") and np.ndim(value) < 2 and not is_dataclass(
            value):
        rest = "base"
    return run.replace(**{first: _put(getattr(run, first), rest, value, name)})


def _put(record, path, value, name):
    """`record` with what `path` leads to changed; `record` may be a dict."""
    if not path:
        return value
    first, _, rest = path.partition(".")
    if isinstance(record, dict):
        first = next((key for key in record if path == key or path.startswith(f"{key}.")), first)  # which may have dots
        rest = path[len(first) + 1:]
        if first not in record:
            raise UnknownField(f"sweep: {name!r} is not there{near_or_all(first, record)}", first)
        return record | {first: _put(record[first], rest, value, name)}
    if isinstance(record, tuple) and record and (len(record) == 1 or first.isdecimal()):
        k, rest = (int(first), rest) if first.isdecimal() else (0, path)  # of one stop, say, 0 may be left out
        if k >= len(record):
            raise SpecError(f"sweep: {name!r}: entry {k} of {len(record)} given, expected 0 .. {len(record) - 1}")
        return (*record[:k], _put(record[k], rest, value, name), *record[k + 1:])
    if not is_dataclass(record):
        raise SpecError(f"sweep: {name!r} leads into {in_a_line(record)}, which has no fields")
    names = {codec.given_as(f): f.name for f in fields(record) if f.init}
    if first not in names:
        why = f"{type(record).__name__} has no such field{near_or_all(first, names)}"
        raise UnknownField(f"sweep: {name!r}: {why}", first)
    given = _given(record) | {first: _put(getattr(record, names[first]), rest, value, name)}
    return type(record)(**given)


def _given(record):
    """Fields to make a record from anew when one of them changes; fields that follow from others are left out.

    Left out are: a field that is None by default, if it holds what None becomes (an MLP's W_scale follows from widths),
    and a tuple of one value for each of some parts, if that value was given once for all.
    """
    given = {codec.given_as(f): getattr(record, f.name) for f in fields(record) if f.init}
    for f in fields(record):
        name = codec.given_as(f)
        value = given.get(name)
        if f.init and f.default is None and value is not None:
            if _alike(_without(record, given, f), value):
                given[name] = None
        elif isinstance(value, tuple) and value and f.default is not MISSING and not isinstance(f.default, tuple):
            if all(_alike(item, value[0]) for item in value):
                given[name] = value[0]
    return given


def _without(record, given, field):
    """What a field becomes if it is not given; None where it must be given."""
    try:
        return getattr(type(record)(**{**given, codec.given_as(field): None}), field.name)
    except SpecError:
        return None


def together(run, name, values):
    """Whether kernels take the field called `name` per network: then its values are one run's. Checks each value.

    Raises SpecError for a value that the field cannot have.
    """
    if isinstance(values, np.ndarray) and not _apart(name):
        try:
            two = put(run, name, np.array([values[0], values[-1]]))
            if {N for field, N in lengths(two).items() if lengths(run).get(field) != N} == {2}:
                put(run, name, values)
                return True
        except (SpecError, TypeError, ValueError):
            pass
    for value in {_text(value): value for value in values}.values():
        _of_one(put(run, name, scalar(value)), name)
    return False


def _of_one(run, name):
    """Refuse a value of the field called `name` that is for several networks, or that no file can hold."""
    wide = several(run)
    if wide:
        field, N = next(iter(wide.items()))
        raise SpecError(f"sweep: {name}: a value gives {field} for {N} network{'s' * (N > 1)} as an array, expected "
                        "that of one network"
                        + ("; a step size for each step is fs.StepTable(values)" if field == "step_size" else ""))
    readable(run, f"sweep: {name}")


EACH = "data.which", "model.constants."  # fields that are arrays over networks even where there is but one


def several(run):
    """{field: number of networks} of what a run has for each network, although it should be that of one."""
    return {name: N for name, N in lengths(run).items() if N > 1 or not name.startswith(EACH)}


def repeated(run, N):
    """A run of one network as a run of N, in which what has to be an array over networks is repeated."""
    for name, given in lengths(run).items():
        if name.startswith(EACH) and given == 1 < N:
            value = run.data.which if name == EACH[0] else run.model.constants[name.removeprefix(EACH[1])]
            run = put(run, name, np.repeat(value, N, axis=0))
    return run


def readable(run, where):
    """Refuse what workers could not read from a file: data that a function makes, and functions without a graph."""
    if run.data.kind == "stream":
        raise SpecError(f"{where}: a Stream given, whose function workers cannot read from a file; give fs.Dataset or "
                        "fs.data.Fresh, or train such runs with fs.train")
    parts = {"model": run.model, "loss": run.loss, "rule": run.rule, "rule.penalty": getattr(run.rule, "penalty", None),
             "data.teacher": getattr(run.data, "teacher", None)}
    for name, part in parts.items():
        if getattr(part, "function", None) is not None and part.graph is None:
            raise SpecError(f"{where}: {name} is a function that could not be traced ({part.why_not()}), and workers "
                            "read graphs from a file; docs/own.md lists what can be traced")


def _apart(name):
    """Whether values of a field are runs of their own although kernels take them per network: their loops differ."""
    return name.startswith("loss.") or name in ("rule.lost_above", "rule.batch_size")


def scalar(value):
    """A value as a record's field takes it."""
    return value.item() if isinstance(value, np.generic) else value


def idle(name):
    """The number at which a field of a rule changes nothing."""
    if name.startswith(("rule.constants.", "rule.state.")):
        return np.nan  # nobody knows what a rule of one's own does with it
    return 1 if name.startswith("rule.step_scale.") else 0


def classes(run, axis):
    """(class [V] int, names of the columns that are per network) of an axis: one run has values of one class.

    Values of fields that are not per network tell classes apart; so does whether a number of the rule changes nothing,
    since a rule without momentum, say, is another kernel than one with.
    """
    vector = [name for name, values in axis.columns.items() if together(run, name, values)]
    keys = []
    for name, values in axis.columns.items():
        if name not in vector:
            keys.append([_text(value) for value in values])
        elif name.startswith("rule."):
            keys.append((values == idle(name)).tolist())
    rows = list(zip(*keys, strict=True)) if keys else [()] * len(axis)
    known = {}
    return np.array([known.setdefault(row, len(known)) for row in rows]), vector
