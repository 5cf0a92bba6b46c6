// Owns the updates: batch-1 SGD applied derivative by derivative, and the mean-gradient step of batches and full data.
#pragma once
#include "../sink.h"
#include "../team.h"

namespace fs {

// SGD, batch 1:  w += rate * slope * r * grad h(x),  rate = -eta.  Residual r was formed at x; returns h(next).
template <class Model, class X, class V>
FS_HD V sgd(const Model& model, V* w, X x, V r, V rate, V slope, V* kept, X next) {
  return model.pull_value(w, x, rate * (slope * r), kept, next);
}

// One sample's share of a batch gradient:  g += slope * r * grad h(x).
template <class Model, class X, class V>
FS_HD void gather_gradient(const Model& model, const V* w, V* g, X x, V r, V slope, const V* kept) {
  model.pull(w, x, slope * r, kept, Accumulate<V>{g});
}

// The batch step:  w += (rate / B) * g.
template <class Model, class V>
FS_HD void apply_gradient(const Model& model, V* w, const V* g, V rate_over_batch) {
  FS_UNROLL_ROWS
  for (int r = 0; r < model.rows(); ++r) w[r] = fma(rate_over_batch, g[r], w[r]);
}

}  // namespace fs
