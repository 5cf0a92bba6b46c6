"""Owns full-batch gradient descent."""

from dataclasses import dataclass

from .base import Rule


@dataclass(frozen=True, kw_only=True)
class GD(Rule):
    """Gradient descent on the mean loss of all n samples: w <- w - eta_t (1/n) sum_i grad loss(h_w(x_i), y_i)."""

    def batch(self, n):
        return n
