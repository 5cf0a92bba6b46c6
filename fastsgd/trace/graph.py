"""Owns the graph of a traced function: few operations over small arrays of fixed shapes, as plain data.

Node.op   attr                        value
"leaf"    name                        an argument: a parameter, INPUT, ...
"const"   float64 array               itself
"map"     name in functions.TABLE     that function of its arguments, entry by entry, all of the node's shape
"view"    int array of the shape      entries of its argument, by their positions in it; -1 is zero
"cat"     None                        its arguments, flat, one behind the other
"sum"     None                        sum over the last axis of its argument
"max"     None                        the largest along the last axis of its argument
Reshaping, slicing, broadcasting, padding, picking are views; a matrix product is the sum of a map of two views.
"""

import json
from math import prod

import numpy as np

from ..errors import SpecError
from .functions import TABLE

INPUT, SEED = "(x)", "(g)"  # leaves beside parameters: a network's input, and what derivatives are seeded with


class Node:
    """One operation; see the top of this file."""

    __slots__ = ("args", "attr", "op", "shape")

    def __init__(self, op, shape, args=(), attr=None):
        self.op, self.shape, self.args, self.attr = op, tuple(int(size) for size in shape), tuple(args), attr

    @property
    def size(self):
        """Number of entries."""
        return prod(self.shape)

    def __add__(self, other):
        return apply("add", self, other)

    def __sub__(self, other):
        return apply("sub", self, other)

    def __rsub__(self, other):
        return apply("sub", other, self)

    def __mul__(self, other):
        return apply("mul", self, other)

    def __truediv__(self, other):
        return apply("div", self, other)

    def __neg__(self):
        return apply("neg", self)

    __radd__, __rmul__ = __add__, __mul__


def leaf(name, shape):
    """An argument of the function."""
    return Node("leaf", shape, (), name)


def const(value):
    """Numbers known when the function was traced."""
    value = np.array(value, np.float64)
    return Node("const", value.shape, (), value)


def is_const(node, value):
    """Whether every entry is known to be `value`."""
    return node.op == "const" and bool(np.all(node.attr == value))


def positions(node):
    """[shape] int: the position of each entry."""
    return np.arange(node.size).reshape(node.shape)


def view(node, index):
    """Entries of `node` by position, -1 for zero, in the shape of `index`."""
    index = np.asarray(index)
    if index.shape == node.shape and np.array_equal(index, positions(node)):
        return node
    if node.op == "const":
        flat = np.append(node.attr.reshape(-1), 0.0)
        return const(flat[index])
    if node.op == "view":
        return view(node.args[0], np.append(node.attr.reshape(-1), -1)[index])
    return Node("view", index.shape, (node,), index)


def reshape(node, shape):
    """The same entries in another shape."""
    return view(node, positions(node).reshape(shape))


def broadcast(node, shape):
    """`node` repeated along axes it lacks or has once."""
    return node if node.shape == shape else view(node, np.broadcast_to(positions(node), shape))


def cat(nodes):
    """All entries of some nodes, flat."""
    nodes = list(nodes)
    if len(nodes) == 1:
        return reshape(nodes[0], (-1,))
    if all(node.op == "const" for node in nodes):
        return const(np.concatenate([node.attr.reshape(-1) for node in nodes]))
    return Node("cat", (sum(node.size for node in nodes),), nodes)


def apply(name, *args):
    """A map of nodes or numbers, broadcast against each other."""
    args = [a if isinstance(a, Node) else const(a) for a in args]
    shape = np.broadcast_shapes(*(a.shape for a in args))
    args = [broadcast(a, shape) for a in args]
    if all(a.op == "const" for a in args):
        with np.errstate(all="ignore"):
            return const(TABLE[name].numpy(*(a.attr for a in args)))
    neutral = {"add": (0, 0), "sub": (None, 0), "mul": (1, 1), "div": (None, 1)}.get(name, ())
    for k, value in enumerate(neutral):
        if value is not None and is_const(args[k], value):
            return args[1 - k]
    if name == "div" and args[1].op == "const" and np.all(np.abs(np.frexp(args[1].attr)[0]) == 0.5):
        return apply("mul", args[0], const(1 / args[1].attr))  # by a power of two: the same bits
    return Node("map", shape, args, name)


