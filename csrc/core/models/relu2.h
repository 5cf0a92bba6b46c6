// Owns the two-layer ReLU network: value, update and value in one sweep, batches; spread over hidden units.
//
// z_j = W1_j . x~,  h(x) = sum_j a_j relu(z_j) + b2, where x~ is x, or (x, 1) if there are hidden biases: a bias is the
// weight of an input that is always 1, and the data are padded so.  relu'(0) = 0.
// Rows of state: for each vector c of hidden units W1 [D] then a; last b2, the same in every lane.
#pragma once
#include "../sample.h"

namespace fs {

// K: partial sums of the tree.
template <class Tm, int K>
struct ReLU2 {
  using T = typename Tm::T;
  using V = typename Tm::V;
  int d, h, hidden_bias, output_bias;

  FS_HD constexpr int D() const { return d + hidden_bias; }
  FS_HD constexpr int C() const { return Tm::vectors(h); }
  FS_HD constexpr int rows() const { return C() * (D() + 1) + 1; }
  FS_HD constexpr int residuals() const { return C(); }
  FS_HD constexpr int P() const { return h * (d + hidden_bias + 1) + output_bias; }
  FS_HD constexpr int inputs() const { return D(); }  // columns of X that are read

  // The canonical parameter that lives in a row, in a lane of the team; -1 if none. Canonical order: W1 [h, d], b1 [h],
  // W2 [h], b2, which lives in every lane.
  FS_HD constexpr int at(int row, int lane) const {
    const int weights = h * d, biases = hidden_bias ? h : 0;
    if (row == rows() - 1) return output_bias ? weights + biases + h : -1;
    const int unit = row / (D() + 1) * Tm::L + lane, column = row % (D() + 1);
    if (unit >= h) return -1;
    return column < d ? unit * d + column : column < D() ? weights + unit : weights + biases + unit;
  }

  template <class X>
  FS_HD V value(const V* w, X x, V* residuals) const {
    const X one[1] = {x};
    V h[1];
    values(w, nullptr, one, residuals, h);
    return h[0];
  }

  // ---- batches: nothing to fold, and every parameter has a sum of its own; residuals is [R, C].
  static constexpr int SIDE = 4;  // samples that share what is read of w and of the sums
  FS_HD constexpr int folds() const { return 0; }
  FS_HD constexpr int sums() const { return rows(); }
  FS_HD void fold(const V*, V*) const {}

  template <int R, class X>
  FS_HD void values(const V* w, const V*, const X (&x)[R], V* residuals, V (&h)[R]) const {
    const int D_ = D(), C_ = C();
    Sum s[R];
    groups<R == 1 ? MOST : 2>([&](auto count, int c) {
      constexpr int U = count.value;
      const V* row = w + c * (D_ + 1);
      V z[U][R];
      FS_UNROLL
      for (int m = 0; m < U; ++m) {
        FS_UNROLL
        for (int i = 0; i < R; ++i) z[m][i] = V::set(0);
      }
      FS_UNROLL_ROWS
      for (int j = 0; j < D_; ++j) {
        FS_UNROLL
        for (int i = 0; i < R; ++i) {
          const V xj = x[i].shared(j);
          FS_UNROLL
          for (int m = 0; m < U; ++m) z[m][i] = fma(row[m * (D_ + 1) + j], xj, z[m][i]);
        }
      }
      FS_UNROLL
      for (int m = 0; m < U; ++m) {
        FS_UNROLL
        for (int i = 0; i < R; ++i) add(s[i], c + m, residuals[i * C_ + c + m] = relu(z[m][i]), row[m * (D_ + 1) + D_]);
      }
    });
    FS_UNROLL
    for (int i = 0; i < R; ++i) h[i] = s[i].total() + w[C_ * (D_ + 1)];
  }
  template <int R, class X>
  FS_HD void accumulate(const V* w, const X (&x)[R], const V (&g)[R], const V* residuals, V* sum) const {
    const int D_ = D(), C_ = C();
    groups<2>([&](auto count, int c) {
      constexpr int U = count.value;
      V e[U][R];
      FS_UNROLL
      for (int m = 0; m < U; ++m) {
        const int r = (c + m) * (D_ + 1) + D_;
        const V a = w[r];
        V s = sum[r];
        FS_UNROLL
        for (int i = 0; i < R; ++i) {
          const V active = residuals[i * C_ + c + m];
          e[m][i] = gate(active, g[i] * a), s = fma(g[i], active, s);
        }
        sum[r] = s;
      }
      V* row = sum + c * (D_ + 1);
      FS_UNROLL_ROWS
      for (int j = 0; j < D_; ++j) {
        V s[U];
        FS_UNROLL
        for (int m = 0; m < U; ++m) s[m] = row[m * (D_ + 1) + j];
        FS_UNROLL
        for (int i = 0; i < R; ++i) {
          const V xj = x[i].shared(j);
          FS_UNROLL
          for (int m = 0; m < U; ++m) s[m] = fma(e[m][i], xj, s[m]);
        }
        FS_UNROLL
        for (int m = 0; m < U; ++m) row[m * (D_ + 1) + j] = s[m];
      }
    });
    if (!output_bias) return;
    V* bias = sum + C_ * (D_ + 1);
    FS_UNROLL
    for (int i = 0; i < R; ++i) *bias = *bias + g[i];
  }
  FS_HD void move(V* w, const V* sum, V rate) const {
    FS_UNROLL_ROWS
    for (int r = 0; r < rows(); ++r) w[r] = fma(rate, sum[r], w[r]);
  }

