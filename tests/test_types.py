"""Types: every public function and method has them in full, and a program that uses them runs."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import typed

import fastsgd as fs

ROOT = Path(__file__).parents[1]
SHELVES = (fs, fs.data, fs.functional, fs.linalg, fs.losses, fs.lr_schedulers, fs.metrics, fs.models, fs.modules,
           fs.orders, fs.rules, fs.stops, fs.sweep, fs.reduce)


SPOKEN = ("__init__", "__getitem__", "__iter__", "__contains__", "__call__", "__len__")


def functions():
    """(name, function) of what is public, methods of base classes in fastsgd included."""
    for shelf in SHELVES:
        for name in getattr(shelf, "__all__", ()):
            thing = getattr(shelf, name)
            if inspect.isfunction(thing):
                yield name, thing
            for kind in thing.__mro__ if inspect.isclass(thing) else ():
                if kind.__module__.split(".")[0] == "fastsgd":
                    yield from methods(kind)


def methods(kind):
    for name, value in vars(kind).items():
        value = getattr(value, "__func__", getattr(value, "fget", getattr(value, "func", value)))
        if name == "__init__" and "__dataclass_fields__" in vars(kind):
            continue
        spoken = not name.startswith("_") or name in SPOKEN
        if spoken and inspect.isfunction(value) and not hasattr(value, "__wrapped__"):
            yield f"{kind.__module__}.{kind.__name__}.{name}", value


def test_public_functions_have_types():
    bare = set()
    for name, function in functions():
        signature = inspect.signature(function)
        missing = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name not in
                   ("self", "cls")]
        if signature.return_annotation is signature.empty:
            missing.append("return")
        if missing:
            bare.add(f"{name}: {', '.join(missing)}")
    assert not bare


def test_a_typed_program_runs(tmp_path):
    typed.main(tmp_path)


@pytest.mark.long
def test_types_hold_beside_those_of_torch(tmp_path):
    """`make lint` leaves torch's types unread (the overrides in pyproject.toml)."""
    settings = (ROOT / "pyproject.toml").read_text()
    strict = settings[settings.index("[tool.mypy]"):settings.index("# Left unread by `make lint`")]
    (tmp_path / "whole.toml").write_text(strict)
    done = subprocess.run([sys.executable, "-m", "mypy", "--config-file", tmp_path / "whole.toml", "--cache-dir",
                           tmp_path / "cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
