// Owns sample indices drawn many at a time: Philox (core/philox.h) on vectors of four counters.
#pragma once
#include "../core/philox.h"

namespace fs {

typedef long long L4 __attribute__((vector_size(32), may_alias));
typedef int I8 __attribute__((vector_size(32), may_alias, aligned(4)));
typedef int I4 __attribute__((vector_size(16), may_alias, aligned(4)));

FS_HD L4 all(u32 x) { return L4{x, x, x, x}; }

// What the rounds add in, made once for a seed.
struct Keys {
  L4 of[10][2];

  explicit Keys(u64 seed) {
    u32 k0 = u32(seed), k1 = u32(seed >> 32);
    for (auto& round : of) round[0] = all(k0), round[1] = all(k1), k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
};

// Word q of H vectors of counters in x[q] becomes word q of their draws, times n: the index is the high half of a lane.
//
// Words live in the low halves of 64-bit lanes. What a product leaves in the high half is never read: the next product
// takes low halves only. So a round needs no shuffles. Two vectors hide each other's latencies and fit the registers.
template <int H>
FS_HD void draw(const Keys& keys, L4 (&x)[4][H], u32 n) {
  const L4 m0 = all(0xD2511F53u), m1 = all(0xCD9E8D57u), many = all(n);
  FS_UNROLL
  for (int round = 0; round < 10; ++round) {
    FS_UNROLL
    for (int h = 0; h < H; ++h) {
      const L4 p0 = __builtin_ia32_pmuludq256((I8)x[0][h], (I8)m0);
      const L4 p1 = __builtin_ia32_pmuludq256((I8)x[2][h], (I8)m1);
      x[0][h] = __builtin_ia32_psrlqi256(p1, 32) ^ (x[1][h] ^ keys.of[round][0]), x[1][h] = p1;
      x[2][h] = __builtin_ia32_psrlqi256(p0, 32) ^ (x[3][h] ^ keys.of[round][1]), x[3][h] = p0;
    }
  }
  FS_UNROLL
  for (int q = 0; q < 4; ++q) {
    FS_UNROLL
    for (int h = 0; h < H; ++h) x[q][h] = __builtin_ia32_pmuludq256((I8)x[q][h], (I8)many);
  }
}

// The eight indices that the products in two vectors are.
FS_HD I8 in_order(L4 a, L4 b) {
  typedef float F8 __attribute__((vector_size(32)));
  const L4 mixed = (L4)__builtin_ia32_shufps256((F8)a, (F8)b, 0xDD);  // a0 a1 b0 b1 | a2 a3 b2 b3
  return (I8)__builtin_ia32_permdi256(mixed, 0xD8);
}

// Indices of one network for `blocks` blocks of four steps from block `first` on, in the order of steps; blocks is a
// multiple of 8.
inline FS_HD_CALL void draw_steps(const Keys& keys, u32 first, int blocks, u32 network, u32 n, u32* out) {
  for (int k = 0; k < blocks; k += 8) {
    const L4 block = all(first + u32(k)) + L4{0, 1, 2, 3};
    L4 x[4][2] = {{block, block + all(4)}, {all(network), all(network)}, {all(ORDER), all(ORDER)}, {}};
    draw(keys, x, n);
    FS_UNROLL
    for (int h = 0; h < 2; ++h, out += 16) {  // rows become columns: block k has steps 4k .. 4k + 3
      const I8 w01 = __builtin_ia32_pblendd256((I8)__builtin_ia32_psrlqi256(x[0][h], 32), (I8)x[1][h], 0xAA);
      const I8 w23 = __builtin_ia32_pblendd256((I8)__builtin_ia32_psrlqi256(x[2][h], 32), (I8)x[3][h], 0xAA);
      const L4 even = __builtin_ia32_punpcklqdq256((L4)w01, (L4)w23),
               odd = __builtin_ia32_punpckhqdq256((L4)w01, (L4)w23);
      *(I4*)out = (I4)__builtin_ia32_extract128i256(even, 0),
      *(I4*)(out + 4) = (I4)__builtin_ia32_extract128i256(odd, 0);
      *(I4*)(out + 8) = (I4)__builtin_ia32_extract128i256(even, 1);
      *(I4*)(out + 12) = (I4)__builtin_ia32_extract128i256(odd, 1);
    }
  }
}

// Indices of items item .. item + 7 of one network for a block of four steps: item k's of step q to out[q * stride +
// k].
inline FS_HD_CALL void draw_items(const Keys& keys, u32 block, u32 network, u32 item, u32 n, u32* out, i64 stride) {
  const L4 first = all(item) + L4{0, 1, 2, 3};
  L4 x[4][2] = {
      {all(block), all(block)}, {all(network), all(network)}, {all(ORDER), all(ORDER)}, {first, first + all(4)}};
  draw(keys, x, n);
  FS_UNROLL
  for (int q = 0; q < 4; ++q) *(I8*)(out + q * stride) = in_order(x[q][0], x[q][1]);
}

// Indices of an item of R networks for a block of four steps: network g's of step q to out[q * stride + g].
template <int R>
FS_HD_CALL void draw_networks(const Keys& keys, u32 block, const u32* network, u32 item, u32 n, u32* out, i64 stride) {
  constexpr int H = R < 8 ? 1 : 2;
  for (int g = 0; g < R; g += 4 * H) {
    L4 x[4][H];
    for (int h = 0; h < H; ++h) {
      x[0][h] = all(block), x[2][h] = all(ORDER), x[3][h] = all(item);
      x[1][h] = __builtin_ia32_pmovzxdq256(*(const I4*)(network + g + 4 * h));
    }
    draw(keys, x, n);
    FS_UNROLL
    for (int q = 0; q < 4; ++q) {
      const I8 eight = in_order(x[q][0], x[q][H - 1]);
      if constexpr (H == 1) *(I4*)(out + q * stride) = (I4)__builtin_ia32_extract128i256((L4)eight, 0);
      else *(I8*)(out + q * stride + g) = eight;
    }
  }
}

}  // namespace fs
