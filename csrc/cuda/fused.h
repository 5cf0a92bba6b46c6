// Owns the fused training loop on a GPU: plain SGD and GD on squared losses of diagonal and two-layer networks.
//
// Parallel over networks: a team of L lanes of a warp runs one from t0 to t1. A lane keeps in registers its share of
// the parameters (`rows`), of the sample in hand, of the hidden units, and four steps' draws. The data lie in shared
// memory where they fit, else they are read through the caches. The step is `sgd` or the mean gradient of
// core/rules/step.h:   w <- w - eta(t) / B sum_b slope (h(x_b) - y_b) grad h(x_b).
// No lane leaves the loop before its warp: a lost network is written back and runs on unheeded, until the whole warp is
// lost or the launch ends; the next launch leaves it out.
//
// Spec: T, L, model(), SPREADS (whether inputs are spread over the team), HOLDS (whether they are held in registers),
// BATCHES, FULL, TABLE (order from a table), STAGED (data in shared memory).
#pragma once
#include "../core/models/diagonal.h"
#include "../core/models/relu2.h"
#include "../core/rules/step.h"
#include "lanes.h"
#include "launch.h"

namespace fs {

template <class Spec>
struct Fused {
  using T = typename Spec::T;
  static constexpr int L = Spec::L, CHECK = 64;  // steps between looks at whether anybody is left
  using Tm = Lanes<T, L>;
  using V = typename Tm::V;
  FS_HD static constexpr auto model() { return Spec::template model<Tm>(); }
  static constexpr int ROWS = model().rows(), KEPT = model().kept() + 1, INPUTS = model().inputs(),
                       SIZE = Spec::SPREADS ? Tm::vectors(INPUTS) : INPUTS;
  template <class Team, bool HOLDS>
  struct Input {
    using type = Held<Team, SIZE>;
  };
  template <class Team>
  struct Input<Team, false> {
    using type = Lying<Team>;
  };
  using X = typename Input<Tm, Spec::HOLDS>::type;

  const Launch<T>& job;
  const T *x, *y;
  i64 k;
  int lane;
  bool alive;
  V w[ROWS], kept[KEPT];

  FS_DEVICE explicit Fused(const Launch<T>& job_) : job(job_) {
    x = job.X, y = job.y;
    if constexpr (Spec::STAGED) {
      FS_DYN_SHARED(T, room);
      stage(stage(room, x, job.n * job.stride), y, job.n);
      __syncthreads();
    }
    const i64 team = thread_number() / L;
    lane = threadIdx.x % L, alive = team < job.count;
    k = job.who[alive ? team : 0];  // spare teams shadow the first network
    const T* from = job.W + k * model().P();
    FS_UNROLL_ROWS
    for (int r = 0; r < ROWS; ++r) {
      const int p = model().at(r, lane);
      w[r] = V::set(p >= 0 ? from[p] : T(0));
    }
  }

  FS_DEVICE void write() const {
    T* to = job.W + k * model().P();
    FS_UNROLL_ROWS
    for (int r = 0; r < ROWS; ++r) {
      const int p = model().at(r, lane);
      if (p >= 0) to[p] = w[r].a;
    }
  }
  FS_DEVICE void retire(i64 t) {
    write();
    if (lane == 0) job.lost[k] = t;
    alive = false;
  }
  // Whether the warp may leave, looked at now and then.
  FS_DEVICE bool finished(i64 t) const { return t % CHECK < 2 && !__any_sync(WARP, alive); }

  FS_DEVICE X input(u32 index) const {
    const T* row = x + index * u32(job.stride);
    if constexpr (Spec::HOLDS) {
      X held;
      FS_UNROLL_ROWS
      for (int c = 0; c < SIZE; ++c) held.x[c] = V::set(row[Spec::SPREADS ? c * L + lane : c]);
      return held;
    } else {
      return X{row, lane};
    }
  }
  FS_DEVICE V rate(i64 t) const {
    return V::set(-job.base[k] * job.multiplier[job.row[k] * (job.t1 - job.t0) + t - job.t0]);
  }
  FS_DEVICE u32 replayed(i64 t, i64 b) const {
    return job.indices[((job.index_rows > 1 ? k : 0) * (job.t1 - job.t0) + t - job.t0) * job.batch + b];
  }

  // Batch 1: the update at the sample in hand and the value at the next in one sweep.
  FS_DEVICE void steps() {
    const V slope = V::set(T(job.slope));
    const T bound = T(job.bound), base = -job.base[k];
    const T* multiplier = job.multiplier + job.row[k] * (job.t1 - job.t0);
    Order<T> order(job, u32(job.ids[k]), job.t0);
    if (job.t0 == job.t1) return;
    u32 index = Spec::TABLE ? replayed(job.t0, 0) : order.take(job.t0);
    X even = input(index), odd;
    V r = model().value(w, even, kept) - V::set(y[index]);
    auto step = [&](i64 t, const X& in, X& next) {
      if (beyond(r, bound) && alive) retire(t);
      if constexpr (Spec::TABLE) index = t + 1 < job.t1 ? replayed(t + 1, 0) : 0;
      else index = order.take(t + 1);
      next = input(index);
      r = sgd(model(), w, in, r, V::set(base * *multiplier++), slope, kept, next) - V::set(y[index]);
    };
    FS_NO_UNROLL
    for (i64 t = job.t0; t < job.t1; t += 2) {  // two at a time, so that no sample is copied
      step(t, even, odd);
      if (t + 1 == job.t1 || finished(t)) break;
      step(t + 1, odd, even);
    }
  }

  // Minibatches and full batches: the mean gradient, then one step.
  FS_DEVICE void batches() {
    const V slope = V::set(T(job.slope));
    const T bound = T(job.bound);
    V folded[model().folds() + 1], sum[model().sums()];
    FS_NO_UNROLL
    for (i64 t = job.t0; t < job.t1; ++t) {
      model().fold(w, folded);
      FS_UNROLL_ROWS
      for (int r = 0; r < model().sums(); ++r) sum[r] = V::set(0);
      u32 bad = 0;
      FS_NO_UNROLL
      for (i64 b = 0; b < job.batch; ++b) {
        const u32 index = sample(t, b);
        const X in[1] = {input(index)};
        const V label[1] = {V::set(y[index])};
        bad |= gather_gradient(model(), w, folded, in, label, slope, bound, kept, sum);
      }
      if (bad && alive) retire(t);
      if (finished(t)) break;
      model().move(w, sum, V::set(rate(t).a / T(job.batch)));
    }
  }
  FS_DEVICE u32 sample(i64 t, i64 b) const {
    if constexpr (Spec::FULL) return u32(b);
    else if constexpr (Spec::TABLE) return replayed(t, b);
    else return drawn(job, u32(job.ids[k]), t, u32(b));
  }

  FS_DEVICE void run() {
    if constexpr (Spec::BATCHES) batches();
    else steps();
    if (alive) write();
  }
};

template <class Spec>
FS_DEVICE void fused(const Launch<typename Spec::T>& job) {
  Fused<Spec>(job).run();
}

}  // namespace fs
