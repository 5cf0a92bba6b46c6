"""Owns what torch's operators mean in graphs: a rule for each that has one; torch takes others apart into these.

A rule has (recorder r, args, kwargs, out): r.node(a) is the node of an argument, `out` the result on the meta device,
whose shape counts. It gives a node, or a tuple of them with None for results that have none.
"""

import numpy as np

from . import axes as x
from . import entries as e
from .axes import along
from .entries import given
from .graph import apply, broadcast, positions, reduce, reshape, view
from .recorder import refuse

MOVES = frozenset((  # they only move entries; picks of what the tensors hold are for `picks`
    "view _unsafe_view reshape permute transpose t expand squeeze unsqueeze slice select index index_select flip roll "
    "unfold diagonal repeat as_strided narrow split split_with_sizes unbind gather chunk movedim swapaxes ravel "
    "flatten tril triu constant_pad_nd diag_embed alias expand_as view_as _reshape_alias rot90 take").split())
PADDED = frozenset({"tril", "triu", "constant_pad_nd", "diag_embed"})  # zeros come in
MOST_PICKED = 4096  # entries that an index which depends on the data may choose from


def moved(name):
    """Whether an operator only moves entries."""
    return name in MOVES


def picks(r, name, args):
    """The rule for a choice by an index that is traced itself, None where the index is known."""
    import torch

    traced = [a for a in args[1:] if isinstance(a, torch.Tensor) and id(a) in r.nodes]
    if name == "index":
        traced = [a for a in args[1] if a is not None and id(a) in r.nodes]
    if not traced or name not in ("index", "index_select", "gather", "take"):
        return None
    if any(a.dtype == torch.bool for a in traced):
        refuse(f"torch.{name}", "a mask makes a shape that depends on the data; say it with torch.where")
    return {"index": _index, "index_select": _index_select, "gather": _gather}.get(name) or refuse(
        f"torch.{name}", "the index depends on the data")


def _one_of(entries, index):
    """entries[k][...] where index [...] is k."""
    if len(entries) > MOST_PICKED:
        refuse("an index that depends on the data", f"it chooses from {len(entries)} entries, {MOST_PICKED} at most")
    entries = [broadcast(entry, index.shape) for entry in entries]
    out = entries[0]
    for k, entry in enumerate(entries[1:], 1):
        out = apply("where", apply("eq", index, float(k)), entry, out)
    return out


def _index(r, args, out):
    a, given = r.node(args[0]), args[1]
    axes = [k for k, index in enumerate(given) if index is not None]
    if len(axes) != 1:
        refuse("torch.index", "the index depends on the data on more than one axis")
    index, axis = r.node(given[axes[0]]), axes[0]
    tail = a.shape[axis + 1:]
    entries = []
    for part in along(a, axis):
        lead = part.shape[:axis]
        part = reshape(part, (*lead, *(1,) * len(index.shape), *tail))
        entries.append(broadcast(part, (*lead, *index.shape, *tail)))
    at = reshape(index, (*(1,) * axis, *index.shape, *(1,) * len(tail)))
    return _one_of(entries, broadcast(at, out.shape))


def _index_select(r, args, out):
    return _index(r, (args[0], [None] * (args[1] % args[0].dim()) + [args[2]]), out)


def _gather(r, args, out):
    a, axis, index = r.node(args[0]), args[1] % args[0].dim(), r.node(args[2])
    cut = tuple(slice(None) if k == axis else slice(size) for k, size in enumerate(index.shape))
    a = view(a, positions(a)[cut])
    entries = [reshape(part, (*part.shape[:axis], 1, *part.shape[axis:])) for part in along(a, axis)]
    return _one_of([broadcast(entry, index.shape) for entry in entries], index)



# ---- losses


def _reduced(r, each, reduction):
    total = each if reduction == 0 else reduce("sum", each)
    return total * (1 / each.size) if reduction == 1 else total


def _of_difference(each):
    def rule(r, args, kwargs, out):
        z = r.node(args[0]) - r.node(args[1])
        more = float(given(args, kwargs, 3, "delta", kwargs.get("beta", 1.0)))
        return _reduced(r, each(z, more), int(given(args, kwargs, 2, "reduction", 1)))

    return rule


def _huber(z, delta):
    size = apply("abs", z)
    return apply("where", apply("le", size, delta), apply("square", z) * 0.5, (size - 0.5 * delta) * delta)


def _smooth(z, beta):
    size = apply("abs", z)
    return size if beta == 0 else apply("where", apply("lt", size, beta), apply("square", z) * (0.5 / beta),
                                        size - 0.5 * beta)


def _logits(r, args, kwargs, out):
    z, y, weight, positive, reduction = (*args, *(None,) * (4 - len(args)), 1)[:5] if len(args) < 5 else args
    if weight is not None or positive is not None:
        refuse("torch.binary_cross_entropy_with_logits", "weights have no rule")
    z, y = r.node(z), r.node(y)
    each = apply("softplus", z) - y * z
    return _reduced(r, each, int(kwargs.get("reduction", reduction)))


def _nll(r, args, kwargs, out):
    f, y, weight, reduction, _ = args
    if weight is not None or f.dim() > 2:
        refuse("torch.nll_loss", "weights and more than one class axis have no rule")
    fn, yn = r.node(f), r.node(y)
    entries = along(fn, len(fn.shape) - 1)
    return _reduced(r, -_one_of(entries, broadcast(yn, entries[0].shape)), int(reduction)), None



