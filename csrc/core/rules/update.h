// Owns what a step does with a gradient: clipping, penalties, normalisation, momentum, Adam, averaging.
//
// w, g [P] and the buffers [P] are rows of vectors, one network a lane; `hyper` holds each network's numbers. Threads
// that cooperate on a network each take every step-th row from first() on.
#pragma once
#include "../contract.h"
#include "../math.h"
#include "../team.h"
#include "norm.h"
#include "orthogonal.h"

namespace fs {

enum Hyper { FS_HYPER_WORDS, HYPERS };
enum Flag { FS_FLAG_WORDS };

// Numbers that differ from one named array of parameters to the next: `each` [groups, EACH], array k being parameters
// ends[k] .. ends[k + 1] - 1. Muon takes arrays for matrices of rows[k] rows, and works in `scratch`; rows 0: no
// matrix.
enum { STEP_SCALE, EACH_DECAY, EACH_LOCALISATION, EACH };
template <class V>
struct Groups {
  int count;
  const i32* ends;  // [2 count + 1], the rows behind
  const V* each;
  V* scratch;
  FS_HD int rows(int k) const { return ends[count + 1 + k]; }
};

struct Update {
  enum Perturb { FS_PERTURB_WORDS };  // SAM: no perturbation, one a step, one a sample
  u32 uses;                           // bit h: the rule has hyper-parameter h
  u32 flags;                          // bit f: the rule is so
  Perturb perturb;
  const bool* fixed;  // [P] parameters that no penalty or noise may move, or null
  int buffers;        // [P] each: momentum, moments, a user's, then the point of localisation, then the average

