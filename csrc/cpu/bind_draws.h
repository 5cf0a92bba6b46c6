// Owns the Python side of draws and elementary functions. A part of bind.cpp.
#pragma once
#include "../core/permutation.h"
#include "arrays.h"
#include "kernels.h"
#include "starts.h"

namespace py = pybind11;
using namespace fs;

namespace {

using Ids = py::array_t<u32, py::array::c_style>;

py::array_t<u32> bind_permuted_order(u64 seed, const py::array& ids, i64 t0, i64 t1, u32 n, i64 batch, i64 epoch,
                                     int threads) {
  const i64 N = ids.size();
  const u32* network_ids = data<const u32>(ids, "ids", N);
  if (t0 < 0 || t1 < t0 || n < 1 || batch < 1 || threads < 1 || epoch < 0 || (!epoch && batch > n))
    throw std::invalid_argument("sizes are off");
  py::array_t<u32> out({N, t1 - t0, batch});
  u32* to = out.mutable_data();
  py::gil_scoped_release release;
  permuted_orders({seed, t0, t1, batch, n, epoch}, N, network_ids, threads, to);
  return out;
}

// A table of whole numbers as indices of n points; None where one of them is outside.
py::object bind_indices(const py::array_t<i64, py::array::c_style | py::array::forcecast>& table, i64 n) {
  py::array_t<u32> out(std::vector<py::ssize_t>(table.shape(), table.shape() + table.ndim()));
  const i64* from = table.data();
  u32* to = out.mutable_data();
  bool fine = true;
  for (i64 k = 0; k < table.size(); ++k) fine &= u64(from[k]) < u64(n), to[k] = u32(from[k]);
  return fine ? py::object(out) : py::none();
}

py::array_t<double> bind_normals(u64 seed, const Ids& ids, i64 t0, i64 t1, u32 stream, u32 item, int threads) {
  if (t0 < 0 || t1 < t0 || threads < 1) throw std::invalid_argument("normals: expected 0 <= t0 <= t1, threads >= 1");
  const i64 N = ids.size();
  py::array_t<double> out({N, t1 - t0});
  double* to = out.mutable_data();
  const u32* network_ids = ids.data();
  py::gil_scoped_release release;
  normals(seed, N, network_ids, t0, t1, stream, item, threads, to);
  return out;
}

// groups: (size, mean, deviation) of each; out [N, P] float32 or float64.
template <class T>
bool bind_starts(u64 seed, const Ids& keys, const py::tuple& groups, int threads, py::array out) {
  const i64 N = keys.size();
  std::vector<Group> all;
  i64 P = 0;
  for (const auto& each : groups) {
    const auto of = each.cast<py::tuple>();
    const auto mean = of[1].cast<py::array>(), deviation = of[2].cast<py::array>();
    const bool own_mean = mean.ndim() > 0, own_deviation = deviation.ndim() > 0;
    all.push_back({of[0].cast<i64>(), data<const double>(mean, "mean", own_mean ? N : 1),
                   data<const double>(deviation, "deviation", own_deviation ? N : 1), own_mean, own_deviation});
    if (all.back().size < 1) throw std::invalid_argument("starts: an empty group");
    P += all.back().size;
  }
  if (threads < 1 || all.empty()) throw std::invalid_argument("starts: expected threads >= 1 and a group");
  T* to = data<T>(out, "out", N * P);
  const u32* network_ids = keys.data();
  py::gil_scoped_release release;
  return starts(seed, N, network_ids, all, threads, to);
}

py::array_t<u32> bind_permutation(u64 seed, const Ids& ids, u32 key, u32 n, const Ids& positions, u32 item) {
  const i64 N = ids.size(), count = positions.size();
  for (i64 j = 0; j < count; ++j)
    if (positions.data()[j] >= n) throw std::invalid_argument("positions: must lie below n");
  py::array_t<u32> out({N, count});
  permutations(seed, N, ids.data(), key, n, count, positions.data(), item, out.mutable_data());
  return out;
}

template <class T>
py::array_t<T> bind_elementary(const std::string& name, const py::array_t<T, py::array::c_style>& x, int lanes) {
  py::array_t<T> out(x.size());
  if (!elementary(name, lanes, x.data(), out.mutable_data(), x.size()))
    throw std::invalid_argument("lanes: " + std::to_string(lanes) + " lanes are no register of this module");
  return out;
}

void bind_draws(py::module_& m) {
  m.def("indices", &bind_indices);
  m.def("permuted_order", &bind_permuted_order);
  m.def("elementary", &bind_elementary<float>, py::arg("name"), py::arg("x").noconvert(), py::arg("lanes"));
  m.def("elementary", &bind_elementary<double>, py::arg("name"), py::arg("x").noconvert(), py::arg("lanes"));
  m.def("normals", &bind_normals, py::arg("seed"), py::arg("ids"), py::arg("t0"), py::arg("t1"), py::arg("stream"),
        py::arg("item") = 0, py::arg("threads") = 1);
  m.def("starts_float32", &bind_starts<float>);
  m.def("starts_float64", &bind_starts<double>);
  m.def("permutation", &bind_permutation, py::arg("seed"), py::arg("ids"), py::arg("key"), py::arg("n"),
        py::arg("positions"), py::arg("item") = 0);
}

}  // namespace
