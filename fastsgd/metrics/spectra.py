"""Owns metrics of the singular values of hidden activations and of neurons: rank, norms, entropy."""

from typing import Any

import numpy as np

from ..spec.check import Array, one_of, real
from ..spec.record import record
from .base import by_parts, singular_values
from .feature_sparsity import unit_rows
from .layers import OfLayers, hidden
from .points import as_points, refuse_no_training, refuse_test_points, test_points
from .two_layer import neurons, refuse_neurons

OF = ("features", "weighted", "neurons")


@record(eq=True)
class FeatureRank(OfLayers):
    """Number of principal components that explain a share of the activations' squares on the training inputs.

    #{k : sigma_1^2 + .. + sigma_k^2 <= share ||Phi||^2} + 1, sigma the singular values of Phi [n, h] after centring;
    0 for Phi = 0.

    share: in (0, 1); 0.9999 (toy networks) and 0.99 (deep ones) are those of arXiv 2305.16292
    centre: "row" (the mean over units is taken off every row, as there), "column" (the mean over samples off every
        column, as in principal component analysis) or "none"
    layer: name of one hidden layer, e.g. "hidden1"; by default all, [N, S, layers] if there are several
    """

    share: float = 0.9999
    centre: str = "row"
    layer: str | None = None
    name: str = "feature_rank"

    def __post_init__(self):
        share = real(self.share, "FeatureRank.share", 0, low_open=True, high=1 - 2.0**-53)
        object.__setattr__(self, "share", share)
        one_of(self.centre, "FeatureRank.centre", ("row", "column", "none"))

    def value(self, features: Any) -> Any:
        if self.centre != "none":
            features = features - features.mean(axis=2 if self.centre == "row" else 1, keepdims=True)
        squares = singular_values(features) ** 2
        total = squares.sum(axis=1)
        count = (squares.cumsum(axis=1) <= self.share * total[:, None]).sum(axis=1) + 1
        return np.where(np.isnan(total), np.nan, np.where(total > 0, count, 0))


class Spectral(OfLayers):
    """A number from the singular values of a matrix that `of` names.

    of: "features", Phi [n, h] on the training inputs, each hidden layer's; "weighted", Phi diag(a) with the output
        weights a, of a two-layer network; "neurons", the rows a_j w_j [h, d] of a two-layer network
    layer: for "features", as in `FeatureRank`
    """

    of = "features"

    def refuse(self, model: Any, data: Any) -> str | None:
        if self.of == "features":
            return super().refuse(model, data)
        if self.layer is not None:
            return f"layer is {self.layer!r}, but of={self.of!r} is of the whole network; leave layer out"
        missing = refuse_no_training(data) if self.of == "weighted" else None
        return missing or refuse_neurons(model)

    def measure(self, sigma: Any) -> np.ndarray:
        """The number [N] of singular values [N, k]."""
        raise NotImplementedError

    def value(self, features: Any) -> Any:
        return self.measure(singular_values(features))

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        if self.of == "features":
            return super().compute(model, params, data, loss)
        X = self.where(model, data)

        def part(params):
            w, _, a = neurons(model, params)
            if self.of == "neurons":
                return self.value(a[..., None] * w)
            (layer,) = hidden(model)
            return self.value(model.features(params, X)[layer] * a[:, None])

        h, d = model.shapes()["W1"]
        return by_parts(part, 32 * h * (len(X) if self.of == "weighted" else d), params)


@record(eq=True)
class NuclearNorm(Spectral):
    """Sum of the singular values of the activations, sum_k sigma_k, or of another matrix.

    of: "features", Phi [n, h] on the training inputs, each hidden layer's; "weighted", Phi diag(a) with the output
        weights a, of a two-layer network; "neurons", the rows a_j w_j [h, d] of a two-layer network
    layer: for "features", one hidden layer; by default all, [N, S, layers] if there are several
    """

    of: str = "features"
    layer: str | None = None
    name: str = "nuclear_norm"

    def __post_init__(self):
        one_of(self.of, "NuclearNorm.of", OF)

    def measure(self, sigma: Any) -> np.ndarray:
        return sigma.sum(axis=1)


