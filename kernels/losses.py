"""Owns the losses: derivative, value, and what must stay within bounds; csrc/core/losses.h in Triton.

squared  c sum_k m_k (f_k - y_k)^2            cross_entropy  c log sum_k exp(f_k - f_y), y the number of a class
logistic c log(1 + exp(-y f)), y = +-1        hinge          c max(0, 1 - y f), y = +-1
output   c f, the output itself

Predictions f are [BN], or [BN, O] of o > 1 outputs, O the power of two that pads them; what pads them is zero, and so
is its derivative. LOSS = (name, o, O, whether outputs have weights m)
"""

import triton
import triton.language as tl

from .elementary import log1p

NAME = tl.constexpr(0)
OUTPUTS = tl.constexpr(1)
PADDED = tl.constexpr(2)
WEIGHTED = tl.constexpr(3)


@triton.jit
def load(numbers, LOSS: tl.constexpr):
    """(c, bound), and m, a number or [1, O], where there are weights; from numbers [2], or [2 + O] with them."""
    out = (tl.load(numbers), tl.load(numbers + 1))
    if LOSS[WEIGHTED]:
        if LOSS[OUTPUTS] == 1:
            out = out + (tl.load(numbers + 2),)
        else:
            out = out + (tl.load(numbers + 2 + tl.arange(0, LOSS[PADDED]))[None, :],)
    return out


@triton.jit
def over_outputs(f, REAL: tl.constexpr):
    """(numbers k [1, O] of outputs like f [BN, O], which of them are real)."""
    k = tl.arange(0, f.shape[1])[None, :]
    return k, k < REAL


@triton.jit
def beyond(gap, bound):
    """Whether |gap| [BN], or one of [BN, O], is beyond the bound or not a number."""
    out = (tl.abs(gap) <= bound) == 0
    if len(gap.shape) == 2:
        out = tl.max(out.to(tl.int32), axis=1) > 0
    return out


@triton.jit
def exponentials(f, y, LOSS: tl.constexpr):
    """(exp(f - most) [BN, O], zero where there is no output, whether it is the label's, most [BN], the largest one)."""
    k, real = over_outputs(f, LOSS[OUTPUTS])
    most = tl.max(tl.where(real, f, float("-inf")), axis=1)
    return tl.where(real, tl.exp(f - most[:, None]), 0.0), y[:, None] == k.to(f.dtype), most


@triton.jit
def dloss(f, y, terms, LOSS: tl.constexpr):
    """(dloss/df like f, [BN] whether |f - y| of a squared loss, |f| of another, is out of bounds); terms: of `load`."""
    c, bound = terms[0], terms[1]
    if LOSS[NAME] == "squared":
        r = f - y
        g = (c + c) * r
        if LOSS[WEIGHTED]:
            g = terms[2] * g
        return g, beyond(r, bound)
    elif LOSS[NAME] == "cross_entropy":
        e, here, _most = exponentials(f, y, LOSS)
        others = tl.sum(tl.where(here, 0.0, e), axis=1)[:, None]
        return c * (tl.where(here, -others, e) / tl.sum(e, axis=1)[:, None]), beyond(f, bound)
    elif LOSS[NAME] == "logistic":
        e = tl.exp(-tl.abs(f))
        return -(c * y) * (tl.where(y * f < 0, 1.0, e) / (1 + e)), beyond(f, bound)
    elif LOSS[NAME] == "output":
        return tl.full(f.shape, 1.0, f.dtype) * c, beyond(f, bound)
    else:
        return tl.where(y * f < 1, -(c * y), 0.0), beyond(f, bound)


@triton.jit
def value(f, y, terms, LOSS: tl.constexpr):
    """Losses [BN] of predictions f at labels y."""
    c = terms[0]
    if LOSS[NAME] == "squared":
        square = (f - y) * (f - y)
        if LOSS[WEIGHTED]:
            square = terms[2] * square
        if LOSS[OUTPUTS] > 1:
            square = tl.sum(square, axis=1)
        return c * square
    elif LOSS[NAME] == "cross_entropy":
        e, here, most = exponentials(f, y, LOSS)
        own = tl.sum(tl.where(here, e, 0.0), axis=1)
        above = most - tl.sum(tl.where(here, f, 0.0), axis=1)
        return c * (above + log1p((own - 1) + tl.sum(tl.where(here, 0.0, e), axis=1)))
    elif LOSS[NAME] == "logistic":
        z = -(y * f)
        return c * (tl.maximum(z, 0.0) + log1p(tl.exp(-tl.abs(z))))
    elif LOSS[NAME] == "output":
        return c * f
    else:
        return c * tl.maximum(1 - y * f, 0.0)