  // sum += g grad h(x), row by row, as the general loop forms it: relu' is a factor, 0 or 1.
  template <class X>
  FS_HD void add_derivative(const V* w, X x, V g, const V* residuals, V* sum) const {
    const V one = V::set(1);
    FS_UNROLL_ROWS
    for (int c = 0; c < C(); ++c) {
      const int row = c * (D() + 1);
      const V e = gate(residuals[c], one) * (g * w[row + D()]);
      FS_UNROLL_ROWS
      for (int j = 0; j < D(); ++j) sum[row + j] = fma(e, x.shared(j), sum[row + j]);
      sum[row + D()] = fma(g, residuals[c], sum[row + D()]);
    }
    if (output_bias) sum[C() * (D() + 1)] = sum[C() * (D() + 1)] + g;
  }

  // w += g grad h(x), g = -eta dloss/dh, then value(w, next), in one sweep over the parameters.
  template <class X>
  FS_HD V vjp_value(V* w, X x, V g, V* residuals, X next) const {
    const int D_ = D();
    V bias = w[C() * (D_ + 1)];
    if (output_bias) w[C() * (D_ + 1)] = bias = bias + g;
    Sum s;
    groups<MOST>([&](auto count, int c) {
      constexpr int U = count.value;
      V *r = w + c * (D_ + 1), z[U], e[U], a[U];  // e: what the hidden weights receive; a: the new output weights
      FS_UNROLL
      for (int m = 0; m < U; ++m) {
        V& output = r[m * (D_ + 1) + D_];
        const V h = residuals[c + m], old = output;
        e[m] = gate(h, g * old), z[m] = V::set(0);
        output = a[m] = fma(g, h, old);
      }
      FS_UNROLL_ROWS
      for (int j = 0; j < D_; ++j) {
        const V xj = x.shared(j), nj = next.shared(j);
        FS_UNROLL
        for (int m = 0; m < U; ++m) {
          V &wj = r[m * (D_ + 1) + j], moved = fma(e[m], xj, wj);
          wj = moved;
          z[m] = fma(moved, nj, z[m]);
        }
      }
      FS_UNROLL
      for (int m = 0; m < U; ++m) add(s, c + m, residuals[c + m] = relu(z[m]), a[m]);
    });
    return s.total() + bias;
  }

 private:
  // Vectors of hidden units that share their inputs and hide each other's latencies; lanes and few units gain nothing.
  static constexpr int MOST = Tm::L > 1 && K > 8 ? 4 : 2;
  using Sum = Partial<Tm, K>;
  template <int U>
  struct Count {
    static constexpr int value = U;
  };
  FS_HD static void add(Sum& s, int c, V hidden, V a) { s.a[c % Sum::A] = fma(a, hidden, s.a[c % Sum::A]); }

  // f(count, c) for all vectors c of hidden units, U at a time where it can.
  template <int U, class F>
  FS_HD void groups(F f) const {
    const int C_ = C();
    int c = 0;
    FS_UNROLL_ROWS
    for (; c + U <= C_; c += U) f(Count<U>{}, c);
    if constexpr (U > 2)
      for (; c + 2 <= C_; c += 2) f(Count<2>{}, c);
    if (c < C_) f(Count<1>{}, c);
  }
};

}  // namespace fs
