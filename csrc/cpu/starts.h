// Owns what Python may call for starting weights: groups of parameters that start alike.
#pragma once
#include <vector>

#include "../core/macros.h"

namespace fs {

// deviation * (normal draw j of parameter j) + mean, each of them one number or one for each network.
struct Group {
  i64 size;
  const double *mean, *deviation;
  bool own_mean, own_deviation;  // whether each network has its own
};

// Starting weights out [N, P] of networks whose draws are `keys`, group after group; returns whether all are finite.
template <class T>
bool starts(u64 seed, i64 N, const u32* keys, const std::vector<Group>& groups, int threads, T* out);

}  // namespace fs
