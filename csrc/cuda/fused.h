// Owns the fused training loop on a GPU: squared losses of diagonal and two-layer networks, SGD and GD, plain, or with
// what a rule carries from step to step (momentum, Adam's moments, an average) and adds (decay).
//
// Parallel over networks: a team of L lanes of a warp runs one from t0 to t1. A lane keeps in registers its share of
// the parameters (`rows`), of the sample in hand, of the hidden units, and four draws. The data lie in shared memory
// where they fit, else they are read through the caches. The step is `sgd` or the mean gradient of core/rules/step.h:
//   w <- w - eta(t) / B sum_b dloss (h(x_b) - y_b) grad h(x_b);
// a rule that carries something takes its step by core/rules/update.h, with the bits of the general loop.
// No lane leaves the loop before its warp: a lost network is written back and runs on unheeded, until the whole warp is
// lost or the launch ends; the next launch leaves it out.
//
// Spec: T, L, model(), SPREADS (whether inputs are spread over the team), HOLDS (whether they are held in registers),
// BATCHES, FULL, TABLE (order from a table), STAGED (data in shared memory), COPIES (of the data there), SETS (each
// network has a data set), LOSSES (numbers of each network's own loss, 0 where all share one), CARRIES, and then
// update() and BUFFERS.
#pragma once
#include "../core/models/diagonal.h"
#include "../core/models/relu2.h"
#include "../core/rules/step.h"
#include "../core/rules/update.h"
#include "samples.h"

namespace fs {

template <class Spec>
struct Fused {
  using T = typename Spec::T;
  static constexpr int L = Spec::L, CHECK = 64;  // steps between looks at whether anybody is left
  using Tm = Lanes<T, L>;
  using V = typename Tm::V;
  FS_HD static constexpr auto model() { return Spec::template model<Tm>(); }
  static constexpr int ROWS = model().rows(), RESIDUALS = model().residuals() + 1, INPUTS = model().inputs(),
                       SIZE = Spec::SPREADS ? Tm::vectors(INPUTS) : INPUTS;
  using X = Either<Spec::HOLDS, InRegisters<Tm, SIZE>, InMemory<Tm, Spec::SPREADS ? L * SIZE : SIZE>>;
  static constexpr int SLOT = X::PACK * (Spec::SPREADS ? L : 1);  // numbers of the pack of a team
  using Order = Either<Spec::TABLE, Listed<T>, Drawn<T, L>>;
  using OneLane = Team<T, 1, 1>;  // a rule works on each parameter by itself
  static constexpr int CARRIED = Spec::CARRIES ? Spec::BUFFERS * ROWS : 0;
  using Items = Either<Spec::FULL, All, Either<Spec::TABLE, ListedItems<T>, DrawnItems<T, L>>>;
  template <int ODD>
  struct Parity {
    static constexpr int value = ODD;
  };

  const Launch<T>& job;
  const T* x;  // rows of data, where inputs are spread from this lane's first on
  i64 k;
  int lane;
  bool alive;
  V w[ROWS], residuals[RESIDUALS], carried[CARRIED + 1], hyper[Spec::CARRIES ? HYPERS : 1];

  FS_DEVICE explicit Fused(const Launch<T>& job_) : job(job_) {
    x = job.X;
    if constexpr (Spec::STAGED) {
      FS_DYN_SHARED(T, shared);
      stage<SLOT, Spec::COPIES>(shared, x, job.n * job.stride);
      __syncthreads();
      x += threadIdx.x / L % Spec::COPIES * SLOT;
    }
    const i64 team = thread_number() / L;
    lane = threadIdx.x % L, alive = team < job.count;
    if constexpr (Spec::SPREADS) x += lane * X::PACK;
    k = job.positions[alive ? team : 0];  // spare teams shadow the first network
    if constexpr (Spec::SETS) x += job.first[k] * job.stride;
    const T* from = job.W + k * model().P();
    FS_UNROLL_ROWS
    for (int r = 0; r < ROWS; ++r) {
      const int p = model().at(r, lane);
      w[r] = V::set(p >= 0 ? from[p] : T(0));
    }
    if constexpr (Spec::CARRIES) {
      FS_UNROLL
      for (int h = 0; h < HYPERS; ++h) hyper[h] = V::set(job.hyper[h] ? job.hyper[h][k] : T(0));
      each_carried([&](V& mine, T* canonical) { mine = V::set(canonical ? *canonical : T(0)); });
    }
  }

