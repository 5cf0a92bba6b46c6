// Owns the vector type: W numbers side by side, and the dozen verbs a machine must provide.
//
// Everything else is written over these verbs. Contraction is off in every build (-ffp-contract=off, --fmad=false), so
// a fused multiply-add happens exactly where `fma` is written, and one text has the same bits on every machine.
#pragma once
#include "macros.h"
#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#endif

namespace fs {

#if defined(__CUDACC_RTC__)
template <class T, int W>
struct native_of;  // a GPU has one lane a thread
#else
template <class T, int W>
struct native_of {  // GCC 12 reads a dependent vector_size typedef as a plain number unless it goes through a struct
  typedef T type __attribute__((vector_size(sizeof(T) * W), may_alias));
};
#endif
template <class T>
struct native_of<T, 1> {
  typedef T type;
};
template <class T>
struct word_of;  // the unsigned integer as wide as T
template <>
struct word_of<float> {
  using type = u32;
};
template <>
struct word_of<double> {
  using type = u64;
};

template <class T, int W>
struct Vec {
  using N = typename native_of<T, W>::type;
  N a;

  FS_HD static Vec set(T x) { return {x - N{}}; }  // a broadcast; N{} + x would add, for -0
  FS_HD static Vec load(const T* p) { return {*reinterpret_cast<const N*>(p)}; }  // aligned
  FS_HD static Vec loadu(const T* p) {
    N r;
    __builtin_memcpy(&r, p, sizeof r);
    return {r};
  }
  FS_HD void store(T* p) const { *reinterpret_cast<N*>(p) = a; }
  FS_HD T operator[](int k) const { return a[k]; }
  FS_HD friend Vec operator+(Vec x, Vec y) { return {x.a + y.a}; }
  FS_HD friend Vec operator-(Vec x, Vec y) { return {x.a - y.a}; }
  FS_HD friend Vec operator*(Vec x, Vec y) { return {x.a * y.a}; }
};

// One lane: a plain number.
template <class T>
struct Vec<T, 1> {
  using N = T;
  T a;

  FS_HD static Vec set(T x) { return {x}; }
  FS_HD static Vec load(const T* p) { return {*p}; }
  FS_HD static Vec loadu(const T* p) { return {*p}; }
  FS_HD void store(T* p) const { *p = a; }
  FS_HD T operator[](int) const { return a; }
  FS_HD friend Vec operator+(Vec x, Vec y) { return {x.a + y.a}; }
  FS_HD friend Vec operator-(Vec x, Vec y) { return {x.a - y.a}; }
  FS_HD friend Vec operator*(Vec x, Vec y) { return {x.a * y.a}; }
};

// x, read from memory once: GCC would fold the load into every instruction that uses x, and loads are what runs out.
template <class T, int W>
FS_HD Vec<T, W> once(Vec<T, W> x) {
#if !defined(__CUDACC__)
  if constexpr (W > 1) asm("" : "+v"(x.a));
#endif
  return x;
}

#if defined(__CUDACC__)
FS_HD float fma1(float x, float y, float z) { return ::fmaf(x, y, z); }
FS_HD double fma1(double x, double y, double z) { return ::fma(x, y, z); }
#else
FS_HD float fma1(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
FS_HD double fma1(double x, double y, double z) { return __builtin_fma(x, y, z); }
#endif

// x * y + z, rounded once.
template <class T, int W>
FS_HD Vec<T, W> fma(Vec<T, W> x, Vec<T, W> y, Vec<T, W> z) {
  Vec<T, W> r;
  for (int k = 0; k < W; ++k) r.a[k] = fma1(x.a[k], y.a[k], z.a[k]);
  return r;
}
template <class T>
FS_HD Vec<T, 1> fma(Vec<T, 1> x, Vec<T, 1> y, Vec<T, 1> z) {
  return {fma1(x.a, y.a, z.a)};
}

// max(x, 0); a NaN becomes 0, as in x > 0 ? x : 0.
template <class T, int W>
FS_HD Vec<T, W> relu(Vec<T, W> x) {
  return {x.a > 0 ? x.a : typename Vec<T, W>::N{}};
}
template <class T>
FS_HD Vec<T, 1> relu(Vec<T, 1> x) {
  return {x.a > 0 ? x.a : T(0)};
}

// y where h > 0, else 0.
template <class T, int W>
FS_HD Vec<T, W> gate(Vec<T, W> h, Vec<T, W> y) {
  return {h.a > 0 ? y.a : typename Vec<T, W>::N{}};
}
template <class T>
FS_HD Vec<T, 1> gate(Vec<T, 1> h, Vec<T, 1> y) {
  return {h.a > 0 ? y.a : T(0)};
}

// Bit k is set where |x_k| > bound or x_k is NaN.
template <class T, int W>
FS_HD u32 beyond(Vec<T, W> x, T bound) {
  u32 bits = 0;
  for (int k = 0; k < W; ++k) bits |= u32(!(x.a[k] <= bound && x.a[k] >= -bound)) << k;
  return bits;
}
template <class T>
FS_HD u32 beyond(Vec<T, 1> x, T bound) {
  if constexpr (sizeof(T) == 4) return !(__builtin_fabsf(x.a) <= bound);
  else return !(__builtin_fabs(x.a) <= bound);
}

// Lane k receives lane k ^ Stride.
template <int Stride, class T, int W>
FS_HD Vec<T, W> swap(Vec<T, W> x) {
  typedef typename native_of<typename word_of<T>::type, W>::type I;
  I index;
  for (int k = 0; k < W; ++k) index[k] = k ^ Stride;
  return {__builtin_shuffle(x.a, index)};
}

#if !defined(__CUDACC__)
// W vectors as a matrix, transposed in place: blocks of Stride lanes change places between rows Stride apart.
template <int Stride, class T, int W>
FS_HD void transpose(Vec<T, W> (&r)[W]) {
  if constexpr (Stride > 0) {
    typedef typename native_of<typename word_of<T>::type, W>::type I;
    I low, high;
    for (int k = 0; k < W; ++k) low[k] = k & Stride ? W + (k ^ Stride) : k, high[k] = k & Stride ? W + k : k ^ Stride;
    FS_UNROLL
    for (int i = 0; i < W; ++i) {
      if (i & Stride) continue;
      auto a = r[i].a, b = r[i | Stride].a;
      r[i].a = __builtin_shuffle(a, b, low), r[i | Stride].a = __builtin_shuffle(a, b, high);
    }
    transpose<Stride / 2>(r);
  }
}
#endif

#if defined(__AVX2__) && defined(__FMA__)
// GCC does not always fold the element loops above into single instructions; these say it outright.
FS_HD Vec<float, 8> fma(Vec<float, 8> x, Vec<float, 8> y, Vec<float, 8> z) {
  return {(Vec<float, 8>::N)_mm256_fmadd_ps((__m256)x.a, (__m256)y.a, (__m256)z.a)};
}
FS_HD Vec<double, 4> fma(Vec<double, 4> x, Vec<double, 4> y, Vec<double, 4> z) {
  return {(Vec<double, 4>::N)_mm256_fmadd_pd((__m256d)x.a, (__m256d)y.a, (__m256d)z.a)};
}
FS_HD Vec<float, 8> relu(Vec<float, 8> x) {
  return {(Vec<float, 8>::N)_mm256_max_ps((__m256)x.a, _mm256_setzero_ps())};  // a NaN gives the second operand
}
FS_HD Vec<double, 4> relu(Vec<double, 4> x) {
  return {(Vec<double, 4>::N)_mm256_max_pd((__m256d)x.a, _mm256_setzero_pd())};
}
FS_HD Vec<float, 8> gate(Vec<float, 8> h, Vec<float, 8> y) {
  return {(Vec<float, 8>::N)_mm256_and_ps((__m256)y.a, _mm256_cmp_ps((__m256)h.a, _mm256_setzero_ps(), _CMP_GT_OQ))};
}
FS_HD Vec<double, 4> gate(Vec<double, 4> h, Vec<double, 4> y) {
  return {(Vec<double, 4>::N)_mm256_and_pd((__m256d)y.a, _mm256_cmp_pd((__m256d)h.a, _mm256_setzero_pd(), _CMP_GT_OQ))};
}
FS_HD u32 beyond(Vec<float, 8> x, float bound) {
  __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), (__m256)x.a);
  return _mm256_movemask_ps(_mm256_cmp_ps(size, _mm256_set1_ps(bound), _CMP_NLE_UQ));
}
FS_HD u32 beyond(Vec<double, 4> x, double bound) {
  __m256d size = _mm256_andnot_pd(_mm256_set1_pd(-0.0), (__m256d)x.a);
  return _mm256_movemask_pd(_mm256_cmp_pd(size, _mm256_set1_pd(bound), _CMP_NLE_UQ));
}
#endif

