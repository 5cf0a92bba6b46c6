// Owns more functions over vectors: sin, cos, expm1, log1p, rounding to whole numbers, the angle of a point.
//
// As core/math.h: IEEE +, -, *, /, fma and bits alone, no branch between lanes, the same bits at any width. The largest
// errors seen, in ulp of the exact value (float against double, double against long double, 1.8e6 arguments each; of
// sin and cos up to 1e5):
//
//            sin    cos    expm1  log1p
//   float    1.44   1.46   1.42   1.44
//   double   1.46   1.47   2.04   2.42
#pragma once
#include "math.h"

namespace fs {

// Whole numbers are all that is left beyond this size.
template <class T>
constexpr T WHOLE = T(typename Format<T>::Bits(1) << (Format<T>::SHIFT - 1));

// The nearest whole number, the even one of two.
template <class T, int W>
FS_HD Vec<T, W> nearest(Vec<T, W> x) {
  using V = Vec<T, W>;
  const V round = V::set(Format<T>::ROUND), y = x + round - round;
  return choose(abs(x).a < V::set(WHOLE<T>).a, y, x);
}
template <class T, int W>
FS_HD Vec<T, W> floor(Vec<T, W> x) {
  using V = Vec<T, W>;
  const V y = nearest(x);
  return choose(y.a > x.a, y - V::set(1), y);
}
template <class T, int W>
FS_HD Vec<T, W> trunc(Vec<T, W> x) {
  return signed_like(floor(abs(x)), x);
}

// sin and cos of r = x - q pi/2, |r| <= pi/4, and the bits of q: pi/2 in three parts, Taylor's series. Where q is no
// longer a whole number of its own, beyond 2^22 (float) and 2^51 (double), the result is NaN.
template <class T, int W>
FS_HD void octant(Vec<T, W> x, Vec<T, W>& sin, Vec<T, W>& cos, Word<T, W>& q) {
  using V = Vec<T, W>;
  const V one = V::set(1), round = V::set(Format<T>::ROUND), shifted = fma(x, V::set(T(0.63661977236758134)), round);
  const V n = shifted - round;
  q = bits_of(shifted);
  V r, s, c;
  if constexpr (sizeof(T) == 4) {
    r = fma(n, V::set(-1.57079637e+00f), x);
    r = fma(n, V::set(1.71512451e-15f), fma(n, V::set(4.37113883e-08f), r));
    const V r2 = r * r;
    s = horner(r2, T(-1 / 6.), T(1 / 120.), T(-1 / 5040.), T(1 / 362880.));
    c = horner(r2, T(-1 / 2.), T(1 / 24.), T(-1 / 720.), T(1 / 40320.), T(-1 / 3628800.));
  } else {
    r = fma(n, V::set(-1.5707963267948966), x);
    r = fma(n, V::set(1.4973849048591833e-33), fma(n, V::set(-6.123233995736766e-17), r));
    const V r2 = r * r;
    s = horner(r2, T(-1 / 6.), T(1 / 120.), T(-1 / 5040.), T(1 / 362880.), T(-1 / 39916800.), T(1 / 6227020800.),
               T(-1 / 1307674368000.), T(1 / 355687428096000.));
    c = horner(r2, T(-1 / 2.), T(1 / 24.), T(-1 / 720.), T(1 / 40320.), T(-1 / 3628800.), T(1 / 479001600.),
               T(-1 / 87178291200.), T(1 / 20922789888000.), T(-1 / 6402373705728000.));
  }
  const V r2 = r * r, limit = V::set(WHOLE<T>), none = V::set(T(__builtin_inf())) - V::set(T(__builtin_inf()));
  const auto fine = abs(x).a < limit.a;
  sin = choose(fine, fma(r * r2, s, r), none), cos = choose(fine, fma(r2, c, one), none);
}
// sin or, one octant on, cos.
template <class T, int W>
FS_HD Vec<T, W> turned(Vec<T, W> sin, Vec<T, W> cos, Word<T, W> q) {
  const auto odd = (q & 1) != 0;
  return number_of<T, W>(bits_of(choose(odd, cos, sin)) ^ ((q >> 1 & 1) << (8 * sizeof(T) - 1)));
}
template <class T, int W>
FS_HD Vec<T, W> sin(Vec<T, W> x) {
  Vec<T, W> s, c;
  Word<T, W> q;
  octant(x, s, c, q);
  return turned<T, W>(s, c, q);
}
template <class T, int W>
FS_HD Vec<T, W> cos(Vec<T, W> x) {
  Vec<T, W> s, c;
  Word<T, W> q;
  octant(x, s, c, q);
  return turned<T, W>(s, c, q + 1);
}

// e^x - 1 = 2^k (e^r - 1) + (2^k - 1); beyond 40 it is e^x to the last digit, below -40 it is -1.
template <class T, int W>
FS_HD Vec<T, W> expm1(Vec<T, W> x) {
  using V = Vec<T, W>;
  const V most = V::set(40), least = V::set(-40);
  V near = choose(x.a > most.a, most, x);
  near = choose(near.a < least.a, least, near);
  Word<T, W> k;
  const V e = expm1_near(reduce(near, k)), scale = power<T, W>(k);
  return choose(x.a > most.a, exp(x), fma(scale, e, scale - V::set(1)));
}

// log(1 + x), of which u = 1 + x loses what (x - (u - 1)) / u brings back.
template <class T, int W>
FS_HD Vec<T, W> log1p(Vec<T, W> x) {
  using V = Vec<T, W>;
  const V one = V::set(1), zero = V::set(0), u = one + x, y = log(u);
  const V whole = choose(u.a > zero.a, y + (x - (u - one)) / u, y);
  return choose(x.a < V::set(T(__builtin_inf())).a, choose(x.a == zero.a, x, whole), y);
}

// The angle of (x, y), y >= 0, from the positive x axis, in [0, pi]; 0 of (0, 0). With t the smaller of |x| and y over
// the larger, turned by pi/4 where t > tan(pi/8), it is t + t^3 p(t^2), p fitted to 2^-30 (float), 2^-59 (double).
template <class T, int W>
FS_HD Vec<T, W> angle(Vec<T, W> x, Vec<T, W> y) {
  using V = Vec<T, W>;
  const V zero = V::set(0), one = V::set(1), size = abs(x);
  const auto steep = y.a > size.a;
  const V large = choose(steep, y, size), small = choose(steep, size, y);
  const auto turned = small.a > (V::set(T(0.41421356237309505)) * large).a;
  const V below = choose(turned, small + large, choose(large.a == zero.a, one, large));
  const V t = choose(turned, small - large, small) / below, z = t * t;
  V p;
  if constexpr (sizeof(T) == 4) p = horner(z, -0.333333164f, 0.199984893f, -0.142438486f, 0.105960004f, -0.0608345047f);
  else
    p = horner(z, -0.333333333333332, 0.19999999999954082, -0.14285714280248482, 0.11111110786136004,
               -0.09090897836393753, 0.07692061636163114, -0.06663120373730722, 0.058480088480866756,
               -0.050398452315571066, 0.03807831453150532, -0.01792227296518218);
  const V octant = fma(t * z, p, t) + choose(turned, V::set(T(0.78539816339744828)), zero);
  const V quadrant = choose(steep, V::set(T(1.5707963267948966)) - octant, octant);
  return choose(x.a < zero.a, V::set(T(3.1415926535897931)) - quadrant, quadrant);
}

}  // namespace fs
