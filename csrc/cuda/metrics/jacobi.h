// Owns singular values of Jacobians on a GPU: core/metrics/jacobi.h on a block of warps, for dense and diagonal
// networks.
//
// Parallel over networks, rows and entries: a block takes one network after the other. Rows of the QR factorisation are
// shared out among its warps, entries of a row among the lanes of a warp; the rotations, each of which needs the last,
// are the first warp's. A network's matrices lie in shared memory, or in the block's own part of global memory, read in
// whole lines. A sum has the 16 partial sums of the CPU, in 16 lanes, so that results have its bits.
//
// Spec: THREADS (of the block), WORK (doubles), SHARED (whether they lie in shared memory), and what `Values` says.
#pragma once
#include "../../core/metrics/diagonal_rank.h"
#include "../../core/metrics/jacobi.h"
#include "dense_layer.h"
#include "launch.h"

namespace fs {

// The worker of core/metrics/jacobi.h that is a block of WARPS warps.
template <int WARPS>
struct Warps {
  using V = Vec<double, 1>;
  static constexpr int COUNT = 1, LANES = jacobi::PARTIALS;
  int lane, warp;

  FS_DEVICE Warps() : lane(threadIdx.x % 32), warp(threadIdx.x / 32) {}
  template <class F>
  FS_DEVICE void rows(int first, int end, F f) const {
    for (int j = first + warp; j < end; j += WARPS) f(j);
    barrier();
  }
  template <class F>
  FS_DEVICE void sweep(int from, int to, F f) const {
    if (lane < LANES)
      for (int j = from + lane; j < to; j += LANES) f(j, 0);
  }
  template <class F>
  FS_DEVICE void entries(int from, int to, F f) const {
    for (int j = from + lane; j < to; j += 32) f(j);
    __syncwarp();
  }
  template <class F>
  FS_DEVICE void one(F f) const {
    __syncwarp();
    if (lane == 0) f();
    __syncwarp();
  }
  FS_DEVICE void barrier() const { __syncthreads(); }
  FS_DEVICE double total(V (&part)[COUNT]) const {
    __syncwarp();
    double x = part[0].a;
    FS_UNROLL
    for (int half = LANES / 2; half > 0; half /= 2) x = x + __shfl_xor_sync(WARP, x, half);
    return __shfl_sync(WARP, x, 0);
  }
  FS_DEVICE double greatest(double most) const {
    FS_UNROLL
    for (int half = 16; half > 0; half /= 2) most = jacobi::larger(most, __shfl_xor_sync(WARP, most, half));
    return most;
  }
  template <class Key>
  FS_DEVICE int first_best(int first, int end, Key key) const {
    double best = -__builtin_inf();
    int at = end;
    for (int j = first + lane; j < end; j += 32) {
      const double own = key(j);
      if (own > best) best = own, at = j;
    }
    FS_UNROLL
    for (int half = 16; half > 0; half /= 2) {
      const double other = __shfl_xor_sync(WARP, best, half);
      const int there = __shfl_xor_sync(WARP, at, half);
      if (other > best || (other == best && there < at)) best = other, at = there;
    }
    return at;
  }
  FS_DEVICE V behind(V x, int i, int k) const { return V::set(i > k ? x.a : 0.0); }
};

// out [N, 2, VALUES]: the VALUES largest singular values of a matrix [LENGTH, COLUMNS] over powers of two, their
// exponents. Matrix: LENGTH, COLUMNS, VALUES, SIZED; fill(job, k, work, columns) makes the columns of network k in work
// [SIZE], and leaves their sizes there if they are SIZED.
template <class Spec, class Matrix>
struct Values {
  static constexpr int N = Matrix::COLUMNS, LD = tile::padded(Matrix::LENGTH),
                       MOST = Matrix::LENGTH < N ? Matrix::LENGTH : N,
                       SCRATCH = int(jacobi_scratch_size(Matrix::LENGTH, N)),
                       WORK = 2 * MOST + N * LD + (SCRATCH < Matrix::SIZE ? Matrix::SIZE : SCRATCH);
  static_assert(WORK == Spec::WORK, "fastsgd/measure sets aside something else");