def reduce(kind, node, axes=None, keep=False):
    """"sum" or "max" over axes, by default all."""
    rank = len(node.shape)
    axes = sorted({axis % rank for axis in axes}) if axes else list(range(rank))
    rest = [k for k in range(rank) if k not in axes]
    moved = positions(node).transpose(*rest, *axes)
    shape = tuple(node.shape[k] for k in rest)
    moved = view(node, moved.reshape(*shape, prod(node.shape[k] for k in axes)))
    out = reshape(moved, shape) if moved.shape[-1] == 1 else Node(kind, shape, (moved,))
    return reshape(out, [1 if k in axes else node.shape[k] for k in range(rank)]) if keep else out


def matmul(a, b):
    """[..., m, k] times [..., k, n], leading axes broadcast."""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    (m, k), n = a.shape[-2:], b.shape[-1]
    left = np.broadcast_to(positions(a)[..., :, None, :], (*lead, m, n, k))
    right = np.broadcast_to(np.swapaxes(positions(b), -1, -2)[..., None, :, :], (*lead, m, n, k))
    return reduce("sum", view(a, left) * view(b, right), [-1])


def order(outputs):
    """Nodes that `outputs` need, arguments first."""
    seen, out, stack = set(), [], [(node, False) for node in reversed(outputs)]
    while stack:
        node, ready = stack.pop()
        if ready:
            out.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args))
    return out


def shared(outputs):
    """The same nodes with those that are computed twice made one."""
    known, new = {}, {}
    for node in order(outputs):
        args = tuple(new[id(a)] for a in node.args)
        attr = node.attr.tobytes() if isinstance(node.attr, np.ndarray) else node.attr
        key = node.op, node.shape, tuple(map(id, args)), attr
        new[id(node)] = known.setdefault(key, Node(node.op, node.shape, args, node.attr))
    return [new[id(node)] for node in outputs]


# ---- as text


def affine(index):
    """(base, strides) of an int array base + sum_k stride_k i_k, None if it is none."""
    base = int(index.flat[0])
    strides = [int(np.take(index, 1, k).flat[0]) - base if size > 1 else 0 for k, size in enumerate(index.shape)]
    made = np.array(base)
    for k, size in enumerate(index.shape):
        made = np.expand_dims(made, -1) + strides[k] * np.arange(size)
    return (base, strides) if np.array_equal(made, index) else None


def to_text(outputs):
    """JSON of {name: node}, the same for the same graph."""
    names = list(outputs)
    ends = shared([outputs[name] for name in names])
    nodes = order(ends)
    number = {id(node): k for k, node in enumerate(nodes)}
    rows = []
    for node in nodes:
        attr = node.attr
        if node.op == "const":
            attr = attr.reshape(-1).tolist()
        elif node.op == "view":
            attr = affine(attr) or attr.reshape(-1).tolist()
        rows.append([node.op, node.shape, [number[id(a)] for a in node.args], attr])
    outputs = {name: number[id(end)] for name, end in zip(names, ends, strict=True)}
    return json.dumps({"nodes": rows, "outputs": outputs}, separators=(",", ":"))


def from_text(text):
    """{name: node} of `to_text`'s JSON. Raises SpecError for any other text."""
    try:
        given, nodes = json.loads(text), []
        for op, shape, args, attr in given["nodes"]:
            nodes.append(_node(op, tuple(shape), [nodes[k] for k in args if 0 <= k < len(nodes)], attr, len(args)))
        return {str(name): nodes[k] for name, k in given["outputs"].items()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise SpecError(f"graph: is no traced function ({type(error).__name__}: {str(error)[:200]})") from None


def _node(op, shape, args, attr, count):
    """A Node of its row in the text, checked."""
    def need(legal):
        if not legal:
            raise ValueError(f"a {op!r} of shape {shape} that cannot be")

    need(len(args) == count and all(type(size) is int and size >= 0 for size in shape) and prod(shape) < 2**28)
    if op == "const":
        return const(np.array(attr, np.float64).reshape(shape))
    if op == "leaf":
        need(isinstance(attr, str) and not args)
    elif op == "map":
        need(attr in TABLE and TABLE[attr].count == count and all(a.shape == shape for a in args))
    elif op == "view":
        need(count == 1)
        if len(attr) == 2 and isinstance(attr[1], list):
            index = np.array(attr[0], np.int64)
            for stride, size in zip(attr[1], shape, strict=True):
                index = np.expand_dims(index, -1) + stride * np.arange(size)
            attr = index
        attr = np.array(attr, np.int64).reshape(shape)
        need(attr.size == 0 or (attr.min() >= -1 and attr.max() < args[0].size))
    elif op == "cat":
        need(count > 0 and shape == (sum(a.size for a in args),))
    else:
        need(op in ("sum", "max") and count == 1 and args[0].shape[:-1] == shape and args[0].shape[-1:] != (0,))
    return Node(op, shape, args, attr)
