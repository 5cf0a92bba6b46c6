// Owns the two-layer ReLU network: value, pull and both in one sweep, spread over hidden units.
//
// z_j = W1_j . x~,  h(x) = sum_j a_j relu(z_j) + b2, where x~ is x, or (x, 1) if there are hidden biases: a bias is the
// weight of an input that is always 1, and the data are padded so.  relu'(0) = 0.
// Rows of state: for each vector c of hidden units W1 [D] then a; last b2, the same in every lane.
#pragma once
#include "../sample.h"
#include "../sink.h"

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
  FS_HD constexpr int kept() const { return C(); }
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
  FS_HD V value(const V* w, X x, V* kept) const {
    const int D_ = D();
    return sweep([&](auto two, int c, Sum& s) {
             const V *r0 = w + c * (D_ + 1), *r1 = r0 + D_ + 1;
             V z0 = V::set(0), z1 = z0;
             FS_UNROLL_ROWS
             for (int j = 0; j < D_; ++j) {
               V xj = x.shared(j);
               z0 = fma(r0[j], xj, z0);
               if constexpr (two.yes) z1 = fma(r1[j], xj, z1);
             }
             add(s, c, kept[c] = relu(z0), r0[D_]);
             if constexpr (two.yes) add(s, c + 1, kept[c + 1] = relu(z1), r1[D_]);
           }) +
           w[C() * (D_ + 1)];
  }

  template <class X, class Sink>
  FS_HD void pull(const V* w, X x, V g, const V* kept, Sink sink) const {
    const int D_ = D(), C_ = C();
    FS_UNROLL_ROWS
    for (int c = 0; c < C_; ++c) {
      const int r = c * (D_ + 1);
      V active = kept[c], e = gate(active, g * w[r + D_]);
      sink(r + D_, g, active);
      FS_UNROLL_ROWS
      for (int j = 0; j < D_; ++j) sink(r + j, e, x.shared(j));
    }
    if (output_bias) sink(C_ * (D_ + 1), g);
  }

  // ---- batches: nothing to fold, and every parameter has a sum of its own; kept is [R, C].
  static constexpr int SIDE = 4;  // samples that share what is read of w and of the sums
  FS_HD constexpr int folds() const { return 0; }
  FS_HD constexpr int sums() const { return rows(); }
  FS_HD void fold(const V*, V*) const {}

  template <int R, class X>
  FS_HD void values(const V* w, const V*, const X (&x)[R], V* kept, V (&h)[R]) const {
    const int D_ = D(), C_ = C();
    Sum s[R];
    pairs([&](auto two, int c) {
      constexpr int U = two.yes ? 2 : 1;
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
        for (int i = 0; i < R; ++i) add(s[i], c + m, kept[i * C_ + c + m] = relu(z[m][i]), row[m * (D_ + 1) + D_]);
      }
    });
    FS_UNROLL
    for (int i = 0; i < R; ++i) h[i] = s[i].total() + w[C_ * (D_ + 1)];
  }
  template <int R, class X>
  FS_HD void gather(const V* w, const X (&x)[R], const V (&g)[R], const V* kept, V* sum) const {
    const int D_ = D(), C_ = C();
    pairs([&](auto two, int c) {
      constexpr int U = two.yes ? 2 : 1;
      V e[U][R];
      FS_UNROLL
      for (int m = 0; m < U; ++m) {
        const int r = (c + m) * (D_ + 1) + D_;
        const V a = w[r];
        V s = sum[r];
        FS_UNROLL
        for (int i = 0; i < R; ++i) {
          const V active = kept[i * C_ + c + m];
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

  // pull(w, x, g) with Apply, then value(w, next), in one sweep over the parameters.
  template <class X>
  FS_HD V pull_value(V* w, X x, V g, V* kept, X next) const {
    const int D_ = D();
    V bias = w[C() * (D_ + 1)];
    if (output_bias) w[C() * (D_ + 1)] = bias = bias + g;
    auto output = [&](V* r, V h, V& e) {  // the new output weight; e: what the hidden weights receive
      V a = r[D_];
      e = gate(h, g * a);
      return r[D_] = fma(g, h, a);
    };
    auto hidden = [&](V& wj, V e, V xj, V nj, V z) {
      V moved = fma(e, xj, wj);
      wj = moved;
      return fma(moved, nj, z);
    };
    return sweep([&](auto two, int c, Sum& s) {
             V *r0 = w + c * (D_ + 1), *r1 = r0 + D_ + 1;
             V z0 = V::set(0), z1 = z0, e0, e1, a0 = output(r0, kept[c], e0), a1;
             if constexpr (two.yes) a1 = output(r1, kept[c + 1], e1);
             FS_UNROLL_ROWS
             for (int j = 0; j < D_; ++j) {
               V xj = x.shared(j), nj = next.shared(j);
               z0 = hidden(r0[j], e0, xj, nj, z0);
               if constexpr (two.yes) z1 = hidden(r1[j], e1, xj, nj, z1);
             }
             add(s, c, kept[c] = relu(z0), a0);
             if constexpr (two.yes) add(s, c + 1, kept[c + 1] = relu(z1), a1);
           }) +
           bias;
  }

 private:
  using Sum = Partial<Tm, K>;
  template <bool B>
  struct Is {
    static constexpr bool yes = B;
  };
  FS_HD static void add(Sum& s, int c, V hidden, V a) { s.a[c % Sum::A] = fma(a, hidden, s.a[c % Sum::A]); }

  // f(two, c) for all vectors c of hidden units, two at a time where it can, so that they share their inputs.
  template <class F>
  FS_HD void pairs(F f) const {
    const int C_ = C();
    int c = 0;
    FS_UNROLL_ROWS
    for (; c + 2 <= C_; c += 2) f(Is<true>{}, c);
    if (c < C_) f(Is<false>{}, c);
  }
  // The sum of what f(two, c, sum) adds for all of them.
  template <class F>
  FS_HD V sweep(F f) const {
    Sum s;
    pairs([&](auto two, int c) { f(two, c, s); });
    return s.total();
  }
};

}  // namespace fs
