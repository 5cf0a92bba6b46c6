// Owns sample orders made of permutations on a GPU, as tables. Parallel over networks: a thread fills one's row.
#pragma once
#include "../core/permutation.h"
#include "platform.h"

namespace fs {

struct OrderLaunch {
  const i64* ids;  // [N]
  i64 N, t0, t1, batch, n;
  i64 epoch;
  u64 seed;
  u32* out;  // [N, t1 - t0, batch]
};

FS_DEVICE void orders(const OrderLaunch& job) {
  const i64 k = thread_number();
  if (k >= job.N) return;
  const u32 id = u32(job.ids[k]), n = u32(job.n);
  const PermutedOrder order{job.seed, job.t0, job.t1, job.batch, n, job.epoch};
  fill<1>(order, Domain::of(n), &id, job.out + k * (job.t1 - job.t0) * job.batch);
}

}  // namespace fs
