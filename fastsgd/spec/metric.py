"""Owns what every metric is: a name, axes, a computation in float64; and metrics that are users' functions."""

from dataclasses import field
from typing import Any

import numpy as np

from ..errors import SpecError
from .check import as_array
from .record import Record, record


class Metric(Record):
    """A number (or array) computed from a network's parameters at saved steps.

    A metric is a frozen dataclass with `name`; `compute` is its definition in float64 and what every backend without
    a kernel of its own runs. Records are float64 [N, S, ...].

    needs_start: whether `compute` is also given start={name: [N, ...]}, the same networks' parameters at step 0
    needs_carried: names of buffers of the rule that `compute` is also given, carried={name: [N, P]}
    """

    name: Any = None
    needs_start = False
    needs_carried = ()

    def refuse(self, model: Any, data: Any) -> str | None:
        """Return None, or a sentence saying why this model or data set cannot have this metric."""
        return None

    def axes(self, model: Any, data: Any) -> dict | None:
        """{name of an axis: its labels}, in order, of what follows [N, S]; None if it is a number or not known before.

        An axis whose labels are the metric's own choice carries the metric's name; "layer", "input", "output",
        "sample" and "unit" mean the same in every record.
        """
        return None

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        """The metric [N, ...] of parameters {name: [N, ...] float64} under `loss` on `data`."""
        raise NotImplementedError


@record()
class Custom(Metric):
    """A user's own metric, function(params, data) -> [N, ...], of params {name: [N, ...] float64}.

    function: called with some networks at a time, so that it must take any N >= 1; it returns a real array whose first
        axis is N and whose others are always the same
    name: of the record; by default the function's
    A bare function in `metrics=[...]` is the same. Files keep the name without the function: a result comes back with
    its records, a checkpoint goes on with `fs.resume(path, functions={name: function})`.
    Raises SpecError, naming the metric, where the function returns something else.
    """

    function: object = field(default=None, metadata={"in_files": False})
    name: str | None = None

    def __post_init__(self):
        if self.function is not None and (isinstance(self.function, type) or not callable(self.function)):
            raise SpecError(f"Custom.function: {self.function!r} given, expected a function of (params, data)")
        if self.name is None:
            object.__setattr__(self, "name", getattr(self.function, "__name__", None))
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise SpecError(f"Custom.name: {self.name!r} given, expected a name like 'spread'; say Custom(function, "
                            "name=...)")

    def refuse(self, model: Any, data: Any) -> str | None:
        if self.function is None:
            return (f"files keep no functions; give it again, as fs.resume(path, functions={{{self.name!r}: "
                    "function}) or run.replace(metrics=...)")
        return None

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        N = len(next(iter(params.values())))
        values = as_array(self.function(params, data), f"metrics: what {self.name} returned", kinds="fiub")
        if values.ndim == 0 or len(values) != N:
            raise SpecError(f"metrics: {self.name} returned shape {values.shape} for N={N} networks, expected "
                            f"[{N}, ...]")
        return values.astype(np.float64)
