// Owns Newton and Schulz's iteration, which brings the singular values of a matrix near 1: what Muon makes of momentum.
//
// X <- a X + (b A + c A A) X with A = X X^T, five times, from G / |G|. The coefficients are those of K. Jordan et al.,
// "Muon: An optimizer for hidden layers in neural networks" (2024): singular values end between 0.7 and 1.2.
#pragma once
#include "norm.h"

namespace fs {

constexpr int SCHULZ_ROUNDS = 5;

// Numbers that a matrix needs beside itself.
FS_HD constexpr i64 schulz_numbers(int rows, int columns) {
  const i64 m = rows < columns ? rows : columns, k = rows < columns ? columns : rows;
  return 2 * m * m + m * k;
}

// G [rows, columns] in place, times sqrt(max(1, rows / columns)). X is G, or its transpose if G is tall: of its m rows
// there are no more than columns k. Threads that cooperate each take every step-th number from first() on.
template <class Tm, class V>
FS_HD void orthogonalise(V* G, int rows, int columns, V* work) {
  using T = typename Tm::T;
  const bool tall = rows > columns;
  const int m = tall ? columns : rows, k = tall ? rows : columns, down = tall ? 1 : columns, along = tall ? columns : 1;
  V *const gram = work, *const mix = gram + m * m, *const next = mix + m * m;
  const V a = V::set(T(3.4445)), b = V::set(T(-4.7750)), c = V::set(T(2.0315)), zero = V::set(0);
  V scale, length = norm<Tm>(G, m * k, T(0), scale);  // what is long is scaled down, what is short stays so
  const V least = scale * V::set(T(1e-7));
  length = choose(length.a < least.a, least, length);
  Tm::sync();
  FS_NO_UNROLL
  for (int e = Tm::first(); e < m * k; e += Tm::step()) G[e] = G[e] / length;
  Tm::sync();
  FS_NO_UNROLL
  for (int round = 0; round < SCHULZ_ROUNDS; ++round) {
    FS_NO_UNROLL
    for (int e = Tm::first(); e < m * m; e += Tm::step()) {
      const V *x = G + e / m * down, *y = G + e % m * down;
      V s = zero;
      FS_NO_UNROLL
      for (int l = 0; l < k; ++l) s = fma(x[l * along], y[l * along], s);
      gram[e] = s;
    }
    Tm::sync();
    FS_NO_UNROLL
    for (int e = Tm::first(); e < m * m; e += Tm::step()) {
      V s = zero;
      FS_NO_UNROLL
      for (int l = 0; l < m; ++l) s = fma(gram[e / m * m + l], gram[l * m + e % m], s);
      mix[e] = fma(b, gram[e], c * s);
    }
    Tm::sync();
    FS_NO_UNROLL
    for (int e = Tm::first(); e < m * k; e += Tm::step()) {
      const int i = e / k, j = e % k;
      V s = zero;
      FS_NO_UNROLL
      for (int l = 0; l < m; ++l) s = fma(mix[i * m + l], G[l * down + j * along], s);
      next[e] = fma(a, G[i * down + j * along], s);
    }
    Tm::sync();
    FS_NO_UNROLL
    for (int e = Tm::first(); e < m * k; e += Tm::step()) G[e / k * down + e % k * along] = next[e];
    Tm::sync();
    FS_WORKED(i64(m) * m * (2 * k + m));
  }
  if (!tall) return;
  const V taller = sqrt(V::set(T(rows) / T(columns)));
  FS_NO_UNROLL
  for (int e = Tm::first(); e < m * k; e += Tm::step()) G[e] = taller * G[e];
  Tm::sync();
}

}  // namespace fs
