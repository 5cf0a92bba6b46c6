// Owns the samples of one network as the fused loop takes them, drawn ahead or from a table: where their rows begin,
// which are `stride` numbers apart.
//
// A draw serves four steps, and the lanes of a team draw for each other: a lane has a block of four steps of its own,
// or, where a step takes several samples, an item of the batch.
#pragma once
#include "lanes.h"
#include "launch.h"

namespace fs {

// Batch 1: take<ODD>(t), called for one step after another, counted modulo 2^32; ODD is t % 2.
template <class T, int L>
class Drawn {
  const Draws draws;
  const u32 stride;
  u32 block, index[4];  // the next of this lane, and the rows of the last

 public:
  FS_DEVICE Drawn(const Launch<T>& job, i64 k, int lane, u32 stride_)
      : draws(job, k), stride(stride_), block(u32(job.t0 / 4) / L * L + lane) {
    if (job.t0 % (4 * L)) next();
  }
  template <int ODD>
  FS_DEVICE u32 take(u32 t) {
    if (ODD == 0 && t % (4 * L) == 0) next();
    return of_lane<L>(t % 4 < 2 ? index[ODD] : index[2 + ODD], t / 4 % L);
  }

 private:
  FS_DEVICE void next() {
    draws.block(block, 0, index);
    FS_UNROLL
    for (int q = 0; q < 4; ++q) index[q] *= stride;
    block += L;
  }
};

template <class T>
class Listed {
  const u32* next;
  const u32 end, stride;

 public:
  FS_DEVICE Listed(const Launch<T>& job, i64 k, int, u32 stride_)
      : next(listed(job, k, job.t0, 0, 1)), end(u32(job.t1)), stride(stride_) {}
  template <int ODD>
  FS_DEVICE u32 take(u32 t) {
    return t == end ? 0 : stride * *next++;  // behind the last step any sample will do
  }
};

// Batches: take(t, b), called for all items b of one step after another.
template <class T, int L>
class DrawnItems {
  const Launch<T>& job;
  const Draws draws;
  const int lane;
  const u32 stride;
  u32 index[4], mine;

 public:
  FS_DEVICE DrawnItems(const Launch<T>& job_, i64 k, int lane_, u32 stride_)
      : job(job_), draws(job, k), lane(lane_), stride(stride_) {}
  FS_DEVICE u32 take(i64 t, u32 b) {
    if (b % L == 0) {  // lanes that suffice for a batch keep its draws for four steps
      if (job.batch > L || t % 4 == 0 || t == job.t0) draws.block(u32(t / 4), b + lane, index);
      mine = pick(index, u32(t) % 4) * stride;
    }
    return of_lane<L>(mine, b % L);
  }
};

template <class T>
class ListedItems {
  const Launch<T>& job;
  const i64 k;
  const u32 stride;

 public:
  FS_DEVICE ListedItems(const Launch<T>& job_, i64 k_, int, u32 stride_) : job(job_), k(k_), stride(stride_) {}
  FS_DEVICE u32 take(i64 t, u32 b) const { return *listed(job, k, t, b, job.batch) * stride; }
};

struct All {
  const u32 stride;

  template <class T>
  FS_DEVICE All(const Launch<T>&, i64, int, u32 stride_) : stride(stride_) {}
  FS_DEVICE u32 take(i64, u32 b) const { return b * stride; }
};

}  // namespace fs