# ---- the table

SAME = "clone contiguous detach lift_fresh lift_fresh_copy positive"
NAMED = {"maximum": "max", "minimum": "min", "logical_and": "and", "logical_or": "or", "bitwise_and": "and",
         "bitwise_or": "or", "logical_not": "not", "bitwise_not": "not", "sgn": "sign", "logical_xor": "ne"}
RULES = {
    **{name: e.map(name) for name in ("mul neg abs sign relu square sqrt exp expm1 log log1p sin cos tanh erf sigmoid "
                                     "floor trunc gt lt ge le eq ne where").split()},
    **{name: e.map(ours) for name, ours in NAMED.items()},
    **{name: (lambda r, args, kwargs, out: r.node(args[0])) for name in SAME.split()},
    "add": lambda r, args, kwargs, out: r.node(args[0]) + e.scaled(r, args[1], kwargs),
    "sub": lambda r, args, kwargs, out: r.node(args[0]) - e.scaled(r, args[1], kwargs),
    "rsub": lambda r, args, kwargs, out: r.node(args[1]) - e.scaled(r, args[0], kwargs),
    "div": e.div, "pow": e.power, "_to_copy": e.cast, "elu": e.elu, "gelu": e.gelu, "clamp": e.clamp,
    "hardtanh": e.clamp, "clamp_min": e.clamp,
    "clamp_max": lambda r, args, kwargs, out: e.clamp(r, (args[0], None, args[1]), kwargs, out),
    "softplus": e.softplus, "leaky_relu": e.leaky, "threshold": e.threshold, "logaddexp": e.logaddexp,
    "silu": e.times("sigmoid"), "log2": e.log_base(2), "log10": e.log_base(10),
    "reciprocal": lambda r, args, kwargs, out: apply("div", 1.0, r.node(args[0])),
    "rsqrt": lambda r, args, kwargs, out: apply("div", 1.0, apply("sqrt", r.node(args[0]))),
    "exp2": lambda r, args, kwargs, out: apply("exp", r.node(args[0]) * np.log(2.0)),
    "tan": lambda r, args, kwargs, out: apply("sin", r.node(args[0])) / apply("cos", r.node(args[0])),
    "cosh": lambda r, args, kwargs, out: (apply("exp", r.node(args[0])) + apply("exp", -r.node(args[0]))) * 0.5,
    "ceil": lambda r, args, kwargs, out: -apply("floor", -r.node(args[0])),
    "round": lambda r, args, kwargs, out: apply("round", r.node(args[0])) if not kwargs else refuse(
        "torch.round", "to decimals it has no rule"),
    "addcmul": lambda r, args, kwargs, out: r.node(args[0]) + r.node(args[1]) * r.node(args[2]) * float(
        kwargs.get("value", 1)),
    "addcdiv": lambda r, args, kwargs, out: r.node(args[0]) + r.node(args[1]) / r.node(args[2]) * float(
        kwargs.get("value", 1)),
    "lerp": lambda r, args, kwargs, out: r.node(args[0]) + r.node(args[2]) * (r.node(args[1]) - r.node(args[0])),
    "log_sigmoid_forward": lambda r, args, kwargs, out: (-apply("softplus", -r.node(args[0])), None),
    "masked_fill": lambda r, args, kwargs, out: apply("where", r.node(args[1]), r.node(args[2]), r.node(args[0])),
    "zeros_like": e.full(lambda args: 0.0), "ones_like": e.full(lambda args: 1.0),
    "new_zeros": e.full(lambda args: 0.0), "new_ones": e.full(lambda args: 1.0),
    "full_like": e.full(lambda args: float(args[1])), "new_full": e.full(lambda args: float(args[2])),
    "sum": x.added, "mean": x.mean, "amax": x.amax, "amin": x.amin, "max": x.first("gt"), "min": x.first("lt"),
    "prod": x.product, "var": x.variance(False), "std": x.variance(True), "cumsum": x.cumsum,
    "linalg_vector_norm": x.norm,
    "_softmax": x.softmax(False), "_log_softmax": x.softmax(True), "logsumexp": x.logsumexp,
    "native_layer_norm": x.layer_norm, "native_group_norm": x.group_norm,
    "mm": x.mm, "bmm": x.mm, "mv": x.mv, "dot": x.dot, "vdot": x.dot, "addmm": x.plus(x.mm), "addmv": x.plus(x.mv),
    "baddbmm": x.plus(x.mm), "convolution": x.convolution,
    "avg_pool1d": x.pool("avg", 1), "avg_pool2d": x.pool("avg", 2), "max_pool1d": x.pool("max", 1),
    "max_pool2d_with_indices": x.pool("max", 2), "max_pool1d_with_indices": x.pool("max", 1),
    "mse_loss": _of_difference(lambda z, _: apply("square", z)), "huber_loss": _of_difference(_huber),
    "smooth_l1_loss": _of_difference(_smooth), "binary_cross_entropy_with_logits": _logits,
    "nll_loss_forward": _nll, "nll_loss": _nll, "cat": x.joined, "stack": x.stack,
}
