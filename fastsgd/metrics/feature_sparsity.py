"""Owns the feature sparsity coefficient: the share of activations that are non-zero and not copies of others."""

from typing import Any

import numpy as np

from ..errors import BackendUnavailable, SpecError
from ..native import default_threads, native
from ..spec.check import as_array, flag, real
from ..spec.constant import EPS, constant_within, least_correlation
from ..spec.record import record
from .base import of_order_one
from .layers import OfLayers

OF_FLOAT64 = constant_within(EPS)
NO_POWER = -10_000  # of zero: below all others

def merged(features, alive, tau, within=OF_FLOAT64):
    """[N, h] bool: living units i of activations [N, n, h] with |rho_ij| > tau for a later living unit j > i.

    within: relative deviation up to which a column is constant; constant columns correlate with nothing
    """
    features = of_order_one(features, axis=1)
    mean = features.mean(axis=1, keepdims=True)
    centred = features - mean
    centred -= centred.mean(axis=1, keepdims=True)  # the rounding of the mean
    deviation = np.linalg.norm(centred, axis=1)
    constant = deviation <= within * np.sqrt(features.shape[1]) * np.abs(mean[:, 0])
    unit = centred / np.where(constant, np.inf, deviation)[:, None]
    rho = np.abs(unit.swapaxes(1, 2) @ unit)
    h = features.shape[2]
    later = np.triu(np.ones((h, h), dtype=bool), 1)
    return ((rho > least_correlation(tau)) & later & alive[:, None, :]).any(axis=2) & alive


def sparsity(features, tau, normalise, eps=EPS):
    """Feature sparsity coefficient [N] of activations [N, n, h], float64 values of numbers with this eps; see
    `FeatureSparsity`. NaN where they are not finite.
    """
    known = np.isfinite(features).all(axis=(1, 2))
    positive = features > 0  # before rows are scaled, which may let the smallest vanish
    alive = positive.any(axis=1)  # [N, h]
    features = np.where(known[:, None, None], features, 0)
    within = constant_within(eps, features.shape[2] if normalise else 0)
    kept = alive & ~merged(unit_rows_of_order_one(features) if normalise else features, alive, tau, within)
    return np.where(known, (positive.sum(axis=1) * kept).sum(axis=1) / positive[0].size, np.nan)


def unit_rows(features):
    """Activations [..., n, h] with each row scaled to unit length; zero rows stay zero."""
    features = of_order_one(features, axis=-1)
    length = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.where(length > 0, length, 1)


def unit_rows_of_order_one(features):
    """`unit_rows` of activations [N, n, h] with columns times powers of two; none vanishes that is not zero."""
    power = np.where(features == 0, NO_POWER, np.frexp(features)[1])
    row = power.max(axis=2, keepdims=True)
    column = np.where(features == 0, NO_POWER, power - row).max(axis=1, keepdims=True)
    length = np.linalg.norm(np.ldexp(features, -row), axis=2, keepdims=True)
    return np.ldexp(features, -row - column) / np.where(length > 0, length, 1)


def by_kernel(module, features, tau, normalise, threads, eps=EPS):
    """`sparsity` by a compiled module, of contiguous float64 activations."""
    within = constant_within(eps, features.shape[2] if normalise else 0)
    return module.feature_sparsity(features, least_correlation(tau), normalise, within, threads)


def feature_sparsity(activations: Any, tau: float = 0.99, normalise: bool = True) -> Any:
    """Feature sparsity coefficients [...] of activations [..., n, h], float64; what `FeatureSparsity` says of a layer.

    activations: NumPy, torch or DLPack array, finite where a coefficient is to be a number; its dtype says how far
        rounding may move what is constant
    tau: in (0, 1]; normalise: whether rows are scaled to unit length first
    Uses the compiled kernel, or `sparsity` where there is none. Raises SpecError.
    """
    phi = as_array(activations, "activations")
    if phi.ndim < 2 or 0 in phi.shape[-2:]:
        raise SpecError(f"activations: have shape {phi.shape}, expected [..., n, h] with n, h >= 1")
    tau = real(tau, "tau", 0, low_open=True, high=1)
    stack = np.ascontiguousarray(phi, np.float64).reshape(-1, *phi.shape[-2:])
    eps = max(EPS, np.finfo(phi.dtype).eps) if phi.dtype.kind == "f" else EPS
    try:
        out = by_kernel(native(), stack, tau, flag(normalise, "normalise"), default_threads(), eps)
    except BackendUnavailable:
        out = sparsity(stack, tau, normalise, eps)
    return out.reshape(phi.shape[:-2])


@record(eq=True)
class FeatureSparsity(OfLayers):
    """Feature sparsity coefficient of hidden layers on the training inputs (low means sparse).

    Phi [n, h] = activations, rows scaled to unit length if `normalise`. Units that are never positive are dropped; unit
    i is merged away if some later living unit j > i has Pearson correlation |rho_ij| > tau over the samples; the
    coefficient is #{non-zeros in the columns that stay} / (n h). So copies and collinear columns merge to one. Constant
    columns have no correlation and all stay, copies of each other included: those with |phi_j - mean| at most
    16 eps |phi_j|, norms over the samples and eps that of float64, plus eps h/8 |phi_j| if rows are scaled, which is
    what rounding makes of a constant (scaled rows make units constant that are collinear with all others). The scale of
    columns, and of scaled rows, does not matter, down to the ends of float64.
    The closed form equals the sequential rule of arXiv 2210.05337.

    tau: in (0, 1]; 0.99 and 0.999 are the paper's; 1 merges nothing
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

    def value(self, features: Any) -> Any:
        return sparsity(features, self.tau, self.normalise)
