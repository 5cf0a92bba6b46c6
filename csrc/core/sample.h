// Owns how a family reads one input x [d]: spread over the team's lanes, or the same number in all of them.
//
// own(c): items c * L .. c * L + L - 1, one a lane.  shared(j): item j in every lane of the network's team.
#pragma once
#include "team.h"

namespace fs {

// A row of X [n, stride] that all networks of the vector see; the stride is padded with zeros to whole vectors.
template <class Tm>
struct Row {
  using V = typename Tm::V;
  const typename Tm::T* x;
  FS_HD V own(int c) const {
    if constexpr (Tm::L == 1) return V::set(x[c]);
    else return V::loadu(x + c * Tm::L);
  }
  FS_HD V shared(int j) const { return V::set(x[j]); }
};

// W rows turned into columns beforehand, one lane a network: x [d] vectors.
template <class Tm>
struct Columns {
  using V = typename Tm::V;
  const V* x;
  FS_HD V own(int c) const { return x[c]; }
  FS_HD V shared(int j) const { return x[j]; }
};

}  // namespace fs
