// Owns how arrays come from Python: with no conversion at all, because a silent copy of an array that a kernel writes
// to would lose the training.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "../core/job.h"
#include "threads.h"

namespace fs {

// The data of `array` if it has dtype T, C order and `count` entries (any count if -1); writable where M is not const.
template <class M>
M* data(const pybind11::array& array, const char* field, i64 count) {
  using T = std::remove_const_t<M>;
  auto refuse = [&](const std::string& why) { throw std::invalid_argument(std::string(field) + ": " + why); };
  if (!pybind11::isinstance<pybind11::array_t<T>>(array))
    refuse("holds " + std::string(pybind11::str(array.dtype())) + ", expected " +
           std::string(pybind11::str(pybind11::dtype::of<T>())));
  if (!(array.flags() & pybind11::array::c_style)) refuse("is not C-contiguous");
  if (!std::is_const_v<M> && !array.writeable()) refuse("is read-only");
  if (count >= 0 && array.size() != count)
    refuse("has " + std::to_string(array.size()) + " entries, expected " + std::to_string(count));
  return static_cast<M*>(const_cast<void*>(array.data()));
}

// A compiled loop by the addresses of its functions, see csrc/compiled/library.h; none of None. given: size of the
// struct that it is called with, which it must have been compiled for.
inline CompiledLoop loop_of(const pybind11::object& from, size_t given) {
  if (from.is_none()) return {};
  const auto d = from.cast<pybind11::dict>();
  const auto at = [&](const char* name) { return reinterpret_cast<void*>(d[name].cast<u64>()); };
  if (reinterpret_cast<i64 (*)()>(at("given"))() != i64(given))
    throw std::invalid_argument(
        "internal: the module and the headers that loops are compiled from are not of one kind");
  reinterpret_cast<void (*)(void (*)(i64))>(at("report_to"))(&work_elsewhere);
  return {reinterpret_cast<decltype(CompiledLoop::bytes)>(at("bytes")),
          reinterpret_cast<decltype(CompiledLoop::side)>(at("side")),
          reinterpret_cast<decltype(CompiledLoop::run)>(at("run"))};
}

// Sizes of a job's data X [rows, stride]; first [N]: where the `points` rows of each network begin, None: all are
// shared.
template <class T>
void data_sets(Job<T>& job, const pybind11::array& X, const pybind11::object& first, i64 points) {
  job.n = job.rows = X.shape(0), job.stride = X.shape(1);
  if (first.is_none()) return;
  job.first = data<const i64>(first.cast<pybind11::array>(), "first", job.N);
  job.n = points;
  if (points < 1 || points > job.rows) throw std::invalid_argument("points: more than the data have");
  for (i64 k = 0; k < job.N; ++k)
    if (job.first[k] < 0 || job.first[k] > job.rows - points) throw std::invalid_argument("first: outside the data");
}

}  // namespace fs
