// Owns metrics of Jacobians, threads over networks: ranks and singular values of dense networks and of stacks of
// matrices.
#include "../core/metrics/dense_jacobian.h"
#include "../core/metrics/gram_rank.h"
#include "../core/metrics/jacobi.h"
#include "../core/metrics/piecewise_factor.h"

#include <memory>

#include "kernels.h"
#include "threads.h"

namespace fs {

namespace {

// f(k, scratch) for k < N on some threads, `each` doubles of scratch a thread.
template <class F>
void for_all(i64 N, int threads, size_t each, F f) {
  std::unique_ptr<double[]> scratch(new double[each * threads]);
  deal(threads, N, 1,
       [&](int thread, Pieces& pieces) { pieces.each([&](i64 k) { f(k, scratch.get() + each * thread); }); });
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
  const double most = jacobi::largest(jacobi::OneThread{}, a, int(i64(A.m) * A.n));
  if (most == 0) return 0;
  int exponent;
  (void)__builtin_frexp(most, &exponent);
  if (A.m < A.n) transpose(a, A.m, A.n, ld, B);
  else
    for (int i = 0; i < K; ++i)
      for (size_t j = 0; j < ld; ++j) B[i * ld + j] = j < size_t(n) ? a[i64(i) * n + j] : 0.0;
  jacobi::scale(jacobi::OneThread{}, B, int(K * ld), -exponent);
  gram_matrix(B, K, n, G);
  return gram_rank(G, n, rtol, rest);
}

// The points X [m, d] as the kernels read them, kept as long as the object lives.
struct Prepared {
  DensePoints points;
  std::unique_ptr<double[]> memory;
  Prepared(const DenseShape& s, int m, const double* from) {
    const int d = s.size[0];
    const size_t mp = tile::padded(m);
    memory.reset(new double[(d + mp) * mp]);
    double* XX = memory.get() + d * mp;
    on_threads(1, [&](int) {
      transpose(from, m, d, mp, memory.get());
      gram_matrix(memory.get(), d, m, XX);
      gram_rank_detail::mirror(XX, int(mp), mp, false);
    });
    points = {s, m, int(mp), memory.get(), XX};
  }
};

// The rank of one network, from whichever Gram matrix is the smaller work; -1 where that lost digits, or is zero.
int rank_of(const DensePoints& p, const double* w, double rtol, double* G) {
  const size_t square = size_t(p.rows()) * p.rows();
  double *A = G + square, *rest = A + piecewise_factor_size(p.shape, p.m);
  const PiecewiseFactor factor = piecewise_factor(p, w, A, G, rest);
  if (factor.n == 0) return 0;
  if (factor.n < 0) dense_gram(p, w, G, rest);
  else gram_matrix(A, factor.K, factor.n, G);
  const int rank = gram_rank(G, factor.n < 0 ? p.rows() : factor.n, rtol, rest);
  return rank == 0 ? -1 : rank;
}

}  // namespace

// ---- stacks of matrices

void gram_ranks(const Stack& s, double rtol, int threads, long long* out) {
  const size_t ld = tile::padded(s.shorter());
  for_all(s.N, threads, (s.longer() + ld) * ld + gram_rank_scratch_size(s.shorter()),
          [&](i64 k, double* scratch) { out[k] = rank_of(s, s.data + k * s.m * s.n, rtol, scratch); });
}

void jacobi_values(const Stack& s, int threads, const Spectra& out) {
  const size_t ld = tile::padded(s.m), most = s.shorter();
  for_all(s.N, threads, s.n * ld + 2 * most + jacobi_scratch_size(s.m, s.n), [&](i64 k, double* scratch) {
    double *sigma = scratch + s.n * ld, *rest = sigma + 2 * most;
    transpose(s.data + k * s.m * s.n, s.m, s.n, ld, scratch);
    jacobi_singular_values(jacobi::OneThread{}, scratch, nullptr, s.m, s.n, sigma, rest);
    out.put(k, sigma, most);
  });
}

size_t jacobi_doubles(int m, int n) { return size_t(n) * tile::padded(m) + jacobi_scratch_size(m, n); }

// ---- dense networks

size_t dense_rank_doubles(const DenseShape& s, int m) {
  const size_t rows = size_t(s.size[s.layers]) * tile::padded(m);
  return rows * rows + piecewise_factor_size(s, m) + dense_scratch_size(s, m) + piecewise::scratch_size(s, m) +
         gram_rank_scratch_size(int(rows));
}

size_t dense_values_doubles(const DenseShape& s, int m) {
  const int rows = s.size[s.layers] * tile::padded(m), P = s.P();
  return size_t(P) * rows + dense_scratch_size(s, m) + jacobi_scratch_size(rows, P);
}

void dense_ranks(const DenseShape& s, int m, const double* X, i64 N, const double* W, double rtol, int threads,
                 long long* out) {
  const Prepared at(s, m, X);
  const i64 P = s.P();
  for_all(N, threads, dense_rank_doubles(s, m),
          [&](i64 k, double* scratch) { out[k] = rank_of(at.points, W + k * P, rtol, scratch); });
}

void dense_values(const DenseShape& s, int m, const double* X, i64 N, const double* W, int threads,
                  const Spectra& out) {
  const Prepared at(s, m, X);
  const int rows = at.points.rows(), P = s.P();
  const i64 k_all = rows < P ? rows : P;
  const size_t jacobian = size_t(P) * rows;
  for_all(N, threads, dense_values_doubles(s, m) + 2 * k_all, [&](i64 k, double* scratch) {
    double *sigma = scratch + jacobian, *rest = sigma + 2 * k_all;
    dense_rows(at.points, W + k * P, scratch, rest);
    jacobi_singular_values(jacobi::OneThread{}, scratch, nullptr, rows, P, sigma, rest);
    out.put(k, sigma, k_all);
  });
}

}  // namespace fs
