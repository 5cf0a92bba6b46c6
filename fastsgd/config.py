"""Owns configuration files: a TOML table becomes a Run, or a Sweep over one."""

import re
import sys
from contextlib import contextmanager
from inspect import signature
from pathlib import Path

import numpy as np

from . import data, losses, metrics, models, orders, rules, stops, storage, sweep
from .errors import FastsgdError, SpecError, UnknownField
from .spec import codec
from .spec.check import as_array, near, one_of
from .spec.noise import GradientNoise, LabelNoise
from .spec.problem import Dataset
from .spec.run import DTYPES, Run
from .spec.save import Floor, SaveAt
from .spec.schedule import Cosine, StepSize, Warmup

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FIELD = re.compile(r"[A-Za-z_]\w*(\.\w+)*")  # before the colon of an error
SHELVES = {"model": models, "rule": rules, "order": orders, "loss": losses}


def read(path, changes=()):
    """The Run that a TOML file describes.

    Tables [model], [data], [rule], [order], [loss] name a record by `type` and give its fields; [step_size] and [save]
    give those of fs.StepSize (with tables `warmup`, `cosine`) and fs.SaveAt (with a table `floor`); `metrics` is a list
    of tables with `type`, and so is `stop`, whose `metric` is a name or a table like those; Run's other fields stand at
    the top. [data] has type = "sparse_regression", "teacher_student", "Fresh" or "Population" (with a table `teacher`
    like [model] and one of its `weights`), or file = "data.npz" with arrays X, y, X_test, y_test. Noises of [rule] are
    amplitudes or tables, and an amplitude may be a table like [step_size].

    changes: texts such as "rule.momentum=0.5" that override the file
    Raises SpecError naming the field, and the line of a key that no table has.
    """
    with _lines(path, changes):
        table = _loaded(path, changes)
        if "sweep" in table:
            raise SpecError(f"config: {str(path)!r} describes a sweep; see `fastsgd sweep run`")
        return _run(table, path)


def read_sweep(path, changes=()):
    """The Sweep that a TOML file describes: a run as in `read`, and a table [sweep].

    [sweep.grid] and [sweep.zip] name fields of the run and their values: a list, {logspace = [from, to, how many]} or
    {linspace = [...]}; [[sweep.cases]] are tables of values; [sweep.random] has `points`, `seed` and a table `fields`
    of {log = [low, high]} or {linear = [low, high]}; `replicas`, `draws`, `keep = {networks = 1000}` and `reduce`, a
    list of names or of tables with `type`, are as in fs.Sweep.
    """
    with _lines(path, changes):
        table = _loaded(path, changes)
        if "sweep" not in table:
            raise SpecError(f"config: {str(path)!r} has no table [sweep]; `fastsgd run` does a single run")
        given = _table(table.pop("sweep"), "sweep")
        base = _run(table, path)
        fields = {name: _flat(_table(given.pop(name), f"sweep.{name}"), f"sweep.{name}")
                  for name in ("grid", "zip") if name in given}
        if "cases" in given:
            cases = given.pop("cases")
            fields["cases"] = [_flat(_table(case, "sweep.cases"), "sweep.cases", False)
                               for case in (cases if isinstance(cases, list) else [cases])]
        if "random" in given:
            random = _table(given.pop("random"), "sweep.random")
            ranges = _flat(_table(random.get("fields", {}), "sweep.random.fields"), "sweep.random", False)
            random = random | {"fields": {name: _ends(ends, name) for name, ends in ranges.items()}}
            fields["random"] = _make(sweep.Random, random, "sweep.random")
        if "keep" in given:
            fields["keep"] = _make(sweep.Keep, given.pop("keep"), "sweep.keep")
        if "reduce" in given:
            listed = given.pop("reduce")
            kinds = {kind.__name__: kind for kind in sweep.KINDS}
            fields["reduce"] = tuple(_named(kinds, one, "sweep.reduce")
                                     for one in (listed if isinstance(listed, list) else [listed]))
        return _make(sweep.Sweep, fields | given, "sweep", base)


@contextmanager
def _lines(path, changes):
    """Add to an error where its key stands: on the command line, or in which line of the file."""
    try:
        yield
    except UnknownField as error:
        raise SpecError(f"{error}{_changed(error.key, changes) or _where(path, error.key)}") from None
    except SpecError as error:
        field = str(error).partition(":")[0]
        if not FIELD.fullmatch(field):
            raise
        table, _, key = field.rpartition(".")
        where = _changed(field, changes) or _where(path, key, table) or _where(path, key)
        raise SpecError(f"{error}{where}") from None


