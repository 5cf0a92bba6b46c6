// Owns the metrics that sit beside training on the CPU: mean losses, in float64, from the family's own `value`.
#include "advance.h"

namespace fs {

namespace {

template <class Tm>
void mean_losses(const Shape& shape, int threads, i64 N, const double* W, const double* X, const double* y, i64 n,
                 i64 stride, double factor, double* loss) {
  model<Tm>(shape, [&](auto model) {
    using V = typename Tm::V;
    constexpr int G = Tm::networks;
    Job<double> job{};
    job.P = model.P(), job.batch = 1, job.stride = stride;
    job.W = const_cast<double*>(W);  // packed from, never written
    using B = Block<Tm, decltype(model), true>;
    const i64 each = apart(B::bytes(job, model));
    Scratch scratch(each * threads);
    deal(threads, N, G, [&](int thread, Pieces& pieces) {
      B block(job, model, scratch.p + each * thread);
      const auto& group = block.group[0];
      pieces.each([&](i64 first) {
        block.load(int(N - first < G ? N - first : G), [&](int k) { return first + k; });
        V sum = V::set(0);
        for (i64 i = 0; i < n; ++i) {
          V r = model.value(group.w, Row<Tm>{X + i * stride}, group.residuals) - V::set(y[i]);
          sum = fma(r, r, sum);
          FS_WORKED(job.P);
        }
        for (int g = 0; g < G && first + g < N; ++g) loss[first + g] = factor * sum[g] / double(n);
      });
    });
  });
}

}  // namespace

void mean_losses(const Shape& shape, int threads, i64 N, const double* W, const double* X, const double* y, i64 n,
                 i64 stride, double factor, double* loss) {
  // Every network sees the same rows, so one lane a network needs neither gathers nor sums across lanes; but the many
  // partial sums of a wide network fit the registers only as a team's.
  const bool wide = partials(shape.family == Shape::DIAGONAL ? shape.d : shape.h) > 8;
  using One = Team<double, WIDTH<double>, 1>;
  using All = Team<double, TEAM<double>, TEAM<double>>;
  (wide ? mean_losses<All> : mean_losses<One>)(shape, threads, N, W, X, y, n, stride, factor, loss);
}

}  // namespace fs
