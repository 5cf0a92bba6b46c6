"""Owns Adam and AdamW."""

from typing import Any

from ..spec.check import BELOW_ONE, Array, per_network
from ..spec.record import record
from .base import Batched


@record(kw_only=True)
class Adam(Batched):
    """Adam: m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2,  w <- w - eta_t m^ / (sqrt(v^) + epsilon).

    m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t) after t updates

    beta1, beta2 [] or [N]: in [0, 1); epsilon [] or [N]: > 0
    Source: Kingma and Ba 2015, arXiv 1412.6980; decoupled: Loshchilov and Hutter 2019, arXiv 1711.05101
    """

    beta1: float | Array = 0.9
    beta2: float | Array = 0.999
    epsilon: float | Array = 1e-8
    hypers, carries = ("beta1", "beta2", "epsilon"), ("first_moment", "second_moment")
    flags = ("adam",)

    def __post_init__(self):
        super().__post_init__()
        for name in ("beta1", "beta2"):
            object.__setattr__(self, name, per_network(getattr(self, name), f"rule.{name}", 0, high=BELOW_ONE))
        object.__setattr__(self, "epsilon", per_network(self.epsilon, "rule.epsilon", 0, low_open=True))

    def numbers(self) -> dict:
        return super().numbers() | {"beta1": self.beta1, "beta2": self.beta2, "epsilon": self.epsilon}

    def buffers(self) -> tuple:
        return ("first_moment", "second_moment", *super().buffers())

    def traits(self) -> dict:
        return super().traits() | {"adam": True}

    def move(self, g: Any, w: Any, carried: dict, number: dict, t: int) -> Any:
        b1, b2 = number["beta1"], number["beta2"]
        carried["first_moment"] = first = b1 * carried["first_moment"] + (1 - b1) * g
        carried["second_moment"] = second = b2 * carried["second_moment"] + (1 - b2) * g**2
        return first / (1 - b1**(t + 1)) / ((second / (1 - b2**(t + 1))).sqrt() + number["epsilon"])
