// Owns the Python side of metric kernels of diagonal networks: ranks, singular values, losses, norms.
#include "metrics.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <stdexcept>

#include "../core/metrics/diagonal_rank.h"
#include "../core/metrics/jacobi.h"
#include "../core/metrics/linear_loss.h"
#include "../core/metrics/norms.h"
#include "spectra.h"
#include "threads.h"

namespace py = pybind11;

namespace {

using Doubles = py::array_t<double, py::array::c_style>;
using Counts = py::array_t<long long>;

// Number of networks in parts [N, K, d].
py::ssize_t networks(const Doubles& parts, py::ssize_t d) {
  if (parts.ndim() != 3 || parts.shape(2) != d || parts.shape(1) < 1)
    throw std::invalid_argument("parts must be [N, K, d]");
  return parts.shape(0);
}

// What ranks on one set of points X diag(scale) share, from G = X^T X [d, d] of m points; costs d^3. Without `scale`
// [d] of X itself.
struct DiagonalPoints {
  std::unique_ptr<double[]> constants;
  fs::DiagonalRankPoints points;
  DiagonalPoints(const Doubles& G, int m, const std::optional<Doubles>& scale) {
    const auto d = G.ndim() == 2 ? G.shape(0) : 0;
    if (d < 1 || G.shape(1) != d) throw std::invalid_argument("G must be [d, d]");
    if (scale && (scale->ndim() != 1 || scale->shape(0) != d)) throw std::invalid_argument("scale must be [d]");
    constants.reset(new double[fs::diagonal_rank_constants_size(int(d))]);
    std::unique_ptr<double[]> scratch(new double[fs::diagonal_rank_scratch_size(int(d))]);
    const double *from = G.data(), *stretch = scale ? scale->data() : nullptr;
    py::gil_scoped_release release;
    fs::on_threads(
        1, [&](int) { points = fs::diagonal_rank_prepare(from, stretch, int(d), m, constants.get(), scratch.get()); });
  }
  // All of it as csrc/cuda/metrics/diagonal.h reads it.
  Doubles packed() const {
    const size_t head = 4, count = fs::diagonal_rank_constants_size(points.d);
    Doubles out(py::ssize_t(head + count));
    double* to = out.mutable_data();
    to[0] = points.m, to[1] = points.definite, to[2] = points.largest, to[3] = points.inverse_norm;
    for (size_t i = 0; i < count; ++i) to[head + i] = constants[i];
    return out;
  }
};

// #{sigma > rtol sigma_1} of X diag(s_k) for each network of parts; -1 if s is not finite.
Counts diagonal_rank(const DiagonalPoints& at, const Doubles& parts, double rtol, int threads) {
  const int d = at.points.d;
  const auto N = networks(parts, d);
  const size_t K = parts.shape(1), each = fs::diagonal_rank_scratch_size(d) + d;
  if (!((rtol == 0 || rtol >= fs::kLeastCounted) && rtol < 1))
    throw std::invalid_argument("rtol must be 0 or lie in [1e-300, 1)");
  Counts out(N);
  const double* from = parts.data();
  long long* to = out.mutable_data();
  std::unique_ptr<double[]> scratch(new double[each * threads]);
  py::gil_scoped_release release;
  fs::deal(threads, N, 1, [&](int thread, fs::Pieces& pieces) {
    double* s = scratch.get() + each * thread;
    pieces.each([&](fs::i64 k) {
      fs::diagonal_sizes(from + k * K * d, int(K), d, d, s);
      to[k] = fs::diagonal_rank(at.points, s, rtol, s + d, s + d + fs::diagonal_rank_vectors_size(d));
    });
  });
  return out;
}

// Singular values of R diag(s_k) for each network of parts, R [m, d]: sigma [N, min(m, d)] over powers of two.
py::tuple scaled_values(const Doubles& R, const Doubles& parts, int threads) {
  if (R.ndim() != 2 || R.size() < 1) throw std::invalid_argument("R must be [m, d]");
  const int m = int(R.shape(0)), d = int(R.shape(1)), K = int(parts.ndim() == 3 ? parts.shape(1) : 0);
  const auto N = networks(parts, d);
  const size_t ld = fs::tile::padded(m), most = m < d ? m : d, each = d * ld + 2 * most + fs::jacobi_scratch_size(m, d);
  fs::Spectra out(N, most);
  const double *r = R.data(), *from = parts.data();
  std::unique_ptr<double[]> scratch(new double[each * threads]);
  {
    py::gil_scoped_release release;
    fs::deal(threads, N, 1, [&](int thread, fs::Pieces& pieces) {
      double *columns = scratch.get() + each * thread, *sigma = columns + d * ld, *s = sigma + 2 * most;
      pieces.each([&](fs::i64 k) {
        fs::diagonal_sizes(from + k * K * d, K, d, d, s);
        for (int j = 0; j < d; ++j)
          for (size_t i = 0; i < ld; ++i) columns[j * ld + i] = i < size_t(m) ? r[i * d + j] : 0.0;
        fs::jacobi_singular_values(fs::jacobi::Alone{}, columns, s, m, d, sigma, s);
        out.put(k, sigma, most);
      });
    });
  }
  return out.both();
}

// Norm, imbalance | |u| - |v| | and support #{|u_j v_j| > threshold} of each network of W = (u, v) [N, 2, d]. On one
// thread: there is less to do than it takes to wake another.
Doubles diagonal_norms(const Doubles& W, double threshold) {
  if (W.ndim() != 3 || W.shape(1) != 2) throw std::invalid_argument("W must be [N, 2, d]");
  const auto N = W.shape(0), d = W.shape(2);
  Doubles out({py::ssize_t(3), N});
  const double* w = W.data();
  double* to = out.mutable_data();
  py::gil_scoped_release release;
  for (py::ssize_t k = 0; k < N; ++k) {
    double all[3];
    fs::diagonal_norms(w + 2 * k * d, w + (2 * k + 1) * d, int(d), threshold, all);
    for (int which = 0; which < 3; ++which) to[which * N + k] = all[which];
  }
  return out;
}

// |X beta_k - y|^2 for each row of beta [N, d]; X [m, d], upper triangular if said so, y [m].
Doubles linear_losses(const Doubles& X, const Doubles& y, const Doubles& beta, bool triangular, int threads) {
  using fs::tile::ROWS;
  if (X.ndim() != 2 || y.size() != X.shape(0) || beta.ndim() != 2 || beta.shape(1) != X.shape(1))
    throw std::invalid_argument("X must be [m, d], y [m] and beta [N, d]");
  const int m = int(X.shape(0)), d = int(X.shape(1)), ld = fs::tile::padded(m);
  const auto N = beta.shape(0);
  Doubles out(N);
  const double *x = X.data(), *labels = y.data(), *b = beta.data();
  double* to = out.mutable_data();
  const size_t each = fs::linear_loss_scratch_size(d, m);
  std::unique_ptr<double[]> points(new double[size_t(d + 1) * ld]()), scratch(new double[each * threads]);
  py::gil_scoped_release release;
  double* padded = points.get() + size_t(d) * ld;
  for (int i = 0; i < m; ++i) {
    padded[i] = labels[i];
    for (int j = 0; j < d; ++j) points[size_t(j) * ld + i] = x[size_t(i) * d + j];
  }
  fs::deal(threads, N, ROWS, [&](int thread, fs::Pieces& pieces) {
    double* own = scratch.get() + each * thread;
    pieces.each([&](fs::i64 first) {
      for (int r = 0; r < ROWS; ++r)  // a block that is not full repeats its last network
        for (int j = 0; j < d; ++j) own[j * ROWS + r] = b[(first + r < N ? first + r : N - 1) * d + j];
      double sum[ROWS];
      fs::linear_losses(points.get(), padded, d, m, triangular, own, sum);
      for (int r = 0; r < ROWS && first + r < N; ++r) to[first + r] = sum[r];
      FS_WORKED(fs::i64(m) * d);
    });
  });
  return out;
}

}  // namespace

void bind_metrics(py::module_& m) {
  py::class_<DiagonalPoints>(m, "DiagonalPoints", py::module_local())
      .def(py::init<const Doubles&, int, const std::optional<Doubles>&>(), py::arg("G").noconvert(), py::arg("m"),
           py::arg("scale") = py::none())
      .def("packed", &DiagonalPoints::packed);
  m.def("diagonal_rank", &diagonal_rank, py::arg("points"), py::arg("parts").noconvert(), py::arg("rtol"),
        py::arg("threads"));
  m.def("scaled_values", &scaled_values, py::arg("R").noconvert(), py::arg("parts").noconvert(), py::arg("threads"));
  m.def("diagonal_norms", &diagonal_norms, py::arg("W").noconvert(), py::arg("threshold"));
  m.def("linear_losses", &linear_losses, py::arg("X").noconvert(), py::arg("y").noconvert(),
        py::arg("beta").noconvert(), py::arg("triangular"), py::arg("threads"));
  m.def("diagonal_rank_bytes", [](int d) { return 8 * fs::diagonal_rank_scratch_size(d); });
}
