// Owns the Python module of one instruction set: checks dtype and layout, drops the GIL, calls the kernels.
//
// This is the only unit that knows pybind11, which costs each one that does ten seconds: its parts are headers, and it
// is compiled quickly (setup.py), for it has no loop that takes time.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "../core/philox.h"
#include "arrays.h"
#include "bind_draws.h"
#include "bind_general.h"
#include "bind_metrics.h"
#include "kernels.h"
#include "threads.h"

namespace py = pybind11;
using namespace fs;

namespace {

Shape shape_of(const py::tuple& t) {
  Shape s{};
  const auto family = t[0].cast<std::string>();
  if (family == "diagonal") s.family = Shape::DIAGONAL;
  else if (family == "relu2") s.family = Shape::RELU2;
  else throw std::invalid_argument("shape: no family " + family);
  s.d = t[1].cast<int>(), s.h = t[2].cast<int>(), s.hidden_bias = t[3].cast<int>(), s.output_bias = t[4].cast<int>();
  return s;
}

i64 parameters(const Shape& s) {
  return s.family == Shape::DIAGONAL ? 2 * i64(s.d) : i64(s.h) * (s.d + s.hidden_bias + 1) + s.output_bias;
}

void check_inputs(const Shape& s, i64 stride) {
  const i64 least = (s.d + s.hidden_bias + WIDTH<float> - 1) / WIDTH<float> * WIDTH<float>;
  if (stride < least) throw std::invalid_argument("X: rows are not padded to whole vectors");
}

template <class T>
void bind_advance(const py::tuple& shape, const py::tuple& layout, int threads, i64 batch, bool full, i64 common,
                  const py::object& first, i64 points, u64 seed, double dloss, double bound, const py::array& ids,
                  py::array W, py::array lost, const py::array& base, const py::array& row, i64 t0, i64 t1,
                  const py::array& multiplier, const py::array& X, const py::array& y, const py::object& indices,
                  const py::object& losses, const py::object& loop) {
  Job<T> job{};
  job.shape = shape_of(shape);
  job.layout = {layout[0].cast<int>(), layout[1].cast<int>()};
  job.threads = threads;
  job.N = ids.size(), job.P = parameters(job.shape);
  if (threads < 1 || t0 < 0 || t1 < t0 || X.ndim() != 2 || batch < 1) throw std::invalid_argument("sizes are off");
  job.ids = data<const i64>(ids, "ids", job.N);
  job.W = data<T>(W, "W", job.N * job.P);
  job.lost = data<i64>(lost, "lost", job.N);
  job.base = data<const T>(base, "base", job.N);
  job.row = data<const i32>(row, "row", job.N);
  job.t0 = t0, job.t1 = t1;
  job.multiplier = data<const T>(multiplier, "multiplier", -1);
  const i64 Q = t1 > t0 ? multiplier.size() / (t1 - t0) : 1;
  for (i64 k = 0; k < job.N; ++k)
    if (job.row[k] < 0 || job.row[k] >= Q) throw std::invalid_argument("row: points outside multiplier");
  data_sets(job, X, first, points);
  check_inputs(job.shape, job.stride);
  job.X = data<const T>(X, "X", job.rows * job.stride);
  job.y = data<const T>(y, "y", job.rows);
  job.batch = full ? job.n : batch, job.full = full, job.common = common, job.seed = seed;
  if (!indices.is_none()) {
    const auto array = indices.cast<py::array>();
    job.index_rows = array.shape(0);
    if (job.index_rows != 1 && job.index_rows != job.N) throw std::invalid_argument("indices: wrong number of rows");
    job.indices = data<const u32>(array, "indices", job.index_rows * (t1 - t0) * batch);
    for (i64 k = 0; k < array.size(); ++k)
      if (job.indices[k] >= job.n) throw std::invalid_argument("indices: point outside the data");
  }
  job.dloss = T(dloss);
  const double most = sizeof(T) == 4 ? 3.402823466e38 : 1.7976931348623157e308;
  job.bound = T(bound < most ? bound : most);
  if (!losses.is_none()) job.losses = data<const T>(losses.cast<py::array>(), "losses", job.N * 2);
  job.loop = loop_of(loop, sizeof(Job<T>));
  py::gil_scoped_release release;
  advance(job);
}

py::array_t<double> bind_losses(const py::tuple& shape, int threads, const py::array& W, const py::array& X,
                                const py::array& y, double factor) {
  const Shape s = shape_of(shape);
  const i64 P = parameters(s), N = W.size() / P;
  check_inputs(s, X.shape(1));
  const auto* w = data<const double>(W, "W", N * P);
  const auto* x = data<const double>(X, "X", -1);
  const auto* labels = data<const double>(y, "y", X.shape(0));
  py::array_t<double> out(N);
  double* to = out.mutable_data();
  py::gil_scoped_release release;
  mean_losses(s, threads, N, w, x, labels, X.shape(0), X.shape(1), factor, to);
  return out;
}

template <class T>
i64 bind_block_bytes(const py::tuple& shape, const py::tuple& layout, i64 n, i64 stride, i64 batch, bool full) {
  Job<T> job{};
  job.shape = shape_of(shape), job.layout = {layout[0].cast<int>(), layout[1].cast<int>()};
  job.n = job.rows = n, job.stride = stride, job.batch = full ? n : batch, job.full = full, job.common = -1;
  return block_bytes(job);
}

// How many entries of `flags` are `first`, and how many `second`.
py::tuple bind_tally(const py::array& flags, i64 first, i64 second) {
  const i64* at = data<const i64>(flags, "flags", -1);
  i64 one = 0, other = 0;
  for (i64 k = 0; k < flags.size(); ++k) one += at[k] == first, other += at[k] == second;
  return py::make_tuple(one, other);
}

py::array_t<u32> random_words(u64 seed, u32 id, u32 block, u32 item, int count) {
  py::array_t<u32> out(4 * i64(count));
  for (int k = 0; k < count; ++k) {
    u32 c[4][1] = {{block + u32(k)}, {id}, {ORDER}, {item}};
    philox<1>(c, seed);
    for (int q = 0; q < 4; ++q) out.mutable_at(4 * k + q) = c[q][0];
  }
  return out;
}

}  // namespace

