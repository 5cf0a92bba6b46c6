// Owns the diagonal linear network: value, update and value in one sweep, batches; spread over inputs.
//
// h(x) = sum_j u_j v_j x_j,  dh/du_j = x_j v_j,  dh/dv_j = x_j u_j.   Rows of state: u [C], v [C], C = vectors(d).
#pragma once
#include "../sample.h"

namespace fs {

// K: partial sums of the tree.
template <class Tm, int K>
struct Diagonal {
  using Lanes = Tm;
  static constexpr int PARTIALS = K;
  using T = typename Tm::T;
  using V = typename Tm::V;
  int d;

  FS_HD constexpr int C() const { return Tm::vectors(d); }
  FS_HD constexpr int rows() const { return 2 * C(); }
  FS_HD constexpr int residuals() const { return 0; }
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

  // ---- batches. A step's gradient needs sum_b e_b x_b alone, and its values the products u v:
  //   f = sum_b e_b grad h(x_b):  df/du = v sum_b e_b x_b,  df/dv = u sum_b e_b x_b.
  static constexpr int SIDE = 8;  // samples that share what is read of w
  FS_HD constexpr int folds() const { return C(); }
  FS_HD constexpr int sums() const { return C(); }

  FS_HD void fold(const V* w, V* to) const {
    FS_UNROLL_ROWS
    for (int c = 0; c < C(); ++c) to[c] = w[c] * w[C() + c];
  }
  template <int R, class X>
  FS_HD void values(const V*, const V* folded, const X (&x)[R], V*, V (&h)[R]) const {
    tree_sums<Tm, K>(
        C(),
        [&](int c, V(&s)[R]) {
          const V beta = folded[c];
          FS_UNROLL
          for (int i = 0; i < R; ++i) s[i] = fma(beta, x[i].own(c), s[i]);
        },
        h);
  }
  template <int R, class X>
  FS_HD void accumulate(const V*, const X (&x)[R], const V (&e)[R], const V*, V* sum) const {
    FS_UNROLL_ROWS
    for (int c = 0; c < C(); ++c) {
      V s = sum[c];
      FS_UNROLL
      for (int i = 0; i < R; ++i) s = fma(e[i], x[i].own(c), s);
      sum[c] = s;
    }
  }
  FS_HD void move(V* w, const V* sum, V rate) const {
    V *u = w, *v = w + C();
    FS_UNROLL_ROWS
    for (int c = 0; c < C(); ++c) {
      const V e = rate * sum[c], uc = u[c], vc = v[c];
      u[c] = fma(e, vc, uc), v[c] = fma(e, uc, vc);
    }
  }

  // The same where the number of vectors is known when compiled, and sums over the team's lanes are left to others.
  template <int VECTORS, class X>
  FS_HD static V value_parts(const V (&folded)[VECTORS], X x) {
    return tree_parts<Tm, K, VECTORS>([&](int c, V s) { return fma(folded[c], x.own(c), s); });
  }
  template <int VECTORS>
  FS_HD static void move_by(V (&w)[2 * VECTORS], const V (&sum)[VECTORS], V rate) {
    FS_UNROLL
    for (int c = 0; c < VECTORS; ++c) {
      const V e = rate * sum[c], uc = w[c], vc = w[VECTORS + c];
      w[c] = fma(e, vc, uc), w[VECTORS + c] = fma(e, uc, vc);
    }
  }

  // sum += g grad h(x), row by row, as the general loop forms it.
  template <class X>
  FS_HD void add_derivative(const V* w, X x, V g, const V*, V* sum) const {
    const V *u = w, *v = w + C();
    FS_UNROLL_ROWS
    for (int c = 0; c < C(); ++c) {
      const V e = g * x.own(c);
      sum[c] = fma(e, v[c], sum[c]), sum[C() + c] = fma(e, u[c], sum[C() + c]);
    }
  }

  // w += g grad h(x), g = -eta dloss/dh, then value(w, next), in one sweep over the parameters.
  template <class X>
  FS_HD V vjp_value(V* w, X x, V g, V*, X next) const {
    V *u = w, *v = w + C();
    return tree_sum<Tm, K>(C(), [&](int c, V s) { return moved(u[c], v[c], g, x, next, c, s); });
  }
  // The same, of VECTORS = C() vectors, but for the sum over the team's lanes.
  template <int VECTORS, class X>
  FS_HD V vjp_value_parts(V* w, X x, V g, X next) const {
    V *u = w, *v = w + VECTORS;
    return tree_parts<Tm, K, VECTORS>([&](int c, V s) { return moved(u[c], v[c], g, x, next, c, s); });
  }

 private:
  template <class X>
  FS_HD static V moved(V& u, V& v, V g, X x, X next, int c, V s) {
    const V e = g * x.own(c), uc = loaded(u), vc = loaded(v), u1 = fma(e, vc, uc), v1 = fma(e, uc, vc);
    u = u1, v = v1;
    return fma(u1 * v1, next.own(c), s);  // read here, so that it is an operand in memory
  }
};

}  // namespace fs
