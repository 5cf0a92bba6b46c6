// Owns the Python side of elementary functions, normal draws and permutations: the doors through which tests see them.
#include "elementary.h"

#include <pybind11/numpy.h>

#include <stdexcept>
#include <string>
#include <type_traits>

#include "../core/normal.h"
#include "../core/permutation.h"
#include "threads.h"

namespace py = pybind11;
using namespace fs;

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

// name(x) entry by entry, `lanes` at a time: 1, 4, 8 or 16, as many as a register holds.
template <class T>
py::array_t<T> elementary(const std::string& name, const py::array_t<T, py::array::c_style>& x, int lanes) {
  py::array_t<T> out(x.size());
  bool fits = false;
  auto width = [&](auto w) {
    constexpr int W = decltype(w)::value;
    if constexpr (W * sizeof(T) <= FS_VECTOR_BYTES)
      if (lanes == W) fits = true, apply<T, W>(name, x.data(), out.mutable_data(), x.size());
  };
  width(std::integral_constant<int, 1>{}), width(std::integral_constant<int, 4>{});
  width(std::integral_constant<int, 8>{}), width(std::integral_constant<int, 16>{});
  if (!fits) throw std::invalid_argument("lanes: " + std::to_string(lanes) + " lanes are no register of this module");
  return out;
}

using Ids = py::array_t<u32, py::array::c_style>;
constexpr int TOGETHER = 8;  // networks drawn for at once; those left over are drawn for one by one
constexpr i64 PIECE = 1024;  // networks that one thread draws for

template <int R>
void normals_of(u64 seed, const u32* ids, i64 t0, i64 t1, u32 stream, u32 item, double* to, i64 row) {
  for (i64 block = t0 / 2; 2 * block < t1; ++block) {
    u32 c[4][R];
    double pair[2][R];
    for (int k = 0; k < R; ++k) c[0][k] = u32(block), c[1][k] = ids[k], c[2][k] = stream, c[3][k] = item;
    draw_normals(seed, c, pair[0], R);
    for (i64 t = 2 * block; t < 2 * block + 2; ++t)
      if (t >= t0 && t < t1)
        for (int k = 0; k < R; ++k) to[k * row + t - t0] = pair[t % 2][k];
  }
}

// Normal draws t0 .. t1 - 1 of each network: [N, t1 - t0].
py::array_t<double> normals(u64 seed, const Ids& ids, i64 t0, i64 t1, u32 stream, u32 item, int threads) {
  if (t0 < 0 || t1 < t0 || threads < 1) throw std::invalid_argument("normals: expected 0 <= t0 <= t1, threads >= 1");
  const i64 N = ids.size(), count = t1 - t0;
  py::array_t<double> out({N, count});
  double* to = out.mutable_data();
  const u32* who = ids.data();
  py::gil_scoped_release release;
  deal(threads, N, PIECE, [&](int, Pieces& pieces) {
    pieces.each([&](i64 k) {
      const i64 end = k + PIECE < N ? k + PIECE : N;
      for (; k + TOGETHER <= end; k += TOGETHER)
        normals_of<TOGETHER>(seed, who + k, t0, t1, stream, item, to + k * count, count);
      for (; k < end; ++k) normals_of<1>(seed, who + k, t0, t1, stream, item, to + k * count, count);
      FS_WORKED(PIECE * count);
    });
  });
  return out;
}

template <int R>
void permuted(u64 seed, const u32* ids, u32 key, const Domain& d, const u32* positions, i64 count, u32 item, u32* to) {
  u32 who[R], keys[MOST_ROUNDS][R];
  for (int k = 0; k < R; ++k) who[k] = ids[k];
  permutation_keys(d, seed, who, key, item, keys);
  for (i64 j = 0; j < count; ++j) {
    u32 i[R];
    for (int k = 0; k < R; ++k) i[k] = positions[j];
    permute(d, keys, i);
    for (int k = 0; k < R; ++k) to[k * count + j] = i[k];
  }
}

// Indices at `positions` [m] in each network's permutation of 0 .. n - 1: [N, m].
py::array_t<u32> permutation(u64 seed, const Ids& ids, u32 key, u32 n, const Ids& positions, u32 item) {
  const i64 N = ids.size(), count = positions.size();
  for (i64 j = 0; j < count; ++j)
    if (positions.data()[j] >= n) throw std::invalid_argument("positions: must lie below n");
  const Domain d = Domain::of(n);
  py::array_t<u32> out({N, count});
  u32* to = out.mutable_data();
  i64 k = 0;
  for (; k + TOGETHER <= N; k += TOGETHER)
    permuted<TOGETHER>(seed, ids.data() + k, key, d, positions.data(), count, item, to + k * count);
  for (; k < N; ++k) permuted<1>(seed, ids.data() + k, key, d, positions.data(), count, item, to + k * count);
  return out;
}

}  // namespace

void bind_elementary(py::module_& m) {
  m.def("elementary", &elementary<float>, py::arg("name"), py::arg("x").noconvert(), py::arg("lanes"));
  m.def("elementary", &elementary<double>, py::arg("name"), py::arg("x").noconvert(), py::arg("lanes"));
  m.def("normals", &normals, py::arg("seed"), py::arg("ids"), py::arg("t0"), py::arg("t1"), py::arg("stream"),
        py::arg("item") = 0, py::arg("threads") = 1);
  m.def("permutation", &permutation, py::arg("seed"), py::arg("ids"), py::arg("key"), py::arg("n"),
        py::arg("positions"), py::arg("item") = 0);
}
