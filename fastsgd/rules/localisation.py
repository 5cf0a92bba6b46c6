"""Owns what keeps a network near a point."""

from dataclasses import field
from typing import Any

import numpy as np

from ..errors import SpecError
from ..spec.check import as_array, as_float, finite, frozen, per_parameter
from ..spec.record import Record, record


@record()
class Localisation(Record):
    """Adds (gamma / 2) ||w - w*||^2 to the loss of every step, its gradient gamma (w - w*); a rule's `localisation`.

    gamma: >= 0, [] or [N], or {name of a parameter: [] or [N]}, 0 for those that are not named
    at: w* {name: array of the parameter's shape}, one point for all networks, all parameters named; by default each
        network stays near its own start
    """

    gamma: Any
    at: dict | None = field(default=None, metadata={"shared": True})

    def __post_init__(self):
        object.__setattr__(self, "gamma", per_parameter(self.gamma, "rule.localisation.gamma", 0))
        if self.at is None:
            return
        if not isinstance(self.at, dict) or not all(isinstance(name, str) for name in self.at):
            raise SpecError("rule.localisation.at: expected {name of a parameter: array}")
        arrays = {}
        for name, value in self.at.items():
            what = f"rule.localisation.at.{name}"
            arrays[name] = frozen(as_float(finite(as_array(value, what), what), what))
        object.__setattr__(self, "at", arrays)

    def refuse(self, shapes: dict) -> str | None:
        """None, or a sentence saying why a model with parameters of these shapes cannot stay near the point."""
        if self.at is None:
            return None
        if set(self.at) != set(shapes):
            return f"localisation.at has {sorted(self.at)}, the model's parameters are {list(shapes)}"
        for name, shape in shapes.items():
            if self.at[name].shape != tuple(shape):
                return f"localisation.at.{name} has shape {self.at[name].shape}, expected {tuple(shape)}"
        return None

    def point(self, shapes: dict) -> np.ndarray | None:
        """w* [P] in canonical order, None for the start."""
        return None if self.at is None else np.concatenate([self.at[name].ravel() for name in shapes])
