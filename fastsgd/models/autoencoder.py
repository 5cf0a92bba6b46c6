"""Owns tied autoencoders, h(x) = relu(W' W x + b)."""

from typing import Any

from ..spec.check import Array, flag, per_network, whole
from ..spec.operators import choose
from ..spec.record import record
from .base import Model
from .form import Form


@record()
class Autoencoder(Form):
    """relu(W^T W x + b), W [h, d]."""

    d: int
    h: int
    bias: bool
    name, struct = "autoencoder", "Autoencoder"
    fields = ("d", "h", "bias")

    @property
    def residuals(self):
        return self.h + 2 * self.d

    @property
    def longest(self):
        return max(self.d, self.h)

@record()
class TiedAutoencoder(Model):
    """Tied autoencoder, h(x) = relu(W^T W x + b) [d] with relu'(0) = 0: the toy model of superposition.

    d: number of inputs and outputs, >= 1
    width: number h of hidden units, >= 1
    bias: whether b [d] exists; parameters W [h, d], b
    W_scale, b_scale [] or [N]: deviations of the Gaussian start, >= 0; by default 1/sqrt(h) and 0
    Source: Elhage et al. 2022, arXiv 2209.10652
    """

    d: int
    width: int
    bias: bool = True
    W_scale: float | Array | None = None
    b_scale: float | Array = 0.0

    def __post_init__(self):
        for name in ("d", "width"):
            object.__setattr__(self, name, whole(getattr(self, name), f"model.{name}", 1))
        object.__setattr__(self, "bias", flag(self.bias, "model.bias"))
        object.__setattr__(self, "W_scale", per_network(self.width**-0.5 if self.W_scale is None else self.W_scale,
                                                        "model.W_scale", 0))
        object.__setattr__(self, "b_scale", per_network(self.b_scale, "model.b_scale", 0))

    @property
    def outputs(self) -> int:
        return self.d

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"W": (self.width, self.d), "b": (self.d,)} if self.bias else {"W": (self.width, self.d)}

    def scales(self) -> dict:
        return {name: (0.0, getattr(self, f"{name}_scale")) for name in self.shapes()}

    def form(self) -> Form | None:
        return Autoencoder(self.d, self.width, self.bias)

    def features(self, params: dict, X: Any) -> dict | None:
        return {"hidden": X @ params["W"].swapaxes(-1, -2)}

    def forward(self, params: dict, X: Any) -> Any:
        z = self.features(params, X)["hidden"] @ params["W"]
        if self.bias:
            z = z + params["b"][..., None, :]
        z = choose(z > 0, z, 0)
        return z[..., 0] if self.d == 1 else z
