"""Owns products of D vectors, h(x) = <w1 * ... * wD, x>: diagonal linear networks of any depth."""

from typing import Any

import numpy as np

from ..errors import SpecError
from ..spec.check import Array, per_layer, whole
from ..spec.record import record
from .base import Model
from .form import Form, product, vectors

MOST_DEPTH = 16


@record()
class Product(Form):
    """A product of `depth` vectors [d]; of two of them, `DiagonalLinear` is one as well."""

    d: int
    depth: int
    fused: tuple | None = None
    name, struct, linear = "product", "Product", True
    fields = ("d", "depth")

    @property
    def longest(self):
        return self.d

    @property
    def factors(self):
        """Of how many vectors of the weights beta is the product."""
        return self.depth

    def beta(self, weights):
        """beta [N, d] of weights [N, P]."""
        return product(self._vectors(weights))

    def parts(self, weights):
        """Parts [N, K, d]: J on X has the singular values of X diag(s), s_j = sqrt(sum_k parts_kj^2)."""
        if self.depth == 2:
            return weights.reshape(len(weights), 2, self.d)  # the other one of the two, in the other order
        w = self._vectors(weights)
        others = [w[:k] + w[k + 1:] for k in range(self.depth)]
        return np.stack([product(rest) if rest else np.ones_like(w[0]) for rest in others], axis=1)

    def packing(self):
        return vectors(self.name, self.d, self.depth)

    def _vectors(self, weights):
        return [weights[:, k * self.d:(k + 1) * self.d] for k in range(self.depth)]


@record()
class DiagonalProduct(Model):
    """Deep diagonal linear network: h(x) = sum_j (prod_k w_k,j) x_j,  dh/dw_k,j = x_j prod_{l != k} w_l,j.

    d: number of inputs, >= 1
    depth: number D of factors, 1 .. 16; parameters w1 .. wD [d]. Depth 2 is `DiagonalLinear`, with u = w1, v = w2
    start_at: every coordinate's start, a number or [N], or a tuple of D of these; by default 0.1 for w1 .. w(D-1),
        and 0 for wD, so that the network starts at zero
    """

    d: int
    depth: int
    start_at: float | Array | tuple | None = None

    def __post_init__(self):
        object.__setattr__(self, "d", whole(self.d, "model.d", 1))
        object.__setattr__(self, "depth", whole(self.depth, "model.depth", 1, MOST_DEPTH))
        start = (0.1,) * (self.depth - 1) + (0.0,) if self.start_at is None else self.start_at
        start = start if isinstance(start, (tuple, list)) else (start,) * self.depth
        if len(start) != self.depth:
            raise SpecError(f"model.start_at: {len(start)} values given, expected one, or one for each of the "
                            f"{self.depth} factors")
        object.__setattr__(self, "start_at", per_layer(start, "model.start_at"))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {f"w{k + 1}": (self.d,) for k in range(self.depth)}

    def scales(self) -> dict:
        return {name: (start, 0.0) for name, start in zip(self.shapes(), self.start_at, strict=True)}

    def form(self) -> Form | None:
        return Product(self.d, self.depth)

    def forward(self, params: dict, X: Any) -> Any:
        beta = params["w1"]
        for k in range(2, self.depth + 1):
            beta = beta * params[f"w{k}"]
        return X @ beta
