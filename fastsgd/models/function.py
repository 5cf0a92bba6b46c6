"""Owns models that are a torch function: traced when they are made, and kept as a graph, which is data."""

from copy import deepcopy
from dataclasses import field
from math import prod, sqrt
from typing import Any

import numpy as np

from ..errors import SpecError
from ..spec.check import as_array, as_float, finite, frozen, per_network, what_is, whole
from ..spec.record import record
from ..trace import programs
from ..trace.interpreter import evaluate
from .base import Model


@record()
class Function(Model):
    """A network given by a torch function: h(x) = function(p, x), of one network's parameters and one input.

    function: (p {name: tensor}, x [d]) -> tensor [] or [o], or (that, features) with features {layer: tensor [h]}, the
        hidden layers that metrics of layers look at. It is written in torch's operators; docs/own.md lists them
    d: number of inputs, >= 1
    shapes: {name: shape}, a tuple of whole numbers >= 1, or one of them, or () for a number
    start: {name: (mean, deviation)} of the Gaussian start, each [] or [N], deviation >= 0; a parameter that is not
        named has mean 0, and deviation 1/sqrt(length of its last axis) with two axes or more, 0 with fewer
    constants: {name: [N, ...]}: parameters that keep the values that each network has here
    at: {name: array of its shape}: where every network starts, in the place of a mean
    graph: what was traced, as text; files keep it, and need neither the function nor torch
    Training runs in compiled code (by g++), checked against torch.autograd before it is used. A function that has no
    kernel runs on the reference backend, and `plan(run).explain()` says why.
    Raises SpecError where the function fails, or returns something else.
    """

    function: object = field(default=None, metadata={"in_files": False}, repr=False)
    d: int = 1
    parameters: dict = field(default_factory=dict, metadata={"given_as": "shapes"})
    scale: dict = field(default_factory=dict, metadata={"given_as": "start"})
    constants: dict = field(default_factory=dict)
    at: dict = field(default_factory=dict, metadata={"shared": True})
    graph: str | None = field(default=None, repr=False)
    module: object = field(default=None, metadata={"in_files": False}, repr=False)

    def __init__(self, function: object = None, d: int = 1, shapes: dict | None = None, start: dict | None = None,
                 constants: dict | None = None, at: dict | None = None, graph: str | None = None,
                 module: object = None) -> None:
        put = object.__setattr__
        put(self, "function", function)
        put(self, "module", module)
        put(self, "d", whole(d, "model.d", 1))
        constants = {} if constants is None else _named(constants, "constants")
        put(self, "constants", {name: _constant(a, f"model.constants.{name}") for name, a in constants.items()})
        if any(a.ndim == 0 or a.size == 0 for a in self.constants.values()):
            raise SpecError("model.constants: expected arrays [N, ...], an entry for each network; what all share "
                            "may stand in the function")
        sizes = {name: _shape(name, shape) for name, shape in _named(shapes or {}, "shapes").items()
                 if name not in self.constants}
        if not sizes:
            raise SpecError("model.shapes: names no parameter that is trained")
        put(self, "parameters", sizes)
        put(self, "scale", self._scale(_named(start or {}, "start")))
        put(self, "at", {name: self._value(name, a) for name, a in _named(at or {}, "at").items()})
        put(self, "graph", graph)
        put(self, "_nodes", None)
        put(self, "_why", None)
        put(self, "_outputs", 1)
        self._trace()

    def _scale(self, start):
        unknown = sorted(set(start) - set(self.parameters))
        if unknown:
            raise SpecError(f"model.start: names {unknown}, legal are {list(self.parameters)}")
        out = {}
        for name, shape in self.parameters.items():
            pair = start.get(name, (0.0, 1 / sqrt(shape[-1]) if len(shape) > 1 else 0.0))
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise SpecError(f"model.start.{name}: expected (mean, deviation), each a number or [N]")
            out[name] = (per_network(pair[0], f"model.start.{name}.0"),
                         per_network(pair[1], f"model.start.{name}.1", 0))
        return out

    def _value(self, name, a):
        a = finite(as_array(a, f"model.at.{name}"), f"model.at.{name}")
        if name not in self.parameters or a.shape != self.parameters[name]:
            raise SpecError(f"model.at.{name}: has shape {a.shape}, expected that of a parameter, as in "
                            f"{self.parameters}")
        return frozen(a.astype(np.float64))

    def _trace(self):
        put = object.__setattr__
        if self.graph is None:
            if self.function is None or not callable(self.function):
                raise SpecError("model.function: expected a function of (p, x)")
            try:
                nodes, shape = programs.model_graph(self.function, self.shapes(), self.d)
                put(self, "graph", programs.to_text(nodes))
            except programs.Untraceable as why:
                put(self, "_why", str(why))
                shape = self._shape_by_running()
            if len(shape) > 1 or 0 in shape:
                raise SpecError(f"model.function: returned shape {list(shape)}, expected [] or [o]")
        if self.graph is not None:
            put(self, "_nodes", programs.from_text(self.graph))
            shape = self._checked_graph()
        put(self, "_outputs", prod(shape))

    def _checked_graph(self):
        """The output's shape of a graph whose arguments are this model's."""
        nodes, legal = self._nodes, self.shapes() | {programs.INPUT: (self.d,)}
        for node in programs.order(nodes.values()):
            if node.op == "leaf" and legal.get(node.attr) != node.shape:
                raise SpecError(f"model.graph: takes {node.attr!r} of shape {node.shape}, which the model has not")
        if "f" not in nodes or len(nodes["f"].shape) > 1:
            raise SpecError("model.graph: has no output [] or [o]")
        return nodes["f"].shape

    def _shape_by_running(self):
        """The output's shape of a function without a graph."""
        import torch

        rng = np.random.default_rng(0)
        params = {name: torch.from_numpy(np.asarray(0.3 * rng.standard_normal(shape)))
                  for name, shape in self.shapes().items()}
        try:
            f = self._f(params, torch.from_numpy(0.3 * rng.standard_normal(self.d)))
            return tuple(f.shape)
        except Exception as error:
            raise SpecError(f"model.function: raised {type(error).__name__}: {error} "
                            f"({programs.line_of(error)})") from error

    def _f(self, params, x):
        out = self.function(params, x)
        return out[0] if isinstance(out, (tuple, list)) else out

    @property
    def outputs(self) -> int:
        """Number o of outputs."""
        return self._outputs

    def why_not(self) -> str | None:
        """None, or a sentence saying why there is no graph."""
        return self._why

    def nodes(self) -> Any:
        """{name: node} of the graph, None if there is none."""
        return self._nodes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.parameters | {name: a.shape[1:] for name, a in self.constants.items()}

    def scales(self) -> dict:
        return self.scale | dict.fromkeys(self.constants, (0.0, 0.0))

    def trained(self, name: str) -> bool:
        return name not in self.constants

    def lengths(self) -> dict[str, int]:
        own = {f"model.constants.{name}": len(a) for name, a in self.constants.items()}
        return super().lengths() | own

    def start(self, seed: int, ids: Any, keys: Any = None) -> np.ndarray:
        out, at = super().start(seed, ids, keys), 0
        for name, shape in self.shapes().items():
            size = prod(shape)
            if name in self.constants:
                a = self.constants[name]
                out[:, at:at + size] = a[np.asarray(ids)].reshape(len(ids), size)
            elif name in self.at:
                out[:, at:at + size] += self.at[name].reshape(size)
            at += size
        return out

    def forward(self, params: dict, X: Any) -> Any:
        numpy = isinstance(X, np.ndarray)
        if self._nodes is not None and (numpy or self.function is None):
            (f,) = evaluate([self._nodes["f"]], self._leaves(params, X))
        else:
            import torch

            if numpy:
                params = {name: torch.from_numpy(np.array(a)) for name, a in params.items()}
                X = torch.from_numpy(np.array(X))
            f = torch.func.vmap(lambda x: self._f(params, x))(X)
            f = f.numpy() if numpy else f
        rows = f.shape[0] if f.shape[0] == X.shape[0] else 1
        f = f.reshape((rows, self.outputs))
        if rows < X.shape[0]:  # the output does not depend on the input
            f = np.broadcast_to(f, (len(X), self.outputs)) if numpy else f.expand(X.shape[0], -1)
        return f[..., 0] if self.outputs == 1 else f

    def features(self, params: dict, X: Any) -> dict | None:
        layers = {name.removeprefix(programs.FEATURE): node for name, node in (self._nodes or {}).items()
                  if name.startswith(programs.FEATURE)}
        if not layers:
            return None
        made = evaluate(list(layers.values()), self._leaves(params, X))
        name, shape = next(iter(self.shapes().items()))
        lead = tuple(params[name].shape)[:params[name].ndim - len(shape)]
        return {name: np.broadcast_to(a, (*lead, X.shape[0], a.shape[-1])) if isinstance(a, np.ndarray) else
                a.expand(*lead, X.shape[0], a.shape[-1]) for name, a in zip(layers, made, strict=True)}

    def _leaves(self, params, X):
        """What the graph takes: parameters [..., 1, *shape] beside inputs [n, d]."""
        shapes = self.shapes()
        out = {name: a.reshape((*a.shape[:a.ndim - len(shapes[name])], 1, *shapes[name]))
               for name, a in params.items()}
        return out | {programs.INPUT: X}


