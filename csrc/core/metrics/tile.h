// Owns products of small float64 matrices in registers: the one kernel on which Gram matrices and factorisations run.
//
// C[i, j] (+)= sum_k Q[k, i] P[k, j]: both operands have the summed index k outside, so a tile of R rows by C vectors
// is an outer product a k, with C loads and R broadcasts for R C fused multiply-adds. Every entry is summed in the
// order of k alone: results do not depend on the width of the machine's vectors. Parallel: nothing here.
#pragma once
#include "../vec.h"

namespace fs {

#if defined(__CUDACC__)
template <int Stride>
FS_HD void transpose(Vec<double, 1> (&)[1]) {}  // a number is its own transpose
#endif

namespace tile {

#if defined(__CUDACC__) || defined(FS_ENTRY)  // a GPU, or its stand-in: a thread is one lane
constexpr int W = 1, ROWS = 4, COLS = 4;      // vectors; as many as rows at least, for a block on the diagonal
#elif defined(__AVX512F__)
constexpr int W = 8, ROWS = 8, COLS = 3;  // 24 of 32 registers hold sums
#else
constexpr int W = 4, ROWS = 4, COLS = 3;  // 12 of 16
#endif
constexpr int PAD = 8;  // rows and columns of every matrix here come in whole multiples of PAD, zeros behind
using V = Vec<double, W>;

FS_HD constexpr int padded(int n) { return (n + PAD - 1) / PAD * PAD; }

// s[R][C] += sum_{k < K} q[k * qld + r] p[k * pld + c]
template <int C>
FS_HD void accumulate(V (&s)[ROWS][COLS], int K, const double* __restrict q, size_t qld, const double* __restrict p,
                      size_t pld) {
  for (int k = 0; k < K; ++k, q += qld, p += pld) {
    V b[C];
    FS_UNROLL
    for (int c = 0; c < C; ++c) b[c] = V::loadu(p + c * W);
    FS_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      const V a = V::set(q[r]);
      FS_UNROLL
      for (int c = 0; c < C; ++c) s[r][c] = fma(a, b[c], s[r][c]);
    }
  }
}

template <int C>
FS_HD void zero(V (&s)[ROWS][COLS]) {
  FS_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    FS_UNROLL
    for (int c = 0; c < C; ++c) s[r][c] = V::set(0.0);
  }
}

template <int C>
FS_HD void load(V (&s)[ROWS][COLS], const double* from, size_t ld) {
  FS_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    FS_UNROLL
    for (int c = 0; c < C; ++c) s[r][c] = V::loadu(from + r * ld + c * W);
  }
}

template <int C>
FS_HD void store(const V (&s)[ROWS][COLS], double* to, size_t ld) {
  FS_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    FS_UNROLL
    for (int c = 0; c < C; ++c) __builtin_memcpy(to + r * ld + c * W, &s[r][c].a, sizeof(V));
  }
}

// Calls f(count, j) over columns from .. to in strips of COLS, then fewer, vectors; count is a compile-time number.
template <int C>
struct Count {
  static constexpr int value = C;
};
template <class F>
FS_HD void strips(int from, int to, F f) {
  int j = from;
  for (; j + COLS * W <= to; j += COLS * W) f(Count<COLS>{}, j);
  if (to - j >= 2 * W) f(Count<2>{}, j), j += 2 * W;
  if (j < to) f(Count<1>{}, j);
}

// to [columns, padded(rows)] = the transpose of A [rows, ld], zeros behind; columns up to a whole tile are read and
// written.
FS_FN void transpose(const double* A, int rows, size_t ld, int columns, double* to) {
  const size_t across = padded(rows);
  for (size_t i = 0; i < across; i += W)
    for (int j = 0; j < columns; j += W) {
      V block[W];
      for (int r = 0; r < W; ++r) block[r] = int(i) + r < rows ? V::loadu(A + (i + r) * ld + j) : V::set(0.0);
      fs::transpose<W / 2>(block);
      for (int r = 0; r < W; ++r) __builtin_memcpy(to + (j + r) * across + i, &block[r].a, sizeof(V));
    }
}

}  // namespace tile

// The upper triangle of G = A^T A [n, n], rows of padded(n) doubles, from A [K, padded(n)] with zeros behind.
FS_FN void gram_matrix(const double* A, int K, int n, double* G) {
  using namespace tile;
  const int ld = padded(n);
  for (int i = 0; i < ld; i += ROWS) {
    strips(i / W * W, ld, [&](auto count, int j) {
      constexpr int C = decltype(count)::value;
      V s[ROWS][COLS];
      zero<C>(s);
      accumulate<C>(s, K, A + i, ld, A + j, ld);
      store<C>(s, G + (size_t)i * ld + j, ld);
    });
    FS_WORKED(i64(K) * (ld - i));
  }
}

}  // namespace fs
