"""Owns traced programs: the graph of a model, a loss, a penalty or a rule, its derivatives, its C++, and its origin."""

from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np

from . import emit, recorder, sweep
from .graph import INPUT, SEED, apply, cat, const, from_text, leaf, order, reshape, shared, to_text
from .interpreter import evaluate
from .recorder import Untraceable, line_of
from .reverse import gradients

FEATURE = "feature."  # before the names of hidden layers among a graph's outputs


@dataclass(eq=False)
class Program:
    """What is compiled and checked.

    kind: "Model", "Loss", "Penalty" or "Rule"; text: C++ of that struct; rows: vectors of scratch that it needs
    value: node; wanted {leaf: shape}: what its derivatives are in; leaves {leaf: shape}: what it depends on
    layout: of parameters, None for a loss and a rule; sizes: inputs and outputs of a model, outputs and labels of a
        loss, states and numbers of a rule
    """

    kind: str
    text: str
    rows: int
    value: object
    wanted: dict
    leaves: dict
    layout: object = None
    sizes: tuple = ()
    unused: tuple = field(init=False)

    def __post_init__(self):
        self.value, *given = shared([self.value, *(leaf(name, shape) for name, shape in self.wanted.items())])
        self.grads = dict(zip(self.wanted, gradients(
            [self.value], [leaf(SEED, self.value.shape)], given), strict=True))
        self.unused = tuple(name for name, grad in self.grads.items() if grad is None)

    @cached_property
    def sweep(self):
        """C++ of a model's whole step of plain SGD."""
        return sweep.step(self.value, self.layout, list(self.wanted), self.sizes[0])

    @property
    def operations(self):
        """Number of nodes that compute something."""
        return sum(node.op in ("map", "sum", "max") for node in order([self.value]))

    def evaluate(self, leaves, g):
        """(value [..., *shape], {leaf: derivative of <g, value>}) in NumPy float64; leaves {name: [..., *shape]}."""
        known = {name: grad for name, grad in self.grads.items() if grad is not None}
        value, *made = evaluate([self.value, *known.values()], leaves | {SEED: g})
        lead = value.shape[:value.ndim - len(self.value.shape)]
        out = {name: np.zeros((*lead, *shape)) for name, shape in self.wanted.items()}
        return value, out | {name: np.broadcast_to(a, (*lead, *self.wanted[name]))
                             for name, a in zip(known, made, strict=True)}


def model_graph(function, shapes, d):
    """({name: node} of a network's output "f" and hidden layers, its output's shape).

    function: (params {name: tensor}, x [d]) -> [] or [o], or that and its hidden layers
    Raises Untraceable.
    """
    names = list(shapes)
    made = recorder.trace(lambda *tensors: function(dict(zip(names, tensors[:-1], strict=True)), tensors[-1]),
                          shapes | {INPUT: (d,)})
    f, features = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not hasattr(f, "shape"):
        raise Untraceable(f"net: returned {type(f).__name__}, expected a tensor [] or [o], or (tensor, features)")
    if not isinstance(features, dict):
        features = features if isinstance(features, tuple) else (features,)
        features = {f"hidden{k + 1}": layer for k, layer in enumerate(features)}
    return {"f": f} | {f"{FEATURE}{name}": reshape(layer, (-1,)) for name, layer in features.items()}, f.shape


def model_program(f, shapes, trained, d):
    """The Program of a network with output node f."""
    layout = emit.Layout(shapes)
    text, rows = emit.model(f, layout, list(trained), d)
    leaves = dict(shapes) | {INPUT: (d,)}
    return Program("Model", text, rows, f, {name: shapes[name] for name in trained}, leaves, layout, (d, f.size))


def loss_graph(value, gap, outputs, label_shape, own=None):
    """{"value": node, "gap": node} of one sample's loss.

    value, gap: functions of (f [] or [o], y label_shape, *own); gap None is the size of f
    own: {leaf: shape} of the numbers that networks have of their own; the others are constants
    """
    f_shape = () if outputs == 1 else (outputs,)
    leaves = {"f": f_shape, "y": label_shape} | (own or {})
    made = recorder.trace(value, leaves)
    if not hasattr(made, "shape") or prod(made.shape) != 1:
        raise Untraceable("loss: returned "
                          f"{list(made.shape) if hasattr(made, 'shape') else type(made).__name__}, expected one number")
    bounded = apply("abs", leaf("f", f_shape)) if gap is None else recorder.trace(gap, leaves)
    return {"value": reshape(made, ()), "gap": reshape(bounded, (-1,))}


def loss_program(graph, outputs, label_shape, own=None):
    """The Program of a loss; own {leaf: shape} of the numbers that each network has."""
    f_shape, own = () if outputs == 1 else (outputs,), own or {}
    text = emit.loss(graph["value"], graph["gap"], outputs, prod(label_shape),
                     {name: prod(shape) for name, shape in own.items()})
    made = Program("Loss", text, 0, graph["value"], {"f": f_shape}, {"f": f_shape, "y": label_shape} | own,
                   sizes=(outputs, prod(label_shape)))
    made.gap = graph["gap"]
    return made


def penalty_graph(function, shapes):
    """{"value": node} of a number that depends on parameters."""
    names = list(shapes)
    made = recorder.trace(lambda *tensors: function(dict(zip(names, tensors, strict=True))), shapes)
    made = made if hasattr(made, "shape") else const(made)
    if prod(made.shape) != 1:
        raise Untraceable(f"penalty: returned shape {list(made.shape)}, expected one number")
    return {"value": reshape(made, ())}


def penalty_program(graph, shapes, trained):
    """The Program of a penalty."""
    layout = emit.Layout(shapes)
    text, rows = emit.penalty(graph["value"], layout, list(trained))
    return Program("Penalty", text, rows, graph["value"], {name: shapes[name] for name in trained}, dict(shapes),
                   layout)


def rule_program(graph, leaves):
    """The Program of a rule; leaves: its graph's, the parameter's own first, then the network's numbers."""
    names, numbers = leaves[:len(graph) + 1], leaves[len(graph) + 1:]
    text = emit.rule(graph, names, numbers)
    return Program("Rule", text, 0, cat(graph.values()), {}, dict.fromkeys(leaves, ()),
                   sizes=(len(graph) - 1, len(numbers)))


__all__ = ["FEATURE", "INPUT", "SEED", "Program", "Untraceable", "from_text", "line_of", "loss_graph", "loss_program",
           "model_graph", "model_program", "order", "penalty_graph", "penalty_program", "rule_program", "to_text"]


def text_or_why(make):
    """(text of the nodes that make() traces, None), or (None, why they cannot be traced)."""
    try:
        return to_text(make()), None
    except Untraceable as error:
        return None, str(error)


def is_number(nodes, names, legal):
    """Whether nodes are those named, "value" a number, of leaves that `legal` {name: shape} has."""
    return set(nodes) == names and nodes["value"].shape == () and all(
        node.op != "leaf" or legal.get(node.attr) == node.shape for node in order(nodes.values()))
