// Owns the general training loop on a GPU: any family, rule, loss, order and noise.
//
// Parallel over networks: a thread runs one from t0 to t1 by core/general.h, its rows (parameters, gradient, buffers,
// activations) in the thread's local memory, which lies interleaved over the threads of a warp and is kept in the
// first-level cache. Everything about the run but numbers is known when the program is compiled.
//
// Spec: T, Model and Teacher (each a `Whole`), taught (whether there is a teacher), update(), loss (kind), LABELS,
// BUFFERS, PLAIN (steps go straight into the parameters), FULL, TABLE, STAGED, FRESH, inputs(), LABEL_NOISE and
// GRADIENT_NOISE (0 none, 1 Gaussian, 2 signs), ONE.
#pragma once
#include "../core/general.h"
#include "../core/models/autoencoder.h"
#include "../core/models/dense.h"
#include "../core/models/power.h"
#include "../core/models/product.h"
#include "launch.h"
#include "platform.h"

namespace fs {

// A model as the general loop sees it; Made::model() is its shape, known to the compiler.
template <class T, class Made>
struct Whole {
  using V = Vec<T, 1>;
  using Tm = Team<T, 1, 1>;
  FS_HD static constexpr auto model() { return Made::template model<Tm>(); }
  static constexpr int P = model().P(), inputs = model().inputs(), outputs = model().outputs(), kept = model().kept();

  FS_DEVICE void forward(const V* w, const V* x, V* keep, V* out) const {
    model().forward(w, Columns<Tm>{x}, keep, out);
  }
  FS_DEVICE void pull(const V* w, const V* x, const V* g, V* keep, V* to) const {
    model().pull(w, Columns<Tm>{x}, g, keep, Accumulate<V>{to});
  }
};

// The samples of one network.
template <class Spec>
struct ThreadFeed {
  using T = typename Spec::T;
  using V = Vec<T, 1>;
  const Launch<T>& job;
  const T *X, *labels;
  i64 k, draws;
  u32 index;
  V x[Spec::Model::inputs];

  FS_DEVICE V* room() { return x; }
  FS_DEVICE const V* inputs() const { return x; }
  FS_DEVICE void draw(const i64*, i64) {}
  FS_DEVICE const u32* which(i64 t, i64 b) {
    if constexpr (Spec::TABLE)
      index = job.indices[((job.index_rows > 1 ? k : 0) * (job.t1 - job.t0) + t - job.t0) * draws + b];
    else index = drawn(job, u32(job.ids[k]), t, u32(b));
    return &index;
  }
  FS_DEVICE void take(const u32* at, int count, V* y) {
    const T* row = X + *at * job.stride;
    for (int j = 0; j < Spec::Model::inputs; ++j) x[j] = V::set(row[j]);
    for (int j = 0; j < count; ++j) y[j] = V::set(labels[i64(*at) * count + j]);
  }
};

template <class T>
FS_DEVICE typename Noise<T>::Kind noise_kind(int number) {
  return number == 1 ? Noise<T>::GAUSSIAN : Noise<T>::RADEMACHER;
}

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
  all.loss = {Spec::loss, T(from.factor), from.loss_weights, T(from.bound)};
  all.update = Spec::update();
  all.update.fixed = from.fixed;
  for (int h = 0; h < HYPERS; ++h) all.hyper[h] = from.hyper[h];
  if (Spec::LABEL_NOISE) all.label_noise = {noise_kind<T>(Spec::LABEL_NOISE), Spec::ONE, from.label};
  if (Spec::GRADIENT_NOISE) all.gradient_noise = {noise_kind<T>(Spec::GRADIENT_NOISE), false, from.gradient};
  all.fresh.on = Spec::FRESH, all.fresh.inputs = Spec::inputs(), all.fresh.weights = from.taught;
  return all;
}

template <class Spec>
FS_DEVICE void general(const Launch<typename Spec::T>& job) {
  using T = typename Spec::T;
  using V = Vec<T, 1>;
  using M = typename Spec::Model;
  using G = typename Spec::Teacher;
  using Loop = General<T, 1, M, G, ThreadFeed<Spec>>;
  const T *X = job.X, *y = job.y;
  if constexpr (Spec::STAGED) {
    FS_DYN_SHARED(T, room);
    const i64 size = job.n * job.stride;
    for (i64 i = threadIdx.x; i < size; i += blockDim.x) room[i] = X[i];
    for (i64 i = threadIdx.x; i < job.n * Spec::LABELS; i += blockDim.x) room[size + i] = y[i];
    __syncthreads();
    X = room, y = room + size;
  }
  if (thread_number() >= job.count) return;
  const i64 k = job.who[thread_number()];
  const auto all = general_job<Spec>(job);
  constexpr bool PLAIN = Spec::PLAIN, SAM = Spec::update().perturb != Update::NONE,
                 EACH = Spec::update().perturb == Update::SAMPLE;
  V w[M::P], gradient[PLAIN ? 1 : M::P], point[SAM ? M::P : 1], own[EACH ? M::P : 1];
  V buffers[Spec::BUFFERS ? Spec::BUFFERS * M::P : 1], kept[M::kept + 1], out[M::outputs], slope[M::outputs];
  V labels[Spec::LABELS], noisy[Spec::LABELS], drawn[Spec::LABEL_NOISE ? 4 * Loop::KEPT : 1];
  V guide[Spec::taught ? G::P : 1], guided[Spec::taught ? G::kept + 1 : 1];
  const GeneralRows<V> rows{w, gradient, point, own, buffers, kept, out, slope, labels, noisy, drawn, guide, guided};
  const M model{};
  const G teacher{};
  ThreadFeed<Spec> feed{job, X, y, k, all.draws(), 0, {}};
  Loop loop(all, model, Spec::taught ? &teacher : nullptr, feed, rows);
  loop.run(&k, 1);
}

}  // namespace fs