def _named(given, field):
    if not isinstance(given, dict) or not all(isinstance(name, str) and name for name in given):
        raise SpecError(f"model.{field}: expected a dict of names")
    if {programs.INPUT, programs.SEED} & set(given):
        raise SpecError(f"model.{field}: the names {programs.INPUT!r} and {programs.SEED!r} are taken")
    return given


def _constant(given, field):
    a = finite(as_array(given, field), field)
    return frozen(as_float(a, field))


def _shape(name, given):
    given = given if isinstance(given, (tuple, list)) else (given,)
    return tuple(whole(size, f"model.shapes.{name}", 1) for size in given)


def from_module(module: object, d: int | None = None, start: dict | None = None) -> Function:
    """A model of a torch.nn.Module that takes one input [d] and returns [] or [o]; names are the module's own.

    d: number of inputs; by default that of its first torch.nn.Linear
    start: as in `Function`; by default every network starts at the module's own weights
    Parameters with requires_grad=False, and buffers, are constants. `result.to_module(k)` is the module of network k.
    Raises SpecError.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise SpecError(f"module: {what_is(module)} given, expected a torch.nn.Module")
    if d is None:
        first = next((part for part in module.modules() if isinstance(part, torch.nn.Linear)), None)
        if first is None:
            raise SpecError("d: the module has no torch.nn.Linear; give its number of inputs, d=...")
        d = first.in_features
    if start is not None and not isinstance(start, dict):
        raise SpecError(f"start: {what_is(start)} given, expected {{name: (mean, deviation)}}")
    if any(a.is_meta or isinstance(a, torch.nn.parameter.UninitializedTensorMixin)
           for a in (*module.parameters(), *module.buffers())):
        raise SpecError("module: has parameters without values (lazy, or on the device meta); call it once, or "
                        "initialise them")
    own = deepcopy(module).double()
    params = {name: a for name, a in own.named_parameters() if a.requires_grad}
    if not params:
        raise SpecError("module: has no parameter that requires a gradient, so there is nothing to train")
    rest = {name: a for name, a in (*own.named_parameters(), *own.named_buffers()) if name not in params}

    def function(p, x):
        others = {name: a.detach().to(x.dtype) if a.is_floating_point() else a for name, a in rest.items()}
        return torch.func.functional_call(own, others | p, (x,))

    values = {name: a.detach().numpy().copy() for name, a in params.items()}
    given = start or {}
    scale = dict.fromkeys(values, (0.0, 0.0))
    try:
        made = Function(function, d, {name: a.shape for name, a in values.items()}, scale | dict(given),
                        at={name: a for name, a in values.items() if name not in given}, module=module)
    except SpecError as error:
        raised = str(error).removeprefix("model.function: raised ")
        if raised == str(error):
            raise
        raise SpecError(f"module: called with one input [{d}], it raised {raised}") from error
    if "random numbers" in (made.why_not() or ""):  # which no backend draws
        raise SpecError("module: draws random numbers, as Dropout does in training; call module.eval() first")
    return made


def to_module(model: Function, params: dict, dtype: str, module: object = None) -> object:
    """A copy of the module that `model` was made of, with the parameters {name: array} of one network."""
    import torch

    if module is not None and not isinstance(module, torch.nn.Module):
        raise SpecError(f"module: {what_is(module)} given, expected a torch.nn.Module")
    module = model.module if module is None else module
    if module is None:
        raise SpecError("module: files keep no modules; give the one that the model was made of, to_module(k, module)")
    made = deepcopy(module).to(getattr(torch, dtype))
    have = dict(made.named_parameters())
    missing = sorted(set(params) - set(have))
    if missing:
        raise SpecError(f"module: has no parameters {missing}, as the model has")
    with torch.no_grad():
        for name, a in params.items():
            if tuple(have[name].shape) != tuple(a.shape):
                raise SpecError(f"module: {name} has shape {tuple(have[name].shape)}, the model's has {tuple(a.shape)}")
            have[name].copy_(torch.as_tensor(a))
    return made
