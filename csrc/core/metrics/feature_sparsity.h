// Owns the feature sparsity coefficient of one layer's activations: the share of non-zeros in units that are no copies.
//
// Phi [n, h], rows scaled to unit length if asked for. A unit that is never positive goes; unit i goes if a later
// living unit j > i has |rho_ij| > tau over the samples. Correlations are dot products of centred columns of unit
// length, registers of units j at a time. They are formed a chunk of samples after the other: what is left of two
// columns adds at most the product of its lengths, so that most pairs are settled by the first chunks. Columns of dead
// and constant units are zero, so that they correlate with nothing; a unit is constant if its deviation, |phi - mean|,
// is at most `within` of |phi| (fastsgd/spec/constant.py).
// Answers are NaN where something is not finite, or where a square could leave the range of float64: the caller scales
// such activations by powers of two, which changes no answer, and asks again.
#pragma once
#include "../math.h"

namespace fs {

namespace sparsity_detail {

constexpr double kSmall = 1e-280, kLevel = 1e-40;  // squares from which on none of their terms was lost
constexpr double kLarge = 1e30;                    // squared length of a row; what it divides stays above zero
constexpr double kSquarable = 1e-100;              // largest size of a column from which on it may be squared
constexpr double kSettled = 1e-16;                 // squared relative deviation from which the mean is good enough

// Bit k is set where lane k of a centred column [n], `stride` registers apart, is too small to be squared.
// squares: of the column; level: n mean^2
template <int W>
FS_HD u32 small(Vec<double, W> squares, Vec<double, W> level) {
  using V = Vec<double, W>;
  return above(V::set(kSmall) - fma(V::set(kLevel), level, squares));
}

// `constant` of lanes that come near: these columns are centred once more, since the rounding of a mean of n numbers is
// n eps of it; squares: theirs, anew.
template <int W>
FS_FN __attribute__((noinline)) u32 settle(Vec<double, W>* column, i64 stride, int n, u32 near, Vec<double, W> limit,
                                           Vec<double, W>* squares) {
  using V = Vec<double, W>;
  V rest = V::set(0);
  for (int i = 0; i < n; ++i) rest = rest + column[i * stride];
  rest = rest * V::set(1.0 / n);
  for (int k = 0; k < W; ++k)
    if (!(near >> k & 1)) reinterpret_cast<double*>(&rest)[k] = 0;
  *squares = V::set(0);
  for (int i = 0; i < n; ++i) {
    V& x = column[i * stride];
    x = x - rest, *squares = fma(x, x, *squares);
  }
  return near & ~above(*squares - limit);
}

// Bit k is set where lane k of a column is constant but for rounding: its squares are at most within^2 level.
template <int W>
FS_HD u32 constant(Vec<double, W>* column, i64 stride, int n, Vec<double, W>& squares, Vec<double, W> level,
                   double within) {
  using V = Vec<double, W>;
  const double limit = within * within;
  const u32 near = above(V::set(limit < kSettled ? kSettled : limit) * level - squares);
  if (__builtin_expect(!near, 1)) return 0;
  V anew = squares;
  const u32 still = settle(column, stride, n, near, V::set(limit) * level, &anew);
  squares = anew;
  return still;
}

}  // namespace sparsity_detail

template <int W>
struct FeatureSparsity {
  using V = Vec<double, W>;
  static constexpr int TOGETHER = 4;  // registers of units j that share a load of unit i
  static constexpr int CHUNK = 16;    // samples
  int n, h;
  double tau, within;
  bool normalise;

  int registers() const { return (h + W - 1) / W; }
  int chunks() const { return (n + CHUNK - 1) / CHUNK; }
  size_t scratch() const { return size_t(n + chunks() + 3) * registers(); }  // registers

