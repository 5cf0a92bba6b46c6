// Owns the time loop of one sample a step where network, loss and rule are known when it is compiled: one network a
// lane, several vectors of networks in turn, so that the latencies of one hide behind the work of the others.
//
// The bits are those of core/general.h, which runs everything that this does not.
#pragma once
#include "../core/general.h"
#include "../cpu/samples.h"

namespace fs {

// Spec: T, W lanes, LABELS (numbers in a row of y), model<Tm>() with forward and vjp, loss(given), whose
// dloss(f, y, outputs, g) returns the lanes that are out of bounds, and update(), a rule that looks at each parameter
// by itself (Update::each) or is plain. A rule that is not plain wants every derivative handed over once. RESIDUALS:
// vectors of them that a vector of networks keeps from step to step, for compiled/sweeps.h.
template <class Spec>
class Steps {
 public:
  using T = typename Spec::T;
  static constexpr int W = Spec::W;

  Steps(const GeneralJob<T>& all_, char* at) : all(all_), job(all_.job), keys(all_.job.seed) {
    for (int m = 0; m < side(all); ++m, at += group_bytes()) {
      group[m].w = reinterpret_cast<V*>(at), group[m].buffers = group[m].w + P;
      group[m].residuals = reinterpret_cast<V*>(at + line(ROWS * sizeof(V)));
      group[m].samples.lay_out(at + line(ROWS * sizeof(V)) + line(Spec::RESIDUALS * sizeof(V)), model().inputs());
    }
    residuals = reinterpret_cast<V*>(at);
  }
  static i64 side(const GeneralJob<T>&) {
    const i64 fit = NEAR_BYTES / i64(ROWS * sizeof(V));
    return fit < 2 ? 2 : fit < MOST ? fit : MOST;
  }
  static i64 bytes(const GeneralJob<T>& all) {
    return side(all) * group_bytes() + line(model().residuals() * sizeof(V));
  }

  // Run `count` networks from t0 to t1; their positions in the job are at `positions`.
  void run(const i64* positions, int count) {
    load(positions, count);
    const i64 work = i64(P) * MOST, most = work < LONG ? LONG / work : 1;
    i64 t = job.t0;
    for (int part; t < job.t1 && groups; t += part) {
      part = steps_at_once(t, job.t1, most, 0);
      for (int m = 0; m < groups; ++m) {
        Group& q = group[m];
        if (t == job.t0 || t % WINDOW == 0) draw_window<W>(job, keys, q.member, t, q.samples.index);
        step_sizes<W>(job, q.member, t, part, q.samples.rate);
      }
      steps(t, part);
      FS_WORKED(work * part);
    }
    for (int m = 0; m < groups; ++m) retire(group[m], group[m].alive, -1);
  }

 protected:
  using Tm = Team<T, W, 1>;
  using V = typename Tm::V;
  using A = Samples<Tm, false>;
  static constexpr auto model() { return Spec::template model<Tm>(); }
  static constexpr Update RULE = Spec::update();
  static constexpr int LABELS = Spec::LABELS, P = model().P(), OUTPUTS = model().outputs(),
                       ROWS = (1 + RULE.buffers) * P;
  static constexpr int MOST = 8;            // vectors of networks in a block
  static constexpr i64 NEAR_BYTES = 16000;  // of weights and buffers, which share a near cache with the data
  static constexpr i64 LONG = 1 << 24;      // work that takes a part of a second
  static constexpr bool DECAYS = RULE.uses >> WEIGHT_DECAY & 1, NESTEROV_ = RULE.is(NESTEROV);
  static constexpr bool PLAIN = !RULE.uses && !RULE.flags;
  static constexpr Mover BY = RULE.is(ADAM) ? BY_ADAM : RULE.uses >> MOMENTUM & 1 ? BY_MOMENTUM : BY_GRADIENT;

  struct Group {
    V *w, *buffers;  // [P], [RULE.buffers, P]
    u32 alive;       // bit per lane
    i64 member[W];   // position of each network in the job
    A samples;
    V hyper[HYPERS];
    V* residuals;  // [Spec::RESIDUALS], of a loop that needs them
  };

  const GeneralJob<T>& all;
  const Job<T>& job;
  const Keys keys;
  V* residuals;
  Group group[MOST];
  int groups = 0;

  static constexpr i64 line(i64 bytes) { return (bytes + 63) / 64 * 64; }
  static i64 group_bytes() {
    return line(ROWS * sizeof(V)) + line(Spec::RESIDUALS * sizeof(V)) + line(A::bytes(model().inputs()));
  }
  static T* lane(V* rows, int g) { return reinterpret_cast<T*>(rows) + g; }

