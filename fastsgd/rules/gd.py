"""Owns full-batch gradient descent."""

from dataclasses import dataclass

from .base import Descent


@dataclass(frozen=True, kw_only=True, eq=False)
class GD(Descent):
    """Gradient descent on the mean loss of all n samples: w <- w - eta_t (1/n) sum_i grad loss(h_w(x_i), y_i)."""

    full = True

    def batch(self, n: int) -> int:
        return n