  FS_HD bool has(Hyper h) const { return uses >> h & 1; }
  FS_HD constexpr bool is(Flag f) const { return flags >> f & 1; }
  // Whether a step divides by the size that derivatives have had: 0 / 0 where there are none, but for epsilon.
  FS_HD constexpr bool divides() const { return is(ADAM) || is(RMSPROP) || is(ADAGRAD); }
  // Buffers that it needs, but for those of a user's own rule.
  FS_HD int carried() const {
    return is(ADAM) + divides() + is(LION) + has(MOMENTUM) + has(LOCALISATION) + has(AVERAGE);
  }
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

// to = w + rho g / |g|, or w + rho g: the point at which SAM takes its gradient. Of g its direction is left.
template <class Tm, class V>
FS_APART void perturbed(const Update& u, int P, const V* w, V* g, V rho, V* to) {
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
  // What momentum makes of a derivative g.
  FS_HD V carried(V g, V& buffer, bool nesterov) const {
    const V moved = fma(momentum, buffer, g);
    buffer = moved;
    return nesterov ? fma(momentum, moved, g) : moved;
  }
  FS_HD void by_momentum(V& w, V g, V& buffer, bool nesterov) const { w = fma(rate, carried(g, buffer, nesterov), w); }
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

// g with every entry between -most and most. What is not a number stays.
template <class Tm, class V>
FS_HD void clip_values(V* g, int P, V most) {
  const V least = V::set(0) - most;
  FS_UNROLL_ROWS
  for (int p = Tm::first(); p < P; p += Tm::step()) {
    const V above = choose(g[p].a < least.a, least, g[p]);
    g[p] = choose(above.a > most.a, most, above);
  }
}

// g times min(1, most / (|g| + 1e-6)), as torch.nn.utils.clip_grad_norm_ has it. Where |g|^2 leaves the range of T, |g|
// is that of a g scaled down; where it vanishes, 1e-6 is all that counts.
template <class Tm, class V>
FS_HD void clip_norm(V* g, int P, V most) {
  using T = typename Tm::T;
  const V one = V::set(1), sum = square<Tm>(g, P), small = V::set(1 / Squares<T>::RESCALE);
  const auto large = sum.a > V::set(Squares<T>::MOST).a;
  const V scale = choose(large, small, one);
  V length = sqrt(sum);
  if (__builtin_expect(beyond(scale - one, T(0)) != 0, 0))
    length =
        choose(large, sqrt(tree_sum<Tm>(P, [&](int p, V s) { return fma(small * g[p], small * g[p], s); })), length);
  const V share = scale * (most / fma(scale, V::set(T(1e-6)), length)), by = choose(share.a < one.a, share, one);
  FS_UNROLL_ROWS
  for (int p = Tm::first(); p < P; p += Tm::step()) g[p] = by * g[p];
}

// The first row from `begin` on of this thread, which has the same rows in every loop.
template <class Tm>
FS_HD int mine(int begin) {
  return begin + (Tm::first() - begin % Tm::step() + Tm::step()) % Tm::step();
}

// Where no rule is a user's own.
struct NoRule {
  template <class V>
  FS_HD void operator()(int, int, V) const {}
};

// Parameters begin .. end - 1 of the P move along their gradient g, as the rule says; by own(begin, end, rate) where it
// is a user's.
template <class Tm, class V, class Own>
FS_HD void descend(const Update& u, const Numbers<V>& n, int begin, int end, int P, V* w, V* g, V* buffer,
                   const V* hyper, i64 t, const Own& own) {
  const V one = V::set(1);
  if (u.has(WEIGHT_DECAY) && u.is(DECOUPLED)) {
    FS_UNROLL_ROWS
    for (int p = mine<Tm>(begin); p < end; p += Tm::step())
      if (u.free(p)) w[p] = n.keep * w[p];
  }
  if (u.has(DAMPENING) && t) {
    FS_UNROLL_ROWS
    for (int p = mine<Tm>(begin); p < end; p += Tm::step()) g[p] = (one - hyper[DAMPENING]) * g[p];
  }
  if (u.is(ADAM)) {
    FS_UNROLL_ROWS
    for (int p = mine<Tm>(begin); p < end; p += Tm::step()) n.by_adam(w[p], g[p], buffer[p], buffer[P + p]);
    buffer += 2 * P;
  } else if (u.is(LION)) {
    const V b1 = hyper[BETA1], b2 = hyper[BETA2];
    FS_UNROLL_ROWS
    for (int p = mine<Tm>(begin); p < end; p += Tm::step()) {
      w[p] = fma(n.rate, sign(fma(b1, buffer[p], (one - b1) * g[p])), w[p]);
      buffer[p] = fma(b2, buffer[p], (one - b2) * g[p]);
    }
    buffer += P;
  } else if (u.divides()) {  // RMSProp, or Adagrad with weights 1 and 1
    const V old = u.is(RMSPROP) ? hyper[BETA2] : one, share = u.is(RMSPROP) ? one - hyper[BETA2] : one;
    FS_UNROLL_ROWS
    for (int p = mine<Tm>(begin); p < end; p += Tm::step()) {
      buffer[p] = fma(old, buffer[p], share * (g[p] * g[p]));
      w[p] = fma(n.rate, g[p] / (sqrt(buffer[p]) + hyper[EPSILON]), w[p]);
    }
    buffer += P;
  } else if (u.is(SIGN)) {
    const bool carries = u.has(MOMENTUM);
    FS_UNROLL_ROWS
    for (int p = mine<Tm>(begin); p < end; p += Tm::step())
      w[p] = fma(n.rate, sign(carries ? n.carried(g[p], buffer[p], u.is(NESTEROV)) : g[p]), w[p]);
    if (carries) buffer += P;
  } else if (u.has(MOMENTUM) && !u.is(MUON)) {
    FS_UNROLL_ROWS
    for (int p = mine<Tm>(begin); p < end; p += Tm::step()) n.by_momentum(w[p], g[p], buffer[p], u.is(NESTEROV));
    buffer += P;
  } else if (u.is(FUNCTION)) {
    own(begin, end, n.rate);
    buffer += (u.buffers - u.has(LOCALISATION) - u.has(AVERAGE)) * P;
  } else {
    FS_UNROLL_ROWS
    for (int p = mine<Tm>(begin); p < end; p += Tm::step()) w[p] = fma(n.rate, g[p], w[p]);
  }
  if (u.is(MUON)) buffer += P;
  if (u.has(LOCALISATION)) buffer += P;
  if (u.has(AVERAGE)) {
    const V a = hyper[AVERAGE];
    FS_UNROLL_ROWS
    for (int p = mine<Tm>(begin); p < end; p += Tm::step()) buffer[p] = fma(a, buffer[p], (one - a) * w[p]);
  }
}

// f(numbers, localisation, begin, end) for each named array, or for all parameters where they share their numbers.
template <class V, class F>
FS_HD void each_array(const Update& u, const Numbers<V>& n, const V* hyper, int P, const Groups<V>& groups, F f) {
  if (!u.is(GROUPED)) return f(n, hyper[LOCALISATION], 0, P);
  FS_NO_UNROLL
  for (int k = 0; k < groups.count; ++k) {
    const V* each = groups.each + k * EACH;
    Numbers<V> own = n;
    own.rate = n.rate * each[STEP_SCALE], own.decay = each[EACH_DECAY];
    own.keep = fma(own.rate, own.decay, V::set(1));
    f(own, each[EACH_LOCALISATION], groups.ends[k], groups.ends[k + 1]);
  }
}

// w moves by rate = -eta times the gradient g, which is used up. t: steps done before this one.
template <class Tm, class V, class Own = NoRule>
FS_HD void update(const Update& u, int P, V* w, V* g, V* buffer, const V* hyper, V rate, i64 t, const Groups<V>& groups,
                  const Own& own = {}) {
  const V one = V::set(1), zero = V::set(0);
  const Numbers<V> n(u, hyper, rate, t);
  if (u.has(CLIP_VALUE)) clip_values<Tm>(g, P, hyper[CLIP_VALUE]);
  if (u.has(CLIP_NORM)) clip_norm<Tm>(g, P, hyper[CLIP_NORM]);
  if (u.has(LOCALISATION)) {
    const V* point = buffer + (u.buffers - 1 - u.has(AVERAGE)) * P;
    each_array(u, n, hyper, P, groups, [&](const Numbers<V>&, V gamma, int begin, int end) {
      FS_UNROLL_ROWS
      for (int p = mine<Tm>(begin); p < end; p += Tm::step())
        if (u.free(p)) g[p] = fma(gamma, w[p] - point[p], g[p]);
    });
  }
  if (u.has(WEIGHT_DECAY) && !u.is(DECOUPLED))
    each_array(u, n, hyper, P, groups, [&](const Numbers<V>& own, V, int begin, int end) {
      FS_UNROLL_ROWS
      for (int p = mine<Tm>(begin); p < end; p += Tm::step())
        if (u.free(p)) g[p] = fma(own.decay, w[p], g[p]);
    });
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
  if (u.is(MUON)) {
    const V mu = hyper[MOMENTUM];
    FS_UNROLL_ROWS
    for (int p = Tm::first(); p < P; p += Tm::step()) {
      const V fresh = (one - mu) * g[p];
      buffer[p] = fma(mu, buffer[p], fresh);
      g[p] = u.is(NESTEROV) ? fma(mu, buffer[p], fresh) : buffer[p];
    }
    FS_NO_UNROLL
    for (int k = 0; k < groups.count; ++k)
      if (const int rows = groups.rows(k))
        orthogonalise<Tm>(g + groups.ends[k], rows, (groups.ends[k + 1] - groups.ends[k]) / rows, groups.scratch);
  }
  if (!u.is(GROUPED)) return descend<Tm>(u, n, 0, P, P, w, g, buffer, hyper, t, own);
  each_array(u, n, hyper, P, groups, [&](const Numbers<V>& each, V, int begin, int end) {
    descend<Tm>(u, each, begin, end, P, w, g, buffer, hyper, t, own);
  });
}

}  // namespace fs
