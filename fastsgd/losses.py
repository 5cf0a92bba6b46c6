"""The public names of losses; and losses that are a torch function."""

from dataclasses import field, replace
from math import prod
from typing import Any

import numpy as np

from .errors import SpecError
from .spec import loss
from .spec.check import CONSTANT, named_numbers
from .spec.loss import *  # noqa: F403  a loss is one class there, and public
from .spec.loss import Loss
from .spec.operators import like
from .spec.record import record
from .trace import programs
from .trace.interpreter import evaluate

__all__ = [*(kind.__name__ for kind in loss.KINDS), "Function", "Loss"]


def __dir__():
    return __all__


@record()
class Function(Loss):
    """A loss of one sample given by a torch function, factor * function(h, y), a number.

    function: (h [] or [o], y [] or [k]) -> tensor []: of one sample's outputs and labels, in torch's operators;
        docs/own.md lists them. Labels are numbers of the run's dtype; classes are had by y.long(). It may take
        `constants` besides, by name
    factor: c > 0, [] or [N]
    constants: {name: [] or [N]}: numbers of the loss, such as a threshold
    graph: what was traced, as text; a plan makes it, and files keep it
    A run is lost where |h| exceeds the rule's `lost_above`, as with any loss that is not squared.
    """

    function: object = field(default=None, metadata={"in_files": False}, repr=False)
    factor: float | np.ndarray = 1.0
    constants: dict = field(default_factory=dict)
    outputs: int | None = field(default=None, repr=False)
    labels: tuple | None = field(default=None, repr=False)
    graph: str | None = field(default=None, repr=False)
    name = "function"
    noisy = True

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "constants", named_numbers(self.constants, "loss.constants", {"h", "y"}))
        nodes = None
        if self.graph is not None:
            nodes = programs.from_text(self.graph)
            legal = {"f": () if self.outputs == 1 else (self.outputs,), "y": tuple(self.labels or ()),
                     **dict.fromkeys(self.own(), ())}
            if not programs.is_number(nodes, {"value", "gap"}, legal):
                raise SpecError("loss.graph: is not that of a loss with these outputs and labels")
        elif not callable(self.function):
            raise SpecError("loss.function: expected a function of (h, y)")
        object.__setattr__(self, "_nodes", nodes)
        object.__setattr__(self, "_why", None)

    def bound_to(self, outputs: int, labels: Any) -> Any:
        """The same loss with its graph for so many outputs and labels of this shape, or `why_not`."""
        if self.graph is not None and (self.outputs, self.labels) == (outputs, labels):
            return self
        if self.function is None:
            raise SpecError(f"loss.function: files keep no functions, and this loss was traced for {self.outputs} "
                            f"output(s) and labels {list(self.labels)}; give it again")
        own = dict.fromkeys(self.own(), ())
        graph, why = programs.text_or_why(lambda: programs.loss_graph(
            lambda f, y, *numbers: self.having(dict(zip(own, numbers, strict=True)))._one(f, y), None, outputs, labels,
            own))
        made = replace(self, outputs=outputs, labels=labels, graph=graph)
        object.__setattr__(made, "_why", why)
        return made

    def numbers(self) -> dict:
        return super().numbers() | {f"{CONSTANT}{name}": a for name, a in self.constants.items()}

    def having(self, numbers: dict) -> Loss:
        own = {name.removeprefix(CONSTANT): a for name, a in numbers.items() if name.startswith(CONSTANT)}
        rest = {name: a for name, a in numbers.items() if not name.startswith(CONSTANT)}
        return super().having(rest | {"constants": self.constants | own})

    def why_not(self) -> str | None:
        """None, or a sentence saying why there is no graph."""
        return self._why

    def nodes(self) -> Any:
        """{"value", "gap": node} of the graph, None if there is none."""
        return self._nodes

    def _one(self, f, y):
        return self.factor * self.function(f, y, **self.constants)

    def value(self, f: Any, y: Any, outputs: int = 1) -> Any:
        lead = f.ndim - (outputs > 1)
        numpy = isinstance(f, np.ndarray)
        if self._nodes is not None and (numpy or self.function is None):
            y = y if numpy else y.to(f.dtype)
            numbers = {name: like(a, f) for name, a in self.numbers().items()}
            return evaluate([self._nodes["value"]], {"f": f, "y": y} | numbers)[0]
        import torch

        f, y = (torch.from_numpy(np.array(a)) if numpy else a for a in (f, y))
        one = self.having({name: like(a, f) for name, a in self.numbers().items() if not isinstance(a, float)})._one
        shape, tail = tuple(f.shape[:lead]), tuple(y.shape[lead:])
        y = y.to(f.dtype).expand(*shape, *tail)
        count = prod(shape)
        each = torch.func.vmap(lambda a, b: one(a, b).reshape(()))(
            f.reshape(count, *f.shape[lead:]), y.reshape(count, *tail)).reshape(shape)
        return each.numpy() if numpy else each

    def refuse(self, outputs: int, y: Any) -> str | None:
        if self.outputs is not None and y is not None and self.function is None:
            if (self.outputs, self.labels) != (outputs, tuple(y.shape[1:])):
                return (f"loss.function: was traced for {self.outputs} output(s) and labels {list(self.labels)}, and "
                        "files keep no functions; give it again")
        return None
