// Owns pseudo-random permutations of 0 .. n - 1 that need no memory: position in, index out.
//
// A generalised Feistel network (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002) on pairs
// (x, y) of a * b >= n numbers, x < a, y < b. Rounds change x and y in turn, by x = (x + F(y)) mod a and
// y = (y + F(x)) mod b; an image outside 0 .. n - 1 goes through again until it is inside (cycle walking). Mitchell,
// Stokes, Frank and Holmes ("Bandwidth-optimal random shuffling for GPUs", arXiv 2106.06161) shuffle by Feistel
// networks keyed by counter-based generators. b is the least power of two with b^2 >= n: no index is divided, a * b <
// n + b, and shifts of y by odd numbers are odd permutations, so both parities occur.
//
// Twelve rounds, or 24 up to n = 64, where halves are too small to mix fast: with ideal F, the probability of one whole
// permutation is then off 1 / n! by less than 1e-6 of it for n <= 4, by 0.2 to 1.1 % (rms) for n = 5 to 8.
//
// The round keys are the words of steps 24 e, 24 e + 1, ... of (seed, id, stream PERMUTATION, item), e the epoch or
// step. A round is two products and one high product: at n = 1000 an index takes some 13 ns with 8 networks side by
// side in AVX2, 35 ns alone, and the keys of an epoch 25 ns a network.
#pragma once
#include "philox.h"

namespace fs {

constexpr int MOST_ROUNDS = 24;

struct Domain {
  u32 n, a, log2b, rounds;  // 1 <= n < 2^32

  FS_HD static Domain of(u32 n) {
    u32 s = 0;
    while ((u64(1) << 2 * s) < n) ++s;
    return {n, u32((u64(n) + (u64(1) << s) - 1) >> s), s, n <= 64 ? 24u : 12u};
  }
};

// Round keys of R networks for epoch (or step) e < 2^32 / 6.
template <int R>
FS_HD void permutation_keys(const Domain& d, u64 seed, const u32 (&ids)[R], u32 e, u32 item,
                            u32 (&keys)[MOST_ROUNDS][R]) {
  for (u32 block = 0; block < d.rounds / 4; ++block) {
    u32 c[4][R];
    for (int k = 0; k < R; ++k)
      c[0][k] = MOST_ROUNDS / 4 * e + block, c[1][k] = ids[k], c[2][k] = PERMUTATION, c[3][k] = item;
    philox<R>(c, seed);
    for (int q = 0; q < 4; ++q)
      for (int k = 0; k < R; ++k) keys[4 * block + q][k] = c[q][k];
  }
}

// A number below `size` from x and a round's key: two products mix, the high word of a third scales.
FS_HD u32 feistel_mix(u32 x, u32 key, u32 size) {
  u32 h = (x ^ key) * 0xD2511F53u;
  h = (h ^ h >> 15) * 0xCD9E8D57u;
  return index_of(h, size);
}

// All rounds on R positions of the domain.
template <int R>
FS_HD void feistel(const Domain& d, const u32 (&keys)[MOST_ROUNDS][R], u32 (&i)[R]) {
  const u32 b = 1u << d.log2b;
  u32 x[R], y[R];
  for (int k = 0; k < R; ++k) x[k] = i[k] >> d.log2b, y[k] = i[k] & (b - 1);
  for (u32 round = 0; round < d.rounds; round += 2) FS_NO_UNROLL
  for (int k = 0; k < R; ++k) {
    x[k] += feistel_mix(y[k], keys[round][k], d.a);
    x[k] = x[k] >= d.a ? x[k] - d.a : x[k];
    y[k] = (y[k] + feistel_mix(x[k], keys[round + 1][k], b)) & (b - 1);
  }
  for (int k = 0; k < R; ++k) i[k] = x[k] << d.log2b | y[k];
}

// Position i[k] < n of network k becomes the index at that position.
template <int R>
FS_HD void permute(const Domain& d, const u32 (&keys)[MOST_ROUNDS][R], u32 (&i)[R]) {
  feistel(d, keys, i);
  for (;;) {
    u32 again[R], outside = 0;
    for (int k = 0; k < R; ++k) outside |= i[k] >= d.n, again[k] = i[k];
    if (!outside) return;
    feistel(d, keys, again);
    for (int k = 0; k < R; ++k) i[k] = i[k] >= d.n ? again[k] : i[k];
  }
}

// Orders made of permutations: one a step (batches without replacement) or one an epoch.
struct PermutedOrder {
  u64 seed;
  i64 t0, t1, batch;
  u32 n;
  // Samples of an epoch: sample b of step t is number t * batch + b of the run, and an epoch's sample number n and
  // those behind it are the first of their step once more. 0: each step has its own permutation.
  i64 epoch;
};

// Rows of the networks `ids` [R], to `out` [R, t1 - t0, batch].
template <int R>
FS_HD void fill(const PermutedOrder& order, const Domain& domain, const u32* ids, u32* out) {
  const i64 row = (order.t1 - order.t0) * order.batch;
  u32 network_ids[R], keys[MOST_ROUNDS][R];
  for (int k = 0; k < R; ++k) network_ids[k] = ids[k];
  i64 at = 0, key = order.epoch ? order.t0 * order.batch / order.epoch : order.t0;
  i64 position = order.epoch ? order.t0 * order.batch % order.epoch : 0;
  const i64 length = order.epoch ? order.epoch : order.batch;
  while (at < row) {
    permutation_keys(domain, order.seed, network_ids, u32(key++), 0, keys);
    for (; position < length && at < row; ++position, ++at) {
      u32 index[R];
      for (int k = 0; k < R; ++k) index[k] = u32(position);
      if (position < order.n) permute(domain, keys, index);
      else
        for (int k = 0; k < R; ++k) index[k] = out[k * row + at - at % order.batch];
      for (int k = 0; k < R; ++k) out[k * row + at] = index[k];
    }
    position = 0;
  }
}

}  // namespace fs
