// Owns the Python side of feature sparsity: many networks, threads over them.
#include "../core/metrics/feature_sparsity.h"
#include "advance.h"
#include "arrays.h"
#include "metrics.h"

namespace py = pybind11;
using namespace fs;

namespace {

constexpr size_t MOST_TOGETHER = 256 << 10;  // bytes of scratch up to which a register of networks goes at once

// Coefficients [N] of activations phi [N, n, h].
py::array_t<double> feature_sparsity(const py::array& phi, double tau, bool normalise, int threads) {
  if (phi.ndim() != 3 || phi.shape(1) < 1 || phi.shape(2) < 1) throw std::invalid_argument("phi must be [N, n, h]");
  const double* from = data<const double>(phi, "phi", -1);
  const i64 N = phi.shape(0);
  constexpr int W = WIDTH<double>;
  using V = Vec<double, W>;
  const int n = int(phi.shape(1)), h = int(phi.shape(2));
  const FeatureSparsity<W> wide{n, h, tau, normalise};
  const FeatureSparsityLanes<W> small{n, h, tau, normalise};
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
    });
  });
  return out;
}

}  // namespace

void bind_sparsity(py::module_& m) { m.def("feature_sparsity", &feature_sparsity); }
