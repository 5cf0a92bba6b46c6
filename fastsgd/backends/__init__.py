"""The shelf of backends, best first."""

from ..errors import SpecError
from .cpu import CPU
from .reference import Reference
from .triton import Triton

ALL = (Triton(), CPU(), Reference())


def by_name(name):
    """The backend called `name`."""
    for backend in ALL:
        if backend.name == name:
            return backend
    raise SpecError(f"backend: {name!r} given, expected one of {tuple(b.name for b in ALL)}")
