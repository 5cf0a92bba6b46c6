// Owns the time loop on one CPU thread: a block of networks is packed into the cache, run from t0 to t1, and unpacked.
//
// A vector holds Tm::networks networks (a "group"); several groups are stepped in turn, so that the latency of one
// group's sums hides behind the sweeps of the others.
#pragma once
#include "../core/rules/step.h"
#include "samples.h"

namespace fs {

template <class Tm, class Model, bool ONE_ROW>
struct Block {
  using T = typename Tm::T;
  using V = typename Tm::V;
  static constexpr int G = Tm::networks, MOST = 8;  // networks in a group, groups in a block
  static constexpr i64 LONG = 1 << 24;              // work that takes a part of a second

  struct Group {
    V *w, *residuals;   // [rows], [residuals]
    V residual;         // h - y at the sample in hand
    V dloss, bound;     // of each network's loss
    u32 alive;          // bit per lane
    const i64* member;  // [G] position of each network in the job
    Samples<Tm, ONE_ROW> samples;
  };

  const Job<T>& job;
  const Model model;
  const Keys keys;
  V *folded, *sum;         // [folds] and [sums], batches only
  V *residuals, *columns;  // [SIDE, residuals], and the samples [SIDE, inputs] where they are no rows, batches only
  u32* index;              // [4, batch, OWN], batches only: draws of four steps
  int* slot;               // [P] where a canonical parameter lives in a group's rows; ~slot if it lives in every lane
  i64 member[MOST][G];
  u32 start[G];  // row at which the data set of a network begins, full batches only
  Group group[MOST];
  int groups;

  static bool batches(const Job<T>& job) { return job.full || job.batch > 1; }
  static constexpr i64 line(i64 bytes) { return (bytes + 63) / 64 * 64; }
  // Groups in a block: enough to hide latencies, few enough to share a 32 KB cache with the data.
  static int side(const Job<T>& job, const Model& model) {
    if (batches(job)) return 1;  // the samples of a batch hide each other's latencies
    const i64 fit = 12000 / i64(model.rows() * sizeof(V)), most = MOST < fit ? MOST : fit;
    return most < 2 ? 2 : int(most);
  }
  static i64 group_bytes(const Model& model) {
    return line((model.rows() + model.residuals()) * sizeof(V)) + line(Samples<Tm, ONE_ROW>::bytes(model.inputs()));
  }
  static i64 draws(const Job<T>& job) {
    return batches(job) && !job.full ? 4 * job.batch * Samples<Tm, ONE_ROW>::OWN : 0;
  }
  static i64 batch_bytes(const Job<T>& job, const Model& model) {
    const i64 sample = model.residuals() + (ONE_ROW ? 0 : model.inputs());
    return batches(job) ? line((model.folds() + model.sums() + Model::SIDE * sample) * sizeof(V)) : 0;
  }
  static i64 bytes(const Job<T>& job, const Model& model) {
    return side(job, model) * group_bytes(model) + line(model.P() * sizeof(int)) + batch_bytes(job, model) +
           line((draws(job) + 8) * sizeof(u32));
  }

  __attribute__((noinline)) Block(const Job<T>& job_, const Model& model_, char* at)
      : job(job_), model(model_), keys(job_.seed) {
    const int many = side(job, model);
    for (int m = 0; m < many; ++m, at += group_bytes(model)) {
      group[m].w = reinterpret_cast<V*>(at), group[m].residuals = group[m].w + model.rows();
      group[m].samples.lay_out(at + line((model.rows() + model.residuals()) * sizeof(V)), model.inputs());
    }
    folded = reinterpret_cast<V*>(at), sum = folded + model.folds(), residuals = sum + model.sums();
    columns = residuals + Model::SIDE * model.residuals(), at += batch_bytes(job, model);
    index = reinterpret_cast<u32*>(at), at += line((draws(job) + 8) * sizeof(u32));
    slot = reinterpret_cast<int*>(at);
    for (int row = 0; row < model.rows(); ++row)
      for (int lane = 0; lane < Tm::L; ++lane) {
        const int p = model.at(row, lane);
        if (p >= 0) slot[p] = lane > 0 && p == model.at(row, 0) ? ~(row * Tm::W) : row * Tm::W + lane;
      }
  }

  // ---- packing: canonical parameters [P] of network g <-> lanes of a group's rows
  void pack(Group& q, int g) {
    const T* from = job.W + q.member[g] * job.P;
    T* to = reinterpret_cast<T*>(q.w) + g * Tm::L;
    for (int p = 0; p < model.P(); ++p) {
      if (slot[p] >= 0) to[slot[p]] = from[p];
      else
        for (int k = 0; k < Tm::L; ++k) to[~slot[p] + k] = from[p];
    }
  }
  void unpack(const Group& q, int g) {
    T* to = job.W + q.member[g] * job.P;
    const T* from = reinterpret_cast<const T*>(q.w) + g * Tm::L;
    for (int p = 0; p < model.P(); ++p) to[p] = from[slot[p] >= 0 ? slot[p] : ~slot[p]];
  }

