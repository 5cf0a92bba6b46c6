"""Owns tables of sample indices [rows, T, B] for a stretch of steps: batches, orders without replacement, epochs.

One program makes BLOCK entries, one a lane: a table entry needs nothing but its own counters.
"""

import triton
import triton.language as tl

from .contract import ORDER
from .draws import block_of_four, index_of, permuted


@triton.jit(do_not_specialize=["count", "steps", "batch", "n", "first", "skip", "seed"])
def drawn(table, order_ids, count, steps: tl.int32, batch: tl.int32, n: tl.uint32, first: tl.uint32, skip: tl.int32,
          seed: tl.uint64, BLOCK: tl.constexpr):
    """table[r, s, b] = high word of word * n, with replacement; one Philox draw makes four steps of one (r, b).

    count: rows * blocks * batch draws, blocks those that steps t0 = 4 first + skip .. t0 + steps - 1 touch
    """
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    blocks = (skip + steps + 3) // 4
    b = e % batch
    block = (e // batch) % blocks
    r = e // (batch * blocks)
    live = e < count
    ids = tl.load(order_ids + r, mask=live, other=0).to(tl.uint32)
    words = block_of_four(seed, block.to(tl.uint32) + first, ids, ORDER, b.to(tl.uint32))
    for q in tl.static_range(4):
        s = 4 * block + q - skip
        at = (r.to(tl.int64) * steps + s) * batch + b
        tl.store(table + at, index_of(words[q], n), mask=live & (s >= 0) & (s < steps))


@triton.jit(do_not_specialize=["count", "steps", "batch", "n", "a", "s", "t0", "seed", "epoch"])
def distinct(table, order_ids, count, steps: tl.int32, batch: tl.int32, n: tl.uint32, a: tl.uint32, s: tl.uint32,
             t0: tl.int64, seed: tl.uint64, epoch: tl.int64, EPOCHS: tl.constexpr, ROUNDS: tl.constexpr,
             BLOCK: tl.constexpr):
    """table[r, s, b] = entry b of step t's permutation; with EPOCHS, entry q % epoch of epoch q // epoch's.

    q = t batch + b; epoch: samples of one
    a, s: the domain of the permutation, the least s with 4^s >= n and a = ceil(n / 2^s)
    """
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b = e % batch
    t = ((e // batch) % steps).to(tl.int64) + t0
    live = e < count
    ids = tl.load(order_ids + e // (batch * steps), mask=live, other=0).to(tl.uint32)
    if EPOCHS:
        sample = t * batch + b
        key = (sample // epoch).to(tl.uint32)
        position = (sample % epoch).to(tl.uint32)
    else:
        key = t.to(tl.uint32)
        position = b.to(tl.uint32)
    position = tl.where(live, position, 0)
    index = permuted(seed, ids, key, position, n, a, s, ROUNDS)
    tl.store(table + e, index.to(tl.int32), mask=live)
