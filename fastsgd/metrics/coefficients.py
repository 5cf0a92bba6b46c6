"""Owns metrics of the linear map that a network computes: the map, its norms, its distance to a teacher, the gain."""

from typing import Any

import numpy as np

from ..models.base import form_of
from ..models.dense import Dense
from ..spec.check import Array, as_array, finite, frozen, real
from ..spec.record import record
from .base import Metric, by_parts, predictions
from .spectra import power_norm


def refuse_nonlinear(model):
    """None, or why a model computes no linear map of its inputs."""
    form = form_of(model)
    if form is not None and form.linear:
        return None
    if isinstance(form, Dense):
        straight = form.activation == "identity" or form.layers == 1
        return None if straight else f"the activation {form.activation!r} makes the network nonlinear"
    return f"{type(model).__name__} computes no linear map of its inputs"


def coefficients(model, params):
    """beta [N, d] or [N, d, o] of h(x) = <beta, x> + h(0), read off the unit vectors: beta_j = h(e_j) - h(0)."""
    h = predictions(model, params, np.concatenate([np.eye(model.d), np.zeros((1, model.d))]))
    return h[:, :-1] - h[:, -1:]


def _size(model):
    return 8 * (model.d + 1) * (model.d + 3 * model.outputs + 1) + 16 * model.P


@record(eq=True)
class LinearCoefficients(Metric):
    """Coefficients beta of the linear map that a network computes, h(x) = <beta, x> + h(0), [N, S, d] or [N, S, d, o].

    For diagonal networks (u * v, products, w^D - z^D) and dense ones with the activation "identity" (W_L ... W_1).
    """

    name: str = "beta"

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_nonlinear(model)

    def axes(self, model: Any, data: Any) -> dict | None:
        outputs = {"output": range(model.outputs)} if model.outputs > 1 else {}
        return {"input": range(model.d)} | outputs

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        return by_parts(lambda params: coefficients(model, params), _size(model), params)


@record()
class DistanceToTeacher(Metric):
    """Euclidean distance of a network's linear map to a given one, ||beta - beta*||.

    beta [d], or [d, o] for o > 1 outputs: beta*, finite
    """

    beta: Array
    name: str = "distance_to_teacher"

    def __post_init__(self):
        beta = finite(as_array(self.beta, "DistanceToTeacher.beta", ndim=(1, 2)), "DistanceToTeacher.beta")
        object.__setattr__(self, "beta", frozen(beta.astype(np.float64)))

    def refuse(self, model: Any, data: Any) -> str | None:
        shape = (model.d,) if model.outputs == 1 else (model.d, model.outputs)
        wrong = None if self.beta.shape == shape else f"beta has shape {self.beta.shape}, expected {shape}"
        return refuse_nonlinear(model) or wrong

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        def distance(params):
            difference = coefficients(model, params) - self.beta
            return np.linalg.norm(difference.reshape(len(difference), -1), axis=1)

        return by_parts(distance, _size(model), params)


@record(eq=True)
class LpNorm(Metric):
    """Norm of a network's linear map, (sum_j |beta_j|^p)^(1/p); all entries of beta [d, o] for more outputs.

    p: > 0, a quasi-norm below 1; infinity gives the largest |beta_j|
    """

    p: float = 1.0
    name: str = "lp_norm"

    def __post_init__(self):
        object.__setattr__(self, "p", real(self.p, "LpNorm.p", 0, low_open=True))

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_nonlinear(model)

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        def norm(params):
            beta = coefficients(model, params)
            return power_norm(beta.reshape(len(beta), -1), self.p)

        return by_parts(norm, _size(model), params)


@record(eq=True)
class Gain(Metric):
    """Gain of every coordinate of a u * v network, -(1/2) log((u_j^2 - v_j^2)^2 / (u_0j^2 - v_0j^2)^2), [N, S, d].

    A step of any batch multiplies u_j^2 - v_j^2 by 1 - (eta g_j)^2, g the gradient of the batch's loss in beta = u * v;
    so this is sum_t -(1/2) log((1 - (eta_t g_tj)^2)^2) without a running sum. Infinite where u^2 = v^2 now, NaN where
    the network started there. For `DiagonalLinear` and `DiagonalProduct` of depth 2.
    Source: Even et al. 2023, arXiv 2302.08982
    """

    name: str = "gain"
    needs_start = True

    def refuse(self, model: Any, data: Any) -> str | None:
        form = form_of(model)
        if form is not None and form.linear and form.factors == 2:
            return None
        return f"{type(model).__name__} is no product of two vectors u and v"

    def axes(self, model: Any, data: Any) -> dict | None:
        return {"input": range(model.d)}

    def compute(self, model: Any, params: dict, data: Any, loss: Any, start: Any) -> np.ndarray:
        def logarithm(params):
            u, v = params.values()
            return np.log(np.abs(u - v)) + np.log(np.abs(u + v))  # u^2 - v^2 itself would underflow

        def gain(params, start):
            before = logarithm(start)
            return np.where(np.isfinite(before), before - logarithm(params), np.nan)

        return by_parts(gain, 64 * model.d, params, start)
