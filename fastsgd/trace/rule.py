"""Owns how a torch function of one parameter becomes the graph of an update rule. It is traced on a few parameters,
and must treat each by itself and all alike.
"""

import inspect
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import SpecError
from ..spec.check import CONSTANT
from . import recorder
from .graph import apply, const, from_text, leaf, order, to_text
from .recorder import line_of

P, G, LR, T = "p", "g", "lr", "t"  # leaves, beside those of
STATE = "state."  # before the names of arrays, as CONSTANT before those of constants
SEVERAL = (5, 7)  # parameters with which a function is traced: its graph must not depend on their number
AGREED = 1e-3  # relatively, of what becomes of a parameter alone and among others


def of_parameter(name):
    """Whether a leaf is a parameter's own, not the network's."""
    return name in (P, G) or name.startswith(STATE)


@dataclass(frozen=True)
class Given:
    """A function of (p, g, state, lr, more by name), and the names of its state and constants."""

    function: object
    state: tuple
    constants: tuple

    @property
    def leaves(self):
        """Names of all that a graph may depend on."""
        return (P, G, *(f"{STATE}{name}" for name in self.state), LR, T,
                *(f"{CONSTANT}{name}" for name in self.constants))

    @property
    def outputs(self):
        """Names of what becomes of them."""
        return (P, *(f"{STATE}{name}" for name in self.state))

    def shape(self, name, several):
        """That of a leaf, of so many parameters."""
        return (several,) if of_parameter(name) else ()

    @cached_property
    def named(self):
        """Arguments that the function takes beyond its four. Raises SpecError for one that nobody knows."""
        try:
            parameters = list(inspect.signature(self.function).parameters.values())[4:]
        except (TypeError, ValueError):
            return ()
        kinds = inspect.Parameter
        named = [one for one in parameters if one.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
        more = any(one.kind is kinds.VAR_KEYWORD for one in parameters)
        legal = (T, *self.constants)
        unknown = [one.name for one in named if one.name not in legal and one.default is kinds.empty]
        if unknown:
            raise SpecError(f"rule.function: takes {', '.join(unknown)}, expected (p, g, state, lr) and any of "
                            f"{', '.join(legal)} ({self.line}); give hyper-parameters as constants={{name: number}}")
        return legal if more else tuple(one.name for one in named if one.name in legal)

    @property
    def line(self):
        """Where the function stands."""
        code = getattr(self.function, "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(self.function)

    def __call__(self, leaves):
        """[new p, new states ...] of tensors {leaf: tensor}."""
        state = {name: leaves[f"{STATE}{name}"] for name in self.state}
        more = {name: leaves[T if name == T else f"{CONSTANT}{name}"] for name in self.named}
        return self._parts(self.function(leaves[P], leaves[G], state, leaves[LR], **more))

    def _parts(self, made):
        """What a function returned, in the order of `outputs`. Raises SpecError for anything else."""
        wanted = f"(new p, {{{', '.join(f'{name!r}: tensor' for name in self.state)}}})" if self.state else "the new p"
        p, state = made if isinstance(made, (tuple, list)) and len(made) == 2 else (made, {})
        if not isinstance(state, dict) or set(state) != set(self.state) or not all(
                hasattr(a, "shape") for a in (p, *state.values())):
            given = type(made).__name__ if not isinstance(state, dict) or made is p else f"(p, {sorted(state)})"
            raise SpecError(f"rule.function: returned {given}, expected {wanted} ({self.line})")
        return [p, *(state[name] for name in self.state)]


def graph(given):
    """{output: node of leaves []} of one parameter. Raises SpecError or Untraceable."""
    if not callable(given.function):
        raise SpecError("rule.function: expected a function of (p, g, state, lr)")
    found = [_traced(given, several) for several in SEVERAL]
    if to_text(found[0]) != to_text(found[1]):
        raise SpecError(f"rule.function: depends on the number of parameters ({given.line}); a rule is of each alone")
    return found[0]


def _traced(given, several):
    def watch(operator, node):
        if why := _coupled(node, several):
            raise SpecError(f"rule.function: {recorder.here()}: {operator}: {why}; a rule is of each parameter alone")

    made = recorder.trace(lambda *tensors: tuple(given(dict(zip(given.leaves, tensors, strict=True)))),
                          {name: given.shape(name, several) for name in given.leaves}, watch)
    out, known = {}, {}
    for name, node in zip(given.outputs, made, strict=True):
        if node.shape not in ((several,), ()) or (why := _coupled(node, several)):
            raise SpecError(f"rule.function: returned {name} of shape {list(node.shape)} for parameters of shape "
                            f"[{several}]" + (f": {why}" if node.shape == (several,) else "") + f" ({given.line})")
        out[name] = _one(node, known)
    return out


def _coupled(node, several):
    """None where a node's entries are of a parameter each, or one for all; else a sentence."""
    for one in order([node]):
        if one.op in ("sum", "max", "cat"):
            return "it brings parameters together"
        if one.size not in (1, several):
            return f"it makes shape {list(one.shape)} of parameters of shape [{several}]"
        if one.op == "const" and len(np.unique(one.attr)) > 1:
            return "it has numbers that differ from parameter to parameter"
        if one.op == "view":
            same = np.zeros(one.size) if one.args[0].size == 1 else np.arange(one.args[0].size)
            if not np.array_equal(one.attr.reshape(-1), same):
                return "it moves one parameter's number to another"
    return None


def _one(node, known):
    """The node of one parameter, of shape []."""
    for one in order([node]):
        args = [known[id(a)] for a in one.args]
        known[id(one)] = (leaf(one.attr, ()) if one.op == "leaf" else args[0] if one.op == "view" else
                          const(one.attr.reshape(-1)[0]) if one.op == "const" else apply(one.attr, *args))
    return known[id(node)]


def read(text, given):
    """{output: node} of a text. Raises SpecError where it is not of a rule with this state and constants."""
    nodes = from_text(text)
    legal = set(given.leaves)
    fine = set(nodes) == set(given.outputs) and all(
        node.shape == () and (node.op in ("map", "const") or (node.op == "leaf" and node.attr in legal))
        for node in order(list(nodes.values())))
    if not fine:
        raise SpecError(f"rule.graph: is not that of a rule with state {list(given.state)} and constants "
                        f"{list(given.constants)}")
    return {name: nodes[name] for name in given.outputs}


def tried(given):
    """Call a function as the reference backend does. Raises SpecError where that cannot be."""
    import torch

    rng, several = np.random.default_rng(0), SEVERAL[0]
    numbers = {name: 0.1 + rng.random(given.shape(name, several)) for name in given.leaves}
    for dtype in (torch.float64, torch.float32):
        leaves = {name: torch.as_tensor(a, dtype=dtype) for name, a in numbers.items()}
        together = _called(given, leaves)
        for name, part in zip(given.outputs, together, strict=True):
            if tuple(part.shape) not in ((several,), ()) or part.dtype != dtype:
                raise SpecError(f"rule.function: returned {name} of {part.dtype} and shape {list(part.shape)} for "
                                f"parameters of {dtype} and shape [{several}] ({given.line})")
        alone = [_called(given, {name: a[k:k + 1] if a.ndim else a for name, a in leaves.items()})
                 for k in range(several)]
        for part, *each in zip(together, *alone, strict=True):
            if not torch.allclose(part, torch.cat([a.reshape(-1) for a in each]), rtol=AGREED, atol=0, equal_nan=True):
                raise SpecError(f"rule.function: what becomes of a parameter depends on others ({given.line}); a rule "
                                "is of each alone")


def _called(given, leaves):
    """What the function makes of leaves, under vmap."""
    import torch

    try:
        made = torch.func.vmap(lambda one: tuple(given(one)))({name: a[None] for name, a in leaves.items()})
    except SpecError:
        raise
    except Exception as error:
        raise SpecError(f"rule.function: raised {type(error).__name__}: {error} ({line_of(error)})"
                        + (f"; the state has {list(given.state)}" if isinstance(error, KeyError) else "")) from error
    return [part[0] for part in made]
