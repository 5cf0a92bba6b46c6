// Owns feature sparsity of dense networks on a GPU: activations, correlations and merging, a network a block.
//
// The rule is that of core/metrics/feature_sparsity.h. A thread forms the activations of a sample, then centres and
// scales those of a unit; a warp takes a unit and compares it with 32 later ones at a time, until its vote says that
// one of them is a copy. Activations lie as columns [h, LD] of the samples, LD odd, so that the lanes of a warp read
// from different banks. Rows and columns whose squares could leave the range of float64 are scaled first.
//
// Spec: shape(), SAMPLES, layer(i) of the LAYERS measured and within(i), the relative deviation up to which a unit of
// it is constant, NORMALISE, WORK (doubles), SHARED (whether they lie in shared memory).
#pragma once
#include "../../core/metrics/feature_sparsity.h"
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

  static_assert(WORK == Spec::WORK, "fastsgd/measure sets aside something else");

  const MetricLaunch& job;
  double *sums, *work;

  FS_DEVICE explicit Sparsity(const MetricLaunch& job_) : job(job_) {
    FS_DYN_SHARED(double, shared);
    sums = shared;
    work = Spec::SHARED ? shared + SUMS : job.scratch + blockIdx.x * job.each;
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

  // Largest |x| of `count` numbers, `step` apart; not finite if one of them is not.
  FS_DEVICE static double largest(const double* x, int count, int step) {
    double most = 0;
    for (int k = 0; k < count; ++k) most = __builtin_fabs(x[k * step]) <= most ? most : __builtin_fabs(x[k * step]);
    return most;
  }
  // Scales `count` numbers, `step` apart, to order one; what is positive stays so. Whether they are finite.
  FS_DEVICE static bool to_order_one(double* x, int count, int step) {
    const double most = largest(x, count, step);
    if (!(most < __builtin_inf())) return false;
    int power = 0;
    if (most > 0) (void)__builtin_frexp(most, &power);
    for (int k = 0; k < count; ++k) {
      const double y = __builtin_scalbn(x[k * step], -power);
      x[k * step] = x[k * step] > 0 && y == 0 ? 0x1p-1074 : y;
    }
    return true;
  }
  FS_DEVICE static double squared_length(const double* x, int count, int step) {
    double squares = 0;
    for (int k = 0; k < count; ++k) squares = fma1(x[k * step], x[k * step], squares);
    return squares;
  }

  // Row i of Phi [N, h] to unit length, if asked for; whether it is finite.
  FS_DEVICE bool scale_row(double* phi, int h, int i) {
    using namespace sparsity_detail;
    double squares = squared_length(phi + i, h, LD);
    if (!Spec::NORMALISE) return squares < __builtin_inf() || largest(phi + i, h, LD) < __builtin_inf();
    if (!(squares > kSmall && squares < kLarge)) {
      if (!to_order_one(phi + i, h, LD)) return false;
      squares = squared_length(phi + i, h, LD);
    }
    if (squares > 0) {
      const double inverse = 1 / sqrt1(squares);
      for (int u = 0; u < h; ++u) phi[u * LD + i] *= inverse;
    }
    return true;
  }
  // Takes `mean` off a column; its squares.
  FS_DEVICE static double centre(double* x, double mean) {
    double squares = 0;
    for (int i = 0; i < N; ++i) x[i] -= mean, squares = fma1(x[i], x[i], squares);
    return squares;
  }
  // Centres a unit's column and scales it to unit length, one that is constant but for rounding or never positive to
  // zero; returns how often it was positive.
  FS_DEVICE static double scale_column(double* x, double within) {
    using namespace sparsity_detail;
    double sum = 0, count = 0, most = 0;
    for (int i = 0; i < N; ++i) {
      const double size = __builtin_fabs(x[i]);
      sum += x[i], count += x[i] > 0, most = size > most ? size : most;
    }
    if (count > 0 && !(most > kSquarable && most * kSquarable < 1)) {
      to_order_one(x, N, 1);
      sum = 0;
      for (int i = 0; i < N; ++i) sum += x[i];
    }
    const double mean = sum * (1.0 / N), level = N * (mean * mean);
    double squares = centre(x, mean);
    if (squares < kSettled * level) {
      double rest = 0;
      for (int i = 0; i < N; ++i) rest += x[i];
      squares = centre(x, rest * (1.0 / N));
    }
    const double scale = count > 0 && squares > within * within * level ? 1 / sqrt1(squares) : 0.0;
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

  FS_DEVICE double measure(int l, double within) {  // of layer l
    double* phi = work + column(l);
    const int h = shape().size[l], threads = blockDim.x, me = threadIdx.x;
    double broken = 0, kept = 0;
    for (int i = me; i < N; i += threads) broken += !scale_row(phi, h, i);
    if (block_sum(broken, sums) > 0) return __builtin_nan("");
    double* positive = work;  // [h], when the weights have served
    for (int u = me; u < h; u += threads) positive[u] = scale_column(phi + u * LD, within);
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
        const double value = measure(Spec::layer(q), Spec::within(q));
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
