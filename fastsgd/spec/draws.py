"""Owns the draw contract in Python: Philox4x32-10 with counter (step // 4, network id, stream, item), word step % 4."""

import numpy as np

from . import elementary

STREAMS = {"order": 0, "label_noise": 1, "init": 2, "inputs": 3, "permutation": 4, "gradient_noise": 5}
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
MOST_ROUNDS = 24  # of a permutation: csrc/core/permutation.h
WORD = 2**32  # values of each word of a counter
# {draws: (steps, items) that counters tell apart}, by the block and item of a draw in csrc/core and kernels/
LIMITS = {
    "an order": (4 * WORD, WORD),  # philox.h: block t / 4, item b
    "an order without replacement": (WORD // (MOST_ROUNDS // 4), WORD),  # permutation.h: blocks 6 t .. 6 t + 5
    "gaussian inputs made on the way": (WORD, WORD),  # rules/noise.h: block t, item b ceil(d / 2) + k
    "sparse inputs made on the way": (WORD, WORD),  # item b d + j
}


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
    """Random words for steps t0..t1 of the networks `ids`: uint32 [len(ids), t1 - t0].

    item: one of all networks, or [len(ids)]
    """
    ids, item = (np.reshape(np.asarray(a, dtype=np.uint32), (-1, 1)) for a in (ids, item))
    first, last = t0 // 4, (t1 + 3) // 4
    blocks = np.arange(first, last, dtype=np.uint64)  # the last block of all ends at 2^32
    four = philox((blocks[None, :], ids, np.uint32(STREAMS[stream]), item), seed)
    flat = np.moveaxis(four, 0, -1).reshape(len(ids), -1)
    return flat[:, t0 - 4 * first:t1 - 4 * first]


def indices(seed, ids, t0, t1, n, item=0):
    """Sample indices for steps t0..t1: the high word of word * n, int64 [len(ids), t1 - t0] in [0, n)."""
    return (words(seed, ids, t0, t1, "order", item).astype(np.uint64) * np.uint64(n) >> _SHIFT).astype(np.int64)


def uniforms(seed, ids, b0, b1, stream, item=0):
    """Pairs (u, v) of uniforms in (0, 1] for blocks b0..b1, float64 [len(ids), b1 - b0, 2].

    Block b is the Philox block with counter (b, id, stream, item):
        u = (2^26 (w0 >> 5) + (w1 >> 6) + 1/2) / 2^53, v the same from w2 and w3
    """
    w = words(seed, ids, 4 * b0, 4 * b1, stream, item).reshape(len(ids), -1, 4).astype(np.uint64)
    high, low = w[..., 0::2] >> np.uint64(5), w[..., 1::2] >> np.uint64(6)
    return (high.astype(np.float64) * 67108864.0 + low + 0.5) / 9007199254740992.0


def normals(seed, ids, t0, t1, stream, item=0):
    """Standard normal draws t0..t1, float64 [len(ids), t1 - t0], by Box and Muller: block b gives draws 2b and 2b + 1.

        z_2b = sqrt(-2 log u) cos(2 pi v), z_2b+1 = sqrt(-2 log u) sin(2 pi v)

    csrc/core/normal.h has the same bits.
    """
    first, last = t0 // 2, (t1 + 1) // 2
    uniform = uniforms(seed, ids, first, last, stream, item)
    radius = np.sqrt(-2 * elementary.log(uniform[..., 0]))
    sin, cos = elementary.sincos_turns(uniform[..., 1])
    pairs = np.stack([radius * cos, radius * sin], axis=-1)
    return pairs.reshape(len(ids), -1)[:, t0 - 2 * first:t1 - 2 * first]


def signs(seed, ids, t0, t1, stream, item=0):
    """Random signs for steps t0..t1, float64 [len(ids), t1 - t0]: +1 where the step's word is below 2^31, else -1."""
    return np.where(words(seed, ids, t0, t1, stream, item) < 2**31, 1.0, -1.0)


def stables(seed, ids, t0, t1, stream, item=0, alpha=2.0):
    """Symmetric alpha-stable draws for steps t0..t1, float64 [len(ids), t1 - t0]: E exp(i s z) = exp(-|s|^alpha).

    With the uniforms u, v of the step's block, phi = pi (u - 1/2) and w = -log v (Chambers, Mallows and Stuck 1976):
        z = sin(alpha phi) / cos(phi)^(1 / alpha) * (cos((1 - alpha) phi) / w)^((1 - alpha) / alpha)
    alpha: in [0.1, 2], [] or [len(ids)]. csrc/core/rules/noise.h has the same numbers, to rounding.
    """
    uniform = np.minimum(uniforms(seed, ids, t0, t1, stream, item), 1 - 2.0**-53)
    a, offset = np.broadcast_to(alpha, len(ids)).astype(np.float64)[:, None], uniform[..., 0] - 0.5
    turn, w = 0.5 * np.abs(offset), -elementary.log(uniform[..., 1])
    sin, cos = elementary.sincos_turns(a * turn)[0], elementary.sincos_turns(turn)[1]
    beside = elementary.sincos_turns(np.abs(1 - a) * turn)[1]
    log = elementary.log(sin) - elementary.log(cos) / a + (1 - a) / a * (elementary.log(beside) - elementary.log(w))
    with np.errstate(over="ignore"):
        return np.copysign(elementary.exp(log), offset)


# draws of a block of words, and who makes them
NOISES = {"gaussian": (2, normals), "rademacher": (4, signs), "stable": (1, stables)}
for _kind, (_each, _) in NOISES.items():
    LIMITS[f"{_kind} noise on labels"] = _each * WORD, WORD  # core/general.h: block t / each, item b o + k
    LIMITS[f"gradient noise ({_kind})"] = WORD, _each * WORD  # block t, item p / each


def permutation(seed, ids, key, n, positions, item=0):
    """The indices at `positions` in each network's pseudo-random permutation of 0..n-1.

    A Feistel network of 12 rounds (24 if n <= 64) on pairs (x, y), x < a, y < b, walked until it lands below n; its
    round keys are the words of steps 24 key, 24 key + 1, ... of stream "permutation". csrc/core/permutation.h has the
    same integers and says why.

    key: int in [0, 2^32 // 6) - the epoch or step
    n: int in [1, 2^32)
    positions: integers [m] or [len(ids), m] in [0, n)
    Returns int64 [len(ids), m].
    """
    s = ((int(n) - 1).bit_length() + 1) // 2  # the least with 4^s >= n
    a, b, rounds = np.uint64(-(-int(n) >> s)), np.uint64(1 << s), 24 if n <= 64 else 12
    keys = words(seed, ids, MOST_ROUNDS * key, MOST_ROUNDS * key + rounds, "permutation", item).astype(np.uint64)
    keys = keys.T[:, :, None]
    index = np.broadcast_to(np.asarray(positions), (len(ids), np.shape(positions)[-1])).astype(np.uint64)
    walking = True
    while True:
        x, y = index >> np.uint64(s), index & (b - np.uint64(1))
        for r in range(0, rounds, 2):
            x = (x + _feistel_mix(y, keys[r], a)) % a
            y = (y + _feistel_mix(x, keys[r + 1], b)) % b
        index = np.where(walking, x * b + y, index)
        walking = index >= n
        if not walking.any():
            return index.astype(np.int64)


def noise_vector(seed, ids, t, count, kind, stream, alpha=None):
    """Noise of `count` entries at step t, [len(ids), count] float64; entries share the blocks (t, id, stream, k).

    kind: "gaussian", entries 2k, 2k + 1 are the normal pair of block t, item k; or "rademacher", entries 4k .. 4k + 3
        are the signs of its four words; or "stable", entry k is that of block t, item k
    alpha: of "stable"
    """
    each, draw = NOISES[kind]
    return items(draw, seed, ids, each * t, each * (t + 1), stream, -(-count // each), alpha)[:, :count]


def items(draw, seed, ids, t0, t1, stream, count, alpha=None):
    """Draws of items 0..count-1, one item after the other, [len(ids), count (t1 - t0)]: all in one call of `draw`."""
    more = {} if alpha is None else {"alpha": np.repeat(np.broadcast_to(alpha, len(ids)), count)}
    drawn = draw(seed, np.repeat(ids, count), t0, t1, stream, np.tile(np.arange(count), len(ids)), **more)
    return drawn.reshape(len(ids), -1)


def permuted(seed, ids, key, positions, n):
    """The index at positions[t, b] of the permutation of key[t, b], for every network: int64 [len(ids), T, B]."""
    out = np.empty((len(ids), *key.shape), np.int64)
    for one in np.unique(key):
        where = key == one
        out[:, where] = permutation(seed, ids, int(one), n, positions[where])
    return out


def inputs(seed, ids, t0, t1, batch, d, kind, density):
    """Inputs of networks `ids` at steps t0..t1 - 1, float64 [len(ids), t1 - t0, batch, d]; csrc/core/rules/noise.h.

    kind: "gaussian", coordinates 2k and 2k + 1 of item b of step t are the normal pair of block t, item
        b ceil(d/2) + k; or "sparse", coordinate j is v where u < density, else 0, with (u, v) of block t, item b d + j
    """
    out = np.empty((len(ids), t1 - t0, batch, d))
    half = (d + 1) // 2
    for b in range(batch):
        for j in range(0, d, 2 if kind == "gaussian" else 1):
            if kind == "gaussian":
                pair = normals(seed, ids, 2 * t0, 2 * t1, "inputs", b * half + j // 2).reshape(len(ids), -1, 2)
                out[:, :, b, j:j + 2] = pair[..., :d - j]
            else:
                pair = uniforms(seed, ids, t0, t1, "inputs", b * d + j)
                out[:, :, b, j] = np.where(pair[..., 0] < np.reshape(density, (-1, 1)), pair[..., 1], 0)
    return out


def _feistel_mix(x, key, size):
    """A number below `size` from x and a round's key: two products mix, the high word of a third scales."""
    h = (x ^ key) * _MULTIPLIERS[0] & _LOW
    h = (h ^ h >> np.uint64(15)) * _MULTIPLIERS[1] & _LOW
    return h * size >> _SHIFT