  // phi [n, h] of one network; scratch of `scratch` registers.
  double operator()(const double* phi, V* block) const {
    using namespace sparsity_detail;
    const int R = registers();
    V *mean = block, *positive = mean + R, *scale = positive + R, *column = scale + R;  // column [n, R]
    V* rest = column + size_t(n) * R;                                                   // [chunks, R]
    if (!read_rows(phi, mean, positive, column)) return __builtin_nan("");
    const V zero = V::set(0), one = V::set(1), share = V::set(1.0 / n);
    for (int r = 0; r < R; ++r) mean[r] = mean[r] * share, scale[r] = zero;
    for (int i = 0; i < n; ++i)
      for (int r = 0; r < R; ++r) {
        V& x = column[size_t(i) * R + r];
        x = x - mean[r], scale[r] = fma(x, x, scale[r]);
      }
    for (int r = 0; r < R; ++r) {
      const V level = V::set(n) * (mean[r] * mean[r]);
      if (small(scale[r], level) & above(positive[r])) return __builtin_nan("");
      const u32 still = constant(column + r, R, n, scale[r], level, within);
      scale[r] = gate(positive[r], gate(scale[r], one / sqrt(scale[r])));
      for (int k = 0; still >> k; ++k)
        if (still >> k & 1) reinterpret_cast<double*>(scale + r)[k] = 0;
    }
    for (int c = 0; c < chunks(); ++c)
      for (int r = 0; r < R; ++r) rest[c * R + r] = zero;
    for (int i = 0; i < n; ++i)
      for (int r = 0; r < R; ++r) {
        V &x = column[size_t(i) * R + r], &size = rest[i / CHUNK * R + r];
        x = x * scale[r], size = fma(x, x, size);
      }
    for (int r = 0; r < R; ++r) {  // rest[c]: length of the column from chunk c on
      V sum = zero;
      for (int c = chunks() - 1; c >= 0; --c) sum = sum + rest[c * R + r], rest[c * R + r] = sqrt(sum);
    }
    double kept = 0;
    for (int unit = 0; unit < h; ++unit) {
      const double count = lane(positive, unit);
      if (count > 0 && !(lane(scale, unit) > 0 && merges(unit, column, rest))) kept += count;
      FS_WORKED(i64(n) * R);
    }
    return kept / (double(n) * h);
  }

 private:
  static double lane(const V* row, int unit) { return reinterpret_cast<const double*>(row)[unit]; }

  V read(const double* row, int r) const {
    if ((r + 1) * W <= h) return V::loadu(row + r * W);
    alignas(64) double left[W] = {};
    for (int k = r * W; k < h; ++k) left[k - r * W] = row[k];
    return V::load(left);
  }

  // Rows to columns, sums over samples to `mean`, counts of positives; false if a length is out of range.
  bool read_rows(const double* phi, V* mean, V* positive, V* column) const {
    const int R = registers();
    const V zero = V::set(0), one = V::set(1);
    for (int r = 0; r < R; ++r) mean[r] = positive[r] = zero;
    for (int i = 0; i < n; ++i) {
      V *row = column + size_t(i) * R, squares = zero;
      for (int r = 0; r < R; ++r) row[r] = read(phi + size_t(i) * h, r), squares = fma(row[r], row[r], squares);
      double length = 0;
      for (int k = 0; k < W; ++k) length += squares[k];
      if (!(length < sparsity_detail::kLarge)) return false;
      if (normalise && length < sparsity_detail::kSmall && !zero_row(row)) return false;
      const V inverse = V::set(normalise && length > 0 ? 1 / __builtin_sqrt(length) : 1);
      for (int r = 0; r < R; ++r) {
        row[r] = row[r] * inverse;
        mean[r] = mean[r] + row[r], positive[r] = positive[r] + gate(row[r], one);
      }
    }
    return true;
  }

  bool zero_row(const V* row) const {
    u32 other = 0;
    for (int r = 0; r < registers(); ++r) other |= beyond(row[r], 0.0);
    return !other;
  }