  void load(const i64* positions, int count) {
    groups = (count + W - 1) / W;
    for (int m = 0; m < groups; ++m) {
      Group& q = group[m];
      q.alive = 0;
      for (int g = 0; g < W; ++g) {
        const int k = m * W + g;
        const i64 n = q.member[g] = positions[k < count ? k : m * W];  // spare lanes shadow the group's first network
        if (k < count) q.alive |= 1u << g;
        for (int p = 0; p < P; ++p) lane(q.w, g)[p * W] = job.W[n * P + p];
        for (int p = 0; p < ROWS - P; ++p) lane(q.buffers, g)[p * W] = all.buffers[n * (ROWS - P) + p];
        for (int h = 0; h < HYPERS; ++h) *lane(q.hyper + h, g) = all.hyper[h] ? all.hyper[h][n] : T(0);
      }
    }
  }
  // Write back the living networks in `which`, lost at step t or alive (-1); the broken ones stay as they were at t0.
  __attribute__((noinline)) void retire(Group& q, u32 which, i64 t) {
    for (int g = 0; g < W; ++g) {
      if (!(which & q.alive & 1u << g)) continue;
      const i64 n = q.member[g];
      bool bad = false;
      for (int p = 0; p < ROWS; ++p) bad |= !finite(lane(q.w, g)[p * W]);
      for (int p = 0; !bad && p < P; ++p) job.W[n * P + p] = lane(q.w, g)[p * W];
      for (int p = 0; !bad && p < ROWS - P; ++p) all.buffers[n * (ROWS - P) + p] = lane(q.buffers, g)[p * W];
      job.lost[n] = bad ? UNSETTLED : t;
    }
    q.alive &= ~which;
  }
  __attribute__((noinline)) void close_up() {
    groups = living_first(group, groups, [](int, int) {});
  }

  // Take the samples `which` [W] in hand as columns, and their labels.
  FS_HD static void fetch(A& samples, const Data<T>& data, const u32* which, V (&y)[LABELS]) {
    constexpr int D = model().inputs();
    if constexpr (LABELS == 1 && D < 4) {  // where they may lie side by side
      y[0] = samples.fetch(data, which);
      return;
    }
    const T* row[W];
    FS_UNROLL
    for (int g = 0; g < W; ++g) row[g] = data.X + which[g] * data.stride;
    V* const to = samples.spare;
    samples.spare = samples.columns, samples.columns = to;
    FS_UNROLL
    for (int j = 0; j < D; j += W) {
      V r[W];
      FS_UNROLL
      for (int g = 0; g < W; ++g) r[g] = V::loadu(row[g] + j);
      transpose<W / 2>(r);
      FS_UNROLL
      for (int k = 0; k < W; ++k)
        if (j + k < D) to[j + k] = r[k];
    }
    for (int k = 0; k < LABELS; ++k) {
      FS_UNROLL
      for (int g = 0; g < W; ++g) *lane(y + k, g) = data.y[i64(which[g]) * LABELS + k];
    }
  }

  // Steps t .. t + count - 1.
  __attribute__((noinline)) void steps(i64 t, int count) {
    const Data<T> data(job);
    const auto loss = Spec::loss(all.loss);
    V* const residuals = this->residuals;
    for (int s = 0; s < count && groups; ++s) {
      bool died = false;
      for (Group *q = group, *end = group + groups; q < end; ++q) {
        V y[LABELS], out[OUTPUTS], g[OUTPUTS], *const w = q->w;
        fetch(q->samples, data, q->samples.index + A::at(t + s), y);
        const auto x = q->samples.input();
        model().forward(w, x, residuals, out);
        const u32 bad = loss.dloss(out, y, OUTPUTS, g) & q->alive;
        if (__builtin_expect(bad != 0, 0)) {
          retire(*q, bad, t + s);
          died |= !q->alive;
        }
        const V rate = q->samples.rates(s);
        if constexpr (PLAIN) {
          for (int k = 0; k < OUTPUTS; ++k) g[k] = rate * g[k];
          model().vjp(w, x, g, residuals, Accumulate<V>{w});
        } else {
          model().vjp(w, x, g, residuals, Move < BY, DECAYS || NESTEROV_,
                      V > {w, q->buffers, q->buffers + P, Numbers<V>(RULE, q->hyper, rate, t + s),
                           DECAYS && !RULE.is(DECOUPLED), DECAYS && RULE.is(DECOUPLED), NESTEROV_});
        }
      }
      if (__builtin_expect(died, 0)) close_up();
    }
  }
};

// A loss of ours, its kind known.
template <class T, typename Loss<T>::Kind KIND>
FS_HD Loss<T> known_loss(const Loss<T>& given) {
  return {KIND, given.factor, given.weights, given.bound, {}, {}};
}
// A traced one.
template <class T, class Traced>
struct KnownTraced {
  T bound;
  template <class V>
  FS_HD u32 dloss(const V* f, const V* y, int, V* g) const {
    return Traced().dloss(f, y, bound, g, (const V*)nullptr);
  }
};

}  // namespace fs
