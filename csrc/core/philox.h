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

FS_HD u32 index_of(u32 word, u32 n) { return u32((u64(word) * n) >> 32); }

}  // namespace fs
