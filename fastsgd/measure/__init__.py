"""Metrics on every backend: a subject is a file with its kernels; a place is where a backend's metrics are measured."""

from importlib import import_module
from pkgutil import iter_modules

from .cards import Cards
from .host import Place, float64_params, on_host
from .tiles import Tiles

for subject in iter_modules(__path__):
    import_module(f"{__name__}.{subject.name}")  # where it registers its kernels
PLACES = {"cpu": on_host, "cuda": Cards, "triton": Tiles}


def place(backend, work, N):
    """The Place where metrics of N networks of a run are measured, by the name of the backend that trains them."""
    return PLACES.get(backend, Place)(work, N)


__all__ = ["Place", "float64_params", "place"]
