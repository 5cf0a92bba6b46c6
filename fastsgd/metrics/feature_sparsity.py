"""Owns the feature sparsity coefficient: the share of activations that are non-zero and not copies of others."""

from dataclasses import dataclass

import numpy as np

from ..errors import SpecError
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
        if not (isinstance(self.tau, (int, float)) and 0 < self.tau <= 1):
            raise SpecError(f"FeatureSparsity.tau: {self.tau!r} given, expected a number in (0, 1]")

    def refuse(self, model, data):
        has = type(model).features is not None and "features" in type(model).__dict__
        return None if has else f"{type(model).__name__} has no hidden activations"

    def compute(self, model, params, data, loss):
        X = data.X.astype(np.float64)
        N, out = len(next(iter(params.values()))), []
        for k in range(0, N, 256):  # activations of 256 networks at a time
            part = {name: a[k:k + 256] for name, a in params.items()}
            out.append(sparsity(model.features(part, X)["hidden"], self.tau, self.normalise))
        return np.concatenate(out)
