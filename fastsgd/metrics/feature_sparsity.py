"""Owns the feature sparsity coefficient: the share of activations that are non-zero and not copies of others."""

from dataclasses import dataclass

import numpy as np

from ..errors import BackendUnavailable, SpecError
from ..native import default_threads, native
from ..spec.check import as_array, flag, real
from .layers import OfLayers


def merged(features, alive, tau):
    """[N, h] bool: living units i of activations [N, n, h] with |rho_ij| > tau for a later living unit j > i."""
    centred = features - features.mean(axis=1, keepdims=True)
    varies = features.max(axis=1) > features.min(axis=1)  # a rounded mean gives constant columns a deviation
    deviation = np.where(varies, np.sqrt((centred**2).sum(axis=1)), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = centred / deviation[:, None, :]  # NaN for constant columns, which then stay
        rho = np.abs(unit.swapaxes(1, 2) @ unit)
        h = features.shape[2]
        later = np.triu(np.ones((h, h), dtype=bool), 1)
        return ((rho > tau) & later & alive[:, None, :]).any(axis=2) & alive


def sparsity(features, tau, normalise):
    """Feature sparsity coefficient [N] of activations [N, n, h]; see `FeatureSparsity`."""
    if normalise:
        features = unit_rows(features)
    positive = features > 0
    alive = positive.any(axis=1)  # [N, h]
    kept = alive & ~merged(features, alive, tau)
    return (positive.sum(axis=1) * kept).sum(axis=1) / positive[0].size


def unit_rows(features):
    """Activations [..., n, h] with each row scaled to unit length; zero rows stay zero."""
    length = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.where(length > 0, length, 1)


def feature_sparsity(activations, tau=0.99, normalise=True):
    """Feature sparsity coefficients [...] of activations [..., n, h], float64; what `FeatureSparsity` says of a layer.

    activations: NumPy, torch or DLPack array, finite where a coefficient is to be a number
    tau: in (0, 1]; normalise: whether rows are scaled to unit length first
    Uses the compiled kernel, or `sparsity` where there is none. Raises SpecError.
    """
    phi = as_array(activations, "activations")
    if phi.ndim < 2 or 0 in phi.shape[-2:]:
        raise SpecError(f"activations: have shape {phi.shape}, expected [..., n, h] with n, h >= 1")
    tau = real(tau, "tau", 0, low_open=True, high=1)
    stack = np.ascontiguousarray(phi, np.float64).reshape(-1, *phi.shape[-2:])
    try:
        out = native().feature_sparsity(stack, tau, flag(normalise, "normalise"), default_threads())
    except BackendUnavailable:
        out = sparsity(stack, tau, normalise)
    return out.reshape(phi.shape[:-2])


@dataclass(frozen=True)
class FeatureSparsity(OfLayers):
    """Feature sparsity coefficient of hidden layers on the training inputs (low means sparse).

    Phi [n, h] = activations, rows scaled to unit length if `normalise`. Units that are never positive are dropped; unit
    i is merged away if some later living unit j > i has Pearson correlation |rho_ij| > tau over the samples; the
    coefficient is #{non-zeros in the columns that stay} / (n h). Constant columns have no correlation and stay.
    The closed form equals the sequential rule of arXiv 2210.05337.

    tau: in (0, 1]; 0.99 and 0.999 are the paper's
    normalise: scale each row to unit length first, as the paper does for its toy networks
    layer: name of one hidden layer, e.g. "hidden1"; by default all, [N, S, layers] if there are several
    """

    tau: float = 0.99
    normalise: bool = True
    name: str = "feature_sparsity"
    layer: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "tau", real(self.tau, "FeatureSparsity.tau", 0, low_open=True, high=1))
        object.__setattr__(self, "normalise", flag(self.normalise, "FeatureSparsity.normalise"))

    def value(self, features):
        return sparsity(features, self.tau, self.normalise)
