// Owns the compiled instances of the general loop and of gradient flow for float64.
#include "flow.h"

template void fs::advance_general<double>(const fs::GeneralJob<double>&);
template void fs::advance_flow<double>(const fs::FlowJob<double>&);
template fs::i64 fs::general_bytes<double>(const fs::GeneralJob<double>&);
template std::unique_ptr<fs::Family<double, 1>> fs::family<double, 1>(const fs::FamilyShape&);

namespace fs {

namespace {

// f(w, x, residuals, free, first, count, i) for vectors of `count` networks from `first` on, at each of the points x_i;
// free: `more` vectors of the caller's own.
template <class F>
void at_points(const Family<double, WIDTH<double>>& model, int threads, i64 N, const double* W, const double* X, i64 n,
               i64 stride, int more, F f) {
  constexpr int L = WIDTH<double>;
  using V = Vec<double, L>;
  const int P = model.P, d = model.inputs;
  const i64 each = apart((P + d + model.residuals + more) * sizeof(V));
  Scratch scratch(each * threads);
  deal(threads, N, L, [&](int thread, Pieces& pieces) {
    V *w = reinterpret_cast<V*>(scratch.p + each * thread), *x = w + P, *free = x + d, *residuals = free + more;
    pieces.each([&](i64 first) {
      const int count = int(N - first < L ? N - first : L);
      for (int p = 0; p < P; ++p)
        for (int g = 0; g < L; ++g) reinterpret_cast<double*>(w + p)[g] = W[(first + (g < count ? g : 0)) * P + p];
      for (i64 i = 0; i < n; ++i) {
        for (int j = 0; j < d; ++j) x[j] = V::set(X[i * stride + j]);
        f(w, x, residuals, free, first, count, i);
        FS_WORKED(P);
      }
    });
  });
}

}  // namespace

Sizes sizes_of(const FamilyShape& shape) {
  const auto model = family<double, 1>(shape);
  return {model->P, model->inputs, model->outputs};
}

void predict(const FamilyShape& shape, int threads, i64 N, const double* W, const double* X, i64 n, i64 stride,
             double* out) {
  const auto model = family<double, WIDTH<double>>(shape);
  const int o = model->outputs;
  at_points(*model, threads, N, W, X, n, stride, o,
            [&](const auto* w, const auto* x, auto* residuals, auto* f, i64 first, int count, i64 i) {
              model->forward(w, x, residuals, f);
              for (int g = 0; g < count; ++g)
                for (int k = 0; k < o; ++k) out[((first + g) * n + i) * o + k] = reinterpret_cast<double*>(f + k)[g];
            });
}

void jacobians(const FamilyShape& shape, int threads, i64 N, const double* W, const double* X, i64 n, i64 stride,
               double* out) {
  using V = Vec<double, WIDTH<double>>;
  const auto model = family<double, WIDTH<double>>(shape);
  const int o = model->outputs, P = model->P;
  at_points(*model, threads, N, W, X, n, stride, 2 * o + P,
            [&](const auto* w, const auto* x, auto* residuals, V* f, i64 first, int count, i64 i) {
              V *seed = f + o, *row = seed + o;
              model->forward(w, x, residuals, f);
              for (int k = 0; k < o; ++k) {
                for (int j = 0; j < o; ++j) seed[j] = V::set(j == k);
                for (int p = 0; p < P; ++p) row[p] = V::set(0);
                model->vjp(w, x, seed, residuals, row);
                for (int g = 0; g < count; ++g) {
                  double* to = out + (((first + g) * n + i) * o + k) * P;
                  for (int p = 0; p < P; ++p) to[p] = reinterpret_cast<double*>(row + p)[g];
                }
              }
            });
}

}  // namespace fs
