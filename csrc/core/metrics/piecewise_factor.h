// Owns a small factor of the Jacobian of a two-layer (leaky) ReLU network with one output: B with J J^T = B B^T, few
// columns, and of that few rows.
//
// With x~ = [c_1 x, 1], v_j = [w_j, b_j], s_j(i) = act'(z_ij) and act(z) = act'(z) z, unit j adds to J J^T
//   diag(s_j) X~ C_j X~^T diag(s_j),   C_j = c_2^2 (a_j^2 I + v_j v_j^T),   whose rank is d + 1 where J has d + 2
//   columns.
// Columns: units that are on at the same points (a "group") have the same s. Their C_j add up to one R^T R, and their
// part of B is diag(s) X~ R^T. R comes from rotations, so that nothing is squared; units that are off everywhere drop
// out.
// Rows: at points at which the same units are on (a "cell") the rows of B are one matrix times x~. So of c points with
// X~ = Q T the d + 1 rows of T say all: a product with an orthogonal matrix changes no singular value of B.
// Trained networks have many equal units and few cells: what is left is much smaller than J.
// Parallel: nothing here; one call is one network on one thread.
#pragma once

#include "dense_jacobian.h"

namespace fs {
namespace piecewise {

using tile::ROWS;
using tile::V;
using tile::W;

FS_FN bool serves(const DenseShape& s) {
  return s.layers == 2 && s.size[2] == 1 && (s.activation == Activation::RELU || s.activation == Activation::LEAKY);
}

FS_FN int inputs(const DenseShape& s) { return s.size[0] + s.bias[0]; }                   // length of x~
FS_FN int extended(const DenseShape& s) { return s.size[0] + (s.bias[0] || s.bias[1]); }  // E: a one if any layer has
FS_FN int words(int m) { return (m + 63) / 64; }
FS_FN size_t most_columns(const DenseShape& s, int m) { return size_t(tile::padded(m + inputs(s) + 1)); }
FS_FN int most_groups(const DenseShape& s, int m) { return m / inputs(s) + 1; }
FS_FN size_t on_at_size(const DenseShape& s, int m) { return size_t(words(most_groups(s, m))) * words(m) * 64; }
FS_FN int slots(int m) {  // of the table of cells: a power of two, at most half of them taken
  int count = 16;
  while (count < 2 * m) count *= 2;
  return count;
}

// The pieces of one caller-provided block.
struct Scratch {
  double* pack;          // [d, ROWS] weights of a tile of units
  u64 *bits, *hash;      // [padded(h), words], [h]: where a unit is on
  double *R, *row, *at;  // [groups, d~, d~], [d~], [columns, d~] rows of all R with c_1 in them
  int *group, *first;    // [h] group of a unit, or -1; [h] a group's first unit
  int* unit;             // [columns] the unit whose s a column has
  double *x, *on;        // [E, mp] rows of T, [mp] act' of a group at them
  double* cell;          // [E, mp] X~ of a cell
  u64* on_at;            // [words of groups, 64 words] bit g: whether group g is on at a point
  int *next, *head;      // [mp] the next point of the same cell, or -1; [mp] a cell's first
  int *count, *table;    // [mp] points of a cell; [2 mp or more] cells by what is on there
  int* point;            // [mp] a point of the cell that a row belongs to
};

// What is left of the points.
struct Rows {
  int count;  // -1: there are inputs whose squares leave the range of float64
  size_t ld;
  const double* x;  // [E, ld] x and, behind it, what one became; zeros behind the last row
};

FS_FN size_t scratch_size(const DenseShape& s, int m) {
  if (!serves(s)) return 0;
  const size_t h = tile::padded(s.size[1]), d = inputs(s), columns = tile::padded(m) + d, mp = tile::padded(m),
               E = extended(s);
  const size_t whole = 2 * h + columns + 4 * mp + slots(m);
  return size_t(s.size[0]) * ROWS + h * (words(m) + 1) + 2 * columns * d + d + (2 * E + 1) * mp + on_at_size(s, m) +
         (whole + 1) / 2 + 8;
}

FS_FN Scratch carve(const DenseShape& s, int m, double* block) {
  const size_t h = tile::padded(s.size[1]), d = inputs(s), columns = tile::padded(m) + d, mp = tile::padded(m),
               E = extended(s);
  Scratch t;
  t.x = block;
  t.on = t.x + E * mp;
  t.cell = t.on + mp;
  t.pack = t.cell + E * mp;
  t.bits = reinterpret_cast<u64*>(t.pack + size_t(s.size[0]) * ROWS);
  t.hash = t.bits + h * words(m);
  t.on_at = t.hash + h;
  t.R = reinterpret_cast<double*>(t.on_at + on_at_size(s, m));
  t.at = t.R + columns * d;
  t.row = t.at + columns * d;
  t.group = reinterpret_cast<int*>(t.row + d);
  t.first = t.group + h;
  t.unit = t.first + h;
  t.next = t.unit + columns;
  t.head = t.next + mp;
  t.count = t.head + mp;
  t.point = t.count + mp;
  t.table = t.point + mp;
  return t;
}

// Where the units j .. j + ROWS are on; false if a z is not finite.
FS_FN bool forward(const DensePoints& p, const double* w, int j, const Scratch& t) {
  const DenseShape& s = p.shape;
  const int d = s.size[0], h = s.size[1], count = words(p.m);
  V bias[ROWS], broken = V::set(0.0);
  for (int r = 0; r < ROWS; ++r) {
    const int unit = j + r < h ? j + r : h - 1;
    for (int k = 0; k < d; ++k) t.pack[k * ROWS + r] = s.multiplier[0] * w[unit * d + k];
    bias[r] = V::set(s.bias[0] ? w[s.biases(0) + unit] : 0.0);
  }
  for (int word = 0; word < count; ++word) {
    const int left = p.m - word * 64;
    u64 on[ROWS] = {};
    for (int i = 0; i < 64 && i < left; i += W) {
      V z[ROWS];
      FS_UNROLL
      for (int r = 0; r < ROWS; ++r) z[r] = V::set(0.0);
      for (int k = 0; k < d; ++k) {
        const V x = V::loadu(p.X + size_t(k) * p.mp + word * 64 + i);
        FS_UNROLL
        for (int r = 0; r < ROWS; ++r) z[r] = fma(V::set(t.pack[k * ROWS + r]), x, z[r]);
      }
      FS_UNROLL
      for (int r = 0; r < ROWS; ++r) {
        z[r] = z[r] + bias[r];
        broken = fma(z[r], V::set(0.0), broken);
        on[r] |= u64(above(z[r])) << i;
      }
    }
    for (int r = 0; r < ROWS; ++r)
      t.bits[size_t(j + r) * count + word] = left < 64 ? on[r] & ((u64(1) << left) - 1) : on[r];
  }
  return !beyond(broken, 0.0);
}

FS_FN bool equal(const u64* a, const u64* b, int count) {
  for (int k = 0; k < count; ++k)
    if (a[k] != b[k]) return false;
  return true;
}

// What stands for a unit's set of points: equal sets have equal ones.
FS_FN u64 hash_of(const u64* bits, int count) {
  u64 hash = 0;
  for (int k = 0; k < count; ++k) {
    hash = (hash ^ bits[k]) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  }
  return hash;
}

// The group of unit j among the first `groups`, of which it may be the next; -1 if it is off everywhere and drops out.
FS_FN int group_of(const DensePoints& p, int j, int groups, const Scratch& t) {
  const int count = words(p.m);
  const u64* bits = t.bits + size_t(j) * count;
  bool off = p.shape.activation == Activation::RELU;
  for (int k = 0; k < count; ++k) off = off && !bits[k];
  if (off) return -1;
  t.hash[j] = hash_of(bits, count);
  for (int g = 0; g < groups; ++g)
    if (t.hash[t.first[g]] == t.hash[j] && equal(t.bits + size_t(t.first[g]) * count, bits, count)) return g;
  return groups;
}

// Units that are on at the same points to groups, a tile of units after the other; returns how many groups there
// are, or -1 where they exceed `most` or something is not finite.
FS_FN int grouped(const DensePoints& p, const double* w, int most, const Scratch& t) {
  const int h = p.shape.size[1];
  int groups = 0;
  for (int j = 0; j < h; ++j) {
    if (j % ROWS == 0) {
      if (!forward(p, w, j, t)) return -1;
      FS_WORKED(i64(p.shape.size[0]) * p.mp);
    }
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

// Bit k of word i becomes bit i of word k.
FS_FN void transpose_bits(u64 (&x)[64]) {
  u64 mask = 0x00000000ffffffffu;
  for (int width = 32; width; width /= 2, mask ^= mask << width)
    for (int from = 0; from < 64; from += 2 * width)
      for (int i = from; i < from + width; ++i) {
        const u64 moved = (x[i] >> width ^ x[i + width]) & mask;
        x[i] ^= moved << width, x[i + width] ^= moved;
      }
}

// For each point the groups that are on there, from each group's points.
FS_FN void groups_at_points(int m, int groups, const Scratch& t) {
  const int count = words(m);
  for (int part = 0; part < words(groups); ++part)
    for (int word = 0; word < count; ++word) {
      u64 block[64];
      for (int k = 0; k < 64; ++k) {
        const int g = part * 64 + k;
        block[k] = g < groups ? t.bits[size_t(t.first[g]) * count + word] : 0;
      }
      transpose_bits(block);
      for (int k = 0; k < 64; ++k) t.on_at[(size_t(part) * count + word) * 64 + k] = block[k];
    }
}

// Whether the same groups are on at two points.
FS_FN bool alike(const u64* on_at, size_t stride, int parts, int a, int b) {
  for (int k = 0; k < parts; ++k)
    if (on_at[k * stride + a] != on_at[k * stride + b]) return false;
  return true;
}

// Points to cells: lists of the points of each; returns how many cells there are.
FS_FN int cells(int m, int groups, const Scratch& t) {
  const int most = slots(m), parts = words(groups);
  const size_t stride = size_t(words(m)) * 64;
  int found = 0;
  groups_at_points(m, groups, t);
  for (int k = 0; k < most; ++k) t.table[k] = -1;
  for (int i = m - 1; i >= 0; --i) {
    u64 at = 0;
    for (int k = 0; k < parts; ++k) at = (at ^ t.on_at[k * stride + i]) * 0x9e3779b97f4a7c15u, at ^= at >> 32;
    for (;; ++at) {
      int& cell = t.table[at & (most - 1)];
      if (cell < 0) {
        cell = found++;
        t.head[cell] = -1, t.count[cell] = 0;
      } else if (!alike(t.on_at, stride, parts, t.head[cell], i)) {
        continue;
      }
      t.next[i] = t.head[cell], t.head[cell] = i, ++t.count[cell];
      break;
    }
  }
  return found;
}

// T of a QR factorisation of q [columns, c], a column after the other, by reflections in place: row k of T is entry k
// of each column from k on. False if a square leaves the range of float64.
FS_FN bool triangle(double* q, int c, int columns) {
  for (int k = 0; k < columns; ++k) {
    double *x = q + k * c, squares = 0;
    bool zero = true;
    for (int i = k; i < c; ++i) squares += x[i] * x[i], zero = zero && x[i] == 0;
    if (zero) continue;
    if (!(squares > 1e-280 && squares < 1e280)) return false;
    const double to = x[k] > 0 ? -__builtin_sqrt(squares) : __builtin_sqrt(squares), scale = 1 / (squares - to * x[k]);
    x[k] -= to;
    for (int j = k + 1; j < columns; ++j) {
      double *y = q + j * c, dot = 0;
      for (int i = k; i < c; ++i) dot += x[i] * y[i];
      for (int i = k; i < c; ++i) y[i] -= scale * dot * x[i];
    }
    x[k] = to;
  }
  return true;
}

// The rows of all cells: of a cell with more than E points those of T, else the points themselves.
FS_FN Rows compressed(const DensePoints& p, int groups, const Scratch& t) {
  const int d = p.shape.size[0], E = extended(p.shape), found = cells(p.m, groups, t);
  int count = 0;
  for (int k = 0; k < found; ++k) count += t.count[k] < E ? t.count[k] : E;
  const Rows rows = {count, size_t(tile::padded(count)), t.x}, broken = {-1, 0, nullptr};
  for (size_t e = 0; e < E * rows.ld; ++e) t.x[e] = 0;
  int row = 0;
  for (int k = 0; k < found; ++k) {
    const int c = t.count[k], kept = c < E ? c : E;
    int i = t.head[k];
    for (int a = 0; a < c; ++a, i = t.next[i])
      for (int l = 0; l < E; ++l) t.cell[l * c + a] = l < d ? p.X[size_t(l) * p.mp + i] : 1.0;
    if (c > E && !triangle(t.cell, c, E)) return broken;
    for (int a = 0; a < kept; ++a, ++row) {
      t.point[row] = t.head[k];
      for (int l = c > E ? a : 0; l < E; ++l) t.x[l * rows.ld + row] = t.cell[l * c + a];
    }
    FS_WORKED(i64(c) * E);
  }
  return rows;
}

// The next column of C, for each row its entry in the unit's own part of J: act'(z) <at, x~>.
FS_FN void fill_column(const Rows& rows, const double* at, int inputs, const double* on, double* column) {
  for (size_t i = 0; i < rows.ld; i += W) {
    V sum = V::set(0.0);
    for (int l = 0; l < inputs; ++l) sum = fma(V::set(at[l]), V::loadu(rows.x + l * rows.ld + i), sum);
    sum = sum * V::loadu(on + i);
    __builtin_memcpy(column + i, &sum.a, sizeof(V));
  }
}

// C [columns + ones, ld], zeros behind the last row.
FS_FN void fill(const DensePoints& p, const Rows& rows, int columns, bool ones, const Scratch& t, double* C) {
  const DenseShape& s = p.shape;
  const int D = inputs(s);
  const double off = s.activation == Activation::LEAKY ? s.slope : 0.0;
  for (size_t i = rows.count; i < rows.ld; ++i) t.on[i] = 0;
  for (int c = 0; c < columns; ++c) {
    const u64* bits = t.bits + size_t(t.unit[c]) * words(p.m);
    if (c == 0 || t.unit[c] != t.unit[c - 1])
      for (int i = 0; i < rows.count; ++i) t.on[i] = bits[t.point[i] / 64] >> t.point[i] % 64 & 1 ? 1.0 : off;
    fill_column(rows, t.at + size_t(c) * D, D, t.on, C + c * rows.ld);
    FS_WORKED(i64(rows.ld) * D);
  }
  if (ones)
    for (size_t i = 0; i < rows.ld; ++i) C[columns * rows.ld + i] = rows.x[s.size[0] * rows.ld + i];
}

// What a count costs by an [n, n] Gram matrix of K terms.
FS_FN double work(double K, double n) { return K * n * n + n * n * n / 3; }

}  // namespace piecewise

// A [K, padded(n)], n <= K, zeros behind column n: J J^T and A^T A have the same eigenvalues but for zeros.
// n: 0 only if J is zero; -1 where the network has no such factor, or where it would cost more than J J^T
struct PiecewiseFactor {
  int K, n;
};

// Doubles of A.
FS_FN size_t piecewise_factor_size(const DenseShape& s, int m) {
  return piecewise::serves(s) ? piecewise::most_columns(s, m) * size_t(tile::padded(m)) : 0;
}

// The factor of one network w [P] in A; spare [padded(m), padded(m)].
FS_FN PiecewiseFactor piecewise_factor(const DensePoints& p, const double* w, double* A, double* spare,
                                       double* scratch) {
  using namespace piecewise;
  const PiecewiseFactor none = {0, -1};
  const DenseShape& s = p.shape;
  if (!serves(s)) return none;
  const Scratch t = carve(s, p.m, scratch);
  const int groups = grouped(p, w, most_groups(s, p.m), t);
  if (groups < 0) return none;
  const bool ones = s.bias[1] && s.trained[1][1];
  const int units = triangles(s, w, groups, t), r = units + ones;
  if (r == 0) return {0, groups > 0 ? -1 : 0};  // groups without columns: perhaps weights whose squares vanish
  const Rows rows = compressed(p, groups, t);
  if (rows.count < 0) return none;
  const double m = p.m, h = s.size[1];
  const int n = r < rows.count ? r : rows.count, K = r < rows.count ? rows.count : r;
  if (work(K, n) > 2 * h * m * m + m * m * m / 3) return none;
  fill(p, rows, units, ones, t, n == r ? spare : A);
  if (n == r) tile::transpose(spare, r, rows.ld, rows.count, A);
  return {K, n};
}

}  // namespace fs
