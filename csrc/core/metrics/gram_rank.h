// Owns the rank of a matrix J counted from its Gram matrix G = J J^T [n, n], without a single eigenvalue but the first.
//
//   rank = #{sigma_k > rtol sigma_1} = number of eigenvalues of G above tau = rtol^2 lambda_1
//   1. from n = 64, if few columns will do: partial Cholesky with pivoting, G = L L^T + E, r columns, tr E far below
//      tau: then the count lies between those of the small M = L^T L [r, r] at tau and at tau - tr E;          n r^2
//   2. otherwise lambda_1 by Lanczos and one LDL^T of G - tau.                                               n^3 / 3
// Right wherever no singular value lies within a relative factor(rtol) of the threshold: G is known to some 1e-16
// lambda_1, and 1e-14 lambda_1 is allowed for; the factorisation's own errors are measured against the same allowance.
// Parallel: nothing here; one call counts one matrix on one thread.
#pragma once

#include "inertia.h"

namespace fs {

// The least distance from the threshold, relative, at which a singular value is counted on the right side.
FS_FN double gram_rank_factor(double rtol) { return 1e-10 + 1e-14 / (rtol * rtol); }

// How a count was reached; for measurement only.
struct GramRankEffort {
  long partial, full, lanczos_steps, pivoted;
};

namespace gram_rank_detail {

using namespace symmetric;

constexpr double kSmallest = 1e-130, kLargest = 1e140;  // traces between which Lanczos may square what it multiplies
constexpr double kNegligible = 1e-2;  // of the threshold: trace at which the partial Cholesky may stop
constexpr int kLeast = 64;            // n from which it is tried
constexpr double kTry = 0.125;        // of n: columns after which it goes on only if at this pace it ends in time
constexpr double kPart = 0.25;        // of n: columns beyond which an LDL^T costs less
constexpr double kRow = 8;            // times the random part of the start of Lanczos
constexpr int kBlock = 8;             // columns that are eliminated together
constexpr double kWait = 1e-2;        // of the largest pivot of a block: smaller ones wait

// The pieces of one caller-provided block for matrices [n, n].
struct Scratch {
  double *alpha, *beta, *work, *left, *alive;  // [ld] each, beta and work a little more
  double* small;                               // inertia's
  double* large;                               // the Lanczos basis [ld + 1, ld], or L, its transpose, M and M's
};

FS_FN size_t scratch_size(int n) {
  const size_t ld = tile::padded(n), r = tile::padded(int(kPart * n) + kBlock);
  const size_t whole = (ld + 1) * ld, part = (r + kBlock) * ld + ld * r + r * r + (r + 1) * r;
  return (whole > part ? whole : part) + 5 * ld + 32 + inertia::scratch_size(n);
}

FS_FN Scratch carve(double* block, int n) {
  const size_t ld = tile::padded(n);
  Scratch z;
  z.alpha = block;
  z.beta = z.alpha + ld;
  z.work = z.beta + ld + 16;
  z.left = z.work + ld + 16;
  z.alive = z.left + ld;
  z.small = z.alive + ld;
  z.large = z.small + inertia::scratch_size(n);
  return z;
}

// Copies the triangle above the diagonal [n, n] onto the one below, or the other way round; blocks lie in registers.
FS_FN void mirror(double* G, int n, size_t ld, bool upwards) {
  using tile::V;
  using tile::W;
  for (int i = 0; i < n; i += W) {
    for (int j = 0; j < i; j += W) {
      double *from = upwards ? G + i * ld + j : G + j * ld + i, *to = upwards ? G + j * ld + i : G + i * ld + j;
      V block[W];
      for (int r = 0; r < W; ++r) block[r] = V::loadu(from + r * ld);
      transpose<W / 2>(block);
      for (int r = 0; r < W; ++r) __builtin_memcpy(to + r * ld, &block[r].a, sizeof(V));
    }
    for (int a = i; a < i + W; ++a)
      for (int b = i; b < a; ++b) (upwards ? G[b * ld + a] : G[a * ld + b]) = upwards ? G[a * ld + b] : G[b * ld + a];
  }
}

struct Interval {
  double low, high;
};

// What lambda_1 of a matrix with this trace can be, from the largest Ritz value; more: whether steps are left.
FS_FN Interval enclosure(const Lanczos& z, bool more, double trace) {
  // The Ritz value errs by residual^2 over the gap, and lambda_2 <= trace - lambda_1. Where that leaves no gap, the
  // residual alone bounds the distance to *an* eigenvalue: the first, unless all digits of the start miss it.
  const double error = more ? z.residual : 0, gap = 2 * z.top - trace;
  return {z.top, z.top + (gap > 0 ? minimum(error, error * error / gap) : error)};
}

// The start of Lanczos on B: mostly its row of the largest diagonal entry, a power step that costs nothing. The rest is
// pseudo-random, so that the first eigenvector is not missed where that row has no part in it.
FS_FN void start_at_row(Lanczos& z, const double* B) {
  start(z, nullptr, nullptr);
  int most = 0;
  for (int i = 1; i < z.n; ++i)
    if (B[(size_t)i * (z.ld + 1)] > B[(size_t)most * (z.ld + 1)]) most = i;
  const double* row = B + (size_t)most * z.ld;
  const double c = kRow / __builtin_sqrt(dot(row, row, z.ld));
  for (int i = 0; i < z.ld; ++i) z.work[i] = z.basis[i] + c * row[i];
  normalise_next(z, __builtin_sqrt(dot(z.work, z.work, z.ld)));
}

// lambda_1 of B [n, n] with this trace, to a relative `width`.
FS_FN Interval largest(const double* B, int n, size_t ld, double trace, double width, Scratch& z, double* basis,
                       GramRankEffort* effort) {
  Lanczos lanczos = {B, n, (int)ld, 0, basis, z.alpha, z.beta, z.work, 0, 0};
  start_at_row(lanczos, B);
  for (int next = 4;;) {
    const bool more = step(lanczos);
    if (effort) ++effort->lanczos_steps;
    if (more && lanczos.k < next) continue;
    next = lanczos.k + 1 + lanczos.k / 4;
    largest_ritz(lanczos);
    const Interval found = enclosure(lanczos, more, trace);
    if (!more || found.high - found.low <= width * found.low) return found;
  }
}

// Positive eigenvalues of H - shift; H as `inertia::factor` takes and leaves it, its lower triangle filled too.
// copy [ld, ld]: for the rare second attempt.
FS_FN int positive(double* H, int n, size_t ld, double shift, double allowed, double* copy, Scratch& z,
                   GramRankEffort* effort) {
  const inertia::Counted counted = inertia::factor(H, n, ld, shift, z.small);
  if (4 * 0x1p-53 * counted.growth <= allowed) return counted.positive;
  if (effort) ++effort->pivoted;
  for (int i = 0; i < n; ++i) {
    for (int j = i; j < (int)ld; ++j) copy[i * ld + j] = j < n ? H[j * ld + i] : 0.0;
    copy[i * ld + i] -= shift;
  }
  return positive_pivots(copy, n, (int)ld, 0);
}

// rows [kBlock, ld] -= sum_{k < count} L[k, at[b]] L[k, :] for the columns at[b] of the rows; q [count, kBlock].
FS_FN void subtract_rows(double* rows, const double* L, const int* at, int count, size_t ld, double* q) {
  using namespace tile;
  for (int part = 0; part < kBlock; part += ROWS) {
    for (int k = 0; k < count; ++k)
      for (int r = 0; r < ROWS; ++r) q[k * ROWS + r] = -L[k * ld + at[part + r]];
    strips(0, (int)ld, [&](auto number, int j) {
      constexpr int C = decltype(number)::value;
      V s[ROWS][COLS];
      load<C>(s, rows + part * ld + j, ld);
      accumulate<C>(s, count, q, ROWS, L + j, ld);
      store<C>(s, rows + part * ld + j, ld);
    });
  }
}

// Where the largest entry of x [ld] is.
FS_FN int largest_at(const double* x, size_t ld) {
  double part[8];
  for (int a = 0; a < 8; ++a) part[a] = x[a];
  for (size_t j = 8; j < ld; j += 8)
    for (int a = 0; a < 8; ++a) part[a] = x[j + a] > part[a] ? x[j + a] : part[a];
  double most = part[0];
  for (int a = 1; a < 8; ++a) most = maximum(most, part[a]);
  int at = 0;
  while (x[at] < most) ++at;
  return at;
}

FS_FN double sum(const double* x, size_t ld) {
  double part[8] = {};
  for (size_t j = 0; j < ld; j += 8)
    for (int a = 0; a < 8; ++a) part[a] += x[j + a];
  return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

// G = L^T L + E for rows L [r, ld], r <= most + kBlock; returns r, or -1 where the trace of E stays above the target.
// Columns are taken kBlock at a time, those of the largest diagonal of E; within a block the largest goes first, and
// what the block has made small by then waits for another block.
FS_FN int partial_cholesky(const double* G, int n, size_t ld, double target, int most, double* L, Scratch& z,
                           double* rest) {
  double *left = z.left, *chosen = z.work;  // diagonal of E; the same without what a block has chosen
  for (int j = 0; j < (int)ld; ++j) {
    left[j] = j < n ? G[j * ld + j] : 0.0;
    z.alive[j] = j < n ? 1.0 : 0.0;
  }
  double before = 0;
  for (int r = 0;;) {
    *rest = sum(left, ld);
    if (*rest <= target) return r;
    double hoped = *rest;  // when all columns are used up, if every block takes away what the last one did
    for (int k = r; k < most && r >= kTry * n; k += kBlock) hoped *= *rest / before;
    if (r >= most || (r >= kTry * n && hoped > target)) return -1;
    before = *rest;
    int at[kBlock];
    for (size_t j = 0; j < ld; ++j) chosen[j] = left[j];
    double* rows = L + r * ld;
    for (int b = 0; b < kBlock; ++b) {
      at[b] = largest_at(chosen, ld);
      chosen[at[b]] = -1;
      for (size_t j = 0; j < ld; ++j) rows[b * ld + j] = G[at[b] * ld + j];
    }
    subtract_rows(rows, L, at, r, ld, z.small);
    FS_WORKED(i64(r + kBlock) * ld);
    const double first = left[at[0]];
    for (int b = 0; b < kBlock; ++b, ++r) {
      int best = b;
      for (int c = b + 1; c < kBlock; ++c)
        if (left[at[c]] > left[at[best]]) best = c;
      const int p = at[best];
      double* row = rows + b * ld;
      if (best != b) {
        at[best] = at[b];
        for (size_t j = 0; j < ld; ++j) swap(row[j], rows[best * ld + j]);
      }
      if (!(row[p] > kWait * first)) {
        if (b == 0) return -1;
        break;
      }
      const double scale = 1.0 / __builtin_sqrt(row[p]);
      for (size_t j = 0; j < ld; ++j) {
        const double l = row[j] * (scale * z.alive[j]), now = left[j] - l * l;
        row[j] = l;
        left[j] = now > 0 ? now : 0;
      }
      left[p] = z.alive[p] = 0;
      for (int c = b + 1; c < kBlock; ++c) add_multiple(rows + c * ld, -row[at[c]], row, 0, (int)ld);
    }
  }
}

// The count from r columns, or -1 where what they leave out could matter.
FS_FN int count_partial(const double* L, int r, int n, size_t ld, double rest, double rtol, Scratch& z,
                        GramRankEffort* effort) {
  const int rp = tile::padded(r);
  double *T = (double*)L + (rp + kBlock) * ld, *M = T + ld * rp,
         *basis = M + (size_t)rp * rp;  // L^T [ld, rp], M [rp, rp]
  tile::transpose(L, r, ld, n, T);
  double trace = 0;
  gram_matrix(T, n, r, M);
  mirror(M, r, rp, false);
  for (int i = 0; i < r; ++i) trace += M[(size_t)i * (rp + 1)];
  const double factor = gram_rank_factor(rtol);
  const Interval first = largest(M, r, rp, trace, 0.1 * factor, z, basis, effort);
  const double high = rtol * rtol * (first.high + rest), low = rtol * rtol * first.low - rest;
  const int least = positive(M, r, rp, high, 0.5 * factor * high, basis, z, effort);
  mirror(M, r, rp, true);
  return positive(M, r, rp, low, 0.5 * factor * high, basis, z, effort) == least ? least : -1;
}

}  // namespace gram_rank_detail

// Doubles of scratch for matrices [n, n].
FS_FN size_t gram_rank_scratch_size(int n) { return gram_rank_detail::scratch_size(n); }

// Rank of J from the upper triangle of G = J J^T [n, n], rows of ld = padded(n) doubles, padding zero; G is
// overwritten. 1e-6 <= rtol < 1. -1 where G is not finite, or so small or large that it lost digits.
FS_FN int gram_rank(double* G, int n, double rtol, double* scratch, GramRankEffort* effort = nullptr) {
  using namespace gram_rank_detail;
  const size_t ld = tile::padded(n);
  Scratch z = carve(scratch, n);
  double trace = 0, most = 0;
  for (int i = 0; i < n; ++i) {
    trace += G[i * ld + i];
    most = maximum(most, G[i * ld + i]);
  }
  if (trace == 0) return 0;
  if (!(trace > kSmallest && trace < kLargest)) return -1;
  mirror(G, n, ld, false);
  double* L = z.large;
  double rest;
  const double target = kNegligible * rtol * rtol * maximum(most, trace / n);
  const int r = n < kLeast ? -1 : partial_cholesky(G, n, ld, target, int(kPart * n), L, z, &rest);
  if (r >= 0) {
    if (effort) ++effort->partial;
    const int rank = count_partial(L, r, n, ld, rest, rtol, z, effort);
    if (rank >= 0) return rank;
  }
  if (effort) ++effort->full;
  const double factor = gram_rank_factor(rtol);
  const Interval first = largest(G, n, ld, trace, 0.1 * factor, z, z.large, effort);
  const double tau = rtol * rtol * 0.5 * (first.low + first.high);
  return positive(G, n, ld, tau, 0.5 * factor * tau, z.large, z, effort);
}

}  // namespace fs
