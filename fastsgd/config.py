"""Owns configuration files: a TOML table becomes a Run."""

import sys
from pathlib import Path

from . import data, losses, metrics, models, orders, rules, storage
from .errors import FastsgdError, SpecError
from .spec import codec
from .spec.check import as_array, one_of
from .spec.noise import GradientNoise, LabelNoise
from .spec.problem import Dataset
from .spec.run import DTYPES, Run
from .spec.save import Floor, SaveAt
from .spec.schedule import Cosine, StepSize, Warmup

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHELVES = {"model": models, "rule": rules, "order": orders, "loss": losses}


def read(path):
    """The Run that a TOML file describes.

    Tables [model], [data], [rule], [order], [loss] name a record by `type` and give its fields; [step_size] and [save]
    give those of fs.StepSize (with tables `warmup`, `cosine`) and fs.SaveAt (with a table `floor`); `metrics` is a list
    of tables with `type`; Run's other fields stand at the top. [data] has type = "sparse_regression", "teacher_student"
    or "Fresh" (with a table `teacher` like [model] and one of its `weights`), or file = "data.npz" with arrays X, y,
    X_test, y_test. Noises of [rule] are amplitudes or tables, and an amplitude may be a table like [step_size].
    Raises SpecError naming the field.
    """
    try:
        table = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise SpecError(f"config: cannot read {str(path)!r} ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise SpecError(f"config: {str(path)!r} is no TOML ({error})") from None
    if isinstance(table.get("rule"), dict):
        table["rule"] = _rule(table["rule"])
    fields = {name: _record(shelf, table.pop(name), name) for name, shelf in SHELVES.items() if name in table}
    dtype = one_of(table.get("dtype", "float32"), "dtype", DTYPES)
    if "data" in table:
        fields["data"] = _data(_table(table.pop("data"), "data"), Path(path).parent, dtype)
    if "init" in table:  # numbers in a text have no dtype of their own
        fields["init"] = {name: as_array(a, f"init['{name}']").astype(dtype)
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
    return table | made


def _record(shelf, table, field):
    table = dict(table) if isinstance(table, dict) else {"type": table}
    name = table.pop("type", None)
    legal = {name: kind for name, kind in codec.records_on(shelf).items() if codec.kept_whole(kind)}
    if not isinstance(name, str) or name not in legal:
        raise SpecError(f"{field}.type: {name!r} given, expected one of {', '.join(legal)}")
    return _make(legal[name], table, field)


def _data(table, folder, dtype):
    if "file" not in table:
        if table.get("type") == "Fresh":
            if "teacher" in table:
                table = table | {"teacher": _record(models, table["teacher"], "data.teacher")}
            return _record(data, table, "data").astype(dtype)
        if table.get("type") not in ("sparse_regression", "teacher_student"):
            raise SpecError(f"data.type: {table.get('type')!r} given, expected sparse_regression, teacher_student or "
                            "Fresh, or file = instead")
        return _make(getattr(data, table.pop("type")), table, "data").astype(dtype)
    if not isinstance(table["file"], str):
        raise SpecError(f"data.file: {table['file']!r} given, expected the name of an npz file")
    return _make(Dataset, storage.numbers(folder / table["file"], "data.file"), "data")


def _table(value, field):
    if not isinstance(value, dict):
        raise SpecError(f"{field}: {value!r} given, expected a table, [{field}]")
    return value


def _make(kind, fields, field):
    fields = _table(fields, field)
    try:
        return kind(**fields)
    except FastsgdError:
        raise
    except TypeError as error:
        raise SpecError(f"{field}: {str(error).replace('__init__() ', '').replace(f'{kind.__name__}.', '')}") from None
    except Exception as error:  # a text may hold values that no record thought of
        raise SpecError(f"{field}: cannot be made of these values ({type(error).__name__}: {error})") from None
