// Owns one layer of a dense network at one point on one thread, in float64 and in the order of core/models/dense.h.
#pragma once
#include "../../core/models/dense_shape.h"
#include "../platform.h"

namespace fs {

// each(u, z, act(z), act'(z)) for the units u of layer l = 1, 2, ...; w [P], from: a_{l-1}, `step` numbers apart.
template <class Each>
FS_DEVICE void forward_layer(const DenseShape& s, int l, const double* w, const double* from, int step, Each each) {
  using One = Vec<double, 1>;
  const double *W = w + s.weights(l - 1), *b = w + s.biases(l - 1), c = s.multiplier[l - 1];
  const int fan = s.size[l - 1];
  FS_NO_UNROLL
  for (int u = 0; u < s.size[l]; ++u) {
    double z = 0;
    for (int k = 0; k < fan; ++k) z = fma1(c * W[u * fan + k], from[k * step], z);
    if (s.bias[l - 1]) z = z + b[u];
    One a, derivative;
    activate(s.activation, One::set(z), One::set(s.slope), a, derivative);
    each(u, z, a.a, derivative.a);
  }
}

}  // namespace fs
