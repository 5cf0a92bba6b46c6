"""Owns powers of vectors, h(x) = <w^D - z^D, x> and h(x) = <w^D, x>."""

from typing import Any

from ..spec.check import Array, flag, per_network, whole
from ..spec.record import record
from .base import Model
from .form import Form, vectors

MOST_DEPTH = 16


@record()
class Power(Form):
    """A difference of two powers of vectors [d], or one power."""

    d: int
    depth: int
    signed: bool
    name, struct, linear = "power", "Power", True
    fields = ("d", "depth", "signed")
    factors = None  # beta is no product of the weights

    @property
    def longest(self):
        return self.d

    def beta(self, weights):
        """beta [N, d] of weights [N, P]."""
        powers = self._vectors(weights) ** self.depth
        return powers[:, 0] - powers[:, 1] if self.signed else powers[:, 0]

    def parts(self, weights):
        """See `Product.parts`."""
        return self.depth * self._vectors(weights) ** (self.depth - 1)

    def packing(self):
        return vectors(self.name, self.d, 1 + self.signed, (self.depth,))

    def _vectors(self, weights):
        return weights.reshape(len(weights), 1 + self.signed, self.d)


@record()
class DiagonalPower(Model):
    """Diagonal linear network with shared factors: h(x) = sum_j (w_j^D - z_j^D) x_j,  dh/dw_j = D w_j^(D-1) x_j.

    d: number of inputs, >= 1
    depth: D, 1 .. 16
    signed: whether z exists; without it h(x) = <w^D, x>. Parameters w [d], z [d]. Sources: arXiv 2002.09277 (signed),
        arXiv 2006.08680 (D = 2, unsigned)
    w0, z0 [] or [N]: every coordinate's start
    """

    d: int
    depth: int = 2
    signed: bool = True
    w0: float | Array = 0.1
    z0: float | Array = 0.1

    def __post_init__(self):
        object.__setattr__(self, "d", whole(self.d, "model.d", 1))
        object.__setattr__(self, "depth", whole(self.depth, "model.depth", 1, MOST_DEPTH))
        object.__setattr__(self, "signed", flag(self.signed, "model.signed"))
        for name in ("w0", "z0"):
            object.__setattr__(self, name, per_network(getattr(self, name), f"model.{name}"))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"w": (self.d,), "z": (self.d,)} if self.signed else {"w": (self.d,)}

    def scales(self) -> dict:
        return {name: (getattr(self, f"{name}0"), 0.0) for name in self.shapes()}

    def form(self) -> Form | None:
        return Power(self.d, self.depth, self.signed)

    def forward(self, params: dict, X: Any) -> Any:
        beta = params["w"] ** self.depth
        return X @ (beta - params["z"] ** self.depth if self.signed else beta)
