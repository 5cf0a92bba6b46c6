// Owns a dense network's passes over points on a GPU, in float64 and in the order of core/models/dense.h: a thread a
// point forwards, a thread a row of the Jacobian backwards.
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

// Activations and derivatives of all layers at POINTS points, in work that begins with the weights w [P]:
// a_l [h_l, points], act' [h_l, points], D_l [h_l, rows] = dh_o(x_i) / dz_l, rows (o, i).   Spec: shape(), POINTS.
template <class Spec>
struct DensePasses {
  FS_HD static constexpr DenseShape shape() { return Spec::shape(); }
  static constexpr int LAYERS = shape().layers, OUTPUTS = shape().size[LAYERS], POINTS = Spec::POINTS,
                       ROWS = OUTPUTS * POINTS, P = shape().P();

  FS_HD static constexpr int activations(int l) {  // where a_l of layers 1 .. L - 1 begins
    int at = P;
    for (int k = 1; k < l; ++k) at += shape().size[k] * (POINTS * (OUTPUTS > 1 ? 2 : 1) + ROWS);
    return at;
  }
  FS_HD static constexpr int derivatives(int l) { return activations(l) + shape().size[l] * POINTS; }
  FS_HD static constexpr int activation_derivatives(int l) {  // of one output, D_l in the making
    return derivatives(l) + (OUTPUTS > 1 ? shape().size[l] * ROWS : 0);
  }
  static constexpr int SIZE = activations(LAYERS);

  FS_DEVICE static void forward(double* work, const double* X, int point) {  // X [d, points]
    FS_UNROLL
    for (int l = 1; l < LAYERS; ++l) {
      const double* from = l > 1 ? work + activations(l - 1) + point : X + point;
      forward_layer(shape(), l, work, from, POINTS, [&](int u, double, double a, double derivative) {
        work[activations(l) + u * POINTS + point] = a;
        work[activation_derivatives(l) + u * POINTS + point] = derivative;
      });
    }
  }
  FS_DEVICE static void backward(double* work, int row) {  // after `forward` of all points, or of its own if o = 1
    const DenseShape s = shape();
    const int output = row / POINTS, point = row % POINTS;
    FS_UNROLL
    for (int l = LAYERS - 1; l > 0; --l) {
      const double *W = work + s.weights(l), c = s.multiplier[l];
      const int h = s.size[l];
      FS_NO_UNROLL
      for (int u = 0; u < h; ++u) {
        double back = 0;
        if (l == LAYERS - 1) back = c * W[output * h + u];
        else
          for (int v = 0; v < s.size[l + 1]; ++v)
            back = fma1(c * W[v * h + u], work[derivatives(l + 1) + v * ROWS + row], back);
        const double own = work[activation_derivatives(l) + u * POINTS + point];
        work[derivatives(l) + u * ROWS + row] = back * own;
      }
    }
  }
};

}  // namespace fs
