// Owns training on the CPU: choice of the compiled instance, and threads over blocks of networks.
#pragma once
#include <omp.h>

#include <cstdlib>
#include <new>
#include <stdexcept>
#include <vector>

#include "../core/models/diagonal.h"
#include "../core/models/relu2.h"
#include "block.h"

namespace fs {

template <class T>
constexpr int WIDTH = FS_VECTOR_BYTES / int(sizeof(T));  // lanes of one vector register
template <class T>
constexpr int TEAM = WIDTH<T> < 8 ? WIDTH<T> : 8;  // lanes of a team: at most the least number of partial sums

struct Scratch {  // memory aligned to a cache line
  char* p;
  explicit Scratch(i64 bytes) : p(static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64))) {
    if (!p) throw std::bad_alloc();
  }
  ~Scratch() { std::free(p); }
  Scratch(const Scratch&) = delete;
};

// Calls f(Team, Model, side-by-side groups) for the instance that fits. FAST: sizes known to the compiler are worth it.
template <class T, bool FAST, class F>
void instance(const Shape& s, const Layout& layout, F f) {
  auto family = [&](auto team, auto groups) {
    using Tm = decltype(team);
    if (s.family == Shape::DIAGONAL) {
      if constexpr (FAST && Tm::L == 8) {
        switch (Tm::vectors(s.d)) {
#define FS_CASE(C) case C: return f(team, Diagonal<Tm, 8, C>{s.d}, groups);
          FS_CASE(1) FS_CASE(2) FS_CASE(3) FS_CASE(4) FS_CASE(5) FS_CASE(6) FS_CASE(7) FS_CASE(8)
#undef FS_CASE
        }
      }
      if (partials(s.d) == 8) return f(team, Diagonal<Tm, 8>{s.d}, groups);
      return f(team, Diagonal<Tm, 32>{s.d}, groups);
    }
    auto relu2 = [&](auto k) {
      constexpr int K = decltype(k)::value;
      if constexpr (FAST && Tm::W > 1) {
        switch (s.d + s.hidden_bias) {
#define FS_CASE(D) case D: return f(team, ReLU2<Tm, K, D>{s.d, s.h, s.hidden_bias, s.output_bias}, groups);
          FS_CASE(1) FS_CASE(2) FS_CASE(3) FS_CASE(4) FS_CASE(5) FS_CASE(6) FS_CASE(8) FS_CASE(10) FS_CASE(11)
#undef FS_CASE
        }
      }
      return f(team, ReLU2<Tm, K>{s.d, s.h, s.hidden_bias, s.output_bias}, groups);
    };
    if (partials(s.h) == 8) return relu2(std::integral_constant<int, 8>{});
    return relu2(std::integral_constant<int, 32>{});
  };
  if (layout.team == TEAM<T> && layout.lanes == 1) return family(Team<T, TEAM<T>, TEAM<T>>{}, std::integral_constant<int, 4>{});
  if (layout.team == 1 && layout.lanes == WIDTH<T>) return family(Team<T, WIDTH<T>, 1>{}, std::integral_constant<int, 1>{});
  if (layout.team == 1 && layout.lanes == 1) return family(Team<T, 1, 1>{}, std::integral_constant<int, 1>{});
  throw std::invalid_argument("internal: no such layout");
}

template <class T, bool SHARED, bool BATCH>
void advance(const Job<T>& job, const std::vector<i64>& living) {
  instance<T, !SHARED && !BATCH>(job.shape, job.layout, [&](auto team, auto model, auto side_by_side) {
    using Tm = decltype(team);
    using Model = decltype(model);
    constexpr int M = decltype(side_by_side)::value;
    using B = Block<Tm, Model, M>;
    constexpr bool one_row = SHARED || B::G == 1;
    const i64 count = i64(living.size()), size = M * B::G, blocks = (count + size - 1) / size;
    const i64 each = (B::bytes(job, model) + 4096 + 63) / 64 * 64;  // threads do not share cache lines or pages
    Scratch scratch(each * job.threads);
#pragma omp parallel num_threads(job.threads)
    {
      B block(job, model, scratch.p + each * omp_get_thread_num());
#pragma omp for schedule(dynamic)
      for (i64 k = 0; k < blocks; ++k) {
        const i64 left = count - k * size;
        block.template run<one_row, BATCH>(living.data() + k * size, int(left < size ? left : size));
      }
    }
  });
}

// Advance every living network of the job from t0 to t1.
template <class T>
void advance(const Job<T>& job) {
  std::vector<i64> living;
  for (i64 k = 0; k < job.N; ++k)
    if (job.lost[k] < 0) living.push_back(k);
  const bool shared = job.full || job.common >= 0 || (job.indices && job.index_rows == 1);
  const bool batch = job.full || job.batch > 1;
  if (shared && batch) return advance<T, true, true>(job, living);
  if (shared) return advance<T, true, false>(job, living);
  if (batch) return advance<T, false, true>(job, living);
  advance<T, false, false>(job, living);
}

}  // namespace fs
