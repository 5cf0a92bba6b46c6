// Owns singular values on their way to Python: numbers of order one, and the powers of two that they stand over.
#pragma once
#include <pybind11/numpy.h>

namespace fs {

// sigma [N, kept] and exponents [N, kept]: the values are sigma 2^exponent.
struct Spectra {
  pybind11::array_t<double> sigma;
  pybind11::array_t<int> exponents;
  double* value;
  int* power;
  pybind11::ssize_t kept;

  Spectra(pybind11::ssize_t N, pybind11::ssize_t kept_)
      : sigma({N, kept_}),
        exponents({N, kept_}),
        value(sigma.mutable_data()),
        power(exponents.mutable_data()),
        kept(kept_) {}

  // Row k from what `jacobi_singular_values` leaves, `most` values and behind them their exponents.
  void put(pybind11::ssize_t k, const double* from, size_t most) {
    for (pybind11::ssize_t i = 0; i < kept; ++i)
      value[k * kept + i] = from[i], power[k * kept + i] = int(from[most + i]);
  }
  pybind11::tuple both() const { return pybind11::make_tuple(sigma, exponents); }
};

}  // namespace fs
