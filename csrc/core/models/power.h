// Owns powers of vectors, h(x) = sum_j (w_j^D - z_j^D) x_j: forward and vjp.   Rows of state: w [d], then z [d] if
// any.
#pragma once
#include "../sample.h"
#include "../sink.h"

namespace fs {

template <class Tm>
struct Power {
  static_assert(Tm::L == 1, "one lane a network");
  using T = typename Tm::T;
  using V = typename Tm::V;
  int d, depth, is_signed;

  FS_HD constexpr int P() const { return (1 + is_signed) * d; }
  FS_HD constexpr int inputs() const { return d; }
  FS_HD constexpr int outputs() const { return 1; }
  FS_HD constexpr int residuals() const { return 0; }
  FS_HD constexpr bool hands_each_over_once() const { return true; }

  template <class X>
  FS_HD void forward(const V* w, X x, V*, V* out) const {
    *out = tree_sum<Tm>(d, [&](int j, V sum) {
      V beta = power(w[j], depth);
      if (is_signed) beta = beta - power(w[d + j], depth);
      return fma(beta, x.shared(j), sum);
    });
  }

  template <class X, class Sink>
  FS_HD void vjp(const V* w, X x, const V* g, V*, Sink sink) const {
    const V many = V::set(T(depth)), zero = V::set(0);
    Tm::sync();
    for (int j = Tm::first(); j < d; j += Tm::step()) {
      const V e = many * (*g * x.shared(j));
      sink(j, e, power(w[j], depth - 1));
      if (is_signed) sink(d + j, zero - e, power(w[d + j], depth - 1));
    }
    Tm::sync();
  }

 private:
  FS_HD static V power(V x, int exponent) {
    V out = V::set(1);
    for (int k = 0; k < exponent; ++k) out = out * x;
    return out;
  }
};

}  // namespace fs
