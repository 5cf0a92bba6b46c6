// Owns the shape of a dense network and where its canonical parameters lie: W1 [h_1, d], b1 [h_1], W2, b2, ..., WL, bL.
//
// a_0 = x,  z_l = c_l W_l a_{l-1} + b_l,  a_l = act(z_l),  h(x) = z_L.
#pragma once
#include "../activation.h"

namespace fs {

struct DenseShape {
  static constexpr int MOST = 8;
  int layers;               // L
  int size[MOST + 1];       // d, h_1, ..., o
  bool bias[MOST];          // whether layer l has biases
  bool trained[2][MOST];    // whether W_l, and whether b_l, changes in training
  double multiplier[MOST];  // c_l
  Activation::Kind activation;
  double slope;  // of LEAKY below zero

  FS_HD constexpr int weights(int l) const {  // where W_{l+1} begins
    int at = 0;
    for (int k = 0; k < l; ++k) at += size[k + 1] * (size[k] + bias[k]);
    return at;
  }
  FS_HD constexpr int biases(int l) const { return weights(l) + size[l + 1] * size[l]; }  // where b_{l+1} begins
  FS_HD constexpr int P() const { return weights(layers); }
  FS_HD constexpr int units() const {  // of all layers but the input
    int count = 0;
    for (int k = 0; k < layers; ++k) count += size[k + 1];
    return count;
  }
};

}  // namespace fs
