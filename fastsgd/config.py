"""Owns configuration files: a TOML table becomes a Run."""

import sys
import zipfile
from pathlib import Path

import numpy as np

from . import data, losses, metrics, models, orders, rules
from .errors import FastsgdError, SpecError
from .spec.check import as_array, one_of
from .spec.problem import Dataset
from .spec.run import DTYPES, Run
from .spec.save import SaveAt
from .spec.schedule import StepSize, Warmup

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHELVES = {"model": models, "rule": rules, "order": orders, "loss": losses}


def read(path):
    """The Run that a TOML file describes.

    Tables [model], [data], [rule], [order], [loss] name a record by `type` and give its fields; [step_size] and [save]
    give those of fs.StepSize (with a table `warmup`) and fs.SaveAt; `metrics` is a list of tables with `type`; Run's
    other fields stand at the top. [data] has type = "sparse_regression", "teacher_student", or file = "data.npz" with
    arrays X, y, X_test, y_test. Raises SpecError naming the field.
    """
    try:
        table = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise SpecError(f"config: cannot read {str(path)!r} ({error.strerror})") from None
    except ValueError as error:
        raise SpecError(f"config: {str(path)!r} is no TOML ({error})") from None
    fields = {name: _record(shelf, table.pop(name), name) for name, shelf in SHELVES.items() if name in table}
    dtype = one_of(table.get("dtype", "float32"), "dtype", DTYPES)
    if "data" in table:
        fields["data"] = _data(_table(table.pop("data"), "data"), Path(path).parent, dtype)
    if "init" in table:  # numbers in a text have no dtype of their own
        fields["init"] = {name: as_array(a, f"init['{name}']").astype(dtype)
                          for name, a in _table(table.pop("init"), "init").items()}
    step = table.pop("step_size", None)
    if isinstance(step, dict):
        if "warmup" in step:
            step["warmup"] = _make(Warmup, step["warmup"], "step_size.warmup")
        step = _make(StepSize, step, "step_size")
    if step is not None:
        fields["step_size"] = step
    if "save" in table:
        fields["save"] = _make(SaveAt, table.pop("save"), "save")
    listed = table.pop("metrics", [])
    if not isinstance(listed, list):
        raise SpecError(f"metrics: {listed!r} given, expected a list of tables, [[metrics]]")
    fields["metrics"] = tuple(_record(metrics, m, "metrics") for m in listed)
    return _make(Run, fields | table, "config")


def _record(shelf, table, field):
    table = dict(table) if isinstance(table, dict) else {"type": table}
    name = table.pop("type", None)
    if name not in shelf.__all__:
        raise SpecError(f"{field}.type: {name!r} given, expected one of {', '.join(shelf.__all__)}")
    return _make(getattr(shelf, name), table, field)


def _data(table, folder, dtype):
    if "file" not in table:
        if table.get("type") not in ("sparse_regression", "teacher_student"):
            raise SpecError(f"data.type: {table.get('type')!r} given, expected sparse_regression or teacher_student, "
                            "or file = instead")
        return _record(data, table, "data").astype(dtype)
    try:
        with np.load(folder / table["file"], allow_pickle=False) as arrays:
            arrays = dict(arrays)
    except (OSError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SpecError(f"data.file: cannot read {table['file']!r} ({error})") from None
    return _make(Dataset, arrays, "data")


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
