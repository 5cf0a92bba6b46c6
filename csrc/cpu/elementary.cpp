// Owns elementary functions of whole arrays: what tests see of core/math.h. Nothing that trains calls them.
#include <stdexcept>
#include <type_traits>

#include "../core/normal.h"
#include "kernels.h"

namespace fs {

namespace {

template <class T, int W, class F>
__attribute__((noinline)) void map(const T* x, T* y, i64 count, F f) {
  for (i64 i = 0; i < count; i += W) {
    T in[W] = {}, out[W];
    const int full = count - i < W ? int(count - i) : W;
    __builtin_memcpy(in, x + i, full * sizeof(T));
    const Vec<T, W> r = f(Vec<T, W>::loadu(in));
    __builtin_memcpy(out, &r, sizeof out);
    __builtin_memcpy(y + i, out, full * sizeof(T));
  }
}

template <class T, int W>
void apply(const std::string& name, const T* x, T* y, i64 count) {
  using V = Vec<T, W>;
#define FS_CASE(f) \
  if (name == #f) return map<T, W>(x, y, count, [](V v) { return f(v); })
  FS_CASE(exp);
  FS_CASE(log);
  FS_CASE(tanh);
  FS_CASE(erf);
  FS_CASE(sigmoid);
  FS_CASE(softplus);
  FS_CASE(sqrt);
#undef FS_CASE
  if constexpr (sizeof(T) == 8) {
    const bool sine = name == "sin_turns";
    if (sine || name == "cos_turns")
      return map<T, W>(x, y, count, [sine](V v) {
        V sin, cos;
        sincos_turns(v, sin, cos);
        return sine ? sin : cos;
      });
  }
  throw std::invalid_argument("elementary: no function " + name + " for this dtype");
}

}  // namespace

template <class T>
bool elementary(const std::string& name, int lanes, const T* x, T* y, i64 count) {
  bool fits = false;
  auto width = [&](auto w) {
    constexpr int W = decltype(w)::value;
    if constexpr (W * sizeof(T) <= FS_VECTOR_BYTES)
      if (lanes == W) fits = true, apply<T, W>(name, x, y, count);
  };
  width(std::integral_constant<int, 1>{}), width(std::integral_constant<int, 4>{});
  width(std::integral_constant<int, 8>{}), width(std::integral_constant<int, 16>{});
  return fits;
}
template bool elementary<float>(const std::string&, int, const float*, float*, i64);
template bool elementary<double>(const std::string&, int, const double*, double*, i64);

}  // namespace fs
