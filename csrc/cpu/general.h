// Owns threads over vectors of networks in the general loop, and predictions of many networks at many points.
#pragma once
#include "../core/general.h"
#include "advance.h"
#include "family.h"

namespace fs {

// The samples of a vector of networks on the CPU: rows of X turned into columns, draws of four steps at once.
template <class T, int W>
struct Feed {
  using V = Vec<T, W>;
  using A = Samples<Team<T, W, 1>, false>;
  const GeneralJob<T>& all;
  const Keys keys;
  A samples;
  u32* index;  // [4, draws, W]

  static i64 line(i64 bytes) { return (bytes + 63) / 64 * 64; }
  static i64 bytes(const GeneralJob<T>& all, int inputs) {
    return line(A::bytes(inputs)) + line(4 * all.draws() * W * sizeof(u32));
  }
  Feed(const GeneralJob<T>& a, int inputs, char* at) : all(a), keys(a.job.seed) {
    samples.lay_out(at, inputs);
    index = reinterpret_cast<u32*>(at + line(A::bytes(inputs)));
  }
  V* buffer() const { return samples.columns; }
  const V* inputs() const { return samples.columns; }
  void draw(const i64* positions, i64 t) {
    Job<T> plan = all.job;
    plan.batch = all.draws();
    if (plan.batch) draw_batch<W>(plan, keys, positions, t, index);
  }
  const u32* which(i64 t, i64 b) const { return index + (t % 4 * all.draws() + b) * W; }
  void take(const u32* which, int labels, V* y) {
    samples.fetch_columns(Data<T>(all.job), which);
    for (int k = 0; k < labels; ++k)
      for (int g = 0; g < W; ++g) reinterpret_cast<T*>(y + k)[g] = all.job.y[i64(which[g]) * labels + k];
  }
};

template <class T, int W>
using Loop = General<Team<T, W, 1>, Family<T, W>, Family<T, W>, Feed<T, W>>;

// Calls f(size, pointer) for each array of `rows`, in the order in which they lie in a thread's scratch.
template <class T, int W, class F>
void each_row(const GeneralJob<T>& all, const Family<T, W>& m, const Family<T, W>* t, GeneralRows<Vec<T, W>>& rows,
              F f) {
  for (auto* one : {&rows.w, &rows.gradient, &rows.point, &rows.own}) f(m.P, *one);
  f(m.P * i64(all.update.buffers), rows.buffers);
  f(all.groups * i64(EACH), rows.each), f(i64(all.scratch), rows.scratch), f(all.own.numbers, rows.numbers),
      f(all.loss_numbers, rows.loss);
  f(m.residuals > all.penalty.residuals ? m.residuals : all.penalty.residuals, rows.residuals);
  for (auto* one : {&rows.out, &rows.dloss}) f(m.outputs, *one);
  for (auto* one : {&rows.y, &rows.noisy}) f(all.labels, *one);
  f(all.label_noise.amplitude.base ? 4 * Loop<T, W>::BLOCKS : 0, rows.drawn);
  f(t ? t->P : 0, rows.teacher_w);
  f(t ? t->residuals : 0, rows.teacher_residuals);
}
template <class T, int W>
i64 lanes_bytes(const GeneralJob<T>& all, const Family<T, W>& m, const Family<T, W>* t) {
  i64 count = 0;
  GeneralRows<Vec<T, W>> rows;
  each_row(all, m, t, rows, [&](i64 size, auto&) { count += size; });
  return Feed<T, W>::line(count * sizeof(Vec<T, W>)) + Feed<T, W>::bytes(all, m.inputs);
}

template <class T, int W>
void advance_lanes(const GeneralJob<T>& all, const std::vector<i64>& living) {
  const auto model = family<T, W>(all.shape);
  const auto teacher = all.fresh.teacher ? family<T, W>(*all.fresh.teacher) : nullptr;
  const i64 each = apart(lanes_bytes(all, *model, teacher.get())), count = i64(living.size());
  const int threads = busy(all.job.threads, (count + W - 1) / W);
  Scratch scratch(each * threads);
  deal(threads, count, W, [&](int thread, Pieces& pieces) {
    char* at = scratch.p + each * thread;
    Feed<T, W> feed(all, model->inputs, at);
    at += Feed<T, W>::bytes(all, model->inputs);
    GeneralRows<Vec<T, W>> rows;
    each_row(all, *model, teacher.get(), rows, [&](i64 size, auto& row) {
      row = reinterpret_cast<Vec<T, W>*>(at);
      at += size * sizeof(Vec<T, W>);
    });
    Loop<T, W> loop(all, *model, teacher.get(), feed, rows);
    pieces.each([&](i64 first) { loop.run(living.data() + first, int(count - first < W ? count - first : W)); });
  });
}

template <class T>
void advance_general(const GeneralJob<T>& all) {
  std::vector<i64> living;
  for (i64 k = 0; k < all.job.N; ++k)
    if (all.job.lost[k] < 0) living.push_back(k);
  if (living.empty()) return;
  if (all.job.loop.run) {
    GeneralJob<T> own = all;
    const auto together = quads(all.job, all.labels == 1 ? sizes_of(all.shape).inputs : 4);
    own.job.quads = together.empty() ? nullptr : together.data();
    return advance_compiled(all.job.loop, &own, all.job.layout.lanes, all.job.threads, living);
  }
  if (all.job.layout.lanes == WIDTH<T>) advance_lanes<T, WIDTH<T>>(all, living);
  else if (all.job.layout.lanes == 1) advance_lanes<T, 1>(all, living);
  else throw std::invalid_argument("internal: no such layout");
}

template <class T>
i64 general_bytes(const GeneralJob<T>& all) {
  const auto teacher = all.fresh.teacher ? family<T, WIDTH<T>>(*all.fresh.teacher) : nullptr;
  return lanes_bytes(all, *family<T, WIDTH<T>>(all.shape), teacher.get());
}

}  // namespace fs
