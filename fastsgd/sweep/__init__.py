"""Sweeps: a run over any of its fields, on many machines, in a store that keeps what is done."""

from . import reduce
from .engines import run
from .request import Keep, Random, Sweep
from .store import Store, create
from .store import open_store as open
from .work import work

KINDS = (reduce.Moments, reduce.Quantiles, reduce.LostShare, reduce.Survival, reduce.FirstPassage,
         reduce.Histogram)

__all__ = ["Keep", "Random", "Store", "Sweep", "create", "open", "reduce", "run", "work"]


def __dir__() -> list[str]:
    return __all__
