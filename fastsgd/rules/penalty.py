"""Owns penalties that are a torch function of the parameters."""

from dataclasses import field, replace
from typing import Any

from ..errors import SpecError
from ..spec.record import Record, record
from ..trace import programs
from ..trace.interpreter import evaluate


@record()
class Penalty(Record):
    """A number that is added to the loss of every step, function(p), of one network's parameters; a rule's `penalty`.

    function: (p {name: tensor}) -> tensor [], in torch's operators; docs/own.md lists them
    graph: what was traced, as text; a plan makes it, and files keep it
    """

    function: object = field(default=None, metadata={"in_files": False}, repr=False)
    shapes: dict | None = field(default=None, repr=False)
    graph: str | None = field(default=None, repr=False)

    def __post_init__(self):
        put, nodes = object.__setattr__, None
        if self.graph is not None:
            nodes, shapes = programs.from_text(self.graph), self.shapes or {}
            if not programs.is_number(nodes, {"value"}, {name: tuple(shape) for name, shape in shapes.items()}):
                raise SpecError("rule.penalty.graph: is not that of a penalty of these parameters")
        elif not callable(self.function):
            raise SpecError("rule.penalty: expected a function of the parameters {name: tensor}")
        put(self, "_nodes", nodes)
        put(self, "_why", None)

    def bound_to(self, shapes: Any) -> Any:
        """The same penalty with its graph for parameters of these shapes; without one it knows why."""
        if self.graph is not None and self.shapes == shapes:
            return self
        if self.function is None:
            raise SpecError("rule.penalty: files keep no functions, and this one was traced for other parameters; give "
                            "it again")
        graph, why = programs.text_or_why(lambda: programs.penalty_graph(self.function, shapes))
        made = replace(self, shapes=dict(shapes), graph=graph)
        object.__setattr__(made, "_why", why)
        return made

    def why_not(self) -> str | None:
        """None, or a sentence saying why there is no graph."""
        return self._why

    def nodes(self) -> Any:
        """{"value": node} of the graph, None if there is none."""
        return self._nodes

    def value(self, params: dict) -> Any:
        """The penalty [] of parameters {name: tensor} of one network."""
        if self.function is not None:
            return self.function(params)
        return evaluate([self._nodes["value"]], params)[0]
