"""Owns data that are all Gaussian inputs at once: the training loss is an expectation, and nothing is drawn."""

import numpy as np

from ..errors import SpecError
from .check import one_of, whole
from .problem import Data, teacher_weights, teachers_of
from .record import record


@record()
class Population(Data):
    """All inputs x ~ N(0, I) at once: the training loss is E loss(h(x), h*(x)) against a teacher, in closed form.

    d: number of inputs, >= 1
    teacher: a two-layer network without biases, of the activation "erf", "relu", "leaky", "abs", "square" or "identity"
    weights: the teacher's parameters {name: array}, or {name: [N, ...]}, a teacher for each network; in the run's
        dtype or whole numbers, `astype` converts on request
    The model is such a network with the same activation, of any width, scaling, and number of outputs; the loss is
    `Squared` without weights. Rules take the exact gradient: GD, Flow, and others with batch_size=None. Metrics of the
    training loss are those of the expectation; those that look at samples are refused. A run is lost where
    E |h - h*|^2 exceeds the rule's `lost_above`. `Fresh(d, teacher, weights)` draws from the same inputs: SGD on it has
    this loss's gradient in the mean.
    """

    d: int
    teacher: object
    weights: dict
    X = y = X_test = y_test = which = None
    n = 1
    kind = "population"

    def __post_init__(self):
        object.__setattr__(self, "d", whole(self.d, "data.d", 1))
        if self.teacher is None or self.weights is None:
            raise SpecError("data.teacher and data.weights: one is missing, give both")
        object.__setattr__(self, "weights", teacher_weights(self))

    @property
    def outputs(self) -> int:
        """Numbers in a label."""
        return self.teacher.outputs

    @property
    def sets(self) -> int:
        """Number N of teachers of which each network has one; 0 where all share one."""
        return teachers_of(self)

    def lengths(self) -> dict[str, int]:
        """{field: number of networks it was given for}."""
        return {"data.weights": self.sets} if self.sets else {}

    def stacked(self) -> dict[str, np.ndarray]:
        """{name: [K, ...]} of the K teachers, one of which is all that networks share."""
        return self.weights if self.sets else {name: a[None] for name, a in self.weights.items()}

    def astype(self, dtype: str) -> "Population":
        """The same with the teacher's weights in another precision, "float32" or "float64"."""
        one_of(dtype, "dtype", ("float32", "float64"))
        with np.errstate(over="ignore"):
            return self._with(lambda a: a.astype(dtype))

    def _with(self, part):
        return type(self)(self.d, self.teacher, {name: part(a) for name, a in self.weights.items()})
