"""Owns what every model family shares: parameters as a dict of named arrays or as one flat [N, P] array."""

from abc import ABC, abstractmethod
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ..errors import BackendUnavailable, SpecError
from ..native import default_threads, native
from ..spec import draws
from ..spec.check import FAMILY, as_array, as_float, finite, needs, used
from ..spec.kinds import kind_of
from ..spec.record import Record
from .form import Form

SHARED = 1 << 14  # starting weights that are worth a second thread


def form_of(model):
    """The Form of a model, None where its mathematics are its own: then it is traced."""
    return None if kind_of(model) is None else model.form()


class Model(Record, ABC):
    """A family of small networks.

    A family is a frozen dataclass with `d`, `shapes()`, `scales()` and `forward`; all else follows.
    """

    outputs = 1  # number o of outputs; predictions are [n] if it is 1, else [n, o]

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{name: shape} of one network's parameters, in canonical order."""

    @abstractmethod
    def scales(self) -> dict:
        """{name: (mean, deviation)} of the starting weights, each a float64 array [] or [N]."""

    @abstractmethod
    def forward(self, params: dict, X: Any) -> Any:
        """Predictions [n] or [n, o] of one network at X [n, d], in plain operators that NumPy and torch both run."""

    def features(self, params: dict, X: Any) -> dict | None:
        """Hidden activations {layer: [..., n, h]} of networks with leading axes; None if the family has none."""
        return None

    def form(self) -> Form | None:
        """What kernels know of this network, a `models.form.Form`; None where `forward` is traced instead."""
        return None

    def trained(self, name: str) -> bool:
        """Whether the parameters called `name` change in training."""
        return True

    @property
    def P(self) -> int:
        """Number of parameters of one network."""
        return sum(prod(shape) for shape in self.shapes().values())

    def lengths(self) -> dict[str, int]:
        """{field: number of networks}, for starting scales that were given per network."""
        return {f"model ({what} of the starting {name})": len(a) for name, pair in self.scales().items()
                for what, a in zip(("mean", "deviation"), pair, strict=True) if np.ndim(a)}

    def start(self, seed: int, ids: Any, keys: Any = None) -> np.ndarray:
        """Starting weights [N, P] float64 of the networks `ids`: mean + deviation * normal draw (seed, key, j).

        keys [N]: whose draws they have; by default their own
        """
        return started(self, seed, ids, keys, "float64")[0]

    def flatten(self, params: dict, N: int, field: str = "init") -> np.ndarray:
        """Pack {name: [N, ...] or [...]} into [N, P]; names must be exactly the family's. Raises SpecError."""
        shapes = self.shapes()
        if set(params) != set(shapes):
            raise SpecError(f"{field}: has {sorted(params)}, expected {list(shapes)}")
        rows = []
        for name, shape in shapes.items():
            array = params[name]
            if array.shape not in (shape, (N, *shape)):
                raise SpecError(f"{field}.{name}: has shape {array.shape}, expected {shape} or {(N, *shape)}")
            rows.append(array.reshape(-1, prod(shape)))
        out, at = np.empty((N, sum(a.shape[1] for a in rows)), np.result_type(*rows)), 0
        for a in rows:
            out[:, at:at + a.shape[1]] = a
            at += a.shape[1]
        return out

    def predict(self, params: Any, X: Any) -> Any:
        """Predictions h(x_1..n) of any number of networks, in float64: [..., n], or [..., n, o] of o > 1 outputs.

        params: {name: [..., *shape]} or flat [..., P], with the same leading axes; X [n, d]
        Returns a torch tensor where params are tensors, else NumPy. Raises SpecError for other names or shapes.
        """
        X = finite(as_array(X, "X", ndim=2).astype(np.float64), "X")
        if X.shape[1] != self.d:
            raise SpecError(f"X: has shape {X.shape}, expected [n, {self.d}]")
        one = next(iter(params.values()), None) if isinstance(params, dict) else params
        rows, lead = as_rows(self, params)
        forward = self.forward if kind_of(self) is not None else partial(_in_torch, self.forward)
        f = [forward(self.unflatten(row), X) for row in rows.astype(np.float64)]
        size = (len(X), self.outputs)[:1 + (self.outputs > 1)]
        out = np.reshape(np.array(f, dtype=np.float64), (*lead, *size))
        if not hasattr(one, "detach"):
            return out
        import torch

        return torch.from_numpy(out).to(one.device)

    def unflatten(self, flat: Any) -> dict:
        """View flat parameters [..., P] as {name: [..., *shape]}; NumPy or torch."""
        out, at = {}, 0
        for name, shape in self.shapes().items():
            size = prod(shape)
            out[name] = flat[..., at:at + size].reshape((*flat.shape[:-1], *shape))
            at += size
        return out


