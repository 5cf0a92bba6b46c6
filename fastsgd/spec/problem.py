"""Owns the data set a network is trained on and the loss it is trained with."""

from dataclasses import dataclass

import numpy as np

from ..errors import SpecError
from .check import as_array, finite, frozen, one_of


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training points and labels, and test points if there are any. All networks of a run share them.

    X [n, d]: training inputs, finite
    y [n]: training labels, finite
    X_test [n_test, d], y_test [n_test]: optional test set, given together
    Arrays may be NumPy, torch or DLPack, float32 or float64 (whole numbers are taken as float64). A dtype is never
    changed silently: the plan refuses float64 data in a float32 run, `astype` converts on request.
    Raises SpecError on wrong shapes or non-finite entries.
    """

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray | None = None
    y_test: np.ndarray | None = None

    def __post_init__(self):
        self._put("X", "y")
        if (self.X_test is None) != (self.y_test is None):
            raise SpecError("X_test and y_test: one is missing, give both or neither")
        if self.X_test is not None:
            self._put("X_test", "y_test")
            if self.X_test.shape[1] != self.X.shape[1]:
                raise SpecError(f"X_test: has d={self.X_test.shape[1]} inputs, X has d={self.X.shape[1]}")

    def _put(self, points, labels):
        X = finite(as_array(getattr(self, points), points, ndim=2), points)
        y = finite(as_array(getattr(self, labels), labels, ndim=1), labels)
        if 0 in X.shape:
            raise SpecError(f"{points}: has shape {X.shape}, expected at least one point and one input")
        if len(X) != len(y):
            raise SpecError(f"{labels}: has length {len(y)}, {points} has n={len(X)} points")
        for name, array in ((points, X), (labels, y)):
            if array.dtype.kind in "iu":
                array = array.astype(np.float64)
            if array.dtype not in (np.float32, np.float64):
                raise SpecError(f"{name}: holds {array.dtype}, expected float32, float64 or whole numbers")
            object.__setattr__(self, name, frozen(array))

    def astype(self, dtype):
        """The same data in another precision, "float32" or "float64"."""
        one_of(dtype, "dtype", ("float32", "float64"))
        arrays = (self.X, self.y, self.X_test, self.y_test)
        with np.errstate(over="ignore"):
            return Dataset(*(None if a is None else a.astype(dtype) for a in arrays))

    @property
    def n(self):
        """Number of training points."""
        return self.X.shape[0]

    @property
    def d(self):
        """Number of inputs."""
        return self.X.shape[1]
