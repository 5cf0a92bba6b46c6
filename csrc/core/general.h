// Owns the general training loop: any family, loss, rule and noise, one network a lane, a vector of networks at a time.
//
// Plain SGD and GD on squared losses of two families have loops of their own (cpu/fused.h, cuda/fused.h), which fuse
// the step into the sweep; here a step is a gradient in rows of its own and what the rule makes of it. Parallel over
// lanes; a GPU thread is one lane.
#pragma once
#include "job.h"
#include "losses.h"
#include "models/family.h"
#include "rules/noise.h"
#include "rules/update.h"

namespace fs {

// Values of a schedule, one a network and step: base[k] * multiplier[row[k], t - t0]; base is null if there is none.
template <class T>
struct Amplitude {
  const T* base;        // [N]
  const i32* row;       // [N]
  const T* multiplier;  // [Q, t1 - t0]
};

template <class T>
struct Noise {
  NoiseKind::Kind kind;
  bool one;  // of the labels: on one sample, drawn in the run's order, on top of the full gradient
  Amplitude<T> amplitude;
};

// Inputs made in the kernel, and labels by a teacher.
template <class T>
struct Fresh {
  bool on;
  Inputs inputs;
  const FamilyShape* teacher;  // or null: the label is the input
  const T* weights;            // [P of the teacher]; null where each network has its own
  const T* teachers;           // [N, P of the teacher], their own, or null
  const double* density;       // [N], or null: that of `inputs`
  const T* scale;              // [N] of inputs, or null
};

template <class T>
struct GeneralJob {
  Job<T> job;  // sizes, networks, time, samples, draws; its W holds weights, its `dloss` and `bound` are not used
  FamilyShape shape;
  T* buffers;  // [N, update.buffers, P] read and written
  int labels;  // numbers in a row of y
  Loss<T> loss;
  const T* losses;   // [N, loss_numbers] where networks have losses of their own, or null
  int loss_numbers;  // OWN_NUMBERS and more
  Update update;
  const T* hyper[HYPERS];  // [N] each, or null
  int groups;              // named arrays of parameters, where they have numbers of their own
  const i32* ends;         // [2 groups + 1]
  int scratch;             // numbers that Muon works in
  const T* each;           // [N, groups, EACH]
  const u32* counts;       // [count_rows, t1 - t0] samples of each step, of `batch` in a row; null if that many
  i64 count_rows;
  Noise<T> label_noise, gradient_noise;
  Fresh<T> fresh;
  TracedPenalty penalty;  // on top of what the rule adds
  TracedRule own;         // in the place of the rule's step, with its constants
  const T* constants;     // [N, own.numbers - 2]

  // Whether label noise is on one sample, drawn in the run's order, on top of a full step.
  FS_HD bool one_label() const { return label_noise.one && label_noise.amplitude.base; }
  // Samples of a step that are drawn.
  FS_HD i64 draws() const { return fresh.on ? 0 : one_label() ? 1 : job.full ? 0 : job.batch; }
};

// Where a group of networks keeps its numbers while it runs: [P] each unless it says otherwise.
template <class V>
struct GeneralRows {
  V *w, *gradient, *point, *own;
  V* buffers;          // [buffers, P]
  V *each, *scratch;   // [groups, EACH] and [scratch]
  V *numbers, *loss;   // [own.numbers] and [loss_numbers]
  V *residuals, *out;  // [model.residuals] and [o]
  V* dloss;            // [o] derivative of the loss
  V *y, *noisy;        // [labels] of the sample in hand, and with noise on them
  V* drawn;            // [BLOCKS, 4] label noise of items 0 .. BLOCKS - 1 at this step and those that share its draws
  V *teacher_w, *teacher_residuals;  // the teacher's, if there is one
};

// Model: forward(w, x, residuals, out), vjp(w, x, g, residuals, to), P, inputs, outputs; moves(), and if MOVES
// move(rule, w, x, g, residuals, buffers, numbers), which differentiates and updates in one; dloss(loss, f, y, g),
// also with a last argument `own`, penalised(penalty), penalise(penalty, w, residuals, to) and, if STEPS, step(own,
// begin, end, fixed, w, g, state, numbers), since these may have been traced with it.
// Teacher: as Model; null if there is none.
// Feed: draw(positions, t), which(t, b) [W], take(which, labels, y), inputs() [d], buffer() [d] for inputs made here.
// Tm: one lane alone on each network, or all lanes of a block on one.
template <class Tm, class Model, class Teacher, class Feed>
class General {
  using T = typename Tm::T;
  using V = typename Tm::V;
  static constexpr int W = Tm::W, G = W;

