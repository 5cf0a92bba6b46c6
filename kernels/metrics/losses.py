"""Owns mean losses over a data set, for every family of kernels/models, in float64.

Parallel over networks BN and chunks of the samples: a program keeps the parameters of BN networks and one sum each, and
goes through samples c, c + CHUNKS, ...:  sums[k, c] = sum_i loss(h_k(x_i), y_i).  Predictions are never stored.
"""

import triton
import triton.language as tl

from .. import labels, losses, state


@triton.jit(do_not_specialize=["N", "n"])
def sums(W, X, y, out, numbers, N: tl.int32, n: tl.int32, INPUTS: tl.constexpr, VALUE: tl.constexpr,
         SHAPE: tl.constexpr, LAYOUT: tl.constexpr, WIDTH: tl.constexpr, STRIDE: tl.constexpr, LOSS: tl.constexpr,
         BN: tl.constexpr, CHUNKS: tl.constexpr):
    """out [N, CHUNKS] from W [N, WIDTH] of any float dtype, X [n, STRIDE], y [n] or [n, O]; numbers: see losses."""
    net = tl.program_id(0) * BN + tl.arange(0, BN)
    live = net < N
    w = state.load(W, net, live, LAYOUT, WIDTH, tl.float64)
    terms = losses.load(numbers, LOSS)
    total = tl.zeros([BN], tl.float64)
    i = tl.program_id(1)
    while i < n:
        which = tl.arange(0, 1) + i
        f, _ = VALUE(w, INPUTS(X, which, SHAPE, STRIDE), SHAPE)
        total += losses.value(f, labels.load(y, which, LOSS), terms, LOSS)
        i += CHUNKS
    tl.store(out + net.to(tl.int64) * CHUNKS + tl.program_id(1), total, mask=live)
