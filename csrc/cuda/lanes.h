// Owns how a network is spread over threads: a team of L lanes of one warp, one number each, and how it reads an input;
// how a block brings data to shared memory.
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

// x of lane `from` of a team of L.
template <int L>
FS_DEVICE u32 of_lane(u32 x, u32 from) {
  if constexpr (L == 1) return x;
  else return __shfl_sync(WARP, x, int(from), L);
}

// Whether `yes` of a team of the warp: what comes then can be done by all lanes together. A lane that is a team of its
// own has no need of the others.
template <int L>
FS_DEVICE bool any_team(bool yes) {
  if constexpr (L == 1) return yes;
  else return __any_sync(WARP, yes);
}

// All B threads of a block on one network, in the general loop: rows lie in memory that they share, and a thread
// takes every step()-th item of a loop from first() on. A sum's partials are formed by the first lanes, then halved
// across them.
template <class T_, int B>
struct Together {
  static_assert(B % 32 == 0, "whole warps");
  using T = T_;
  using V = Vec<T, 1>;
  using OneLane = Team<T, 1, 1>;
  static constexpr int W = 1, L = 1, networks = 1;
  static constexpr bool COOPERATES = true;
  static constexpr int SLOT = 16 / sizeof(T);  // numbers of shared memory through which a sum reaches all warps

  FS_DEVICE static int first() { return int(threadIdx.x); }
  FS_DEVICE static constexpr int step() { return B; }
  FS_DEVICE static void sync() {
    if constexpr (B == 32) __syncwarp();
    else __syncthreads();
  }
  template <class F>
  FS_DEVICE static V tree(int count, F f) {
    sync();
    const int K = partials(count);
    V sum = V::set(0);
    if (first() < K)
      for (int c = first(); c < count; c += K) sum = f(c, sum);
    if (first() < 32)
      for (int half = K / 2; half > 0; half /= 2) sum.a = sum.a + __shfl_xor_sync(WARP, sum.a, half);
    if constexpr (B == 32) {
      sum.a = __shfl_sync(WARP, sum.a, 0);
      sync();  // a shuffle orders no memory: what f read may be written now
    } else {
      FS_DYN_SHARED(T, slot);
      if (first() == 0) slot[0] = sum.a;
      sync();
      sum.a = slot[0];
    }
    return sum;
  }
};

// Copies `count` numbers that all threads of a block read to shared memory at `shared`, and points x there; returns
// where the next can lie. A barrier has to follow. COPIES times: of each slot of SLOT numbers the copies lie side by
// side, so that each copy has banks of its own.
template <int SLOT = 1, int COPIES = 1, class T>
FS_DEVICE T* stage(T* shared, const T*& x, i64 count) {
  for (i64 i = threadIdx.x; i < count; i += blockDim.x) {
    T* to = shared + i / SLOT * (SLOT * COPIES) + i % SLOT;
    FS_UNROLL
    for (int c = 0; c < COPIES; ++c) to[c * SLOT] = x[i];
  }
  x = shared;
  return shared + COPIES * count;
}

// An input and its label in registers: a lane's share where the family spreads inputs, each lane then with a label of
// its own. In memory they lie in packs of 16 bytes, STEP numbers from one pack to the next, the label behind.
template <class Tm, int SIZE>
struct InRegisters {
  using T = typename Tm::T;
  using V = typename Tm::V;
  static constexpr int PACK = 16 / int(sizeof(T)), PACKS = SIZE / PACK + 1;
  struct alignas(16) Pack {
    T a[PACK];
  };
  V x[PACKS * PACK];

  template <int STEP>
  FS_DEVICE static InRegisters at(const T* row) {
    InRegisters in;
    FS_UNROLL_ROWS
    for (int p = 0; p < PACKS; ++p) {
      const Pack pack = *reinterpret_cast<const Pack*>(row + p * STEP);
      FS_UNROLL
      for (int i = 0; i < PACK; ++i) in.x[p * PACK + i] = V::set(pack.a[i]);
    }
    return in;
  }
  FS_DEVICE V own(int c) const { return x[c]; }
  FS_DEVICE V shared(int j) const { return x[j]; }
  FS_DEVICE V label() const { return x[SIZE]; }
};

// An input where it lies, for what has too many to hold: from the lane's first on where the family spreads inputs. Its
// label, if it has one, is number LABEL.
template <class Tm, int LABEL = 0>
struct InMemory {
  using T = typename Tm::T;
  using V = typename Tm::V;
  static constexpr int PACK = 1;
  const T* x;

  template <int STEP>
  FS_DEVICE static InMemory at(const T* row) {
    return {row};
  }
  FS_DEVICE V own(int c) const { return V::set(x[c * Tm::L]); }
  FS_DEVICE V shared(int j) const { return V::set(x[j]); }
  FS_DEVICE V label() const { return V::set(x[LABEL]); }
};

}  // namespace fs
