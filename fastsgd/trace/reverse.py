"""Owns reverse mode: the derivatives of a graph are a graph."""

import numpy as np

from .functions import TABLE
from .graph import Node, apply, broadcast, const, order, positions, reduce, view


def gradients(outputs, seeds, wanted):
    """Derivatives of sum_k <seeds_k, outputs_k> with respect to the nodes `wanted`, each in its shape.

    None for a node that the outputs do not depend on, or only by what has no derivative.
    """
    nodes = order(outputs)
    live = {id(node) for node in wanted}
    for node in nodes:
        if any(id(a) in live for a in node.args):
            live.add(id(node))
    adjoint = {}

    def send(node, g):
        if id(node) in live:
            adjoint[id(node)] = adjoint[id(node)] + g if id(node) in adjoint else g

    for node, seed in zip(outputs, seeds, strict=True):
        send(node, seed)
    for node in reversed(nodes):
        g = adjoint.get(id(node))
        if g is not None and node.args:
            for a, part in zip(node.args, RULES[node.op](g, node, *node.args), strict=True):
                if part is not None:
                    send(a, part)
    return [adjoint.get(id(node)) for node in wanted]


def scattered(g, index, shape):
    """The transpose of a view: at each position the sum of the entries of g that came from there."""
    size = int(np.prod(shape, dtype=int))
    flat = index.reshape(-1)
    kept = np.flatnonzero(flat >= 0)
    kept = kept[np.argsort(flat[kept], kind="stable")]  # entries of g in the order of where they came from
    counts = np.bincount(flat[kept], minlength=size)
    most = int(counts.max(initial=0))
    if most == 0:
        return const(np.zeros(shape))
    table = np.full((size, most), -1)
    row = flat[kept]
    table[row, np.arange(len(kept)) - (np.cumsum(counts) - counts)[row]] = kept
    return reduce("sum", view(g, table.reshape(*shape, most)), [-1])


def _parts(g, node, *args):
    """Derivatives of the pieces of a cat."""
    ends = np.cumsum([a.size for a in args])
    return [view(g, positions(a) + end - a.size) for a, end in zip(args, ends, strict=True)]


def _largest(g, node, a):
    """A tie of the largest is shared equally."""
    def over(n):
        return broadcast(view(n, positions(n)[..., None]), a.shape)

    hit = apply("eq", a, over(node))
    return (hit * over(g / Node("sum", node.shape, (hit,))),)


def _map(g, node, *args):
    rule = TABLE[node.attr].derivative
    return [None] * len(args) if rule is None else rule(g, node, *args)


RULES = {
    "map": _map,
    "view": lambda g, node, a: (scattered(g, node.attr, a.shape),),
    "cat": _parts,
    "sum": lambda g, node, a: (broadcast(view(g, positions(g)[..., None]), a.shape),),
    "max": _largest,
}