PYBIND11_MODULE(FS_MODULE, m) {
  m.doc() = "fastsgd CPU kernels for one instruction set";
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const Raised&) {  // Python has it already
    }
  });
  m.attr("vector_bytes") = FS_VECTOR_BYTES;
  m.attr("lanes") = py::dict(py::arg("float32") = WIDTH<float>, py::arg("float64") = WIDTH<double>);
  m.attr("team") = py::dict(py::arg("float32") = TEAM<float>, py::arg("float64") = TEAM<double>);
#define FS_ARGS                                                                                                  \
  py::arg("shape"), py::arg("layout"), py::arg("threads"), py::arg("batch"), py::arg("full"), py::arg("common"), \
      py::arg("first"), py::arg("points"), py::arg("seed"), py::arg("dloss"), py::arg("bound"), py::arg("ids"),  \
      py::arg("W"), py::arg("lost"), py::arg("base"), py::arg("row"), py::arg("t0"), py::arg("t1"),              \
      py::arg("multiplier"), py::arg("X"), py::arg("y"), py::arg("indices"), py::arg("losses") = py::none(),     \
                                                                             py::arg("loop") = py::none()
  m.def("advance_float32", &bind_advance<float>, FS_ARGS);
  m.def("advance_float64", &bind_advance<double>, FS_ARGS);
#undef FS_ARGS
  m.def("losses", &bind_losses, py::arg("shape"), py::arg("threads"), py::arg("W"), py::arg("X"), py::arg("y"),
        py::arg("factor"));
  m.def("block_bytes_float32", &bind_block_bytes<float>);
  m.def("block_bytes_float64", &bind_block_bytes<double>);
  bind_general(m);
  bind_draws(m);
  bind_metrics(m);
  m.def("tally", &bind_tally);
  m.def("random_words", &random_words);
}
