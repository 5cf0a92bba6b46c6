"""Owns rules that divide a gradient by the size it has had: RMSProp and Adagrad."""

from typing import Any

from ..spec.check import BELOW_ONE, Array, per_network
from ..spec.record import record
from .base import Batched


@record(kw_only=True)
class _BySize(Batched):
    """A rule that divides by sqrt(v) + epsilon, v the size that g^2 has had."""

    epsilon: float | Array = 1e-8
    hypers, carries = ("epsilon",), ("second_moment",)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "epsilon", per_network(self.epsilon, "rule.epsilon", 0, low_open=True))

    def numbers(self) -> dict:
        return super().numbers() | {"epsilon": self.epsilon}

    def buffers(self) -> tuple:
        return ("second_moment", *super().buffers())

    def traits(self) -> dict:
        return super().traits() | dict.fromkeys(self.flags, True)

    def move(self, g: Any, w: Any, carried: dict, number: dict, t: int) -> Any:
        carried["second_moment"] = v = self._size(carried["second_moment"], g, number)
        return g / (v.sqrt() + number["epsilon"])

    def _size(self, v, g, number):
        """v after a step with gradient g."""
        raise NotImplementedError


@record(kw_only=True)
class Adagrad(_BySize):
    """Adagrad: v <- v + g^2,  w <- w - eta_t g / (sqrt(v) + epsilon), v = 0 at the start.

    epsilon [] or [N]: > 0, by default that of `torch.optim.Adagrad`
    Source: Duchi, Hazan and Singer 2011, JMLR 12
    """

    epsilon: float | Array = 1e-10
    flags = ("adagrad",)

    def _size(self, v, g, number):
        return v + g**2


@record(kw_only=True)
class RMSProp(_BySize):
    """RMSProp: v <- beta2 v + (1 - beta2) g^2,  w <- w - eta_t g / (sqrt(v) + epsilon), v = 0 at the start.

    beta2 [] or [N]: in [0, 1), "alpha" of `torch.optim.RMSprop`; epsilon [] or [N]: > 0
    Source: Tieleman and Hinton 2012, lecture 6.5 of Neural networks for machine learning
    """

    beta2: float | Array = 0.99
    hypers, flags = ("beta2",), ("rmsprop",)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "beta2", per_network(self.beta2, "rule.beta2", 0, high=BELOW_ONE))

    def numbers(self) -> dict:
        return super().numbers() | {"beta2": self.beta2}

    def _size(self, v, g, number):
        return number["beta2"] * v + (1 - number["beta2"]) * g**2
