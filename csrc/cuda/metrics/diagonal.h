// Owns Jacobian ranks and spectra of diagonal networks on a GPU: the CPU's own code, a thread a network.
//
// Parallel over networks: a thread measures one after the other by core/metrics/diagonal_rank.h or
// core/metrics/jacobi.h. What it needs lies in its local memory, interleaved over the threads of a warp, where that is
// little, else in global memory. Most ranks are settled by certificates, in O(d) and without a matrix.
#pragma once
#include "../../core/metrics/diagonal_rank.h"
#include "../../core/metrics/jacobi.h"
#include "launch.h"

namespace fs {

// What a thread works in: `SIZE` doubles of its own.
template <bool LOCAL, int SIZE>
struct ThreadRoom {
  double here[LOCAL ? SIZE : 1];
  FS_DEVICE double* of(const MetricLaunch& job) { return LOCAL ? here : job.scratch + thread_number() * job.each; }
};

// out [N] = #{sigma > rtol sigma_1} of parts W [N, K, D], -1 where they are not finite.   Spec: D, K, SIZE, LOCAL.
// X: as bind `DiagonalPoints.packed`: points' number, definite, two norms; |x_j| [D], H_jj [D], C [D, D], H [D, D].
template <class Spec>
FS_DEVICE void diagonal_ranks(const MetricLaunch& job) {
  constexpr int D = Spec::D;
  static_assert(Spec::SIZE >= D + int(diagonal_rank_scratch_size(D)), "room");
  const double *head = job.X, *length = head + 4, *diagonal = length + D, *C = diagonal + D, *H = C + D * D;
  const DiagonalRankPoints points = {D, int(head[0]), head[1] != 0, head[2], head[3], length, diagonal, C, H};
  ThreadRoom<Spec::LOCAL, Spec::SIZE> own;
  double* s = own.of(job);
  for (i64 k = thread_number(); k < job.N; k += i64(gridDim.x) * blockDim.x) {
    diagonal_sizes(job.W + k * Spec::K * D, Spec::K, D, s);
    job.out[k] = diagonal_rank(points, s, job.number, s + D);
  }
}

// out [N, 1 + min(n, D)]: shift, then singular values of X diag(s) over 2^shift.   Spec: D, K, POINTS, SIZE, LOCAL.
template <class Spec>
FS_DEVICE void scaled_values(const MetricLaunch& job) {
  constexpr int D = Spec::D, M = Spec::POINTS, LD = tile::padded(M), KEPT = M < D ? M : D;
  static_assert(Spec::SIZE >= D + D * LD + int(jacobi_scratch_size(M, D)), "room");
  ThreadRoom<Spec::LOCAL, Spec::SIZE> own;
  double *s = own.of(job), *columns = s + D;
  for (i64 k = thread_number(); k < job.N; k += i64(gridDim.x) * blockDim.x) {
    diagonal_sizes(job.W + k * Spec::K * D, Spec::K, D, s);
    for (int j = 0; j < D; ++j)
      for (int i = 0; i < LD; ++i) columns[j * LD + i] = i < M ? job.X[i * D + j] * s[j] : 0.0;
    double* to = job.out + k * (1 + KEPT);
    to[0] = jacobi_singular_values(columns, M, D, to + 1, columns + D * LD);
  }
}

}  // namespace fs
