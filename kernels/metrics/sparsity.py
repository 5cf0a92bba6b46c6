"""Owns what feature sparsity counts: active entries of a layer's activations, and units that are copies of later ones.

Activations phi [N, n, h] float64. Parallel over networks and tiles of M units; sums over samples run in the program.
    mean_j, deviation_j = |phi_j - mean_j|,   rho_ij = <phi_i - mean_i, phi_j - mean_j> / (deviation_i deviation_j)
    merged_i: some later living unit j > i has |rho_ij| > tau. A constant unit, deviation_j <= within |mean_j| sqrt(n),
    has no correlation, an infinite deviation by then, and is never merged. Columns must be of an order that can be
    squared.
"""

import triton
import triton.language as tl


@triton.jit
def samples(phi, s, j, n, h, M: tl.constexpr, DEPTH: tl.constexpr):
    """(activations [DEPTH, M] at samples s .. s + DEPTH - 1 of units j, which of them exist)."""
    at = s + tl.arange(0, DEPTH)
    inside = (at < n)[:, None] & (j < h)[None, :]
    return tl.load(phi + (at[:, None] * h + j[None, :]), mask=inside, other=0.0), inside


@triton.jit(do_not_specialize=["n", "h"])
def columns(phi, mean, deviation, positive, nonzero, n: tl.int32, h: tl.int32, M: tl.constexpr, DEPTH: tl.constexpr):
    """mean, deviation [N, h] float64, positive, nonzero [N, h] int32: #{phi > 0} and #{phi != 0} of every unit."""
    net = tl.program_id(0).to(tl.int64)
    phi += net * n * h
    j = tl.program_id(1) * M + tl.arange(0, M)
    total = tl.zeros([M], tl.float64)
    above = tl.zeros([M], tl.int32)
    other = tl.zeros([M], tl.int32)
    s = n * 0
    while s < n:
        x, inside = samples(phi, s, j, n, h, M, DEPTH)
        total += tl.sum(x, axis=0)
        above += tl.sum((x > 0).to(tl.int32), axis=0)
        other += tl.sum((inside & (x != 0)).to(tl.int32), axis=0)
        s += DEPTH
    centre = total / n
    square = tl.zeros([M], tl.float64)
    rest = tl.zeros([M], tl.float64)  # what the rounding of the mean leaves of the sum
    s = n * 0
    while s < n:
        x, inside = samples(phi, s, j, n, h, M, DEPTH)
        x = tl.where(inside, x - centre[None, :], 0.0)
        square += tl.sum(x * x, axis=0)
        rest += tl.sum(x, axis=0)
        s += DEPTH
    at = net * h + j
    tl.store(mean + at, centre + rest / n, mask=j < h)
    tl.store(deviation + at, tl.sqrt(tl.maximum(square - rest * rest / n, 0.0)), mask=j < h)
    tl.store(positive + at, above, mask=j < h)
    tl.store(nonzero + at, other, mask=j < h)


@triton.jit
def units(phi, mean, deviation, s, j, n, h, M: tl.constexpr, DEPTH: tl.constexpr):
    """(phi - mean) / deviation [DEPTH, M]; zeros beyond the samples."""
    x, inside = samples(phi, s, j, n, h, M, DEPTH)
    centre = tl.load(mean + j, mask=j < h, other=0.0)
    scale = tl.load(deviation + j, mask=j < h, other=1.0)
    return tl.where(inside, (x - centre[None, :]) / scale[None, :], 0.0)


@triton.jit(do_not_specialize=["n", "h"])
def merges(phi, mean, deviation, alive, merged, tau, n: tl.int32, h: tl.int32, M: tl.constexpr, DEPTH: tl.constexpr):
    """merged [N, h] int32 of alive [N, h] int32 and `columns`; tau [1] float64."""
    net = tl.program_id(0).to(tl.int64)
    phi += net * n * h
    mean += net * h
    deviation += net * h
    i = tl.program_id(1) * M + tl.arange(0, M)
    found = tl.zeros([M], tl.int32)
    first = tl.program_id(1) * M
    while first < h:
        j = first + tl.arange(0, M)
        rho = tl.zeros([M, M], tl.float64)
        s = n * 0
        while s < n:
            a = units(phi, mean, deviation, s, i, n, h, M, DEPTH)
            b = units(phi, mean, deviation, s, j, n, h, M, DEPTH)
            rho = tl.dot(tl.trans(a), b, rho, input_precision="ieee", out_dtype=tl.float64)
            s += DEPTH
        lives = tl.load(alive + net * h + j, mask=j < h, other=0)
        copies = (tl.abs(rho) > tl.load(tau)) & (j[None, :] > i[:, None]) & (lives[None, :] > 0)
        found = tl.maximum(found, tl.max(copies.to(tl.int32), axis=1))
        first += M
    mine = tl.load(alive + net * h + i, mask=i < h, other=0)
    tl.store(merged + net * h + i, found * mine, mask=i < h)
