// Owns tied autoencoders, h(x) = relu(W' W x + b) with relu'(0) = 0: forward and vjp.   Rows of state: W [h, d], b
// [d].
#pragma once
#include "../sample.h"
#include "../sink.h"

namespace fs {

template <class Tm>
struct Autoencoder {
  static_assert(Tm::L == 1, "one lane a network");
  using V = typename Tm::V;
  int d, h, bias;

  FS_HD constexpr int P() const { return (h + bias) * d; }
  FS_HD constexpr int inputs() const { return d; }
  FS_HD constexpr int outputs() const { return d; }
  FS_HD constexpr int residuals() const { return h + 2 * d; }  // W x, relu(z), dL/dz

  template <class X>
  FS_HD void forward(const V* w, X x, V* residuals, V* out) const {
    V *code = residuals, *decoded = residuals + h;
    Tm::sync();
    for (int k = Tm::first(); k < h; k += Tm::step())
      code[k] = tree_sum<typename Tm::OneLane>(d, [&](int i, V sum) { return fma(w[k * d + i], x.shared(i), sum); });
    Tm::sync();
    for (int i = Tm::first(); i < d; i += Tm::step()) {
      V z = V::set(0);
      for (int k = 0; k < h; ++k) z = fma(w[k * d + i], code[k], z);
      if (bias) z = z + w[h * d + i];
      decoded[i] = relu(z);
    }
    Tm::sync();
    for (int i = 0; i < d; ++i) out[i] = decoded[i];
  }

  template <class X, class Sink>
  FS_HD void vjp(const V* w, X x, const V* g, V* residuals, Sink sink) const {
    const V *code = residuals, *decoded = residuals + h;
    V* delta = residuals + h + d;
    for (int i = Tm::first(); i < d; i += Tm::step()) delta[i] = gate(decoded[i], g[i]);
    Tm::sync();
    for (int k = Tm::first(); k < h; k += Tm::step()) {
      const V e = tree_sum<typename Tm::OneLane>(d, [&](int i, V sum) { return fma(w[k * d + i], delta[i], sum); });
      for (int i = 0; i < d; ++i) {
        sink(k * d + i, code[k], delta[i]);
        sink(k * d + i, e, x.shared(i));
      }
    }
    if (bias)
      for (int i = Tm::first(); i < d; i += Tm::step()) sink(h * d + i, delta[i]);
    Tm::sync();
  }
};

}  // namespace fs
