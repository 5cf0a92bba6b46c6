// Owns the Jacobian rank of diagonal linear networks as an exact count: no singular value is ever computed.
//
//   J = [X diag(u), X diag(v)] has the singular values of X diag(s), s_j = hypot(u_j, v_j)
//   rank = #{sigma_k > tau},  tau = rtol sigma_1
//        = number of positive eigenvalues of  S^2 G - tau^2,  G = X^T X [d,d]       (S = diag(s))
//        = positive eigenvalues of  C - 1/W,   W = diag((s_j |x_j| / tau)^2)          (Sylvester, congruence by 1/S)
//        = d - positive eigenvalues of  H - W,  H = C^-1                              (the same, seen from the inverse)
// C [d,d] is G with its diagonal scaled to one. The grading of s (hundreds of decades) sits on a diagonal, so nothing
// is squared away: errors are relative to cond(C), which is a property of the evaluation points alone.
//
// Parallel: nothing here; one call counts one network on one thread, inner loops are over coordinates.
// Order of work, each stage only if the one before left a doubt:
//   1. certificates: H_jj / W_jj summed over the large coordinates < 1 (they all count), W_jj summed over the small
//      ones < 1 (none counts), or Weyl's inequality; sigma_1 only enclosed in an interval;                     O(d)
//   2. Lanczos narrows the interval of sigma_1 on the large coordinates; two counts of the few coordinates near the
//      threshold bound the rank from both sides (`squeeze`);
//   3. two LDL^T of C - 1/W or of H - W, whichever is smaller, without the far side: bounds again (`count_between`);
//   4. Lanczos on all coordinates that matter, and one LDL^T of all that float64 can see: the certified block first
//      (definite: Cholesky-stable without pivoting), the doubtful few last, with Bunch-Kaufman where a pivot vanishes.
// Singular or ill-conditioned C (m < d, equal columns): a graded pivoted Cholesky rewrites the problem as one with a
// well-conditioned C and goes to 4 (`count_singular`); an order of magnitude slower.
// Right wherever no singular value lies within a relative 100 eps max(cond, 1e4) of tau, cond = cond(C) of independent
// columns. Columns of X must be exactly dependent, or independent by an angle above 1e-6: G cannot tell below that.
// rtol = 0 counts the independent columns among those with s_j > 0: sizes other than zero do not change that number,
// so that each counts as one.
#pragma once

#include "diagonal_points.h"