  // Pack `count` networks; network k of the block is at position(k) of the job.
  template <class At>
  void load(int count, At position) {
    groups = (count + G - 1) / G;
    for (int m = 0; m < groups; ++m) {
      Group& q = group[m];
      q.member = member[m], q.alive = 0;
      for (int r = 0; r < model.rows(); ++r) q.w[r] = V::set(0);  // padding stays zero for good
      for (int g = 0; g < G; ++g) {
        const int k = m * G + g;
        member[m][g] = position(k < count ? k : m * G);  // spare lanes shadow the group's first network
        pack(q, g);
        for (int lane = g * Tm::L; lane < (g + 1) * Tm::L; ++lane) {
          reinterpret_cast<T*>(&q.dloss)[lane] = dloss_of(job, member[m][g]);
          reinterpret_cast<T*>(&q.bound)[lane] = bound_of(job, member[m][g]);
        }
        if (k < count) q.alive |= lanes_of(g);
      }
    }
  }

  static u32 lanes_of(int g) { return ((1u << Tm::L) - 1u) << (g * Tm::L); }

  // Whether a parameter of a network is not finite: once it is not, it never is again.
  bool broken(const Group& q, int g) const {
    const T* from = reinterpret_cast<const T*>(q.w) + g * Tm::L;
    for (int p = 0; p < model.P(); ++p)
      if (!finite(from[slot[p] >= 0 ? slot[p] : ~slot[p]])) return true;
    return false;
  }
  // Write back the living networks that have a lane in `which`, lost at step t or alive (-1); the broken ones stay as
  // they were at t0. Their lanes no longer count.
  __attribute__((noinline)) void retire(Group& q, u32 which, i64 t) {
    for (int g = 0; g < G; ++g) {
      if (!(which & q.alive & lanes_of(g))) continue;
      const bool bad = broken(q, g);
      if (!bad) unpack(q, g);
      job.lost[q.member[g]] = bad ? UNSETTLED : t;
      q.alive &= ~lanes_of(g);
    }
  }
  __attribute__((noinline)) void compress() {
    groups = living_first(group, groups, [](int, int) {});
  }

  // Steps t .. t + count - 1 of batch-1 SGD; each begins with the residual at its sample in hand. OWN: networks have
  // losses of their own.
  template <bool OWN>
  __attribute__((noinline)) void steps(i64 t, int count) {  // on its own: its registers are not shared with run_sgd
    const Model model = this->model;                        // copies of its own let the compiler keep them in registers
    const Data<T> data(job);
    const V dloss = V::set(job.dloss);
    const T bound = job.bound;
    for (int s = 0; s < count && groups; ++s) {
      const int next = Samples<Tm, ONE_ROW>::at(t + s + 1);
      bool died = false;
      for (Group *q = group, *end = group + groups; q < end; ++q) {
        u32 bad;
        if constexpr (OWN) bad = beyond(q->residual, q->bound) & q->alive;
        else bad = beyond(q->residual, bound) & q->alive;
        if (__builtin_expect(bad != 0, 0)) {
          retire(*q, bad, t + s);
          died |= !q->alive;
        }
        const auto x = q->samples.input();
        const V y = q->samples.fetch(data, q->samples.index + next);
        q->residual = sgd(model, q->w, x, q->residual, q->samples.rates(s), OWN ? q->dloss : dloss, q->residuals,
                          q->samples.input()) -
                      y;
      }
      if (__builtin_expect(died, 0)) compress();
    }
  }
  // The same for a group alone: its residual, which the next step waits for, stays in a register. UNIT: dloss is 1.
  template <bool OWN, bool UNIT>
  __attribute__((noinline)) void steps_of_one(i64 t, int count) {
    const Model model = this->model;
    const Data<T> data(job);
    Group& q = group[0];
    const V dloss = OWN ? q.dloss : V::set(job.dloss), bound = OWN ? q.bound : V::set(job.bound);
    V residual = q.residual;
    for (int s = 0; s < count; ++s) {
      const u32 bad = beyond(residual, bound) & q.alive;
      if (__builtin_expect(bad != 0, 0)) {
        retire(q, bad, t + s);
        if (!q.alive) {
          compress();
          return;
        }
      }
      const auto x = q.samples.input();
      const V y = q.samples.fetch(data, q.samples.index + Samples<Tm, ONE_ROW>::at(t + s + 1));
      const V g = q.samples.rates(s) * (UNIT ? residual : dloss * residual);
      residual = model.vjp_value(q.w, x, g, q.residuals, q.samples.input()) - y;
    }
    q.residual = residual;
  }
  template <bool OWN>
  void steps_of_some(i64 t, int count) {
    if constexpr (Tm::L > 1) {  // a lone network
      if (groups == 1 && !OWN && job.dloss == 1) return steps_of_one<OWN, !OWN>(t, count);
      if (groups == 1) return steps_of_one<OWN, false>(t, count);
    }
    steps<OWN>(t, count);
  }
  // own: networks have losses of their own.
  void run_sgd(bool own) {
    i64 t = job.t0;
    const Data<T> data(job);
    for (int a = 0; a < groups && t < job.t1; ++a) {
      Group& q = group[a];
      draw_window<Samples<Tm, ONE_ROW>::OWN>(job, keys, q.member, t, q.samples.index);
      const V y = q.samples.fetch(data, q.samples.index + q.samples.at(t));
      q.residual = model.value(q.w, q.samples.input(), q.residuals) - y;
    }
    const i64 work = i64(model.rows()) * MOST, most = work < LONG ? LONG / work : 1;
    for (int part; t < job.t1 && groups; t += part) {
      part = steps_at_once(t, job.t1, most, 1);
      for (int a = 0; a < groups; ++a) {
        Group& q = group[a];
        if ((t + 1) % WINDOW == 0) draw_window<Samples<Tm, ONE_ROW>::OWN>(job, keys, q.member, t + 1, q.samples.index);
        step_sizes<G>(job, q.member, t, part, q.samples.rate);
      }
      if (own) steps_of_some<true>(t, part);
      else steps_of_some<false>(t, part);
      FS_WORKED(work * part);
    }
  }

