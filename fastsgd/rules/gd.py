"""Owns full-batch gradient descent."""

from ..spec.record import record
from .base import Descent


@record(kw_only=True)
class GD(Descent):
    """Gradient descent on the mean loss of all n samples: w <- w - eta_t (1/n) sum_i grad loss(h_w(x_i), y_i)."""

    full = True

    def batch(self, n: int) -> int:
        return n
