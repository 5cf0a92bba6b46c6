// Owns what becomes of a derivative. A family's `vjp` hands each one over as a product e * b at row r.
#pragma once
#include "vec.h"

namespace fs {

// to[r] += e * b: a gradient's sum, or the SGD step itself where `to` is w and the step size is inside e.
template <class V>
struct Accumulate {
  V* to;
  FS_HD void operator()(int r, V e, V b) const { to[r] = fma(e, b, to[r]); }
  FS_HD void operator()(int r, V e) const { to[r] = to[r] + e; }
};

}  // namespace fs