#if defined(__AVX512F__)
FS_HD Vec<float, 16> fma(Vec<float, 16> x, Vec<float, 16> y, Vec<float, 16> z) {
  return {(Vec<float, 16>::N)_mm512_fmadd_ps((__m512)x.a, (__m512)y.a, (__m512)z.a)};
}
FS_HD Vec<double, 8> fma(Vec<double, 8> x, Vec<double, 8> y, Vec<double, 8> z) {
  return {(Vec<double, 8>::N)_mm512_fmadd_pd((__m512d)x.a, (__m512d)y.a, (__m512d)z.a)};
}
FS_HD Vec<float, 16> relu(Vec<float, 16> x) {
  return {(Vec<float, 16>::N)_mm512_maskz_max_ps(0xFFFF, (__m512)x.a, _mm512_setzero_ps())};
}
FS_HD Vec<double, 8> relu(Vec<double, 8> x) {
  return {(Vec<double, 8>::N)_mm512_maskz_max_pd(0xFF, (__m512d)x.a, _mm512_setzero_pd())};
}
FS_HD Vec<float, 16> gate(Vec<float, 16> h, Vec<float, 16> y) {
  __mmask16 on = _mm512_cmp_ps_mask((__m512)h.a, _mm512_setzero_ps(), _CMP_GT_OQ);
  return {(Vec<float, 16>::N)_mm512_maskz_mov_ps(on, (__m512)y.a)};
}
FS_HD Vec<double, 8> gate(Vec<double, 8> h, Vec<double, 8> y) {
  __mmask8 on = _mm512_cmp_pd_mask((__m512d)h.a, _mm512_setzero_pd(), _CMP_GT_OQ);
  return {(Vec<double, 8>::N)_mm512_maskz_mov_pd(on, (__m512d)y.a)};
}
FS_HD u32 beyond(Vec<float, 16> x, float bound) {
  return _mm512_cmp_ps_mask(_mm512_abs_ps((__m512)x.a), _mm512_set1_ps(bound), _CMP_NLE_UQ);
}
FS_HD u32 beyond(Vec<double, 8> x, double bound) {
  return _mm512_cmp_pd_mask(_mm512_abs_pd((__m512d)x.a), _mm512_set1_pd(bound), _CMP_NLE_UQ);
}
#endif

}  // namespace fs
