// Owns metrics of diagonal networks, threads over networks: ranks, singular values, losses, norms.
#include "../core/metrics/diagonal_rank.h"
#include "../core/metrics/jacobi.h"
#include "../core/metrics/linear_loss.h"
#include "../core/metrics/norms.h"

#include <memory>

#include "kernels.h"
#include "threads.h"

namespace fs {

void diagonal_points(const double* G, const double* scale, int d, int m, double* constants, DiagonalRankPoints& to) {
  std::unique_ptr<double[]> scratch(new double[diagonal_rank_scratch_size(d)]);
  on_threads(1, [&](int) { to = diagonal_rank_prepare(G, scale, d, m, constants, scratch.get()); });
}

void diagonal_ranks(const DiagonalRankPoints& at, i64 N, int K, const double* parts, double rtol, int threads,
                    long long* out) {
  const int d = at.d;
  const size_t each = diagonal_rank_scratch_size(d) + d;
  std::unique_ptr<double[]> scratch(new double[each * threads]);
  deal(threads, N, 1, [&](int thread, Pieces& pieces) {
    double* s = scratch.get() + each * thread;
    pieces.each([&](i64 k) {
      diagonal_sizes(parts + k * K * d, K, d, d, s);
      out[k] = diagonal_rank(at, s, rtol, s + d, s + d + diagonal_rank_vectors_size(d));
    });
  });
}

void scaled_values(const double* R, int m, int d, i64 N, int K, const double* parts, int threads, const Spectra& out) {
  const size_t ld = tile::padded(m), most = m < d ? m : d, each = d * ld + 2 * most + jacobi_scratch_size(m, d);
  std::unique_ptr<double[]> scratch(new double[each * threads]);
  deal(threads, N, 1, [&](int thread, Pieces& pieces) {
    double *columns = scratch.get() + each * thread, *sigma = columns + d * ld, *s = sigma + 2 * most;
    pieces.each([&](i64 k) {
      diagonal_sizes(parts + k * K * d, K, d, d, s);
      for (int j = 0; j < d; ++j)
        for (size_t i = 0; i < ld; ++i) columns[j * ld + i] = i < size_t(m) ? R[i * d + j] : 0.0;
      jacobi_singular_values(jacobi::OneThread{}, columns, s, m, d, sigma, s);
      out.put(k, sigma, most);
    });
  });
}

// On one thread: there is less to do than it takes to wake another.
void diagonal_norms(i64 N, i64 d, const double* W, double threshold, double* out) {
  for (i64 k = 0; k < N; ++k) {
    double all[3];
    diagonal_norms(W + 2 * k * d, W + (2 * k + 1) * d, int(d), threshold, all);
    for (int which = 0; which < 3; ++which) out[which * N + k] = all[which];
  }
}

void linear_losses(const double* X, const double* y, int m, int d, i64 N, const double* beta, bool triangular,
                   int threads, double* out) {
  using tile::ROWS;
  const int ld = tile::padded(m);
  const size_t each = linear_loss_scratch_size(d, m);
  std::unique_ptr<double[]> points(new double[size_t(d + 1) * ld]()), scratch(new double[each * threads]);
  double* padded = points.get() + size_t(d) * ld;
  for (int i = 0; i < m; ++i) {
    padded[i] = y[i];
    for (int j = 0; j < d; ++j) points[size_t(j) * ld + i] = X[size_t(i) * d + j];
  }
  deal(threads, N, ROWS, [&](int thread, Pieces& pieces) {
    double* own = scratch.get() + each * thread;
    pieces.each([&](i64 first) {
      for (int r = 0; r < ROWS; ++r)  // a block that is not full repeats its last network
        for (int j = 0; j < d; ++j) own[j * ROWS + r] = beta[(first + r < N ? first + r : N - 1) * d + j];
      double sum[ROWS];
      linear_losses(points.get(), padded, d, m, triangular, own, sum);
      for (int r = 0; r < ROWS && first + r < N; ++r) out[first + r] = sum[r];
      FS_WORKED(i64(m) * d);
    });
  });
}

}  // namespace fs
