// Owns the Jacobian of a dense network at many points: its Gram matrix by structure, and its rows where they are
// needed.
//
//   J = [dh_o(x_i) / dtheta],  rows (o, i),  h as in models/dense_shape.h;  A_l [h_l, m] activations, D_l [h_l, (o, m)]
//   derivatives dh_o(x_i) / dz_l:
//   J J^T = sum_l (c_l^2 A_{l-1}^T A_{l-1} + 1 if biases) o (D_l^T D_l),  without what is not trained
// All points go at once through small matrix products; the parameters' axis P is never formed for the Gram matrix.
// Parallel: nothing here; one call is one network on one thread.
#pragma once

#include "../models/dense_shape.h"
#include "tile.h"

namespace fs {

// A dense network's shape at m points, and how its scratch is laid out. Rows (o, i) stand at o * mp + i; padding is
// zero.
struct DensePoints {
  DenseShape shape;
  int m, mp;         // points, and rounded up
  const double* X;   // [d, mp]
  const double* XX;  // [mp, mp] X^T X

  int outputs() const { return shape.size[shape.layers]; }
  int rows() const { return outputs() * mp; }
};

namespace dense_detail {

using tile::ROWS;
using tile::V;

struct Layers {
  const double* A[DenseShape::MOST];  // A_0 .. A_{L-1}
  double* D[DenseShape::MOST];        // D_1 .. D_{L-1} at 0 .. L-2, [padded(h_l), rows()]
  double* pack;                       // [largest size, ROWS]
};

FS_FN int largest_size(const DenseShape& s) {
  int most = 0;
  for (int l = 0; l <= s.layers; ++l) most = s.size[l] > most ? s.size[l] : most;
  return most;
}

// a <- act(z), z <- act'(z); count in whole registers.
FS_FN void activate(const DenseShape& s, double* __restrict z, double* __restrict a, size_t count) {
  const V slope = V::set(s.slope);
  for (size_t i = 0; i < count; i += tile::W) {
    V value, derivative;
    fs::activate(s.activation, V::loadu(z + i), slope, value, derivative);
    __builtin_memcpy(a + i, &value, sizeof value);
    __builtin_memcpy(z + i, &derivative, sizeof derivative);
  }
}

// out[i, :] = c sum_k w(i, k) in[k, :] for i < rows, k < K; columns and padding of rows in whole tiles.
template <class Weight>
FS_FN void multiply(int rows, int K, double c, Weight w, const double* in, double* out, size_t ld, int columns,
                    double* pack) {
  for (int i = 0; i < rows; i += ROWS) {
    for (int k = 0; k < K; ++k)
      for (int r = 0; r < ROWS; ++r) pack[k * ROWS + r] = i + r < rows ? c * w(i + r, k) : 0.0;
    tile::strips(0, columns, [&](auto count, int j) {
      constexpr int C = decltype(count)::value;
      V s[ROWS][tile::COLS];
      tile::zero<C>(s);
      tile::accumulate<C>(s, K, pack, ROWS, in + j, ld);
      tile::store<C>(s, out + i * ld + j, ld);
    });
    FS_WORKED(i64(K) * columns);
  }
}

FS_FN size_t layers_size(const DenseShape& s, int mp) {
  const size_t o = s.size[s.layers];
  size_t count = (size_t)largest_size(s) * ROWS;
  for (int l = 1; l < s.layers; ++l) count += (2 + o) * tile::padded(s.size[l]) * mp;
  return count;
}

// Forward and backward over all points.
FS_FN Layers sweep(const DensePoints& p, const double* w, double* block) {
  const DenseShape& s = p.shape;
  const int L = s.layers, o = p.outputs();
  const size_t mp = p.mp;
  Layers z;
  z.pack = block;
  block += (size_t)largest_size(s) * ROWS;
  double* derivative[DenseShape::MOST];  // act' of layers 1 .. L-1
  z.A[0] = p.X;
  for (int l = 1; l < L; ++l) {
    const size_t size = tile::padded(s.size[l]) * mp;
    double* a = block;
    derivative[l] = a + size;
    z.D[l - 1] = derivative[l] + size;
    block = z.D[l - 1] + o * size;
    const double *W = w + s.weights(l - 1), *b = w + s.biases(l - 1);
    const int fan = s.size[l - 1];
    multiply(
        s.size[l], fan, s.multiplier[l - 1], [=](int i, int k) { return W[i * fan + k]; }, z.A[l - 1], derivative[l],
        mp, p.mp, z.pack);
    if (s.bias[l - 1])
      for (int i = 0; i < s.size[l]; ++i)
        for (size_t j = 0; j < mp; ++j) derivative[l][i * mp + j] += b[i];
    activate(s, derivative[l], a, s.size[l] * mp);
    z.A[l] = a;
  }
  const size_t ld = p.rows();
  for (int l = L - 1; l > 0; --l) {
    double* D = z.D[l - 1];
    const double* W = w + s.weights(l);
    const int h = s.size[l];
    const double c = s.multiplier[l];
    if (l < L - 1)
      multiply(h, s.size[l + 1], c, [=](int i, int k) { return W[k * h + i]; }, z.D[l], D, ld, p.rows(), z.pack);
    for (int i = 0; i < h; ++i)
      for (int q = 0; q < o; ++q) {
        double* d = D + i * ld + q * mp;
        const double *g = derivative[l] + i * mp, own = c * W[q * h + i];
        if (l < L - 1)
          for (size_t j = 0; j < mp; ++j) d[j] *= g[j];
        else
          for (size_t j = 0; j < mp; ++j) d[j] = own * g[j];
      }
  }
  return z;
}

}  // namespace dense_detail

// Doubles of scratch for `dense_gram` and `dense_rows`.
FS_FN size_t dense_scratch_size(const DenseShape& s, int m) { return dense_detail::layers_size(s, tile::padded(m)); }

// The upper triangle of J J^T [rows, rows] of one network w [P].
FS_FN void dense_gram(const DensePoints& p, const double* w, double* G, double* scratch) {
  using namespace dense_detail;
  const DenseShape& s = p.shape;
  const Layers z = sweep(p, w, scratch);
  const int L = s.layers, o = p.outputs(), mp = p.mp;
  const size_t ld = p.rows();
  for (int q = 0; q < o; ++q)
    for (int i = 0; i < mp; i += ROWS) {
      for (int to = q; to < o; ++to)
        tile::strips(to == q ? i / tile::W * tile::W : 0, mp, [&](auto count, int j) {
          constexpr int C = decltype(count)::value;
          V sum[ROWS][tile::COLS];
          tile::zero<C>(sum);
          for (int l = 1; l <= L; ++l) {
            V a[ROWS][tile::COLS], d[ROWS][tile::COLS];
            if (l == L && to != q) continue;
            if (l == 1) {
              tile::load<C>(a, p.XX + (size_t)i * mp + j, mp);
            } else {
              tile::zero<C>(a);
              tile::accumulate<C>(a, s.size[l - 1], z.A[l - 1] + i, mp, z.A[l - 1] + j, mp);
            }
            if (l < L) {
              tile::zero<C>(d);
              tile::accumulate<C>(d, s.size[l], z.D[l - 1] + q * mp + i, ld, z.D[l - 1] + to * mp + j, ld);
            }
            const V c = V::set(s.trained[0][l - 1] ? s.multiplier[l - 1] * s.multiplier[l - 1] : 0.0);
            const V b = V::set(s.bias[l - 1] && s.trained[1][l - 1] ? 1.0 : 0.0);
            FS_UNROLL
            for (int r = 0; r < ROWS; ++r) {
              FS_UNROLL
              for (int v = 0; v < C; ++v) {
                const V both = fma(c, a[r][v], b);
                sum[r][v] = l < L ? fma(both, d[r][v], sum[r][v]) : sum[r][v] + both;
              }
            }
          }
          tile::store<C>(sum, G + (q * mp + i) * ld + to * mp + j, ld);
        });
      FS_WORKED(i64(p.shape.P()) * mp);
    }
  for (int q = 0; q < o; ++q)  // what stands at padding points is no part of J
    for (int i = q * mp + p.m; i < (q + 1) * mp; ++i)
      for (size_t j = 0; j < ld; ++j) G[i * ld + j] = G[j * ld + i] = 0;
}

// J^T [P, rows] of one network w [P].
FS_FN void dense_rows(const DensePoints& p, const double* w, double* out, double* scratch) {
  using namespace dense_detail;
  const DenseShape& s = p.shape;
  const Layers z = sweep(p, w, scratch);
  const int o = p.outputs(), mp = p.mp;
  const size_t ld = p.rows();
  for (int l = 0; l < s.layers; ++l)
    for (int i = 0; i < s.size[l + 1]; ++i)
      for (int k = 0; k < s.size[l] + s.bias[l]; ++k) {
        const bool bias = k == s.size[l];
        double* to = out + (bias ? s.biases(l) + i : s.weights(l) + i * s.size[l] + k) * ld;
        for (int q = 0; q < o; ++q)
          for (int j = 0; j < mp; ++j) {
            const double a = bias ? 1.0 : s.multiplier[l] * z.A[l][(size_t)k * mp + j];
            const double d = l + 1 < s.layers ? z.D[l][i * ld + q * mp + j] : q == i ? 1.0 : 0.0;
            to[q * mp + j] = j < p.m && s.trained[bias][l] ? a * d : 0.0;
          }
      }
}

}  // namespace fs
