"""Owns what torch's operators mean that work along axes: sums, norms, products, windows. Rules as in entries.py."""

from itertools import pairwise
from math import prod

import numpy as np

from .entries import given
from .graph import apply, cat, matmul, positions, reduce, reshape, view
from .recorder import refuse


def along(a, axis):
    """Slices of a node along an axis."""
    where = positions(a)
    return [view(a, np.take(where, k, axis)) for k in range(a.shape[axis])]



def axes_of(args, kwargs, at=1):
    axes = given(args, kwargs, at, "dim", None)
    return None if axes is None or axes == [] else [axes] if isinstance(axes, int) else list(axes)


def keeps(args, kwargs, at=2):
    return bool(given(args, kwargs, at, "keepdim", False))


def added(r, args, kwargs, out):
    return reduce("sum", r.node(args[0]), axes_of(args, kwargs), keeps(args, kwargs))


def mean(r, args, kwargs, out):
    z, total = r.node(args[0]), added(r, args, kwargs, out)
    return total * (total.size / z.size)


def amax(r, args, kwargs, out):
    return reduce("max", r.node(args[0]), axes_of(args, kwargs), keeps(args, kwargs))


def amin(r, args, kwargs, out):
    return -reduce("max", -r.node(args[0]), axes_of(args, kwargs), keeps(args, kwargs))


def first(sign):
    """Largest or smallest along one axis; its derivative goes to the first of equals, as torch has it."""
    def rule(r, args, kwargs, out):
        z = r.node(args[0])
        if len(args) == 1:  # over everything, a tie shared
            return reduce("max", z) if sign == "gt" else -reduce("max", -z)
        best = firsts(along(z, args[1] % len(z.shape)), sign)
        return reshape(best, out[0].shape), None

    return rule


def firsts(entries, sign):
    best = entries[0]
    for entry in entries[1:]:
        best = apply("where", apply(sign, entry, best), entry, best)
    return best


def product(r, args, kwargs, out):
    z = r.node(args[0])
    axis = given(args, kwargs, 1, "dim", None)
    parts = along(reshape(z, (-1,)), 0) if axis is None else along(z, axis % len(z.shape))
    total = parts[0]
    for part in parts[1:]:
        total = total * part
    return reshape(total, out.shape)


def centred(z, axes):
    total = reduce("sum", z, axes, True)
    mean = total * (total.size / z.size)
    return mean, z - mean


def variance(root):
    def rule(r, args, kwargs, out):
        z, axes = r.node(args[0]), axes_of(args, kwargs)
        count = prod(z.shape[k] for k in axes) if axes else z.size
        correction = kwargs.get("correction")
        _, c = centred(z, axes)
        total = reduce("sum", apply("square", c), axes, bool(kwargs.get("keepdim", False)))
        var = total * (1 / (count - (1 if correction is None else correction)))
        return apply("length", var) if root else var

    return rule


def cumsum(r, args, kwargs, out):
    z, axis = r.node(args[0]), args[1] % args[0].dim()
    where = np.moveaxis(positions(z), axis, -1)
    n = where.shape[-1]
    table = np.where(np.tri(n, dtype=bool), where[..., None, :], -1)
    total = reduce("sum", view(z, table), [-1])
    return view(total, np.moveaxis(positions(total), -1, axis))


def norm(r, args, kwargs, out):
    z, order = r.node(args[0]), given(args, kwargs, 1, "ord", 2)
    axes, keep = axes_of(args, kwargs, 2), keeps(args, kwargs, 3)
    if order == 2:
        return apply("length", reduce("sum", apply("square", z), axes, keep))
    if order == 1:
        return reduce("sum", apply("abs", z), axes, keep)
    if order == float("inf"):
        return reduce("max", apply("abs", z), axes, keep)
    return refuse("torch.linalg.vector_norm", f"ord={order}; 1, 2 and inf have rules")


def softmax(log):
    def rule(r, args, kwargs, out):
        z, axis = r.node(args[0]), [args[1]]
        z = z - fixed_max(z, axis, True)
        e = apply("exp", z)
        total = reduce("sum", e, axis, True)
        return z - apply("log", total) if log else e / total

    return rule


def fixed_max(z, axes, keep):
    """The largest, of which the result does not depend: it has no derivative."""
    most = reduce("max", z, axes, keep)
    return apply("still", most)


def logsumexp(r, args, kwargs, out):
    z, axes, keep = r.node(args[0]), axes_of(args, kwargs), keeps(args, kwargs)
    most = fixed_max(z, axes, True)
    total = apply("log", reduce("sum", apply("exp", z - most), axes, True)) + most
    return total if keep else reshape(total, out.shape)


def layer_norm(r, args, kwargs, out):
    z, shape, weight, bias, eps = args
    rank = len(z.shape)
    normal = normalised(r.node(z), list(range(rank - len(shape), rank)), eps)
    return affine(r, normal, weight, bias), None, None


