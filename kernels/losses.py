"""Owns the losses of one output: derivative, value, and what must stay within bounds; csrc/core/losses.h in Triton.

squared  c (f - y)^2        logistic  c log(1 + exp(-y f)), y = +-1        hinge  c max(0, 1 - y f), y = +-1
"""

import triton
import triton.language as tl


@triton.jit
def slope(f, y, c, bound, LOSS: tl.constexpr):
    """(dloss/df [BN], whether |f - y| of a squared loss, |f| of another, is beyond the bound or not a number)."""
    if LOSS == "squared":
        r = f - y
        return (c + c) * r, (tl.abs(r) <= bound) == 0
    elif LOSS == "logistic":
        return -(c * y) / (1 + tl.exp(y * f)), (tl.abs(f) <= bound) == 0
    else:
        return tl.where(y * f < 1, -(c * y), 0.0), (tl.abs(f) <= bound) == 0


@triton.jit
def value(f, y, c, LOSS: tl.constexpr):
    """Losses of predictions f at labels y."""
    if LOSS == "squared":
        return c * ((f - y) * (f - y))
    elif LOSS == "logistic":
        z = -(y * f)
        return c * (tl.maximum(z, 0.0) + tl.log(1 + tl.exp(-tl.abs(z))))
    else:
        return c * tl.maximum(1 - y * f, 0.0)