@record(eq=True)
class SchattenQuasiNorm(Spectral):
    """Schatten quasi-norm (sum_k sigma_k^p)^(1/p) of the activations or of another matrix.

    p: in (0, 1]; 0.1 is that of arXiv 2210.05337's code
    rtol: in [0, 1); sigma_k <= rtol sigma_1 count as 0: rounding errors, which a small p would make large
    of, layer: as in `NuclearNorm`
    """

    p: float = 0.1
    rtol: float = 1e-12
    of: str = "features"
    layer: str | None = None
    name: str = "schatten_quasi_norm"

    def __post_init__(self):
        object.__setattr__(self, "p", real(self.p, "SchattenQuasiNorm.p", 0, low_open=True, high=1))
        object.__setattr__(self, "rtol", real(self.rtol, "SchattenQuasiNorm.rtol", 0, high=1 - 2.0**-53))
        one_of(self.of, "SchattenQuasiNorm.of", OF)

    def measure(self, sigma: Any) -> np.ndarray:
        return power_norm(np.where(sigma <= self.rtol * sigma[:, :1], 0, sigma), self.p)


def power_norm(a, p):
    """(sum_k |a_k|^p)^(1/p) over the last axis for p in (0, inf], safe from overflow of a^p."""
    a = np.abs(a)
    top = a.max(axis=-1, keepdims=True)
    if p == np.inf:
        return top[..., 0]
    scaled = a / np.where(top > 0, top, 1)
    return top[..., 0] * (scaled**p).sum(axis=-1) ** (1 / p)


@record(eq=True)
class CountAbove(Spectral):
    """Number of singular values above a threshold, #{k : sigma_k > threshold}, of the activations or another matrix.

    threshold: >= 0; 0.1 is that of arXiv 2210.05337's code
    of, layer: as in `NuclearNorm`
    """

    threshold: float = 0.1
    of: str = "features"
    layer: str | None = None
    name: str = "count_above"

    def __post_init__(self):
        object.__setattr__(self, "threshold", real(self.threshold, "CountAbove.threshold", 0, high=1e300))
        one_of(self.of, "CountAbove.of", OF)

    def measure(self, sigma: Any) -> np.ndarray:
        return np.where(np.isnan(sigma).any(axis=1), np.nan, (sigma > self.threshold).sum(axis=1))


@record()
class SpectrumEntropy(OfLayers):
    """Entropy -sum_k p_k log p_k of p = sigma / sum(sigma), singular values of row-normalised last-layer activations.

    points [m, d]: where activations are taken; by default the first min(P, n_test) test points, as in arXiv 2210.05337
    layer: one hidden layer; by default the last. Activations that are all zero have none, NaN
    """

    points: Array | None = None
    layer: str | None = None
    name: str = "spectrum_entropy"

    def __post_init__(self):
        object.__setattr__(self, "points", as_points(self.points, f"{type(self).__name__}.points"))

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_test_points(self.points, data) or self.refuse_layer(model)

    def layers(self, model: Any) -> list:
        return [list(hidden(model))[-1] if self.layer is None else self.layer]

    def where(self, model: Any, data: Any) -> np.ndarray:
        return test_points(self.points, model, data)

    def value(self, features: Any) -> Any:
        sigma = singular_values(unit_rows(features))
        p = sigma / sigma.sum(axis=1, keepdims=True)
        return -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1)


@record()
class EffectiveRank(SpectrumEntropy):
    """Effective rank exp(-sum_k p_k log p_k): the exponential of `SpectrumEntropy`, same fields.

    Source: Roy and Vetterli 2007
    """

    name: str = "effective_rank"

    def value(self, features: Any) -> Any:
        return np.exp(super().value(features))
