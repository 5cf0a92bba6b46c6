"""Owns the value of a graph in NumPy or torch: the witness of compiled code, and what runs without it."""

import numpy as np

from .functions import TABLE
from .graph import order


def evaluate(outputs, leaves):
    """Values [..., *shape] of nodes.

    leaves: {name: array [..., *shape]}, NumPy float64 or torch; leading axes are broadcast against each other
    """
    value, nodes = {}, order(outputs)
    tensor = next((a for a in leaves.values() if not isinstance(a, np.ndarray)), None)
    if tensor is None:
        def made(array):
            return array
    else:
        import torch

        def made(array):
            return torch.as_tensor(array, device=tensor.device)

    def numbers(array):
        array = made(array)
        return array if tensor is None else array.to(tensor.dtype)

    kind = "numpy" if tensor is None else "torch"
    with np.errstate(all="ignore"):
        for node in nodes:  # [..., size]
            a = [value[id(k)] for k in node.args]
            if node.op == "leaf":
                out = leaves[node.attr]
                out = out.reshape((*out.shape[:out.ndim - len(node.shape)], node.size))
            elif node.op == "const":
                out = numbers(node.attr.reshape(-1).copy())
            elif node.op == "map":
                out = getattr(TABLE[node.attr], kind)(*a)
            elif node.op == "view":
                out = _picked(a[0], node.attr.reshape(-1), made)
            elif node.op == "cat":
                out = _joined(a, tensor is None)
            else:
                grid = a[0].reshape(*a[0].shape[:-1], node.size, node.args[0].shape[-1])
                out = grid.sum(-1) if node.op == "sum" else grid.max(-1) if tensor is None else grid.amax(-1)
            value[id(node)] = out
    return [value[id(node)].reshape((*value[id(node)].shape[:-1], *node.shape)) for node in outputs]


def _picked(a, index, made):
    if (index >= 0).all():
        return a[..., made(index)]
    out = a[..., made(np.maximum(index, 0))]
    keep = made(index >= 0)
    return np.where(keep, out, 0.0) if isinstance(out, np.ndarray) else out.where(keep, out.new_zeros(()))


def _joined(parts, numpy):
    lead = np.broadcast_shapes(*(part.shape[:-1] for part in parts))
    if numpy:
        return np.concatenate([np.broadcast_to(part, (*lead, part.shape[-1])) for part in parts], axis=-1)
    import torch

    return torch.cat([part.expand(*lead, part.shape[-1]) for part in parts], dim=-1)
