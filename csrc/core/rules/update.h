// Owns what a step does with a gradient: penalties, normalisation, momentum, Adam, averaging.
//
// w, g [P] and the buffers [P] are rows of vectors, one network a lane; `hyper` holds each network's numbers. Who
// cooperates on a network takes every step-th row from first() on.
#pragma once
#include "../contract.h"
#include "../math.h"
#include "../team.h"

namespace fs {

enum Hyper { FS_HYPER_WORDS, HYPERS };
enum Flag { FS_FLAG_WORDS };

struct Update {
  enum Perturb { FS_PERTURB_WORDS };  // SAM: no perturbation, one a step, one a sample
  u32 uses;                           // bit h: the rule has hyper-parameter h
  u32 flags;                          // bit f: the rule is so
  Perturb perturb;
  const bool* fixed;  // [P] parameters that no penalty or noise may move, or null
  int buffers;        // [P] each: momentum, or moments, then the average

  FS_HD bool has(Hyper h) const { return uses >> h & 1; }
  FS_HD constexpr bool is(Flag f) const { return flags >> f & 1; }
  // Whether a step divides by the size that derivatives have had: 0 / 0 where there are none, but for epsilon.
  FS_HD constexpr bool divides() const { return is(ADAM) || is(RMSPROP) || is(ADAGRAD); }
  // Buffers that it needs.
  FS_HD int carried() const { return is(ADAM) + divides() + is(LION) + has(MOMENTUM) + has(AVERAGE); }
  FS_HD bool free(int p) const { return !(fixed && fixed[p]); }
  // Whether the step is -eta g and nothing else, so that derivatives may be applied as they come.
  FS_HD bool plain() const { return !uses && !flags && perturb == NONE; }
  // Whether what becomes of a parameter depends on its own derivative alone.
  FS_HD bool each() const {
    const u32 others = uses & ~(1u << MOMENTUM | 1u << WEIGHT_DECAY | 1u << BETA1 | 1u << BETA2 | 1u << EPSILON);
    const u32 so = flags & ~(1u << NESTEROV | 1u << DECOUPLED | 1u << ADAM);
    return !others && !so && perturb == NONE && !(has(WEIGHT_DECAY) && fixed);
  }
};

// A sum of squares between LOW and MOST has all its digits. Numbers whose squares sum to less are multiplied by
// RESCALE, those whose squares sum to more are divided by it: then theirs has, too.
template <class T>
struct Squares;
template <>
struct Squares<float> {
  static constexpr float LOW = 0x1p-100f, MOST = 0x1.fffffep127f, RESCALE = 0x1p96f;
};
template <>
struct Squares<double> {
  static constexpr double LOW = 0x1p-960, MOST = 0x1.fffffffffffffp1023, RESCALE = 0x1p768;
};

template <class Tm>
FS_HD typename Tm::V square(const typename Tm::V* g, int P) {
  return tree_sum<Tm>(P, [&](int p, typename Tm::V s) { return fma(g[p], g[p], s); });
}

// |g| of a gradient whose direction alone matters: where |g|^2 leaves the range of T, g is scaled by a power of two.
template <class Tm>
FS_HD typename Tm::V norm(typename Tm::V* g, int P) {
  using T = typename Tm::T;
  using V = typename Tm::V;
  using S = Squares<T>;
  const V sum = square<Tm>(g, P), one = V::set(1);
  const V large = choose(sum.a > V::set(S::MOST).a, V::set(1 / S::RESCALE), one);
  const V scale = choose(sum.a < V::set(S::LOW).a, V::set(S::RESCALE), large);
  if (__builtin_expect(beyond(scale - one, T(0)) == 0, 1)) return sqrt(sum);
  FS_UNROLL_ROWS
  for (int p = Tm::first(); p < P; p += Tm::step()) g[p] = scale * g[p];
  return sqrt(square<Tm>(g, P));
}

// to = w + rho g / |g|, or w + rho g: the point at which SAM takes its gradient. Of g its direction is left.
template <class Tm, class V>
FS_HD void perturbed(const Update& u, int P, const V* w, V* g, V rho, V* to) {
  V scale = rho;
  if (u.is(UNIT)) {
    const V length = norm<Tm>(g, P);
    scale = gate(length, rho / length);
  }
  FS_UNROLL_ROWS
  for (int p = Tm::first(); p < P; p += Tm::step()) to[p] = fma(scale, g[p], w[p]);
}

// -1, 0 or 1.
template <class V>
FS_HD V sign(V x) {
  const V one = V::set(1);
  return gate(x, one) - gate(V::set(0) - x, one);
}

template <class V>
FS_HD V raised(V x, i64 exponent) {
  V out = V::set(1);
  for (; exponent > 0; exponent >>= 1, x = x * x)
    if (exponent & 1) out = out * x;
  return out;
}

// What an update needs to know besides gradient and buffers, the same for all parameters.
template <class V>
struct Numbers {
  V rate, decay, keep;  // -eta; weight decay, and what it leaves of a parameter where it is decoupled
  V momentum;
  V b1, b2, c1, c2, epsilon;  // Adam's; c: by what its moments are too small yet

