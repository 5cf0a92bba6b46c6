// Owns what crosses to a metric kernel, as fastsgd/backends/cuda/structs.py lays it out, and what blocks of threads
// share: data staged in shared memory, sums over a block.
#pragma once
#include "../lanes.h"

namespace fs {

struct MetricLaunch {
  const double* W;  // [N, ...] what is measured: parameters, or what the host made of them
  i64 N;
  double* out;      // [N, ...]
  const double* X;  // [n, stride], and behind it what else depends on the points alone
  i64 n, stride;
  double* scratch;  // `each` doubles a block or thread, where shared or local memory does not suffice
  i64 each;
  double number;  // rtol, factor, threshold or tau
};

// The first `count` doubles of the points: copied to shared memory, or where they are.
template <bool STAGED>
FS_DEVICE const double* staged(const MetricLaunch& job, i64 count) {
  const double* X = job.X;
  if constexpr (STAGED) {
    FS_DYN_SHARED(double, shared);
    stage(shared, X, count);
    __syncthreads();
  }
  return X;
}

// Sum over the threads of a block, a multiple of 32; part [32] in shared memory. Everybody receives it.
FS_DEVICE double block_sum(double x, double* part) {
  x = Lanes<double, 32>::sum({x}).a;
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
  __syncthreads();
  double sum = 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) sum += part[w];
  __syncthreads();
  return sum;
}

}  // namespace fs
