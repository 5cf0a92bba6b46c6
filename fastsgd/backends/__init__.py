"""The shelf of backends, best first."""

from ..errors import SpecError
from .cpu import CPU
from .cuda import CUDA
from .reference import Reference
from .triton import Triton

ALL = (CUDA(), Triton(), CPU(), Reference())


def by_name(name):
    """The backend called `name`."""
    for backend in ALL:
        if backend.name == name:
            return backend
    raise SpecError(f"backend: {name!r} given, expected one of {tuple(b.name for b in ALL)}")
