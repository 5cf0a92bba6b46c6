// Owns singular values with high relative accuracy: Householder QR with column pivoting, then one-sided Jacobi on R^T.
//
// Every column, every row of R and every sigma carries its own power of two, so columns may differ by the whole range
// of float64 and nothing underflows or overflows on the way: A = B diag(2^e), and each sigma is accurate to a modest
// multiple of eps cond(B), however graded the scales are (Demmel and Veselic 1992; the QR first: Drmac and Veselic
// 2008; largest column first: de Rijk 1989). LAPACK's other methods are accurate relative to sigma_1 alone. A sum over
// a row has 16 partial sums, entry j in partial j % 16 from where it begins, halved at the end: the bits are those of
// any vector width. Parallel: nothing here, one call is one matrix on one thread (`OneThread`);
// csrc/cuda/metrics/jacobi.h has a block of warps on one matrix, a warp a row.
#pragma once

#include "tile.h"

namespace fs {
namespace jacobi {

constexpr int PARTIALS = 16;
constexpr int HEAD = 8;      // a reflection begins at a whole multiple of it
constexpr int kSweeps = 60;  // ten suffice; the end of a sweep without a rotation is the end
constexpr int kExponent = 1 << 20;
static_assert(tile::PAD % HEAD == 0 && HEAD % tile::W == 0, "rows in whole vectors");

// The larger of two, NaN if the first is.
FS_HD double larger(double most, double x) { return x <= most || most != most ? most : x; }

// Who works on a matrix: one thread, a vector of a row's entries at a time. Every worker has these verbs.
// rows(first, end, f): f(j) for rows j, shared out among all who work, then a barrier;  barrier(): of all who work
// sweep(from, to, f): f(j, k) for the vectors of a row and k < COUNT partial sums;  entries(from, to, f): f(j) one by
// one;  one(f): f() by one of those who share a row, seen by all of them;  total, greatest, first_best: over the same
struct OneThread {
  using V = tile::V;
  static constexpr int W = tile::W, COUNT = PARTIALS / W;

