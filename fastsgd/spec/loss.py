"""Owns the losses: how a residual becomes a number to minimise."""

from dataclasses import dataclass

from ..errors import SpecError


@dataclass(frozen=True)
class Squared:
    """Squared loss of one sample, factor * (h(x) - y)**2; a data set's loss is the mean over samples.

    factor: c > 0. Two conventions live in the literature: 1/2 (`Squared.half()`, arXiv 2210.05337's text and diagonal
        nets), so that a step is -eta * r * grad h, and 1 (`Squared.full()`, its ReLU code), so that a step is
        -2 * eta * r * grad h. Step sizes are not comparable between them.
    """

    factor: float = 0.5

    def __post_init__(self):
        if not (isinstance(self.factor, (int, float)) and 0 < self.factor < float("inf")):
            raise SpecError(f"loss.factor: {self.factor!r} given, expected a finite number > 0")

    @classmethod
    def half(cls):
        """(1/2) r**2."""
        return cls(0.5)

    @classmethod
    def full(cls):
        """r**2."""
        return cls(1.0)

    def value(self, f, y):
        """Loss of predictions f at labels y, elementwise."""
        return self.factor * (f - y) ** 2
