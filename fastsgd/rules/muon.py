"""Owns Muon."""

from typing import Any

import numpy as np

from ..spec.check import BELOW_ONE, Array, flag, per_network
from ..spec.record import record
from .base import Batched

COEFFICIENTS, ROUNDS, LEAST = (3.4445, -4.7750, 2.0315), 5, 1e-7  # csrc/core/rules/orthogonal.h


@record(kw_only=True)
class Muon(Batched):
    """Muon: w <- w - eta_t sqrt(max(1, rows / columns)) O(n) of each matrix of parameters, [rows, columns].

    m <- momentum m + (1 - momentum) g,  n = momentum m + (1 - momentum) g with nesterov, else m

    O brings the singular values of n near 1: five rounds X <- a X + (b A + c A A) X, A = X X^T, from n / ||n||, with
    (a, b, c) = (3.4445, -4.7750, 2.0315), in the run's dtype. Parameters that are no matrices (biases, vectors) move
    along n itself, w <- w - eta_t n; `step_scale` gives them a step size of their own.

    momentum [] or [N]: in [0, 1); nesterov, decoupled: on by default, as in `torch.optim.Muon`
    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon
    """

    momentum: float | Array = 0.95
    nesterov: bool = True
    decoupled: bool = True
    hypers, carries, flags = ("momentum",), ("momentum",), ("nesterov", "muon")

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "momentum", per_network(self.momentum, "rule.momentum", 0, high=BELOW_ONE))
        object.__setattr__(self, "nesterov", flag(self.nesterov, "rule.nesterov"))

    matrices = grouped = True

    def numbers(self) -> dict:
        return super().numbers() | {"momentum": self.momentum}

    def buffers(self) -> tuple:
        return ("momentum", *super().buffers())

    def traits(self) -> dict:
        return super().traits() | {"nesterov": self.nesterov, "muon": True}

    def move(self, g: Any, w: Any, carried: dict, number: dict, t: int) -> Any:
        mu = number["momentum"]
        carried["momentum"] = m = mu * carried["momentum"] + (1 - mu) * g
        return mu * m + (1 - mu) * g if self.nesterov else m

    def finish(self, move: Any, shapes: dict) -> Any:
        out, at = move.clone(), 0
        for shape in shapes.values():
            size = int(np.prod(shape))
            if len(shape) == 2:
                one = _orthogonal(move[:, at:at + size].reshape(-1, *shape))
                out[:, at:at + size] = max(1, shape[0] / shape[1]) ** 0.5 * one.reshape(len(move), size)
            at += size
        return out


def _orthogonal(G):
    """Matrices [N, rows, columns] after Newton and Schulz's iteration; torch."""
    a, b, c = COEFFICIENTS
    X = G.mT if G.shape[1] > G.shape[2] else G
    edge, down = (2.0**48, 2.0**-96) if X.dtype.itemsize == 4 else (2.0**384, 2.0**-768)
    large = (X.abs().amax(dim=(1, 2)) > edge)[:, None, None]  # whose squares may leave the dtype's range
    X = X.where(~large, down * X)
    length = X.flatten(1).norm(dim=1)[:, None, None]
    X = X / length.where(large, length.clamp(min=LEAST))
    for _ in range(ROUNDS):
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    return X.mT if G.shape[1] > G.shape[2] else X
