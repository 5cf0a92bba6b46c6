// Owns exp, log, tanh, erf, sigmoid, softplus and sqrt over vectors, from IEEE +, -, *, /, fma and bits alone.
//
// One text for every type, width and machine: lanes never branch or look at each other, so a result has the same bits
// at any W. Polynomials are minimax fits by Remez exchange in 50 digits, weighted for the relative error of the
// function they end in and rounded to T; each names its interval and the fit's error. The largest errors seen, in ulp
// of the exact value, subnormal numbers included (float: 6e7 arguments against double; double: 3e5 against mpmath):
//
//            exp    log    tanh   erf    sigmoid  softplus
//   float    1.01   0.87   2.53   1.06   2.41     2.77
//   double   1.00   1.97   2.51   1.08   2.11     2.54
//
// Infinities, zeros of either sign, overflow and subnormal results are what the limits say. A NaN gives a NaN; which of
// the many bit patterns of NaN is not promised.
#pragma once
#include "vec.h"

namespace fs {

template <class T, int W>
FS_HD Vec<T, W> operator/(Vec<T, W> x, Vec<T, W> y) {
  return {x.a / y.a};
}
template <class T, int W>
FS_HD Vec<T, W> operator-(Vec<T, W> x) {
  return {-x.a};
}

#if defined(__CUDA_ARCH__)
FS_HD float sqrt1(float x) { return __fsqrt_rn(x); }
FS_HD double sqrt1(double x) { return __dsqrt_rn(x); }
#else
FS_HD float sqrt1(float x) { return __builtin_sqrtf(x); }
FS_HD double sqrt1(double x) { return __builtin_sqrt(x); }
#endif

// Square root, rounded once.
template <class T, int W>
FS_HD Vec<T, W> sqrt(Vec<T, W> x) {
  Vec<T, W> r;
  for (int k = 0; k < W; ++k) r.a[k] = sqrt1(x.a[k]);
  return r;
}
template <class T>
FS_HD Vec<T, 1> sqrt(Vec<T, 1> x) {
  return {sqrt1(x.a)};
}
#if defined(__AVX2__) && defined(__FMA__)
FS_HD Vec<float, 8> sqrt(Vec<float, 8> x) { return {__builtin_ia32_sqrtps256(x.a)}; }
FS_HD Vec<double, 4> sqrt(Vec<double, 4> x) { return {__builtin_ia32_sqrtpd256(x.a)}; }
#endif
#if defined(__AVX512F__)
FS_HD Vec<float, 16> sqrt(Vec<float, 16> x) { return {__builtin_ia32_sqrtps512_mask(x.a, x.a, ALL16, ROUND)}; }
FS_HD Vec<double, 8> sqrt(Vec<double, 8> x) { return {__builtin_ia32_sqrtpd512_mask(x.a, x.a, ALL8, ROUND)}; }
#endif

// How T lies in its word, and the constants of the reductions.
template <class T>
struct Format;
template <>
struct Format<float> {
  using Bits = u32;
  static constexpr int SHIFT = 23, BIAS = 127;
  static constexpr Bits SIGN = 0x80000000u, SQRT_HALF = 0x3F3504F3u;
  static constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: ROUND + k holds the whole number k in its low bits
  static constexpr float LEAST = 1.17549435e-38f, LIFT = 33554432.0f;  // smallest normal number; 2^25 makes it larger
  static constexpr int LIFTED = 25;
  static constexpr float LOG2E = 1.44269502f, LN2_HIGH = 0.693147182f, LN2_LOW = -1.90465421e-09f;
  static constexpr float EXP_MOST = 89.0f, EXP_LEAST = -104.0f;  // beyond: infinity and 0
  static constexpr float TANH_MOST = 10.0f, ERF_MOST = 4.0f;     // beyond: 1
};
template <>
struct Format<double> {
  using Bits = u64;
  static constexpr int SHIFT = 52, BIAS = 1023;
  static constexpr Bits SIGN = 0x8000000000000000u, SQRT_HALF = 0x3FE6A09E667F3BCDu;
  static constexpr double ROUND = 6755399441055744.0;                                   // 1.5 * 2^52
  static constexpr double LEAST = 2.2250738585072014e-308, LIFT = 18014398509481984.0;  // 2^54
  static constexpr int LIFTED = 54;
  static constexpr double LOG2E = 1.4426950408889634, LN2_HIGH = 0.69314718055994529, LN2_LOW = 2.3190468138462996e-17;
  static constexpr double EXP_MOST = 710.0, EXP_LEAST = -746.0;
  static constexpr double TANH_MOST = 20.0, ERF_MOST = 6.0;
};

template <class T, int W>
using Word = typename native_of<typename Format<T>::Bits, W>::type;

template <class T, int W>
FS_HD Word<T, W> bits_of(Vec<T, W> x) {
  Word<T, W> r;
  __builtin_memcpy(&r, &x.a, sizeof r);
  return r;
}
template <class T, int W>
FS_HD Vec<T, W> number_of(Word<T, W> bits) {
  Vec<T, W> r;
  __builtin_memcpy(&r.a, &bits, sizeof bits);
  return r;
}

// x where `yes`, else y, lane by lane; `yes` is a comparison of vectors (a truth value if W = 1).
template <class M, class T, int W>
FS_HD Vec<T, W> choose(M yes, Vec<T, W> x, Vec<T, W> y) {
  return {yes ? x.a : y.a};
}
template <class T, int W>
FS_HD Vec<T, W> at_most(Vec<T, W> x, T bound) {  // a NaN stays
  const auto most = Vec<T, W>::set(bound);
  return choose(x.a > most.a, most, x);
}
template <class T, int W>
FS_HD Vec<T, W> abs(Vec<T, W> x) {
  return number_of<T, W>(bits_of(x) & ~Format<T>::SIGN);
}

// `size` >= 0 with the sign of x.
template <class T, int W>
FS_HD Vec<T, W> signed_like(Vec<T, W> size, Vec<T, W> x) {
  return number_of<T, W>(bits_of(size) | (bits_of(x) & Format<T>::SIGN));
}

// c0 + c1 x + c2 x^2 + ...
template <class T, int W>
FS_HD Vec<T, W> horner(Vec<T, W>, T c0) {
  return Vec<T, W>::set(c0);
}
template <class T, int W, class... C>
FS_HD Vec<T, W> horner(Vec<T, W> x, T c0, C... rest) {
  return fma(horner(x, rest...), x, Vec<T, W>::set(c0));
}

// r and the bits of ROUND + k, where x = k log 2 + r, k whole, |r| <= log(2) / 2. Cody and Waite's reduction, by fma.
template <class T, int W>
FS_HD Vec<T, W> reduce(Vec<T, W> x, Word<T, W>& k) {
  using V = Vec<T, W>;
  using F = Format<T>;
  const V round = V::set(F::ROUND), shifted = fma(x, V::set(F::LOG2E), round), n = shifted - round;
  k = bits_of(shifted);
  return fma(n, V::set(-F::LN2_LOW), fma(n, V::set(-F::LN2_HIGH), x));
}

// 2^k from the bits of ROUND + k, where that is a normal number: what lies above k is shifted out.
template <class T, int W>
FS_HD Vec<T, W> power(Word<T, W> k) {
  return number_of<T, W>((k + Format<T>::BIAS) << Format<T>::SHIFT);
}

// e^r - 1 for |r| <= log(2) / 2: r + r^2 q(r), q fitted there to 2^-28 (float), 2^-58 (double).
template <class T, int W>
FS_HD Vec<T, W> expm1_near(Vec<T, W> r) {
  Vec<T, W> q;
  if constexpr (sizeof(T) == 4) q = horner(r, 0.49999994f, 0.166665211f, 0.041668389f, 0.00836874545f, 0.00138145522f);
  else
    q = horner(r, 0.50000000000000111, 0.1666666666666641, 0.041666666666529732, 0.00833333333349498,
               0.0013888888943759893, 0.0001984126950576604, 2.4801492949664841e-05, 2.7557586811282347e-06,
               2.7630306247961874e-07, 2.500001637788809e-08);
  return fma(r * r, q, r);
}

// e^x = 2^k e^r. The power is applied in two halves, so that a subnormal result is rounded once and no factor
// overflows.
template <class T, int W>
FS_HD Vec<T, W> exp(Vec<T, W> x) {
  using V = Vec<T, W>;
  using F = Format<T>;
  using B = typename F::Bits;
  constexpr B ROUND_BITS = B(F::BIAS + F::SHIFT) << F::SHIFT | B(1) << (F::SHIFT - 1);
  x = at_most(x, F::EXP_MOST);
  x = choose(x.a < V::set(F::EXP_LEAST).a, V::set(F::EXP_LEAST), x);
  Word<T, W> k;
  const V e = V::set(T(1)) + expm1_near(reduce(x, k));
  const Word<T, W> both = k - (ROUND_BITS - 2 * F::BIAS), half = both >> 1;
  return e * number_of<T, W>(half << F::SHIFT) * number_of<T, W>((both - half) << F::SHIFT);
}

// m in [sqrt(1/2), sqrt(2)) and k with x = m 2^k, for finite x > 0.
template <class T, int W>
FS_HD Vec<T, W> split(Vec<T, W> x, Vec<T, W>& k) {
  using V = Vec<T, W>;
  using F = Format<T>;
  using B = typename F::Bits;
  constexpr B ONE = B(1) << F::SHIFT, WHOLE = B(F::BIAS + F::SHIFT) << F::SHIFT;  // the bits of 2^SHIFT
  const auto tiny = x.a < V::set(F::LEAST).a;
  x = choose(tiny, x * V::set(F::LIFT), x);
  const Word<T, W> t = bits_of(x) - F::SQRT_HALF + B(F::BIAS) * ONE;  // the exponent, BIAS added, over the mantissa
  const V whole = number_of<T, W>((t >> F::SHIFT) | WHOLE);           // 2^SHIFT + BIAS + k
  k = whole - choose(tiny, V::set(T(ONE) + T(F::BIAS + F::LIFTED)), V::set(T(ONE) + T(F::BIAS)));
  return number_of<T, W>((t & (ONE - 1)) + F::SQRT_HALF);
}

// log x = k log 2 + log m.
// float:  f = m - 1, log m = f - f^2 / 2 + f^3 p(f), p fitted on [sqrt(1/2) - 1, sqrt(2) - 1] to 2^-27.
// double: log m = 2 atanh(s), s = (m - 1) / (m + 1), Taylor's series to s^25; no fma, so that
//         fastsgd/spec/elementary.py has the same bits, and
//         with it every normal draw.
template <class T, int W>
FS_HD Vec<T, W> log(Vec<T, W> x) {
  using V = Vec<T, W>;
  const V one = V::set(T(1)), zero = V::set(T(0)), infinity = V::set(T(__builtin_inf()));
  V k, y;
  const V m = split(x, k), f = m - one;
  if constexpr (sizeof(T) == 4) {
    const V f2 = f * f;
    const V p = horner(f, 0.333333313f, -0.250008196f, 0.200012282f, -0.166233599f, 0.142017469f, -0.131601512f,
                       0.127616331f, -0.076346375f);
    const V low = fma(f * f2, p, k * V::set(Format<T>::LN2_LOW));
    y = fma(k, V::set(Format<T>::LN2_HIGH), f - fma(V::set(0.5f), f2, -low));
  } else {
    const V s = f / (m + one), s2 = s * s, twice = V::set(2.0) * s;
    V series = zero;
    FS_UNROLL
    for (int j = 25; j > 1; j -= 2) series = (series + V::set(1.0 / j)) * s2;
    y = k * V::set(6.93147180369123816490e-01) + (twice + (twice * series + k * V::set(1.90821492927058770002e-10)));
  }
  const V none = choose(x.a == zero.a, -infinity, infinity - infinity);
  return choose(x.a < infinity.a, choose(x.a > zero.a, y, none), x);
}

// sin and cos of 2 pi u for u in [0, 1]: octants, then Taylor's series on [-pi/4, pi/4]. No fma, the bits of
// fastsgd/spec/elementary.py; error below 2 ulp of 1.
template <int W>
FS_HD void sincos_turns(Vec<double, W> u, Vec<double, W>& sin, Vec<double, W>& cos) {
  using V = Vec<double, W>;
  const V one = V::set(1.0), round = V::set(Format<double>::ROUND), shifted = V::set(4.0) * u + round;
  const V x = (u - (shifted - round) * V::set(0.25)) * V::set(6.283185307179586), x2 = x * x;
  V s = V::set(0.0), c = s;
  FS_UNROLL
  for (int j = 19; j > 1; j -= 2) s = -(x2 * V::set(1.0 / (j * (j - 1)))) * (one + s);
  FS_UNROLL
  for (int j = 20; j > 0; j -= 2) c = -(x2 * V::set(1.0 / (j * (j - 1)))) * (one + c);
  s = x + x * s, c = one + c;
  const Word<double, W> q = bits_of(shifted), sign_s = (q >> 1 & 1) << 63, sign_c = ((q + 1) >> 1 & 1) << 63;
  const auto odd = (q & 1) != 0;
  sin = number_of<double, W>(bits_of(choose(odd, c, s)) ^ sign_s);
  cos = number_of<double, W>(bits_of(choose(odd, s, c)) ^ sign_c);
}

// tanh |x| = m / (m + 2) with m = e^{2|x|} - 1 = 2^k (e^r - 1) + (2^k - 1), so small x loses nothing; then x's sign.
template <class T, int W>
FS_HD Vec<T, W> tanh(Vec<T, W> x) {
  using V = Vec<T, W>;
  const V size = at_most(abs(x), Format<T>::TANH_MOST);
  Word<T, W> k;
  const V e = expm1_near(reduce(size + size, k)), scale = power<T, W>(k);
  const V m = fma(scale, e, scale - V::set(T(1)));
  return signed_like(m / (m + V::set(T(2))), x);
}

// erf |x| = |x| + |x| p(x^2) below 1, fitted to 2^-29 (float), 2^-56 (double); above, 1 - e^{-q(|x|)}, q = -log erfc
// fitted on [1, 4] to 2^-29, on [1, 6] to 2^-59; then x's sign.
template <class T, int W>
FS_HD Vec<T, W> erf(Vec<T, W> x) {
  using V = Vec<T, W>;
  const V one = V::set(T(1)), size = at_most(abs(x), Format<T>::ERF_MOST), square = size * size;
  V p, q;
  if constexpr (sizeof(T) == 4) {
    p = horner(square, 0.128379166f, -0.37612626f, 0.112835854f, -0.0268538129f, 0.00518832775f, -0.000801019545f,
               7.85386728e-05f);
    q = horner(size, 0.000341554289f, 1.12708902f, 0.638145089f, 0.103106543f, -0.0218379572f, 0.00294763059f,
               -0.000186376259f);
  } else {
    p = horner(square, 0.12837916709551256, -0.37612638903183521, 0.11283791670944185, -0.026866170643111531,
               0.0052239776061188802, -0.00085483259293297901, 0.00012055293577272878, -1.4924712308029719e-05,
               1.6447131635680484e-06, -1.6206314196309946e-07, 1.3710982108482451e-08, -7.7794714069574147e-10);
    q = horner(size, 1.7960385353958807e-07, 1.1283773294249071, 0.63662848818331774, 0.10274725418958584,
               -0.019078158952239389, -0.00028048419738560212, 0.0017689960137997648, -0.00064116885661485567,
               4.4819949886888919e-05, 7.0367921427709807e-05, -4.5037890670484099e-05, 1.6514104096669589e-05,
               -4.3270863510951055e-06, 8.505842876122366e-07, -1.2570679874808111e-07, 1.3626958472917465e-08,
               -1.0257250130962727e-09, 4.7961766220942488e-11, -1.0496577689967584e-12);
  }
  Word<T, W> k;
  const V e = one + expm1_near(reduce(-q, k));
  const V far = fma(-power<T, W>(k), e, one);
  return signed_like(choose(size.a < one.a, fma(size, p, size), far), x);
}

// 1 / (1 + e^-x), with relative accuracy for negative x too: e = e^-|x|, 1 / (1 + e) or e / (1 + e).
template <class T, int W>
FS_HD Vec<T, W> sigmoid(Vec<T, W> x) {
  using V = Vec<T, W>;
  const V one = V::set(T(1)), e = exp(-abs(x));
  return choose(x.a < V::set(T(0)).a, e, one) / (one + e);
}

// log(1 + e^x) = max(x, 0) + log(1 + e), e = e^-|x|;  log(1 + e) = 2 atanh(s), s = e / (2 + e) <= 1/3,
// atanh s = s + s^3 p(s^2), p fitted to 2^-33 (float), 2^-59 (double).
template <class T, int W>
FS_HD Vec<T, W> softplus(Vec<T, W> x) {
  using V = Vec<T, W>;
  const V zero = V::set(T(0)), e = exp(-abs(x));
  const V twice = (e + e) / (e + V::set(T(2))), square = V::set(T(0.25)) * twice * twice;
  V p;
  if constexpr (sizeof(T) == 4)
    p = horner(square, 0.333333373f, 0.199994445f, 0.143083066f, 0.107152767f, 0.121451616f);
  else
    p = horner(square, 0.33333333333333154, 0.20000000000077633, 0.1428571427404875, 0.11111111977495579,
               0.090908722147570051, 0.076932747453933525, 0.066505532229013342, 0.06052533437826841,
               0.041722113012573184, 0.085054011390604464);
  return choose(x.a > zero.a, x, zero) + fma(twice * square, p, twice);
}

}  // namespace fs
