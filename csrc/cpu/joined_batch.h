// Owns the time loop of minibatches and full batches for teams whose networks are small: one network after another, and
// the lane sums of as many samples as a vector has lanes formed together, a sample a lane of the result.
//
// The bits are those of cpu/fused.h.
#pragma once
#include "fused.h"

namespace fs {

template <class Model>
class JoinedBatch {
 public:
  using Tm = typename Model::Lanes;
  using T = typename Tm::T;
  using V = typename Tm::V;
  static constexpr int G = 1, W = Tm::W;  // networks that come together, samples that do
  static constexpr int VECTORS = 64 / W;  // most vectors of inputs for which there is a loop

  static bool fits(const Job<T>& job, const Model& model) {
    return Block<Tm, Model, true>::batches(job) && model.C() <= VECTORS && job.rows * job.stride < i64(1) << 32;
  }
  static int side(const Job<T>&, const Model&) { return 1; }
  static i64 bytes(const Job<T>& job, const Model&) { return 4 * job.batch * i64(sizeof(u32) + sizeof(T)); }

  JoinedBatch(const Job<T>& job_, const Model& model_, char* at)
      : job(job_),
        model(model_),
        keys(job_.seed),
        far(!job_.full && job_.rows * job_.stride * i64(sizeof(T)) > NEAR),
        steps(loop(model_.C())),
        label(reinterpret_cast<T*>(at)),
        row(reinterpret_cast<u32*>(label + 4 * job_.batch)) {
    for (i64 b = 0; job.full && b < job.n; ++b) row[b] = u32(b * job.stride);
  }

  // Run `count` networks from t0 to t1; their positions in the job are at `positions`.
  void run(const i64* positions, int count) {
    for (int k = 0; k < count; ++k) (this->*steps)(positions[k]);
  }

 private:
  const Job<T>& job;
  const Model model;
  const Keys keys;
  const bool far;
  void (JoinedBatch::* const steps)(i64);
  T* label;  // [4, batch] of the samples of four steps, of minibatches only,
  u32* row;  // [4, batch] and where their rows begin in X; [batch] of full batches

  template <int C>
  __attribute__((noinline)) void run_steps(const i64 position) {
    const int d = model.inputs();
    const i64 B = job.batch;
    const V dloss = V::set(dloss_of(job, position)), bound = V::set(bound_of(job, position));
    T *const canonical = job.W + position * job.P, *const u = canonical, *const v = canonical + d;
    const i64 first = job.full ? begin(job, position) : 0;  // draws know it
    const T *const X = job.X + first * job.stride, *const labels = job.y + first;
    const T base = -job.base[position], *const multiplier = job.multiplier + job.row[position] * (job.t1 - job.t0);
    V w[2 * C] = {};
    for (int j = 0; j < d; ++j) reinterpret_cast<T*>(w)[j] = u[j], reinterpret_cast<T*>(w + C)[j] = v[j];
    i64 t = job.t0;
    u32 bad = 0;
    for (; t < job.t1; ++t) {
      const i64 at = t % 4 * B;
      if (!job.full && (t == job.t0 || t % 4 == 0)) draw(position, t);
      if (far && t % 4 < 3) prefetch(row + at + B);
      const u32* sample = job.full ? row : row + at;
      const T* y = job.full ? labels : label + at;
      V beta[C], sum[C];
      FS_UNROLL
      for (int c = 0; c < C; ++c) beta[c] = w[c] * w[C + c], sum[c] = V::set(0);
      i64 b = 0;
      for (; b + W <= B; b += W)
        bad |= accumulate<C>(beta, sum, X, sample, y, b, std::integral_constant<int, W>{}, dloss, bound);
      if (b < B) bad |= accumulate<C>(beta, sum, X, sample, y, b, int(B - b), dloss, bound);
      if (__builtin_expect(bad != 0, 0)) break;
      Model::template move_by<C>(w, sum, V::set(base * multiplier[t - job.t0] / T(B)));
      FS_WORKED(C * (B + 3));
    }
    bool broken = false;
    for (int k = 0; k < 2 * C * W; ++k) broken |= !finite(reinterpret_cast<const T*>(w)[k]);
    job.lost[position] = broken ? UNSETTLED : bad ? t : -1;
    if (broken) return;  // as it was at t0
    for (int j = 0; j < d; ++j) u[j] = reinterpret_cast<const T*>(w)[j], v[j] = reinterpret_cast<const T*>(w + C)[j];
  }

  // Samples b .. b + count - 1 of a step into its sum; whether one is out of bounds. `Count` knows that all W are
  // there, or is an int: what is left of a batch goes in loops, which cost it a few moves and spare half of the code.
  template <int C, class Count>
  FS_HD u32 accumulate(const V (&beta)[C], V (&sum)[C], const T* X, const u32* sample, const T* y, i64 b, Count count,
                       V dloss, V bound) const {
    constexpr bool WHOLE = !std::is_same<Count, int>::value;
    alignas(64) T e[W];
    V labels, value;
    if constexpr (WHOLE) {
      labels = V::loadu(y + b);
      value = joined<V>([&](int i) { return Model::value_parts(beta, Row<Tm>{X + sample[b + i]}); });
    } else {
      V parts[W];
      FS_NO_UNROLL
      for (int i = 0; i < W; ++i) {
        e[i] = i < count ? y[b + i] : T(0);
        parts[i] = i < count ? Model::value_parts(beta, Row<Tm>{X + sample[b + i]}) : V::set(0);
      }
      labels = V::load(e);
      value = joined<V>([&](int i) { return parts[i]; });
    }
    const V r = value - labels;
    (dloss * r).store(e);
    asm("" : "+m"(e));  // broadcasts are loads then, of which there are enough
    const auto add = [&](int i) {
      FS_UNROLL
      for (int c = 0; c < C; ++c) sum[c] = fma(V::set(e[i]), Row<Tm>{X + sample[b + i]}.own(c), sum[c]);
    };
    if constexpr (WHOLE) {
      FS_UNROLL
      for (int i = 0; i < W; ++i) add(i);
    } else {
      FS_NO_UNROLL
      for (int i = 0; i < count; ++i) add(i);
    }
    return beyond(r, bound) & ((1u << count) - 1u);
  }

  // Draws of the block of four steps that t is in.
  __attribute__((noinline)) void draw(i64 position, i64 t) {
    for (i64 k = 0; job.indices && k < 4 * job.batch; ++k) row[k] = 0;  // outside a replay any sample will do
    draw_batch<1>(job, keys, &position, t, row);
    for (i64 k = 0; k < 4 * job.batch; ++k) label[k] = job.y[row[k]], row[k] *= u32(job.stride);
  }
  void prefetch(const u32* which) const {
    for (i64 b = 0; b < job.batch; ++b) ask_for(job.X + which[b], job.stride);
  }

  template <int C = 1>
  static constexpr auto loop(int vectors) -> void (JoinedBatch::*)(i64) {
    if constexpr (C == VECTORS) return &JoinedBatch::run_steps<C>;
    else return vectors == C ? &JoinedBatch::run_steps<C> : loop<C + 1>(vectors);
  }
};

}  // namespace fs
