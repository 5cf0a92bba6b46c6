// Owns the list of what the CPU kernels offer to the units that talk to Python: numbers and pointers, no word of
// Python. Where a call has threads, its caller has dropped the GIL.
#pragma once
#include <string>

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

// Advance every living network of a job of the general loop, and the memory that one thread needs for it.
template <class T>
struct GeneralJob;
template <class T>
void advance_general(const GeneralJob<T>& job);
template <class T>
i64 general_bytes(const GeneralJob<T>& job);

// Move every living network of a job along its gradient flow.
template <class T>
struct FlowJob;
template <class T>
void advance_flow(const FlowJob<T>& job);

struct FamilyShape;
struct Sizes {
  int P, inputs, outputs;
};
Sizes sizes_of(const FamilyShape& shape);

// out [N, n, o] = predictions of N networks with parameters W [N, P] at X [n, stride].
void predict(const FamilyShape& shape, int threads, i64 N, const double* W, const double* X, i64 n, i64 stride,
             double* out);

// out [N, n o, P] = their Jacobians, all outputs of a point after each other.
void jacobians(const FamilyShape& shape, int threads, i64 N, const double* W, const double* X, i64 n, i64 stride,
               double* out);

// loss[k] = factor / n * sum_i (h_k(x_i) - y_i)^2, samples added in order.  W [N, P], X [n, stride], y [n].
void mean_losses(const Shape& shape, int threads, i64 N, const double* W, const double* X, const double* y, i64 n,
                 i64 stride, double factor, double* loss);

// ---- draws

// Normal draws t0 .. t1 - 1 of N networks: out [N, t1 - t0].
void normals(u64 seed, i64 N, const u32* ids, i64 t0, i64 t1, u32 stream, u32 item, int threads, double* out);

// Tables of permutations for N networks: out [N, t1 - t0, batch].
struct PermutedOrder;
void permuted_orders(const PermutedOrder& order, i64 N, const u32* ids, int threads, u32* out);

// Indices at `positions` [m] in each network's permutation of 0 .. n - 1: out [N, m].
void permutations(u64 seed, i64 N, const u32* ids, u32 key, u32 n, i64 m, const u32* positions, u32 item, u32* out);

// y [count] = f(x) entry by entry for a function by name, so many lanes at a time; false if no register has so many.
template <class T>
bool elementary(const std::string& name, int lanes, const T* x, T* y, i64 count);

// ---- metrics

// Coefficients [N] of activations phi [N, n, h]; NaN where they are not finite.
void feature_sparsity(i64 N, int n, int h, const double* phi, double tau, bool normalise, double within, int threads,
                      double* out);

// Singular values: value [N, kept] times two to the power [N, kept].
struct Spectra {
  double* value;
  int* power;
  i64 kept;
  // Row k from what `jacobi_singular_values` leaves, `most` values and behind them their exponents.
  void put(i64 k, const double* from, size_t most) const {
    for (i64 i = 0; i < kept; ++i) value[k * kept + i] = from[i], power[k * kept + i] = int(from[most + i]);
  }
};

// What ranks on one set of points X diag(scale) share, from G = X^T X [d, d] of m points; costs d^3. Without `scale`
// [d] of X itself. constants: diagonal_rank_constants_size(d) numbers, to which the points point.
struct DiagonalRankPoints;
void diagonal_points(const double* G, const double* scale, int d, int m, double* constants, DiagonalRankPoints& to);

// #{sigma > rtol sigma_1} of X diag(s_k) for each of N networks of parts [N, K, d]; -1 if s is not finite.
void diagonal_ranks(const DiagonalRankPoints& at, i64 N, int K, const double* parts, double rtol, int threads,
                    long long* out);

// Singular values of R diag(s_k) for each of N networks of parts [N, K, d], R [m, d].
void scaled_values(const double* R, int m, int d, i64 N, int K, const double* parts, int threads, const Spectra& out);

// Norm, imbalance | |u| - |v| | and support #{|u_j v_j| > threshold} of each network of W = (u, v) [N, 2, d]: [3, N].
void diagonal_norms(i64 N, i64 d, const double* W, double threshold, double* out);

// |X beta_k - y|^2 for each row of beta [N, d]; X [m, d], upper triangular if said so, y [m].
void linear_losses(const double* X, const double* y, int m, int d, i64 N, const double* beta, bool triangular,
                   int threads, double* out);

// Matrices [N, m, n].
struct Stack {
  const double* data;
  i64 N;
  int m, n;
  int longer() const { return m > n ? m : n; }
  int shorter() const { return m > n ? n : m; }
};
void gram_ranks(const Stack& A, double rtol, int threads, long long* out);
void jacobi_values(const Stack& A, int threads, const Spectra& out);
size_t jacobi_doubles(int m, int n);

// Ranks and singular values of the Jacobians of dense networks W [N, P] at X [m, d].
struct DenseShape;
void dense_ranks(const DenseShape& s, int m, const double* X, i64 N, const double* W, double rtol, int threads,
                 long long* out);
void dense_values(const DenseShape& s, int m, const double* X, i64 N, const double* W, int threads, const Spectra& out);
size_t dense_rank_doubles(const DenseShape& s, int m);
size_t dense_values_doubles(const DenseShape& s, int m);

}  // namespace fs