  // f(row, where it lies in the job or null) for everything that the rule carries.
  template <class F>
  FS_DEVICE void each_carried(F f) {
    FS_UNROLL_ROWS
    for (int i = 0; i < CARRIED; ++i) {
      const int p = model().at(i % ROWS, lane);
      f(carried[i], p >= 0 ? job.buffers + (k * Spec::BUFFERS + i / ROWS) * model().P() + p : nullptr);
    }
  }

  // Write the network back if `done`, lost at step t or alive (-1). One with a parameter that is not finite, which it
  // never is again, stays as it was at t0. All lanes of a warp come here together, or one that is a team of its own.
  FS_DEVICE void retire(bool done, i64 t) {
    done = done && alive;  // asked here and not at every step
    if (!any_team<L>(done)) return;
    V sum = V::set(0);
    FS_UNROLL_ROWS
    for (int r = 0; r < ROWS; ++r) sum = fma(V::set(0), w[r], sum);
    FS_UNROLL_ROWS
    for (int i = 0; i < CARRIED; ++i) sum = fma(V::set(0), carried[i], sum);
    const bool broken = beyond(Tm::sum(sum), T(0));
    if (!done) return;
    T* to = job.W + k * model().P();
    FS_UNROLL_ROWS
    for (int r = 0; r < ROWS; ++r) {
      const int p = model().at(r, lane);
      if (p >= 0 && !broken) to[p] = w[r].a;
    }
    if (!broken)
      each_carried([](V& mine, T* canonical) {
        if (canonical) *canonical = mine.a;
      });
    if (lane == 0) job.lost[k] = broken ? UNSETTLED : t;
    alive = false;
  }
  // Whether the warp may leave, looked at now and then.
  FS_DEVICE bool finished(u32 t) const { return t % CHECK == 0 && !__any_sync(WARP, alive); }

  FS_DEVICE u32 apart() const { return u32(job.stride) * Spec::COPIES; }  // numbers from row to row
  FS_DEVICE X input(u32 from) const { return X::template at<SLOT * Spec::COPIES>(x + from); }
  FS_DEVICE static void clear(V* rows, int count) {
    FS_UNROLL_ROWS
    for (int r = 0; r < count; ++r) rows[r] = V::set(0);
  }
  FS_DEVICE V dloss() const {
    if constexpr (Spec::LOSSES == 0) {
      return V::set(job.dloss);
    } else {
      const T c = job.losses[k * Spec::LOSSES + OWN_FACTOR];
      return V::set(c + c);
    }
  }
  FS_DEVICE T bound() const {
    if constexpr (Spec::LOSSES == 0) return job.bound;
    else return job.losses[k * Spec::LOSSES + OWN_BOUND];
  }
  FS_DEVICE V rate(i64 t) const {
    return V::set(-job.base[k] * job.multiplier[job.row[k] * (job.t1 - job.t0) + t - job.t0]);
  }

  // Batch 1: the update at the sample in hand and the value at the next in one sweep.
  FS_DEVICE void steps() {
    if (job.t0 == job.t1) return;
    const V dloss = this->dloss();
    const T bound = this->bound(), base = -job.base[k], *multiplier = job.multiplier + job.row[k] * (job.t1 - job.t0);
    const u32 end = u32(job.t1);
    Order order(job, k, lane, apart());
    X even, odd;  // samples of even and of odd steps
    V r;
    auto begin = [&](auto parity, u32 t, X& in) {
      in = input(order.template take<parity.value>(t));
      r = model().value(w, in, residuals) - in.label();
    };
    auto step = [&](auto next_parity, u32 t, const X& in, X& next, T eta) {
      const bool bad = beyond(r, bound);
      if (any_team<L>(bad)) retire(bad, job.t0 + (t - u32(job.t0)));
      next = input(order.template take<next_parity.value>(t + 1));
      r = sgd(model(), w, in, r, V::set(base * eta), dloss, residuals, next) - next.label();
    };
    u32 t = u32(job.t0);
    if (t % 2) {
      begin(Parity<1>{}, t, odd);
      step(Parity<0>{}, t++, odd, even, *multiplier++);
    } else {
      begin(Parity<0>{}, t, even);
    }
    FS_NO_UNROLL
    for (; end - t >= 2; t += 2, multiplier += 2) {  // two at a time, so that no sample is copied
      if (finished(t)) return;
      step(Parity<1>{}, t, even, odd, multiplier[0]);
      step(Parity<0>{}, t + 1, odd, even, multiplier[1]);
    }
    if (t != end) step(Parity<1>{}, t, even, odd, multiplier[0]);
  }

