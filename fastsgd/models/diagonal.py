"""Owns diagonal linear networks, h(x) = <u * v, x>."""

from typing import Any

from ..spec.check import Array, per_network, whole
from ..spec.record import record
from .base import Model
from .form import Form
from .product import Product


@record()
class DiagonalLinear(Model):
    """Diagonal linear network: h(x) = sum_j u_j v_j x_j,  dh/du = v * x,  dh/dv = u * x.

    d: number of inputs, >= 1; P = 2 d parameters u [d], v [d]
    u0, v0 [] or [N]: every coordinate's start; the default 0.1 and 0 is that of arXiv 2210.05337
    """

    d: int
    u0: float | Array = 0.1
    v0: float | Array = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "d", whole(self.d, "model.d", 1))
        object.__setattr__(self, "u0", per_network(self.u0, "model.u0"))
        object.__setattr__(self, "v0", per_network(self.v0, "model.v0"))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"u": (self.d,), "v": (self.d,)}

    def scales(self) -> dict:
        return {"u": (self.u0, 0.0), "v": (self.v0, 0.0)}

    def form(self) -> Form | None:
        return Product(self.d, 2, fused=("diagonal", self.d, 0, 0, 0))

    def forward(self, params: dict, X: Any) -> Any:
        return X @ (params["u"] * params["v"])
