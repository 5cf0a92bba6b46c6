"""Owns the inputs at which metrics look at a network: given points, training points, test points."""

import numpy as np

from ..models.exact import is_population
from ..spec.check import as_array, finite, frozen


def as_points(value, field):
    """Points [m, d] as a read-only float64 array; None stays None. Raises SpecError."""
    if value is None:
        return None
    return frozen(finite(as_array(value, field, ndim=2), field).astype(np.float64))


def refuse_no_training(data):
    """None, or that the data have no training set (inputs made on the way)."""
    return "the data have no training set; give them X_test, y_test and a metric of these" if data.X is None else None


def refuse_no_loss(data):
    """None, or that the data have no training loss."""
    return None if is_population(data) else refuse_no_training(data)


def refuse_points(points, data):
    """None, or why neither `points` nor training inputs can be had."""
    if points is None:
        return refuse_no_training(data)
    if (points.shape[1] != data.d or len(points) == 0):
        return f"points has shape {points.shape}, expected [m, {data.d}] with m >= 1"
    return None


def refuse_test_points(points, data):
    """None, or why neither `points` nor test points can be had."""
    if points is None:
        return "points is not given and the data set has no X_test" if data.X_test is None else None
    return refuse_points(points, data)


def train_points(points, data):
    """`points`, by default the training inputs, float64."""
    return data.X.astype(np.float64) if points is None else points


def test_points(points, model, data):
    """`points`, by default the first min(P, n_test) test inputs, float64."""
    return data.X_test[:model.P].astype(np.float64) if points is None else points
