"""Owns powers of vectors, h(x) = <w^D - z^D, x>, or <w^D, x> where there is no z.

Parallel over networks BN and inputs; a program keeps one or two blocks [BN, d], inputs along the lanes.
    dh/dw_j = D w_j^(D-1) x_j,  dh/dz_j = -D z_j^(D-1) x_j        SHAPE = (D,)
"""

import triton
import triton.language as tl

from .product import inputs

__all__ = ["inputs", "value", "vjp"]


@triton.jit
def raised(w, D: tl.constexpr):
    """w^D."""
    out = tl.full(w.shape, 1.0, w.dtype)
    for _ in tl.static_range(D):
        out = out * w
    return out


@triton.jit
def value(w, x, SHAPE: tl.constexpr):
    """(h(x) [BN], no residuals)."""
    beta = raised(w[0], SHAPE[0])
    if len(w) == 2:
        beta = beta - raised(w[1], SHAPE[0])
    return tl.sum(beta * x, axis=1), ()


@triton.jit
def vjp(to, w, x, residuals, g, SHAPE: tl.constexpr):
    """to + g [BN] dh/dw."""
    e = (g * SHAPE[0])[:, None] * x
    out = (tl.fma(e, raised(w[0], SHAPE[0] - 1), to[0]),)
    if len(w) == 2:
        out = out + (tl.fma(-e, raised(w[1], SHAPE[0] - 1), to[1]),)
    return out
