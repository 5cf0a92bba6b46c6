"""Owns shelves: packages whose files are imported when somebody asks for a name of theirs."""

import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any


class Package(ModuleType):
    """A package of names that are imported on demand. An import of its file NAME does not hide what is called NAME.

    _homes: {name: the file that it comes from}
    """

    _homes: dict[str, str]

    def __setattr__(self, name: str, value: Any) -> None:
        itself = isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}"
        if not (itself and name in self._homes):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple:
        return import_module, (self.__name__,)  # pickled by name, as any module is


def on_demand(package: str, names: Mapping[str, Iterable[str]]) -> Callable[[str], Any]:
    """`__getattr__` of a package, which becomes a Package.

    names: {file there, or with a dot before it in the package above: the names that are asked for there}
    """
    homes, this = {name: file for file, known in names.items() for name in known}, sys.modules[package]
    vars(this).setdefault("_homes", {}).update(homes)
    this.__class__ = Package

    @cache
    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f".{homes[name]}", package), name)
        setattr(this, name, value)
        return value

    return find
