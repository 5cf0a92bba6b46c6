// Owns the list of what the CPU kernels offer; one .cpp a dtype holds their compiled instances.
#pragma once
#include "../core/job.h"

namespace fs {

template <class T>
constexpr int WIDTH = FS_VECTOR_BYTES / int(sizeof(T));  // lanes of one vector register
template <class T>
constexpr int TEAM = WIDTH<T> < 8 ? WIDTH<T> : 8;  // lanes of a team: at most the least number of partial sums

// Advance every living network of the job from t0 to t1.
template <class T>
void advance(const Job<T>& job);

// Memory that one thread needs for the job's networks while it runs them.
template <class T>
i64 block_bytes(const Job<T>& job);

struct FamilyShape;
// out [N, n, o] = predictions of N networks with parameters W [N, P] at X [n, stride].
void predict(const FamilyShape& shape, int threads, i64 N, const double* W, const double* X, i64 n, i64 stride,
             double* out);

// out [N, n o, P] = their Jacobians, all outputs of a point after each other.
void jacobians(const FamilyShape& shape, int threads, i64 N, const double* W, const double* X, i64 n, i64 stride,
               double* out);

// loss[k] = factor / n * sum_i (h_k(x_i) - y_i)^2, samples added in order.  W [N, P], X [n, stride], y [n].
void mean_losses(const Shape& shape, int threads, i64 N, const double* W, const double* X, const double* y, i64 n,
                 i64 stride, double factor, double* loss);

}  // namespace fs
