// Owns the losses: the derivative of one sample's loss with respect to the outputs, and when a sample is out of bounds.
//
// squared    c sum_k m_k (f_k - y_k)^2        logistic       c log(1 + exp(-y f)),  y = +-1
// hinge      c max(0, 1 - y f), y = +-1       cross-entropy  c (log sum_k exp(f_k) - f_y), y the number of a class
// output     c f, the network's output itself
#pragma once
#include "contract.h"
#include "math.h"
#include "traced.h"
#include "vec.h"

namespace fs {

// Numbers of a network where networks have losses of their own: these, then the weights [o], or what a traced loss
// takes.
enum { OWN_BOUND, OWN_FACTOR, OWN_NUMBERS };

template <class T>
struct Loss {
  enum Kind { FS_LOSS_WORDS } kind;
  T factor;          // c
  const T* weights;  // m [o], or null for ones
  T bound;           // |f - y| of a squared loss, |f| of any other, beyond which a run is lost
  Entry traced;      // of TRACED, where it is compiled elsewhere; with own numbers `traced_own`
  Entry traced_own;

  // g_k = dloss/df_k of outputs f [o] and labels y; returns a bit for each lane that is out of bounds.
  template <class V>
  FS_HD u32 dloss(const V* f, const V* y, int o, V* g) const {
    return derivative(f, y, o, g, V::set(factor), bound, weights, [&](int k) { return V::set(weights[k]); });
  }
  // The same with own numbers of each lane's network.
  template <class V>
  FS_HD u32 dloss(const V* f, const V* y, int o, V* g, const V* own) const {
    return derivative(f, y, o, g, own[OWN_FACTOR], own[OWN_BOUND], true, [&](int k) { return own[OWN_NUMBERS + k]; });
  }

 private:
  template <class V, class Bound, class Weight>
  FS_HD u32 derivative(const V* f, const V* y, int o, V* g, V c, Bound most_gap, bool weighs, Weight weight) const {
    const V one = V::set(1), zero = V::set(0);
    u32 bad = 0;
    if (kind == SQUARED) {
      const V twice = c + c;
      for (int k = 0; k < o; ++k) {
        const V r = f[k] - y[k];
        bad |= beyond(r, most_gap);
        g[k] = weighs ? weight(k) * (twice * r) : twice * r;
      }
      return bad;
    }
    for (int k = 0; k < o; ++k) bad |= beyond(f[k], most_gap);
    if (kind == CROSS_ENTROPY) {
      V most = f[0], others = zero, own = zero;
      for (int k = 1; k < o; ++k) most = choose(f[k].a > most.a, f[k], most);
      for (int k = 0; k < o; ++k) {
        const auto here = y[0].a == V::set(T(k)).a;
        g[k] = exp(f[k] - most);
        own = choose(here, g[k], own), others = others + choose(here, zero, g[k]);
      }
      const V sum = own + others;
      for (int k = 0; k < o; ++k)  // of the label p - 1, without taking 1 from a p that is close to it
        g[k] = c * (choose(y[0].a == V::set(T(k)).a, zero - others, g[k]) / sum);
      return bad;
    }
    if (kind == OUTPUT) {
      g[0] = c;
      return bad;
    }
    const V margin = y[0] * f[0], e = c * y[0];
    g[0] = zero - (kind == LOGISTIC ? e * sigmoid(zero - margin) : gate(one - margin, e));
    return bad;
  }
};

}  // namespace fs
