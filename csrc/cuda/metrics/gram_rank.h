// Owns Jacobian ranks of dense networks on a GPU: the inertia of the Gram matrix J J^T, in float64.
//
// Parallel over networks and columns: a block counts one network after the other, and its thread j owns row j of J and
// with it column j of the Gram matrix G [n, n], n = outputs * points. Up to 80 rows the column lies in registers,
// beyond that in shared or global memory; no thread ever reads another's column. What threads tell each other goes
// through shared memory: activations and derivatives for G, a vector for each product of Lanczos, and two rows of the
// factor at a time:
//   1. forward and backward at each point; G as core/metrics/dense_jacobian.h says                    n^2 sum_l h_l
//   2. lambda_1 by Lanczos, every step orthogonalised twice against all before                         2 n^2 a step
//   3. H = G - tau = U^T D^-1 U, two pivots between two barriers, growth measured: core/metrics/inertia.h   n^3 / 3
// The contract is that of core/metrics/gram_rank.h. A pivot too near to zero is tried again with tau moved by less
// than the contract allows; what still cannot be certified is -1, and the host counts it, as it does where G is zero,
// not finite, or has lost digits.
//
// Spec: shape(), POINTS, IN_REGISTERS (columns in registers), WORK_SHARED and G_SHARED (where the rest lies), VECTORS
// (most steps of Lanczos).
#pragma once
#include "../../core/metrics/gram_rank.h"
#include "dense_layer.h"
#include "launch.h"

namespace fs {

template <class Spec>
struct GramRank {
  using Passes = DensePasses<Spec>;
  FS_HD static constexpr DenseShape shape() { return Spec::shape(); }
  static constexpr int LAYERS = Passes::LAYERS, OUTPUTS = Passes::OUTPUTS, POINTS = Spec::POINTS, ROWS = Passes::ROWS,
                       P = Passes::P, VECTORS = Spec::VECTORS, LD = ROWS | 1, R = 2, WHOLE = (ROWS + R - 1) / R * R,
                       TOGETHER = 8;  // pivots, rows of G that are formed or changed, at once
  static constexpr bool IN_REGISTERS = Spec::IN_REGISTERS;
  static constexpr int STAGE = IN_REGISTERS ? 16 : WHOLE;  // rows that one loop eliminates

  // Where things lie in the block's work, in doubles.
  FS_HD static constexpr int larger(int a, int b) { return a < b ? b : a; }
  static constexpr int BASIS = P,  // [VECTORS, LD], when activations and derivatives have served
      WORK = larger(Passes::SIZE, P + VECTORS * LD);
  static constexpr int VECTOR = 0, PANEL = VECTOR + WHOLE, MULTIPLIERS = PANEL + R * WHOLE,
                       SUMS = MULTIPLIERS + R * (WHOLE + TOGETHER), ALPHA = SUMS + 32, BETA = ALPHA + VECTORS,
                       DOTS = BETA + VECTORS + 1, SHARED = DOTS + VECTORS;  // always in shared memory

  const MetricLaunch& job;
  double *shared, *work, *G;
  int j, output, point;
  bool mine;
  double diagonal, column[IN_REGISTERS ? WHOLE : 1];

  static_assert(WORK == Spec::WORK && SHARED == Spec::SHARED, "fastsgd/measure sets aside something else");

  FS_DEVICE explicit GramRank(const MetricLaunch& job_) : job(job_), diagonal(0) {
    FS_DYN_SHARED(double, memory);
    double* own = job.scratch + blockIdx.x * job.each;
    shared = memory;
    work = Spec::WORK_SHARED ? memory + SHARED : own;
    G = Spec::G_SHARED ? memory + SHARED + (Spec::WORK_SHARED ? WORK : 0) : own + (Spec::WORK_SHARED ? 0 : WORK);
    j = threadIdx.x, mine = j < ROWS, output = j / POINTS, point = j % POINTS;
  }
  FS_DEVICE double& at(int i) {
    if constexpr (IN_REGISTERS) return column[i];
    else return G[i64(i) * ROWS + j];
  }

  // ---- G

