// Owns Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011) and the draw contract built on it.
//
// A draw is a pure function of (seed, network id, step, stream): key = seed, counter = (step / 4, id, stream, item),
// word = step % 4. A sample index is the high word of word * n.
#pragma once
#include "contract.h"
#include "macros.h"

namespace fs {

enum Stream : u32 { FS_STREAMS };

// R counters side by side, word q of counter k in c[q][k].
template <int R>
FS_HD void philox(u32 (&c)[4][R], u64 seed) {
  u32 k0 = u32(seed), k1 = u32(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    FS_NO_UNROLL
    for (int k = 0; k < R; ++k) {
      u64 p0 = u64(0xD2511F53u) * c[0][k], p1 = u64(0xCD9E8D57u) * c[2][k];
      u32 a = u32(p1 >> 32) ^ c[1][k] ^ k0, b = u32(p0 >> 32) ^ c[3][k] ^ k1;
      c[0][k] = a, c[1][k] = u32(p1), c[2][k] = b, c[3][k] = u32(p0);
    }
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
}

#if defined(__AVX2__)
typedef long long L4 __attribute__((vector_size(32), may_alias));
typedef int I8 __attribute__((vector_size(32)));
typedef int I4 __attribute__((vector_size(16), may_alias, aligned(4)));

FS_HD L4 all(u32 x) { return L4{x, x, x, x}; }
#endif

FS_HD u32 index_of(u32 word, u32 n) { return u32((u64(word) * n) >> 32); }

// Sample indices for R counters (block of four steps, id, stream, item), counter k's for step 4 * block + q to
// out[q * stride + k].
template <int R>
FS_HD void draw_indices(u64 seed, u32 (&c)[4][R], u32 n, u32* out, i64 stride) {
#if defined(__AVX2__)
  if constexpr (R % 4 == 0) {
    // Words live in the low halves of 64-bit lanes. What a product leaves in the high half is never read: the next
    // product takes low halves only. So a round needs no shuffles, which the compiler's own version is made of.
    constexpr int H = R / 4;
    L4 x[4][H];
    for (int q = 0; q < 4; ++q)
      for (int h = 0; h < H; ++h) x[q][h] = __builtin_ia32_pmovzxdq256(*(const I4*)&c[q][4 * h]);
    const L4 m0 = all(0xD2511F53u), m1 = all(0xCD9E8D57u);
    u32 k0 = u32(seed), k1 = u32(seed >> 32);
    FS_UNROLL
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
      const L4 key0 = all(k0), key1 = all(k1);
      FS_UNROLL
      for (int h = 0; h < H; ++h) {
        const L4 p0 = __builtin_ia32_pmuludq256((I8)x[0][h], (I8)m0);
        const L4 p1 = __builtin_ia32_pmuludq256((I8)x[2][h], (I8)m1);
        x[0][h] = __builtin_ia32_psrlqi256(p1, 32) ^ x[1][h] ^ key0, x[1][h] = p1;
        x[2][h] = __builtin_ia32_psrlqi256(p0, 32) ^ x[3][h] ^ key1, x[3][h] = p0;
      }
    }
    const L4 many = all(n);
    for (int q = 0; q < 4; ++q)
      for (int h = 0; h < H; ++h) {
        const I8 product = (I8)__builtin_ia32_pmuludq256((I8)x[q][h], (I8)many);
        const I8 index = __builtin_ia32_permvarsi256(product, I8{1, 3, 5, 7, 0, 2, 4, 6});
        *(I4*)(out + q * stride + 4 * h) = __builtin_ia32_si_si256(index);
      }
    return;
  }
#endif
  philox<R>(c, seed);
  for (int q = 0; q < 4; ++q)
    for (int k = 0; k < R; ++k) out[q * stride + k] = index_of(c[q][k], n);
}

}  // namespace fs
