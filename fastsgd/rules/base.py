"""Owns what every update rule shares: when a run counts as lost."""

from dataclasses import dataclass

import numpy as np

from ..errors import SpecError


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An update rule.

    lost_above: a run is lost at the first step on which the loss of one of its samples is not finite in the run's
        dtype, or that sample's |h(x) - y| exceeds this number > 0; it is frozen at the parameters it had before that step
    """

    lost_above: float = float("inf")

    def __post_init__(self):
        if not (isinstance(self.lost_above, (int, float)) and self.lost_above > 0):
            raise SpecError(f"rule.lost_above: {self.lost_above!r} given, expected a number > 0, inf for no bound")

    def bound(self, loss, dtype):
        """The largest |h(x) - y| of a run that is not lost: factor * r**2 must stay finite."""
        return min(self.lost_above, float(np.sqrt(np.finfo(dtype).max / max(loss.factor, 1.0))))

    def batch(self, n):
        """Number of samples in one step, of n."""
        raise NotImplementedError
