"""Owns rules that are a torch function of one parameter: traced when they are made, and kept as a graph."""

from dataclasses import field
from typing import Any

import numpy as np

from ..spec.check import named_numbers
from ..spec.record import record
from ..trace import programs, rule
from ..trace.interpreter import evaluate
from .base import Batched, Rule


@record(kw_only=True)
class Function(Batched):
    """A rule given by a torch function of each parameter alone: p, state <- function(p, g, state, lr, ...).

    function: (p, g, state {name: tensor}, lr) -> (new p, new state {name: tensor}), or the new p alone where there is
        no state. p, g and every state are tensors of one shape; lr, the step size, is a tensor []. It may take more
        arguments by name: `t`, the number of steps done before this one, 0 at the first, and any of `constants`. It is
        written in torch's operators that work entry by entry; docs/own.md lists them
    state: {name: where it starts, [] or [N]}: arrays that a network carries from step to step, an entry a parameter
    constants: {name: [] or [N]}: hyper-parameters
    graph: what was traced, as text; files keep it, and need neither the function nor torch
    What all rules share goes with it as with ours: g has noise, penalty, clipping and weight decay in it, p has decayed
    before if that is decoupled, averaging comes after. In float32 steps beyond 2**24 are rounded.
    The compiled function is checked against the torch function before it is used. One that has no kernel runs on the
    reference backend, and `plan(run).explain()` says why.
    Raises SpecError where the function fails, brings parameters together (a norm, a sum), or returns something else.
    """

    function: object = field(default=None, kw_only=False, metadata={"in_files": False}, repr=False)
    state: dict = field(default_factory=dict)
    constants: dict = field(default_factory=dict)
    graph: str | None = field(default=None, repr=False)
    flags = ("function",)

    def __post_init__(self):
        super().__post_init__()
        put = object.__setattr__
        for name in ("state", "constants"):
            taken = Rule.carries if name == "state" else ("p", "g", "state", "lr", "t")
            put(self, name, named_numbers(getattr(self, name), f"rule.{name}", taken))
        given = rule.Given(self.function, tuple(self.state), tuple(self.constants))
        why = None
        if self.function is not None or self.graph is None:
            text, why = programs.text_or_why(lambda: rule.graph(given))
            put(self, "graph", text)
            rule.tried(given)
        put(self, "_given", given)
        put(self, "_nodes", None if self.graph is None else rule.read(self.graph, given))
        put(self, "_why", why)

    @property
    def leaves(self) -> tuple:
        """Names of all that a graph may depend on, the parameter's own first."""
        return self._given.leaves

    def why_not(self) -> str | None:
        """None, or a sentence saying why there is no graph."""
        return self._why

    def nodes(self) -> Any:
        """{what becomes of what: node} of the graph, None if there is none."""
        return self._nodes

    def numbers(self) -> dict:
        return super().numbers() | {f"{rule.CONSTANT}{name}": a for name, a in self.constants.items()}

    def starts(self) -> dict:
        return self.state

    def buffers(self) -> tuple:
        return (*self.state, *super().buffers())

    def begin(self, buffers: np.ndarray, start: np.ndarray, shapes: dict | None = None,
              ids: Any = None) -> np.ndarray:
        for k, value in enumerate(self.state.values()):
            value = value if ids is None or value.ndim == 0 else value[ids]
            buffers[:, k] = value[..., None]
        return super().begin(buffers, start, shapes, ids)

    def traits(self) -> dict:
        return super().traits() | {"function": True}

    def called(self, leaves: dict) -> list:
        """[new p, new states ...] of torch tensors {leaf: tensor}, by the function, or by the graph without it."""
        made = evaluate(list(self._nodes.values()), leaves) if self.function is None else self._given(leaves)
        return [a.expand(leaves[rule.P].shape) for a in made]

    def step(self, w: Any, g: Any, rate: Any, carried: dict, number: dict, t: int, shapes: dict) -> Any:
        import torch

        names = [rule.P, rule.G, *(f"{rule.STATE}{name}" for name in self.state)]
        given = [w, g, *(carried[name] for name in self.state)]
        shared = {rule.T: torch.full_like(rate[:, :1], t)} | {
            name: a for name, a in number.items() if name.startswith(rule.CONSTANT)}

        def stepped(arrays, rate, shared):
            return tuple(self.called(dict(zip(names, arrays, strict=True)) | {rule.LR: rate} | shared))

        made, at = [], 0
        for size in [w.shape[1]] if rate.shape[1] == 1 else [int(np.prod(shape)) for shape in shapes.values()]:
            part = slice(at, at + size)
            made.append(torch.func.vmap(stepped)(tuple(a[:, part] for a in given), rate[:, min(at, rate.shape[1] - 1)],
                                                 {name: a[:, 0] for name, a in shared.items()}))
            at += size
        w, *states = (torch.cat(parts, dim=1) for parts in zip(*made, strict=True))
        carried |= dict(zip(self.state, states, strict=True))
        return w
