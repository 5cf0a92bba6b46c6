// Owns Jacobian ranks of diagonal networks on a GPU: the CPU's own code, a thread a network.
//
// Parallel over networks: a thread counts one after the other by core/metrics/diagonal_rank.h. Its vectors lie in its
// local memory, interleaved over the threads of a warp, where they are short; its matrices in global memory, which few
// come to need: most ranks are settled by certificates, in O(d).
#pragma once
#include "../../core/metrics/diagonal_rank.h"
#include "launch.h"

namespace fs {

// out [N] = #{sigma > rtol sigma_1} of parts W [N, K, D], -1 where they are not finite.   Spec: D, K, VECTORS and
// MATRICES (doubles), LOCAL (whether vectors lie in local memory).
// X: as bind `DiagonalPoints.packed`: points' number, definite, two norms; |x_j| [D], H_jj [D], C [D, D], H [D, D].
template <class Spec>
FS_DEVICE void diagonal_ranks(const MetricLaunch& job) {
  constexpr int D = Spec::D;
  static_assert(
      Spec::VECTORS == D + int(diagonal_rank_vectors_size(D)) && Spec::MATRICES == int(diagonal_rank_matrices_size(D)),
      "fastsgd/measure sets aside something else");
  const double *head = job.X, *length = head + 4, *diagonal = length + D, *C = diagonal + D, *H = C + D * D;
  const DiagonalRankPoints points = {D, int(head[0]), head[1] != 0, head[2], head[3], length, diagonal, C, H};
  double here[Spec::LOCAL ? Spec::VECTORS : 1], *matrices = job.scratch + thread_number() * job.each;
  double* s = Spec::LOCAL ? here : matrices + Spec::MATRICES;
  for (i64 k = thread_number(); k < job.N; k += i64(gridDim.x) * blockDim.x) {
    diagonal_sizes(job.W + k * Spec::K * D, Spec::K, D, D, s);
    job.out[k] = diagonal_rank(points, s, job.number, s + D, matrices);
  }
}

}  // namespace fs