  // sum [r] (+)= sum_k from[k, first + r] from[k, own] over `count` rows of `from` [count, ld].
  FS_DEVICE static void products(const double* from, int count, int ld, int first, int end, int own,
                                 double (&sum)[TOGETHER]) {
    FS_UNROLL
    for (int r = 0; r < TOGETHER; ++r) sum[r] = 0;
    FS_NO_UNROLL
    for (int k = 0; k < count; ++k, from += ld) {
      const double x = from[own];
      FS_UNROLL
      for (int r = 0; r < TOGETHER; ++r) sum[r] = fma1(from[first + r < end ? first + r : end - 1], x, sum[r]);
    }
  }
  FS_DEVICE void gram() {
    const DenseShape s = shape();
    const double* XX = job.X + s.size[0] * POINTS;
    FS_UNROLL_ROWS
    for (int to = 0; to < OUTPUTS; ++to) {
      FS_UNROLL_ROWS
      for (int first = 0; first < POINTS; first += TOGETHER) {
        double sum[TOGETHER] = {};
        FS_UNROLL
        for (int l = 1; l <= LAYERS; ++l) {
          double a[TOGETHER], d[TOGETHER];
          if (l == 1) {
            FS_UNROLL
            for (int r = 0; r < TOGETHER; ++r) a[r] = XX[(first + r < POINTS ? first + r : 0) * POINTS + point];
          } else {
            products(work + Passes::activations(l - 1), s.size[l - 1], POINTS, first, POINTS, point, a);
          }
          if (l < LAYERS)
            products(work + Passes::derivatives(l), s.size[l], ROWS, to * POINTS + first, (to + 1) * POINTS, j, d);
          const double c = s.trained[0][l - 1] ? s.multiplier[l - 1] * s.multiplier[l - 1] : 0.0;
          const double b = s.bias[l - 1] && s.trained[1][l - 1] ? 1.0 : 0.0;
          FS_UNROLL
          for (int r = 0; r < TOGETHER; ++r) {
            const double both = fma1(c, a[r], b);
            if (l < LAYERS) sum[r] = fma1(both, d[r], sum[r]);
            else if (to == output) sum[r] += both;
          }
        }
        FS_UNROLL
        for (int r = 0; r < TOGETHER; ++r)
          if (first + r < POINTS) {
            const int i = to * POINTS + first + r;
            at(i) = sum[r];
            if (i == j) diagonal = sum[r];
          }
      }
    }
  }
  FS_DEVICE void form() {
    if (mine && output == 0) Passes::forward(work, job.X, point);
    if (OUTPUTS > 1) __syncthreads();
    if (mine) Passes::backward(work, j);
    __syncthreads();
    if (mine) gram();
    __syncthreads();
  }

  // ---- lambda_1

  // w -= Q Q^T w for the vectors Q [count] so far, w [n] a number a thread; returns the last vector's coefficient.
  FS_DEVICE double orthogonalise(double& w, int count) {
    const double* basis = work + BASIS;
    if (mine) shared[VECTOR + j] = w;
    __syncthreads();
    if (j < count) {
      double even = 0, odd = 0;
      const double* row = basis + j * LD;
      for (int i = 0; i + 1 < ROWS; i += 2)
        even = fma1(row[i], shared[VECTOR + i], even), odd = fma1(row[i + 1], shared[VECTOR + i + 1], odd);
      if (ROWS % 2) even = fma1(row[ROWS - 1], shared[VECTOR + ROWS - 1], even);
      shared[DOTS + j] = even + odd;
    }
    __syncthreads();
    if (mine)
      for (int i = 0; i < count; ++i) w = fma1(-shared[DOTS + i], basis[i * LD + j], w);
    return shared[DOTS + count - 1];
  }

  // What lambda_1 can be, no wider than `width`; where that takes more than VECTORS steps, wider.
  FS_DEVICE gram_rank_detail::Interval largest(double trace, double width) {
    double *basis = work + BASIS, *alpha = shared + ALPHA, *beta = shared + BETA, *sums = shared + SUMS;
    symmetric::Lanczos z = {nullptr, ROWS, ROWS, 0, nullptr, alpha, beta, nullptr, 0, 0};
    double v = mine ? symmetric::start_entry(j) : 0;
    v *= 1 / sqrt1(block_sum(v * v, sums));
    for (int next = 4;;) {
      const double* q = basis + z.k * LD;
      if (mine) basis[z.k * LD + j] = v;
      __syncthreads();
      double part[4] = {}, w = 0;
      if (mine) {
        FS_UNROLL_ROWS
        for (int i = 0; i < ROWS; i += 4) {
          FS_UNROLL
          for (int a = 0; a < 4; ++a)
            if (i + a < ROWS) part[a] = fma1(at(i + a), q[i + a], part[a]);
        }
        w = (part[0] + part[2]) + (part[1] + part[3]);
      }
      double own = 0;
      FS_NO_UNROLL
      for (int pass = 0; pass < 2; ++pass) own += orthogonalise(w, z.k + 1);
      const double norm = sqrt1(block_sum(w * w, sums));
      const double first = z.k ? alpha[0] : own;
      ++z.k;
      const bool more = z.k < ROWS && norm > 1e-14 * symmetric::maximum(z.top, first);
      if (j == 0) alpha[z.k - 1] = own, beta[z.k] = more ? norm : 0.0;
      __syncthreads();
      if (!more || z.k >= next || z.k == VECTORS) {
        next = z.k + 1 + z.k / 4;
        symmetric::largest_ritz(z);
        const auto found = gram_rank_detail::enclosure(z, more, trace);
        if (!more || found.high - found.low <= width * found.low || z.k == VECTORS) return found;
      }
      v = mine ? w * (1 / norm) : 0;
    }
  }

