"""Owns counts of hidden units: how many are active, how many are distinct, how far their pattern moved."""

from typing import Any

import numpy as np

from ..models import MLP
from ..spec.check import flag, real
from ..spec.record import record
from .feature_sparsity import merged
from .layers import OfLayers

SIGNED = ("identity", "relu", "leaky", "tanh", "erf")  # activations that are positive exactly where their input is


def active(features, threshold, relative):
    """[N, h] bool: units of activations [N, n, h] above the threshold on at least one input."""
    top = features.max(axis=1)
    return top > threshold * (np.abs(features).max(axis=(1, 2))[:, None] if relative else 1)


@record(eq=True)
class ActiveUnits(OfLayers):
    """Number of hidden units that are active somewhere, #{j : max_i Phi_ij > threshold}, on the training inputs.

    threshold: >= 0; 0 counts the ReLU units that are not dead, 0.05 is that of arXiv 2305.16292
    relative: take the threshold as a share of the network's largest |Phi_ij| in that layer, and at most 1
    layer: name of one hidden layer, e.g. "hidden1"; by default all, [N, S, layers] if there are several
    """

    threshold: float = 0.0
    relative: bool = False
    layer: str | None = None
    name: str = "active_units"

    def __post_init__(self):
        _check(self)

    def value(self, features: Any) -> Any:
        return active(features, self.threshold, self.relative).sum(axis=1)


@record(eq=True)
class DistinctUnits(OfLayers):
    """Number of active units that are not copies of others, on the training inputs.

    Units with max_i Phi_ij > threshold live; living unit i is merged away if some later living unit j > i has Pearson
    correlation |rho_ij| > tau over the samples (the rule of `FeatureSparsity`, rows as they are); those that stay are
    counted.

    tau: in (0, 1]; threshold: >= 0; 0.999 and 0.05 are those of arXiv 2305.16292
    relative: take the threshold as a share of the network's largest |Phi_ij| in that layer, and at most 1
    layer: as in `ActiveUnits`
    """

    tau: float = 0.999
    threshold: float = 0.05
    relative: bool = False
    layer: str | None = None
    name: str = "distinct_units"

    def __post_init__(self):
        _check(self)
        object.__setattr__(self, "tau", real(self.tau, "DistinctUnits.tau", 0, low_open=True, high=1))

    def value(self, features: Any) -> Any:
        alive = active(features, self.threshold, self.relative)
        return (alive & ~merged(features, alive, self.tau)).sum(axis=1)


@record(eq=True)
class ActivationDensity(OfLayers):
    """Share of activations that are not zero, #{(i, j) : Phi_ij != 0} / (n h), on the training inputs.

    layer: as in `ActiveUnits`
    """

    layer: str | None = None
    name: str = "activation_density"

    def value(self, features: Any) -> Any:
        return (features != 0).mean(axis=(1, 2))


@record(eq=True)
class PatternDistance(OfLayers):
    """Share of (training input, unit) pairs whose state Phi_ij > 0 differs from the network's state at step 0.

    layer: as in `ActiveUnits`
    Source: arXiv 2210.05337. For activations that are positive exactly where their input is.
    """

    layer: str | None = None
    name: str = "pattern_distance"
    needs_start = True

    def refuse(self, model: Any, data: Any) -> str | None:
        if isinstance(model, MLP) and model.activation not in SIGNED:
            return f"the activation {model.activation!r} does not show whether a unit is on, {', '.join(SIGNED)} do"
        return super().refuse(model, data)

    def value(self, features: Any, start: Any) -> Any:
        return ((features > 0) != (start > 0)).mean(axis=(1, 2))


def _check(metric):
    kind, relative = type(metric).__name__, flag(metric.relative, f"{type(metric).__name__}.relative")
    high = 1.0 if relative else 1e300
    object.__setattr__(metric, "threshold", real(metric.threshold, f"{kind}.threshold", 0, high=high))
