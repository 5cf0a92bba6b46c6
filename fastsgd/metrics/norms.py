"""Owns the metrics of parameters alone: norm, balancedness, support."""

from dataclasses import dataclass

import numpy as np

from ..spec.check import real
from .base import Metric


def _needs_uv(model):
    return None if set(model.shapes()) == {"u", "v"} else f"{type(model).__name__} has no parameters u and v"


@dataclass(frozen=True)
class ParameterNorm(Metric):
    """Euclidean norm of all parameters, ||theta||."""

    name: str = "norm"

    def compute(self, model, params, data, loss):
        return np.linalg.norm(np.concatenate([a.reshape(len(a), -1) for a in params.values()], axis=1), axis=1)


@dataclass(frozen=True)
class Balancedness(Metric):
    """Distance of a diagonal network from balance, || |u| - |v| ||."""

    name: str = "balance"

    def refuse(self, model, data):
        return _needs_uv(model)

    def compute(self, model, params, data, loss):
        return np.linalg.norm(np.abs(params["u"]) - np.abs(params["v"]), axis=1)


@dataclass(frozen=True)
class L0(Metric):
    """Support of a diagonal network, #{j : |u_j v_j| > threshold}.

    threshold: >= 0; the default 1e-50 is that of arXiv 2210.05337. Products are taken in float64, so that those of
        float32 factors do not underflow.
    """

    threshold: float = 1e-50
    name: str = "l0"

    def __post_init__(self):
        object.__setattr__(self, "threshold", real(self.threshold, "L0.threshold", 0, high=1e300))

    def refuse(self, model, data):
        return _needs_uv(model)

    def compute(self, model, params, data, loss):
        return (np.abs(params["u"] * params["v"]) > self.threshold).sum(axis=1).astype(np.float64)
