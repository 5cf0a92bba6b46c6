// Owns the updates: batch-1 SGD applied derivative by derivative, and the gradient of a batch, some samples at a time.
#pragma once
#include "../team.h"

namespace fs {

// SGD, batch 1:  w += rate * dloss * r * grad h(x),  rate = -eta.  Residual r was formed at x; returns h(next).
template <class Model, class X, class V>
FS_HD V sgd(const Model& model, V* w, X x, V r, V rate, V dloss, V* residuals, X next) {
  return model.vjp_value(w, x, rate * (dloss * r), residuals, next);
}

// R samples of a batch:  sum += dloss * (h(x) - y) * grad h(x), as the family keeps it. Returns the lanes in which a
// residual is beyond `bound`.
template <int R, class Model, class X, class V, class Bound>
FS_HD u32 accumulate_gradient(const Model& model, const V* w, const V* folded, const X (&x)[R], const V (&y)[R],
                              V dloss, Bound bound, V* residuals, V* sum) {
  V h[R];
  u32 bad = 0;
  model.values(w, folded, x, residuals, h);
  FS_UNROLL
  for (int i = 0; i < R; ++i) {
    const V r = h[i] - y[i];
    bad |= beyond(r, bound);
    h[i] = dloss * r;
  }
  model.accumulate(w, x, h, residuals, sum);
  return bad;
}

}  // namespace fs
