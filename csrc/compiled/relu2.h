// Owns the two-layer ReLU network whose sizes are known when it is compiled: its step, one network a lane.
//
// Units are gone through in the order of the sum's tree, so that few partial sums are under way at a time and all of
// them are registers. The bits are those of core/models/relu2.h, which does everything but the step.
#pragma once
#include "../core/models/relu2.h"
#include "../cpu/fused.h"

namespace fs {

// d inputs, h units, and whether there are hidden biases and an output bias.
template <class Tm, int d_, int h_, int hidden_bias_, int output_bias_>
struct KnownReLU2 : ReLU2<Tm, partials(h_)> {
  using Base = ReLU2<Tm, partials(h_)>;
  using Lanes = Tm;
  using V = typename Tm::V;
  static constexpr int D = d_ + hidden_bias_, K = partials(h_);
  constexpr KnownReLU2() : Base{d_, h_, hidden_bias_, output_bias_} {}

  // w += g grad h(x), g = -eta dloss/dh, then value(w, next), in one sweep over the parameters.
  template <class X>
  FS_HD V vjp_value(V* w, X x, V g, V* residuals, X next) const {
    V bias = w[h_ * (D + 1)];
    if (output_bias_) w[h_ * (D + 1)] = bias = bias + g;
    return partial<0, 1>(w, x, g, residuals, next) + bias;
  }

 private:
  // The sum of the partials p, p + APART, .. below K.
  template <int p, int APART, class X>
  FS_HD static V partial(V* w, X x, V g, V* residuals, X next) {
    if constexpr (APART == K) {
      V sum = V::set(0);
      FS_UNROLL
      for (int unit = p; unit < h_; unit += K) sum = moved(w + unit * (D + 1), x, g, residuals + unit, next, sum);
      return sum;
    } else {
      const V a = partial<p, 2 * APART>(w, x, g, residuals, next);
      const V b = partial<p + APART, 2 * APART>(w, x, g, residuals, next);
      return a + b;
    }
  }
  // A unit's weights `row` [D] and, behind them, its output weight.
  template <class X>
  FS_HD static V moved(V* row, X x, V g, V* residual, X next, V sum) {
    const V old = loaded(row[D]), active = loaded(*residual), e = gate(active, g * old), a = fma(g, active, old);
    V z = V::set(0);
    row[D] = a;
    FS_UNROLL
    for (int j = 0; j < D; ++j) {
      const V to = fma(e, x.shared(j), row[j]);
      row[j] = to, z = fma(to, next.shared(j), z);
    }
    return fma(a, *residual = relu(z), sum);
  }
};

// The fused loop where a step takes one sample. OWN: networks have losses of their own.
template <class Model, bool OWN>
struct OneSample {
  using Loop = Block<typename Model::Lanes, Model, false>;
  using T = typename Model::T;
  Loop block;

  OneSample(const Job<T>& job, char* scratch) : block(job, Model(), scratch) {}
  static i64 bytes(const Job<T>& job) { return Loop::bytes(job, Model()); }
  static i64 side(const Job<T>& job) { return Loop::side(job, Model()); }
  void run(const i64* positions, int count) {
    block.load(count, [&](int k) { return positions[k]; });
    block.run_sgd(OWN);
    for (int a = 0; a < block.groups; ++a) block.retire(block.group[a], block.group[a].alive, -1);
  }
};

}  // namespace fs
