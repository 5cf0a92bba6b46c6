"""Owns shelves: packages whose files are imported when somebody asks for a name of theirs."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def on_demand(package: str, names: dict[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """`__getattr__` of a package. names: {file: the names that are asked for there}."""
    homes = {name: file for file, known in names.items() for name in known}

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