  FS_HD Numbers(const Update& u, const V* hyper, V rate_, i64 t) : rate(rate_) {
    const V one = V::set(1);
    if (u.has(WEIGHT_DECAY)) decay = hyper[WEIGHT_DECAY], keep = fma(rate, decay, one);
    if (u.has(MOMENTUM)) momentum = hyper[MOMENTUM];
    if (!u.is(ADAM)) return;
    b1 = hyper[BETA1], b2 = hyper[BETA2], epsilon = hyper[EPSILON];
    c1 = one - raised(b1, t + 1), c2 = one - raised(b2, t + 1);
  }
  // A parameter w moves by its derivative g.
  FS_HD void by_adam(V& w, V g, V& first, V& second) const {
    const V one = V::set(1);
    first = fma(b1, first, (one - b1) * g);
    second = fma(b2, second, (one - b2) * (g * g));
    w = fma(rate, (first / c1) / (sqrt(second / c2) + epsilon), w);
  }
  FS_HD void by_momentum(V& w, V g, V& buffer, bool nesterov) const {
    const V moved = fma(momentum, buffer, g);
    buffer = moved;
    w = fma(rate, nesterov ? fma(momentum, moved, g) : moved, w);
  }
};

// A sink that moves each parameter by its derivative at once, where a rule looks at each by itself (Update::each) and a
// family hands each derivative over once, as a whole.
enum Mover { BY_GRADIENT, BY_MOMENTUM, BY_ADAM };
// MORE: whether there is decay or Nesterov's look ahead, which need questions at every parameter.
template <Mover BY, bool MORE, class V>
struct Move {
  V *w, *first, *second;
  Numbers<V> n;
  bool coupled, decoupled, nesterov;

  FS_HD void operator()(int p, V e, V b) const { move(p, fma(e, b, V::set(0))); }
  FS_HD void operator()(int p, V e) const { move(p, V::set(0) + e); }

 private:
  FS_HD void move(int p, V g) const {
    V at = w[p];
    if (MORE && coupled) g = fma(n.decay, at, g);
    if (MORE && decoupled) at = n.keep * at;
    if constexpr (BY == BY_ADAM) n.by_adam(at, g, first[p], second[p]);
    else if constexpr (BY == BY_MOMENTUM) n.by_momentum(at, g, first[p], MORE && nesterov);
    else at = fma(n.rate, g, at);
    w[p] = at;
  }
};

// w moves by rate = -eta times the gradient g, which is used up. t: steps done before this one.
template <class Tm, class V>
FS_HD void update(const Update& u, int P, V* w, V* g, V* buffer, const V* hyper, V rate, i64 t) {
  const V one = V::set(1), zero = V::set(0);
  const Numbers<V> n(u, hyper, rate, t);
  if (u.has(WEIGHT_DECAY) && !u.is(DECOUPLED)) {
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step())
      if (u.free(p)) g[p] = fma(n.decay, w[p], g[p]);
  }
  if (u.has(BALANCE_PENALTY)) {  // gradient of (mu / 4) sum_j (u_j^2 - v_j^2)^2
    Tm::sync();
    for (int p = Tm::first(); p < P / 2; p += Tm::step()) {
      const V a = w[p], b = w[P / 2 + p], e = hyper[BALANCE_PENALTY] * fma(a, a, zero - b * b);
      g[p] = fma(e, a, g[p]), g[P / 2 + p] = fma(zero - e, b, g[P / 2 + p]);
    }
    Tm::sync();
  }
  if (u.is(NORMALISED)) {
    const V length = norm<Tm>(g, P), scale = gate(length, one / length);
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step()) g[p] = scale * g[p];
  }
  if (u.has(WEIGHT_DECAY) && u.is(DECOUPLED)) {
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step())
      if (u.free(p)) w[p] = n.keep * w[p];
  }
  if (u.is(ADAM)) {
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step()) n.by_adam(w[p], g[p], buffer[p], buffer[P + p]);
    buffer += 2 * P;
  } else if (u.is(LION)) {
    const V b1 = hyper[BETA1], b2 = hyper[BETA2];
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step()) {
      w[p] = fma(rate, sign(fma(b1, buffer[p], (one - b1) * g[p])), w[p]);
      buffer[p] = fma(b2, buffer[p], (one - b2) * g[p]);
    }
    buffer += P;
  } else if (u.divides()) {  // RMSProp, or Adagrad with weights 1 and 1
    const V old = u.is(RMSPROP) ? hyper[BETA2] : one, share = u.is(RMSPROP) ? one - hyper[BETA2] : one;
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step()) {
      buffer[p] = fma(old, buffer[p], share * (g[p] * g[p]));
      w[p] = fma(rate, g[p] / (sqrt(buffer[p]) + hyper[EPSILON]), w[p]);
    }
    buffer += P;
  } else if (u.is(SIGN)) {
    const bool carries = u.has(MOMENTUM);
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step()) {
      V to = g[p];
      if (carries) {
        buffer[p] = fma(hyper[MOMENTUM], buffer[p], g[p]);
        to = u.is(NESTEROV) ? fma(hyper[MOMENTUM], buffer[p], g[p]) : buffer[p];
      }
      w[p] = fma(rate, sign(to), w[p]);
    }
    if (carries) buffer += P;
  } else if (u.has(MOMENTUM)) {
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step()) n.by_momentum(w[p], g[p], buffer[p], u.is(NESTEROV));
    buffer += P;
  } else {
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step()) w[p] = fma(rate, g[p], w[p]);
  }
  if (u.has(AVERAGE)) {
    const V a = hyper[AVERAGE];
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step()) buffer[p] = fma(a, buffer[p], (one - a) * w[p]);
  }
}

}  // namespace fs
