// Owns what metrics read of networks that lie on the card. Parallel over the numbers of all networks, one a thread.
#pragma once
#include "../platform.h"

namespace fs {

struct ReadLaunch {
  const void* W;         // [..., K * reads] in the run's dtype
  const i64* positions;  // [N] which of them
  i64 N, reads;
  void* out;
};

// out [N, reads] = prod_k w_k in float64, for a network's weights w [K, reads].   Spec: T, K.
template <class Spec>
FS_DEVICE void read_weights(const ReadLaunch& job) {
  const i64 i = thread_number();
  if (i >= job.N * job.reads) return;
  const auto* w = static_cast<const typename Spec::T*>(job.W) + job.positions[i / job.reads] * Spec::K * job.reads;
  double product = w[i % job.reads];
  for (int k = 1; k < Spec::K; ++k) product = product * double(w[k * job.reads + i % job.reads]);
  static_cast<double*>(job.out)[i] = product;
}

}  // namespace fs
