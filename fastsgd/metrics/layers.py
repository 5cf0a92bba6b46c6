"""Owns metrics of hidden activations: which layers they look at, and the axis "layer" where there are several."""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .base import Metric, by_parts
from .points import refuse_no_training

_known = WeakKeyDictionary()  # of models that can be keys: every record of a run asks


def hidden(model):
    """{hidden layer: its width} of a family; {} if it has none."""
    can_be_key = type(model).__hash__ is not None
    if can_be_key and model in _known:
        return _known[model]
    zero = model.unflatten(np.zeros(model.P))
    features = model.features(zero, np.zeros((1, model.d)))
    widths = {name: a.shape[-1] for name, a in (features or {}).items()}
    if can_be_key:
        _known[model] = widths
    return widths


class OfLayers(Metric):
    """A number for each hidden layer, from its activations Phi [n, h] on the training inputs.

    A subclass has a field `layer`: the name of one hidden layer, or None for all; records are [N, S] for one layer
    and [N, S, layers], with the axis "layer", for several.
    """

    layer = None

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_no_training(data) or self.refuse_layer(model)

    def refuse_layer(self, model: Any) -> str | None:
        """None, or why a model has no such layer."""
        have = list(hidden(model))
        if not have:
            return f"{type(model).__name__} has no hidden activations"
        if self.layer is not None and self.layer not in have:
            return f"layer is {self.layer!r}, this model has {have}"
        return None

    def layers(self, model: Any) -> list:
        """Names of the layers to look at."""
        return list(hidden(model)) if self.layer is None else [self.layer]

    def axes(self, model: Any, data: Any) -> dict | None:
        layers = self.layers(model)
        return {"layer": layers} if len(layers) > 1 else None

    def where(self, model: Any, data: Any) -> np.ndarray:
        """The inputs [n, d] at which activations are taken."""
        return data.X.astype(np.float64)

    def value(self, features: Any) -> Any:
        """The number [N] of one layer's activations Phi [N, n, h]; given the start's as well with `needs_start`."""
        raise NotImplementedError

    def compute(self, model: Any, params: dict, data: Any, loss: Any, start: Any = None) -> np.ndarray:
        return self.over(self.value, model, params, data, start)

    def over(self, value: Any, model: Any, params: dict, data: Any, start: Any = None) -> np.ndarray:
        """`compute` with another function in the place of `value`."""
        X, layers = self.where(model, data), self.layers(model)
        stacks = (params,) if start is None else (params, start)

        def part(*stacks):
            features = [model.features(stack, X) for stack in stacks]
            values = [value(*(phi[layer] for phi in features)) for layer in layers]
            return values[0] if len(layers) == 1 else np.stack(values, axis=1)

        widths = hidden(model)
        bytes_each = 8 * sum(6 * len(X) * width + 4 * width**2 for width in widths.values())
        return by_parts(part, bytes_each, *stacks)