  // Samples b, .. b + R - 1 of step t into the sums of the block's only group.
  template <int R>
  u32 accumulate(const Model& model, const Data<T>& data, i64 t, i64 b, V dloss, V bound) {
    Group& q = group[0];
    decltype(q.samples.input()) x[R];
    V y[R];
    const auto fetch = [&](int i) {
      constexpr int OWN = Samples<Tm, ONE_ROW>::OWN;
      u32 all[OWN];
      for (int g = 0; g < OWN; ++g) all[g] = u32(b + i) + start[g];
      if constexpr (!ONE_ROW) q.samples.spare = columns + i * q.samples.width;
      y[i] = q.samples.fetch(data, job.full ? all : index + (t % 4 * job.batch + b + i) * OWN);
      x[i] = q.samples.input();
    };
    if constexpr (ONE_ROW) {  // the other turns rows into columns, which is long, and no quicker R times over
      FS_UNROLL
      for (int i = 0; i < R; ++i) fetch(i);
    } else {
      FS_NO_UNROLL
      for (int i = 0; i < R; ++i) fetch(i);
    }
    return accumulate_gradient(model, q.w, folded, x, y, dloss, bound, residuals, sum);
  }

  // Minibatch and full-batch steps of the block's only group.
  __attribute__((noinline)) void run_batch() {
    constexpr int R = Model::SIDE;
    Group& q = group[0];
    const Model model = this->model;
    const Data<T> data(job);
    const V dloss = q.dloss, bound = q.bound;
    const int sums = model.sums();
    const i64 rows = model.rows(), most = R * (R * rows < LONG ? LONG / (R * rows) : 1);
    for (int g = 0; g < G; ++g) start[g] = begin(job, q.member[g]);
    for (i64 t = job.t0; t < job.t1 && q.alive; ++t) {
      if (!job.full && (t == job.t0 || t % 4 == 0))
        draw_batch<Samples<Tm, ONE_ROW>::OWN>(job, keys, q.member, t, index);
      step_sizes<G>(job, q.member, t, 1, q.samples.rate);
      model.fold(q.w, folded);
      for (int r = 0; r < sums; ++r) sum[r] = V::set(0);
      u32 bad = 0;
      i64 b = 0;
      const auto samples = [&](i64 last) {
        for (; b + R <= last; b += R) bad |= accumulate<R>(model, data, t, b, dloss, bound);
      };
      for (; __builtin_expect(b + most < job.batch, 0); FS_WORKED(rows * most)) samples(b + most);
      samples(job.batch);
      for (; b < job.batch; ++b) bad |= accumulate<1>(model, data, t, b, dloss, bound);
      if (__builtin_expect((bad & q.alive) != 0, 0)) retire(q, bad & q.alive, t);
      alignas(64) T rate[G];
      for (int g = 0; g < G; ++g) rate[g] = q.samples.rate[g] / T(job.batch);
      if constexpr (G == 1) model.move(q.w, sum, V::set(*rate));
      else model.move(q.w, sum, V::load(rate));
      FS_WORKED(rows * (job.batch < most ? job.batch : most));
    }
  }

  // Run `count` networks from t0 to t1; their positions in the job are at `positions`.
  __attribute__((noinline)) void run(const i64* positions, int count) {
    load(count, [&](int k) { return positions[k]; });
    if (batches(job)) run_batch();
    else run_sgd(job.losses);
    for (int a = 0; a < groups; ++a) retire(group[a], group[a].alive, -1);
  }
};

}  // namespace fs
