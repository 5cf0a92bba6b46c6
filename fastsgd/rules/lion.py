"""Owns Lion."""

from typing import Any

from ..spec.check import BELOW_ONE, Array, per_network
from ..spec.record import record
from .base import Batched


@record(kw_only=True)
class Lion(Batched):
    """Lion: w <- (1 - eta_t weight_decay) w - eta_t sign(beta1 m + (1 - beta1) g),  m <- beta2 m + (1 - beta2) g.

    beta1, beta2 [] or [N]: in [0, 1); sign(0) = 0
    decoupled: whether weight decay is that of the equation; otherwise it is in g
    Source: Chen et al. 2023, arXiv 2302.06675
    """

    beta1: float | Array = 0.9
    beta2: float | Array = 0.99
    decoupled: bool = True
    hypers, carries, flags = ("beta1", "beta2"), ("first_moment",), ("lion",)

    def __post_init__(self):
        super().__post_init__()
        for name in ("beta1", "beta2"):
            object.__setattr__(self, name, per_network(getattr(self, name), f"rule.{name}", 0, high=BELOW_ONE))

    def numbers(self) -> dict:
        return super().numbers() | {"beta1": self.beta1, "beta2": self.beta2}

    def buffers(self) -> tuple:
        return ("first_moment", *super().buffers())

    def traits(self) -> dict:
        return super().traits() | {"lion": True}

    def move(self, g: Any, w: Any, carried: dict, number: dict, t: int) -> Any:
        m = carried["first_moment"]
        carried["first_moment"] = number["beta2"] * m + (1 - number["beta2"]) * g
        return (number["beta1"] * m + (1 - number["beta1"]) * g).sign()
