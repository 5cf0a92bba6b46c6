// Owns the expected squared error of a two-layer network against a teacher under x ~ N(0, I): forward and vjp.
//
// h(x) = sum_k E (sum_i a_ki act(w_i . x) - sum_j v_kj act(t_j . x))^2 is a sum over pairs of units of products of
// their outer weights and E act(z) act(z'), which the three products of their inner weights determine. Input x: a
// number of the activation (1 / c^2 of erf(c z), the slope of LEAKY), the part of the teacher alone, a factor of all
// else, T [m, d], V [o, m].   Rows of state: W [h, d], A [o, h].   Units of the student come before the teacher's.
#pragma once
#include "../functions.h"
#include "../sample.h"
#include "../sink.h"

namespace fs {

template <class Tm>
struct Population {
  static_assert(Tm::L == 1, "one lane a network");
  enum Kind { ERF, LINEAR, SQUARE };  // LINEAR: in two pieces, relu, leaky, abs and the identity
  static constexpr int LEADING = 3;
  using T = typename Tm::T;
  using V = typename Tm::V;
  using OneLane = typename Tm::OneLane;
  int d, h, m, o, kind, inner, outer;  // inner, outer: whether W and A are trained

  FS_HD constexpr int all() const { return h + m; }
  FS_HD constexpr int pairs() const { return h * all(); }
  FS_HD constexpr int P() const { return h * (d + o); }
  FS_HD constexpr int inputs() const { return LEADING + m * (d + o); }
  FS_HD constexpr int outputs() const { return 1; }
  // E of each pair, what the derivative by w_i has of the other's weights and of its own, |w|^2 of all units, the
  // derivatives by W and A
  FS_HD constexpr int residuals() const { return 3 * pairs() + all() + P(); }

  template <class X>
  FS_HD void forward(const V* w, X x, V* residuals, V* out) const {
    V *value = residuals, *other = value + pairs(), *own = other + pairs(), *square = own + pairs();
    Tm::sync();
    for (int j = Tm::first(); j < all(); j += Tm::step()) square[j] = dot(w, x, j, j);
    Tm::sync();
    for (int q = Tm::first(); q < pairs(); q += Tm::step()) {
      const int i = q / all(), j = q % all();
      expected(w, x, i, j, square[i], square[j], value[q], other[q], own[q]);
      const V share = (x.shared(2) + x.shared(2)) * outers(w, x, i, j);
      other[q] = share * other[q], own[q] = share * own[q];
    }
    const V sum = tree_sum<Tm>(pairs(), [&](int q, V s) {
      const V share = outers(w, x, q / all(), q % all());
      return fma(q % all() < h ? share : share + share, value[q], s);
    });
    *out = fma(x.shared(2), sum, x.shared(1));
  }

  template <class X, class Sink>
  FS_HD void vjp(const V* w, X x, const V* g, V* residuals, Sink sink) const {
    const V *value = residuals, *other = value + pairs(), *own = other + pairs();
    V* gradient = residuals + 3 * pairs() + all();  // all of it before any weight moves
    Tm::sync();
    for (int r = Tm::first(); r < P(); r += Tm::step()) {
      V sum = V::set(0);
      if (r < h * d) {
        const int i = r / d, t = r % d;
        V mine = V::set(0);
        for (int j = 0; j < all(); ++j) {
          sum = fma(other[i * all() + j], unit(w, x, j, t), sum);
          mine = mine + own[i * all() + j];
        }
        sum = fma(mine, w[i * d + t], sum);
      } else {
        const int k = (r - h * d) / h, i = (r - h * d) % h;
        for (int j = 0; j < all(); ++j) sum = fma(outer_weight(w, x, k, j), value[i * all() + j], sum);
        sum = (x.shared(2) + x.shared(2)) * sum;
      }
      gradient[r] = sum;
    }
    Tm::sync();
    for (int r = Tm::first(); r < P(); r += Tm::step())
      if (r < h * d ? inner : outer) sink(r, *g, gradient[r]);
    Tm::sync();
  }

