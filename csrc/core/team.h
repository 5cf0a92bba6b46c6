// Owns how one network is spread over lanes, and the one tree by which its sums are formed.
//
// A vector of W lanes holds W / L networks, each worked on by a team of L lanes. Item j of a network's spread axis
// (inputs of a diagonal net, hidden units of a dense one) lives in lane j % L of vector j / L. A sum over that axis is
// formed from K partial sums, item j going to partial j % K, then halved: K/2, K/4, ..., 1. K depends on the model's
// shape alone, and lanes hold L of the K partials, so every L that divides K gives the same bits.
#pragma once
#include "vec.h"

namespace fs {

template <class T_, int W_, int L_>
struct Team {
  static_assert(L_ == 1 || L_ == W_, "a vector holds W networks, or one");
  using T = T_;
  using V = Vec<T, W_>;
  static constexpr int W = W_, L = L_, networks = W_ / L_;

  // Sum over the team's lanes; every lane receives it.
  FS_HD static V sum(V x) {
    if constexpr (L >= 16) x = x + swap<8>(x);
    if constexpr (L >= 8) x = x + swap<4>(x);
    if constexpr (L >= 4) x = x + swap<2>(x);
    if constexpr (L >= 2) x = x + swap<1>(x);
    return x;
  }
  // In the general loop one lane works on a network alone: it takes every item of a loop, and waits for nobody.
  static constexpr bool COOPERATES = false;
  using OneLane = Team;
  FS_HD static constexpr int first() { return 0; }
  FS_HD static constexpr int step() { return 1; }
  FS_HD static void sync() {}
  // Number of vectors that hold `count` items of the spread axis.
  FS_HD static constexpr int vectors(int count) { return (count + L - 1) / L; }
};

// The K partial sums of one network, in A vectors.
template <class Tm, int K>
struct Partial {
  static_assert(K % Tm::L == 0, "a team holds whole partial sums");
  static constexpr int A = K / Tm::L;
  using V = typename Tm::V;
  V a[A];

  FS_HD Partial() {
    FS_UNROLL
    for (int k = 0; k < A; ++k) a[k] = V::set(0);
  }
  FS_HD V parts() {
    FS_UNROLL
    for (int half = A / 2; half > 0; half /= 2) {
      FS_UNROLL
      for (int k = 0; k < half; ++k) a[k] = a[k] + a[k + half];
    }
    return a[0];
  }
  FS_HD V total() { return Tm::sum(parts()); }
};

// The sum over vectors c = 0 .. C-1 of a spread axis, where f(c, s) is the partial sum s with c's term added.
template <class Tm, int K, class F>
FS_HD typename Tm::V tree_sum(int C, F f) {
  using V = typename Tm::V;
  constexpr int A = Partial<Tm, K>::A, R = A < 8 ? A : 8;  // R at a time, so that they stay in registers
  Partial<Tm, K> s;
  FS_UNROLL_ROWS
  for (int b = 0; b < A; b += R) {
    V r[R];
    FS_UNROLL
    for (int i = 0; i < R; ++i) r[i] = V::set(0);
    int c = b;
    FS_UNROLL_ROWS
    for (; c + R <= C; c += A) {
      FS_UNROLL
      for (int i = 0; i < R; ++i) r[i] = f(c + i, r[i]);
    }
    FS_UNROLL
    for (int i = 0; i < R - 1; ++i)
      if (c + i < C) r[i] = f(c + i, r[i]);
    FS_UNROLL
    for (int i = 0; i < R; ++i) s.a[b + i] = r[i];
  }
  return s.total();
}

// The lanes' parts of such a sum over C vectors, a number known when compiled: Tm::sum of them is tree_sum.
template <class Tm, int K, int C, class F>
FS_HD typename Tm::V tree_parts(F f) {
  constexpr int A = Partial<Tm, K>::A;
  Partial<Tm, K> s;
  FS_UNROLL
  for (int c = 0; c < C; ++c) s.a[c % A] = f(c, s.a[c % A]);
  return s.parts();
}

// R such sums side by side, where f(c, s) adds c's term to each of s [R]: the bits of R times tree_sum. Partials that
// meet early in the tree are formed together, so that few of them go through memory.
template <class Tm, int K, int R, class V, class F>
FS_HD void tree_sums(int C, F f, V (&out)[R]) {
  constexpr int A = Partial<Tm, K>::A, MOST = R < 8 ? 4 : 2;  // so many partials that their sums stay in registers
  constexpr int P = A < MOST ? A : MOST, LEFT = A / P;        // at a time, and what is left then
  constexpr int first[4] = {0, A / 2, A / 4, A / 2 + A / 4}, last = first[P == 4 ? 3 : P - 1];
  V left[R][LEFT];
  FS_UNROLL_ROWS
  for (int k = 0; k < LEFT; ++k) {
    V s[P][R];
    FS_UNROLL
    for (int p = 0; p < P; ++p) {
      FS_UNROLL
      for (int i = 0; i < R; ++i) s[p][i] = V::set(0);
    }
    int c = k;
    FS_UNROLL_ROWS
    for (; c + last < C; c += A) {
      FS_UNROLL
      for (int p = 0; p < P; ++p) f(c + first[p], s[p]);
    }
    FS_UNROLL
    for (int p = 0; p < P; ++p)
      if (c + first[p] < C) f(c + first[p], s[p]);
    FS_UNROLL
    for (int i = 0; i < R; ++i) {
      if constexpr (P >= 2) s[0][i] = s[0][i] + s[1][i];
      if constexpr (P == 4) s[0][i] = s[0][i] + (s[2][i] + s[3][i]);
      left[i][k] = s[0][i];
    }
  }
  FS_UNROLL
  for (int i = 0; i < R; ++i) {
    FS_UNROLL
    for (int half = LEFT / 2; half > 0; half /= 2) {
      FS_UNROLL
      for (int k = 0; k < half; ++k) left[i][k] = left[i][k] + left[i][k + half];
    }
    out[i] = Tm::sum(left[i][0]);
  }
}

// The number of partial sums for a spread axis of `count` items: the one rule that fixes every sum's tree.
FS_HD constexpr int partials(int count) { return count <= 64 ? 8 : 32; }

// The sum over `count` items of a spread axis. `partials(count)` fixes its tree. A team that cooperates through memory
// forms the same tree in its own way, Tm::tree, with the same bits; it sees what other lanes wrote before. Every lane
// receives the sum.
template <class Tm, class F>
FS_HD typename Tm::V tree_sum(int count, F f) {
  if constexpr (Tm::COOPERATES) return Tm::tree(count, f);
  else return partials(count) == 8 ? tree_sum<Tm, 8>(Tm::vectors(count), f) : tree_sum<Tm, 32>(Tm::vectors(count), f);
}

}  // namespace fs
