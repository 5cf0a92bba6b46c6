"""Owns what every model family shares: parameters as a dict of named arrays or as one flat [N, P] array."""

from abc import ABC, abstractmethod
from math import prod

import numpy as np

from ..errors import BackendUnavailable, SpecError
from ..native import default_threads, native
from ..spec import draws
from ..spec.kinds import kind_of
from ..spec.record import Record


def form_of(model):
    """The Form of a model, None where its mathematics are its own: then it is traced."""
    return None if kind_of(model) is None else model.form()


class Model(Record, ABC):
    """A family of small networks.

    A family is a frozen dataclass with `d`, `shapes()`, `scales()` and `forward`; all else follows.
    """

    outputs = 1  # number o of outputs; predictions are [n] if it is 1, else [n, o]

    @abstractmethod
    def shapes(self):
        """{name: shape} of one network's parameters, in canonical order."""

    @abstractmethod
    def scales(self):
        """{name: (mean, deviation)} of the starting weights, each a float64 array [] or [N]."""

    @abstractmethod
    def forward(self, params, X):
        """Predictions [n] or [n, o] of one network at X [n, d], in plain operators that NumPy and torch both run."""

    def features(self, params, X):
        """Hidden activations {layer: [..., n, h]} of networks with leading axes; None if the family has none."""
        return None

    def form(self):
        """What kernels know of this network, a `models.form.Form`; None where `forward` is traced instead."""
        return None

    def trained(self, name):
        """Whether the parameters called `name` change in training."""
        return True

    @property
    def P(self):
        """Number of parameters of one network."""
        return sum(prod(shape) for shape in self.shapes().values())

    def lengths(self):
        """{field: number of networks}, for starting scales that were given per network."""
        return {f"model ({what} of the starting {name})": len(a) for name, pair in self.scales().items()
                for what, a in zip(("mean", "deviation"), pair, strict=True) if np.ndim(a)}

    def start(self, seed, ids, keys=None):
        """Starting weights [N, P] float64 of the networks `ids`: mean + deviation * normal draw (seed, key, j).

        keys [N]: whose draws they have; by default their own
        """
        ids = np.asarray(ids)
        keys = ids if keys is None else np.asarray(keys)
        scales = {name: [a[ids, None] if np.ndim(a) else a for a in pair] for name, pair in self.scales().items()}
        drawn = any(np.any(deviation) for _, deviation in scales.values())
        out, at = _normals(seed, keys, self.P) if drawn else np.zeros((len(ids), self.P)), 0
        for name, shape in self.shapes().items():
            part, (mean, deviation) = out[:, at:at + prod(shape)], scales[name]
            np.multiply(part, deviation, out=part)
            np.add(part, mean + 0.0, out=part)  # a mean of -0 is 0
            at += part.shape[1]
        return out

    def flatten(self, params, N, field="init"):
        """Pack {name: [N, ...] or [...]} into [N, P]; names must be exactly the family's. Raises SpecError."""
        shapes = self.shapes()
        if set(params) != set(shapes):
            raise SpecError(f"{field}: has {sorted(params)}, expected {list(shapes)}")
        columns = []
        for name, shape in shapes.items():
            array = params[name]
            if array.shape not in (shape, (N, *shape)):
                raise SpecError(f"{field}['{name}']: has shape {array.shape}, expected {shape} or {(N, *shape)}")
            columns.append(np.broadcast_to(array, (N, *shape)).reshape(N, -1))
        return np.concatenate(columns, axis=1)

    def unflatten(self, flat):
        """View flat parameters [..., P] as {name: [..., *shape]}; NumPy or torch."""
        out, at = {}, 0
        for name, shape in self.shapes().items():
            size = prod(shape)
            out[name] = flat[..., at:at + size].reshape((*flat.shape[:-1], *shape))
            at += size
        return out


def _normals(seed, ids, count):
    """Normal draws 0 .. count - 1 of stream "init", [len(ids), count]: compiled where it can be, to the same bits."""
    try:
        module = native()
    except BackendUnavailable:
        return draws.normals(seed, ids, 0, count, "init")
    return module.normals(seed, ids.astype(np.uint32), 0, count, draws.STREAMS["init"], threads=default_threads())