namespace fs {
namespace diagonal_rank_detail {

constexpr double kDependent = 1e-12;    // squared sine below which a column of X counts as dependent on others
constexpr double kDualCondition = 1e3;  // H carries eps cond(C): its route is used only where that is harmless
constexpr double kFar = 1e-3;           // what all coordinates far from the threshold may add to a certificate
constexpr double kSure = 0.98;          // a certificate needs this, not 1: leaves the block definite with room
constexpr double kDropped = 1e-5;       // what coordinates left out of both bounds may add to the matrix
constexpr double kNegligible = 1e13;    // a diagonal that much larger than the matrix moves nothing in float64
constexpr double kGrowth = 1e4;         // of an LDL^T without pivoting, on entries of order one
constexpr double kSettled = 1e-13;      // relative residual at which sigma_1^2 is final
constexpr double kTrusted = 1e-5;       // relative residual from which the top Ritz value is the top eigenvalue
constexpr double kSquarable = 1e-200;   // square of the largest t from which on none that matters is lost
constexpr double kClose = 1.2;          // ends of the interval of sigma_1^2 from which squeezing is tried

// ---- certificates ------------------------------------------------------------------------------------------------

struct Verdict {
  int sure;                  // coordinates far above the threshold
  int middle, above, below;  // doubtful zone, and how many of it the certificates place above / below
  int doubtful() const { return middle - above - below; }
  bool decided() const { return above + below >= middle; }
  int rank() const { return sure + above; }
};

// Coordinates j in Scratch::middle come sorted by t, largest first. tau is only known to lie in [low, high].
FS_FN __attribute__((noinline)) Verdict judge(const DiagonalRankPoints& points, Scratch& z, double low, double high) {
  const double far_above = high * __builtin_sqrt(points.inverse_norm / kFar);
  const double far_below = low * __builtin_sqrt(kFar / points.largest);
  const double* t = z.t;
  int sure = 0, n = 0;
  for (int j = 0; j < points.d; ++j) {
    z.middle[n] = j;
    sure += t[j] >= far_above;
    n += (t[j] < far_above) & (t[j] > far_below);
  }
  for (int i = 1; i < n; ++i) {
    const int j = z.middle[i];
    int at = i;
    for (; at > 0 && t[z.middle[at - 1]] < t[j]; --at) z.middle[at] = z.middle[at - 1];
    z.middle[at] = j;
  }
  // Large block: largest eigenvalue of W^-1/2 H W^-1/2 <= trace < 1, or H's norm over the smallest W (Weyl).
  double trace = kFar;
  int by_trace = 0, by_norm = 0;
  for (; by_trace < n; ++by_trace) {
    const int j = z.middle[by_trace];
    const double ratio = high / t[j];
    trace += points.inverse_diagonal[j] * ratio * ratio;
    if (!(trace < kSure)) break;
  }
  const double norm_above = high * __builtin_sqrt(points.inverse_norm / kSure);
  while (by_norm < n && t[z.middle[by_norm]] > norm_above) ++by_norm;
  Verdict verdict = {sure, n, by_trace > by_norm ? by_trace : by_norm, 0};
  // Small block: the same of W^1/2 C W^1/2, whose diagonal is W.
  trace = kFar;
  by_trace = by_norm = 0;
  for (; by_trace < n; ++by_trace) {
    const double ratio = t[z.middle[n - 1 - by_trace]] / low;
    trace += ratio * ratio;
    if (!(trace < kSure)) break;
  }
  const double norm_below = low * __builtin_sqrt(kSure / points.largest);
  while (by_norm < n && t[z.middle[n - 1 - by_norm]] < norm_below) ++by_norm;
  verdict.below = by_trace > by_norm ? by_trace : by_norm;
  return verdict;
}

// M = S + more - diag(e) on the listed coordinates, each scaled by 1 / sqrt(S_jj + e_j): entries of order one whatever
// e is.
FS_FN void gather_shifted(const double* S, int d, const int* index, const double* e, int n, Scratch& z,
                          double more = 0) {
  const int ld = padded(n);
  for (int i = 0; i < n; ++i) z.scale[i] = 1.0 / __builtin_sqrt(S[(size_t)index[i] * (d + 1)] + e[i]);
  for (int i = 0; i < n; ++i) {
    const double* __restrict from = S + (size_t)index[i] * d;
    double* __restrict to = z.matrix + (size_t)i * ld;
    const double scale = z.scale[i];
    for (int j = i & ~7; j < n; ++j) to[j] = from[index[j]] * (scale * z.scale[j]);
    for (int j = n; j < ld; ++j) to[j] = 0;
    const double own = from[index[i]];
    to[i] = (own + more - e[i]) * scale * scale;
  }
  for (int i = n * ld; i < ld * ld; ++i) z.matrix[i] = 0;
}

// The count from the middle alone, where two bounds agree, else -1. With S far above and N far below the threshold:
//   |S| + |m| - pos(H_mm - W_m + eta') <= rank <= |S| + pos(C_mm - 1/W_m + eta),
// for eliminating S can only take from C_mm and N only from H_mm, and eta = kFar |C|, eta' = kFar |H| (a little more)
// cover what N, or S, gives back. tau is only known to lie in [low, high].
FS_FN int squeeze(const DiagonalRankPoints& points, Scratch z, double low, double high, const Verdict& verdict) {
  const int n = verdict.middle, ld = padded(n);
  if (n > kMostSqueezed) return -1;
  z.matrix = z.small;  // the large one is in use
  int count[2];
  for (int dual = 0; dual < 2; ++dual) {
    for (int i = 0; i < n; ++i) {
      const double t = z.t[z.middle[i]], ratio = dual ? t / high : low / t;
      z.picked[i] = ratio * ratio;
    }
    const double more = 1.01 * kFar * (dual ? points.inverse_norm : points.largest);
    gather_shifted(dual ? points.H : points.C, points.d, z.middle, z.picked, n, z, more);
    count[dual] = positive_pivots(z.matrix, n, ld, 0);
  }
  return count[0] + count[1] == n ? verdict.sure + count[0] : -1;
}

// ---- sigma_1 -------------------------------------------------------------------------------------------------------

struct Interval {
  double low, high;  // of sigma_1^2, in units of t
};

// Runs Lanczos on diag(t) C diag(t) restricted to t > cut * max t; what is left out adds at most its trace, or its
// norm. Stops as soon as the verdict is certain, or when sigma_1 is as good as this cut allows.
enum class Narrowed { decided, coarse, settled };
FS_FN __attribute__((noinline)) Narrowed narrow(const DiagonalRankPoints& points, Scratch& z, double rtol, double cut,
                                                Interval* square, Verdict* verdict, int* rank,
                                                DiagonalRankEffort* effort) {
  const int d = points.d;
  double most = 0, rest = 0, left = 0;
  for (int j = 0; j < d; ++j) most = maximum(most, z.t[j]);
  int n = 0;
  for (int j = 0; j < d; ++j) {
    if (z.t[j] > cut * most) {
      z.picked[n] = z.t[j];
      z.index[n++] = j;
    } else {
      rest += z.t[j] * z.t[j];
      left = maximum(left, z.t[j]);
    }
  }
  rest = minimum(rest, points.largest * left * left);
  const int ld = padded(n);
  double trace = 0, frobenius = 0;
  for (int i = 0; i < n; ++i) {
    const double* __restrict from = points.C + (size_t)z.index[i] * d;
    double* __restrict to = z.matrix + (size_t)i * ld;
    for (int j = 0; j < n; ++j) to[j] = from[z.index[j]] * (z.picked[i] * z.picked[j]);
    for (int j = n; j < ld; ++j) to[j] = 0;
    trace += to[i];
    frobenius += dot(to, to, ld);
  }
  for (int e = n * ld; e < ld * ld; ++e) z.matrix[e] = 0;
  Lanczos lanczos = {z.matrix, n, ld, 0, z.basis, z.alpha, z.beta, z.work, 0, 0};
  start(lanczos, z.picked, z.index);
  for (bool more = true, tried = false; more;) {
    more = step(lanczos);
    if (effort) ++effort->lanczos_steps;
    const int k = lanczos.k;
    const double own = lanczos.alpha[k - 1], link = k > 1 ? lanczos.beta[k - 1] : 0;
    trace -= own;
    frobenius -= own * own + 2 * link * link;
    if (more && k % 2 != 0) continue;
    largest_ritz(lanczos);
    const double top = lanczos.top, error = more ? lanczos.residual : 0;
    const bool settled = error <= maximum(kSettled * top, minimum(kTrusted * top, 0.02 * rest));
    // A small residual only says that *an* eigenvalue is near. What the other Ritz values leave of the trace and of
    // the Frobenius norm is a bound at any time, for they interlace; the residual is used once there can be no doubt.
    double high = minimum(top + trace, __builtin_sqrt(maximum(top * top + frobenius, 0)));
    high = maximum(high, top) * (1 + 1e-12);
    if (!more || (error <= kTrusted * top && k >= 4)) high = minimum(high, (top + error) * (1 + 1e-15));
    square->low = maximum(square->low, top * (1 - 1e-15));
    square->high = minimum(square->high, high + rest);
    square->high = maximum(square->high, square->low);
    if (points.definite) {
      const double low = rtol * __builtin_sqrt(square->low), high = rtol * __builtin_sqrt(square->high);
      *verdict = judge(points, z, low, high);
      *rank = verdict->decided() ? verdict->rank() : -1;
      if (*rank < 0 && !tried && square->high < kClose * square->low) {
        *rank = squeeze(points, z, low, high, *verdict);
        tried = true;
      }
      if (*rank >= 0) return Narrowed::decided;
    }
    if (settled) break;
  }
  return rest <= kSettled * square->low ? Narrowed::settled : Narrowed::coarse;
}

// ---- factorisation -------------------------------------------------------------------------------------------------

// Lists the coordinates that C - 1/W (dual: H - W) couples, certified positive first, then certified negative, then
// the doubtful; e is the diagonal subtracted. A coordinate whose e dwarfs the matrix is a negative pivot coupled to
// nothing that float64 would see, and is left out.
struct Listed {
  int n, positive, certified;
};

FS_FN Listed list_coordinates(const DiagonalRankPoints& points, Scratch& z, double tau, const Verdict& verdict,
                              bool dual, int* index, double* e) {
  const double far_above = tau * __builtin_sqrt(points.inverse_norm / kFar);
  const double far_below = tau * __builtin_sqrt(kFar / points.largest);
  const double dropped = kNegligible * (dual ? points.inverse_norm : points.largest);
  Listed listed = {0, 0, 0};
  const auto add = [&](int j) {
    const double ratio = dual ? z.t[j] / tau : tau / z.t[j];
    index[listed.n] = j;
    e[listed.n] = ratio * ratio;
    listed.n += e[listed.n] <= dropped;  // t = 0: infinite in C - 1/W, so left out; zero in H - W, so kept
  };
  for (int side = 0; side < 2; ++side) {
    const bool above = (side == 0) != dual;
    for (int j = 0; j < points.d; ++j)
      if (above ? z.t[j] >= far_above : z.t[j] <= far_below) add(j);
    const int first = above ? 0 : verdict.middle - verdict.below, last = above ? verdict.above : verdict.middle;
    for (int i = first; i < last; ++i) add(z.middle[i]);
    (side == 0 ? listed.positive : listed.certified) = listed.n;
  }
  for (int i = verdict.above; i < verdict.middle - verdict.below; ++i) add(z.middle[i]);
  return listed;
}

FS_FN int count_definite(const DiagonalRankPoints& points, Scratch z, double tau, const Verdict& verdict) {
  Listed listed = list_coordinates(points, z, tau, verdict, false, z.index, z.picked);
  bool dual = false;
  if (points.largest * points.inverse_norm < kDualCondition) {
    int* index = z.index + padded(points.d);
    const Listed other = list_coordinates(points, z, tau, verdict, true, index, z.alpha);
    dual = other.n < listed.n;
    if (dual) {
      listed = other;
      z.index = index;
      z.picked = z.alpha;
    }
  }
  const int n = listed.n, ld = padded(n);
  const double* S = dual ? points.H : points.C;
  gather_shifted(S, points.d, z.index, z.picked, n, z);
  const inertia::Counted counted = inertia::factor(z.matrix, n, ld, 0.0, z.pivots);
  int positive = counted.positive;
  if (!(counted.growth <= kGrowth)) {  // a doubtful pivot next to zero
    gather_shifted(S, points.d, z.index, z.picked, n, z);
    eliminate_definite(z.matrix, n, ld, listed.certified);
    positive = listed.positive + positive_pivots(z.matrix, n, ld, listed.certified);
  }
  return dual ? points.d - positive : positive;
}

FS_FN int count_at(const DiagonalRankPoints& points, Scratch& z, double tau, DiagonalRankEffort* effort) {
  const Verdict verdict = judge(points, z, tau, tau);
  if (verdict.decided()) return verdict.rank();
  if (effort) ++effort->factorisations;
  return count_definite(points, z, tau, verdict);
}

// The count where two bounds agree, else -1, for tau in [low, high]; `verdict` holds there. R: the coordinates that are
// not far below (dual: not far above) the threshold, by kDropped:
//   pos(C_RR - 1/W) <= rank <= pos(C_RR - 1/W + eta),  d - pos(H_RR - W + eta') <= rank <= d - pos(H_RR - W):
// a principal submatrix has no more positive eigenvalues, and eta covers what the coordinates left out give back.
FS_FN int count_between(const DiagonalRankPoints& points, Scratch& z, double low, double high, const Verdict& verdict,
                        DiagonalRankEffort* effort) {
  const int d = points.d;
  const double upper = high * __builtin_sqrt(points.inverse_norm / kDropped);
  const double lower = low * __builtin_sqrt(kDropped / points.largest);
  int n = 0, n_dual = 0;
  int *index = z.index, *other = z.index + padded(d);
  for (int j = 0; j < d; ++j) {
    index[n] = other[n_dual] = j;
    n += z.t[j] > lower;
    n_dual += z.t[j] < upper;
  }
  const bool dual = n_dual < n && points.largest * points.inverse_norm < kDualCondition;
  if (dual) n = n_dual, index = other;
  const int ld = padded(n);
  const double *S = dual ? points.H : points.C, norm = dual ? points.inverse_norm : points.largest;
  double* kept = z.basis;  // [ld, ld] upper triangle of S_RR
  for (int i = 0; i < n; ++i)
    for (int j = i & ~7; j < ld; ++j) kept[(size_t)i * ld + j] = j < n ? S[(size_t)index[i] * d + index[j]] : 0.0;
  int bound[2];  // least, most
  for (int most = 0; most < 2; ++most) {
    const double tau = most ? low : high, more = (most == 1) != dual ? 1.01 * kDropped * norm : 0.0;
    for (int i = 0; i < ld; ++i)
      for (int j = i & ~7; j < ld; ++j) z.matrix[(size_t)i * ld + j] = i < n ? kept[(size_t)i * ld + j] : 0.0;
    for (int i = 0; i < n; ++i) {
      const double ratio = dual ? z.t[index[i]] / tau : tau / z.t[index[i]];
      z.matrix[(size_t)i * (ld + 1)] += more - ratio * ratio;
    }
    const inertia::Counted counted = inertia::factor(z.matrix, n, ld, 0.0, z.pivots);
    if (effort) ++effort->factorisations;
    if (!(counted.growth <= kGrowth * norm)) return -1;
    bound[most] = dual ? d - counted.positive : counted.positive;
    if (!most && bound[0] == verdict.rank() + verdict.doubtful()) return bound[0];
  }
  return bound[0] == bound[1] ? bound[0] : -1;
}

// Singular or ill-conditioned C. Cholesky of diag(t) C diag(t), largest pivot first, done on C with the scales kept
// apart: t_p c_pp^1/2 is row p's size, Y [k,n] the rest of the row, |Y| <= 1. Then X diag(t) = Q diag(size) Y, and the
// count is that of Y Y^T - (tau / size)^2, where Y Y^T is well conditioned because the pivoting revealed the rank.
FS_FN __attribute__((noinline)) int count_singular(const DiagonalRankPoints& points, Scratch& z, double tau) {
  const int d = points.d;
  const double negligible = tau / __builtin_sqrt(kNegligible * points.largest);
  int n = 0;
  for (int j = 0; j < d; ++j)
    if (z.t[j] > negligible) {
      z.picked[n] = z.t[j];
      z.index[n++] = j;
    }
  const int ld = padded(n), most = points.m < n ? points.m : n;
  double *M = z.matrix, *Y = z.basis, *size = z.scale;
  int* alive = z.middle;
  for (int i = 0; i < n; ++i) {
    alive[i] = 1;
    for (int j = 0; j < ld; ++j) M[(size_t)i * ld + j] = j < n ? points.C[(size_t)z.index[i] * d + z.index[j]] : 0.0;
  }
  int rows = 0;
  for (; rows < most; ++rows) {
    int p = -1;
    double best = negligible;
    for (int i = 0; i < n; ++i) {
      const double own = M[(size_t)i * (ld + 1)];
      if (own < kDependent) alive[i] = 0;  // in the span of larger columns: what is left of it is rounding
      if (!alive[i]) continue;
      const double reach = z.picked[i] * __builtin_sqrt(own);
      if (reach > best) {
        best = reach;
        p = i;
      }
    }
    if (p < 0) break;
    size[rows] = best;
    const double* row = M + (size_t)p * ld;
    const double inverse = 1.0 / row[p];
    double* y = Y + (size_t)rows * ld;
    alive[p] = 0;
    for (int j = 0; j < ld; ++j) y[j] = j < n && alive[j] ? row[j] * inverse * (z.picked[j] / z.picked[p]) : 0.0;
    for (int i = 0; i < n; ++i)
      if (alive[i]) add_multiple(M + (size_t)i * ld, -row[i] * inverse, row, 0, ld);
    y[p] = 1.0;
  }
  const int lr = padded(rows);
  for (int a = 0; a < rows; ++a) {
    const double own = dot(Y + (size_t)a * ld, Y + (size_t)a * ld, ld), ratio = tau / size[a];
    z.alpha[a] = 1.0 / __builtin_sqrt(own + ratio * ratio);
    for (int b = 0; b <= a; ++b)
      M[(size_t)b * lr + a] = dot(Y + (size_t)b * ld, Y + (size_t)a * ld, ld) * (z.alpha[a] * z.alpha[b]);
    M[(size_t)a * lr + a] = (own - ratio * ratio) * z.alpha[a] * z.alpha[a];
  }
  return positive_pivots(M, rows, lr, 0);
}

}  // namespace diagonal_rank_detail

// ---- what callers use ----------------------------------------------------------------------------------------------

// Rank of one network from s [d] >= 0, rtol = 0 or kLeastCounted <= rtol; -1 where s is not finite. A function of the
// network alone.
// vectors, matrices: scratch as sized in diagonal_points.h; few networks come to need the matrices.
FS_FN int diagonal_rank(const DiagonalRankPoints& points, const double* s, double rtol, double* vectors,
                        double* matrices, DiagonalRankEffort* effort = nullptr) {
  using namespace diagonal_rank_detail;
  const int d = points.d;
  Scratch z = carve(vectors, matrices, d);
  double most = 0, poison = 0;
  for (int j = 0; j < d; ++j) {
    most = s[j] > most ? s[j] : most;
    poison += s[j] * 0.0;
  }
  if (!(poison == 0)) return -1;
  if (!(most > 0) || rtol >= 1) return 0;
  Interval square = {0, 0};  // max of the diagonal <= sigma_1^2 <= trace, and <= norm of C times max
  const auto enclose = [&] {
    square = {0, 0};
    for (int j = 0; j < d; ++j) {
      square.low = maximum(square.low, z.t[j] * z.t[j]);
      square.high += z.t[j] * z.t[j];
    }
  };
  for (int j = 0; j < d; ++j) z.t[j] = s[j] / most * points.length[j];
  enclose();
  if (rtol == 0 || square.low < kSquarable) {
    sizes_apart(s, points.length, d, z.t);
    for (int j = 0; rtol == 0 && j < d; ++j) z.t[j] = s[j] > 0 && points.length[j] > 0;
    rtol = maximum(rtol, kLeastCounted);
    enclose();
  }
  if (!(square.low > 0)) return 0;
  square.high = minimum(square.high, square.low * points.largest) * (1 + 1e-12);
  Verdict verdict = {0, 0, 0, 0};
  Narrowed sigma = Narrowed::coarse;
  int rank = -1;
  if (points.definite) {
    verdict = judge(points, z, rtol * __builtin_sqrt(square.low), rtol * __builtin_sqrt(square.high));
    if (verdict.decided()) {
      if (effort) ++effort->free_counts;
      return verdict.rank();
    }
    sigma = narrow(points, z, rtol, 0.03, &square, &verdict, &rank, effort);
    if (sigma == Narrowed::decided) return rank;
    rank = count_between(points, z, rtol * __builtin_sqrt(square.low), rtol * __builtin_sqrt(square.high), verdict,
                         effort);
    if (rank >= 0) return rank;
  }
  if (sigma == Narrowed::coarse) sigma = narrow(points, z, rtol, 1e-9, &square, &verdict, &rank, effort);
  if (sigma == Narrowed::decided) return rank;
  const double tau = rtol * __builtin_sqrt(0.5 * (square.low + square.high));
  if (points.definite) return count_at(points, z, tau, effort);
  if (effort) ++effort->singular_routes;
  return count_singular(points, z, tau);
}

}  // namespace fs
