// Owns the activations of dense networks: value and derivative at once.
#pragma once
#include "contract.h"
#include "math.h"

namespace fs {

struct Activation {
  enum Kind { FS_ACTIVATION_WORDS };
};

// a = act(z) and its derivative; relu'(0) = abs'(0) = 0, leaky'(0) = slope.
template <class V>
FS_HD void activate(Activation::Kind kind, V z, V slope, V& a, V& derivative) {
  const V one = V::set(1);
  switch (kind) {
    case Activation::IDENTITY: a = z, derivative = one; return;
    case Activation::RELU: a = relu(z), derivative = gate(z, one); return;
    case Activation::LEAKY: {
      const V on = gate(z, one);
      derivative = on + slope * (one - on), a = derivative * z;
      return;
    }
    case Activation::ABS: derivative = gate(z, one) - gate(V::set(0) - z, one), a = derivative * z; return;
    case Activation::SQUARE: a = z * z, derivative = z + z; return;
    case Activation::TANH: a = tanh(z), derivative = one - a * a; return;
    case Activation::ERF: a = erf(z), derivative = V::set(1.1283791670955126) * exp(-(z * z)); return;  // 2 / sqrt(pi)
    case Activation::SIGMOID: a = sigmoid(z), derivative = a * (one - a); return;
    case Activation::SOFTPLUS: a = softplus(z), derivative = sigmoid(z); return;
  }
}

}  // namespace fs
