"""Metrics on every backend: a subject is a file with its kernels; a place is where a backend's metrics are measured."""

from ..shelf import on_demand
from .host import Place, float64_params

PLACES = {"cpu": "on_host", "cuda": "Cards", "triton": "Tiles"}  # of the backends that have kernels

__getattr__ = on_demand(__name__, {"cards": ("Cards",), "host": ("on_host",), "tiles": ("Tiles",)})


def place(backend, work, N):
    """The Place where metrics of N networks of a run are measured, by the name of the backend that trains them."""
    made = __getattr__(PLACES[backend]) if backend in PLACES else Place
    return made(work, N)


__all__ = ["Place", "float64_params", "place"]
