"""Owns metrics of the function that a network computes: predictions at points, accuracy."""

from typing import Any

import numpy as np

from ..errors import SpecError
from ..spec.check import Array
from ..spec.record import record
from .base import Metric, by_parts, predictions
from .points import as_points, refuse_no_training, refuse_points


def _outputs(model):
    return {"output": range(model.outputs)} if model.outputs > 1 else {}


def _size(model, X):
    return 8 * len(X) * (model.d + model.outputs) + 16 * model.P


@record(eq=True)
class Predictions(Metric):
    """Predictions h(x_i) on the training inputs, [N, S, n], or [N, S, n, o] for more outputs."""

    name: str = "predictions"

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_no_training(data)

    def axes(self, model: Any, data: Any) -> dict | None:
        return {"sample": range(data.n)} | _outputs(model)

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        return by_parts(lambda params: predictions(model, params, data.X), _size(model, data.X), params)


@record()
class FittedFunction(Metric):
    """The function h at chosen points, [N, S, k], or [N, S, k, o] for more outputs.

    points [k, d]: e.g. a grid; finite, k >= 1. [k] is taken for [k, 1]
    """

    points: Array
    name: str = "fitted_function"

    def __post_init__(self):
        if self.points is None:
            raise SpecError("FittedFunction.points: missing, expected an array [k, d]")
        points = np.reshape(self.points, (-1, 1)) if np.ndim(self.points) == 1 else self.points
        object.__setattr__(self, "points", as_points(points, "FittedFunction.points"))

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_points(self.points, data)

    def axes(self, model: Any, data: Any) -> dict | None:
        labels = self.points[:, 0] if data.d == 1 else range(len(self.points))
        return {f"{self.name}_point": labels} | _outputs(model)

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        return by_parts(lambda params: predictions(model, params, self.points), _size(model, self.points), params)


def refuse_classes(model, y):
    """None, or why labels y are no classes that a model could predict."""
    if y.ndim == 2:
        one_hot = ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all()
        return None if one_hot and y.shape[1] == model.outputs else "the labels [n, o] are not one-hot"
    if model.outputs == 1:
        return None if np.isin(y, (-1, 1)).all() else "the labels of a network with one output must be -1 and 1"
    legal = np.isin(y, np.arange(model.outputs)).all()
    return None if legal else f"the labels must be classes 0 .. {model.outputs - 1}"


def accuracy(model, params, X, y):
    """Share of points in the right class [N]; see `TrainAccuracy`."""
    def share(params):
        f = predictions(model, params, X)
        known = np.isfinite(f).reshape(len(f), -1).all(axis=1)
        right = f * y > 0 if model.outputs == 1 else f.argmax(axis=2) == (y.argmax(axis=1) if y.ndim == 2 else y)
        return np.where(known, right.mean(axis=1), np.nan)

    return by_parts(share, _size(model, X), params)


@record(eq=True)
class TrainAccuracy(Metric):
    """Share of training points in the right class.

    One output, labels -1 and 1: sign of h(x); h(x) = 0 is wrong. More outputs: the largest one, the first of equals;
    labels are classes 0 .. o - 1, or one-hot [n, o].
    """

    name: str = "train_accuracy"

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_no_training(data) or refuse_classes(model, data.y)

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        return accuracy(model, params, data.X, data.y)


@record(eq=True)
class TestAccuracy(Metric):
    """Share of test points in the right class, the same rule as `TrainAccuracy`."""

    name: str = "test_accuracy"
    __test__ = False  # not a test class, whatever its name

    def refuse(self, model: Any, data: Any) -> str | None:
        return "the data set has no X_test, y_test" if data.X_test is None else refuse_classes(model, data.y_test)

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        return accuracy(model, params, data.X_test, data.y_test)
