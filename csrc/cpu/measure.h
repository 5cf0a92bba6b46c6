// Owns the metrics that sit beside training on the CPU: mean losses, in float64, from the family's own `value`.
#pragma once
#include "advance.h"

namespace fs {

// loss[k] = factor / n * sum_i (h_k(x_i) - y_i)^2, samples added in order.  W [N, P], X [n, stride], y [n].
inline void mean_losses(const Shape& shape, int threads, i64 N, const double* W, const double* X, const double* y, i64 n,
                        i64 stride, double factor, double* loss) {
  // Every network sees the same rows, so one lane a network needs neither gathers nor sums across lanes.
  instance<double, false>(shape, Layout{WIDTH<double>, 1}, [&](auto team, auto model, auto) {
    using Tm = decltype(team);
    using V = typename Tm::V;
    using Model = decltype(model);
    constexpr int G = Tm::networks;
    Job<double> job{};
    job.P = model.P(), job.batch = 1, job.stride = stride, job.full = true;
    job.W = const_cast<double*>(W);  // packed from, never written
    using B = Block<Tm, Model, 1>;
    const i64 each = (B::bytes(job, model) + 4096 + 63) / 64 * 64;
    Scratch scratch(each * threads);
#pragma omp parallel num_threads(threads)
    {
      B block(job, model, scratch.p + each * omp_get_thread_num());
#pragma omp for schedule(dynamic)
      for (i64 first = 0; first < N; first += G) {
        block.load(int(N - first < G ? N - first : G), [&](int k) { return first + k; });
        V sum = V::set(0);
        for (i64 i = 0; i < n; ++i) {
          V r = model.value(block.w, Row<Tm>{X + i * stride}, block.kept) - V::set(y[i]);
          sum = fma(r, r, sum);
        }
        for (int g = 0; g < G && first + g < N; ++g) loss[first + g] = factor * sum[g] / double(n);
      }
    }
  });
}

}  // namespace fs
