// Owns the compiled instances of the general loop for float64.
#include "advance_general.h"

template void fs::advance_general<double>(const fs::GeneralJob<double>&);
template fs::i64 fs::general_bytes<double>(const fs::GeneralJob<double>&);
template std::unique_ptr<fs::Family<double, 1>> fs::family<double, 1>(const fs::FamilyShape&);

// out [N, n, o] = predictions of N networks with parameters W [N, P] at X [n, stride].
void fs::predict(const FamilyShape& shape, int threads, i64 N, const double* W, const double* X, i64 n, i64 stride,
                 double* out) {
  constexpr int L = WIDTH<double>;
  using V = Vec<double, L>;
  const auto model = family<double, L>(shape);
  const int P = model->P, o = model->outputs, d = model->inputs;
  const i64 each = apart((P + d + model->kept + o) * sizeof(V));
  Scratch scratch(each * threads);
  deal(threads, N, L, [&](int thread, Pieces& pieces) {
    V *w = reinterpret_cast<V*>(scratch.p + each * thread), *x = w + P, *f = x + d, *kept = f + o;
    pieces.each([&](i64 first) {
      const int count = int(N - first < L ? N - first : L);
      for (int p = 0; p < P; ++p)
        for (int g = 0; g < L; ++g) reinterpret_cast<double*>(w + p)[g] = W[(first + (g < count ? g : 0)) * P + p];
      for (i64 i = 0; i < n; ++i) {
        for (int j = 0; j < d; ++j) x[j] = V::set(X[i * stride + j]);
        model->forward(w, x, kept, f);
        for (int g = 0; g < count; ++g)
          for (int k = 0; k < o; ++k) out[((first + g) * n + i) * o + k] = reinterpret_cast<double*>(f + k)[g];
        FS_WORKED(P);
      }
    });
  });
}
