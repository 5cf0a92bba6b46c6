// Owns dense networks of any depth, width and number of outputs: forward and vjp.
//
// a_0 = x,  z_l = c_l W_l a_{l-1} + b_l,  a_l = act(z_l),  h(x) = z_L.   Rows of state: the canonical parameters.
// Sums over inputs of a hidden unit run in order, so that units can be spread over lanes; sums over units, which then
// cross lanes, go by the tree: those of the outputs, and those that carry derivatives back.
#pragma once
#include "../activation.h"
#include "../sample.h"
#include "../sink.h"
#include "dense_shape.h"

namespace fs {

// ACTIVATION: the kind, where it is known when this is compiled; -1 where it is `s.activation`.
template <class Tm, int ACTIVATION = -1>
struct Dense {
  static_assert(Tm::L == 1, "one lane a network");
  using T = typename Tm::T;
  using V = typename Tm::V;
  DenseShape s;

  FS_HD constexpr Activation::Kind activation() const {
    return ACTIVATION < 0 ? s.activation : Activation::Kind(ACTIVATION);
  }
  FS_HD constexpr int P() const { return s.P(); }
  FS_HD constexpr int inputs() const { return s.size[0]; }
  FS_HD constexpr int outputs() const { return s.size[s.layers]; }
  FS_HD constexpr int residuals() const { return 3 * s.units(); }  // a, act'(z) and dL/dz of every unit
  FS_HD constexpr bool hands_each_over_once() const {
    for (int l = 0; l < s.layers; ++l)
      if (!s.trained[0][l] || (s.bias[l] && !s.trained[1][l])) return false;
    return true;
  }

  template <class X>
  FS_HD void forward(const V* w, X x, V* residuals, V* out) const {
    V *a = residuals, *derivative = residuals + s.units();
    const V slope = V::set(T(s.slope));
    Tm::sync();
    FS_UNROLL_ROWS
    for (int l = 0; l < s.layers; ++l) {
      const int fan = s.size[l], width = s.size[l + 1];
      const V *weight = w, *bias = w + width * fan, c = V::set(T(s.multiplier[l]));
      auto source = [&](int i) { return l ? a[i - fan] : x.shared(i); };
      auto finish = [&](int j, V sum) { return s.bias[l] ? fma(c, sum, bias[j]) : c * sum; };
      if (l == s.layers - 1) {
        for (int j = 0; j < width; ++j)
          out[j] = finish(j, tree_sum<Tm>(fan, [&](int i, V sum) { return fma(weight[j * fan + i], source(i), sum); }));
      } else {
        units(width, [&](int j, auto many) {
          constexpr int M = decltype(many)::value;
          V sum[M];
          for (int m = 0; m < M; ++m) sum[m] = V::set(0);
          FS_UNROLL_ROWS
          for (int i = 0; i < fan; ++i) {
            const V from = source(i);
            FS_UNROLL
            for (int m = 0; m < M; ++m) sum[m] = fma(weight[(j + m) * fan + i], from, sum[m]);
          }
          FS_UNROLL
          for (int m = 0; m < M; ++m) a[j + m] = finish(j + m, sum[m]);
        });
        FS_UNROLL_ROWS
        for (int j = Tm::first(); j < width; j += Tm::step()) activate(activation(), a[j], slope, a[j], derivative[j]);
        Tm::sync();
        a += width, derivative += width;
      }
      w = bias + (s.bias[l] ? width : 0);
    }
  }

  // Hands g_j dh_j/dw, summed over outputs j, to the sink; `residuals` as `forward` left it for the same w and x.
  template <class X, class Sink>
  FS_HD void vjp(const V* w, X x, const V* g, V* residuals, Sink sink) const {
    const int U = s.units();
    V* delta = residuals + 2 * U;
    int at = s.P(), top = U - outputs();  // where layer l + 1's parameters end, and where its units begin
    FS_UNROLL_ROWS
    for (int j = Tm::first(); j < outputs(); j += Tm::step()) delta[top + j] = g[j];
    Tm::sync();
    FS_UNROLL_ROWS
    for (int l = s.layers - 1; l > 0; --l) {  // all derivatives before any weight moves
      const int fan = s.size[l], width = s.size[l + 1];
      at -= width * (fan + s.bias[l]);
      const V *weight = w + at, c = V::set(T(s.multiplier[l]));
      FS_UNROLL_ROWS
      for (int i = Tm::first(); i < fan; i += Tm::step()) {
        const auto term = [&](int j, V sum) { return fma(delta[top + j], weight[j * fan + i], sum); };
        const V none = V::set(0);
        const V back = width == 1 ? term(0, none) + none : tree_sum<typename Tm::OneLane>(width, term);
        delta[top - fan + i] = residuals[U + top - fan + i] * (c * back);
      }
      Tm::sync();
      top -= fan;
    }
    at = top = 0;
    FS_UNROLL_ROWS
    for (int l = 0; l < s.layers; ++l) {
      const int fan = s.size[l], width = s.size[l + 1];
      const V* a = residuals + top - fan;
      const V c = V::set(T(s.multiplier[l]));
      const bool by_unit = width > fan;  // threads share the longer axis
      const int j0 = by_unit ? Tm::first() : 0, dj = by_unit ? Tm::step() : 1;
      const int i0 = by_unit ? 0 : Tm::first(), di = by_unit ? 1 : Tm::step();
      auto weights = [&](auto source) {
        for (int j = j0; j < width; j += dj) {
          const V e = c * delta[top + j];
          FS_UNROLL_ROWS
          for (int i = i0; i < fan; i += di) sink(at + j * fan + i, e, source(i));
        }
      };
      if (s.trained[0][l]) {  // two loops without a choice inside, which a lone network needs to be vectorised
        if (l) weights([a](int i) { return a[i]; });
        else weights([x](int i) { return x.shared(i); });
      }
      at += width * fan;
      if (s.bias[l]) {
        if (s.trained[1][l])
          for (int j = Tm::first(); j < width; j += Tm::step()) sink(at + j, delta[top + j]);
        at += width;
      }
      top += width;
    }
    Tm::sync();
  }

 private:
  template <int M>
  struct Many {
    static constexpr int value = M;
  };
  // f(j, many) for units j .. j + many - 1, several at a time where it can: their sums hide each other's latency.
  template <class F>
  FS_HD static void units(int width, F f) {
    int j = Tm::first();
    if constexpr (!Tm::COOPERATES) {
#if !defined(__CUDACC__)  // registers are what a GPU's thread runs out of
      if constexpr (Tm::W == 1)
        for (; j + 8 <= width; j += 8) f(j, Many<8>{});
#endif
      FS_UNROLL_ROWS
      for (; j + 4 <= width; j += 4) f(j, Many<4>{});
#if !defined(__CUDACC__)
      if (j + 2 <= width) f(j, Many<2>{}), j += 2;
#endif
    }
    FS_UNROLL_ROWS
    for (; j < width; j += Tm::step()) f(j, Many<1>{});
  }
};

}  // namespace fs
