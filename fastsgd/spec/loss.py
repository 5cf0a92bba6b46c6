"""Owns the losses of one sample: values in plain operators, legal labels, and when an output is out of bounds."""

import sys
from typing import Any, ClassVar

import numpy as np

from ..errors import SpecError
from .check import CONSTANT, Array, as_array, as_float, finite, frozen, real_or_each
from .operators import choose, cross_entropy, like, softplus
from .record import Record, record
from .record import like as copied


class Loss(Record):
    """A loss of one sample; the loss of a data set is the mean over samples.

    A loss is a frozen dataclass with `name`, `factor`, `value` and `refuse`.
    """

    name: Any = None
    axes: ClassVar = {}  # {name of a number: its axes for one network}, of those that are no single numbers

    def __post_init__(self):
        factor = real_or_each(self.factor, "loss.factor", 0, low_open=True, high=sys.float_info.max)
        object.__setattr__(self, "factor", factor)

    def numbers(self) -> dict:
        """{name: [...] or [N, ...]} of the numbers that networks may have of their own."""
        return {"factor": self.factor}

    def shape(self, name: str) -> tuple:
        """That of one of `numbers` for one network."""
        axes = self.axes.get(name, 0)
        return np.shape(self.numbers()[name])[-axes:] if axes else ()

    def having(self, numbers: dict) -> "Loss":
        """The same loss with other numbers {name: number or tensor}, unchecked."""
        return copied(self, **numbers)

    def lengths(self) -> dict[str, int]:
        """{field: number of networks it was given for}."""
        return {f"loss.{name}": len(a) for name, a in self.numbers().items() if np.ndim(a) > self.axes.get(name, 0)}

    def own(self) -> tuple:
        """Names of the numbers that kernels read for each network; the others are part of their text."""
        numbers, lengths = self.numbers(), self.lengths()
        own = [name for name in numbers if f"loss.{name}" in lengths or name.startswith(CONSTANT)]
        return tuple(numbers) if own else ()

    def picked(self, which: Any) -> "Loss":
        """The loss of the networks `which` [M], or of one alone."""
        own = {name.partition(".")[2] for name in self.lengths()}
        if not own:
            return self
        picked = {name: a[which] for name, a in self.numbers().items() if name in own}
        return self.having({name: float(a) if np.ndim(a) == 0 else frozen(a) for name, a in picked.items()})

    def value(self, f: Any, y: Any, outputs: int = 1) -> Any:
        """Losses [...] of predictions f [...], or [..., o] of o > 1 outputs, at labels y; NumPy or torch."""
        raise NotImplementedError

    def gap(self, f: Any, y: Any) -> Any:
        """What must not exceed `bound`, in the shape of f."""
        return abs(f)

    def bound(self, lost_above: Any, dtype: str) -> Any:
        """The largest gap of a run that is not lost; [M] where lost_above or the loss's numbers are of M networks."""
        return np.minimum(lost_above, float(np.finfo(dtype).max) / np.maximum(self.factor, 1.0))

    def refuse(self, outputs: int, y: Any) -> str | None:
        """None, or a sentence saying why a network with that many outputs cannot be trained on labels y."""
        raise NotImplementedError


@record()
class Squared(Loss):
    """Squared loss of one sample, factor * (h(x) - y)**2, or factor * sum_k weights_k (h_k(x) - y_k)**2.

    factor [] or [N]: c > 0. Two conventions live in the literature: 1/2 (`Squared.half()`, arXiv 2210.05337's text and
        diagonal nets), so that a step is -eta * r * grad h, and 1 (`Squared.full()`, its ReLU code), so that a step is
        -2 * eta * r * grad h. Step sizes are not comparable between them.
    weights [o] or [N, o]: importance of each output, >= 0; by default 1
    Labels are [n], or [n, o] for o > 1 outputs.
    """

    factor: float | Array = 0.5
    weights: Array | None = None
    name = "squared"
    axes: ClassVar = {"weights": 1}
    noisy = True  # labels are numbers, to which noise may be added

    def __post_init__(self):
        super().__post_init__()
        if self.weights is not None:
            weights = finite(as_array(self.weights, "loss.weights", ndim=(1, 2)), "loss.weights")
            if weights.size == 0 or weights.min() < 0:
                raise SpecError(f"loss.weights: {weights} given, expected one number >= 0 for each output")
            object.__setattr__(self, "weights", frozen(as_float(weights, "loss.weights")))

    def numbers(self) -> dict:
        return super().numbers() | ({} if self.weights is None else {"weights": self.weights})

    @classmethod
    def half(cls) -> "Squared":
        """(1/2) r**2."""
        return cls(0.5)

    @classmethod
    def full(cls) -> "Squared":
        """r**2."""
        return cls(1.0)

    def value(self, f: Any, y: Any, outputs: int = 1) -> Any:
        square = (f - y) ** 2
        if self.weights is not None:
            square = square * like(self.weights if outputs > 1 else self.weights[0], square)
        return self.factor * (square.sum(-1) if outputs > 1 else square)

    def gap(self, f: Any, y: Any) -> Any:
        return abs(f - y)

    def bound(self, lost_above: Any, dtype: str) -> Any:
        weight = 1.0 if self.weights is None else np.maximum(self.weights.max(-1), 1.0)
        with np.errstate(over="ignore"):
            most = np.maximum(np.multiply(self.factor, weight, dtype=np.float64), 1.0)
        return np.minimum(lost_above, np.sqrt(float(np.finfo(dtype).max) / most))

    def refuse(self, outputs: int, y: Any) -> str | None:
        if self.weights is not None and self.weights.shape[-1] != outputs:
            return f"loss.weights has {self.weights.shape[-1]} entries, the model has {outputs} output(s)"
        if y is None or y.shape[1:] == ((outputs,) if outputs > 1 else ()):
            return None
        return f"y has shape {y.shape}, a model with {outputs} output(s) needs {(len(y), outputs)[:1 + (outputs > 1)]}"


