// Owns lengths of gradients, also of those whose squares leave the range of their numbers.
#pragma once
#include "../math.h"
#include "../team.h"

namespace fs {

// A sum of squares between LOW and MOST has all its digits. Numbers whose squares sum to less are multiplied by
// RESCALE, those whose squares sum to more are divided by it: then their sum has all digits too.
template <class T>
struct Squares;
template <>
struct Squares<float> {
  static constexpr float LOW = 0x1p-100f, MOST = 0x1.fffffep127f, RESCALE = 0x1p96f;
};
template <>
struct Squares<double> {
  static constexpr double LOW = 0x1p-960, MOST = 0x1.fffffffffffffp1023, RESCALE = 0x1p768;
};

template <class Tm>
FS_APART typename Tm::V square(const typename Tm::V* g, int P) {
  return tree_sum<Tm>(P, [&](int p, typename Tm::V s) { return fma(g[p], g[p], s); });
}

// |g| of a gradient whose direction alone matters: where |g|^2 leaves the range of T, g is scaled by a power of two.
// low: what |g|^2 must not be less than; scale: by what g was multiplied.
template <class Tm>
FS_HD typename Tm::V norm(typename Tm::V* g, int P, typename Tm::T low, typename Tm::V& scale) {
  using T = typename Tm::T;
  using V = typename Tm::V;
  using S = Squares<T>;
  const V sum = square<Tm>(g, P), one = V::set(1);
  const V large = choose(sum.a > V::set(S::MOST).a, V::set(1 / S::RESCALE), one);
  scale = choose(sum.a < V::set(low).a, V::set(S::RESCALE), large);
  if (__builtin_expect(beyond(scale - one, T(0)) == 0, 1)) return sqrt(sum);
  FS_UNROLL_ROWS
  for (int p = Tm::first(); p < P; p += Tm::step()) g[p] = scale * g[p];
  return sqrt(square<Tm>(g, P));
}
template <class Tm>
FS_HD typename Tm::V norm(typename Tm::V* g, int P) {
  typename Tm::V scale;
  return norm<Tm>(g, P, Squares<typename Tm::T>::LOW, scale);
}

}  // namespace fs
