// Owns the Python side of Jacobian kernels: ranks and singular values of dense networks and of stacks of matrices.
#include <pybind11/numpy.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "../core/metrics/dense_jacobian.h"
#include "../core/metrics/gram_rank.h"
#include "../core/metrics/jacobi.h"
#include "../core/metrics/piecewise_factor.h"
#include "metrics.h"
#include "shapes.h"
#include "spectra.h"
#include "threads.h"

namespace py = pybind11;
using namespace fs;

namespace {

using Doubles = py::array_t<double, py::array::c_style>;
using Counts = py::array_t<long long>;
constexpr double LEAST_RTOL = 1e-6;  // below, the Gram matrix has lost what would have to be counted

// f(k, scratch) for k < N on some threads, `each` doubles of scratch a thread.
template <class F>
void for_all(i64 N, int threads, size_t each, F f) {
  std::unique_ptr<double[]> scratch(new double[each * threads]);
  py::gil_scoped_release release;
  deal(threads, N, 1,
       [&](int thread, Pieces& pieces) { pieces.each([&](i64 k) { f(k, scratch.get() + each * thread); }); });
}

void check_rtol(double rtol) {
  if (!(rtol >= LEAST_RTOL && rtol < 1)) throw std::invalid_argument("rtol must lie in [1e-6, 1)");
}

// ---- stacks of matrices [N, m, n]
// ------------------------------------------------------------------------------------

struct Stack {
  const double* data;
  i64 N;
  int m, n;
  int longer() const { return m > n ? m : n; }
  int shorter() const { return m > n ? n : m; }
};

Stack stack_of(const Doubles& A) {
  if (A.ndim() != 3 || A.shape(1) < 1 || A.shape(2) < 1 || A.shape(1) > 1 << 20 || A.shape(2) > 1 << 20)
    throw std::invalid_argument("A must be [N, m, n], m and n from 1 to 2^20");
  return {A.data(), A.shape(0), int(A.shape(1)), int(A.shape(2))};
}

// to [columns, ld] = the transpose of A [rows, columns], zeros behind
void transpose(const double* A, int rows, int columns, size_t ld, double* to) {
  for (int j = 0; j < columns; ++j) {
    for (int i = 0; i < rows; ++i) to[j * ld + i] = A[i64(i) * columns + j];
    for (size_t i = rows; i < ld; ++i) to[j * ld + i] = 0;
  }
}

// The rank of A by its smaller Gram matrix, entries scaled to at most one.
int rank_of(const Stack& A, const double* a, double rtol, double* scratch) {
  const int n = A.shorter(), K = A.longer();
  const size_t ld = tile::padded(n);
  double *B = scratch, *G = B + K * ld, *rest = G + ld * ld;  // B [K, ld]
  const double most = jacobi::largest(jacobi::Alone{}, a, int(i64(A.m) * A.n));
  if (most == 0) return 0;
  int exponent;
  (void)__builtin_frexp(most, &exponent);
  if (A.m < A.n) transpose(a, A.m, A.n, ld, B);
  else
    for (int i = 0; i < K; ++i)
      for (size_t j = 0; j < ld; ++j) B[i * ld + j] = j < size_t(n) ? a[i64(i) * n + j] : 0.0;
  jacobi::scale(jacobi::Alone{}, B, int(K * ld), -exponent);
  gram_matrix(B, K, n, G);
  return gram_rank(G, n, rtol, rest);
}

Counts gram_ranks(const Doubles& A, double rtol, int threads) {
  const Stack s = stack_of(A);
  check_rtol(rtol);
  Counts out(s.N);
  auto* to = out.mutable_data();
  const size_t ld = tile::padded(s.shorter());
  for_all(s.N, threads, (s.longer() + ld) * ld + gram_rank_scratch_size(s.shorter()),
          [&](i64 k, double* scratch) { to[k] = rank_of(s, s.data + k * s.m * s.n, rtol, scratch); });
  return out;
}

py::tuple jacobi_values(const Doubles& A, int threads) {
  const Stack s = stack_of(A);
  const size_t ld = tile::padded(s.m), most = s.shorter();
  Spectra out(s.N, most);
  for_all(s.N, threads, s.n * ld + 2 * most + jacobi_scratch_size(s.m, s.n), [&](i64 k, double* scratch) {
    double *sigma = scratch + s.n * ld, *rest = sigma + 2 * most;
    transpose(s.data + k * s.m * s.n, s.m, s.n, ld, scratch);
    jacobi_singular_values(jacobi::Alone{}, scratch, nullptr, s.m, s.n, sigma, rest);
    out.put(k, sigma, most);
  });
  return out.both();
}

// ---- dense networks
// --------------------------------------------------------------------------------------------------

// The points X [m, d] as the kernels read them, kept as long as the object lives.
struct Prepared {
  DensePoints points;
  std::unique_ptr<double[]> memory;
  Prepared(const DenseShape& s, const Doubles& X) {
    if (X.ndim() != 2 || X.shape(1) != s.size[0]) throw std::invalid_argument("X must be [m, d]");
    const int m = int(X.shape(0)), d = s.size[0];
    const size_t mp = tile::padded(m);
    memory.reset(new double[(d + mp) * mp]);
    double* XX = memory.get() + d * mp;
    const double* from = X.data();
    py::gil_scoped_release release;
    on_threads(1, [&](int) {
      transpose(from, m, d, mp, memory.get());
      gram_matrix(memory.get(), d, m, XX);
      gram_rank_detail::mirror(XX, int(mp), mp, false);
    });
    points = {s, m, int(mp), memory.get(), XX};
  }
};

const double* weights(const Doubles& W, const DenseShape& s) {
  if (W.ndim() != 2 || W.shape(1) != s.P()) throw std::invalid_argument("W must be [N, P]");
  return W.data();
}

size_t dense_rank_doubles(const DenseShape& s, int m) {
  const size_t rows = size_t(s.size[s.layers]) * tile::padded(m), factor = piecewise::serves(s) ? rows * rows : 0;
  return rows * rows + factor + dense_scratch_size(s, m) + piecewise::scratch_size(s, m) +
         gram_rank_scratch_size(int(rows));
}

size_t dense_values_doubles(const DenseShape& s, int m) {
  const int rows = s.size[s.layers] * tile::padded(m), P = s.P();
  return size_t(P) * rows + dense_scratch_size(s, m) + jacobi_scratch_size(rows, P);
}

// The rank of one network, from whichever Gram matrix is the smaller work; -1 where that lost digits, or is zero.
int rank_of(const DensePoints& p, const double* w, double rtol, double* G) {
  const size_t square = size_t(p.rows()) * p.rows();
  double *B = G + square, *rest = B + (piecewise::serves(p.shape) ? square : 0);
  const int r = piecewise_factor(p, w, B, rest);
  if (r == 0) return 0;
  if (r < 0) dense_gram(p, w, G, rest);
  else gram_matrix(B, p.m, r, G);
  const int rank = gram_rank(G, r < 0 ? p.rows() : r, rtol, rest);
  return rank == 0 ? -1 : rank;
}

Counts dense_ranks(const py::dict& shape, const Doubles& X, const Doubles& W, double rtol, int threads) {
  const DenseShape s = dense_of(shape);
  check_rtol(rtol);
  const Prepared at(s, X);
  const double* w = weights(W, s);
  Counts out(W.shape(0));
  auto* to = out.mutable_data();
  const i64 P = s.P();
  for_all(W.shape(0), threads, dense_rank_doubles(s, at.points.m),
          [&](i64 k, double* scratch) { to[k] = rank_of(at.points, w + k * P, rtol, scratch); });
  return out;
}

py::tuple dense_values(const py::dict& shape, const Doubles& X, const Doubles& W, int threads) {
  const DenseShape s = dense_of(shape);
  const Prepared at(s, X);
  const double* w = weights(W, s);
  const int rows = at.points.rows(), P = s.P(), o = at.points.outputs();
  const i64 N = W.shape(0), k_all = rows < P ? rows : P, k_real = at.points.m * o < P ? at.points.m * o : P;
  Spectra out(N, k_real);
  const size_t jacobian = size_t(P) * rows;
  for_all(N, threads, dense_values_doubles(s, at.points.m) + 2 * k_all, [&](i64 k, double* scratch) {
    double *sigma = scratch + jacobian, *rest = sigma + 2 * k_all;
    dense_rows(at.points, w + k * P, scratch, rest);
    jacobi_singular_values(jacobi::Alone{}, scratch, nullptr, rows, P, sigma, rest);
    out.put(k, sigma, k_all);
  });
  return out.both();
}

}  // namespace

void bind_jacobians(py::module_& m) {
  const auto A = py::arg("A").noconvert(), X = py::arg("X").noconvert(), W = py::arg("W").noconvert();
  m.def("gram_ranks", &gram_ranks, A, py::arg("rtol"), py::arg("threads"));
  m.def("jacobi_values", &jacobi_values, A, py::arg("threads"));
  m.def("dense_ranks", &dense_ranks, py::arg("shape"), X, W, py::arg("rtol"), py::arg("threads"));
  m.def("dense_values", &dense_values, py::arg("shape"), X, W, py::arg("threads"));
  m.def("dense_ranks_bytes", [](const py::dict& shape, int m) { return 8 * dense_rank_doubles(dense_of(shape), m); });
  m.def("jacobi_bytes",
        [](int rows, int n) { return 8 * (size_t(n) * tile::padded(rows) + jacobi_scratch_size(rows, n)); });
  m.def("dense_values_bytes",
        [](const py::dict& shape, int m) { return 8 * dense_values_doubles(dense_of(shape), m); });
}