def _changed(field, changes):
    """" (given on the command line)" of a field, or the last word of one, that a change is of; "" if none is."""
    names = [change.partition("=")[0].strip() for change in changes]
    own = any(field in (name, name.rpartition(".")[2]) or field.startswith(f"{name}.") or name.startswith(f"{field}.")
              for name in names)
    return " (given on the command line)" if own else ""


def _where(path, key, table=None):
    """" (line 3 of 'run.toml')" of a key, of a table if one is given; "" where no line or more than one has it."""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, ValueError):
        return ""
    found, header = [], ""
    for k, line in enumerate(lines, 1):
        if line.strip().startswith("["):
            header = line.strip("[] ")
        inside = table is None or header == table or table.split(".")[-1] in _keys(line)
        if inside and key in _keys(line):
            found.append(k)
    return f" (line {found[0]} of {str(path)!r})" if len(found) == 1 else ""


def _keys(line):
    """Words of a line that may be keys: what stands before a `=`, or in the brackets of a table."""
    text = line.split("#")[0]
    parts = text.strip("[] ").split(".") if text.strip().startswith("[") else [
        word for part in text.split("=")[:-1] for word in part.replace("{", ",").split(",")[-1].split(".")]
    return {part.strip().strip("'\"") for part in parts}


def _loaded(path, changes):
    """The tables of a file, with changes made."""
    try:
        table = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise SpecError(f"config: cannot read {str(path)!r} ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise SpecError(f"config: {str(path)!r} is no TOML ({error})") from None
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not all(part.strip() for part in name.split(".")):
            raise SpecError(f"--set: {change!r} given, expected FIELD=VALUE, e.g. rule.momentum=0.5")
        try:
            value = tomllib.loads(f"x = {text}")["x"]
        except ValueError:
            value = text.strip()  # a word needs no quotes here
        *path_, last = [part.strip() for part in name.split(".")]
        inner = table
        for part in path_:
            below = inner.setdefault(part, {})
            if not isinstance(below, dict):
                if part != "step_size":
                    raise SpecError(f"--set: {change!r}: {part} is {below!r}, which has no {last}")
                below = inner[part] = {"base": below}
            inner = below
        inner[last] = value
    return table


def _flat(table, field, listed=True, name=""):
    """{dotted name: values} of tables within tables."""
    out = {}
    for key, value in table.items():
        whole = f"{name}.{key}" if name else key
        if isinstance(value, dict) and not set(value) & {"logspace", "linspace", "log", "linear"}:
            out |= _flat(value, field, listed, whole)
        else:
            out[whole] = _values(value, whole, field) if listed else value
    return out


def _values(value, name, field):
    """A list as it is; {logspace = [from, to, how many]} and the like as the numbers that they are."""
    if not isinstance(value, dict):
        return value
    kind, ends = next(iter(value.items()))
    number = isinstance(ends, list) and len(ends) == 3 and all(
        isinstance(x, (int, float)) and not isinstance(x, bool) for x in ends) and isinstance(ends[2], int)
    if len(value) != 1 or kind not in ("logspace", "linspace") or not number or ends[2] < 1 or (
            kind == "logspace" and min(ends[:2]) <= 0):
        raise SpecError(f"{field}.{name}: {value!r} given, expected a list, {{logspace = [from, to, how many]}} or "
                        "{linspace = [...]}")
    return (np.geomspace if kind == "logspace" else np.linspace)(*ends)


def _ends(value, name):
    kinds = [kind for kind in ("log", "linear") if isinstance(value, dict) and kind in value]
    if len(kinds) != 1 or len(value) != 1 or not isinstance(value[kinds[0]], list) or len(value[kinds[0]]) != 2:
        raise SpecError(f"sweep.random.{name}: {value!r} given, expected {{log = [low, high]}} or {{linear = [...]}}")
    return (kinds[0], *value[kinds[0]])


def _run(table, path):
    """The Run of a file's tables."""
    if isinstance(table.get("rule"), dict):
        table["rule"] = _rule(table["rule"])
    fields = {name: _record(shelf, table.pop(name), name) for name, shelf in SHELVES.items() if name in table}
    dtype = one_of(table.get("dtype", "float32"), "dtype", DTYPES)
    if "data" in table:
        fields["data"] = _data(_table(table.pop("data"), "data"), Path(path).parent, dtype)
    if "init" in table:  # numbers in a text have no dtype of their own
        fields["init"] = {name: as_array(a, f"init.{name}").astype(dtype)
                          for name, a in _table(table.pop("init"), "init").items()}
    if "step_size" in table:
        fields["step_size"] = _schedule(table.pop("step_size"), "step_size")
    if "save" in table:
        save = _table(table.pop("save"), "save")
        if "floor" in save:
            save["floor"] = _make(Floor, save["floor"], "save.floor")
        fields["save"] = _make(SaveAt, save, "save")
    listed = table.pop("metrics", [])
    if not isinstance(listed, list):
        raise SpecError(f"metrics: {listed!r} given, expected a list of tables, [[metrics]]")
    fields["metrics"] = tuple(_record(metrics, m, "metrics") for m in listed)
    if "stop" in table:
        listed = table.pop("stop")
        fields["stop"] = tuple(map(_stop, listed if isinstance(listed, list) else [listed]))
    return _make(Run, fields | table, "config")


def _schedule(value, field):
    """A number or list as it is, a table as a StepSize."""
    if not isinstance(value, dict):
        return value
    for name, kind in (("warmup", Warmup), ("cosine", Cosine)):
        if name in value:
            value = value | {name: _make(kind, value[name], f"{field}.{name}")}
    return _make(StepSize, value, field)


def _rule(table):
    """A rule's table with its noises and schedules made."""
    made = {name: _schedule(table[name], f"rule.{name}") for name in ("sgd_step", "loss_level") if name in table}
    for name, kind in (("label_noise", LabelNoise), ("gradient_noise", GradientNoise)):
        noise = table.get(name)
        if isinstance(noise, dict) and "sigma" in noise:
            made[name] = _make(kind, noise | {"sigma": _schedule(noise["sigma"], f"rule.{name}.sigma")}, f"rule.{name}")
        elif noise is not None:
            made[name] = _schedule(noise, f"rule.{name}")
    near = table.get("localisation")
    if isinstance(near, dict) and "gamma" in near:  # others are numbers of parameters
        made["localisation"] = _make(rules.Localisation, near, "rule.localisation")
    return table | made


def _stop(table):
    """A Stop; its metric is a name, or a table as in `metrics`."""
    table = _table(table, "stop")
    if isinstance(table.get("metric"), dict):
        table = table | {"metric": _record(metrics, table["metric"], "stop.metric")}
    return _record(stops, table, "stop")


def _record(shelf, table, field):
    table = dict(table) if isinstance(table, dict) else {"type": table}
    name = table.pop("type", None)
    legal = {name: kind for name, kind in codec.records_on(shelf).items() if codec.kept_whole(kind)}
    return _named(legal, table | {"type": name}, field)


def _named(legal, table, field):
    """The record that a table, or its type alone, describes, of the classes {name: class}."""
    table = dict(table) if isinstance(table, dict) else {"type": table}
    name = table.pop("type", None)
    if not isinstance(name, str) or name not in legal:
        raise SpecError(f"{field}.type: {name!r} given, expected one of {', '.join(legal)}" + near(name, legal))
    return _make(legal[name], table, field)


def _data(table, folder, dtype):
    if "file" not in table:
        if table.get("type") in ("Fresh", "Population"):
            if "teacher" in table:
                table = table | {"teacher": _record(models, table["teacher"], "data.teacher")}
            return _record(data, table, "data").astype(dtype)
        if table.get("type") not in ("sparse_regression", "teacher_student"):
            raise SpecError(f"data.type: {table.get('type')!r} given, expected sparse_regression, teacher_student, "
                            "Fresh or Population, or file = instead")
        return _make(getattr(data, table.pop("type")), table, "data").astype(dtype)
    if not isinstance(table["file"], str):
        raise SpecError(f"data.file: {table['file']!r} given, expected the name of an npz file")
    return _make(Dataset, storage.numbers(folder / table["file"], "data.file"), "data")


def _table(value, field):
    if not isinstance(value, dict):
        raise SpecError(f"{field}: {value!r} given, expected a table, [{field}]")
    return value


def _make(kind, fields, field, *first):
    """kind(*first, **fields)."""
    fields = _table(fields, field)
    legal = list(signature(kind).parameters)[len(first):]
    unknown = [name for name in fields if name not in legal]
    if unknown:
        what = "a run" if kind is Run else kind.__name__
        raise UnknownField(f"{field}: {what} has no {unknown[0]!r}, it has {', '.join(legal)}"
                           + near(unknown[0], legal), unknown[0])
    try:
        return kind(*first, **fields)
    except FastsgdError:
        raise
    except TypeError as error:
        raise SpecError(f"{field}: {str(error).replace('__init__() ', '').replace(f'{kind.__name__}.', '')}") from None
    except Exception as error:  # a text may hold values that no record thought of
        raise SpecError(f"{field}: cannot be made of these values ({type(error).__name__}: {error})") from None
