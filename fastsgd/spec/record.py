"""Owns how records print and describe themselves: in a line, arrays by dtype and shape."""

from math import isfinite
from typing import Any

import numpy as np

SHORT = 8  # entries of an array that a description gives in full


class Record:
    """What prints as its class and fields in one line: arrays by dtype and shape, fields that are None left out."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if "__repr__" not in vars(cls):
            cls.__repr__ = Record.__repr__  # before `dataclass` makes one that prints arrays in full

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for value in state.values():  # pickle makes arrays that may be written to; those of records may not
            for array in value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,):
                if isinstance(array, np.ndarray):
                    array.setflags(write=False)

    def __repr__(self) -> str:
        shown = (f"{name}={in_a_line(value)}" for name, value in _fields(self)
                 if value is not None and self.__dataclass_fields__[name].repr)
        return f"{type(self).__name__}({', '.join(shown)})"


def like(record: Any, **changes: Any) -> Any:
    """A copy of a frozen record with some fields changed, unchecked."""
    own = object.__new__(type(record))
    own.__dict__.update(vars(record), **changes)
    return own


def in_a_line(value):
    """A value as text: numbers as they are, larger arrays as "float64 [15, 2]"."""
    if isinstance(value, np.ndarray):
        return repr(value.item()) if value.ndim == 0 else f"{value.dtype} {list(value.shape)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {in_a_line(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        inside = ", ".join(map(in_a_line, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return " ".join(repr(value).split())


def described(value):
    """A value in what JSON has: records as {"type": name, field: ...}, arrays of more than SHORT entries in words."""
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= SHORT else in_a_line(value)
    if isinstance(value, dict):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [described(item) for item in value]
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {"type": type(value).__name__} | {name: described(item) for name, item in _fields(value)}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not isfinite(value):
        return str(value)  # JSON has no infinity
    return value if value is None or isinstance(value, (bool, int, float, str)) else in_a_line(value)


def _fields(record):
    return ((name, getattr(record, name, None)) for name in getattr(record, "__dataclass_fields__", ()))