class _Binary(Loss):
    """What losses of one output with labels -1 and +1 share."""

    def refuse(self, outputs: int, y: Any) -> str | None:
        if outputs != 1:
            return f"{type(self).__name__} needs a model with one output, this one has {outputs}; see CrossEntropy"
        if y is None:
            return f"{type(self).__name__} needs labels -1 and +1, inputs made on the way have others"
        if y.ndim != 1 or not np.isin(y, (-1, 1)).all():
            return f"{type(self).__name__} needs labels y [n] of -1 and +1"
        return None


@record()
class Logistic(_Binary):
    """Logistic loss of one sample, factor * log(1 + exp(-y h(x))), labels -1 and +1; factor [] or [N]: > 0."""

    factor: float | Array = 1.0
    name = "logistic"

    def value(self, f: Any, y: Any, outputs: int = 1) -> Any:
        return self.factor * softplus(-y * f)


@record()
class Hinge(_Binary):
    """Hinge loss of one sample, factor * max(0, 1 - y h(x)), labels -1 and +1; derivative 0 at the kink.

    factor [] or [N]: > 0
    """

    factor: float | Array = 1.0
    name = "hinge"

    def value(self, f: Any, y: Any, outputs: int = 1) -> Any:
        short = 1 - y * f
        return self.factor * choose(short > 0, short, 0)


@record()
class CrossEntropy(Loss):
    """Cross-entropy of one sample, factor * log sum_k exp(h_k(x) - h_y(x)); labels are classes 0 .. o - 1.

    factor [] or [N]: > 0
    """

    factor: float | Array = 1.0
    name = "cross_entropy"

    def value(self, f: Any, y: Any, outputs: int = 1) -> Any:
        return self.factor * cross_entropy(f, y[..., None] == like(np.arange(outputs), f))

    def bound(self, lost_above: Any, dtype: str) -> Any:
        return np.minimum(lost_above, super().bound(float("inf"), dtype) / 2)  # the loss is up to f_k - f_y

    def refuse(self, outputs: int, y: Any) -> str | None:
        if outputs < 2:
            return "CrossEntropy needs a model with two or more outputs; see Logistic for one"
        if y is None:
            return "CrossEntropy needs labels that are classes, inputs made on the way have others"
        if y.ndim != 1 or not np.isin(y, np.arange(outputs)).all():
            return f"CrossEntropy needs labels y [n] that are classes, whole numbers 0 .. {outputs - 1}"
        return None


@record()
class Output(Loss):
    """The output itself as the loss of one sample, factor * h(x): of a network that computes its own, labels unused."""

    factor: float = 1.0
    name = "output"

    def value(self, f: Any, y: Any, outputs: int = 1) -> Any:
        return self.factor * f

    def refuse(self, outputs: int, y: Any) -> str | None:
        if outputs != 1:
            return f"Output needs a model with one output, this one has {outputs}"
        if y is not None and y.ndim != 1:
            return f"Output needs labels y [n], which it does not look at; y has shape {y.shape}"
        return None


KINDS = (Squared, Logistic, Hinge, CrossEntropy, Output)  # that kernels have
__all__ = ["KINDS", "CrossEntropy", "Hinge", "Logistic", "Loss", "Output", "Squared"]
