// Owns the Python side of the general loop: a dict of sizes, numbers and arrays becomes a job. A part of bind.cpp.
#pragma once
#include "../core/flow.h"
#include "arrays.h"
#include "kernels.h"
#include "shapes.h"

namespace py = pybind11;
using namespace fs;

namespace {

// Addresses of a compiled function, (of numbers, of vectors).
Entry entry_of(const py::object& given) {
  const auto two = given.cast<std::pair<u64, u64>>();
  if (!two.first || !two.second) throw std::invalid_argument("internal: no function");
  return {{reinterpret_cast<const void*>(two.first), reinterpret_cast<const void*>(two.second)}};
}

FamilyShape family_of(const py::dict& d) {
  FamilyShape s{};
  s.kind = one_of<FamilyShape::Kind>(d["form"], {FS_FORM_NAMES});
  if (s.kind == FamilyShape::TRACED) {
    s.traced = {d["P"].cast<int>(),         d["inputs"].cast<int>(), d["outputs"].cast<int>(),
                d["residuals"].cast<int>(), entry_of(d["forward"]),  entry_of(d["vjp"])};
    if (s.traced.P < 1 || s.traced.inputs < 1 || s.traced.outputs < 1 || s.traced.residuals < 0)
      throw std::invalid_argument("sizes are off");
    return s;
  }
  if (s.kind != FamilyShape::DENSE) {
    const auto numbers = d["numbers"].cast<py::tuple>();
    if (numbers.size() > MOST_NUMBERS) throw std::invalid_argument("internal: numbers");
    for (size_t k = 0; k < numbers.size(); ++k) s.n[k] = numbers[k].cast<int>();
    return s;
  }
  s.dense = dense_of(d);
  return s;
}

// What the loop reads, and the arrays behind it: they live as long as the dict does.
template <class T>
struct Reader {
  const py::dict& from;
  i64 N, span;

