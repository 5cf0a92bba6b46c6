// Owns the general training loop on a GPU: any family, rule, loss, order and noise.
//
// Parallel over networks. LANES = 1: a thread runs one from t0 to t1 by core/general.h, its rows (parameters, gradient,
// buffers, activations) in the thread's local memory, which lies interleaved over the threads of a warp and is
// kept in the first-level cache. LANES = 32 and more: a block of so many threads runs one, its rows in shared
// memory or, where they do not fit, in global memory; a lane keeps outputs, labels and draws of its own. A block
// that has finished a network takes the next that no other has, so that a launch needs no more rows than caches or
// memory hold. Everything about the run but numbers is known when the program is compiled.
//
// Spec: T, LANES, ROWS (numbers that a network keeps), SHARES (rows of a block in shared memory), Model and Teacher
// (each a `Whole`), has_teacher, update(), loss (kind), LABELS, BUFFERS, PLAIN (steps go
// straight into the parameters), FULL, TABLE, STAGED, SETS, FRESH, inputs(), OWN_INPUTS (whether inputs or teachers
// differ between networks), LABEL_NOISE and GRADIENT_NOISE (0 none, else 1 + the kind), ONE, GROUPS (arrays of
// parameters that have numbers of their own, or 0), SCRATCH (numbers that Muon works in), RAGGED (whether
// steps have samples of different number), OWN (numbers that a rule which was traced takes, or 0), LOSSES (numbers of a
// network's own loss, or 0).
#pragma once
#include "../core/functions.h"
#include "../core/general.h"
#include "../core/models/forms.h"
#include "lanes.h"
#include "launch.h"

namespace fs {

// Who works on a network: a thread alone, or a block together.
template <class T, int LANES>
using Work = Either<LANES == 1, Team<T, 1, 1>, Together<T, LANES>>;

// What a program has of traced losses and penalties, unless it says otherwise.
struct NothingOwn {
  static constexpr bool OWN_LOSS = false, OWN_PENALTY = false, OWN_RULE = false;
  static constexpr int PENALTY_ROWS = 0;  // rows that a penalty needs
};

// A model as the general loop sees it; Made::model() is its shape, known to the compiler. OWN_LOSS, OWN_PENALTY,
// OWN_RULE: whether Made::Loss, Made::Penalty and Made::Rule, which were traced, stand for the loss, come on top of the
// rule, and are its step.
template <class Tm, class Made>
struct Whole {
  using V = typename Tm::V;
  FS_HD static constexpr auto model() { return Made::template model<Tm>(); }
  static constexpr int P = model().P(), inputs = model().inputs(), outputs = model().outputs();
  static constexpr int residuals = model().residuals() > Made::PENALTY_ROWS ? model().residuals() : Made::PENALTY_ROWS;
  static constexpr bool MOVES = false, STEPS = Made::OWN_RULE;
  FS_DEVICE static constexpr bool moves() { return MOVES; }

  FS_DEVICE void forward(const V* w, const V* x, V* keep, V* out) const {
    model().forward(w, Columns<Tm>{x}, keep, out);
  }
  FS_DEVICE void vjp(const V* w, const V* x, const V* g, V* keep, V* to) const {
    model().vjp(w, Columns<Tm>{x}, g, keep, Accumulate<V>{to});
  }
  template <class L>
  FS_DEVICE u32 dloss(const L& loss, const V* f, const V* y, V* g) const {
    if constexpr (Made::OWN_LOSS)
      return typename Made::template Loss<Tm>().dloss(f, y, loss.bound, g, (const V*)nullptr);
    else return loss.dloss(f, y, outputs, g);
  }
  template <class L>
  FS_DEVICE u32 dloss(const L& loss, const V* f, const V* y, V* g, const V* own) const {
    if constexpr (Made::OWN_LOSS) return typename Made::template Loss<Tm>().dloss(f, y, *own, g, own + 1);
    else return loss.dloss(f, y, outputs, g, own);
  }
  FS_DEVICE static constexpr bool penalised(const TracedPenalty&) { return Made::OWN_PENALTY; }
  FS_DEVICE void penalise(const TracedPenalty&, const V* w, V* keep, V* to) const {
    if constexpr (Made::OWN_PENALTY) typename Made::template Penalty<Tm>().vjp(w, keep, Accumulate<V>{to});
  }
  FS_DEVICE void step(const TracedRule&, int begin, int end, const bool* fixed, V* w, const V* g, V* state,
                      const V* numbers) const {
    typename Made::template Rule<Tm>().move(begin, end, P, fixed, w, g, state, numbers);
  }
};

// The samples of one network.
template <class Spec, class Tm>
struct RowFeed {
  using T = typename Spec::T;
  using V = Vec<T, 1>;
  const Launch<T>& job;
  const T *X, *labels;
  i64 k, count;  // position of the network, samples a step that are drawn
  const Draws draws;
  V* x;                 // [inputs]
  u32 drawn[4], index;  // samples of four steps, and of this one

