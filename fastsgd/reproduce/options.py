"""Owns the choices that every reproduction takes: how many sample orders, how many saved steps, which draws."""

from dataclasses import dataclass

from ..report.look import STYLES
from ..spec.check import one_of, whole

QUICK = {"replicas": 16, "saved": 60, "quick": True}


@dataclass(frozen=True)
class Options:
    """How much a reproduction computes.

    replicas: sample orders of each setting, >= 1
    saved: saved steps of each run, equally spaced, >= 60: claims look at stretches of a fiftieth of it
    seed: key of all draws, 0 <= seed < 2**64
    progress: as in `fs.train`; True stands for a bar with the run's name
    quick: whether neighbours and deep rows take their short form
    data: images of the deep rows, a path; by default those of an installed package
    style: of figures, "page" or "paper"; see report/look.py
    seeds: starts of each setting of the deep rows, >= 1; by default 4, and 3 if quick
    """

    replicas: int = 256
    saved: int = 250
    seed: int = 0
    progress: object = None
    quick: bool = False
    data: object = None
    seeds: int | None = None
    style: str = "page"

    def __post_init__(self) -> None:
        one_of(self.style, "style", STYLES)
        if self.seeds is not None:
            object.__setattr__(self, "seeds", whole(self.seeds, "seeds", 1, 2**16))
        for name, low, high in (("replicas", 1, 2**20), ("saved", 60, 2**16), ("seed", 0, 2**64 - 1)):
            object.__setattr__(self, name, whole(getattr(self, name), name, low, high))

    def named(self, name: str) -> object:
        """What `progress` of a run by this name is."""
        return name if self.progress is True else self.progress
