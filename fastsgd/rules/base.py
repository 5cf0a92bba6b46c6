"""Owns what every update rule shares: when a run counts as lost."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from ..spec.check import real


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """An update rule.

    lost_above: a run is lost at the first step on which the loss of one of its samples is not finite in the run's
        dtype, or |h(x) - y| exceeds this number > 0; it is frozen at the parameters it had before that step
    """

    lost_above: float = float("inf")

    def __post_init__(self):
        object.__setattr__(self, "lost_above", real(self.lost_above, "rule.lost_above", 0, low_open=True))

    def bound(self, loss, dtype):
        """The largest |h(x) - y| of a run that is not lost: factor * r**2 must stay finite."""
        return min(self.lost_above, float(np.sqrt(np.finfo(dtype).max / max(loss.factor, 1.0))))

    @abstractmethod
    def batch(self, n):
        """Number of samples in one step, of n."""
