// Owns what becomes of a derivative. A family's `pull` hands each one over as a product e * b at row r; the sink
// decides.
#pragma once
#include "vec.h"

namespace fs {

// w[r] += e * b: the fused SGD step, with the step size already inside e.
template <class V>
struct Apply {
  V* w;
  FS_HD void operator()(int r, V e, V b) const { w[r] = fma(e, b, w[r]); }
  FS_HD void operator()(int r, V e) const { w[r] = w[r] + e; }
};

// g[r] += e * b: full-batch and minibatch gradients.
template <class V>
struct Accumulate {
  V* g;
  FS_HD void operator()(int r, V e, V b) const { g[r] = fma(e, b, g[r]); }
  FS_HD void operator()(int r, V e) const { g[r] = g[r] + e; }
};

// j[r] = e * b: one row of a Jacobian.
template <class V>
struct Store {
  V* j;
  FS_HD void operator()(int r, V e, V b) const { j[r] = e * b; }
  FS_HD void operator()(int r, V e) const { j[r] = e; }
};

}  // namespace fs
