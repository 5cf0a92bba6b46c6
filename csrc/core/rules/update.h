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
  int buffers;        // [P] each: momentum, or Adam's two moments, then the average

  FS_HD bool has(Hyper h) const { return uses >> h & 1; }
  FS_HD constexpr bool is(Flag f) const { return flags >> f & 1; }
  FS_HD bool free(int p) const { return !(fixed && fixed[p]); }
  // Whether the step is -eta g and nothing else, so that derivatives may be applied as they come.
  FS_HD bool plain() const { return !uses && !flags && perturb == NONE; }
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

template <class V>
FS_HD V raised(V x, i64 exponent) {
  V out = V::set(1);
  for (; exponent > 0; exponent >>= 1, x = x * x)
    if (exponent & 1) out = out * x;
  return out;
}

// w moves by rate = -eta times the gradient g, which is used up. t: steps done before this one.
template <class Tm, class V>
FS_HD void update(const Update& u, int P, V* w, V* g, V* buffer, const V* hyper, V rate, i64 t) {
  const V one = V::set(1), zero = V::set(0);
  if (u.has(WEIGHT_DECAY) && !u.is(DECOUPLED)) {
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step())
      if (u.free(p)) g[p] = fma(hyper[WEIGHT_DECAY], w[p], g[p]);
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
    const V keep = fma(rate, hyper[WEIGHT_DECAY], one);
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step())
      if (u.free(p)) w[p] = keep * w[p];
  }
  if (u.is(ADAM)) {
    const V b1 = hyper[BETA1], b2 = hyper[BETA2], c1 = one - raised(b1, t + 1), c2 = one - raised(b2, t + 1);
    V *first = buffer, *second = buffer + P;
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step()) {
      first[p] = fma(b1, first[p], (one - b1) * g[p]);
      second[p] = fma(b2, second[p], (one - b2) * (g[p] * g[p]));
      w[p] = fma(rate, (first[p] / c1) / (sqrt(second[p] / c2) + hyper[EPSILON]), w[p]);
    }
    buffer += 2 * P;
  } else if (u.has(MOMENTUM)) {
    const V m = hyper[MOMENTUM];
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step()) {
      buffer[p] = fma(m, buffer[p], g[p]);
      w[p] = fma(rate, u.is(NESTEROV) ? fma(m, buffer[p], g[p]) : buffer[p], w[p]);
    }
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