  FS_DEVICE V* buffer() { return x; }
  FS_DEVICE const V* inputs() const { return x; }
  // Draws for the block of four steps that t is in.
  FS_DEVICE void draw(const i64*, i64 t) {
    if (!Spec::TABLE && count == 1) draws.block(u32(t / 4), 0, drawn);
  }
  FS_DEVICE const u32* which(i64 t, i64 b) {
    if constexpr (Spec::TABLE) return listed(job, k, t, b, count);
    if (count > 1) draws.block(u32(t / 4), u32(b), drawn);
    index = pick(drawn, u32(t) % 4);
    return &index;
  }
  FS_DEVICE void take(const u32* at, int count, V* y) {
    const T* row = X + *at * job.stride;
    for (int j = Tm::first(); j < Spec::Model::inputs; j += Tm::step()) x[j] = V::set(row[j]);
    for (int j = 0; j < count; ++j) y[j] = V::set(labels[i64(*at) * count + j]);
  }
};

// Of 1, 2, ... in a program; 0 is no noise.
FS_DEVICE constexpr NoiseKind::Kind noise_kind(int number) { return NoiseKind::Kind(number - 1); }

// The job of core/general.h: what the program knows, and what a launch brings.
template <class Spec>
FS_DEVICE GeneralJob<typename Spec::T> general_job(const Launch<typename Spec::T>& from) {
  using T = typename Spec::T;
  GeneralJob<T> all{};
  Job<T>& job = all.job;
  job.ids = from.ids, job.W = from.W, job.lost = from.lost, job.base = from.base, job.row = from.row;
  job.t0 = from.t0, job.t1 = from.t1, job.multiplier = from.multiplier, job.n = from.n, job.stride = from.stride;
  job.batch = Spec::PLAIN ? 1 : from.batch, job.full = Spec::FULL, job.seed = from.seed;
  all.buffers = from.buffers, all.labels = Spec::LABELS;
  all.loss = {Spec::loss, from.factor, from.loss_weights, from.bound};
  all.update = Spec::update();
  all.update.fixed = from.fixed;
  for (int h = 0; h < HYPERS; ++h) all.hyper[h] = from.hyper[h];
  if (Spec::GROUPS) all.groups = Spec::GROUPS, all.ends = from.ends, all.each = from.each;
  if (Spec::LOSSES) all.losses = from.losses, all.loss_numbers = Spec::LOSSES;
  if (Spec::OWN) all.own.numbers = Spec::OWN, all.constants = from.constants;
  if (Spec::RAGGED) all.counts = from.counts, all.count_rows = from.count_rows;
  if (Spec::LABEL_NOISE) all.label_noise = {noise_kind(Spec::LABEL_NOISE), Spec::ONE, from.label};
  if (Spec::GRADIENT_NOISE) all.gradient_noise = {noise_kind(Spec::GRADIENT_NOISE), false, from.gradient};
  all.fresh.on = Spec::FRESH, all.fresh.inputs = Spec::inputs(), all.fresh.weights = from.teacher_weights;
  if (Spec::OWN_INPUTS)
    all.fresh.density = from.density, all.fresh.scale = from.scale, all.fresh.teachers = from.teachers;
  return all;
}

// Runs network k, its rows in `row` [ROWS].
template <class Spec, class Tm>
FS_DEVICE void general_network(const Launch<typename Spec::T>& job, i64 k, const typename Spec::T* X,
                               const typename Spec::T* y, Vec<typename Spec::T, 1>* row) {
  using T = typename Spec::T;
  using V = Vec<T, 1>;
  using M = typename Spec::Model;
  using G = typename Spec::Teacher;
  using Feed = RowFeed<Spec, Tm>;
  using Loop = General<Tm, M, G, Feed>;
  constexpr auto rule = Spec::update();
  auto take = [&](int count) {
    V* mine = row;
    row += count;
    return mine;
  };
  GeneralRows<V> r{};
  r.w = take(M::P);
  r.gradient = take(Spec::PLAIN ? 0 : M::P), r.point = take(rule.perturb == Update::NONE ? 0 : M::P);
  r.own = take(rule.perturb == Update::SAMPLE ? M::P : 0), r.buffers = take(Spec::BUFFERS * M::P);
  r.each = take(Spec::GROUPS * EACH), r.scratch = take(Spec::SCRATCH), r.numbers = take(Spec::OWN),
  r.loss = take(Spec::LOSSES);
  r.residuals = take(M::residuals), r.teacher_w = take(Spec::has_teacher ? G::P : 0),
  r.teacher_residuals = take(Spec::has_teacher ? G::residuals : 0);
  V* const x = take(M::inputs);
  V out[M::outputs], dloss[M::outputs], labels[Spec::LABELS], noisy[Spec::LABELS];
  V drawn[Spec::LABEL_NOISE ? 4 * Loop::BLOCKS : 1];
  r.out = out, r.dloss = dloss, r.y = labels, r.noisy = noisy, r.drawn = drawn;
  const auto all = general_job<Spec>(job);
  if constexpr (Spec::SETS) X += job.first[k] * job.stride, y += job.first[k] * Spec::LABELS;
  const M model{};
  const G teacher{};
  Feed feed{job, X, y, k, all.draws(), Draws(job, k), x, {}, 0};
  Loop(all, model, Spec::has_teacher ? &teacher : nullptr, feed, r).run(&k, 1);
}

template <class Spec>
FS_DEVICE void general(const Launch<typename Spec::T>& job) {
  using T = typename Spec::T;
  using V = Vec<T, 1>;
  using Tm = Work<T, Spec::LANES>;
  if constexpr (Spec::LANES == 1) {
    const T *X = job.X, *y = job.y;
    if constexpr (Spec::STAGED) {
      FS_DYN_SHARED(T, shared);
      stage(stage(shared, X, job.n * job.stride), y, job.n * Spec::LABELS);
      __syncthreads();
    }
    V row[Spec::ROWS];
    for (i64 i = thread_number(); i < job.count; i += thread_count())
      general_network<Spec, Tm>(job, job.positions[i], X, y, row);
  } else {
    FS_DYN_SHARED(T, shared);
    T* row = Spec::SHARES ? shared + Tm::SLOT : job.scratch + i64(blockIdx.x) * Spec::ROWS;
    for (i64 i = blockIdx.x; i < job.count; i += gridDim.x) {
      general_network<Spec, Tm>(job, job.positions[i], job.X, job.y, reinterpret_cast<V*>(row));
      Tm::sync();  // the rows are the next network's
    }
  }
}

}  // namespace fs
