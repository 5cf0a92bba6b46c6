"""Owns the losses: how a residual becomes a number to minimise."""

import sys
from dataclasses import dataclass

from .check import real


@dataclass(frozen=True)
class Squared:
    """Squared loss of one sample, factor * (h(x) - y)**2; a data set's loss is the mean over samples.

    factor: c > 0. Two conventions live in the literature: 1/2 (`Squared.half()`, arXiv 2210.05337's text and diagonal
        nets), so that a step is -eta * r * grad h, and 1 (`Squared.full()`, its ReLU code), so that a step is
        -2 * eta * r * grad h. Step sizes are not comparable between them.
    """

    factor: float = 0.5

    def __post_init__(self):
        object.__setattr__(self, "factor", real(self.factor, "loss.factor", 0, low_open=True, high=sys.float_info.max))

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
