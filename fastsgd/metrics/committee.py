"""Owns metrics of committee machines against a teacher under Gaussian inputs: overlaps, generalisation error."""

from typing import Any

import numpy as np

from ..models.base import form_of
from ..models.gaussian import KNOWN, expected
from ..spec.check import Array, as_array, finite, frozen, real
from ..spec.record import record
from .base import Metric, by_parts
from .two_layer import activation, neurons, refuse_neurons


def _weights(value, field):
    array = finite(as_array(value, field, ndim=2), field).astype(np.float64)
    return frozen(array)


def _refuse_teacher(teacher, data):
    if teacher.shape[1] != data.d or len(teacher) == 0:
        return f"teacher has shape {teacher.shape}, expected [M, {data.d}] with M >= 1"
    return None


@record(eq=True)
class Overlaps(Metric):
    """Overlaps of a two-layer network's neurons, Q = W1 W1^T / d, [N, S, h, h].

    Source: Saad and Solla 1995
    """

    name: str = "overlaps"

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_neurons(model)

    def axes(self, model: Any, data: Any) -> dict | None:
        h = model.shapes()["W1"][0]
        return {"unit": range(h), f"{self.name}_unit": range(h)}

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        h = model.shapes()["W1"][0]
        return by_parts(lambda params: params["W1"] @ params["W1"].swapaxes(1, 2) / model.d, 8 * h**2, params)


@record()
class TeacherOverlaps(Metric):
    """Overlaps of a two-layer network's neurons with a teacher's, R = W1 W*^T / d, [N, S, h, M].

    teacher [M, d]: W*, finite. Source: Saad and Solla 1995
    """

    teacher: Array
    name: str = "teacher_overlaps"

    def __post_init__(self):
        object.__setattr__(self, "teacher", _weights(self.teacher, "TeacherOverlaps.teacher"))

    def refuse(self, model: Any, data: Any) -> str | None:
        return _refuse_teacher(self.teacher, data) or refuse_neurons(model)

    def axes(self, model: Any, data: Any) -> dict | None:
        return {"unit": range(model.shapes()["W1"][0]), f"{self.name}_unit": range(len(self.teacher))}

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        h = model.shapes()["W1"][0]
        return by_parts(lambda params: params["W1"] @ self.teacher.T / model.d, 8 * h * len(self.teacher), params)


@record()
class GeneralisationError(Metric):
    """Expected loss of a two-layer network without biases against a teacher under inputs x ~ N(0, I_d), closed form.

    factor * E (h(x) - h*(x))^2 with h(x) = c_2 sum_k a_k act(c_1 w_k . x) and h*(x) = c_2 sum_m v_m act(c_1 w*_m . x);
    the scalings c and the activation are the network's. It is factor * sum_ij s_i s_j E[act(z_i) act(z_j)] over the
    units of both, s = c_2 (a, -v). With covariance C of z, E = (2/pi) arcsin(2 C_12 / sqrt((1 + 2 C_11)(1 + 2 C_22)))
    for "erf" (erf(z) itself: Saad and Solla's erf(z / sqrt 2) is scaling=(1/sqrt(2 d), 1)), the arc-cosine kernel for
    "relu", C_12 for "identity", C_11 C_22 + 2 C_12^2 for "square"; "leaky" and "abs" have one as well. To train on it,
    see fs.data.Population.

    teacher [M, d]: w*, finite; teacher_output [M]: v, finite, by default ones
    factor: > 0; the default 1/2 is Saad and Solla's
    Source: Saad and Solla 1995; Cho and Saul 2009 (ReLU)
    """

    teacher: Array
    teacher_output: Array | None = None
    factor: float = 0.5
    name: str = "generalisation_error"

    def __post_init__(self):
        put = object.__setattr__
        put(self, "teacher", _weights(self.teacher, "GeneralisationError.teacher"))
        v = np.ones(len(self.teacher)) if self.teacher_output is None else self.teacher_output
        v = finite(as_array(v, "GeneralisationError.teacher_output", ndim=1), "GeneralisationError.teacher_output")
        put(self, "teacher_output", frozen(v.astype(np.float64)))
        put(self, "factor", real(self.factor, "GeneralisationError.factor", 0, low_open=True, high=1e300))

    def refuse(self, model: Any, data: Any) -> str | None:
        why = _refuse_teacher(self.teacher, data) or refuse_neurons(model)
        if why:
            return why
        if len(self.teacher_output) != len(self.teacher):
            return f"teacher_output has length {len(self.teacher_output)}, teacher has M={len(self.teacher)} units"
        kind = activation(model)[0]
        if kind not in KNOWN:
            return f"there is no closed form for the activation {kind!r}, only for {', '.join(KNOWN)}"
        biases = [name for name in model.shapes() if name.startswith("b")]
        return f"the closed form has no biases, this model has {', '.join(biases)}" if biases else None

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        first, last = form_of(model).multipliers

        def error(params):
            w, _, a = neurons(model, params)
            N = len(w)
            w = np.concatenate([w, np.broadcast_to(first * self.teacher, (N, *self.teacher.shape))], axis=1)
            s = np.concatenate([a, np.broadcast_to(-last * self.teacher_output, (N, len(self.teacher)))], axis=1)
            return self.factor * np.einsum("ni,nij,nj->n", s, expected(*activation(model), w, w, same=True), s)

        units = model.shapes()["W1"][0] + len(self.teacher)
        return by_parts(error, 8 * units * (2 * model.d + 6 * units + 3 * units * model.d), params)
