"""Owns arrays with named axes for reports; xarray can do more, but takes a second to import."""

import warnings
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Labelled:
    """An array and the names of its axes.

    dims: a name for each axis; values: the array
    """

    dims: tuple
    values: np.ndarray

    @property
    def sizes(self):
        """{axis: length}."""
        return dict(zip(self.dims, self.values.shape, strict=True))

    def at(self, **places):
        """The values at these places on the named axes, which are dropped."""
        index = tuple(places.get(dim, slice(None)) for dim in self.dims)
        return Labelled(tuple(dim for dim in self.dims if dim not in places), self.values[index])

    def over(self, how, kept):
        """how(array, axis=...) over all axes but those kept, e.g. np.nanmean."""
        axes = tuple(k for k, dim in enumerate(self.dims) if dim not in kept)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of cells that are lost or missing
            values = how(self.values, axis=axes) if axes else self.values
        return Labelled(tuple(dim for dim in self.dims if dim in kept), np.asarray(values))

    def turned(self, *dims):
        """With its axes in this order."""
        return Labelled(dims, self.values.transpose([self.dims.index(dim) for dim in dims]))


class Cells(dict):
    """{name: Labelled} of a sweep's cells.

    coords: {name: (axis, values)}
    """

    def __init__(self, data, coords):
        super().__init__({name: Labelled(tuple(dims), np.asarray(values)) for name, (dims, values) in data.items()})
        self.coords = {name: pair if isinstance(pair, tuple) else (name, pair) for name, pair in coords.items()}

    @property
    def sizes(self):
        """{axis: length} of all arrays."""
        return {dim: size for array in self.values() for dim, size in array.sizes.items()}

    def label(self, dim, k):
        """A value of an axis as text."""
        value = self.coords[dim][1][k] if dim in self.coords else k
        return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
