"""Owns what torch's operators mean that work entry by entry: each rule makes a node of the arguments' nodes.

A rule has (recorder r, args, kwargs, out): r.node(a) is the node of an argument, `out` the result on the meta device.
"""

from math import sqrt

import numpy as np

from .graph import apply, const, reshape


def map(name):
    return lambda r, args, kwargs, out: apply(name, *(r.node(a) for a in args))


def scaled(r, b, kwargs):
    alpha = kwargs.get("alpha", 1)
    return r.node(b) if alpha == 1 else r.node(b) * float(alpha)


def given(args, kwargs, at, name, default):
    return args[at] if len(args) > at else kwargs.get(name, default)


def power(r, args, kwargs, out):
    import torch

    exponent = args[1]
    if isinstance(exponent, torch.Tensor):
        exponent = r.node(exponent)
        if exponent.op != "const" or exponent.size != 1:
            base = r.node(args[0])
            return apply("where", apply("eq", exponent, 0.0), 1.0, apply("pow", base, exponent))
        exponent = float(exponent.attr.reshape(()))
    return reshape(to_the(r.node(args[0]), float(exponent)), out.shape)


def to_the(z, p):
    """z^p of a number p, by products and roots where that is exact."""
    if p < 0 and (2 * p).is_integer() and p >= -32:
        return apply("div", 1.0, to_the(z, -p))
    if p == 0:
        return const(np.ones(z.shape))
    if p <= 32 and (2 * p).is_integer():
        root = apply("sqrt", z) if not p.is_integer() else None
        out, square, left = root, z, int(p)
        while left:
            if left & 1:
                out = square if out is None else out * square
            left >>= 1
            square = apply("square", square) if left else square
        return out
    return apply("pow", z, p)


def clamp(r, args, kwargs, out):
    z = r.node(args[0])
    for bound, worse in ((given(args, kwargs, 1, "min", None), "lt"), (given(args, kwargs, 2, "max", None), "gt")):
        if bound is not None:
            z = apply("where", apply(worse, z, r.node(bound)), r.node(bound), z)
    return z


def div(r, args, kwargs, out):
    mode = kwargs.get("rounding_mode")
    q = apply("div", r.node(args[0]), r.node(args[1]))
    return q if mode is None else apply(mode, q)


def elu(r, args, kwargs, out):
    z = r.node(args[0])
    alpha, scale, inside = (float(given(args, kwargs, k, name, 1.0)) for k, name in (
        (1, "alpha"), (2, "scale"), (3, "input_scale")))
    below = apply("expm1", apply("min", z, 0.0) * inside) * alpha
    return apply("where", apply("gt", z, 0.0), z, below) * scale


def gelu(r, args, kwargs, out):
    z = r.node(args[0])
    if kwargs.get("approximate", "none") == "tanh":
        return z * 0.5 * (apply("tanh", sqrt(2 / np.pi) * (z + 0.044715 * (z * z * z))) + 1.0)
    return z * 0.5 * (apply("erf", z * sqrt(0.5)) + 1.0)


def softplus(r, args, kwargs, out):
    z, beta = r.node(args[0]), float(given(args, kwargs, 1, "beta", 1))
    threshold = float(given(args, kwargs, 2, "threshold", 20))
    scaled = z * beta
    return apply("where", apply("gt", scaled, threshold), z, apply("softplus", scaled) / beta)


def leaky(r, args, kwargs, out):
    z = r.node(args[0])
    return apply("where", apply("gt", z, 0.0), z, z * float(given(args, kwargs, 1, "negative_slope", 0.01)))


def threshold(r, args, kwargs, out):
    z = r.node(args[0])
    return apply("where", apply("gt", z, float(args[1])), z, float(args[2]))


def logaddexp(r, args, kwargs, out):
    a, b = r.node(args[0]), r.node(args[1])
    return b + apply("softplus", a - b)


def cast(r, args, kwargs, out):
    import torch

    z = r.node(args[0])
    if out.dtype == torch.bool:
        return apply("ne", z, 0.0)
    return z if out.dtype.is_floating_point or not args[0].dtype.is_floating_point else apply("trunc", z)


def full(value):
    return lambda r, args, kwargs, out: const(np.full(out.shape, value(args)))


def log_base(base):
    return lambda r, args, kwargs, out: apply("log", r.node(args[0])) * (1 / np.log(base))


def times(f):
    return lambda r, args, kwargs, out: r.node(args[0]) * apply(f, r.node(args[0]))