def group_norm(r, args, kwargs, out):
    z, weight, bias, n, c, hw, groups, eps = args
    grouped = reshape(r.node(z), (n, groups, c // groups * hw))
    normal = reshape(normalised(grouped, [2], eps), tuple(z.shape))
    parts = [None if a is None else reshape(r.node(a), (1, c, *(1,) * (z.dim() - 2))) for a in (weight, bias)]
    return affine(None, normal, *parts), None, None


def normalised(z, axes, eps):
    _, c = centred(z, axes)
    total = reduce("sum", apply("square", c), axes, True)
    return c / apply("sqrt", total * (total.size / z.size) + float(eps))


def affine(r, z, weight, bias):
    node = r.node if r else (lambda a: a)
    z = z if weight is None else z * node(weight)
    return z if bias is None else z + node(bias)



# ---- products


def column(v):
    return reshape(v, (*v.shape, 1))


def mv(r, args, kwargs, out):
    return reshape(matmul(r.node(args[0]), column(r.node(args[1]))), out.shape)


def plus(product):
    """beta * first + alpha * product of the other two."""
    def rule(r, args, kwargs, out):
        total, first = product(r, args[1:], {}, out), r.node(args[0])
        alpha, beta = kwargs.get("alpha", 1), kwargs.get("beta", 1)
        total = total if alpha == 1 else total * float(alpha)
        return total + (first if beta == 1 else first * float(beta))

    return rule


def mm(r, args, kwargs, out):
    return matmul(r.node(args[0]), r.node(args[1]))


def dot(r, args, kwargs, out):
    return reduce("sum", r.node(args[0]) * r.node(args[1]))


def windows_of(z, kernel, stride, padding, dilation, sizes):
    """Positions [*lead, *sizes, taps] of the windows over the last axes of z, -1 where there is padding."""
    spatial = len(kernel)
    lead = len(z.shape) - spatial
    pads = [(0, 0)] * lead + [(p, p) for p in padding]
    index = np.pad(positions(z), pads, constant_values=-1)
    taps = []
    for tap in np.ndindex(*kernel):
        cut = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(
            tap, dilation, sizes, stride, strict=True))
        taps.append(index[(slice(None),) * lead + cut])
    return np.stack(taps, -1)


def convolution(r, args, kwargs, out):
    x, w, bias, stride, padding, dilation, transposed, _, groups = args
    if transposed:
        refuse("torch.conv_transpose", "it has no rule; say it with torch.nn.functional.pad and a convolution")
    xn, wn, spatial = r.node(x), r.node(w), x.dim() - 2
    windows = windows_of(xn, tuple(w.shape[2:]), stride, padding, dilation, tuple(out.shape[2:]))
    batch, channels, each = x.shape[0], w.shape[0], w.shape[1]
    windows = windows.reshape(batch, groups, each, *out.shape[2:], -1)
    windows = np.moveaxis(windows, 2, -2).reshape(batch, groups, 1, *out.shape[2:], -1)
    weights = positions(wn).reshape(1, groups, channels // groups, *(1,) * spatial, -1)
    shape = np.broadcast_shapes(windows.shape, weights.shape)
    total = reduce("sum", view(wn, np.broadcast_to(weights, shape)) * view(xn, np.broadcast_to(windows, shape)), [-1])
    total = reshape(total, out.shape)
    return total if bias is None else total + reshape(r.node(bias), (1, channels, *(1,) * spatial))


def listed(value, count, default=None):
    value = default if value in (None, []) else value
    return [value] * count if isinstance(value, int) else list(value) * (count if len(value) == 1 else 1)


def pool(kind, spatial):
    def rule(r, args, kwargs, out):
        z, kernel = r.node(args[0]), listed(args[1], spatial)
        stride = listed(given(args, kwargs, 2, "stride", None), spatial, kernel)
        padding = listed(given(args, kwargs, 3, "padding", 0), spatial)
        dilation = listed(given(args, kwargs, 4, "dilation", 1), spatial) if kind == "max" else [1] * spatial
        first = out[0] if isinstance(out, (tuple, list)) else out
        windows = windows_of(z, kernel, stride, padding, dilation, tuple(first.shape[-spatial:]))
        if (windows < 0).any():
            refuse(f"torch.{kind}_pool", "with padding it has no rule; pad the input yourself")
        if kind == "avg":
            return reduce("sum", view(z, windows), [-1]) * (1 / prod(kernel))
        best = firsts([view(z, windows[..., k]) for k in range(windows.shape[-1])], "gt")
        return (best, None) if first is not out else best

    return rule



# ---- pieces


def joined(r, args, kwargs, out):
    parts = [r.node(a) for a in args[0] if a.dim() > 1 or a.numel() or len(out.shape) == 1]
    axis = given(args, kwargs, 1, "dim", 0) % len(out.shape)
    ends = np.cumsum([0] + [part.size for part in parts])
    return view(cat(parts), np.concatenate([positions(part) + a for part, (a, _) in zip(
        parts, pairwise(ends), strict=True)], axis=axis))


def stack(r, args, kwargs, out):
    parts = [r.node(a) for a in args[0]]
    axis = given(args, kwargs, 1, "dim", 0) % len(out.shape)
    return view(cat(parts), np.stack([positions(part) + k * part.size for k, part in enumerate(parts)], axis=axis))


