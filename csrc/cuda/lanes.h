// Owns how a network is spread over threads: a team of L lanes of one warp, one number each, and how it reads an input.
#pragma once
#include "../core/team.h"
#include "platform.h"

namespace fs {

// The GPU's Team: item j of the spread axis lives in register j / L of lane j % L.
template <class T_, int L_>
struct Lanes {
  static_assert(L_ >= 1 && L_ <= 32 && (L_ & (L_ - 1)) == 0, "a team is a power of two of lanes");
  using T = T_;
  using V = Vec<T, 1>;
  static constexpr int W = 1, L = L_, networks = 1;

  // Sum over the team's lanes; every lane receives it, with the bits of Team::sum.
  FS_DEVICE static V sum(V x) {
    FS_UNROLL
    for (int s = L / 2; s > 0; s /= 2) x.a = x.a + __shfl_xor_sync(WARP, x.a, s);
    return x;
  }
  FS_HD static constexpr int vectors(int count) { return (count + L - 1) / L; }
};

// An input in registers: the team's share of it where the family spreads inputs, else all of it.
template <class Tm, int SIZE>
struct Held {
  using V = typename Tm::V;
  V x[SIZE];
  FS_DEVICE V own(int c) const { return x[c]; }
  FS_DEVICE V shared(int j) const { return x[j]; }
};

// An input where it lies, for what has too many to hold.
template <class Tm>
struct Lying {
  using V = typename Tm::V;
  const typename Tm::T* x;
  int lane;
  FS_DEVICE V own(int c) const { return V::set(x[c * Tm::L + lane]); }
  FS_DEVICE V shared(int j) const { return V::set(x[j]); }
};

}  // namespace fs
