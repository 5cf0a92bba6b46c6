"""The shelf of backends, best first; a backend's file is imported where it may run something."""

from functools import cache

from .. import portable
from ..cuda import card
from ..errors import SpecError
from ..shelf import on_demand

KINDS = {"cuda": "cuda", "triton": "cuda", "cpu": "cpu", "reference": "cpu"}  # devices of each, as Run.device says
_CLASSES = {"cuda": "CUDA", "triton": "Triton", "cpu": "CPU", "reference": "Reference"}  # each in a file of that name
_MISSING = {"cuda": card, "triton": portable}  # modules that know what this machine lacks, and need no backend for that

__getattr__ = on_demand(__name__, {name: (kind,) for name, kind in _CLASSES.items()})


@cache
def by_name(name):
    """The backend called `name`."""
    if name not in _CLASSES:
        raise SpecError(f"backend: {name!r} given, expected one of {tuple(_CLASSES)}")
    return __getattr__(_CLASSES[name])()


def why_not(name, work):
    """None, or a sentence saying why a backend cannot do this run here."""
    return (name in _MISSING and _MISSING[name].why_none()) or by_name(name).supports(work)
