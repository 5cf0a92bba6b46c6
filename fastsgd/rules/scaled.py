"""Owns rules that divide a gradient by the size it has had: RMSProp and Adagrad."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..spec.check import BELOW_ONE, per_network
from .base import Batched


@dataclass(frozen=True, kw_only=True, eq=False)
class Adagrad(Batched):
    """Adagrad: v <- v + g^2,  w <- w - eta_t g / (sqrt(v) + epsilon), v = 0 at the start.

    epsilon [] or [N]: > 0, by default that of `torch.optim.Adagrad`
    Source: Duchi, Hazan and Singer 2011, JMLR 12
    """

    epsilon: float | np.ndarray = 1e-10
    hypers, carries, flags = ("epsilon",), ("second_moment",), ("adagrad",)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "epsilon", per_network(self.epsilon, "rule.epsilon", 0, low_open=True))

    def numbers(self) -> dict:
        return super().numbers() | {"epsilon": self.epsilon}

    def buffers(self) -> tuple:
        return ("second_moment", *super().buffers())

    def traits(self) -> dict:
        return super().traits() | {"adagrad": True}

    def move(self, g: Any, w: Any, carried: dict, number: dict, t: int) -> Any:
        carried["second_moment"] = v = carried["second_moment"] + g**2
        return g / (v.sqrt() + number["epsilon"])


@dataclass(frozen=True, kw_only=True, eq=False)
class RMSProp(Batched):
    """RMSProp: v <- beta2 v + (1 - beta2) g^2,  w <- w - eta_t g / (sqrt(v) + epsilon), v = 0 at the start.

    beta2 [] or [N]: in [0, 1), "alpha" of `torch.optim.RMSprop`; epsilon [] or [N]: > 0
    Source: Tieleman and Hinton 2012, lecture 6.5 of Neural networks for machine learning
    """

    beta2: float | np.ndarray = 0.99
    epsilon: float | np.ndarray = 1e-8
    hypers, carries, flags = ("beta2", "epsilon"), ("second_moment",), ("rmsprop",)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "beta2", per_network(self.beta2, "rule.beta2", 0, high=BELOW_ONE))
        object.__setattr__(self, "epsilon", per_network(self.epsilon, "rule.epsilon", 0, low_open=True))

    def numbers(self) -> dict:
        return super().numbers() | {"beta2": self.beta2, "epsilon": self.epsilon}

    def buffers(self) -> tuple:
        return ("second_moment", *super().buffers())

    def traits(self) -> dict:
        return super().traits() | {"rmsprop": True}

    def move(self, g: Any, w: Any, carried: dict, number: dict, t: int) -> Any:
        carried["second_moment"] = v = number["beta2"] * carried["second_moment"] + (1 - number["beta2"]) * g**2
        return g / (v.sqrt() + number["epsilon"])
