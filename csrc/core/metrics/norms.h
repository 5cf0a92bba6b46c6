// Owns norm, imbalance and support of a pair of vectors, each summed in eight partial sums: what the measures of a
// diagonal network's parameters are made of. Parallel: nothing here; one call is one network on one thread.
#pragma once
#include "../math.h"

namespace fs {

// out [3]: |(u, v)|, | |u| - |v| |, #{|u_j v_j| > threshold} of u, v [d].
FS_FN void diagonal_norms(const double* u, const double* v, int d, double threshold, double* out) {
  double norm[8] = {}, apart[8] = {}, support[8] = {};
  const auto add = [&](int j, int k) {  // k: which partial sum, known to the compiler in whole rounds
    const double a = __builtin_fabs(u[j]), b = __builtin_fabs(v[j]);
    norm[k] += a * a + b * b;
    apart[k] += (a - b) * (a - b);
    support[k] += a * b > threshold;
  };
  int j = 0;
  for (; j + 8 <= d; j += 8) {
    FS_UNROLL
    for (int k = 0; k < 8; ++k) add(j + k, k);
  }
  FS_UNROLL
  for (int k = 0; k < 7; ++k)
    if (j + k < d) add(j + k, k);
  const auto total = [](const double* p) { return ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7])); };
  out[0] = sqrt1(total(norm)), out[1] = sqrt1(total(apart)), out[2] = total(support);
}

}  // namespace fs
