"""Owns the labels of a step: loaded, and with noise on them.

A squared loss of o > 1 outputs has a label for each, y [n, O], noise item b o + k on label k of sample b; every other
loss has one a sample, y [n], noise item b. Parallel over networks BN. LOSS is that of kernels/losses.
"""

import triton
import triton.language as tl

from . import draws
from .losses import NAME, OUTPUTS, PADDED


@triton.jit
def load(y, i, LOSS: tl.constexpr):
    """Labels of samples i [K]: [K], or [K, O]."""
    if LOSS[NAME] == "squared" and LOSS[OUTPUTS] > 1:
        return tl.load(y + (i[:, None] * LOSS[PADDED] + tl.arange(0, LOSS[PADDED])[None, :]))
    else:
        return tl.load(y + i)


@triton.jit
def addressed(mine, b, LOSS: tl.constexpr):
    """(networks, items) [BN, O] of the noise on the labels of sample b, for draws."""
    item = (b * LOSS[OUTPUTS] + tl.arange(0, LOSS[PADDED])[None, :]).to(tl.uint32)
    return mine[:, None] + item * 0, mine[:, None] * 0 + item


@triton.jit
def noise_of_four(seed, block, mine, LOSS: tl.constexpr, NOISE: tl.constexpr):
    """Noise z on the labels of one sample a step, at steps 4 block .. 4 block + 3: a tuple of four [BN] or [BN, O]."""
    if LOSS[OUTPUTS] > 1:
        networks, items = addressed(mine, 0, LOSS)
        return draws.noise_of_four(seed, block, networks, items, NOISE)
    else:
        return draws.noise_of_four(seed, block, mine, 0, NOISE)


@triton.jit
def noise_of_one(seed, t, mine, b, LOSS: tl.constexpr, NOISE: tl.constexpr):
    """Noise z on the labels of sample b of step t, [BN] or [BN, O]."""
    if LOSS[OUTPUTS] > 1:
        networks, items = addressed(mine, b, LOSS)
        return draws.noise_of_one(seed, t, networks, items, NOISE)
    else:
        return draws.noise_of_one(seed, t, mine, b.to(tl.uint32), NOISE)


@triton.jit
def spread(z, REAL: tl.constexpr):
    """z [BN, O], zero from output REAL on, held by every lane.

    Each lane draws for an output of its own; sums over outputs, of one number and zeros, take it to the others without
    shared memory.
    """
    k = tl.arange(0, z.shape[1])[None, :]
    out = tl.zeros(z.shape, z.dtype)
    for output in tl.static_range(REAL):
        one = tl.sum(tl.where(k == output, z, 0.0), axis=1)[:, None]
        if z.shape[0] == 1:  # through a scalar, which has no layout
            one = tl.sum(tl.sum(one, axis=1), axis=0)
        out = tl.where(k == output, one, out)
    return out


@triton.jit
def noisy(label, scale, z, LOSS: tl.constexpr):
    """label + scale z; scale [BN] or [1]."""
    z = z.to(label.dtype)
    if LOSS[OUTPUTS] > 1:
        return label + scale[:, None] * spread(z, LOSS[OUTPUTS])
    else:
        return label + scale * z
