// Owns singular values with high relative accuracy: Householder QR with column pivoting, then one-sided Jacobi on R^T.
//
// Every column and every row of R carries its own power of two, so columns may differ by the whole range of float64
// and nothing underflows or overflows on the way: A = B diag(2^e), and each sigma is accurate to a modest multiple of
// eps cond(B), however graded the scales are (Demmel and Veselic 1992; the QR first: Drmac and Veselic 2008; largest
// column first: de Rijk 1989). LAPACK's other methods are accurate relative to sigma_1 alone.
// Who is parallel: nothing here; one call is one matrix on one thread.
#pragma once

#include "tile.h"

namespace fs {
namespace jacobi {

using tile::V;
using tile::W;

constexpr int kSweeps = 60;  // ten suffice; the end of a sweep without a rotation is the end
constexpr int kExponent = 1 << 20;

// Four vectors of partial sums; the last bits of what comes of them depend on the machine's vector width.
struct Sum {
  V part[4];
  FS_HD Sum() {
    FS_UNROLL
    for (int a = 0; a < 4; ++a) part[a] = V::set(0.0);
  }
  FS_HD double total() const {
    const V s = (part[0] + part[1]) + (part[2] + part[3]);
    double x[W];
    __builtin_memcpy(x, &s.a, sizeof s);
    for (int half = W / 2; half > 0; half /= 2)
      for (int k = 0; k < half; ++k) x[k] += x[k + half];
    return x[0];
  }
};

// f(j, k) for vectors j = from, from + W, ... below ld; k < 4 is a partial sum, known to the compiler.
template <class F>
FS_HD void sweep(int from, int ld, F f) {
  int j = from;
  for (; j + 4 * W <= ld; j += 4 * W) {
    FS_UNROLL
    for (int k = 0; k < 4; ++k) f(j + k * W, k);
  }
  for (; j < ld; j += W) f(j, 0);
}

FS_HD void put(double* to, V x) { __builtin_memcpy(to, &x.a, sizeof(V)); }

FS_FN double dot(const double* a, const double* b, int from, int ld) {
  Sum s;
  sweep(from, ld, [&](int j, int k) { s.part[k] = fma(V::loadu(a + j), V::loadu(b + j), s.part[k]); });
  return s.total();
}

// Largest |entry| of x [n]; NaN if there is one.
FS_FN double largest(const double* x, int n) {
  double most = 0;
  for (int j = 0; j < n; ++j) {
    const double size = __builtin_fabs(x[j]);
    if (!(size <= most)) most = size;
    if (size != size) return size;
  }
  return most;
}

// x [n] *= 2^k exactly, or to a denormal; in two factors, since 2^k itself may not exist.
FS_FN void scale(double* x, int n, int k) {
  k = k > 2100 ? 2100 : k < -2100 ? -2100 : k;
  for (; k != 0;) {
    const int part = k > 1000 ? 1000 : k < -1000 ? -1000 : k;
    const double factor = __builtin_ldexp(1.0, part);
    for (int j = 0; j < n; ++j) x[j] *= factor;
    k -= part;
  }
}

// Orders 2^(2 e) square by size: a monotone function of it, and the exponent of the size itself.
FS_FN double key(double square, int e) {
  if (!(square > 0)) return -4.0 * kExponent;
  int own;
  const double fraction = __builtin_frexp(square, &own);
  return (own + 2.0 * e) + fraction;
}

FS_FN void swap_rows(double* a, double* b, int n) {
  for (int j = 0; j < n; ++j) {
    const double c = a[j];
    a[j] = b[j];
    b[j] = c;
  }
}

// A^T [n, ld] (row j: column j of A, `length` entries, zeros behind) -> R^T in place, row i of R in column i;
// e [n]: exponents of the columns. Returns the number of rows of R that are not zero, -1 for entries that are not
// finite.
FS_FN int pivoted_qr(double* At, int n, int length, size_t ld, int* e, double* square) {
  for (int j = 0; j < n; ++j) {
    const double most = largest(At + j * ld, length);
    e[j] = 0;
    if (!(most < 1.0 / 0.0)) return -1;
    if (most > 0) (void)__builtin_frexp(most, &e[j]);
    scale(At + j * ld, length, -e[j]);
    square[j] = dot(At + j * ld, At + j * ld, 0, (int)ld);
  }
  const int most = n < length ? n : length;
  for (int k = 0; k < most; ++k) {
    int p = k;
    double best = key(square[k], e[k]);
    for (int j = k + 1; j < n; ++j) {
      const double own = key(square[j], e[j]);
      if (own > best) best = own, p = j;
    }
    if (!(square[p] > 0)) return k;
    if (p != k) {
      swap_rows(At + p * ld, At + k * ld, length);
      const int other = e[p];
      e[p] = e[k], e[k] = other, square[p] = square[k];
    }
    double* v = At + k * ld;
    const int from = k / W * W;  // whole vectors: what stands before k in them is kept out of the reflection
    double kept[W];
    for (int j = from; j < k; ++j) kept[j - from] = v[j], v[j] = 0;
    const double norm = __builtin_sqrt(dot(v, v, from, (int)ld)), x = v[k];
    const double alpha = x > 0 ? -norm : norm;
    v[k] = x - alpha;
    const double tau = -1.0 / (alpha * v[k]);  // 2 / |v|^2
    for (int j = k + 1; j < n; ++j) {
      double* a = At + j * ld;
      const V c = V::set(-tau * dot(v, a, from, (int)ld));
      put(a + from, fma(c, V::loadu(v + from), V::loadu(a + from)));
      double head = 0;
      for (int i = k + 1; i < from + W; ++i) head += a[i] * a[i];
      Sum s;
      sweep(from + W, (int)ld, [&](int i, int part) {
        const V moved = fma(c, V::loadu(v + i), V::loadu(a + i));
        put(a + i, moved);
        s.part[part] = fma(moved, moved, s.part[part]);
      });
      square[j] = s.total() + head;
    }
    v[k] = alpha;
    for (int j = k + 1; j < (int)ld; ++j) v[j] = 0;
    for (int j = from; j < k; ++j) v[j] = kept[j - from];
  }
  return most;
}

// Rows i < rank of R as the columns that Jacobi's method turns, each scaled to order one: C [rank, ld], exponents f.
FS_FN void rows_of_R(const double* At, int n, int rank, size_t ld, const int* e, double* C, size_t ldc, int* f) {
  for (int i = 0; i < rank; ++i) {
    (void)__builtin_frexp(At[i * ld + i], &f[i]);
    f[i] += e[i];
    for (int j = 0; j < (int)ldc; ++j)
      C[i * ldc + j] = j < i || j >= n ? 0.0 : __builtin_scalbn(At[j * ld + i], e[j] - f[i]);
  }
}

// Makes rows a (the larger) and b of true sizes |a| 2^fa >= |b| 2^fb orthogonal; g = a . b; aa, bb: their squares.
FS_FN void rotate(double* __restrict a, double* __restrict b, size_t ld, double g, double& aa, double& bb, int fa,
                  int fb) {
  // ratio = |b| 2^fb / (|a| 2^fa) may underflow: nothing below divides by it. tan = u ratio.
  const double sizes = __builtin_sqrt(bb / aa), r = __builtin_scalbn(1.0, fb - fa), ratio = sizes * r;
  const double cosine = g / (__builtin_sqrt(aa) * __builtin_sqrt(bb));
  const double apart = 1 - ratio * ratio;
  const double u = 2 * cosine / (apart + __builtin_sqrt(apart * apart + 4 * cosine * cosine * ratio * ratio));
  const double tangent = u * ratio, cs = 1 / __builtin_sqrt(1 + tangent * tangent);
  const V c = V::set(cs), up = V::set(u * sizes * r * r), down = V::set(-u * sizes);
  Sum sa, sb;
  sweep(0, (int)ld, [&](int j, int part) {
    const V x = V::loadu(a + j), y = V::loadu(b + j);
    const V p = c * fma(up, y, x), q = c * fma(down, x, y);
    put(a + j, p), put(b + j, q);
    sa.part[part] = fma(p, p, sa.part[part]);
    sb.part[part] = fma(q, q, sb.part[part]);
  });
  aa = sa.total(), bb = sb.total();
}

// One-sided Jacobi on the rows of C [count, ld]: at the end they are orthogonal. at [count]: which row stands where.
FS_FN void orthogonalise(double* C, int count, size_t ld, int* f, double* square, int* at) {
  const double tolerance = 0x1p-52 * __builtin_sqrt((double)ld);
  for (int i = 0; i < count; ++i) {
    at[i] = i;
    square[i] = dot(C + i * ld, C + i * ld, 0, (int)ld);
  }
  bool turned = true;
  for (int sweep = 0; sweep < kSweeps && turned; ++sweep) {
    turned = false;
    for (int p = 0; p < count; ++p) {
      int first = p;
      for (int q = p + 1; q < count; ++q)
        if (key(square[at[q]], f[at[q]]) > key(square[at[first]], f[at[first]])) first = q;
      const int a = at[first];
      at[first] = at[p];
      at[p] = a;
      for (int q = p + 1; q < count; ++q) {
        const int b = at[q];
        if (!(square[b] > 0)) continue;
        double *x = C + a * ld, *y = C + b * ld;
        const double g = dot(x, y, 0, (int)ld);
        if (!(__builtin_fabs(g) > tolerance * (__builtin_sqrt(square[a]) * __builtin_sqrt(square[b])))) continue;
        turned = true;
        if (key(square[a], f[a]) >= key(square[b], f[b])) rotate(x, y, ld, g, square[a], square[b], f[a], f[b]);
        else rotate(y, x, ld, g, square[b], square[a], f[b], f[a]);
        if (square[b] > 0 && square[b] < 0x1p-100) {  // what was nearly parallel is small now
          int k;
          (void)__builtin_frexp(largest(y, (int)ld), &k);
          scale(y, (int)ld, -k);
          f[b] += k;
          square[b] = dot(y, y, 0, (int)ld);
        }
      }
    }
  }
}

}  // namespace jacobi

// Doubles of scratch for a matrix of `length` rows and n columns; its columns take n * padded(length) more.
FS_FN constexpr size_t jacobi_scratch_size(int length, int n) {
  const size_t most = length < n ? length : n;
  return most * tile::padded(n) + 2 * (size_t)n + 2 * most;
}

// Singular values of A, largest first: sigma[k] 2^shift, k < min(length, n), sigma of order one and below; NaN if A is
// not finite. At [n, padded(length)]: the columns of A one after the other, zeros behind; overwritten. Returns shift.
FS_FN int jacobi_singular_values(double* At, int length, int n, double* sigma, double* scratch) {
  using namespace jacobi;
  const size_t ld = tile::padded(length), ldc = tile::padded(n);
  const int most = length < n ? length : n;
  double *C = scratch, *square = C + most * ldc;
  int *e = (int*)(square + n), *f = e + n, *at = f + most;
  const int rank = pivoted_qr(At, n, length, ld, e, square);
  if (rank < 0) {
    for (int i = 0; i < most; ++i) sigma[i] = 0.0 / 0.0;
    return 0;
  }
  rows_of_R(At, n, rank, ld, e, C, ldc, f);
  orthogonalise(C, rank, ldc, f, square, at);
  int shift = -kExponent;
  for (int i = 0; i < rank; ++i) shift = square[i] > 0 && f[i] > shift ? f[i] : shift;
  for (int i = 0; i < most; ++i) sigma[i] = i < rank ? __builtin_scalbn(__builtin_sqrt(square[i]), f[i] - shift) : 0.0;
  for (int i = 1; i < most; ++i) {  // nearly sorted
    const double own = sigma[i];
    int k = i;
    for (; k > 0 && sigma[k - 1] < own; --k) sigma[k] = sigma[k - 1];
    sigma[k] = own;
  }
  return rank > 0 ? shift : 0;
}

}  // namespace fs
