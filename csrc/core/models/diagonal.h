// Owns the diagonal linear network: value, pull and both in one sweep, spread over inputs.
//
// h(x) = sum_j u_j v_j x_j,  dh/du_j = x_j v_j,  dh/dv_j = x_j u_j.   Rows of state: u [C], v [C], C = vectors(d).
#pragma once
#include "../sample.h"
#include "../sink.h"

namespace fs {

// K: partial sums of the tree.
template <class Tm, int K>
struct Diagonal {
  using T = typename Tm::T;
  using V = typename Tm::V;
  int d;

  FS_HD constexpr int C() const { return Tm::vectors(d); }
  FS_HD constexpr int rows() const { return 2 * C(); }
  FS_HD constexpr int kept() const { return 0; }
  FS_HD constexpr int P() const { return 2 * d; }
  FS_HD constexpr int inputs() const { return d; }  // columns of X that are read

  // The canonical parameter that lives in a row, in a lane of the team; -1 if none.
  FS_HD constexpr int at(int row, int lane) const {
    const int j = row % C() * Tm::L + lane;
    return j < d ? (row < C() ? j : d + j) : -1;
  }

  template <class X>
  FS_HD V value(const V* w, X x, V*) const {
    const V *u = w, *v = w + C();
    return tree_sum<Tm, K>(C(), [&](int c, V s) { return fma(u[c] * v[c], x.own(c), s); });
  }

  // For many values at the same w: fold once, u becomes u * v; then `folded` has the bits of `value`.
  FS_HD void fold(V* w) const {
    for (int c = 0; c < C(); ++c) w[c] = w[c] * w[C() + c];
  }
  template <class X>
  FS_HD V folded(const V* w, X x, V*) const {
    return tree_sum<Tm, K>(C(), [&](int c, V s) { return fma(w[c], x.own(c), s); });
  }

  template <class X, class Sink>
  FS_HD void pull(const V* w, X x, V g, const V*, Sink sink) const {
    const V *u = w, *v = w + C();
    FS_UNROLL_ROWS
    for (int c = 0; c < C(); ++c) {
      V e = g * x.own(c), uc = u[c], vc = v[c];
      sink(c, e, vc);
      sink(C() + c, e, uc);
    }
  }

  // pull(w, x, g) with Apply, then value(w, next), in one sweep over the parameters.
  template <class X>
  FS_HD V pull_value(V* w, X x, V g, V*, X next) const {
    V *u = w, *v = w + C();
    return tree_sum<Tm, K>(C(), [&](int c, V s) {
      V e = g * x.own(c), uc = once(u[c]), vc = once(v[c]);
      V u1 = fma(e, vc, uc), v1 = fma(e, uc, vc);
      u[c] = u1, v[c] = v1;
      return fma(u1 * v1, next.own(c), s);
    });
  }
};

}  // namespace fs