 private:
  // Weight t of unit j, and its outer weight in output k, the teacher's with a minus.
  template <class X>
  FS_HD V unit(const V* w, X x, int j, int t) const {
    return j < h ? w[j * d + t] : x.shared(LEADING + (j - h) * d + t);
  }
  template <class X>
  FS_HD V outer_weight(const V* w, X x, int k, int j) const {
    return j < h ? w[h * d + k * h + j] : V::set(0) - x.shared(LEADING + m * d + k * m + j - h);
  }
  template <class X>
  FS_APART V dot(const V* w, X x, int i, int j) const {
    return tree_sum<OneLane>(d, [&](int t, V sum) { return fma(unit(w, x, i, t), unit(w, x, j, t), sum); });
  }
  // |w_j - along w_i|^2
  template <class X>
  FS_APART V beside(const V* w, X x, int i, int j, V along) const {
    const V minus = V::set(0) - along;
    return tree_sum<OneLane>(d, [&](int t, V sum) {
      const V r = fma(minus, unit(w, x, i, t), unit(w, x, j, t));
      return fma(r, r, sum);
    });
  }
  template <class X>
  FS_APART V outers(const V* w, X x, int i, int j) const {
    V sum = V::set(0);
    for (int k = 0; k < o; ++k) sum = fma(outer_weight(w, x, k, i), outer_weight(w, x, k, j), sum);
    return sum;
  }
  // E = E act(z_i) act(z_j) of units whose weights have the squares c, s; its derivative by w_i, the other unit held
  // fixed, is other * w_j + own * w_i.
  template <class X>
  FS_HD void expected(const V* w, X x, int i, int j, V c, V s, V& E, V& other, V& own) const {
    const V zero = V::set(0), one = V::set(1), half = V::set(T(0.5)), number = x.shared(0),
            b = i == j ? c : dot(w, x, i, j);
    if (kind == SQUARE) {
      E = fma(b + b, b, c * s), other = V::set(4) * b, own = s + s;
      return;
    }
    if (kind ==
        ERF) {  // (2 / pi) asin(2 b / sqrt(A B)) = (2 / pi) atan(2 b / root), A = number + 2 c, root^2 = A B - 4 b^2
      const V two = V::set(2), gram = fma(c, s, zero - b * b), twice = b + b, A = fma(two, c, number);
      const V root = sqrt(fma(number, fma(two, c + s, number), V::set(4) * choose(gram.a < zero.a, zero, gram)));
      const V rate = V::set(T(1.2732395447351628)) / root;  // 4 / pi
      E = V::set(T(0.63661977236758138)) * signed_like(angle(root, abs(twice)), b);
      other = i == j ? zero : rate, own = i == j ? rate * number / A : zero - rate * twice / A;
      return;
    }
    const V both = fma(number, number, one);
    if (i == j) {
      other = zero, own = half * both, E = own * c;
      return;
    }
    // angle of w_i and w_j, from the part of w_j that is orthogonal to w_i: no digit is lost where they are nearly
    // parallel
    const auto there = c.a > zero.a;
    const V along = b / choose(there, c, one), length = sqrt(c);
    const V apart = sqrt(beside(w, x, i, j, along));
    const V theta = angle(b, length * apart), bend = (one - number) * (one - number);
    const V turn = fma(both, V::set(T(3.1415926535897931)) - theta, (number + number) * theta);
    const V per = V::set(T(0.15915494309189535));  // 1 / (2 pi)
    E = per * fma(b, turn, bend * (length * apart));
    other = choose(there, per * turn, half * number * (one + number));  // of w_i = 0 by act'(0), the slope
    own = choose(there, per * bend * (apart / choose(there, length, one)), zero);
  }
};

}  // namespace fs