  // ---- inertia

  // Row k + i of this thread's column when k rows are eliminated. In registers the rows that are left begin at the
  // first, so that one piece of code serves many steps: all steps one after the other exceed the instruction caches.
  FS_DEVICE double& left(int k, int i) {
    if constexpr (IN_REGISTERS) return column[i];
    else return at(k + i);
  }

  // Positive eigenvalues of G - shift, -1 where rounding could have moved more than `allowed`; G is overwritten.
  FS_DEVICE int positive(double shift, double allowed) {
    double *panel = shared + PANEL, *multipliers = shared + MULTIPLIERS, moved = 0;
    const int last = (j | 31) < ROWS ? j | 31 : ROWS - 1;  // of this warp's columns: rows behind it are not needed
    int count = 0;
    FS_UNROLL_ROWS
    for (int done = 0; done < ROWS; done += STAGE) {
      const int end = done + STAGE < ROWS ? done + STAGE : ROWS;
      FS_NO_UNROLL
      for (int k = done; k < end; k += R) {
        double p[R], block[R][R], inverse[R], l[R][R];
        FS_UNROLL
        for (int r = 0; r < R; ++r) {
          p[r] = 0;
          if (k + r < ROWS && mine) panel[r * WHOLE + j] = p[r] = left(k, r);
        }
        __syncthreads();
        FS_UNROLL
        for (int r = 0; r < R; ++r) {  // the diagonal block, by every thread for itself
          FS_UNROLL
          for (int c = r; c < R; ++c)
            block[r][c] = k + c < ROWS ? panel[r * WHOLE + k + c] - (r == c ? shift : 0.0) : r == c ? -1.0 : 0.0;
        }
        FS_UNROLL
        for (int c = 0; c < R; ++c) {
          count += block[c][c] > 0;
          inverse[c] = 1 / block[c][c];
          FS_UNROLL
          for (int r = c + 1; r < R; ++r) {
            l[c][r] = -block[c][r] * inverse[c];
            FS_UNROLL
            for (int t = r; t < R; ++t) block[r][t] = fma1(l[c][r], block[c][t], block[r][t]);
          }
        }
        FS_UNROLL
        for (int r = 0; r < R; ++r) {  // this thread's column of the rows
          FS_UNROLL
          for (int c = 0; c < r; ++c) p[r] = fma1(l[c][r], p[c], p[r]);
          const double m = -p[r] * inverse[r];
          if (mine) multipliers[j * R + r] = m;
          if (k + r < j) moved += __builtin_fabs(m * p[r]);
        }
        __syncthreads();
        if (!mine) continue;
        FS_UNROLL_ROWS
        for (int first = R; first < WHOLE - done; first += TOGETHER) {
          if (k + first > last) break;
          FS_UNROLL
          for (int i = first; i < first + TOGETHER; ++i)
            if (IN_REGISTERS ? i < WHOLE - done : k + i < ROWS) {
              double x = left(k, i);
              FS_UNROLL
              for (int r = 0; r < R; ++r) x = fma1(multipliers[(k + i) * R + r], p[r], x);
              left(k + R, i - R) = x;
            }
        }
      }
    }
    const bool unsure = mine && !(4 * 0x1p-53 * moved <= allowed);
    return block_sum(unsure, shared + SUMS) > 0 ? -1 : count;
  }

  FS_DEVICE int rank(double rtol) {
    const double factor = gram_rank_factor(rtol);
    double tau = 0;
    int count = -1;
    FS_NO_UNROLL
    for (int attempt = 0; attempt < 3 && count < 0; ++attempt) {
      form();
      if (attempt == 0) {
        const double trace = block_sum(mine ? diagonal : 0.0, shared + SUMS);
        if (!(trace > gram_rank_detail::kSmallest && trace < gram_rank_detail::kLargest)) return -1;
        const auto first = largest(trace, 0.1 * factor);
        if (!(first.high - first.low <= 0.1 * factor * first.low)) return -1;
        tau = rtol * rtol * 0.5 * (first.low + first.high);
      }
      const double moved = attempt == 0 ? 0.0 : attempt == 1 ? 0.3 : -0.3;
      count = positive(tau * (1 + moved * factor), 0.5 * factor * tau);
    }
    return count;
  }

  FS_DEVICE void run() {
    for (i64 k = blockIdx.x; k < job.N; k += gridDim.x) {
      for (int i = threadIdx.x; i < P; i += blockDim.x) work[i] = job.W[k * P + i];
      __syncthreads();
      const int count = rank(job.number);
      if (j == 0) job.out[k] = count;
      __syncthreads();
    }
  }
};

template <class Spec>
FS_DEVICE void gram_ranks(const MetricLaunch& job) {
  GramRank<Spec>(job).run();
}

}  // namespace fs
