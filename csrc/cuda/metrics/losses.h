// Owns losses, predictions and norms on a GPU, in float64. Every sum runs in the order of the CPU's kernels, so that
// records have its bits.
//
// Parallel over networks: a thread measures one, or a team of lanes, or a block those that are wide. Points lie in
// shared memory where they fit, but for a block, whose network lies there.
#pragma once
#include "../../core/metrics/norms.h"
#include "../../core/models/relu2.h"
#include "../general.h"
#include "launch.h"

namespace fs {

// out [N, n, o] = h(x_i) of any family.   Spec: LANES (1, or the threads of a block), Model (a Whole), STAGED, SHARED
// (whether a block's weights lie in shared memory, before its activations); X [n, d].
template <class Spec>
FS_DEVICE void predictions(const MetricLaunch& job) {
  using M = typename Spec::Model;
  using V = typename M::V;
  const M model{};
  V out[M::outputs];
  if constexpr (Spec::LANES == 1) {
    const double* X = staged<Spec::STAGED>(job, job.n * job.stride);
    const i64 k = thread_number();
    if (k >= job.N) return;
    V w[M::P], residuals[M::residuals + 1];
    for (int p = 0; p < M::P; ++p) w[p] = V::set(job.W[k * M::P + p]);
    for (i64 i = 0; i < job.n; ++i) {
      model.forward(w, reinterpret_cast<const V*>(X + i * job.stride), residuals, out);
      for (int q = 0; q < M::outputs; ++q) job.out[(k * job.n + i) * M::outputs + q] = out[q].a;
    }
  } else {
    using Tm = Work<double, Spec::LANES>;
    FS_DYN_SHARED(double, shared);
    double *weights = shared + Tm::SLOT, *residuals = weights + Spec::SHARED * M::P;
    for (i64 k = blockIdx.x; k < job.N; k += gridDim.x) {
      const double* w = job.W + k * M::P;
      if (Spec::SHARED) {
        Tm::sync();  // the last network has been read
        for (int p = Tm::first(); p < M::P; p += Tm::step()) weights[p] = w[p];
        w = weights;
      }
      for (i64 i = 0; i < job.n; ++i) {
        model.forward(reinterpret_cast<const V*>(w), reinterpret_cast<const V*>(job.X + i * job.stride),
                      reinterpret_cast<V*>(residuals), out);
        for (int q = Tm::first(); q < M::outputs; q += Tm::step()) job.out[(k * job.n + i) * M::outputs + q] = out[q].a;
      }
    }
  }
}

// out [N] = c / n sum_i (h(x_i) - y_i)^2 of a family of the fused loop.   Spec: L (lanes of a team), model(), STAGED; X
// [n, stride], y [n].
template <class Spec>
FS_DEVICE void mean_losses(const MetricLaunch& job) {
  using Tm = Lanes<double, Spec::L>;
  using V = typename Tm::V;
  constexpr auto model = Spec::template model<Tm>();
  const double *X = staged<Spec::STAGED>(job, job.n * (job.stride + 1)), *y = X + job.n * job.stride;
  const i64 team = thread_number() / Spec::L, k = team < job.N ? team : 0;  // spare teams shadow the first network
  const int lane = threadIdx.x % Spec::L;
  V w[model.rows()], residuals[model.residuals() + 1];
  FS_UNROLL_ROWS
  for (int r = 0; r < model.rows(); ++r) {
    const int p = model.at(r, lane);
    w[r] = V::set(p >= 0 ? job.W[k * model.P() + p] : 0.0);
  }
  V sum = V::set(0);
  FS_NO_UNROLL
  for (i64 i = 0; i < job.n; ++i) {
    const V r = model.value(w, InMemory<Tm>{X + i * job.stride}, residuals) - V::set(y[i]);
    sum = fma(r, r, sum);
  }
  if (lane == 0 && team < job.N) job.out[k] = job.number * sum.a / double(job.n);
}

// out [N] = sum_i (<beta, x_i> - y_i)^2 of betas W [N, D].   Spec: D, STAGED; X [n, D], y [n].
// Squares go into eight partial sums, point i into partial i % 8, as core/metrics/linear_loss.h has it.
template <class Spec>
FS_DEVICE void linear_losses(const MetricLaunch& job) {
  constexpr int D = Spec::D, PARTS = 8;
  const double *X = staged<Spec::STAGED>(job, job.n * (D + 1)), *y = X + job.n * D;
  const i64 k = thread_number();
  if (k >= job.N) return;
  double beta[D], part[PARTS];
  FS_UNROLL_ROWS
  for (int j = 0; j < D; ++j) beta[j] = job.W[k * D + j];
  FS_UNROLL
  for (int a = 0; a < PARTS; ++a) part[a] = 0;
  FS_NO_UNROLL
  for (i64 i = 0; i < job.n; i += PARTS) {  // eight points at a time hide each other's latency
    const double* row[PARTS];
    double h[PARTS];
    FS_UNROLL
    for (int a = 0; a < PARTS; ++a) row[a] = X + (i + a < job.n ? i + a : i) * D, h[a] = 0;
    FS_UNROLL_ROWS
    for (int j = 0; j < D; ++j) {
      FS_UNROLL
      for (int a = 0; a < PARTS; ++a) h[a] = fma1(beta[j], row[a][j], h[a]);
    }
    FS_UNROLL
    for (int a = 0; a < PARTS; ++a) {
      const double r = i + a < job.n ? h[a] - y[i + a] : 0.0;
      part[a] = fma1(r, r, part[a]);
    }
  }
  job.out[k] = ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

// out [N]: measure WHICH of core/metrics/norms.h of parts W [N, 2, D].   Spec: D, WHICH.
template <class Spec>
FS_DEVICE void norms(const MetricLaunch& job) {
  const i64 k = thread_number();
  if (k >= job.N) return;
  const double* u = job.W + k * 2 * Spec::D;
  double all[3];
  diagonal_norms(u, u + Spec::D, Spec::D, job.number, all);
  job.out[k] = all[Spec::WHICH];
}

}  // namespace fs
