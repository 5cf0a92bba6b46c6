"""Owns the draw contract in Python: Philox4x32-10 with counter (step // 4, network id, stream, item), word step % 4."""

import numpy as np

from . import elementary

STREAMS = {"order": 0, "label_noise": 1, "init": 2, "inputs": 3, "permutation": 4}
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(counter, key):
    """Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): ten rounds of two 32x32 -> 64 bit products.

    counter: four uint32 arrays that broadcast together
    key: int - 64 bits, low word first
    Returns uint32 [4, ...].
    """
    c = [np.asarray(word, dtype=np.uint64) for word in np.broadcast_arrays(*counter)]
    k = [key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF]
    for _ in range(10):
        p0, p1 = c[0] * _MULTIPLIERS[0], c[2] * _MULTIPLIERS[1]
        c = [(p1 >> _SHIFT) ^ c[1] ^ np.uint64(k[0]), p1 & _LOW, (p0 >> _SHIFT) ^ c[3] ^ np.uint64(k[1]), p0 & _LOW]
        k = [(k[0] + _WEYL[0]) & 0xFFFFFFFF, (k[1] + _WEYL[1]) & 0xFFFFFFFF]
    return np.stack(c).astype(np.uint32)


def words(seed, ids, t0, t1, stream, item=0):
    """Random words for steps t0..t1 of the networks `ids`: uint32 [len(ids), t1 - t0]."""
    ids = np.asarray(ids, dtype=np.uint32)
    first, last = t0 // 4, (t1 + 3) // 4
    blocks = np.arange(first, last, dtype=np.uint32)
    four = philox((blocks[None, :], ids[:, None], np.uint32(STREAMS[stream]), np.uint32(item)), seed)
    flat = np.moveaxis(four, 0, -1).reshape(len(ids), -1)
    return flat[:, t0 - 4 * first:t1 - 4 * first]


def indices(seed, ids, t0, t1, n, item=0):
    """Sample indices for steps t0..t1: the high word of word * n, int64 [len(ids), t1 - t0] in [0, n)."""
    return (words(seed, ids, t0, t1, "order", item).astype(np.uint64) * np.uint64(n) >> _SHIFT).astype(np.int64)


def normals(seed, ids, count, stream="init"):
    """Standard normal draws, float64 [len(ids), count]: Box-Muller on 53-bit uniforms of consecutive word pairs.

    Draw j of a network uses words 4*(j // 2) .. 4*(j // 2) + 3 of its stream, so it depends on (seed, id, j) alone.
    """
    w = words(seed, ids, 0, 4 * ((count + 1) // 2), stream).reshape(len(ids), -1, 4).astype(np.uint64)
    high, low = w[..., 0::2] >> np.uint64(5), w[..., 1::2] >> np.uint64(6)
    uniform = (high.astype(np.float64) * 67108864.0 + low + 0.5) / 9007199254740992.0  # in (0, 1)
    radius = np.sqrt(-2 * elementary.log(uniform[..., 0]))
    sin, cos = elementary.sincos_turns(uniform[..., 1])
    pairs = np.stack([radius * cos, radius * sin], axis=-1)
    return pairs.reshape(len(ids), -1)[:, :count]
