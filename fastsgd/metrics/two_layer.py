"""Owns metrics of two-layer networks seen as neurons, h(x) = sum_j a_j act(w_j . x + b_j) + c."""

from typing import Any

import numpy as np

from ..models.base import form_of
from ..models.dense import Dense
from ..spec.check import Array, as_array, finite, frozen, real
from ..spec.record import record
from .base import Metric, by_parts
from .points import refuse_no_training

BEND = {"relu": lambda slope: 1.0, "leaky": lambda slope: 1 - slope, "abs": lambda slope: 2.0}  # act'(0+) - act'(0-)


def refuse_neurons(model):
    """None, or why a model is no two-layer network with one output."""
    form = form_of(model)
    if isinstance(form, Dense) and form.layers == 2 and form.outputs == 1:
        return None
    return f"this {type(model).__name__} is no two-layer network with one output"


def neurons(model, params):
    """(w [N, h, d], b [N, h], a [N, h]) of a two-layer network, scalings included."""
    first, last = form_of(model).multipliers
    w, a = first * params["W1"], last * params["W2"][:, 0]
    return w, params.get("b1", np.zeros(w.shape[:2])), a


def activation(model):
    """(name, slope) of a two-layer network's activation."""
    form = form_of(model)
    return form.activation, form.slope


@record(eq=True)
class Kinks(Metric):
    """Number of kinks of the one-dimensional function of a two-layer network inside an interval.

    Neuron j bends h at x_j = -b_j / w_j by a_j |w_j| (times 1 - slope for leaky ReLU, 2 for abs). Neighbouring x_j at
    most `apart` (high - low) from each other make one kink; it counts if their bends add up to more than `bend`.

    low, high: the interval (low, high), low < high; by default the range of the training inputs
    apart: in [0, 1]; bend: > 0, least change of slope
    Source: Blanc et al. 2020, arXiv 1904.09080
    """

    low: float | None = None
    high: float | None = None
    apart: float = 1e-6
    bend: float = 1e-6
    name: str = "kinks"

    def __post_init__(self):
        for name in ("low", "high"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, real(getattr(self, name), f"Kinks.{name}", -1e300, high=1e300))
        if self.low is not None and self.high is not None:
            real(self.high, "Kinks.high", self.low, low_open=True)
        object.__setattr__(self, "apart", real(self.apart, "Kinks.apart", 0, high=1))
        object.__setattr__(self, "bend", real(self.bend, "Kinks.bend", 0, low_open=True, high=1e300))

    def refuse(self, model: Any, data: Any) -> str | None:
        if data.d != 1:
            return f"the inputs have d={data.d}, kinks are counted on a line, d=1"
        why = refuse_neurons(model)
        if why is None and activation(model)[0] not in BEND:
            why = f"the activation {model.activation!r} has no kinks, {', '.join(BEND)} do"
        if self.low is None or self.high is None:
            why = why or refuse_no_training(data)
        if why:
            return why
        low, high = self.interval(data)
        return None if low < high else f"the interval ({low:g}, {high:g}) is empty"

    def interval(self, data: Any) -> tuple:
        """(low, high)."""
        return (float(data.X.min()) if self.low is None else self.low,
                float(data.X.max()) if self.high is None else self.high)

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        low, high = self.interval(data)
        kind, slope = activation(model)

        def count(params):
            w, b, a = neurons(model, params)
            w = w[..., 0]
            at = np.where(w == 0, np.inf, -b / np.where(w == 0, 1, w))
            bend = np.where((at > low) & (at < high), BEND[kind](slope) * a * np.abs(w), 0.0)
            at = np.where((at > low) & (at < high), at, np.inf)
            order = np.argsort(at, axis=1)
            at, bend = np.take_along_axis(at, order, 1), np.take_along_axis(bend, order, 1)
            new = np.diff(at, axis=1, prepend=-np.inf) > self.apart * (high - low)  # inf - inf is NaN: no new kink
            group = np.cumsum(new, axis=1) - 1
            total = np.zeros_like(at)
            np.add.at(total, (np.arange(len(at))[:, None], group), bend)
            return (np.abs(total) > self.bend).sum(axis=1)

        return by_parts(count, 80 * model.P, params)


@record(eq=True)
class NeuronBalance(Metric):
    """Balance of every neuron, a_j^2 - ||w_j||^2 - b_j^2, [N, S, h]: gradient flow of homogeneous activations keeps it.

    w, b, a are the rows of W1, b1, W2, without scalings, for which the law holds.
    Source: Boursier et al. 2022, arXiv 2206.00939
    """

    name: str = "neuron_balance"

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_neurons(model)

    def axes(self, model: Any, data: Any) -> dict | None:
        return {"unit": range(model.shapes()["W1"][0])}

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        def balance(params):
            bias = params["b1"] ** 2 if "b1" in params else 0.0
            return params["W2"][:, 0] ** 2 - (params["W1"] ** 2).sum(axis=2) - bias

        return by_parts(balance, 32 * model.P, params)


@record()
class CosineAlignment(Metric):
    """Cosine of every neuron's w_j with the direction nearest to it, max_m <w_j, u_m> / (||w_j|| ||u_m||), [N, S, h].

    directions [M, d]: e.g. a teacher's neurons, finite and not zero; NaN for neurons with w_j = 0
    """

    directions: Array
    name: str = "cosine_alignment"

    def __post_init__(self):
        directions = finite(as_array(self.directions, "CosineAlignment.directions", ndim=2),
                            "CosineAlignment.directions").astype(np.float64)
        length = np.linalg.norm(directions, axis=1, keepdims=True)
        real(float(length.min(initial=np.inf)), "CosineAlignment.directions (length of each)", 0, low_open=True)
        object.__setattr__(self, "directions", frozen(directions / length))

    def refuse(self, model: Any, data: Any) -> str | None:
        if self.directions.shape[1] != data.d or len(self.directions) == 0:
            return f"directions has shape {self.directions.shape}, expected [M, {data.d}] with M >= 1"
        return refuse_neurons(model)

    def axes(self, model: Any, data: Any) -> dict | None:
        return {"unit": range(model.shapes()["W1"][0])}

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        def cosine(params):
            w = params["W1"]
            length = np.linalg.norm(w, axis=2, keepdims=True)
            return (w / length @ self.directions.T).max(axis=2)

        return by_parts(cosine, 8 * (3 * model.P + len(self.directions) * model.shapes()["W1"][0]), params)