  template <class M>
  M* array(const char* name, i64 count) const {
    return data<M>(from[name].template cast<py::array>(), name, count);
  }
  const T* optional(const char* name, i64 count) const {
    return from[name].is_none() ? nullptr : array<const T>(name, count);
  }
  Amplitude<T> amplitude(const py::object& given, const char* name) const {
    if (given.is_none()) return {};
    const auto three = given.cast<py::tuple>();
    Amplitude<T> a{};
    a.base = data<const T>(three[0].cast<py::array>(), name, N);
    a.row = data<const i32>(three[1].cast<py::array>(), name, N);
    const auto table = three[2].cast<py::array>();
    a.multiplier = data<const T>(table, name, -1);
    for (i64 k = 0; k < N; ++k)
      if (a.row[k] < 0 || (a.row[k] + 1) * span > table.size()) throw std::invalid_argument("row: outside the table");
    return a;
  }
};

template <class T>
Noise<T> noise_of(const Reader<T>& read, const char* name) {
  Noise<T> n{};
  const py::object given = read.from[name];
  if (given.is_none()) return n;
  const auto parts = given.cast<py::dict>();
  n.kind = one_of<NoiseKind::Kind>(parts["kind"], {FS_NOISE_NAMES});
  n.one = parts["one"].cast<bool>();
  n.amplitude = read.amplitude(parts["amplitude"], name);
  return n;
}

Update update_of(const py::dict& d, const bool* fixed) {
  Update u{};
  int flag = 0;
  for (const char* name : {FS_FLAG_NAMES}) u.flags |= u32(d[name].cast<bool>()) << flag++;
  u.perturb = one_of<Update::Perturb>(d["perturb"], {FS_PERTURB_NAMES});
  u.fixed = fixed;
  return u;
}

template <class T>
void bind_advance_general(const py::dict& d) {
  GeneralJob<T> all{};
  Job<T>& job = all.job;
  all.shape = family_of(d["shape"]);
  job.layout = {d["lanes"].cast<int>(), 1}, job.threads = d["threads"].cast<int>();
  job.t0 = d["t0"].cast<i64>(), job.t1 = d["t1"].cast<i64>();
  const Sizes model = sizes_of(all.shape);
  const auto ids = d["ids"].cast<py::array>(), W = d["W"].cast<py::array>(), X = d["X"].cast<py::array>();
  Reader<T> read{d, ids.size(), job.t1 - job.t0};
  job.N = read.N, job.P = model.P;
  job.loop = loop_of(d["loop"], sizeof(all));
  if (job.threads < 1 || job.t0 < 0 || job.t1 < job.t0) throw std::invalid_argument("sizes are off");
  job.ids = data<const i64>(ids, "ids", job.N);
  job.W = data<T>(W, "W", job.N * job.P);
  job.lost = read.template array<i64>("lost", job.N);
  const auto rate = read.amplitude(d["rate"], "rate");
  job.base = rate.base, job.row = rate.row, job.multiplier = rate.multiplier;

  const bool* fixed = d["fixed"].is_none() ? nullptr : read.template array<const bool>("fixed", job.P);
  all.update = update_of(d, fixed);
  all.update.buffers = d["buffer_count"].cast<int>();
  all.buffers = read.template array<T>("buffers", job.N * all.update.buffers * job.P);
  const char* names[HYPERS] = {FS_HYPER_NAMES};
  const auto hyper = d["hyper"].cast<py::dict>();
  for (int h = 0; h < HYPERS; ++h)
    if (hyper.contains(names[h]))
      all.update.uses |= 1u << h, all.hyper[h] = data<const T>(hyper[names[h]].cast<py::array>(), names[h], job.N);
  if (!d["each"].is_none()) {
    const auto ends = d["ends"].cast<py::array>();
    all.groups = int(ends.size()) / 2, all.scratch = d["scratch"].cast<int>();
    all.ends = data<const i32>(ends, "ends", -1),
    all.each = read.template array<const T>("each", job.N * all.groups * EACH);
    if (ends.size() != 2 * all.groups + 1 || all.groups < 1 || all.ends[0] != 0 || all.ends[all.groups] != job.P)
      throw std::invalid_argument("ends: are off");
    for (int k = 0; k < all.groups; ++k) {
      const int size = all.ends[k + 1] - all.ends[k], rows = all.ends[all.groups + 1 + k];
      if (size < 1 || rows < 0 || (rows && size % rows) || (rows && all.scratch < schulz_numbers(rows, size / rows)))
        throw std::invalid_argument("ends: are off");
    }
  }
  if (all.update.is(GROUPED) != (all.groups > 0)) throw std::invalid_argument("internal: groups");
  if (!d["own"].is_none()) {
    const auto own = d["own"].cast<py::dict>();
    const auto constants = own["constants"].cast<py::array>();
    if (constants.ndim() != 2) throw std::invalid_argument("constants: are off");
    all.own = {own["state"].cast<int>(), 2 + int(constants.shape(1)), entry_of(own["move"])};
    all.constants = data<const T>(constants, "constants", job.N * (all.own.numbers - 2));
    if (all.own.state < 0) throw std::invalid_argument("sizes are off");
  }
  if (all.update.is(FUNCTION) != bool(all.own.move)) throw std::invalid_argument("internal: rule");
  if (all.update.carried() + all.own.state != all.update.buffers) throw std::invalid_argument("internal: buffers");

  all.loss.kind = one_of<typename Loss<T>::Kind>(d["loss"], {FS_LOSS_NAMES});
  all.loss.factor = T(d["factor"].cast<double>());
  all.loss.weights = read.optional("loss_weights", model.outputs);
  const double bound = d["bound"].cast<double>(), most = sizeof(T) == 4 ? 3.402823466e38 : 1.7976931348623157e308;
  all.loss.bound = T(bound < most ? bound : most);
  all.labels = d["labels"].cast<int>();
  const bool each = all.loss.kind == Loss<T>::SQUARED;  // output has its label
  if (!d["losses"].is_none()) {
    const auto losses = d["losses"].cast<py::array>();
    all.loss_numbers = losses.ndim() == 2 ? int(losses.shape(1)) : 0;
    all.losses = data<const T>(losses, "losses", job.N * all.loss_numbers);
    if (all.loss_numbers < OWN_NUMBERS + (each ? model.outputs : 0)) throw std::invalid_argument("losses: are off");
  }
  if (all.loss.kind == Loss<T>::TRACED)
    all.loss.traced = entry_of(d["dloss"]), all.loss.traced_own = entry_of(d["own_dloss"]);
  else if (all.labels != (each ? model.outputs : 1)) throw std::invalid_argument("labels: wrong number");
  if (all.labels < 1) throw std::invalid_argument("labels: wrong number");
  if (!d["penalty"].is_none()) {
    const auto penalty = d["penalty"].cast<py::dict>();
    all.penalty = {penalty["residuals"].cast<int>(), entry_of(penalty["penalty"])};
    if (all.penalty.residuals < 0) throw std::invalid_argument("sizes are off");
  }
  all.label_noise = noise_of(read, "label_noise"), all.gradient_noise = noise_of(read, "gradient_noise");

  FamilyShape teacher;
  const py::object fresh = d["fresh"];
  if (!fresh.is_none()) {
    const auto f = fresh.cast<py::dict>();
    all.fresh.on = true;
    all.fresh.inputs.kind = one_of<Inputs::Kind>(f["inputs"], {FS_INPUT_NAMES});
    if (!f["density"].is_none())
      all.fresh.density = data<const double>(f["density"].cast<py::array>(), "density", job.N);
    if (!f["scale"].is_none()) all.fresh.scale = data<const T>(f["scale"].cast<py::array>(), "scale", job.N);
    all.fresh.inputs.density = f["of_all"].cast<double>();
    if (!f["teacher"].is_none()) {
      teacher = family_of(f["teacher"]);
      const Sizes guide = sizes_of(teacher);
      if (guide.outputs != all.labels || guide.inputs != model.inputs) throw std::invalid_argument("teacher: sizes");
      all.fresh.teacher = &teacher;
      const auto weights = f["weights"].cast<py::array>();
      const bool own = weights.ndim() == 2;  // of each network
      (own ? all.fresh.teachers : all.fresh.weights) =
          data<const T>(weights, "teacher", own ? job.N * guide.P : guide.P);
    } else if (all.labels != model.inputs) {
      throw std::invalid_argument("fresh: labels are inputs, of another number");
    }
  } else {
    data_sets(job, X, d["first"], d["points"].cast<i64>());
    if (job.stride % WIDTH<float> || job.stride < model.inputs) throw std::invalid_argument("X: rows are not padded");
    job.X = data<const T>(X, "X", job.rows * job.stride);
    job.y = read.template array<const T>("y", job.rows * all.labels);
  }
  job.full = d["full"].cast<bool>();
  const i64 batch = d["batch"].cast<i64>();
  job.batch = job.full ? job.n : batch;
  job.common = d["common"].cast<i64>(), job.seed = d["seed"].cast<u64>();
  if (job.batch < 1 || (job.full && all.fresh.on)) throw std::invalid_argument("batch: is off");
  if (!d["indices"].is_none()) {
    const auto array = d["indices"].cast<py::array>();
    job.index_rows = array.shape(0);
    if (job.index_rows != 1 && job.index_rows != job.N) throw std::invalid_argument("indices: wrong number of rows");
    job.indices = data<const u32>(array, "indices", job.index_rows * read.span * batch);
    for (i64 k = 0; k < array.size(); ++k)
      if (job.indices[k] >= job.n) throw std::invalid_argument("indices: point outside the data");
  }
  if (!d["counts"].is_none()) {
    const auto array = d["counts"].cast<py::array>();
    all.count_rows = array.shape(0);
    if (all.count_rows != 1 && all.count_rows != job.N) throw std::invalid_argument("counts: wrong number of rows");
    all.counts = data<const u32>(array, "counts", all.count_rows * read.span);
    for (i64 k = 0; k < array.size(); ++k)
      if (all.counts[k] < 1 || all.counts[k] > job.batch) throw std::invalid_argument("counts: outside the batch");
  }
  const py::object flow = d["flow"];
  if (!flow.is_none()) {
    const auto f = flow.cast<py::dict>();
    const auto numbers = [&](const char* name) { return data<const T>(f[name].cast<py::array>(), name, job.N); };
    FlowJob<T> flowing{all, numbers("rtol"), numbers("atol"), f["most"].cast<i64>(),
                       data<T>(f["carried"].cast<py::array>(), "carried", job.N * FlowJob<T>::CARRIED * job.P)};
    if (!job.full || all.fresh.on || flowing.most < 1) throw std::invalid_argument("flow: is off");
    py::gil_scoped_release release;
    return advance_flow(flowing);
  }
  py::gil_scoped_release release;
  advance_general(all);
}

template <class T>
i64 bind_general_bytes(const py::dict& shape, int buffers, int labels, i64 batch, int penalty_residuals, int groups,
                       int scratch, int numbers, int loss_numbers) {
  GeneralJob<T> all{};
  all.shape = family_of(shape), all.update.buffers = buffers, all.labels = labels, all.job.batch = batch;
  all.penalty.residuals = penalty_residuals, all.groups = groups, all.scratch = scratch, all.own.numbers = numbers,
  all.loss_numbers = loss_numbers;
  return general_bytes(all);
}

// What networks W [N, P] have at points X [n, stride]: predictions [N, n, o], or Jacobians [N, n o, P].
template <bool PREDICTIONS>
py::array_t<double> bind_at_points(const py::dict& shape, int threads, const py::array& W, const py::array& X) {
  const FamilyShape s = family_of(shape);
  const Sizes model = sizes_of(s);
  const i64 N = W.size() / model.P, n = X.shape(0), stride = X.shape(1), o = model.outputs;
  if (threads < 1 || stride < model.inputs) throw std::invalid_argument("X: too few columns");
  const auto* w = data<const double>(W, "W", N * model.P);
  const auto* x = data<const double>(X, "X", n * stride);
  py::array_t<double> out =
      PREDICTIONS ? py::array_t<double>({N, n, o}) : py::array_t<double>({N, n * o, i64(model.P)});
  double* to = out.mutable_data();
  py::gil_scoped_release release;
  (PREDICTIONS ? predict : jacobians)(s, threads, N, w, x, n, stride, to);
  return out;
}

void bind_general(py::module_& m) {
  m.def("advance_general_float32", &bind_advance_general<float>);
  m.def("advance_general_float64", &bind_advance_general<double>);
  m.def("general_bytes_float32", &bind_general_bytes<float>);
  m.def("general_bytes_float64", &bind_general_bytes<double>);
  m.def("predict", &bind_at_points<true>);
  m.def("jacobians", &bind_at_points<false>);
}

}  // namespace
