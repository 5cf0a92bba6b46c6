// Owns training on the CPU: choice of the compiled instance, and threads over blocks of networks.
#pragma once
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <vector>

#include "../core/models/diagonal.h"
#include "../core/models/relu2.h"
#include "fused.h"
#include "joined.h"
#include "joined_batch.h"
#include "kernels.h"
#include "threads.h"
#include "tiles.h"

namespace fs {

struct Scratch {  // memory aligned to a cache line
  char* p;
  explicit Scratch(i64 bytes) : p(static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64))) {
    if (!p) throw std::bad_alloc();
  }
  ~Scratch() { std::free(p); }
  Scratch(const Scratch&) = delete;
};
inline i64 apart(i64 bytes) { return (bytes + 4096 + 63) / 64 * 64; }  // threads share neither cache lines nor pages

// Calls f(model) with the family and the number of partial sums that fit.
template <class Tm, class F>
void model(const Shape& s, F f) {
  if (s.family == Shape::DIAGONAL) {
    if (partials(s.d) == 8) return f(Diagonal<Tm, 8>{s.d});
    return f(Diagonal<Tm, 32>{s.d});
  }
  if (partials(s.h) == 8) return f(ReLU2<Tm, 8>{s.d, s.h, s.hidden_bias, s.output_bias});
  return f(ReLU2<Tm, 32>{s.d, s.h, s.hidden_bias, s.output_bias});
}

// Whether there is a loop that joins the sums of such a model's networks.
template <class Model>
constexpr bool joins = false;
template <class T, int W>
constexpr bool joins<Diagonal<Team<T, W, W>, 8>> = W > 1;
// Whether there is a loop that makes tiles of such a model's batches.
template <class Model>
constexpr bool tiles = false;
template <class T, int W, int K>
constexpr bool tiles<Diagonal<Team<T, W, 1>, K>> = W > 1;

// Calls f(Block type, model) for the instance that fits. SCALAR: of one network a lane of one number (scalar.cpp).
template <class Block>
struct Of {
  using type = Block;
};
template <bool SCALAR, class T, class F>
void instance(const Job<T>& job, F f) {
  auto block = [&](auto team, auto one_row) {
    using Tm = decltype(team);
    constexpr bool ONE_ROW = decltype(one_row)::value;
    model<Tm>(job.shape, [&](auto m) {
      using M = decltype(m);
      if constexpr (joins<M>) {
        if (Joined<M>::fits(job, m)) return f(Of<Joined<M>>{}, m);
        if (JoinedBatch<M>::fits(job, m)) return f(Of<JoinedBatch<M>>{}, m);
      }
      if constexpr (tiles<M> && ONE_ROW)
        if (Tiles<M>::fits(job, m)) return f(Of<Tiles<M>>{}, m);
      f(Of<Block<Tm, M, ONE_ROW>>{}, m);
    });
  };
  if constexpr (SCALAR) {
    block(Team<T, 1, 1>{}, std::true_type{});
  } else {
    const bool shared = !job.first && (job.full || job.common >= 0 || (job.indices && job.index_rows == 1));
    const Layout at = job.layout;
    if (at.team == TEAM<T> && at.lanes == 1) return block(Team<T, TEAM<T>, TEAM<T>>{}, std::true_type{});
    if (at.team != 1 || at.lanes != WIDTH<T>) throw std::invalid_argument("internal: no such layout");
    if (shared) return block(Team<T, WIDTH<T>, 1>{}, std::true_type{});
    return block(Team<T, WIDTH<T>, 1>{}, std::false_type{});
  }
}

template <bool SCALAR, class T>
i64 bytes_of(const Job<T>& job) {
  i64 bytes = 0;
  instance<SCALAR>(job, [&](auto block, auto model) { bytes = decltype(block)::type::bytes(job, model); });
  return bytes;
}

// A sample's `width` inputs and its label side by side, where they fit in four numbers; empty where they do not.
template <class T>
std::vector<T> quads(const Job<T>& job, int width) {
  std::vector<T> out(width < 4 ? 4 * job.rows : 0);
  for (i64 i = 0; width < 4 && i < job.rows; ++i) {
    for (int j = 0; j < width; ++j) out[4 * i + j] = job.X[i * job.stride + j];
    out[4 * i + width] = job.y[i];
  }
  return out;
}

template <bool SCALAR, class T>
void advance_living(const Job<T>& job, const std::vector<i64>& living) {
  instance<SCALAR>(job, [&](auto type, auto model) {
    using B = typename decltype(type)::type;
    // Groups side by side hide latencies, but never at the price of an idle thread.
    const i64 count = i64(living.size()), vectors = (count + B::G - 1) / B::G;
    const i64 each_thread = (vectors + job.threads - 1) / job.threads, side = B::side(job, model);
    const i64 size = B::G * (each_thread < side ? each_thread : side);
    const i64 each = apart(B::bytes(job, model));
    const int threads = busy(job.threads, (count + size - 1) / size);
    Scratch scratch(each * threads);
    deal(threads, count, size, [&](int thread, Pieces& pieces) {
      B block(job, model, scratch.p + each * thread);
      pieces.each(
          [&](i64 first) { block.run(living.data() + first, int(count - first < size ? count - first : size)); });
    });
  });
}

// Networks in turn by a loop compiled for their run; given: the struct that it takes.
inline void advance_compiled(const CompiledLoop& loop, const void* given, int lanes, int most,
                             const std::vector<i64>& living) {
  const i64 count = i64(living.size()), vectors = (count + lanes - 1) / lanes,
            each_thread = (vectors + most - 1) / most;
  const i64 side = loop.side(given), size = lanes * (each_thread < side ? each_thread : side);
  const i64 each = apart(loop.bytes(given));
  Scratch scratch(each * busy(most, (count + size - 1) / size));
  deal(most, count, size, [&](int thread, Pieces& pieces) {
    pieces.each([&](i64 first) {
      const i64 left = count - first;
      loop.run(given, scratch.p + each * thread, living.data() + first, int(left < size ? left : size));
    });
  });
}

// Those of scalar layouts are compiled in scalar.cpp.
extern template i64 bytes_of<true>(const Job<float>&);
extern template i64 bytes_of<true>(const Job<double>&);
extern template void advance_living<true>(const Job<float>&, const std::vector<i64>&);
extern template void advance_living<true>(const Job<double>&, const std::vector<i64>&);

template <class T>
i64 block_bytes(const Job<T>& job) {
  return job.layout.scalar() ? bytes_of<true>(job) : bytes_of<false>(job);
}

template <class T>
void advance(const Job<T>& given) {
  std::vector<i64> living;
  for (i64 k = 0; k < given.N; ++k)
    if (given.lost[k] < 0) living.push_back(k);
  if (living.empty()) return;
  Job<T> job = given;
  const bool columns = job.layout.lanes > 1 && job.shape.family == Shape::RELU2;
  const auto together = quads(job, columns ? job.shape.d + job.shape.hidden_bias : 4);
  job.quads = together.empty() ? nullptr : together.data();
  if (job.loop.run) advance_compiled(job.loop, &job, job.layout.lanes, job.threads, living);
  else if (job.layout.scalar()) advance_living<true>(job, living);
  else advance_living<false>(job, living);
}

}  // namespace fs
