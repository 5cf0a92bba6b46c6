"""Owns what is kept along the way: at which steps metrics are taken, and whether parameters are kept too."""

import numpy as np

from ..errors import SpecError
from .check import Array, as_array, flag, frozen, one_of, real, what_is, whole
from .record import Record, record

MOST = 2**24  # saved steps that a rule may ask for


@record(eq=True)
class Floor:
    """Projection to the valley floor: metrics are taken after so many full-batch steps of plain GD on a copy.

    The training itself goes on from where it was.

    steps: >= 1
    step_size: > 0
    """

    steps: int
    step_size: float

    def __post_init__(self):
        object.__setattr__(self, "steps", whole(self.steps, "save.floor.steps", 1, 2**34))
        object.__setattr__(self, "step_size", real(self.step_size, "save.floor.step_size", 0, low_open=True))


@record()
class SaveAt(Record):
    """The steps at which metrics are evaluated. Step s means: on the parameters after s updates, 0 <= s <= T.

    steps: explicit step numbers, in any order, duplicates count once
    linear: that many steps, equally spaced over 0..T with both ends
    log: that many steps, equally spaced in the logarithm over 1..T, and step 0
    first: also every step 0..first-1
    linear, log and first are at most 2**24
    params: keep the parameters [N, S, ...] at these steps as well
    of: "weights", or "average" to measure (and keep) the rule's weight average instead
    floor: a Floor, to measure at the bottom of the valley that these parameters lie in; or None
    At least one of steps, linear, log must be given. Raises SpecError on illegal numbers.
    """

    steps: Array | None = None
    linear: int | None = None
    log: int | None = None
    first: int = 0
    params: bool = False
    of: str = "weights"
    floor: Floor | None = None

    def __post_init__(self):
        if self.steps is None and self.linear is None and self.log is None:
            raise SpecError("save: nothing given, say SaveAt(steps=...), SaveAt(linear=...) or SaveAt(log=...)")
        if self.steps is not None:
            steps = as_array(self.steps, "save.steps", ndim=(0, 1), kinds="iu")
            if steps.size == 0 or steps.min() < 0:
                raise SpecError(f"save.steps: {'empty' if steps.size == 0 else steps.min()} given, expected steps >= 0")
            if steps.max() > 2**34:
                raise SpecError(f"save.steps: {steps.max()} given, expected steps <= {2**34}")
            object.__setattr__(self, "steps", frozen(_each_once(steps.reshape(-1))))
        for name, low in (("linear", 1), ("log", 1), ("first", 0)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole(getattr(self, name), f"save.{name}", low, MOST))
        flag(self.params, "save.params")
        one_of(self.of, "save.of", ("weights", "average"))
        if not (self.floor is None or isinstance(self.floor, Floor)):
            raise SpecError(f"save.floor: {what_is(self.floor)} given, expected fs.Floor(steps, step_size)")

    def resolve(self, T: int) -> np.ndarray:
        """The saved steps [S], sorted, each once. Raises SpecError if a step lies beyond T."""
        kept = [np.arange(min(self.first, T + 1))]
        if self.steps is not None:
            if self.steps[-1] > T:
                raise SpecError(f"save.steps: step {self.steps[-1]} lies beyond the run's T={T} steps")
            kept.append(self.steps)
        if self.linear is not None:
            kept.append(np.rint(np.linspace(0, T, self.linear)) if self.linear > 1 else [T])
        if self.log is not None:
            kept.append(np.concatenate([[0], np.rint(np.geomspace(1, max(T, 1), self.log))]))
        return _each_once(np.concatenate(kept))


def _each_once(steps):
    """Steps in order, each once; `np.unique` imports masked arrays, which takes as long as a small run."""
    steps = np.sort(steps.astype(np.int64))
    new = np.ones(len(steps), bool)
    np.greater(steps[1:], steps[:-1], out=new[1:])
    return steps[new]
