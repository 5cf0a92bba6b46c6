// Owns what all networks of a sweep share when ranks of diagonal networks are counted: C, its inverse and their norms;
// and the sizes of one network's coordinates.
//
// C [d,d] is G = X^T X of the evaluation points with its diagonal scaled to one. Filled once, read-only afterwards.
#pragma once

#include "inertia.h"

namespace fs {

constexpr double kLeastCounted = 1e-300;  // least rtol other than 0: thresholds and sizes above them are whole numbers

namespace diagonal_rank_detail {

using namespace symmetric;

constexpr double kSmallestPivot = 1e-8;  // below this eigenvalue of C the singular route is taken
constexpr int kMostSqueezed = 48;        // coordinates up to which two small factorisations may save a large one

}  // namespace diagonal_rank_detail

// What all networks of a sweep share; filled once by diagonal_rank_prepare, read-only afterwards (any thread).
struct DiagonalRankPoints {
  int d, m;                        // inputs, evaluation points
  bool definite;                   // C is well enough conditioned for the certificates and for H
  double largest;                  // largest eigenvalue of C
  double inverse_norm;             // largest eigenvalue of H = C^-1 (definite only)
  const double* length;            // [d] |x_j|, scaled to a maximum of one
  const double* inverse_diagonal;  // [d] H_jj
  const double* C;                 // [d, d] G with unit diagonal
  const double* H;                 // [d, d] C^-1
};

// How a count was reached; for measurement only.
struct DiagonalRankEffort {
  long free_counts, lanczos_steps, factorisations, singular_routes;
};

// Doubles of `constants` (kept as long as the points are used).
FS_FN size_t diagonal_rank_constants_size(int d) { return 2 * (size_t)d * d + 2 * (size_t)d; }

// Doubles of scratch for diagonal_rank_prepare and for each concurrent diagonal_rank: O(d), and matrices behind them.
FS_FN constexpr size_t diagonal_rank_vectors_size(int d) { return 8 * (size_t)diagonal_rank_detail::padded(d) + 8; }
FS_FN constexpr size_t diagonal_rank_matrices_size(int d) {
  const size_t ld = (size_t)diagonal_rank_detail::padded(d), most = diagonal_rank_detail::kMostSqueezed;
  return (2 * ld + 1) * ld + most * most + inertia::scratch_size(d);
}
FS_FN constexpr size_t diagonal_rank_scratch_size(int d) {
  return diagonal_rank_vectors_size(d) + diagonal_rank_matrices_size(d);
}

namespace diagonal_rank_detail {

struct Scratch {                // the pieces of two caller-provided blocks
  double* t;                    // [ld] s_j |x_j| over the largest s
  double* picked;               // [ld] the same, gathered
  double* scale;                // [ld]
  double *alpha, *beta, *work;  // Lanczos
  int *middle, *index;          // [ld], [2 ld]
  double* matrix;               // [ld, ld]
  double* basis;                // [ld + 1, ld]
  double* small;                // [kMostSqueezed, kMostSqueezed]
  double* pivots;               // inertia's
};

FS_FN Scratch carve(double* vectors, double* matrices, int d) {
  const size_t ld = (size_t)padded(d);
  Scratch z;
  z.t = vectors;
  z.picked = z.t + ld;
  z.scale = z.picked + ld;
  z.alpha = z.scale + ld;
  z.beta = z.alpha + ld;
  z.work = z.beta + ld + 8;
  z.middle = (int*)(z.work + ld);
  z.index = z.middle + ld;
  z.matrix = matrices;
  z.basis = z.matrix + ld * ld;
  z.small = z.basis + (ld + 1) * ld;
  z.pivots = z.small + kMostSqueezed * kMostSqueezed;
  return z;
}

// Largest eigenvalue of a whole [d, d] matrix, rounded outwards.
FS_FN double spectral_norm(const double* S, int d, Scratch& z) {
  const int ld = padded(d);
  for (int i = 0; i < ld; ++i)
    for (int j = 0; j < ld; ++j) z.matrix[(size_t)i * ld + j] = i < d && j < d ? S[(size_t)i * d + j] : 0.0;
  Lanczos lanczos = {z.matrix, d, ld, 0, z.basis, z.alpha, z.beta, z.work, 0, 0};
  start(lanczos, nullptr, nullptr);
  bool more = true;
  while (more) {
    more = step(lanczos);
    if (lanczos.k % 8 == 0 || !more) largest_ritz(lanczos);
    if (lanczos.k % 8 == 0 && lanczos.residual < 1e-9 * lanczos.top) more = false;
  }
  return lanczos.top * (1 + 1e-8);
}

// H = C^-1 by Gauss-Jordan in place, no pivoting (C is positive definite); false where a pivot is too small for that.
FS_FN bool invert(double* __restrict H, int d) {
  for (int k = 0; k < d; ++k) {
    double* row = H + (size_t)k * d;
    if (!(row[k] > kSmallestPivot)) return false;
    const double inverse = 1.0 / row[k];
    row[k] = 1.0;
    for (int j = 0; j < d; ++j) row[j] *= inverse;
    for (int i = 0; i < d; ++i) {
      if (i == k) continue;
      double* other = H + (size_t)i * d;
      const double c = -other[k];
      other[k] = 0;
      add_multiple(other, c, row, 0, d);
    }
    FS_WORKED(i64(d) * d / 4);
  }
  for (int i = 0; i < d; ++i)  // rounding made it slightly unsymmetric; the factorisations read one triangle
    for (int j = 0; j < i; ++j)
      H[(size_t)i * d + j] = H[(size_t)j * d + i] = 0.5 * (H[(size_t)i * d + j] + H[(size_t)j * d + i]);
  return true;
}

}  // namespace diagonal_rank_detail

// G [d,d] = X^T X of points X diag(scale) [m,d], scale [d] > 0 or null for ones; constants and scratch as sized above.
// Costs about d^3 multiply-adds.
FS_FN DiagonalRankPoints diagonal_rank_prepare(const double* G, const double* scale, int d, int m, double* constants,
                                               double* scratch) {
  using namespace diagonal_rank_detail;
  double *length = constants, *diagonal = length + d, *C = diagonal + d, *H = C + (size_t)d * d;
  DiagonalRankPoints points = {d, m, false, 1.0, 0.0, length, diagonal, C, H};
  double most = 0;
  for (int j = 0; j < d; ++j) {
    length[j] = __builtin_sqrt(G[(size_t)j * (d + 1)]);
    most = maximum(most, scale ? length[j] * scale[j] : length[j]);
  }
  for (int i = 0; i < d; ++i)
    for (int j = 0; j < d; ++j) {  // a zero column takes part as a unit vector of size zero
      const double size = length[i] * length[j];
      const double c = i == j ? 1.0 : size > 0 ? G[(size_t)i * d + j] / size : 0.0;
      C[(size_t)i * d + j] = H[(size_t)i * d + j] = c;
    }
  for (int j = 0; j < d; ++j) length[j] = most > 0 ? length[j] * (scale ? scale[j] : 1.0) / most : 0.0;
  Scratch z = carve(scratch, scratch + diagonal_rank_vectors_size(d), d);
  points.largest = spectral_norm(C, d, z);
  if (m < d || !invert(H, d)) return points;
  points.inverse_norm = spectral_norm(H, d, z);
  points.definite = points.inverse_norm * kSmallestPivot < 1;
  for (int j = 0; j < d; ++j) diagonal[j] = H[(size_t)j * (d + 1)];
  return points;
}

// s = hypot(u, v), safe where squares underflow (|u| around 1e-180 is ordinary here).
FS_FN double diagonal_rank_size(double u, double v) {
  const double a = __builtin_fabs(u), b = __builtin_fabs(v);
  const double most = a < b ? b : a, least = a < b ? a : b;
  const double ratio = most > 0 ? least / most : 0;
  return most * __builtin_sqrt(1 + ratio * ratio);
}

// s_j = sqrt(sum_k parts_kj^2) of d columns of parts [K, stride].
FS_FN void diagonal_sizes(const double* parts, int K, int d, int stride, double* s) {
  for (int j = 0; j < d; ++j) s[j] = __builtin_fabs(parts[j]);
  for (int k = 1; k < K; ++k)
    for (int j = 0; j < d; ++j) s[j] = diagonal_rank_size(s[j], parts[(size_t)k * stride + j]);
}

// t_j = s_j length_j, over a power of two that makes the largest one of order one: for large s on small columns of X.
FS_FN void sizes_apart(const double* s, const double* length, int d, double* t) {
  int most = 0;
  for (int pass = 0, some = 0; pass < 2; ++pass)
    for (int j = 0; j < d; ++j) {
      int a, b;
      const double product = __builtin_frexp(s[j], &a) * __builtin_frexp(length[j], &b);
      if (pass) t[j] = __builtin_scalbn(product, a + b - most);
      else if (product > 0 && (!some || a + b > most)) some = 1, most = a + b;
    }
}

}  // namespace fs
