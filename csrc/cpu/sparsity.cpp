// Owns the Python side of feature sparsity: many networks, threads over them.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../core/metrics/feature_sparsity.h"
#include "advance.h"
#include "arrays.h"
#include "metrics.h"

namespace py = pybind11;
using namespace fs;

namespace {

constexpr size_t MOST_TOGETHER = 256 << 10;  // bytes of scratch up to which a register of networks goes at once

// Activations phi [n, h] with rows divided by their lengths, if asked for, and columns by powers of two, so that all
// are of order one and none of their squares leaves the range of float64. What is positive stays so. False if not
// finite.
bool of_order_one(const double* phi, int n, int h, bool normalise, std::vector<double>& to) {
  std::vector<int> power(n, 0), column(h, -(1 << 20));
  std::vector<double> length(n, 1.0);
  for (int i = 0; i < n; ++i) {
    const double* row = phi + i64(i) * h;
    double most = 0, squares = 0;
    for (int j = 0; j < h; ++j) most = std::fmax(most, std::isfinite(row[j]) ? std::fabs(row[j]) : INFINITY);
    if (!(most < INFINITY)) return false;
    if (normalise && most > 0) {
      std::frexp(most, &power[i]);
      for (int j = 0; j < h; ++j) squares += std::pow(std::ldexp(row[j], -power[i]), 2);
      length[i] = std::sqrt(squares);
    }
    for (int j = 0; j < h; ++j) {
      int own;
      std::frexp(row[j], &own);
      if (row[j] != 0) column[j] = std::max(column[j], own - power[i]);
    }
  }
  to.resize(size_t(n) * h);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < h; ++j) {
      const double x = phi[i64(i) * h + j], y = x == 0 ? 0 : std::ldexp(x, -(power[i] + column[j])) / length[i];
      to[i64(i) * h + j] = x > 0 ? std::fmax(y, std::numeric_limits<double>::denorm_min()) : y;
    }
  return true;
}

// Coefficients [N] of activations phi [N, n, h]; NaN where they are not finite.
py::array_t<double> feature_sparsity(const py::array& phi, double tau, bool normalise, double within, int threads) {
  if (phi.ndim() != 3 || phi.shape(1) < 1 || phi.shape(2) < 1) throw std::invalid_argument("phi must be [N, n, h]");
  const double* from = data<const double>(phi, "phi", -1);
  const i64 N = phi.shape(0);
  constexpr int W = WIDTH<double>;
  using V = Vec<double, W>;
  const int n = int(phi.shape(1)), h = int(phi.shape(2));
  const FeatureSparsity<W> wide{n, h, tau, within, normalise}, scaled{n, h, tau, within, false};
  const FeatureSparsityLanes<W> small{n, h, tau, within, normalise};
  const bool together = small.scratch() * sizeof(V) <= MOST_TOGETHER;
  py::array_t<double> out(N);
  double* to = out.mutable_data();
  py::gil_scoped_release release;
  const i64 size = i64(n) * h, most = together && small.scratch() > wide.scratch() ? small.scratch() : wide.scratch();
  const i64 each = apart(most * sizeof(V)), step = together ? W : 1;
  Scratch scratch(each * threads);
  deal(threads, N, step, [&](int thread, Pieces& pieces) {
    V* block = reinterpret_cast<V*>(scratch.p + each * thread);
    pieces.each([&](i64 first) {
      if (together && first + W <= N) small(from + first * size, size, block, to + first);
      else
        for (i64 k = first; k < N && k < first + step; ++k) to[k] = wide(from + k * size, block);
      for (i64 k = first; k < N && k < first + step; ++k)
        if (std::vector<double> copy; to[k] != to[k] && of_order_one(from + k * size, n, h, normalise, copy))
          to[k] = scaled(copy.data(), block);
    });
  });
  return out;
}

}  // namespace

void bind_sparsity(py::module_& m) { m.def("feature_sparsity", &feature_sparsity); }
