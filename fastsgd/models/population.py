"""Owns the exact loss over Gaussian inputs as a network: from student and teacher to their expected squared error."""

from typing import Any

import numpy as np

from ..spec.kinds import kind_of
from ..spec.loss import Output, Squared
from ..spec.problem import Dataset
from ..spec.record import record
from .base import Model, form_of
from .dense import Dense
from .form import Form
from .gaussian import KNOWN, expected, slope_of

LEADING = 3  # numbers of a row before the teacher's weights


@record()
class Population(Form):
    """Pairs of units of a student [o, h, d] and a teacher [o, m, d]; inner, outer: whether W1, W2 are trained.

    kind: 0 of erf, 1 of what is linear in two pieces, 2 of squares
    """

    d: int
    h: int
    m: int
    o: int
    kind: int
    inner: bool
    outer: bool
    name, struct = "population", "Population"
    fields = ("d", "h", "m", "o", "kind", "inner", "outer")

    @property
    def residuals(self):
        return 3 * self.h * (self.h + self.m) + self.h + self.m + self.h * (self.d + self.o)

    @property
    def longest(self):
        return max(self.h * self.d, self.h * (self.h + self.m))

    @property
    def costs(self):
        return "dense", 3 * self.h * (self.h + self.m) * self.d

    @property
    def smooth(self):
        return self.kind != 2

    @property
    def units(self):
        return self.h * (self.h + self.m)


@record()
class Expected(Model):
    """E sum_k (h_k(x) - h*_k(x))^2 over x ~ N(0, I), of a student's parameters; the teacher is the input.

    student: a two-layer network without biases; units: the teacher's
    An input [d] is a row of `rows`.
    """

    student: Model
    units: int

    @property
    def d(self) -> int:
        """Numbers of a row."""
        form = form_of(self.student)
        return LEADING + self.units * (form.sizes[0] + form.outputs)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.student.shapes()

    def scales(self) -> dict:
        return self.student.scales()

    def trained(self, name: str) -> bool:
        return self.student.trained(name)

    def form(self) -> Form | None:
        form = form_of(self.student)
        d, h, o = form.sizes
        kind = {"erf": 0, "square": 2}.get(form.activation, 1)
        return Population(d, h, self.units, o, kind, *(weights for weights, _ in form.trained))

    def forward(self, params: dict, X: Any) -> Any:
        form, m = form_of(self.student), self.units
        (d, _, o), (first, last) = form.sizes, form.multipliers
        w, a = first * params["W1"], last * params["W2"]
        t = first * X[:, LEADING:LEADING + m * d].reshape((len(X), m, d))
        v = last * X[:, LEADING + m * d:].reshape((len(X), o, m)).swapaxes(-1, -2)
        own = (a.swapaxes(-1, -2) @ a) * expected(form.activation, form.slope, w, w, same=True)
        return own.sum() - 2 * ((v @ a) * expected(form.activation, form.slope, w, t)).sum((-1, -2)) + X[:, 1]


def rows(student, teacher, weights):
    """Rows [K, d] of `Expected` of teachers {name: [K, ...]}, float64: a number of the activation, E h*^2, a factor of
    the rest, and weights whose scalings are the student's.
    """
    form, theirs = form_of(student), form_of(teacher)
    (first, last), (c1, c2) = form.multipliers, theirs.multipliers
    t, v = c1 * np.asarray(weights["W1"], np.float64), c2 * np.asarray(weights["W2"], np.float64)
    teacher_part = ((v.swapaxes(-1, -2) @ v) * expected(form.activation, form.slope, t, t, same=True)).sum((-1, -2))
    slope = slope_of(form.activation, form.slope)
    number = {"erf": first**-2.0, "square": 0.0}.get(form.activation, slope)
    power = {"erf": 0, "square": 4}.get(form.activation, 2)
    leading = np.broadcast_to([number, 0.0, last**2 * first**power], (len(t), LEADING)).copy()
    leading[:, 1] = teacher_part
    return np.concatenate([leading, t.reshape(len(t), -1) / first, v.reshape(len(v), -1) / last], axis=1)


def as_network(model, data, loss):
    """(model, data, loss) whose mean is the loss over a population: a network of one sample, the teacher."""
    made = rows(model, data.teacher, data.stacked())
    X = made[:, None] if data.sets else made
    own = Dataset(X, np.zeros(X.shape[:-1]))
    return Expected(model, form_of(data.teacher).sizes[1]), own, Output(loss.factor)


def refuse(model, data, loss, rule=None):
    """None, or a sentence saying why these have no exact loss on a population."""
    return _refuse_networks(model, data.teacher) or _refuse_loss(loss) or (rule and _refuse_rule(rule))


def _refuse_networks(model, teacher):
    for what, network in (("model", model), ("data.teacher", teacher)):
        form = form_of(network)
        if not isinstance(form, Dense) or form.layers != 2 or any(form.bias):
            return (f"{what}: {type(network).__name__} given; the loss over Gaussian inputs is known for two-layer "
                    "networks without biases, e.g. fs.models.MLP(d, 2, activation='erf', bias=False)")
        if form.activation not in KNOWN:
            return (f"{what}: there is no closed form for the activation {form.activation!r}, only for "
                    f"{', '.join(KNOWN)}")
    own, theirs = form_of(model), form_of(teacher)
    alike = own.activation == theirs.activation and (own.activation != "leaky" or own.slope == theirs.slope)
    if not alike:
        return (f"data.teacher: has the activation {theirs.activation!r}, the model {own.activation!r}; the closed "
                "form is of two networks that have the same")
    return None


def _refuse_loss(loss):
    if kind_of(loss) is not Squared or loss.weights is not None:
        return (f"loss: {type(loss).__name__} given; the loss over Gaussian inputs is known for fs.losses.Squared "
                "without weights")
    return None


def _refuse_rule(rule):
    if not rule.full:
        return (f"rule: {type(rule).__name__} draws samples, a population is all of them at once; use fs.rules.GD, "
                "Flow, or batch_size=None; fs.data.Fresh draws from the same inputs")
    if "label_noise" in rule.noises():
        return "rule.label_noise: given, but a population has no labels that are drawn; gradient_noise= is possible"
    return None


__all__ = ["Expected", "Population", "as_network", "refuse"]
