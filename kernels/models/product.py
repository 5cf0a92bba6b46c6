"""Owns diagonal linear networks of any depth, h(x) = <w_1 * ... * w_D, x>: DiagonalLinear is D = 2.

Parallel over networks BN and inputs; a program keeps D blocks [BN, d], inputs along the lanes.
    dh/dw_k,j = x_j prod_{l != k} w_l,j        at D = 2:  u += (g x) v,  v += (g x) u
"""

import triton
import triton.language as tl


@triton.jit
def inputs(X, i, SHAPE: tl.constexpr, STRIDE: tl.constexpr):
    """Rows i [K] of X [n, STRIDE] as x [K, STRIDE]."""
    return tl.load(X + (i[:, None] * STRIDE + tl.arange(0, STRIDE)[None, :]))


@triton.jit
def value(w, x, SHAPE: tl.constexpr):
    """(h(x) [BN], no residuals)."""
    beta = w[0]
    for k in tl.static_range(1, len(w)):
        beta = beta * w[k]
    return tl.sum(beta * x, axis=1), ()


@triton.jit
def vjp(to, w, x, residuals, g, SHAPE: tl.constexpr):
    """to + g [BN] dh/dw: with to = w and g = -eta dloss/df, the SGD step."""
    e = g[:, None] * x
    out = ()
    for k in tl.static_range(len(w)):
        if len(w) == 2:
            out = out + (tl.fma(e, w[1 - k], to[k]),)
        else:
            share = e
            for other in tl.static_range(len(w)):
                if other != k:
                    share = share * w[other]
            out = out + (to[k] + share,)
    return out
