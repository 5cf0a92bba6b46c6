"""Owns what records are: frozen dataclasses that cost little to define; how they print and describe themselves."""

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from inspect import get_annotations
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform  # which no program needs
else:
    def dataclass_transform(**given):
        return lambda function: function

SHORT = 8  # entries of an array that a description gives in full
FIELDS = "__dataclass_fields__"
PUT = (FIELDS, "__dataclass_params__", "__match_args__", "__replace__")  # what `dataclass` gives a class
T = TypeVar("T", bound=type)


class _Made:
    """Stands in a signature for what a field's `default_factory` makes."""

    def __repr__(self):
        return "<factory>"


MADE = _Made()


@dataclass_transform(eq_default=False, frozen_default=True, field_specifiers=(field,))
def record(*, eq: bool = False, kw_only: bool = False) -> Callable[[T], T]:
    """`dataclass(frozen=True)` that compiles nothing before there is an instance, where that compiles up to five
    functions for a class: they are what importing this package took longest for.

    eq: whether instances with equal fields are equal, and have equal hashes; if not, each is equal to itself alone
    A subclass may be a record, or a frozen dataclass.
    """
    def of(cls):
        own, body = get_annotations(cls), {"__module__": cls.__module__, "__doc__": cls.__doc__}
        inherited = {one.name: one for base in reversed(cls.__mro__[1:]) if FIELDS in vars(base)
                     for one in fields(base)}
        body |= inherited | {name: vars(cls)[name] for name in own if name in vars(cls)}
        body["__annotations__"] = {name: one.type for name, one in inherited.items()} | own
        made = type(cls.__name__, (), body)  # of no base: `dataclass` refuses an unfrozen class of frozen ones
        dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(made)
        made.__dataclass_params__.frozen = True  # which frozen dataclasses ask of their parents
        for name in (*own, *PUT):
            if name in vars(made):
                setattr(cls, name, vars(made)[name])
            elif name in vars(cls):  # a field() without a default
                delattr(cls, name)
        for name, function in (_FROZEN | _EQUAL if eq else _FROZEN).items():
            setattr(cls, name, function)
        if "__init__" not in vars(cls):
            cls.__init__ = _Init(cls)
        if cls.__repr__ is object.__repr__:
            cls.__repr__ = _repr
        return cls

    return of


class _Init:
    """Stands for the `__init__` of a record until somebody asks for it."""

    def __init__(self, cls):
        self.cls = cls

    def __get__(self, instance, owner):
        self.cls.__init__ = made = _init(self.cls)
        return made.__get__(instance, owner)


def _init(cls):
    """`__init__` of a record; it writes to where attributes are."""
    given = [one for one in fields(cls) if one.init]
    factories = {one.name: one.default_factory for one in given if one.default_factory is not MISSING}
    default = {one.name: one.default for one in given if one.default is not MISSING} | dict.fromkeys(factories, MADE)
    first, named = ([one.name for one in given if one.kw_only is kind] for kind in (False, True))

    def words(names):
        return [f"{name}=None" if name in default else name for name in names]

    lines = [f"def __init__({', '.join(['self', *words(first), *['*'] * bool(named), *words(named)])}):"]
    lines += [f"if {name} is MADE: {name} = FACTORIES[{name!r}]()" for name in factories]
    lines.append(f"self.__dict__.update({', '.join(f'{one.name}={one.name}' for one in given)})")
    lines += ["self.__post_init__()"] * hasattr(cls, "__post_init__")
    scope = {"__name__": cls.__module__, "MADE": MADE, "FACTORIES": factories}
    exec("\n    ".join(lines), scope)
    made = scope["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__defaults__ = tuple(default[name] for name in first if name in default)
    made.__kwdefaults__ = {name: default[name] for name in named if name in default}
    made.__annotations__ = {one.name: one.type for one in given} | {"return": None}
    return made


def _set(self, name, value):
    _refuse(self, name, "assign to")
    object.__setattr__(self, name, value)


def _delete(self, name):
    _refuse(self, name, "delete")
    object.__delattr__(self, name)


def _refuse(self, name, what):
    """A subclass that is no dataclass may have attributes besides the fields."""
    if FIELDS in vars(type(self)) or name in self.__dataclass_fields__:
        raise FrozenInstanceError(f"cannot {what} field {name!r}")


def _equal(self, other):
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self):
    return hash(_values(self))


def _values(self):
    return tuple([getattr(self, one.name) for one in fields(self)])


def _repr(self):
    shown = (f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


_FROZEN = {"__setattr__": _set, "__delattr__": _delete}
_EQUAL = {"__eq__": _equal, "__hash__": _hash}


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
