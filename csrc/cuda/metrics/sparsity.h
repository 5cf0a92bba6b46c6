// Owns feature sparsity of dense networks on a GPU: activations, correlations and merging, a network a block.
//
// The rule is that of core/metrics/feature_sparsity.h. A thread forms the activations of a sample, then centres and
// scales those of a unit; a warp takes a unit and compares it with 32 later ones at a time, until its vote says that
// one of them is a copy. Activations lie as columns [h, LD] of the samples, LD odd, so that the lanes of a warp read
// from different banks.
//
// Spec: shape(), SAMPLES, layer(i) of the LAYERS measured, NORMALISE, WORK (doubles), SHARED (whether they lie in
// shared memory).
#pragma once
#include "dense_layer.h"
#include "launch.h"

namespace fs {

template <class Spec>
struct Sparsity {
  using One = Vec<double, 1>;
  FS_HD static constexpr DenseShape shape() { return Spec::shape(); }
  static constexpr int P = shape().P(), N = Spec::SAMPLES, LD = N | 1, TOP = shape().layers - 1;
  FS_HD static constexpr int units() {
    int count = 0;
    for (int l = 1; l <= TOP; ++l) count += shape().size[l];
    return count;
  }
  FS_HD static constexpr int column(int l) {  // activations [h_l, LD] of layers 1 ..
    int at = P;
    for (int k = 1; k < l; ++k) at += shape().size[k] * LD;
    return at;
  }
  static constexpr int WORK = P + units() * LD, SUMS = 32;  // doubles; the sums lie in shared memory

  static_assert(WORK == Spec::WORK, "fastsgd/cuda/metric_programs.py sets aside something else");

  const MetricLaunch& job;
  double *sums, *work;

  FS_DEVICE explicit Sparsity(const MetricLaunch& job_) : job(job_) {
    FS_DYN_SHARED(double, room);
    sums = room;
    work = Spec::SHARED ? room + SUMS : job.scratch + blockIdx.x * job.each;
  }

  FS_DEVICE void forward(int i) {  // all layers at sample i
    const DenseShape s = shape();
    FS_UNROLL
    for (int l = 1; l <= TOP; ++l) {
      const double* from = l > 1 ? work + column(l - 1) + i : job.X + i;
      forward_layer(s, l, work, from, l > 1 ? LD : N, [&](int u, double z, double a, double) {
        work[column(l) + u * LD + i] = s.activation == Activation::RELU ? a + (z - z) : a;  // NaN stays
      });
    }
  }

  // Row i of Phi [N, h] to unit length, if asked for; whether it is finite.
  FS_DEVICE bool scale_row(double* phi, int h, int i) {
    double squares = 0;
    for (int u = 0; u < h; ++u) squares = fma1(phi[u * LD + i], phi[u * LD + i], squares);
    if (Spec::NORMALISE && squares > 0) {
      const double inverse = 1 / sqrt1(squares);
      for (int u = 0; u < h; ++u) phi[u * LD + i] *= inverse;
    }
    return squares < __builtin_inf();
  }
  // Centres a unit's column and scales it to unit length, one that is constant or never positive to zero; returns how
  // often it was positive.
  FS_DEVICE static double scale_column(double* x) {
    double sum = 0, count = 0, squares = 0;
    bool constant = true;  // and no rounding of its mean may make it look otherwise
    for (int i = 0; i < N; ++i) sum += x[i], count += x[i] > 0, constant &= x[i] == x[0];
    sum *= 1.0 / N;
    for (int i = 0; i < N; ++i) x[i] -= sum, squares = fma1(x[i], x[i], squares);
    const double scale = count > 0 && squares > 0 && !constant ? 1 / sqrt1(squares) : 0.0;
    for (int i = 0; i < N; ++i) x[i] *= scale;
    return count;
  }
  // Whether a later unit is a copy of `unit`; the lanes of a warp together.
  FS_DEVICE bool merges(const double* phi, int h, int unit) {
    const double* own = phi + unit * LD;
    const int lane = threadIdx.x % 32;
    for (int first = unit + 1; first < h; first += 32) {
      const int other = first + lane < h ? first + lane : unit;
      double rho = 0;
      for (int i = 0; i < N; ++i) rho = fma1(own[i], phi[other * LD + i], rho);
      if (__any_sync(WARP, first + lane < h && beyond(One::set(rho), job.number))) return true;
    }
    return false;
  }

  FS_DEVICE double measure(int l) {  // of layer l
    double* phi = work + column(l);
    const int h = shape().size[l], threads = blockDim.x, me = threadIdx.x;
    double broken = 0, kept = 0;
    for (int i = me; i < N; i += threads) broken += !scale_row(phi, h, i);
    if (block_sum(broken, sums) > 0) return __builtin_nan("");
    double* positive = work;  // [h], when the weights have served
    for (int u = me; u < h; u += threads) positive[u] = scale_column(phi + u * LD);
    __syncthreads();
    for (int unit = me / 32; unit < h; unit += threads / 32)
      if (positive[unit] > 0 && !merges(phi, h, unit) && me % 32 == 0) kept += positive[unit];
    return block_sum(kept, sums) / (double(N) * h);
  }

  FS_DEVICE void run() {
    for (i64 k = blockIdx.x; k < job.N; k += gridDim.x) {
      for (int i = threadIdx.x; i < P; i += blockDim.x) work[i] = job.W[k * P + i];
      __syncthreads();
      for (int i = threadIdx.x; i < N; i += blockDim.x) forward(i);
      __syncthreads();
      FS_UNROLL
      for (int q = 0; q < Spec::LAYERS; ++q) {
        const double value = measure(Spec::layer(q));
        if (threadIdx.x == 0) job.out[k * Spec::LAYERS + q] = value;
        __syncthreads();
      }
    }
  }
};

template <class Spec>
FS_DEVICE void feature_sparsity(const MetricLaunch& job) {
  Sparsity<Spec>(job).run();
}

}  // namespace fs
