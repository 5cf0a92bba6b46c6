// Owns dense symmetric float64 matrices without a library: the largest eigenvalue by Lanczos, inertia by LDL^T.
//
// Matrices are [n, ld] with ld = padded(n) and zeros behind; memory is the caller's. Results depend on the input alone.
#pragma once

#include "tile.h"

namespace fs {
namespace symmetric {

constexpr double kBunchKaufman = 0.6403882032022076;  // (1 + sqrt 17) / 8

FS_FN constexpr int padded(int n) { return (n + 7) & ~7; }
FS_FN double maximum(double a, double b) { return a < b ? b : a; }
FS_FN double minimum(double a, double b) { return b < a ? b : a; }

FS_FN double dot(const double* __restrict a, const double* __restrict b, int padded_n) {
  // Eight partial sums in a fixed tree: vectorises without reassociation and does not depend on the vector width.
  double part[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (int i = 0; i < padded_n; i += 8)
    for (int l = 0; l < 8; ++l) part[l] = __builtin_fma(a[i + l], b[i + l], part[l]);
  return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

FS_FN void add_multiple(double* __restrict y, double c, const double* __restrict x, int from, int to) {
  for (int j = from; j < to; ++j) y[j] = __builtin_fma(c, x[j], y[j]);
}

// ---- the largest eigenvalue ------------------------------------------------------------------------------------

// y = B x for symmetric B [ld, ld], zeros behind row and column n. What lies above the diagonal's blocks of 8 is read
// once and serves twice: as rows, whose sums run down the lanes, and as columns, whose sums lie across them until the
// block's rows are done.
FS_FN void symmetric_product(const double* __restrict B, int n, int ld, const double* __restrict x,
                             double* __restrict y) {
  using tile::V;
  constexpr int W = tile::W, H = 8 / W;  // W rows at a time, 8 columns as H registers
  for (int i = 0; i < ld; ++i) y[i] = 0;
  for (int i = 0; i < n; i += W) {
    const double* row = B + (size_t)i * ld;
    V s[H][W], own[W];
    int j = i & ~7;
    for (int r = 0; r < W; ++r) {
      own[r] = V::set(x[i + r]);
      for (int h = 0; h < H; ++h) s[h][r] = V::loadu(row + r * ld + j + h * W) * V::loadu(x + j + h * W);
    }
    for (j += 8; j < ld; j += 8) {
      FS_UNROLL
      for (int h = 0; h < H; ++h) {
        const V column = V::loadu(x + j + h * W);
        V sum = V::loadu(y + j + h * W);
        FS_UNROLL
        for (int r = 0; r < W; ++r) {
          const V b = V::loadu(row + r * ld + j + h * W);
          sum = fma(own[r], b, sum);
          s[h][r] = fma(column, b, s[h][r]);
        }
        __builtin_memcpy(y + j + h * W, &sum.a, sizeof(V));
      }
    }
    V part[8];
    for (int h = 0; h < H; ++h) {
      transpose<W / 2>(s[h]);
      for (int r = 0; r < W; ++r) part[h * W + r] = s[h][r];
    }
    const V across = ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
    const V all = V::loadu(y + i) + across;
    __builtin_memcpy(y + i, &all.a, sizeof(V));
  }
}

// Lanczos with full reorthogonalisation on B [ld, ld]; after k steps the tridiagonal (alpha, beta) is exact for k = n.
struct Lanczos {
  const double* B;
  int n, ld, k;
  double *basis, *alpha, *beta, *work;  // basis [n + 1, ld], alpha [n], beta [n + 1], work [ld]
  double top, residual;                 // largest Ritz value and the norm of its residual
};

FS_FN void normalise_next(Lanczos& z, double norm) {
  double* next = z.basis + (size_t)z.k * z.ld;
  const double inverse = 1.0 / norm;
  for (int i = 0; i < z.ld; ++i) next[i] = z.work[i] * inverse;
}

// The start must not be orthogonal to the answer: pseudo-random, a function of the coordinate alone.
FS_FN double start_entry(unsigned i) {
  unsigned hash = i * 2654435761u + 0x9e3779b9u;
  hash = (hash ^ (hash >> 15)) * 0x85ebca6bu;
  hash = (hash ^ (hash >> 13)) * 0xc2b2ae35u;
  const double size = 0.5 + (double)(hash >> 9) * 0x1p-23;
  return hash & 1u ? size : -size;
}

// t [n], index [n]: weights and numbers of the coordinates, or null.
FS_FN void start(Lanczos& z, const double* t, const int* index) {
  z.k = 0;
  z.top = z.residual = 0;
  for (int i = 0; i < z.ld; ++i) z.work[i] = 0;
  for (int i = 0; i < z.n; ++i) z.work[i] = start_entry(index ? index[i] : i) * (t ? t[i] : 1.0);
  normalise_next(z, __builtin_sqrt(dot(z.work, z.work, z.ld)));
}

// work -= Q^T Q work for the rows of Q [count, ld], four at a time: lone dot products would wait on their latency.
FS_FN void orthogonalise(const double* Q, int count, int ld, double* __restrict work) {
  int i = 0;
  for (; i + 4 <= count; i += 4) {
    const double* __restrict a = Q + (size_t)i * ld;
    double p0[4] = {0, 0, 0, 0}, p1[4] = {0, 0, 0, 0}, p2[4] = {0, 0, 0, 0}, p3[4] = {0, 0, 0, 0};
    for (int j = 0; j < ld; j += 4)
      for (int l = 0; l < 4; ++l) {
        p0[l] = __builtin_fma(a[j + l], work[j + l], p0[l]);
        p1[l] = __builtin_fma(a[j + l + ld], work[j + l], p1[l]);
        p2[l] = __builtin_fma(a[j + l + 2 * ld], work[j + l], p2[l]);
        p3[l] = __builtin_fma(a[j + l + 3 * ld], work[j + l], p3[l]);
      }
    const double c0 = (p0[0] + p0[2]) + (p0[1] + p0[3]), c1 = (p1[0] + p1[2]) + (p1[1] + p1[3]);
    const double c2 = (p2[0] + p2[2]) + (p2[1] + p2[3]), c3 = (p3[0] + p3[2]) + (p3[1] + p3[3]);
    for (int j = 0; j < ld; ++j) {
      const double x = __builtin_fma(-c0, a[j], work[j]), y = c1 * a[j + ld];
      work[j] = __builtin_fma(-c2, a[j + 2 * ld], x) - __builtin_fma(c3, a[j + 3 * ld], y);
    }
  }
  for (; i < count; ++i) {
    const double* row = Q + (size_t)i * ld;
    add_multiple(work, -dot(row, work, ld), row, 0, ld);
  }
}

// One step; false: the space is exhausted and `top` is exact.
FS_FN bool step(Lanczos& z) {
  const int k = z.k;
  FS_WORKED(i64(z.n + k) * z.ld);
  const double* q = z.basis + (size_t)k * z.ld;
  symmetric_product(z.B, z.n, z.ld, q, z.work);
  z.alpha[k] = dot(q, z.work, z.ld);
  add_multiple(z.work, -z.alpha[k], q, 0, z.ld);
  orthogonalise(z.basis, k + 1, z.ld, z.work);
  const double norm = __builtin_sqrt(dot(z.work, z.work, z.ld));
  z.beta[k + 1] = norm;
  z.k = k + 1;
  if (z.k == z.n || !(norm > 1e-14 * maximum(z.top, z.alpha[0]))) {
    z.beta[z.k] = 0;
    return false;
  }
  normalise_next(z, norm);
  return true;
}

// Largest eigenvalue of the tridiagonal by Laguerre's iteration from the right (monotone, cubic), then its residual.
FS_FN void largest_ritz(Lanczos& z) {
  const int k = z.k;
  const double *a = z.alpha, *b = z.beta;
  double bound = z.alpha[0];
  for (int i = 0; i < k; ++i) bound = maximum(bound, a[i] + (i ? b[i] : 0) + (i + 1 < k ? b[i + 1] : 0));
  double x = bound * (1 + 1e-15);
  for (int round = 0; round < 100; ++round) {
    // q: pivots of T - x; r = q'/q and c = q''/q of each, summed into the logarithmic derivatives of det(T - x).
    double q = a[0] - x, inverse = 1 / q, r = -inverse, c = 0, first = r, second = -r * r;
    bool right = q < 0;
    for (int i = 1; i < k && right; ++i) {
      const double e = b[i] * b[i] * inverse;
      const double dq = -1 + e * r;
      const double ddq = e * (c - 2 * r * r);
      q = a[i] - x - e;
      right = q < 0;
      inverse = 1 / q;
      r = dq * inverse;
      c = ddq * inverse;
      first += r;
      second += c - r * r;
    }
    if (!right) break;  // rounding says x has arrived
    // first = sum 1/(x - theta), -second = sum 1/(x - theta)^2
    const double spread = (k - 1) * (-second * k - first * first);
    const double move = k / (first + __builtin_sqrt(maximum(spread, 0)));
    if (!(move > 1e-16 * x)) break;
    x -= move;
    if (move < 1e-11 * x && round > 2) break;  // cubic: the next move would be below rounding
  }
  z.top = x;
  // Last component of its eigenvector, from the bottom up: the stable direction when the vector decays downwards.
  double p = a[k - 1] - x, size = 1, last = 1;
  for (int i = k - 2; i >= 0; --i) {
    const double ratio = p / b[i + 1];  // -y_i / y_{i+1}
    size = size * ratio * ratio;        // y_i^2 over y_{k-1}^2
    last += size;
    if (!(last < 1e280)) break;
    p = a[i] - x - b[i + 1] * (ratio != 0 ? 1 / ratio : 1e300);
  }
  z.residual = b[k] / __builtin_sqrt(last);
}

// ---- inertia ---------------------------------------------------------------------------------------------------

// Eliminates the first `count` rows (a block with a definite leading part, then one of the other sign: safe without
// pivoting) of the upper triangle M [n, ld], four pivots and two rows at a time.
FS_FN __attribute__((noinline)) void eliminate_definite(double* M, int n, int ld, int count) {
  for (int k = 0; k < count;) {
    const int block = count - k < 4 ? count - k : 4;
    double inverse[4] = {0, 0, 0, 0};
    for (int a = 0; a < block; ++a) {
      double* row = M + (size_t)(k + a) * ld;
      for (int c = 0; c < a; ++c) {
        const double* other = M + (size_t)(k + c) * ld;
        add_multiple(row, -other[k + a] * inverse[c], other, (k + a) & ~7, ld);
      }
      inverse[a] = 1.0 / row[k + a];
    }
    const double* __restrict p0 = M + (size_t)k * ld;  // absent pivots repeat row k with coefficient zero
    const double* __restrict p1 = block > 1 ? p0 + ld : p0;
    const double* __restrict p2 = block > 2 ? p0 + 2 * ld : p0;
    const double* __restrict p3 = block > 3 ? p0 + 3 * ld : p0;
    int i = k + block;
    for (; i + 1 < n; i += 2) {
      double* __restrict r = M + (size_t)i * ld;
      double* __restrict s = r + ld;
      const double a0 = -p0[i] * inverse[0], a1 = -p1[i] * inverse[1], a2 = -p2[i] * inverse[2];
      const double a3 = -p3[i] * inverse[3], b0 = -p0[i + 1] * inverse[0], b1 = -p1[i + 1] * inverse[1];
      const double b2 = -p2[i + 1] * inverse[2], b3 = -p3[i + 1] * inverse[3];
      for (int j = i & ~7; j < ld; ++j) {  // entries left of the diagonal are never read: alignment is worth more
        double x = __builtin_fma(a0, p0[j], r[j]), y = __builtin_fma(b0, p0[j], s[j]);
        x = __builtin_fma(a1, p1[j], x);
        y = __builtin_fma(b1, p1[j], y);
        x = __builtin_fma(a2, p2[j], x);
        y = __builtin_fma(b2, p2[j], y);
        r[j] = __builtin_fma(a3, p3[j], x);
        s[j] = __builtin_fma(b3, p3[j], y);
      }
    }
    if (i < n) {
      double* r = M + (size_t)i * ld;
      for (int a = 0; a < block; ++a) {
        const double* p = p0 + (size_t)a * ld;
        add_multiple(r, -p[i] * inverse[a], p, i & ~7, ld);
      }
    }
    FS_WORKED(i64(n - k) * (n - k));
    k += block;
  }
}

FS_FN void swap(double& a, double& b) {
  const double c = a;
  a = b;
  b = c;
}

FS_FN void swap_coordinates(double* M, int n, int ld, int k, int a, int b) {  // a < b, upper triangle, rows >= k
  if (a == b) return;
  for (int i = k; i < a; ++i) swap(M[(size_t)i * ld + a], M[(size_t)i * ld + b]);
  swap(M[(size_t)a * ld + a], M[(size_t)b * ld + b]);
  for (int j = a + 1; j < b; ++j) swap(M[(size_t)a * ld + j], M[(size_t)j * ld + b]);
  for (int j = b + 1; j < n; ++j) swap(M[(size_t)a * ld + j], M[(size_t)b * ld + j]);
}

// Largest |entry| of row r of the trailing symmetric matrix off its diagonal, rows and columns >= k.
FS_FN double largest_in_row(const double* M, int n, int ld, int k, int r, int* where) {
  double most = 0;
  for (int j = k; j < n; ++j) {
    const double x = __builtin_fabs(j < r ? M[(size_t)j * ld + r] : M[(size_t)r * ld + j]);
    if (j != r && x > most) {
      most = x;
      *where = j;
    }
  }
  return most;
}

// Positive eigenvalues of the symmetric M [n, ld] from row k on (upper triangle, overwritten): Bunch-Kaufman LDL^T.
FS_FN __attribute__((noinline)) int positive_pivots(double* M, int n, int ld, int k) {
  int positive = 0;
  while (k < n) {
    FS_WORKED(i64(n - k) * (n - k));
    double* top = M + (size_t)k * ld;
    int r = k, ignored = 0;
    const double diagonal = __builtin_fabs(top[k]);
    const double colmax = largest_in_row(M, n, ld, k, k, &r);
    bool single = diagonal >= kBunchKaufman * colmax;
    if (!single) {
      const double rowmax = largest_in_row(M, n, ld, k, r, &ignored);
      single = diagonal * rowmax >= kBunchKaufman * colmax * colmax;
      if (!single && __builtin_fabs(M[(size_t)r * ld + r]) >= kBunchKaufman * rowmax) {
        swap_coordinates(M, n, ld, k, k, r);
        single = true;
      } else if (!single) {
        swap_coordinates(M, n, ld, k, k + 1, r);
      }
    }
    if (single) {
      positive += top[k] > 0;
      const double inverse = top[k] != 0 ? 1.0 / top[k] : 0.0;
      for (int i = k + 1; i < n; ++i)
        if (top[i] != 0) add_multiple(M + (size_t)i * ld, -top[i] * inverse, top, i, n);
      k += 1;
      continue;
    }
    positive += 1;  // a 2 x 2 block of Bunch-Kaufman has one eigenvalue of each sign
    const double* next = top + ld;
    const double off = top[k + 1], x = top[k] / off, y = next[k + 1] / off, scale = 1.0 / (off * (x * y - 1.0));
    for (int i = k + 2; i < n; ++i) {
      const double a = (y * top[i] - next[i]) * scale, b = (x * next[i] - top[i]) * scale;
      double* row = M + (size_t)i * ld;
      for (int j = i; j < n; ++j) row[j] -= a * top[j] + b * next[j];
    }
    k += 2;
  }
  return positive;
}

}  // namespace symmetric
}  // namespace fs