  const GeneralJob<T>& all;
  const Job<T>& job;
  const Update& rule;
  const Model& model;
  const Teacher* teacher;
  Feed& feed;
  const GeneralRows<V> r;
  V hyper[HYPERS];
  i64 member[G];
  u32 id[G];
  u32 start[G];       // row at which a network's data set begins
  double density[G];  // of inputs made here, and their scale
  V scale;
  u32 alive;

 public:
  static constexpr int BLOCKS = 64;

  FS_HD General(const GeneralJob<T>& a, const Model& m, const Teacher* t, Feed& f, const GeneralRows<V>& rows)
      : all(a), job(a.job), rule(a.update), model(m), teacher(t), feed(f), r(rows) {
    FS_UNROLL_ROWS
    for (int p = Tm::first(); t && a.fresh.weights && p < t->P; p += Tm::step())
      r.teacher_w[p] = V::set(a.fresh.weights[p]);
  }

  // Run `count` networks from t0 to t1; their positions in the job are at `positions`.
  FS_HD void run(const i64* positions, int count) {
    load(positions, count);
    for (i64 t = job.t0; t < job.t1 && alive; ++t) {
      step(t);
      FS_WORKED(model.P);
    }
    settle(alive, -1);
  }

 private:
  FS_APART void load(const i64* positions, int count) {
    alive = 0;
    for (int g = 0; g < G; ++g) {
      member[g] = positions[g < count ? g : 0];  // spare lanes shadow the first network
      id[g] = u32(job.ids[member[g]]);
      start[g] = job.first ? u32(job.first[member[g]]) : 0;
      if (g < count) alive |= 1u << g;
    }
    if (all.fresh.on) load_fresh();
    for (int g = 0; g < G; ++g) rows_of(g, [](T* lane, T* canonical) { *lane = *canonical; });
    for (int h = 0; h < HYPERS; ++h)
      for (int g = 0; g < G; ++g) lane(hyper[h], g) = all.hyper[h] ? all.hyper[h][member[g]] : T(0);
    for (int i = 0; all.losses && i < all.loss_numbers; ++i)
      for (int g = 0; g < G; ++g) lane(r.loss[i], g) = all.losses[member[g] * all.loss_numbers + i];
    for (int i = 2; i < all.own.numbers; ++i)
      for (int g = 0; g < G; ++g) lane(r.numbers[i], g) = all.constants[member[g] * (all.own.numbers - 2) + i - 2];
    if (!rule.is(GROUPED)) return;
    const int own = all.groups * EACH;
    for (int i = Tm::first(); i < own; i += Tm::step())
      for (int g = 0; g < G; ++g) lane(r.each[i], g) = all.each[member[g] * own + i];
    Tm::sync();
  }
  // What inputs and teachers each network has of its own.
  FS_HD void load_fresh() {
    const Fresh<T>& f = all.fresh;
    for (int g = 0; g < G; ++g) {
      density[g] = f.density ? f.density[member[g]] : f.inputs.density;
      lane(scale, g) = f.scale ? f.scale[member[g]] : T(1);
    }
    if (!teacher || !f.teachers) return;
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < teacher->P; p += Tm::step())
      for (int g = 0; g < G; ++g) lane(r.teacher_w[p], g) = f.teachers[member[g] * teacher->P + p];
    Tm::sync();
  }
  FS_HD static T& lane(V& v, int g) { return reinterpret_cast<T*>(&v)[g]; }
  template <class F>
  FS_HD void rows_of(int g, F f) {
    const i64 k = member[g];
    const int P = model.P;
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step()) f(&lane(r.w[p], g), job.W + k * P + p);
    FS_UNROLL_ROWS
    for (i64 p = Tm::first(); p < i64(rule.buffers) * P; p += Tm::step())
      f(&lane(r.buffers[p], g), all.buffers + k * rule.buffers * P + p);
  }
  // The lanes in which a weight or a buffer is not finite: once it is not, it never is again.
  FS_APART u32 broken() const {
    const V none = V::set(0);
    const V w = tree_sum<Tm>(model.P, [&](int p, V s) { return fma(none, r.w[p], s); });
    const V b = tree_sum<Tm>(rule.buffers * model.P, [&](int p, V s) { return fma(none, r.buffers[p], s); });
    return beyond(w + b, T(0));
  }
  // Write back the networks in lanes `which`, lost at step t or alive (-1); the broken ones stay as they were at t0.
  FS_APART void settle(u32 which, i64 t) {
    const u32 bad = broken();
    Tm::sync();
    for (int g = 0; g < G; ++g)
      if (which >> g & 1) {
        if (!(bad >> g & 1)) rows_of(g, [](T* lane, T* canonical) { *canonical = *lane; });
        if (Tm::first() == 0) job.lost[member[g]] = bad >> g & 1 ? UNSETTLED : t;
      }
  }
  FS_HD void retire(u32 bad, i64 t) {
    settle(bad, t);
    alive &= ~bad;
    Tm::sync();
  }

  FS_HD V amplitude(const T* base, const i32* row, const T* multiplier, i64 t) const {
    V v;
    for (int g = 0; g < G; ++g) {
      const i64 k = member[g];
      lane(v, g) = base[k] * multiplier[row[k] * (job.t1 - job.t0) + t - job.t0];
    }
    return v;
  }
  FS_HD V amplitude(const Amplitude<T>& a, i64 t) const { return amplitude(a.base, a.row, a.multiplier, t); }
  // Draw t of the labels' noise for one item: a block serves some steps, and what is left of it is kept.
  FS_APART V label_noise(i64 t, u32 item) {
    const int steps = draws_of_block(all.label_noise.kind);
    const bool keeps = item < BLOCKS;
    V own[4], *z = keeps ? r.drawn + 4 * item : own;
    if (!keeps || t % steps == 0 || t == job.t0) block(all.label_noise, u32(t / steps), LABEL_NOISE, item, z);
    return z[t % steps];
  }
  FS_HD void block(const Noise<T>& n, u32 number, Stream stream, u32 item, V* z) const {
    noise_block<T, W>(n.kind, job.seed, id, number, stream, item,
                      hyper[stream == LABEL_NOISE ? LABEL_ALPHA : GRADIENT_ALPHA], z);
  }

  // Take sample b of step t in hand: x in the feed, labels in y.
  FS_HD void fetch(i64 t, i64 b) {
    if (all.fresh.on) return make(t, b);
    u32 same[G];
    if (job.full)
      for (int g = 0; g < G; ++g) same[g] = u32(b) + start[g];
    feed.take(job.full ? same : feed.which(t, b), all.labels, r.y);
  }
  FS_APART void make(i64 t, i64 b) {
    V* x = feed.buffer();
    fresh_inputs<Tm, T, W>(all.fresh.inputs.kind, density, all.fresh.scale ? &scale : nullptr, job.seed, id, t, u32(b),
                           model.inputs, x);
    if (teacher) teacher->forward(r.teacher_w, x, r.teacher_residuals, r.y);
    else
      for (int k = 0; k < all.labels; ++k) r.y[k] = x[k];
  }

  // dloss [o] of the loss at outputs `out`; the lanes that are out of bounds.
  FS_HD u32 dloss(const V* labels) const {
    return all.losses ? model.dloss(all.loss, r.out, labels, r.dloss, r.loss)
                      : model.dloss(all.loss, r.out, labels, r.dloss);
  }
  // dloss [o] of the loss of the sample in hand at parameters `at`, over the number of samples; out-of-bounds lanes.
  FS_HD u32 sample(const V* at, i64 t, i64 b, V share) {
    model.forward(at, feed.inputs(), r.residuals, r.out);
    const V* labels = r.y;
    if (all.label_noise.amplitude.base && !all.label_noise.one) {
      const V scale = amplitude(all.label_noise.amplitude, t);
      for (int k = 0; k < all.labels; ++k) r.noisy[k] = r.y[k] + scale * label_noise(t, u32(b * all.labels + k));
      labels = r.noisy;
    }
    const u32 bad = dloss(labels);
    for (int k = 0; k < model.outputs; ++k) r.dloss[k] = share * r.dloss[k];
    return bad;
  }

  // The lanes that have a sample b at step t; `share`: 1 over the number of those that they have.
  FS_HD u32 shares(i64 t, i64 b, V& share) const {
    u32 there = 0;
    for (int g = 0; g < G; ++g) {
      const i64 row = all.count_rows > 1 ? member[g] : 0;
      const u32 count = all.counts[row * (job.t1 - job.t0) + t - job.t0];
      lane(share, g) = T(1) / T(count);
      there |= u32(b < count) << g;
    }
    return there;
  }
  // Lanes without a sample here get no derivative.
  FS_HD void silence(u32 there) {
    for (int k = 0; k < model.outputs; ++k)
      for (int g = 0; g < G; ++g)
        if (!(there >> g & 1)) lane(r.dloss[k], g) = 0;
  }

  // gradient = mean over the batch of the gradient at parameters `at`.
  FS_APART u32 accumulate(const V* at, i64 t) {
    clear(r.gradient);
    u32 bad = 0, there = ~0u;
    V share = V::set(T(1) / T(job.batch));
    const V whole = V::set(1);
    for (i64 b = 0; b < job.batch; ++b) {
      fetch(t, b);
      if (all.counts) there = shares(t, b, share);
      if (rule.perturb == Update::SAMPLE) {
        bad |= sample(at, t, b, whole) & there;
        clear(r.own);
        model.vjp(at, feed.inputs(), r.dloss, r.residuals, r.own);
        perturbed<Tm>(rule, model.P, at, r.own, hyper[RHO], r.point);
        bad |= sample(r.point, t, b, share) & there;
        if (all.counts) silence(there);
        model.vjp(r.point, feed.inputs(), r.dloss, r.residuals, r.gradient);
      } else {
        bad |= sample(at, t, b, share) & there;
        if (all.counts) silence(there);
        model.vjp(at, feed.inputs(), r.dloss, r.residuals, r.gradient);
      }
      FS_WORKED(model.P);
    }
    return bad;
  }
  FS_HD void clear(V* rows) {
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < model.P; p += Tm::step()) rows[p] = V::set(0);
  }

  FS_HD void step(i64 t) {
    if (t == job.t0 || t % 4 == 0) feed.draw(member, t);
    const V rate = -amplitude(job.base, job.row, job.multiplier, t);
    const bool noisy = all.gradient_noise.amplitude.base || all.one_label() || model.penalised(all.penalty);
    const bool plain = rule.plain(), moves = !plain && model.moves() && rule.each();
    if ((plain || moves) && job.batch == 1 && !noisy) {
      fetch(t, 0);
      const u32 bad = sample(r.w, t, 0, V::set(1)) & alive;
      if (__builtin_expect(bad != 0, 0)) retire(bad, t);
      if constexpr (Model::MOVES)
        if (moves)
          return model.move(rule, r.w, feed.inputs(), r.dloss, r.residuals, r.buffers,
                            Numbers<V>(rule, hyper, rate, t));
      for (int k = 0; k < model.outputs; ++k) r.dloss[k] = rate * r.dloss[k];
      model.vjp(r.w, feed.inputs(), r.dloss, r.residuals, r.w);
      return;
    }
    u32 bad = accumulate(r.w, t);
    if (rule.perturb == Update::BATCH) {
      perturbed<Tm>(rule, model.P, r.w, r.gradient, hyper[RHO], r.point);
      bad |= accumulate(r.point, t);
    }
    bad &= alive;
    if (__builtin_expect(bad != 0, 0)) retire(bad, t);
    add_noise(t);
    model.penalise(all.penalty, r.w, r.residuals, r.gradient);
    const Groups<V> groups{all.groups, all.ends, r.each, r.scratch};
    if constexpr (Model::STEPS)
      update<Tm>(rule, model.P, r.w, r.gradient, r.buffers, hyper, rate, t, groups, [&](int begin, int end, V along) {
        r.numbers[0] = V::set(0) - along, r.numbers[1] = V::set(T(t));
        model.step(all.own, begin, end, rule.fixed, r.w, r.gradient, r.buffers, r.numbers);
      });
    else update<Tm>(rule, model.P, r.w, r.gradient, r.buffers, hyper, rate, t, groups);
  }
  FS_APART void add_noise(i64 t) {
    if (all.one_label()) {
      feed.take(feed.which(t, 0), all.labels, r.y);
      model.forward(r.w, feed.inputs(), r.residuals, r.out);
      dloss(r.y);
      for (int k = 0; k < all.labels; ++k) r.noisy[k] = r.dloss[k];
      const V scale = amplitude(all.label_noise.amplitude, t);
      for (int k = 0; k < all.labels; ++k) r.y[k] = r.y[k] + scale * label_noise(t, u32(k));
      dloss(r.y);
      for (int k = 0; k < all.labels; ++k) r.dloss[k] = r.dloss[k] - r.noisy[k];
      model.vjp(r.w, feed.inputs(), r.dloss, r.residuals, r.gradient);
    }
    if (all.gradient_noise.amplitude.base) {
      const V scale = amplitude(all.gradient_noise.amplitude, t);
      const int many = draws_of_block(all.gradient_noise.kind);  // parameters that a block serves
      V z[4];
      for (int q = Tm::first(); q * many < model.P; q += Tm::step()) {
        block(all.gradient_noise, u32(t), GRADIENT_NOISE, u32(q), z);
        for (int p = q * many; p < model.P && p < (q + 1) * many; ++p)
          if (rule.free(p)) r.gradient[p] = r.gradient[p] + scale * z[p - q * many];
      }
      Tm::sync();
    }
  }
};

}  // namespace fs
