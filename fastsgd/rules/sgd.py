"""Owns stochastic gradient descent."""

from ..spec.check import Array, whole_or_each
from ..spec.record import record
from .base import Descent


@record(kw_only=True)
class SGD(Descent):
    """SGD on the mean loss of `batch_size` samples a step: w <- w - eta_t (1/B) sum_b grad loss(h_w(x_b), y_b).

    batch_size [] or [N]: 1 <= B < 2**32, samples drawn in the run's order. With [N], networks of a size are one run,
        whose results are put together
    """

    batch_size: int | Array = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "batch_size", whole_or_each(self.batch_size, "rule.batch_size", 1, 2**32 - 1))

    def batch(self, n: int) -> int:
        return self._one_size()