  // What a rule makes of a gradient that is used up.
  FS_DEVICE void move(V* gradient, V rate, i64 t) {
    update<OneLane>(Spec::update(), ROWS, w, gradient, carried, hyper, rate, t, Groups<V>{});
    if constexpr (Spec::update().divides()) {
      FS_UNROLL_ROWS
      for (int r = 0; r < ROWS; ++r)  // a row without a parameter is 0 / (0 + epsilon), and epsilon may vanish
        if (model().at(r, L - 1) < 0 && model().at(r, lane) < 0) w[r] = V::set(0);
    }
  }

  // Batch 1, with a rule that carries something: the gradient, then what the rule makes of it.
  FS_DEVICE void ruled() {
    const V dloss = this->dloss();
    const T bound = this->bound(), base = -job.base[k], *multiplier = job.multiplier + job.row[k] * (job.t1 - job.t0);
    const u32 end = u32(job.t1);
    Order order(job, k, lane, apart());
    auto step = [&](u32 t, u32 from) {
      const X in = input(from);
      const V r = model().value(w, in, residuals) - in.label();
      const bool bad = beyond(r, bound);
      const i64 now = job.t0 + (t - u32(job.t0));
      if (any_team<L>(bad)) retire(bad, now);
      V gradient[ROWS];
      clear(gradient, ROWS);
      model().add_derivative(w, in, dloss * r, residuals, gradient);
      move(gradient, V::set(base * *multiplier++), now);
    };
    u32 t = u32(job.t0);
    if constexpr (Spec::update().divides()) {  // too long a step to stand in the code twice
      FS_NO_UNROLL
      for (; t != end; ++t) {
        if (finished(t)) return;
        step(t, t % 2 ? order.template take<1>(t) : order.template take<0>(t));
      }
      return;
    }
    if (t % 2 && t != end) step(t, order.template take<1>(t)), ++t;
    FS_NO_UNROLL
    for (; end - t >= 2; t += 2) {
      if (finished(t)) return;
      step(t, order.template take<0>(t));
      step(t + 1, order.template take<1>(t + 1));
    }
    if (t != end) step(t, order.template take<0>(t));
  }

  // The same of minibatches and full batches: derivatives over their number are added up, as the general loop does it.
  FS_DEVICE void ruled_batches() {
    const V dloss = this->dloss();
    const T bound = this->bound();
    Items order(job, k, lane, apart());
    const u32 batch = u32(job.batch);
    const V share = V::set(T(1) / T(batch));
    V gradient[ROWS];
    FS_NO_UNROLL
    for (i64 t = job.t0; t < job.t1; ++t) {
      clear(gradient, ROWS);
      u32 bad = 0;
      FS_NO_UNROLL
      for (u32 b = 0; b < batch; ++b) {
        const X in = input(order.take(t, b));
        const V r = model().value(w, in, residuals) - in.label();
        bad |= beyond(r, bound);
        model().add_derivative(w, in, share * (dloss * r), residuals, gradient);
      }
      if (any_team<L>(bad)) retire(bad, t);
      if (finished(u32(t))) break;
      move(gradient, rate(t), t);
    }
  }

  // Minibatches and full batches: the mean gradient, then one step.
  FS_DEVICE void batches() {
    const V dloss = this->dloss();
    const T bound = this->bound();
    Items order(job, k, lane, apart());
    const u32 batch = u32(job.batch);
    V folded[model().folds() + 1], sum[model().sums()];
    FS_NO_UNROLL
    for (i64 t = job.t0; t < job.t1; ++t) {
      model().fold(w, folded);
      clear(sum, model().sums());
      u32 bad = 0;
      FS_NO_UNROLL
      for (u32 b = 0; b < batch; ++b) {
        const X in[1] = {input(order.take(t, b))};
        const V label[1] = {in[0].label()};
        bad |= accumulate_gradient(model(), w, folded, in, label, dloss, bound, residuals, sum);
      }
      if (any_team<L>(bad)) retire(bad, t);
      if (finished(u32(t))) break;
      model().move(w, sum, V::set(rate(t).a / T(job.batch)));
    }
  }

  FS_DEVICE void run() {
    if constexpr (Spec::CARRIES && Spec::BATCHES) ruled_batches();
    else if constexpr (Spec::CARRIES) ruled();
    else if constexpr (Spec::BATCHES) batches();
    else steps();
    retire(true, -1);
  }
};

template <class Spec>
FS_DEVICE void fused(const Launch<typename Spec::T>& job) {
  Fused<Spec>(job).run();
}

}  // namespace fs
