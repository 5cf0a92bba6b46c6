"""Owns the metrics of parameters alone: norm, distance travelled, balancedness, support."""

from typing import Any

import numpy as np

from ..spec.check import flag, real
from ..spec.record import record
from .base import Metric, by_parts


def _needs_uv(model):
    return None if set(model.shapes()) == {"u", "v"} else f"{type(model).__name__} has no parameters u and v"


def _norm(params):
    return np.linalg.norm(np.concatenate([a.reshape(len(a), -1) for a in params.values()], axis=1), axis=1)


@record(eq=True)
class ParameterNorm(Metric):
    """Euclidean norm of all parameters, ||theta||."""

    name: str = "norm"

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        return by_parts(_norm, 8 * model.P, params)


@record(eq=True)
class DistanceTravelled(Metric):
    """Euclidean distance of all parameters from those of step 0, ||theta - theta_0||.

    relative: divide by ||theta_0||; NaN or infinity where that is 0. Source: Chizat et al. 2019, arXiv 1812.07956
    """

    relative: bool = False
    name: str = "distance_travelled"
    needs_start = True

    def __post_init__(self):
        flag(self.relative, "DistanceTravelled.relative")

    def compute(self, model: Any, params: dict, data: Any, loss: Any, start: Any) -> np.ndarray:
        def distance(params, start):
            moved = _norm({name: a - start[name] for name, a in params.items()})
            return moved / _norm(start) if self.relative else moved

        return by_parts(distance, 24 * model.P, params, start)


@record(eq=True)
class Balancedness(Metric):
    """Distance of a diagonal network from balance, || |u| - |v| ||."""

    name: str = "balance"

    def refuse(self, model: Any, data: Any) -> str | None:
        return _needs_uv(model)

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        return by_parts(lambda p: np.linalg.norm(np.abs(p["u"]) - np.abs(p["v"]), axis=1), 16 * model.P, params)


@record(eq=True)
class L0(Metric):
    """Support of a diagonal network, #{j : |u_j v_j| > threshold}.

    threshold: >= 0; the default 1e-50 is that of arXiv 2210.05337. Products are taken in float64, so that those of
        float32 factors do not underflow.
    """

    threshold: float = 1e-50
    name: str = "l0"

    def __post_init__(self):
        object.__setattr__(self, "threshold", real(self.threshold, "L0.threshold", 0, high=1e300))

    def refuse(self, model: Any, data: Any) -> str | None:
        return _needs_uv(model)

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        return by_parts(lambda p: (np.abs(p["u"] * p["v"]) > self.threshold).sum(axis=1), 16 * model.P, params)
