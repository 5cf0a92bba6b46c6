// Owns the shape of a model of any family that the general loop knows.
#pragma once
#include "dense_shape.h"

namespace fs {

struct FamilyShape {
  enum Kind { DENSE, PRODUCT, POWER, AUTOENCODER } kind;
  DenseShape dense;     // of DENSE
  int d, depth, h, on;  // of the others; on: whether POWER is signed, whether AUTOENCODER has biases
};

}  // namespace fs
