"""Owns the draw contract in Triton: Philox4x32-10 with counter (step // 4, network id, stream, item).

What is parallel is whatever block of networks (or of table entries) the arguments span; nothing here is stored.
The integers are those of fastsgd/spec/draws.py and csrc/core/{philox,permutation}.h bit for bit. Normal draws are made
from the same uniforms with Triton's float64 log, so that they agree to rounding.
"""

import triton
import triton.language as tl

from .contract import GRADIENT_NOISE, LABEL_NOISE, PERMUTATION


@triton.jit
def block_of_four(seed, block, ids, STREAM: tl.constexpr, item):
    """The four words [K] of (block, ids [K], stream, item); word q serves step 4 block + q."""
    zero = ids * 0
    return tl.philox(seed, zero + block, ids, zero + STREAM, zero + item)


@triton.jit
def index_of(word, n):
    """Sample index in [0, n): the high word of word * n."""
    return tl.umulhi(word, word * 0 + n).to(tl.int32)


@triton.jit
def uniform_of(high, low):
    """Uniform in (0, 1], float64: (2^26 (high >> 5) + (low >> 6) + 1/2) / 2^53."""
    parts = (high >> 5).to(tl.int32).to(tl.float64) * 67108864.0 + (low >> 6).to(tl.int32).to(tl.float64)
    return (parts + 0.5) * 1.1102230246251565e-16


@triton.jit
def sincos_turns(u):
    """(sin, cos) of 2 pi u, 0 <= u <= 1, float64: octants, then Taylor series on [-pi/4, pi/4], as in core/math.h.

    Triton's own sine keeps a table in local memory for arguments that never come here.
    """
    quarter = tl.floor(4 * u + 0.5)
    x = (u - quarter * 0.25) * 6.283185307179586
    square = x * x
    sin = tl.zeros_like(x)
    cos = tl.zeros_like(x)
    for j in tl.static_range(19, 1, -2):
        sin = -(square * (1.0 / (j * (j - 1)))) * (1 + sin)
    for j in tl.static_range(20, 0, -2):
        cos = -(square * (1.0 / (j * (j - 1)))) * (1 + cos)
    sin = x + x * sin
    cos = 1 + cos
    q = quarter.to(tl.int32) & 3
    swapped = (q & 1) == 1
    a = tl.where(swapped, cos, sin)
    b = tl.where(swapped, sin, cos)
    return tl.where(q >= 2, -a, a), tl.where((q == 1) | (q == 2), -b, b)


@triton.jit
def normals_of(w0, w1, w2, w3):
    """The pair of standard normals of a block, float64: sqrt(-2 log u) (cos 2 pi v, sin 2 pi v)."""
    radius = tl.sqrt(tl.log(uniform_of(w0, w1)) * -2.0)
    sin, cos = sincos_turns(uniform_of(w2, w3))
    return radius * cos, radius * sin


@triton.jit
def stable_of(w0, w1, w2, w3, alpha):
    """The symmetric stable number of a block, float64, as in core/rules/noise.h; alpha float64."""
    MOST: tl.constexpr = 1 - 2.0**-53
    offset = tl.minimum(uniform_of(w0, w1), MOST) - 0.5
    w = -tl.log(tl.minimum(uniform_of(w2, w3), MOST))
    turn = 0.5 * tl.abs(offset)
    sin, _none = sincos_turns(alpha * turn)
    _none, cos = sincos_turns(turn)
    _none, beside = sincos_turns(tl.abs(1 - alpha) * turn)
    size = tl.exp(tl.log(sin) - tl.log(cos) / alpha + (1 - alpha) / alpha * (tl.log(beside) - tl.log(w)))
    return tl.where(offset < 0, -size, size)


@triton.jit
def sign_of(word):
    """+1 where the word's top bit is 0, else -1."""
    return 1 - 2 * (word >> 31).to(tl.int32)


