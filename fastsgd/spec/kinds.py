"""Owns which class of fastsgd a record computes as, so that kernels serve subclasses that compute the same."""

from functools import cache
from types import MemberDescriptorType

FREE = frozenset({"scales", "start", "lengths",  # the plan calls these, before any kernel sees the run
                  "predict"})  # and this the user, after

_KNOWN = set()  # classes of fastsgd met before


def kind_of(record):
    """The class of fastsgd that `record` computes as, None if its mathematics are its own.

    That is its class, or the nearest parent in fastsgd of which nothing is overridden but FREE. A subclass may have
    other defaults, fields and methods of its own, and start from other weights; one with a `forward`, `value`,
    `compute`, ... of its own is no longer what kernels compute.
    """
    parent = type(record)
    if parent in _KNOWN and _names(parent)[0].isdisjoint(getattr(record, "__dict__", ())):
        return parent
    own, parents = [], iter(parent.__mro__)
    for parent in parents:
        if _ours(parent):
            break
        own.append(parent)
    if parent is object:
        return None
    own += [mixin for mixin in parents if not _ours(mixin) and mixin not in parent.__mro__]
    methods, fields = _names(parent)
    _KNOWN.add(parent)
    changed = any(name in methods or (name in fields and _computes(value))
                  for made in own for name, value in vars(made).items())
    return None if changed or not methods.isdisjoint(getattr(record, "__dict__", ())) else parent


def unknown(**parts):
    """A sentence about the first of `parts` {what: record} that no kernel can know, None if they know all."""
    for what, record in parts.items():
        if kind_of(record) is None:
            return f"it has no kernel for the {what} {type(record).__name__}, which computes something of its own"
    return None


def _ours(parent):
    return parent is object or parent.__module__.split(".")[0] == "fastsgd"


def _computes(value):
    """Whether a class attribute with the name of a field hides the record's own value."""
    return hasattr(value, "__get__") and not isinstance(value, MemberDescriptorType)


@cache
def _names(parent):
    """(names that define what a class of fastsgd computes, names of its fields)."""
    names = {name for base in parent.__mro__ if base is not object for name in vars(base)}
    fields = frozenset(getattr(parent, "__dataclass_fields__", ()))
    python = {name for name in names if name.startswith(("__", "_abc_"))}  # what dataclasses and ABCs add
    return frozenset(names - FREE - fields - python | {"__getattribute__"}), fields
