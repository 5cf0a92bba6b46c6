// Owns products of D vectors, h(x) = sum_j (prod_k w_k,j) x_j: forward and vjp.   Rows of state: w1 [d], ..., wD [d].
#pragma once
#include "../sample.h"
#include "../sink.h"

namespace fs {

template <class Tm>
struct Product {
  static constexpr int MOST = 16;
  static_assert(Tm::L == 1, "one lane a network");
  using V = typename Tm::V;
  int d, depth;

  FS_HD constexpr int P() const { return depth * d; }
  FS_HD constexpr int inputs() const { return d; }
  FS_HD constexpr int outputs() const { return 1; }
  FS_HD constexpr int residuals() const { return 0; }
  FS_HD constexpr bool hands_each_over_once() const { return true; }

  template <class X>
  FS_HD void forward(const V* w, X x, V*, V* out) const {
    *out = tree_sum<Tm>(d, [&](int j, V sum) {
      V beta = w[j];
      for (int k = 1; k < depth; ++k) beta = beta * w[k * d + j];
      return fma(beta, x.shared(j), sum);
    });
  }

  template <class X, class Sink>
  FS_HD void vjp(const V* w, X x, const V* g, V*, Sink sink) const {
    Tm::sync();
    if (depth == 2) {
      for (int j = Tm::first(); j < d; j += Tm::step()) {
        const V e = *g * x.shared(j), u = w[j], v = w[d + j];
        sink(j, e, v), sink(d + j, e, u);
      }
      Tm::sync();
      return;
    }
    for (int j = Tm::first(); j < d; j += Tm::step()) {
      const V e = *g * x.shared(j);
      V before[MOST], after = V::set(1);  // products of the factors before k, and of those after it
      before[0] = V::set(1);
      for (int k = 1; k < depth; ++k) before[k] = before[k - 1] * w[(k - 1) * d + j];
      for (int k = depth - 1; k >= 0; --k) {
        const V factor = w[k * d + j];
        sink(k * d + j, e, before[k] * after);
        after = after * factor;
      }
    }
    Tm::sync();
  }
};

}  // namespace fs
