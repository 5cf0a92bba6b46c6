"""Owns the feature sparsity coefficient: the share of activations that are non-zero and not copies of others."""

from dataclasses import dataclass

import numpy as np

from ..models import Model
from ..spec.check import flag, real
from .base import Metric


def sparsity(features, tau, normalise):
    """Feature sparsity coefficient [N] of activations [N, n, h]; see `FeatureSparsity`."""
    if normalise:
        length = np.linalg.norm(features, axis=2, keepdims=True)
        features = features / np.where(length > 0, length, 1)
    positive = features > 0
    alive = positive.any(axis=1)  # [N, h]
    centred = features - features.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = centred / deviation[:, None, :]  # NaN for constant columns, which then stay
        rho = np.abs(unit.swapaxes(1, 2) @ unit)
    h = features.shape[2]
    later = np.triu(np.ones((h, h), dtype=bool), 1)
    with np.errstate(invalid="ignore"):
        merged = ((rho > tau) & later & alive[:, None, :]).any(axis=2)
    return (positive.sum(axis=1) * (alive & ~merged)).sum(axis=1) / positive[0].size


@dataclass(frozen=True)
class FeatureSparsity(Metric):
    """Feature sparsity coefficient of the hidden layer on the training inputs (low means sparse).

    Phi [n, h] = activations, rows scaled to unit length if `normalise`. Units that are never positive are dropped; unit
    i is merged away if some later living unit j > i has Pearson correlation |rho_ij| > tau over the samples; the
    coefficient is #{non-zeros in the columns that stay} / (n h). Constant columns have no correlation and stay.
    The closed form equals the sequential rule of arXiv 2210.05337.

    tau: in (0, 1]; 0.99 and 0.999 are the paper's
    normalise: scale each row to unit length first, as the paper does for its toy networks
    """

    tau: float = 0.99
    normalise: bool = True
    name: str = "feature_sparsity"

    def __post_init__(self):
        object.__setattr__(self, "tau", real(self.tau, "FeatureSparsity.tau", 0, low_open=True, high=1))
        object.__setattr__(self, "normalise", flag(self.normalise, "FeatureSparsity.normalise"))

    def refuse(self, model, data):
        has_none = type(model).features is Model.features
        return f"{type(model).__name__} has no hidden activations" if has_none else None

    def compute(self, model, params, data, loss):
        X = data.X.astype(np.float64)
        N, out = len(next(iter(params.values()))), []
        for k in range(0, N, 256):  # activations of 256 networks at a time
            part = {name: a[k:k + 256] for name, a in params.items()}
            out.append(sparsity(model.features(part, X)["hidden"], self.tau, self.normalise))
        return np.concatenate(out)