  template <class F>
  FS_HD void rows(int first, int end, F f) const {
    for (int j = first; j < end; ++j) f(j);
  }
  template <class F>
  FS_HD void sweep(int from, int to, F f) const {
    int j = from;
    for (; j + PARTIALS <= to; j += PARTIALS) {
      FS_UNROLL
      for (int k = 0; k < COUNT; ++k) f(j + k * W, k);
    }
    if (j >= to) return;
    FS_UNROLL
    for (int k = 0; k < COUNT; ++k)
      if (j + k * W < to) f(j + k * W, k);
  }
  template <class F>
  FS_HD void entries(int from, int to, F f) const {
    for (int j = from; j < to; ++j) f(j);
  }
  template <class F>
  FS_HD void one(F f) const {
    f();
  }
  FS_HD void barrier() const {}
  template <int HALF>
  FS_HD static void halve(V (&part)[COUNT]) {
    if constexpr (HALF > 0) {
      FS_UNROLL
      for (int k = 0; k < HALF; ++k) part[k] = part[k] + part[k + HALF];
      halve<HALF / 2>(part);
    }
  }
  FS_HD double total(V (&part)[COUNT]) const {
    halve<COUNT / 2>(part);
    double x[W];
    __builtin_memcpy(x, &part[0].a, sizeof(V));
    for (int half = W / 2; half > 0; half /= 2)
      for (int k = 0; k < half; ++k) x[k] += x[k + half];
    return x[0];
  }
  FS_HD double greatest(double most) const { return most; }
  // The first of j = first, .. below end at which key(j) is largest.
  template <class Key>
  FS_HD int first_best(int first, int end, Key key) const {
    int at = first;
    double best = key(first);
    for (int j = first + 1; j < end; ++j) {
      const double own = key(j);
      if (own > best) best = own, at = j;
    }
    return at;
  }
  // Entries i .. of a vector of a row's head that stand behind k; zeros for the others.
  FS_HD V behind(V x, int i, int k) const {
    static constexpr double KEEP[2 * HEAD] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    return x * V::loadu(KEEP + HEAD + i - k - 1);
  }
};

FS_HD void put(double* to, tile::V x) { __builtin_memcpy(to, &x.a, sizeof(tile::V)); }

template <class Work>
struct Sum {
  typename Work::V part[Work::COUNT];
  FS_HD Sum() {
    FS_UNROLL
    for (int k = 0; k < Work::COUNT; ++k) part[k] = Work::V::set(0.0);
  }
  FS_HD void add(int k, typename Work::V x, typename Work::V y) { part[k] = fma(x, y, part[k]); }
};

template <class Work>
FS_FN double dot(const Work& work, const double* a, const double* b, int from, int ld) {
  Sum<Work> s;
  work.sweep(from, ld, [&](int j, int k) { s.add(k, Work::V::loadu(a + j), Work::V::loadu(b + j)); });
  return work.total(s.part);
}

// Largest |entry| of x [n]; NaN if there is one.
template <class Work>
FS_FN double largest(const Work& work, const double* x, int n) {
  double most = 0;
  work.entries(0, n, [&](int j) { most = larger(most, __builtin_fabs(x[j])); });
  return work.greatest(most);
}

// x [n] *= 2^k exactly, or to a denormal; in two factors, since 2^k itself may not exist.
template <class Work>
FS_FN void scale(const Work& work, double* x, int n, int k) {
  k = k > 2100 ? 2100 : k < -2100 ? -2100 : k;
  for (; k != 0;) {
    const int part = k > 1000 ? 1000 : k < -1000 ? -1000 : k;
    const double factor = __builtin_ldexp(1.0, part);
    work.entries(0, n, [&](int j) { x[j] *= factor; });
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

// Scales the columns of A^T [n, ld], times `sizes` [n] if given, to order one: exponents e [n], squares [n]. Whether
// all entries are finite.
template <class Work>
FS_FN bool columns_to_one(const Work& work, double* At, int n, int length, size_t ld, const double* sizes, int* e,
                          double* square) {
  work.rows(0, n, [&](int j) {
    double* a = At + j * ld;
    int given = 0, own = 0;
    if (sizes) {
      const bool known = sizes[j] < 1.0 / 0.0;  // the exponent of infinity is anything
      const double fraction = known ? __builtin_frexp(sizes[j], &given) : __builtin_nan("");
      work.entries(0, length, [&](int i) { a[i] *= fraction; });
    }
    const double most = largest(work, a, length);
    const bool finite = most < 1.0 / 0.0;
    if (finite && most > 0) (void)__builtin_frexp(most, &own);
    scale(work, a, length, -own);
    const double sum = finite ? dot(work, a, a, 0, (int)ld) : most;
    work.one([&] { e[j] = own + given, square[j] = sum; });
  });
  return largest(work, square, n) < 1.0 / 0.0;
}

// Brings column p of A^T to place k and makes of it what is reflected: u [ld] from `from` on, zeros before k.
template <class Work>
FS_FN void bring(const Work& work, double* At, int k, int p, size_t ld, int from, int* e, double* square, double* u) {
  work.rows(0, 1, [&](int) {
    double *a = At + p * ld, *v = At + k * ld;
    work.entries(0, (int)ld, [&](int j) {
      const double x = a[j];
      a[j] = v[j], v[j] = x;
      if (j >= from) u[j] = j < k ? 0.0 : x;
    });
    work.one([&] {
      const int other = e[p];
      e[p] = e[k], e[k] = other, square[p] = square[k];
    });
  });
}

// A^T [n, ld] (row j: column j of A, `length` entries, zeros behind), times `sizes` [n] if given -> R^T in place, row i
// of R in column i; e [n]: exponents of the columns; u [ld] for the reflections. Returns the number of rows of R that
// are not zero, -1 for entries that are not finite.
template <class Work>
FS_FN int pivoted_qr(const Work& work, double* At, int n, int length, size_t ld, const double* sizes, int* e,
                     double* square, double* u) {
  using V = typename Work::V;
  if (!columns_to_one(work, At, n, length, ld, sizes, e, square)) return -1;
  const int most = n < length ? n : length;
  for (int k = 0; k < most; ++k) {
    const int p = work.first_best(k, n, [&](int j) { return key(square[j], e[j]); });
    if (!(square[p] > 0)) return k;
    FS_WORKED(i64(n - k) * ld);
    const int from = k / HEAD * HEAD;  // whole vectors: what stands before k in them is kept out of the reflection
    work.barrier();
    bring(work, At, k, p, ld, from, e, square, u);
    const double norm = __builtin_sqrt(dot(work, u, u, from, (int)ld)), x = u[k];
    const double alpha = x > 0 ? -norm : norm, head = x - alpha;
    const double tau = -1.0 / (alpha * head);  // 2 / |u|^2
    work.barrier();
    work.rows(0, 1, [&](int) {
      double* v = At + k * ld;
      work.entries(k, (int)ld, [&](int j) {
        v[j] = j == k ? alpha : 0.0;
        if (j == k) u[j] = head;
      });
    });
    work.rows(k + 1, n, [&](int j) {
      double* a = At + j * ld;
      const V c = V::set(-tau * dot(work, u, a, from, (int)ld));
      const auto moved = [&](int i) {
        const V x = fma(c, V::loadu(u + i), V::loadu(a + i));
        put(a + i, x);
        return x;
      };
      Sum<Work> s;
      work.sweep(from, from + HEAD, [&](int i, int part) {
        const V x = work.behind(moved(i), i, k);
        s.add(part, x, x);
      });
      work.sweep(from + HEAD, (int)ld, [&](int i, int part) {
        const V x = moved(i);
        s.add(part, x, x);
      });
      const double sum = work.total(s.part);
      work.one([&] { square[j] = sum; });
    });
  }
  return most;
}

// Rows i < rank of R as the columns that Jacobi's method turns, each scaled to order one: C [rank, ldc], exponents f.
template <class Work>
FS_FN void rows_of_R(const Work& work, const double* At, int n, int rank, size_t ld, const int* e, double* C,
                     size_t ldc, int* f) {
  work.rows(0, rank, [&](int i) {
    int own;
    (void)__builtin_frexp(At[i * ld + i], &own);
    own += e[i];
    work.entries(0, (int)ldc,
                 [&](int j) { C[i * ldc + j] = j < i || j >= n ? 0.0 : __builtin_scalbn(At[j * ld + i], e[j] - own); });
    work.one([&] { f[i] = own; });
  });
}

// Makes rows a (the larger) and b of true sizes |a| 2^fa >= |b| 2^fb orthogonal; g = a . b; aa, bb: their squares.
template <class Work>
FS_FN void rotate(const Work& work, double* __restrict a, double* __restrict b, size_t ld, double g, double& aa,
                  double& bb, int fa, int fb) {
  using V = typename Work::V;
  // ratio = |b| 2^fb / (|a| 2^fa) may underflow: nothing below divides by it. tan = u ratio.
  const double sizes = __builtin_sqrt(bb / aa), r = __builtin_scalbn(1.0, fb - fa), ratio = sizes * r;
  const double cosine = g / (__builtin_sqrt(aa) * __builtin_sqrt(bb));
  const double apart = 1 - ratio * ratio;
  const double u = 2 * cosine / (apart + __builtin_sqrt(apart * apart + 4 * cosine * cosine * ratio * ratio));
  const double tangent = u * ratio, cs = 1 / __builtin_sqrt(1 + tangent * tangent);
  const V c = V::set(cs), up = V::set(u * sizes * r * r), down = V::set(-u * sizes);
  Sum<Work> sa, sb;
  work.sweep(0, (int)ld, [&](int j, int part) {
    const V x = V::loadu(a + j), y = V::loadu(b + j);
    const V p = c * fma(up, y, x), q = c * fma(down, x, y);
    put(a + j, p), put(b + j, q);
    sa.add(part, p, p), sb.add(part, q, q);
  });
  aa = work.total(sa.part), bb = work.total(sb.part);
}

// Turns rows a and b of C until they are orthogonal; whether that was not so before.
template <class Work>
FS_FN bool turn(const Work& work, double* C, int a, int b, size_t ld, int* f, double* square, double tolerance) {
  double *x = C + a * ld, *y = C + b * ld, xx = square[a], yy = square[b];
  int fa = f[a], fb = f[b];
  if (!(yy > 0)) return false;
  const double g = dot(work, x, y, 0, (int)ld);
  if (!(__builtin_fabs(g) > tolerance * (__builtin_sqrt(xx) * __builtin_sqrt(yy)))) return false;
  if (key(xx, fa) >= key(yy, fb)) rotate(work, x, y, ld, g, xx, yy, fa, fb);
  else rotate(work, y, x, ld, g, yy, xx, fb, fa);
  if (yy > 0 && yy < 0x1p-100) {  // what was nearly parallel is small now
    int k;
    (void)__builtin_frexp(largest(work, y, (int)ld), &k);
    scale(work, y, (int)ld, -k);
    fb += k;
    yy = dot(work, y, y, 0, (int)ld);
  }
  work.one([&] { square[a] = xx, square[b] = yy, f[b] = fb; });
  return true;
}

// One-sided Jacobi on the rows of C [count, ld]: at the end they are orthogonal. at [count]: which row stands where.
template <class Work>
FS_FN void orthogonalise(const Work& work, double* C, int count, size_t ld, int* f, double* square, int* at) {
  const double tolerance = 0x1p-52 * __builtin_sqrt((double)ld);
  for (int i = 0; i < count; ++i) {
    const double own = dot(work, C + i * ld, C + i * ld, 0, (int)ld);
    work.one([&] { at[i] = i, square[i] = own; });
  }
  bool turned = true;
  for (int sweep = 0; sweep < kSweeps && turned; ++sweep) {
    turned = false;
    for (int p = 0; p < count; ++p) {
      const int first = work.first_best(p, count, [&](int q) { return key(square[at[q]], f[at[q]]); });
      const int a = at[first], other = at[p];
      work.one([&] { at[first] = other, at[p] = a; });
      for (int q = p + 1; q < count; ++q) turned |= turn(work, C, a, at[q], ld, f, square, tolerance);
      FS_WORKED(i64(count - p) * ld);
    }
  }
}

// Whether a 2^ea > b 2^eb, for numbers >= 0.
FS_FN bool exceeds(double a, int ea, double b, int eb) { return b > 0 ? __builtin_scalbn(a, ea - eb) > b : a > 0; }

// sigma [most] over powers of two, largest first, from squares and exponents of rows [rank], zeros behind them; the
// powers' exponents [most] stand after them.
template <class Work>
FS_FN void sorted(const Work& work, const double* square, const int* f, int rank, int most, double* sigma) {
  double* exponent = sigma + most;
  work.entries(0, most, [&](int i) {
    const bool there = i < rank && square[i] > 0;
    sigma[i] = there ? __builtin_sqrt(square[i]) : 0.0, exponent[i] = there ? f[i] : 0;
  });
  work.one([&] {
    for (int i = 1; i < most; ++i) {  // nearly sorted
      const double own = sigma[i], power = exponent[i];
      int k = i;
      for (; k > 0 && exceeds(own, int(power), sigma[k - 1], int(exponent[k - 1])); --k)
        sigma[k] = sigma[k - 1], exponent[k] = exponent[k - 1];
      sigma[k] = own, exponent[k] = power;
    }
  });
}

}  // namespace jacobi

// Doubles of scratch for a matrix of `length` rows and n columns; its columns take n * padded(length) more.
FS_FN constexpr size_t jacobi_scratch_size(int length, int n) {
  const size_t most = length < n ? length : n;
  return most * tile::padded(n) + tile::padded(length) + 2 * (size_t)n + 2 * most;
}

// Singular values of A diag(sizes), or of A, largest first: sigma[k] 2^sigma[most + k], k < most = min(length, n), of
// order one over their own powers of two; NaN if it is not finite. At [n, padded(length)]: the columns of A one after
// the other, zeros behind; overwritten. sizes [n] >= 0, null for A itself: may be the first of the scratch.
template <class Work>
FS_FN void jacobi_singular_values(const Work& work, double* At, const double* sizes, int length, int n, double* sigma,
                                  double* scratch) {
  using namespace jacobi;
  const size_t ld = tile::padded(length), ldc = tile::padded(n);
  const int most = length < n ? length : n;
  double *C = scratch, *u = C + most * ldc, *square = u + ld;
  int *e = (int*)(square + n), *f = e + n, *at = f + most;
  const int rank = pivoted_qr(work, At, n, length, ld, sizes, e, square, u);
  if (rank >= 0) rows_of_R(work, At, n, rank, ld, e, C, ldc, f);
  work.rows(0, 1, [&](int) {
    if (rank < 0) {
      work.entries(0, most, [&](int i) { sigma[i] = __builtin_nan(""), sigma[most + i] = 0; });
      return;
    }
    orthogonalise(work, C, rank, ldc, f, square, at);
    sorted(work, square, f, rank, most, sigma);
  });
}

}  // namespace fs
