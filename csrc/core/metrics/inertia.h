// Owns the inertia of dense symmetric float64 matrices: positive eigenvalues counted by a tiled LDL^T.
//
// H = U^T D^-1 U without pivoting, the rows of U in whole tiles, each tile summed over all rows above it at once. What
// pivoting would have prevented is measured instead: the rounding errors of the factorisation are those of a matrix
// H + E, |E| <= eps * growth, growth = max_i sum_k U_ki^2 / |d_k|; where that is too much for the caller (a pivot near
// zero, in particular), Bunch-Kaufman counts a copy again. Parallel: nothing here, one call is one matrix.
#pragma once

#include "symmetric.h"
#include "tile.h"

namespace fs {
namespace inertia {

using tile::ROWS;
using tile::V;
using tile::W;

struct Counted {
  int positive;
  double growth;  // largest sum of what the factorisation subtracted from a diagonal entry, in absolute value
};

// Doubles of scratch for `factor` of an [n, n] matrix.
FS_FN constexpr size_t scratch_size(int n) { return (size_t)tile::padded(n) * (ROWS + 1); }

// Rows r of the tile become those of the factor; l[c][r]: multiplier of row c in row r.
template <int C>
FS_HD void eliminate_tile(V (&s)[ROWS][tile::COLS], const double (&l)[ROWS][ROWS]) {
  FS_UNROLL
  for (int r = 1; r < ROWS; ++r) {
    FS_UNROLL
    for (int c = 0; c < r; ++c) {
      const V m = V::set(l[c][r]);
      FS_UNROLL
      for (int j = 0; j < C; ++j) s[r][j] = fma(m, s[c][j], s[r][j]);
    }
  }
}

// Multipliers of the rows above in rows i .. i + ROWS, and how much they move the diagonal.
FS_HD void multipliers(const double* H, size_t ld, int i, const double* inverse, double* q, double (&moved)[ROWS]) {
  V sum[ROWS / W];
  for (int v = 0; v < ROWS / W; ++v) sum[v] = V::set(0.0);
  for (int k = 0; k < i; ++k) {
    const V d = V::set(-inverse[k]), size = V::set(__builtin_fabs(inverse[k]));
    for (int v = 0; v < ROWS / W; ++v) {
      const V u = V::loadu(H + k * ld + i + v * W), m = u * d;
      __builtin_memcpy(q + k * ROWS + v * W, &m.a, sizeof(V));
      sum[v] = fma(u * size, u, sum[v]);
    }
  }
  for (int v = 0; v < ROWS / W; ++v) __builtin_memcpy(&moved[v * W], &sum[v].a, sizeof(V));
}

// Positive eigenvalues of H - shift, H the upper triangle of H [n, n] with rows of ld >= padded(n) doubles, rows and
// columns behind n zero. The diagonal and all that lies below it stay as they are, the rest is overwritten.
// A pivot of exactly zero leaves a growth that is not finite.
FS_FN __attribute__((noinline)) Counted factor(double* H, int n, size_t ld, double shift, double* scratch) {
  const int whole = tile::padded(n);
  double *inverse = scratch, *q = scratch + whole;  // 1 / d [whole], multipliers [whole, ROWS]
  Counted out = {0, 0.0};
  for (int i = 0; i < whole; i += ROWS) {
    double moved[ROWS], l[ROWS][ROWS] = {};
    alignas(64) double block[ROWS][ROWS];
    multipliers(H, ld, i, inverse, q, moved);
    V s[ROWS][tile::COLS];
    constexpr int own = ROWS / W;  // vectors that hold the diagonal block
    tile::load<own>(s, H + i * ld + i, ld);
    tile::accumulate<own>(s, i, q, ROWS, H + i, ld);
    tile::store<own>(s, &block[0][0], ROWS);
    for (int c = 0; c < ROWS; ++c) {
      const double d = i + c < n ? block[c][c] - shift : -1.0;
      out.positive += d > 0;
      inverse[i + c] = 1.0 / d;
      for (int r = c + 1; r < ROWS; ++r) {
        l[c][r] = -block[c][r] * inverse[i + c];
        moved[r] += __builtin_fabs(l[c][r] * block[c][r]);
        for (int j = r; j < ROWS; ++j) block[r][j] = __builtin_fma(l[c][r], block[c][j], block[r][j]);
      }
    }
    for (int r = 0; r < ROWS; ++r)
      if (!(moved[r] <= out.growth)) out.growth = moved[r];
    tile::strips(i + ROWS, whole, [&](auto count, int j) {
      constexpr int C = decltype(count)::value;
      V t[ROWS][tile::COLS];
      tile::load<C>(t, H + i * ld + j, ld);
      tile::accumulate<C>(t, i, q, ROWS, H + j, ld);
      eliminate_tile<C>(t, l);
      tile::store<C>(t, H + i * ld + j, ld);
    });
    FS_WORKED(i64(i) * (whole - i));
  }
  return out;
}

}  // namespace inertia
}  // namespace fs
