// Owns the two-layer ReLU network: value and pull, spread over hidden units.
//
// z_j = W1_j . x~,  h(x) = sum_j a_j relu(z_j) + b2, where x~ is x, or (x, 1) if there are hidden biases: a bias is the
// weight of an input that is always 1, and the data are padded so.  relu'(0) = 0.
// Rows of state: for each vector c of hidden units W1 [D] then a; last b2, the same in every lane.
#pragma once
#include "../sample.h"
#include "../sink.h"

namespace fs {

// K: partial sums of the tree; FIXED: D when the compiler may know it, else 0.
template <class Tm, int K, int FIXED = 0>
struct ReLU2 {
  using T = typename Tm::T;
  using V = typename Tm::V;
  int d, h, hidden_bias, output_bias;

  FS_HD int D() const { return FIXED ? FIXED : d + hidden_bias; }
  FS_HD int C() const { return Tm::vectors(h); }
  FS_HD int rows() const { return C() * (D() + 1) + 1; }
  FS_HD int kept() const { return C(); }
  FS_HD int P() const { return h * (d + hidden_bias + 1) + output_bias; }
  FS_HD int inputs() const { return D(); }  // columns of X that are read

  // Canonical order W1 [h, d], b1 [h], W2 [h], b2; b2 lives in every lane and is written to and read from lane 0.
  FS_HD void slot(int p, int& row, int& lane) const {
    int weights = h * d, biases = hidden_bias ? h : 0;
    if (p == weights + biases + h) {
      row = rows() - 1, lane = -1;
      return;
    }
    int unit = p < weights ? p / d : (p - weights) % h;
    int column = p < weights ? p % d : p < weights + biases ? d : D();
    row = (unit / Tm::L) * (D() + 1) + column;
    lane = unit % Tm::L;
  }

  template <class X>
  FS_HD V value(const V* w, X x, V* kept) const {
    Partial<Tm, K> s;
    const int D_ = D(), C_ = C();
    strided<Partial<Tm, K>::A>(C_, [&](int c, int a) {
      const V* r = w + c * (D_ + 1);
      V z = V::set(0);
      for (int j = 0; j < D_; ++j) z = fma(r[j], x.shared(j), z);
      kept[c] = relu(z);
      s.a[a] = fma(r[D_], kept[c], s.a[a]);
    });
    return s.total() + w[C_ * (D_ + 1)];
  }

  template <class X, class Sink>
  FS_HD void pull(const V* w, X x, V g, const V* kept, Sink sink) const {
    const int D_ = D(), C_ = C();
    for (int c = 0; c < C_; ++c) {
      const int r = c * (D_ + 1);
      V active = kept[c], e = gate(active, g * w[r + D_]);
      sink(r + D_, g, active);
      for (int j = 0; j < D_; ++j) sink(r + j, e, x.shared(j));
    }
    if (output_bias) sink(C_ * (D_ + 1), g);
  }
};

}  // namespace fs