@triton.jit
def noise_of_four(seed, block, ids, item, KIND: tl.constexpr):
    """Label noise z [K] of steps 4 block .. 4 block + 3, as a tuple of four; KIND is "gaussian" or "rademacher"."""
    if KIND == "gaussian":  # a block of words gives two draws
        a0, a1, a2, a3 = block_of_four(seed, block * 2, ids, LABEL_NOISE, item)
        b0, b1, b2, b3 = block_of_four(seed, block * 2 + 1, ids, LABEL_NOISE, item)
        z0, z1 = normals_of(a0, a1, a2, a3)
        z2, z3 = normals_of(b0, b1, b2, b3)
        return z0, z1, z2, z3
    else:
        w0, w1, w2, w3 = block_of_four(seed, block, ids, LABEL_NOISE, item)
        return sign_of(w0), sign_of(w1), sign_of(w2), sign_of(w3)


@triton.jit
def picked(seed, block, ids, STREAM: tl.constexpr, item, q, KIND: tl.constexpr):
    """Draw q of a block of noise: of two if Gaussian, of four signs."""
    w0, w1, w2, w3 = block_of_four(seed, block, ids, STREAM, item)
    if KIND == "gaussian":
        z0, z1 = normals_of(w0, w1, w2, w3)
        return tl.where(q == 0, z0, z1)
    else:
        return sign_of(tl.where(q < 2, tl.where(q == 0, w0, w1), tl.where(q == 2, w2, w3)))


@triton.jit
def noise_of_one(seed, t, ids, item, KIND: tl.constexpr):
    """Label noise z [K] of step t alone (uint64)."""
    each = 2 if KIND == "gaussian" else 4
    return picked(seed, (t // each).to(tl.uint32), ids, LABEL_NOISE, item, t % each, KIND)


@triton.jit
def noise_of_parameter(seed, t, ids, p, alpha, KIND: tl.constexpr):
    """Gradient noise z of canonical parameters p [1 or K, ...] int32 of networks ids [K, ...] at step t.

    Each parameter draws the whole block of its two or four and takes its own: no draw crosses lanes. Stable ones have a
    block each.
    """
    if KIND == "stable":
        item = p.to(tl.uint32)
        w0, w1, w2, w3 = block_of_four(seed, t.to(tl.uint32), ids + item * 0, GRADIENT_NOISE, item)
        return stable_of(w0, w1, w2, w3, alpha)
    else:
        shift = 1 if KIND == "gaussian" else 2
        item = (p >> shift).to(tl.uint32)
        return picked(seed, t.to(tl.uint32), ids + item * 0, GRADIENT_NOISE, item, p - (p >> shift << shift), KIND)


@triton.jit
def mix(x, key, size):
    """A number below `size` from x and a round's key: two products mix, the high word of a third scales."""
    h = tl.mul(x ^ key, 0xD2511F53, sanitize_overflow=False)
    h = tl.mul(h ^ (h >> 15), 0xCD9E8D57, sanitize_overflow=False)
    return tl.umulhi(h, h * 0 + size)


@triton.jit
def permuted(seed, ids, key, position, n, a, s, ROUNDS: tl.constexpr):
    """The index [K] at `position` [K] of the permutation of 0..n-1 of (ids, key) [K], uint32.

    A Feistel network on pairs (x, y), x < a, y < 2^s, walked until it lands below n; csrc/core/permutation.h says why.
    """
    keys = ()
    for block in tl.static_range(ROUNDS // 4):
        keys = keys + block_of_four(seed, key * 6 + block, ids, PERMUTATION, 0)
    index = position
    walking = position >= 0
    b = (ids * 0 + 1) << s
    outside = tl.full([], 1, tl.int32)
    while outside > 0:
        x = index >> s
        y = index & (b - 1)
        for r in tl.static_range(0, ROUNDS, 2):
            x = x + mix(y, keys[r], a)
            x = tl.where(x >= a, x - a, x)
            y = (y + mix(x, keys[r + 1], b)) & (b - 1)
        index = tl.where(walking, (x << s) | y, index)
        walking = index >= n
        outside = tl.max(walking.to(tl.int32), axis=0)
    return index