  // Whether a later unit is a copy of `unit`.
  bool merges(int unit, const V* column, const V* rest) const {
    const int R = registers();
    int r = (unit + 1) / W;
    u32 later = ~0u << (unit + 1) % W;  // in the first register, units up to this one do not count
    for (; r + TOGETHER <= R; r += TOGETHER, later = ~0u)
      if (any<TOGETHER>(unit, r, later, column, rest)) return true;
    for (; r < R; ++r, later = ~0u)
      if (any<1>(unit, r, later, column, rest)) return true;
    return false;
  }
  template <int M>
  bool any(int unit, int r, u32 later, const V* column, const V* rest) const {
    const size_t R = registers();
    V rho[M];
    FS_UNROLL
    for (int q = 0; q < M; ++q) rho[q] = V::set(0);
    for (int c = 0, i = 0; i < n; ++c) {
      const int end = i + CHUNK < n ? i + CHUNK : n;
      for (; i < end; ++i) {
        const V x = V::set(lane(column + i * R, unit));
        FS_UNROLL
        for (int q = 0; q < M; ++q) rho[q] = fma(x, column[i * R + r + q], rho[q]);
      }
      if (i == n) break;
      const V own = V::set(lane(rest + (c + 1) * R, unit));
      u32 open = 0;
      FS_UNROLL
      for (int q = 0; q < M; ++q)
        open |= beyond(fma(own, rest[(c + 1) * R + r + q], abs(rho[q])), tau * (1 - 1e-9)) & (q ? ~0u : later);
      if (!open) return false;
    }
    u32 copies = 0;
    FS_UNROLL
    for (int q = 0; q < M; ++q) copies |= beyond(rho[q], tau) & (q ? ~0u : later);
    return copies;
  }
};

// The same for W small networks at once, one a lane: columns lie one after the other, [h, n] registers.
template <int W>
struct FeatureSparsityLanes {
  using V = Vec<double, W>;
  static constexpr u32 ALL = (1u << W) - 1;
  static constexpr int OWN = W == 8 ? 3 : 2, OTHERS = W == 8 ? 6 : 5;  // units whose correlations are formed together
  int n, h;
  double tau, within;
  bool normalise;

  size_t scratch() const { return size_t(h) * (n + 1) + n; }  // registers

  // phi: W networks' activations [n, h], `size` numbers apart; out [W].
  void operator()(const double* phi, i64 size, V* block, double* out) const {
    V *column = block, *positive = column + size_t(h) * n, *inverse = positive + h;
    u32 broken = transposed(phi, size, column, inverse);
    int j = 0;
    for (; j + 4 <= h; j += 4) broken |= standardise<4>(column + size_t(j) * n, inverse, positive + j);
    for (; j < h; ++j) broken |= standardise<1>(column + size_t(j) * n, inverse, positive + j);
    for (int g = 0; g < W; ++g) out[g] = 0;
    j = 0;
    for (; j + OWN <= h; j += OWN) count<OWN>(j, column, positive, out);
    for (; j < h; ++j) count<1>(j, column, positive, out);
    for (int g = 0; g < W; ++g) out[g] = broken >> g & 1 ? __builtin_nan("") : out[g] / (double(n) * h);
  }