  FS_DEVICE static void run(const MetricLaunch& job) {
    FS_DYN_SHARED(double, shared);
    double *sigma = Spec::SHARED ? shared : job.scratch + blockIdx.x * job.each, *columns = sigma + 2 * MOST,
           *rest = columns + N * LD;
    for (i64 k = blockIdx.x; k < job.N; k += gridDim.x) {
      Matrix::fill(job, k, rest, columns);
      __syncthreads();
      jacobi_singular_values(Warps<Spec::THREADS / 32>(), columns, Matrix::SIZED ? rest : nullptr, Matrix::LENGTH, N,
                             sigma, rest);
      double* to = job.out + k * 2 * Matrix::VALUES;
      for (int i = threadIdx.x; i < Matrix::VALUES; i += Spec::THREADS)
        to[i] = sigma[i], to[Matrix::VALUES + i] = sigma[MOST + i];
      __syncthreads();
    }
  }
};

// X diag(s) of diagonal networks, of parts W [N, K, D]; X [POINTS, D].   Spec: D, K, POINTS.
template <class Spec>
struct Scaled {
  static constexpr int LENGTH = Spec::POINTS, COLUMNS = Spec::D, VALUES = LENGTH < COLUMNS ? LENGTH : COLUMNS,
                       SIZE = Spec::D;
  static constexpr bool SIZED = true;
  FS_DEVICE static void fill(const MetricLaunch& job, i64 k, double* s, double* columns) {
    constexpr int D = Spec::D, LD = tile::padded(LENGTH);
    for (int j = threadIdx.x; j < D; j += Spec::THREADS)
      diagonal_sizes(job.W + k * Spec::K * D + j, Spec::K, 1, D, s + j);
    for (int e = threadIdx.x; e < D * LD; e += Spec::THREADS) {
      const int j = e / LD, i = e % LD;
      columns[e] = i < LENGTH ? job.X[i * D + j] : 0.0;
    }
  }
};

// J^T of dense networks W [N, P]; X [d, POINTS]. Rows (o, i) stand as in core/metrics/dense_jacobian.h.
// Spec: shape(), POINTS, VALUES.
template <class Spec>
struct DenseColumns {
  using Passes = DensePasses<Spec>;
  static constexpr int MP = tile::padded(Spec::POINTS), LENGTH = Passes::OUTPUTS * MP, COLUMNS = Passes::P,
                       VALUES = Spec::VALUES, SIZE = Passes::SIZE;
  static constexpr bool SIZED = false;

  // Derivatives by parameter k of unit i in layer l + 1, which is its bias if there are no more inputs.
  FS_DEVICE static void derivatives(const double* X, const double* work, int l, int i, int k, double* to) {
    constexpr int POINTS = Spec::POINTS, LAYERS = Passes::LAYERS;
    const DenseShape s = Spec::shape();
    const bool bias = k == s.size[l];
    const double* from = l ? work + Passes::activations(l) : X;
    for (int e = threadIdx.x % 32; e < LENGTH; e += 32) {
      const int q = e / MP, point = e % MP;
      double x = 0;
      if (point < POINTS && (bias ? s.trained[1][l] : s.trained[0][l])) {
        const double a = bias ? 1.0 : s.multiplier[l] * from[k * POINTS + point];
        const double d = l + 1 < LAYERS ? work[Passes::derivatives(l + 1) + i * Passes::ROWS + q * POINTS + point]
                         : q == i       ? 1.0
                                        : 0.0;
        x = a * d;
      }
      to[e] = x;
    }
  }
  FS_DEVICE static void fill(const MetricLaunch& job, i64 network, double* work, double* columns) {
    const DenseShape s = Spec::shape();
    for (int p = threadIdx.x; p < COLUMNS; p += Spec::THREADS) work[p] = job.W[network * COLUMNS + p];
    __syncthreads();
    for (int i = threadIdx.x; i < Spec::POINTS; i += Spec::THREADS) Passes::forward(work, job.X, i);
    __syncthreads();
    for (int row = threadIdx.x; row < Passes::ROWS; row += Spec::THREADS) Passes::backward(work, row);
    __syncthreads();
    FS_UNROLL
    for (int l = 0; l < Passes::LAYERS; ++l)
      for (int p = s.weights(l) + threadIdx.x / 32; p < s.weights(l + 1); p += Spec::THREADS / 32) {
        const int own = p - s.weights(l), fan = s.size[l], weights = fan * s.size[l + 1];
        const bool bias = own >= weights;
        derivatives(job.X, work, l, bias ? own - weights : own / fan, bias ? fan : own % fan, columns + p * LENGTH);
      }
  }
};

template <class Spec>
FS_DEVICE void scaled_values(const MetricLaunch& job) {
  Values<Spec, Scaled<Spec>>::run(job);
}
template <class Spec>
FS_DEVICE void dense_values(const MetricLaunch& job) {
  Values<Spec, DenseColumns<Spec>>::run(job);
}

}  // namespace fs
