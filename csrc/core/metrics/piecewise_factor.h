// Owns a narrow factor B of the Jacobian of a two-layer (leaky) ReLU network with one output: J J^T = B B^T.
//
// With x~ = [c_1 x, 1], v_j = [w_j, b_j], s_j(i) = act'(z_ij) and act(z) = act'(z) z, unit j adds to J J^T
//   diag(s_j) X~ C_j X~^T diag(s_j),   C_j = c_2^2 (a_j^2 I + v_j v_j^T),   whose rank is d + 1 where J has d + 2
//   columns.
// Units that are on at the same points have the same s: their C_j add up to one R^T R, and their part of B is
// diag(s) X~ R^T. R comes from rotations, so that nothing is squared; units that are off everywhere drop out. Trained
// networks have many equal units: B [m, r] is then much narrower than J, and the rank is counted from B^T B [r, r].
// Who is parallel: nothing here; one call is one network on one thread.
#pragma once

#include "dense_jacobian.h"

namespace fs {
namespace piecewise {

using tile::V;
using tile::W;

FS_FN bool serves(const DenseShape& s) {
  return s.layers == 2 && s.size[2] == 1 && (s.activation == Activation::RELU || s.activation == Activation::LEAKY);
}

FS_FN int inputs(const DenseShape& s) { return s.size[0] + s.bias[0]; }  // length of x~
FS_FN int words(int m) { return (m + 63) / 64; }

// The pieces of one caller-provided block.
struct Scratch {
  double *z, *pack;      // [padded(h), mp] pre-activations, [d, ROWS]
  u64 *bits, *hash;      // [h, words], [h]: where a unit is on
  double *R, *row, *at;  // [groups, d~, d~], [d~], [columns, d~] rows of all R with c_1 in them
  int *group, *first;    // [h] group of a unit, or -1; [h] a group's first unit
  int* unit;             // [columns] the unit whose s a column has
};

FS_FN size_t scratch_size(const DenseShape& s, int m) {
  if (!serves(s)) return 0;
  const size_t h = s.size[1], d = inputs(s), columns = tile::padded(m) + d;
  return tile::padded(int(h)) * tile::padded(m) + size_t(s.size[0]) * tile::ROWS + h * (words(m) + 1) +
         2 * columns * d + d + 2 * h + columns + 8;
}

FS_FN Scratch carve(const DenseShape& s, int m, double* block) {
  const size_t h = s.size[1], d = inputs(s), columns = tile::padded(m) + d;
  Scratch t;
  t.z = block;
  t.pack = t.z + size_t(tile::padded(int(h))) * tile::padded(m);
  t.bits = reinterpret_cast<u64*>(t.pack + size_t(s.size[0]) * tile::ROWS);
  t.hash = t.bits + h * words(m);
  t.R = reinterpret_cast<double*>(t.hash + h);
  t.at = t.R + columns * d;
  t.row = t.at + columns * d;
  t.group = reinterpret_cast<int*>(t.row + d);
  t.first = t.group + h;
  t.unit = t.first + h;
  return t;
}

// z of units j .. end and where it is positive; false if something is not finite.
FS_FN bool forward(const DensePoints& p, const double* w, int j, int end, const Scratch& t) {
  const DenseShape& s = p.shape;
  const int d = s.size[0], mp = p.mp;
  const double *W1 = w + j * d, *b = w + s.biases(0);
  dense_detail::multiply(
      end - j, d, s.multiplier[0], [=](int i, int k) { return W1[i * d + k]; }, p.X, t.z + size_t(j) * mp, mp, mp,
      t.pack);
  u32 broken = 0;
  for (; j < end; ++j) {
    const V bias = V::set(s.bias[0] ? b[j] : 0.0);
    u64 *bits = t.bits + size_t(j) * words(p.m), hash = 0;
    for (int word = 0; word < words(p.m); ++word) {
      const int from = word * 64, left = p.m - from;
      u64 on = 0;
      for (int i = 0; i < 64 && i < left; i += W) {
        const V z = V::loadu(t.z + size_t(j) * mp + from + i) + bias;
        __builtin_memcpy(t.z + size_t(j) * mp + from + i, &z.a, sizeof(V));
        broken |= beyond(z, 1.7976931348623157e308);
        on |= u64(beyond(relu(z), 0.0)) << i;
      }
      bits[word] = left < 64 ? on & ((u64(1) << left) - 1) : on;
      hash = (hash ^ bits[word]) * 0x9e3779b97f4a7c15u;
      hash ^= hash >> 29;
    }
    t.hash[j] = hash;
  }
  return !broken;
}

FS_FN bool equal(const u64* a, const u64* b, int count) {
  for (int k = 0; k < count; ++k)
    if (a[k] != b[k]) return false;
  return true;
}

// The group of unit j among the first `groups`, of which it may be the next; -1 if it is off everywhere and drops out.
FS_FN int group_of(const DensePoints& p, int j, int groups, const Scratch& t) {
  const int count = words(p.m);
  const u64* bits = t.bits + size_t(j) * count;
  bool off = p.shape.activation == Activation::RELU;
  for (int k = 0; k < count; ++k) off = off && !bits[k];
  if (off) return -1;
  for (int g = 0; g < groups; ++g)
    if (t.hash[t.first[g]] == t.hash[j] && equal(t.bits + size_t(t.first[g]) * count, bits, count)) return g;
  return groups;
}

// Units that are on at the same points to groups, a tile of units after the other; returns how many groups there are,
// or -1 where they exceed `most` or something is not finite.
FS_FN int grouped(const DensePoints& p, const double* w, int most, const Scratch& t) {
  const int h = p.shape.size[1];
  int groups = 0;
  for (int j = 0; j < h; ++j) {
    if (j % tile::ROWS == 0 && !forward(p, w, j, j + tile::ROWS < h ? j + tile::ROWS : h, t)) return -1;
    const int g = t.group[j] = group_of(p, j, groups, t);
    if (g < groups) continue;
    if (groups == most) return -1;
    t.first[groups++] = j;
  }
  return groups;
}

// R [d, d] <- the triangle with R^T R + v v^T; v is overwritten.
FS_FN void add_row(double* R, double* v, int d) {
  for (int k = 0; k < d; ++k) {
    if (v[k] == 0) continue;
    double* row = R + k * d;
    const double scale = 1.0 / __builtin_sqrt(row[k] * row[k] + v[k] * v[k]), c = row[k] * scale, s = v[k] * scale;
    for (int l = k; l < d; ++l) {
      const double old = row[l];
      row[l] = c * old + s * v[l];
      v[l] = c * v[l] - s * old;
    }
  }
}

// The triangles of all groups, their rows that are not zero to `at`; returns how many those are.
FS_FN int triangles(const DenseShape& s, const double* w, int groups, const Scratch& t) {
  const int h = s.size[1], d = s.size[0], D = inputs(s);
  const double *b = w + s.biases(0), *a = w + s.weights(1), c = s.multiplier[1];
  for (int e = 0; e < groups * D * D; ++e) t.R[e] = 0;
  for (int j = 0; j < h; ++j)
    for (int k = 0; k < D && t.group[j] >= 0; ++k)
      if (s.trained[k == d][0]) t.R[(size_t(t.group[j]) * D + k) * D + k] += c * a[j] * (c * a[j]);
  for (int g = 0; g < groups; ++g)
    for (int k = 0; k < D; ++k) {
      double& diagonal = t.R[(size_t(g) * D + k) * D + k];
      diagonal = __builtin_sqrt(diagonal);
    }
  for (int j = 0; j < h && s.trained[0][1]; ++j) {
    if (t.group[j] < 0) continue;
    for (int k = 0; k < D; ++k) t.row[k] = c * (k < d ? w[j * d + k] : b[j]);
    add_row(t.R + size_t(t.group[j]) * D * D, t.row, D);
  }
  int columns = 0;
  for (int g = 0; g < groups; ++g)
    for (int k = 0; k < D; ++k) {
      const double* row = t.R + (size_t(g) * D + k) * D;
      bool zero = true;
      for (int l = 0; l < D; ++l) {
        zero = zero && row[l] == 0;
        t.at[size_t(columns) * D + l] = row[l] * (l < d ? s.multiplier[0] : 1.0);
      }
      if (!zero) t.unit[columns++] = t.first[g];
    }
  return columns;
}

// B [padded(m), ld] from the rows `at`, a block of points by a block of columns after the other.
FS_FN void fill(const DensePoints& p, int columns, bool ones, const Scratch& t, double* B, size_t ld) {
  const DenseShape& s = p.shape;
  const int d = s.size[0], D = inputs(s);
  const V one = V::set(1.0), slope = V::set(s.activation == Activation::LEAKY ? s.slope : 0.0);
  for (size_t from = 0; from < ld; from += W) {
    FS_WORKED(i64(p.mp) * D);
    for (int i = 0; i < p.mp; i += W) {
      V block[W];
      for (int q = 0; q < W; ++q) {
        const int column = int(from) + q;
        block[q] = V::set(ones && column == columns ? 1.0 : 0.0);
        if (column >= columns) continue;
        const double* row = t.at + size_t(column) * D;
        V sum = V::set(D > d ? row[d] : 0.0);
        for (int l = 0; l < d; ++l) sum = fma(V::set(row[l]), V::loadu(p.X + size_t(l) * p.mp + i), sum);
        const V on = gate(V::loadu(t.z + size_t(t.unit[column]) * p.mp + i), one);
        block[q] = sum * (on + slope * (one - on));
      }
      transpose<W / 2>(block);
      for (int q = 0; q < W; ++q) __builtin_memcpy(B + (i + q) * ld + from, &block[q].a, sizeof(V));
    }
  }
}

}  // namespace piecewise

// B [padded(m), padded(r)], zeros behind column r, of one network w [P]; returns r, 0 only if J is zero. -1, with B as
// it was, where the network has no such factor, or where it would cost more than J J^T; B has room for padded(m)
// columns.
FS_FN int piecewise_factor(const DensePoints& p, const double* w, double* B, double* scratch) {
  using namespace piecewise;
  const DenseShape& s = p.shape;
  if (!serves(s)) return -1;
  const Scratch t = carve(s, p.m, scratch);
  const int groups = grouped(p, w, p.m / inputs(s) + 1, t);
  if (groups < 0) return -1;
  const bool ones = s.bias[1] && s.trained[1][1];
  const int units = triangles(s, w, groups, t), r = units + ones;
  const double m = p.m, h = s.size[1], here = m * r * r + double(r) * r * r / 3, there = 2 * h * m * m + m * m * m / 3;
  if (r > p.m || here > there || (r == 0 && groups > 0)) return -1;  // the last: perhaps weights whose squares vanish
  fill(p, units, ones, t, B, tile::padded(r));
  return r;
}

}  // namespace fs
