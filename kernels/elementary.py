"""Owns log(1 + x) and exp(x) - 1 with all digits near zero, where the plain expressions lose them.

With u the rounded 1 + x, log(u) / (u - 1) hardly depends on u, so that x log(u) / (u - 1) does not notice the rounding;
likewise (u - 1) x / log(u) with u the rounded exp(x).
"""

import triton
import triton.language as tl


@triton.jit
def log1p(x):
    """log(1 + x), x >= 0."""
    u = 1 + x
    seen = u > 1
    return tl.where(seen, tl.log(u) * (x / tl.where(seen, u - 1, 1.0)), x)


@triton.jit
def expm1(x):
    """exp(x) - 1, x <= 0."""
    u = tl.exp(x)
    near = (u > 0.5) & (u < 1)
    return tl.where(near, (u - 1) * (x / tl.log(tl.where(near, u, 0.5))), tl.where(u < 1, u - 1, x))
