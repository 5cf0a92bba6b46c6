// Owns the shape of a model of any family that the general loop knows.
#pragma once
#include "../traced.h"
#include "dense_shape.h"

namespace fs {

struct FamilyShape {
  enum Kind { DENSE, PRODUCT, POWER, AUTOENCODER, TRACED } kind;
  DenseShape dense;     // of DENSE
  int d, depth, h, on;  // of the others; on: whether POWER is signed, whether AUTOENCODER has biases
  TracedShape traced;   // of TRACED
};

}  // namespace fs