def started(model: Model, seed: int, ids: Any, keys: Any, dtype: str) -> tuple[np.ndarray, bool]:
    """(starting weights [N, P] by `Model.start` in `dtype`, whether all are finite); by threads where they can be."""
    ids, scales = np.asarray(ids), model.scales()
    keys = (ids if keys is None else np.asarray(keys)).astype(np.uint32)
    groups = []
    for name, shape in model.shapes().items():
        pair = [np.asarray(a, np.float64) for a in scales[name]]
        groups.append((prod(shape), *(a[ids] if a.ndim else a for a in pair)))
    out = np.empty((len(ids), sum(group[0] for group in groups)), dtype)
    try:
        module = native()
    except BackendUnavailable:
        return out, _started(out, seed, keys, groups)
    fill = module.starts_float32 if dtype == "float32" else module.starts_float64
    return out, fill(seed, keys, tuple(groups), 1 if out.size < SHARED else default_threads(), out)


def _started(out, seed, keys, groups):
    """What csrc/cpu/draws.cpp's `starts` does, to the same bits."""
    at = 0
    for size, mean, deviation in groups:
        z = draws.normals(seed, keys, at, at + size, "init") if used(deviation) else np.zeros((len(keys), size))
        with np.errstate(over="ignore"):
            out[:, at:at + size] = z * deviation.reshape(-1, 1) + (mean.reshape(-1, 1) + 0.0)  # a mean of -0 is 0
        at += size
    return bool(np.isfinite(out).all())


def family(model):
    """`model`, if it is one of fs.models or has what they have. Raises SpecError."""
    needs(model, "model", FAMILY, "a model from fs.models, e.g. ReLU2(d=3, width=10); fs.models.from_module makes one "
          "of a torch.nn.Module")
    return model


def as_rows(model, params):
    """(flat parameters [M, P], leading axes) of {name: [..., *shape]} or flat [..., P]. Raises SpecError."""
    shapes = model.shapes()
    if not isinstance(params, dict):
        flat = as_float(as_array(params, "params"), "params")
        if not flat.ndim or flat.shape[-1] != model.P:
            raise SpecError(f"params: has shape {flat.shape}, expected [..., {model.P}] or a dict of {list(shapes)}")
        return flat.reshape(-1, model.P), flat.shape[:-1]
    if set(params) != set(shapes):
        raise SpecError(f"params: has {sorted(params)}, expected {list(shapes)}")
    given = {name: as_float(as_array(params[name], f"params.{name}"), f"params.{name}") for name in shapes}
    try:
        lead = np.broadcast_shapes(*(a.shape[:a.ndim - len(shapes[name])] for name, a in given.items()))
        flat = [np.broadcast_to(a, (*lead, *shapes[name])).reshape(prod(lead), -1) for name, a in given.items()]
    except ValueError:
        have = {name: a.shape for name, a in given.items()}
        raise SpecError(f"params: has shapes {have}, expected [..., *shape] of {shapes} with the same leading "
                        "axes") from None
    return np.concatenate(flat, axis=1), lead


def _in_torch(forward, params, X):
    """What training makes of a `forward` that is a user's own: called with tensors."""
    import torch

    with torch.no_grad():
        return forward({name: torch.tensor(a) for name, a in params.items()}, torch.tensor(X)).numpy()
