// Owns how words and dicts from Python become kinds and shapes.
#pragma once
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <stdexcept>
#include <string>

#include "../core/models/dense_shape.h"

namespace fs {

// The position of `name` in a list of names: how words become numbers.
template <class Kind>
Kind one_of(const pybind11::handle& name, std::initializer_list<const char*> names) {
  const auto given = name.cast<std::string>();
  int at = 0;
  for (const char* one : names) {
    if (given == one) return Kind(at);
    ++at;
  }
  throw std::invalid_argument("internal: no " + given);
}

// {sizes, bias, weights_trained, biases_trained, multipliers, activation, slope} as models/dense.py gives them.
inline DenseShape dense_of(const pybind11::dict& d) {
  DenseShape s{};
  const auto size = d["sizes"].cast<pybind11::tuple>();
  s.layers = int(size.size()) - 1;
  if (s.layers < 1 || s.layers > DenseShape::MOST) throw std::invalid_argument("internal: layers");
  for (int l = 0; l <= s.layers; ++l) s.size[l] = size[l].cast<int>();
  for (int l = 0; l < s.layers; ++l) {
    s.bias[l] = d["bias"].cast<pybind11::tuple>()[l].cast<bool>();
    s.trained[0][l] = d["weights_trained"].cast<pybind11::tuple>()[l].cast<bool>();
    s.trained[1][l] = d["biases_trained"].cast<pybind11::tuple>()[l].cast<bool>();
    s.multiplier[l] = d["multipliers"].cast<pybind11::tuple>()[l].cast<double>();
  }
  s.activation = one_of<Activation::Kind>(d["activation"], {FS_ACTIVATION_NAMES});
  s.slope = d["slope"].cast<double>();
  return s;
}

}  // namespace fs
