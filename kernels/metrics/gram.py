"""Owns Gram matrices of Jacobians of dense networks, in float64, without the Jacobian.

Row i of a layer's part of J is the outer product of delta_i [q] and the layer's input a_i [p], so that
    (J J^T)_ij = sum over layers of (c^2 <a_i, a_j> + trained bias) <delta_i, delta_j>.
Parallel over networks and tiles [M, M] of pairs of points, of which those below the diagonal are mirrored; a program
keeps two tiles, <a_i, a_j> and <delta_i, delta_j>.
"""

import triton
import triton.language as tl


@triton.jit
def products(V, i, j, m, q, M: tl.constexpr, DEPTH: tl.constexpr):
    """<v_i, v_j> [M, M] of rows i, j [M] of V [m, q]."""
    out = tl.zeros([M, M], tl.float64)
    k = q * 0
    while k < q:
        at = k + tl.arange(0, DEPTH)
        inside = (at < q)[None, :]
        a = tl.load(V + (i[:, None] * q + at[None, :]), mask=(i < m)[:, None] & inside, other=0.0)
        b = tl.load(V + (j[:, None] * q + at[None, :]), mask=(j < m)[:, None] & inside, other=0.0)
        out = tl.dot(a, tl.trans(b), out, input_precision="ieee", out_dtype=tl.float64)
        k += DEPTH
    return out


@triton.jit(do_not_specialize=["m", "p", "q", "a_stride"])
def add_layer(K, A, D, scales, m: tl.int32, p: tl.int32, q: tl.int32, a_stride: tl.int64, M: tl.constexpr,
              DEPTH: tl.constexpr):
    """K [N, m, m] += (scales[0] <a_i, a_j> + scales[1]) <d_i, d_j>.

    A [N, m, p], or [m, p] with a_stride 0, and D [N, m, q]: a layer's inputs and derivatives; all float64
    """
    net = tl.program_id(0).to(tl.int64)
    if tl.program_id(1) >= tl.program_id(2):
        i = tl.program_id(1) * M + tl.arange(0, M)
        j = tl.program_id(2) * M + tl.arange(0, M)
        inputs = products(A + net * a_stride, i, j, m, p, M, DEPTH)
        derivatives = products(D + net * m * q, i, j, m, q, M, DEPTH)
        part = (inputs * tl.load(scales) + tl.load(scales + 1)) * derivatives
        inside = (i < m)[:, None] & (j < m)[None, :]
        here = K + net * m * m + (i[:, None] * m + j[None, :])
        part += tl.load(here, mask=inside, other=0.0)
        tl.store(here, part, mask=inside)
        if tl.program_id(1) > tl.program_id(2):
            tl.store(K + net * m * m + (j[None, :] * m + i[:, None]), part, mask=inside)