 private:
  // Columns of all networks, and what scales each sample; a bit for each network with a length out of range.
  u32 transposed(const double* phi, i64 size, V* column, V* inverse) const {
    const V one = V::set(1);
    const int count = n * h;
    u32 broken = 0;
    int i = 0, j = 0;
    V squares = V::set(0), enough = one;  // zero where a row is small, or zero
    for (int e = 0; e < count; e += W) {
      V r[W];
      for (int g = 0; g < W; ++g) {
        if (e + W <= count) {
          r[g] = V::loadu(phi + g * size + e);
        } else {
          alignas(64) double left[W] = {};
          for (int k = e; k < count; ++k) left[k - e] = phi[g * size + k];
          r[g] = V::load(left);
        }
      }
      transpose<W / 2>(r);
      for (int k = 0; k < W && e + k < count; ++k) {
        column[size_t(j) * n + i] = r[k];
        squares = fma(r[k], r[k], squares);
        if (++j < h) continue;
        broken |= beyond(squares, sparsity_detail::kLarge);
        const V above_small = squares - V::set(sparsity_detail::kSmall);
        enough = gate(above_small, enough);
        inverse[i++] = normalise ? gate(above_small, one / sqrt(squares)) : one;
        j = 0, squares = V::set(0);
      }
    }
    return normalise && ALL & ~above(enough) ? broken | small_rows(column, inverse) : broken;
  }
  // A bit for each network with a row that is too small to be squared, but not zero.
  u32 small_rows(const V* column, const V* inverse) const {
    u32 found = 0;
    for (int i = 0; i < n; ++i) {
      const u32 enough = beyond(inverse[i], 0.0);
      if (enough == ALL) continue;
      u32 other = 0;
      for (int j = 0; j < h; ++j) other |= beyond(column[size_t(j) * n + i], 0.0);
      found |= other & ~enough;
    }
    return found;
  }
  // M columns [M, n], samples scaled: centred, of length one, zero if never positive; counts of positives [M]. A bit
  // for each network with a column out of range.
  template <int M>
  u32 standardise(V* column, const V* inverse, V* positive) const {
    using namespace sparsity_detail;
    u32 broken = 0;
    const V zero = V::set(0), one = V::set(1), share = V::set(1.0 / n);
    V sum[M], count[M], squares[M];
    FS_UNROLL
    for (int a = 0; a < M; ++a) sum[a] = count[a] = squares[a] = zero;
    for (int i = 0; i < n; ++i) {
      FS_UNROLL
      for (int a = 0; a < M; ++a) {
        V& x = column[size_t(a) * n + i];
        x = x * inverse[i], sum[a] = sum[a] + x, count[a] = count[a] + gate(x, one);
      }
    }
    FS_UNROLL
    for (int a = 0; a < M; ++a) sum[a] = sum[a] * share, positive[a] = count[a];
    for (int i = 0; i < n; ++i) {
      FS_UNROLL
      for (int a = 0; a < M; ++a) {
        const V x = column[size_t(a) * n + i] - sum[a];
        column[size_t(a) * n + i] = x, squares[a] = fma(x, x, squares[a]);
      }
    }
    FS_UNROLL
    for (int a = 0; a < M; ++a) {
      const V level = V::set(n) * (sum[a] * sum[a]);
      broken |= small(squares[a], level) & above(count[a]);
      const u32 still = constant(column + size_t(a) * n, 1, n, squares[a], level, within);
      V scale = gate(count[a], gate(squares[a], one / sqrt(squares[a])));
      for (int g = 0; still >> g; ++g)
        if (still >> g & 1) reinterpret_cast<double*>(&scale)[g] = 0;
      for (int i = 0; i < n; ++i) column[size_t(a) * n + i] = column[size_t(a) * n + i] * scale;
    }
    return broken;
  }
  // Adds to out [W] the positive entries of those of the units j .. j + J that no later unit is a copy of.
  template <int J>
  void count(int j, const V* column, const V* positive, double* out) const {
    u32 bits[J];  // one for each network in which the unit goes, or never was positive
    for (int a = 0; a < J; ++a) bits[a] = ALL & ~beyond(positive[j + a], 0.0);
    const auto open = [&] {
      u32 all = ALL;
      for (int a = 0; a < J; ++a) all &= bits[a];
      return all != ALL;
    };
    int k = j + 1;
    for (; k + OTHERS <= h && open(); k += OTHERS) copies<J, OTHERS>(j, k, column, bits);
    for (; k + 3 <= h && open(); k += 3) copies<J, 3>(j, k, column, bits);
    for (; k < h && open(); ++k) copies<J, 1>(j, k, column, bits);
    for (int a = 0; a < J; ++a)
      for (int g = 0; g < W; ++g) out[g] += bits[a] >> g & 1 ? 0 : positive[j + a][g];
  }
  // Correlations of J units with K others, all in registers.
  template <int J, int K>
  void copies(int j, int k, const V* column, u32 (&bits)[J]) const {
    const V *own = column + size_t(j) * n, *others = column + size_t(k) * n;
    V rho[J][K];
    FS_UNROLL
    for (int a = 0; a < J; ++a) {
      FS_UNROLL
      for (int q = 0; q < K; ++q) rho[a][q] = V::set(0);
    }
    for (int i = 0; i < n; ++i) {
      V x[J];
      FS_UNROLL
      for (int a = 0; a < J; ++a) x[a] = own[size_t(a) * n + i];
      FS_UNROLL
      for (int q = 0; q < K; ++q) {
        const V y = loaded(others[size_t(q) * n + i]);
        FS_UNROLL
        for (int a = 0; a < J; ++a) rho[a][q] = fma(x[a], y, rho[a][q]);
      }
    }
    FS_UNROLL
    for (int a = 0; a < J; ++a) {
      FS_UNROLL
      for (int q = 0; q < K; ++q)
        if (k + q > j + a) bits[a] |= beyond(rho[a][q], tau);
    }
  }
};

}  // namespace fs
