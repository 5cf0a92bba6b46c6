"""Owns the losses on the training and the test set."""

from typing import Any

import numpy as np

from ..models.exact import exact
from ..spec.record import record
from .base import Metric
from .points import refuse_no_loss


def mean_loss(model, params, X, y, loss):
    """Mean loss over points, [N]: (1/n) sum_i loss(h(x_i), y_i), networks one after the other to bound memory."""
    X, y = X.astype(np.float64), y.astype(np.float64)
    N = len(next(iter(params.values())))
    networks = ({name: a[i] for name, a in params.items()} for i in range(N))
    return np.array([loss.value(model.forward(one, X), y, model.outputs).mean() for one in networks])


@record(eq=True)
class TrainLoss(Metric):
    """Mean loss over the training set, (1/n) sum_i loss(h(x_i), y_i)."""

    name: str = "train_loss"

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_no_loss(data)

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        model, data, loss = exact(model, data, loss)
        return mean_loss(model, params, data.X, data.y, loss)


@record(eq=True)
class TestLoss(Metric):
    """Mean loss over the test set, the same formula as `TrainLoss`."""

    name: str = "test_loss"
    __test__ = False  # not a test class, whatever its name

    def refuse(self, model: Any, data: Any) -> str | None:
        return "the data set has no X_test, y_test" if data.X_test is None else None

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        return mean_loss(model, params, data.X_test, data.y_test, loss)
