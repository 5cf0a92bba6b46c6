// Owns the squared losses of linear predictors <beta, x>, several networks at a time, as small matrix products.
//
//   sum_i (<beta, x_i> - y_i)^2. Each residual is formed on its own, over inputs in order; their squares go into eight
//   partial sums, point i into partial i % 8: bits depend neither on the vector width nor on who is measured together.
// Parallel: nothing here; one call is ROWS networks on one thread.
#pragma once

#include "symmetric.h"
#include "tile.h"

namespace fs {

// Doubles of scratch: the betas of ROWS networks [d, ROWS], then their residuals [ROWS, padded(m)].
FS_FN size_t linear_loss_scratch_size(int d, int m) { return (size_t)tile::ROWS * (d + tile::padded(m)); }

// sum [ROWS] of squared residuals. X^T [d, padded(m)], y [padded(m)], zeros behind; the first part of scratch holds the
// betas. triangular: X is upper triangular, x_i has zeros before i.
FS_FN void linear_losses(const double* Xt, const double* y, int d, int m, bool triangular, double* scratch,
                         double* sum) {
  using namespace tile;
  const int ld = padded(m);
  const double* beta = scratch;
  double* residual = scratch + (size_t)d * ROWS;
  strips(0, ld, [&](auto count, int j) {
    constexpr int C = decltype(count)::value;
    const int from = triangular ? (j < d ? j : d) : 0;
    V s[ROWS][COLS];
    zero<C>(s);
    accumulate<C>(s, d - from, beta + (size_t)from * ROWS, ROWS, Xt + (size_t)from * ld + j, ld);
    FS_UNROLL
    for (int c = 0; c < C; ++c) {
      const V label = V::loadu(y + j + c * W);
      FS_UNROLL
      for (int r = 0; r < ROWS; ++r) s[r][c] = s[r][c] - label;
    }
    store<C>(s, residual + j, ld);
  });
  for (int r = 0; r < ROWS; ++r) sum[r] = symmetric::dot(residual + (size_t)r * ld, residual + (size_t)r * ld, ld);
}

}  // namespace fs
