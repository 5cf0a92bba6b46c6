// Owns the Python side of metric kernels: arrays are checked, results made, the GIL dropped. A part of bind.cpp.
#pragma once
#include <memory>
#include <optional>

#include "../core/metrics/diagonal_rank.h"
#include "arrays.h"
#include "kernels.h"
#include "shapes.h"

namespace py = pybind11;
using namespace fs;

namespace {

using Doubles = py::array_t<double, py::array::c_style>;
using Counts = py::array_t<long long>;
constexpr double LEAST_RTOL = 1e-6;  // below, a Gram matrix has lost what would have to be counted

// Singular values on their way to Python: numbers of order one, and the powers of two that they stand over.
struct SpectraOut {
  Doubles sigma;
  py::array_t<int> exponents;
  SpectraOut(i64 N, i64 kept) : sigma({N, kept}), exponents({N, kept}) {}
  Spectra to() { return {sigma.mutable_data(), exponents.mutable_data(), i64(sigma.shape(1))}; }
  py::tuple both() const { return py::make_tuple(sigma, exponents); }
};

py::array_t<double> bind_feature_sparsity(const py::array& phi, double tau, bool normalise, double within,
                                          int threads) {
  if (phi.ndim() != 3 || phi.shape(1) < 1 || phi.shape(2) < 1) throw std::invalid_argument("phi must be [N, n, h]");
  const double* from = data<const double>(phi, "phi", -1);
  const i64 N = phi.shape(0);
  const int n = int(phi.shape(1)), h = int(phi.shape(2));
  py::array_t<double> out(N);
  double* to = out.mutable_data();
  py::gil_scoped_release release;
  feature_sparsity(N, n, h, from, tau, normalise, within, threads, to);
  return out;
}

// ---- diagonal networks

// Number of networks in parts [N, K, d].
i64 networks(const Doubles& parts, i64 d) {
  if (parts.ndim() != 3 || parts.shape(2) != d || parts.shape(1) < 1)
    throw std::invalid_argument("parts must be [N, K, d]");
  return parts.shape(0);
}

struct DiagonalPoints {
  std::unique_ptr<double[]> constants;
  DiagonalRankPoints points;
  DiagonalPoints(const Doubles& G, int m, const std::optional<Doubles>& scale) {
    const auto d = G.ndim() == 2 ? G.shape(0) : 0;
    if (d < 1 || G.shape(1) != d) throw std::invalid_argument("G must be [d, d]");
    if (scale && (scale->ndim() != 1 || scale->shape(0) != d)) throw std::invalid_argument("scale must be [d]");
    constants.reset(new double[diagonal_rank_constants_size(int(d))]);
    const double *from = G.data(), *stretch = scale ? scale->data() : nullptr;
    py::gil_scoped_release release;
    diagonal_points(from, stretch, int(d), m, constants.get(), points);
  }
  // All of it as csrc/cuda/metrics/diagonal.h reads it.
  Doubles packed() const {
    const size_t head = 4, count = diagonal_rank_constants_size(points.d);
    Doubles out(py::ssize_t(head + count));
    double* to = out.mutable_data();
    to[0] = points.m, to[1] = points.definite, to[2] = points.largest, to[3] = points.inverse_norm;
    for (size_t i = 0; i < count; ++i) to[head + i] = constants[i];
    return out;
  }
};

Counts bind_diagonal_rank(const DiagonalPoints& at, const Doubles& parts, double rtol, int threads) {
  const i64 N = networks(parts, at.points.d);
  if (!((rtol == 0 || rtol >= kLeastCounted) && rtol < 1))
    throw std::invalid_argument("rtol must be 0 or lie in [1e-300, 1)");
  Counts out(N);
  const double* from = parts.data();
  const int K = int(parts.shape(1));
  long long* to = out.mutable_data();
  py::gil_scoped_release release;
  diagonal_ranks(at.points, N, K, from, rtol, threads, to);
  return out;
}

py::tuple bind_scaled_values(const Doubles& R, const Doubles& parts, int threads) {
  if (R.ndim() != 2 || R.size() < 1) throw std::invalid_argument("R must be [m, d]");
  const int m = int(R.shape(0)), d = int(R.shape(1)), K = int(parts.ndim() == 3 ? parts.shape(1) : 0);
  const i64 N = networks(parts, d);
  SpectraOut out(N, m < d ? m : d);
  const Spectra to = out.to();
  const double *r = R.data(), *from = parts.data();
  {
    py::gil_scoped_release release;
    scaled_values(r, m, d, N, K, from, threads, to);
  }
  return out.both();
}

Doubles bind_diagonal_norms(const Doubles& W, double threshold) {
  if (W.ndim() != 3 || W.shape(1) != 2) throw std::invalid_argument("W must be [N, 2, d]");
  const auto N = W.shape(0), d = W.shape(2);
  Doubles out({py::ssize_t(3), N});
  const double* w = W.data();
  double* to = out.mutable_data();
  py::gil_scoped_release release;
  diagonal_norms(N, d, w, threshold, to);
  return out;
}

Doubles bind_linear_losses(const Doubles& X, const Doubles& y, const Doubles& beta, bool triangular, int threads) {
  if (X.ndim() != 2 || y.size() != X.shape(0) || beta.ndim() != 2 || beta.shape(1) != X.shape(1))
    throw std::invalid_argument("X must be [m, d], y [m] and beta [N, d]");
  const int m = int(X.shape(0)), d = int(X.shape(1));
  const i64 N = beta.shape(0);
  Doubles out(N);
  const double *x = X.data(), *labels = y.data(), *b = beta.data();
  double* to = out.mutable_data();
  py::gil_scoped_release release;
  linear_losses(x, labels, m, d, N, b, triangular, threads, to);
  return out;
}

// ---- Jacobians

void check_rtol(double rtol) {
  if (!(rtol >= LEAST_RTOL && rtol < 1)) throw std::invalid_argument("rtol must lie in [1e-6, 1)");
}

Stack stack_of(const Doubles& A) {
  if (A.ndim() != 3 || A.shape(1) < 1 || A.shape(2) < 1 || A.shape(1) > 1 << 20 || A.shape(2) > 1 << 20)
    throw std::invalid_argument("A must be [N, m, n], m and n from 1 to 2^20");
  return {A.data(), A.shape(0), int(A.shape(1)), int(A.shape(2))};
}

Counts bind_gram_ranks(const Doubles& A, double rtol, int threads) {
  const Stack s = stack_of(A);
  check_rtol(rtol);
  Counts out(s.N);
  auto* to = out.mutable_data();
  py::gil_scoped_release release;
  gram_ranks(s, rtol, threads, to);
  return out;
}

py::tuple bind_jacobi_values(const Doubles& A, int threads) {
  const Stack s = stack_of(A);
  SpectraOut out(s.N, s.shorter());
  const Spectra to = out.to();
  {
    py::gil_scoped_release release;
    jacobi_values(s, threads, to);
  }
  return out.both();
}

const double* points(const Doubles& X, const DenseShape& s) {
  if (X.ndim() != 2 || X.shape(1) != s.size[0]) throw std::invalid_argument("X must be [m, d]");
  return X.data();
}
const double* weights(const Doubles& W, const DenseShape& s) {
  if (W.ndim() != 2 || W.shape(1) != s.P()) throw std::invalid_argument("W must be [N, P]");
  return W.data();
}

Counts bind_dense_ranks(const py::dict& shape, const Doubles& X, const Doubles& W, double rtol, int threads) {
  const DenseShape s = dense_of(shape);
  check_rtol(rtol);
  const double *x = points(X, s), *w = weights(W, s);
  const int m = int(X.shape(0));
  const i64 N = W.shape(0);
  Counts out(N);
  auto* to = out.mutable_data();
  py::gil_scoped_release release;
  dense_ranks(s, m, x, N, w, rtol, threads, to);
  return out;
}

py::tuple bind_dense_values(const py::dict& shape, const Doubles& X, const Doubles& W, int threads) {
  const DenseShape s = dense_of(shape);
  const double *x = points(X, s), *w = weights(W, s);
  const int m = int(X.shape(0)), P = s.P(), rows = m * s.size[s.layers];
  const i64 N = W.shape(0);
  SpectraOut out(N, rows < P ? rows : P);
  const Spectra to = out.to();
  {
    py::gil_scoped_release release;
    dense_values(s, m, x, N, w, threads, to);
  }
  return out.both();
}

void bind_metrics(py::module_& m) {
  const auto A = py::arg("A").noconvert(), X = py::arg("X").noconvert(), W = py::arg("W").noconvert();
  m.def("feature_sparsity", &bind_feature_sparsity);
  py::class_<DiagonalPoints>(m, "DiagonalPoints", py::module_local())
      .def(py::init<const Doubles&, int, const std::optional<Doubles>&>(), py::arg("G").noconvert(), py::arg("m"),
           py::arg("scale") = py::none())
      .def("packed", &DiagonalPoints::packed);
  m.def("diagonal_rank", &bind_diagonal_rank, py::arg("points"), py::arg("parts").noconvert(), py::arg("rtol"),
        py::arg("threads"));
  m.def("scaled_values", &bind_scaled_values, py::arg("R").noconvert(), py::arg("parts").noconvert(),
        py::arg("threads"));
  m.def("diagonal_norms", &bind_diagonal_norms, W, py::arg("threshold"));
  m.def("linear_losses", &bind_linear_losses, X, py::arg("y").noconvert(), py::arg("beta").noconvert(),
        py::arg("triangular"), py::arg("threads"));
  m.def("diagonal_rank_bytes", [](int d) { return 8 * diagonal_rank_scratch_size(d); });
  m.def("gram_ranks", &bind_gram_ranks, A, py::arg("rtol"), py::arg("threads"));
  m.def("jacobi_values", &bind_jacobi_values, A, py::arg("threads"));
  m.def("dense_ranks", &bind_dense_ranks, py::arg("shape"), X, W, py::arg("rtol"), py::arg("threads"));
  m.def("dense_values", &bind_dense_values, py::arg("shape"), X, W, py::arg("threads"));
  m.def("dense_ranks_bytes", [](const py::dict& shape, int m) { return 8 * dense_rank_doubles(dense_of(shape), m); });
  m.def("jacobi_bytes", [](int rows, int n) { return 8 * jacobi_doubles(rows, n); });
  m.def("dense_values_bytes",
        [](const py::dict& shape, int m) { return 8 * dense_values_doubles(dense_of(shape), m); });
}

}  // namespace
