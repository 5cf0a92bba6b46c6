// Owns the vector type: W numbers side by side, and the dozen verbs a machine must provide.
//
// Everything else is written over these verbs. Contraction is off in every build (-ffp-contract=off, --fmad=false), so
// a fused multiply-add happens exactly where `fma` is written, and one text has the same bits on every machine.
#pragma once
#include "macros.h"

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
FS_HD Vec<T, W> loaded(Vec<T, W> x) {
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
#if defined(__CUDA_ARCH__)
// By halves: nvcc knows the above as fmax, which of double takes twice the instructions.
FS_HD Vec<double, 1> relu(Vec<double, 1> x) {
  const bool on = x.a > 0;
  return {__hiloint2double(on ? __double2hiint(x.a) : 0, on ? __double2loint(x.a) : 0)};
}
#endif

// y where h > 0, else 0.
template <class T, int W>
FS_HD Vec<T, W> gate(Vec<T, W> h, Vec<T, W> y) {
  return {h.a > 0 ? y.a : typename Vec<T, W>::N{}};
}
template <class T>
FS_HD Vec<T, 1> gate(Vec<T, 1> h, Vec<T, 1> y) {
  return {h.a > 0 ? y.a : T(0)};
}

// Bit k is set where x_k > 0.
template <class T, int W>
FS_HD u32 above(Vec<T, W> x) {
  u32 bits = 0;
  for (int k = 0; k < W; ++k) bits |= u32(x.a[k] > 0) << k;
  return bits;
}
template <class T>
FS_HD u32 above(Vec<T, 1> x) {
  return x.a > 0;
}

// Bit k is set where |x_k| > bound or x_k is NaN; the bound is one, or one of each lane.
template <class T, int W>
FS_HD u32 beyond(Vec<T, W> x, Vec<T, W> bound) {
  u32 bits = 0;
  for (int k = 0; k < W; ++k) bits |= u32(!(x.a[k] <= bound.a[k] && x.a[k] >= -bound.a[k])) << k;
  return bits;
}
template <class T, int W>
FS_HD u32 beyond(Vec<T, W> x, T bound) {
  return beyond(x, Vec<T, W>::set(bound));
}
template <class T>
FS_HD u32 beyond(Vec<T, 1> x, T bound) {
  if constexpr (sizeof(T) == 4) return !(__builtin_fabsf(x.a) <= bound);
  else return !(__builtin_fabs(x.a) <= bound);
}
template <class T>
FS_HD u32 beyond(Vec<T, 1> x, Vec<T, 1> bound) {
  return beyond(x, bound.a);
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

// a_k in the lanes k without bit S, b_k in those with it.
template <int S, class T, int W>
FS_HD Vec<T, W> blend(Vec<T, W> a, Vec<T, W> b) {
  typedef typename native_of<typename word_of<T>::type, W>::type I;
  I index;
  for (int k = 0; k < W; ++k) index[k] = k & S ? W + k : k;
  return {__builtin_shuffle(a.a, b.a, index)};
}
#if defined(__AVX2__)  // where halves change places GCC takes an instruction that is slow on some machines
template <int S>
FS_HD Vec<float, 8> blend(Vec<float, 8> a, Vec<float, 8> b) {
  return {__builtin_ia32_blendps256(a.a, b.a, S == 4 ? 0xF0 : S == 2 ? 0xCC : 0xAA)};
}
template <int S>
FS_HD Vec<double, 4> blend(Vec<double, 4> a, Vec<double, 4> b) {
  return {__builtin_ia32_blendpd256(a.a, b.a, S == 2 ? 0xC : 0xA)};
}
#endif

// a_k + a_(k^S) in the lanes k without bit S, b_k + b_(k^S) in those with it, in an order that takes few instructions:
// of floats next to each other, bits 1 and 2 of a lane's number change places.
template <int S, class T, int W>
FS_HD Vec<T, W> join(Vec<T, W> a, Vec<T, W> b) {
  typedef typename native_of<typename word_of<T>::type, W>::type I;
  I one, other;
  for (int k = 0; k < W; ++k) {
    const int pair = k / 4 * 4 + k % 2 * 2, from = k & 2 ? W + pair : pair;
    if (S == 1 && sizeof(T) == 4) one[k] = from, other[k] = from + 1;
    else if (S == 1) one[k] = k & 1 ? W + k - 1 : k, other[k] = one[k] + 1;
    else one[k] = k & S ? W + k : k, other[k] = (k & S ? W : 0) + (k ^ S);
  }
  if constexpr (S > 1) return {blend<S>(a, b).a + __builtin_shuffle(a.a, b.a, other)};
  else return {__builtin_shuffle(a.a, b.a, one) + __builtin_shuffle(a.a, b.a, other)};
}
// Lane n is the sum over the lanes of part(n), by the tree of Team::sum: W sums in little more than W additions.
template <class V, int S = 1, class F>
FS_HD V joined(F part, int n = 0) {
  constexpr int W = sizeof(V) / sizeof(V::set(0)[0]), bit = sizeof(V) / W == 4 && S < 4 ? 3 - S : S;
  if constexpr (S == W) return part(n);
  else {
    const V a = joined<V, 2 * S>(part, n), b = joined<V, 2 * S>(part, n + bit);
    return join<S>(a, b);
  }
}
#endif

// GCC does not always fold the element loops above into single instructions; these say it outright, by the names that
// GCC itself gives them: reading immintrin.h would take longer than reading all of our headers.
#if defined(__AVX2__) && defined(__FMA__)
typedef float F8 __attribute__((vector_size(32)));
typedef double D4 __attribute__((vector_size(32)));
constexpr int GREATER = 0x1e, NOT_BELOW = 0x16;  // comparisons: false for a NaN; true for a NaN

FS_HD Vec<float, 8> fma(Vec<float, 8> x, Vec<float, 8> y, Vec<float, 8> z) {
  return {__builtin_ia32_vfmaddps256(x.a, y.a, z.a)};
}
FS_HD Vec<double, 4> fma(Vec<double, 4> x, Vec<double, 4> y, Vec<double, 4> z) {
  return {__builtin_ia32_vfmaddpd256(x.a, y.a, z.a)};
}
FS_HD Vec<float, 8> relu(Vec<float, 8> x) {
  return {__builtin_ia32_maxps256(x.a, F8{})};  // a NaN gives the second operand
}
FS_HD Vec<double, 4> relu(Vec<double, 4> x) { return {__builtin_ia32_maxpd256(x.a, D4{})}; }
FS_HD Vec<float, 8> gate(Vec<float, 8> h, Vec<float, 8> y) {
  return {__builtin_ia32_andps256(y.a, __builtin_ia32_cmpps256(h.a, F8{}, GREATER))};
}
FS_HD Vec<double, 4> gate(Vec<double, 4> h, Vec<double, 4> y) {
  return {__builtin_ia32_andpd256(y.a, __builtin_ia32_cmppd256(h.a, D4{}, GREATER))};
}
FS_HD u32 above(Vec<double, 4> x) { return __builtin_ia32_movmskpd256(__builtin_ia32_cmppd256(x.a, D4{}, GREATER)); }
FS_HD u32 beyond(Vec<float, 8> x, Vec<float, 8> b) {
  F8 size = __builtin_ia32_andnps256(F8{-0.f, -0.f, -0.f, -0.f, -0.f, -0.f, -0.f, -0.f}, x.a);
  return __builtin_ia32_movmskps256(__builtin_ia32_cmpps256(size, b.a, NOT_BELOW));
}
FS_HD u32 beyond(Vec<double, 4> x, Vec<double, 4> b) {
  D4 size = __builtin_ia32_andnpd256(D4{-0.0, -0.0, -0.0, -0.0}, x.a);
  return __builtin_ia32_movmskpd256(__builtin_ia32_cmppd256(size, b.a, NOT_BELOW));
}
FS_HD u32 beyond(Vec<float, 8> x, float b) { return beyond(x, Vec<float, 8>::set(b)); }
FS_HD u32 beyond(Vec<double, 4> x, double b) { return beyond(x, Vec<double, 4>::set(b)); }
#endif

#if defined(__AVX512F__)
typedef float F16 __attribute__((vector_size(64)));
typedef double D8 __attribute__((vector_size(64)));
typedef int I16 __attribute__((vector_size(64)));
typedef long long L8 __attribute__((vector_size(64)));
constexpr unsigned short ALL16 = 0xffff;
constexpr unsigned char ALL8 = 0xff;
constexpr int ROUND = 4;  // as everything else is

FS_HD Vec<float, 16> fma(Vec<float, 16> x, Vec<float, 16> y, Vec<float, 16> z) {
  return {__builtin_ia32_vfmaddps512_mask(x.a, y.a, z.a, ALL16, ROUND)};
}
FS_HD Vec<double, 8> fma(Vec<double, 8> x, Vec<double, 8> y, Vec<double, 8> z) {
  return {__builtin_ia32_vfmaddpd512_mask(x.a, y.a, z.a, ALL8, ROUND)};
}
FS_HD Vec<float, 16> relu(Vec<float, 16> x) { return {__builtin_ia32_maxps512_mask(x.a, F16{}, F16{}, ALL16, ROUND)}; }
FS_HD Vec<double, 8> relu(Vec<double, 8> x) { return {__builtin_ia32_maxpd512_mask(x.a, D8{}, D8{}, ALL8, ROUND)}; }
FS_HD Vec<float, 16> gate(Vec<float, 16> h, Vec<float, 16> y) {
  unsigned short on = __builtin_ia32_cmpps512_mask(h.a, F16{}, GREATER, ALL16, ROUND);
  return {__builtin_ia32_movaps512_mask(y.a, F16{}, on)};
}
FS_HD Vec<double, 8> gate(Vec<double, 8> h, Vec<double, 8> y) {
  unsigned char on = __builtin_ia32_cmppd512_mask(h.a, D8{}, GREATER, ALL8, ROUND);
  return {__builtin_ia32_movapd512_mask(y.a, D8{}, on)};
}
FS_HD u32 above(Vec<double, 8> x) {
  return (unsigned char)__builtin_ia32_cmppd512_mask(x.a, D8{}, GREATER, ALL8, ROUND);
}
FS_HD u32 beyond(Vec<float, 16> x, Vec<float, 16> b) {
  F16 size = (F16)((I16)x.a & 0x7fffffff);
  return (unsigned short)__builtin_ia32_cmpps512_mask(size, b.a, NOT_BELOW, ALL16, ROUND);
}
FS_HD u32 beyond(Vec<double, 8> x, Vec<double, 8> b) {
  D8 size = (D8)((L8)x.a & 0x7fffffffffffffffLL);
  return (unsigned char)__builtin_ia32_cmppd512_mask(size, b.a, NOT_BELOW, ALL8, ROUND);
}
FS_HD u32 beyond(Vec<float, 16> x, float b) { return beyond(x, Vec<float, 16>::set(b)); }
FS_HD u32 beyond(Vec<double, 8> x, double b) { return beyond(x, Vec<double, 8>::set(b)); }
#endif

}  // namespace fs
