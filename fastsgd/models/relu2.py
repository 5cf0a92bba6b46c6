"""Owns two-layer ReLU networks, h(x) = sum_j a_j relu(w_j . x + b_j) + c."""

from typing import Any

from ..spec.check import Array, flag, per_network, whole
from ..spec.operators import choose
from ..spec.record import record
from .base import Model
from .dense import Dense
from .form import Form


@record()
class ReLU2(Model):
    """Two-layer ReLU network: h(x) = W2 relu(W1 x + b1) + b2, with relu'(0) = 0.

    d: number of inputs, >= 1
    width: number h of hidden units, >= 1
    hidden_bias, output_bias: whether b1 [h] and b2 [1] exist; parameters W1 [h, d], b1, W2 [1, h], b2
    W1_scale, W2_scale, b1_scale, b2_scale [] or [N]: deviations of the Gaussian start, >= 0; by default 1/sqrt(d),
        1/sqrt(h), 0 and 0
    """

    d: int
    width: int
    hidden_bias: bool = True
    output_bias: bool = True
    W1_scale: float | Array | None = None
    W2_scale: float | Array | None = None
    b1_scale: float | Array = 0.0
    b2_scale: float | Array = 0.0

    def __post_init__(self):
        for name in ("d", "width"):
            object.__setattr__(self, name, whole(getattr(self, name), f"model.{name}", 1))
        for name in ("hidden_bias", "output_bias"):
            object.__setattr__(self, name, flag(getattr(self, name), f"model.{name}"))
        default = {"W1_scale": self.d**-0.5, "W2_scale": self.width**-0.5}
        for name in ("W1_scale", "W2_scale", "b1_scale", "b2_scale"):
            value = getattr(self, name)
            value = default.get(name) if value is None else value
            object.__setattr__(self, name, per_network(value, f"model.{name}", 0))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {"W1": (self.width, self.d), "b1": (self.width,), "W2": (1, self.width), "b2": (1,)}
        absent = {"b1": not self.hidden_bias, "b2": not self.output_bias}
        return {name: shape for name, shape in shapes.items() if not absent.get(name)}

    def scales(self) -> dict:
        return {name: (0.0, getattr(self, f"{name}_scale")) for name in self.shapes()}

    def form(self) -> Form | None:
        return Dense((self.d, self.width, 1), (self.hidden_bias, self.output_bias), (1.0, 1.0), ((True, True),) * 2,
                     fused=("relu2", self.d, self.width, int(self.hidden_bias), int(self.output_bias)))

    def features(self, params: dict, X: Any) -> dict | None:
        z = X @ params["W1"].swapaxes(-1, -2)
        if self.hidden_bias:
            z = z + params["b1"][..., None, :]
        return {"hidden": choose(z > 0, z, 0)}

    def forward(self, params: dict, X: Any) -> Any:
        f = (self.features(params, X)["hidden"] @ params["W2"].swapaxes(-1, -2))[..., 0]
        return f + params["b2"] if self.output_bias else f
