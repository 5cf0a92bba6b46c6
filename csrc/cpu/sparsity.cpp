// Owns feature sparsity of many networks, threads over them.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../core/metrics/feature_sparsity.h"
#include "advance.h"

namespace fs {

namespace {

constexpr size_t MOST_TOGETHER = 256 << 10;  // bytes of scratch up to which a register of networks goes at once

// Activations phi [n, h] with rows divided by their lengths, if asked for, and columns by powers of two, so that all
// are of order one and none of their squares leaves the range of float64. What is positive stays so. False if not
// finite.
bool of_order_one(const double* phi, int n, int h, bool normalise, std::vector<double>& to) {
  std::vector<int> power(n, 0), column(h, -(1 << 20));
  std::vector<double> length(n, 1.0);
  for (int i = 0; i < n; ++i) {
    const double* row = phi + i64(i) * h;
    double most = 0, squares = 0;
    for (int j = 0; j < h; ++j) most = std::fmax(most, std::isfinite(row[j]) ? std::fabs(row[j]) : INFINITY);
    if (!(most < INFINITY)) return false;
    if (normalise && most > 0) {
      std::frexp(most, &power[i]);
      for (int j = 0; j < h; ++j) squares += std::pow(std::ldexp(row[j], -power[i]), 2);
      length[i] = std::sqrt(squares);
    }
    for (int j = 0; j < h; ++j) {
      int own;
      std::frexp(row[j], &own);
      if (row[j] != 0) column[j] = std::max(column[j], own - power[i]);
    }
  }
  to.resize(size_t(n) * h);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < h; ++j) {
      const double x = phi[i64(i) * h + j], y = x == 0 ? 0 : std::ldexp(x, -(power[i] + column[j])) / length[i];
      to[i64(i) * h + j] = x > 0 ? std::fmax(y, std::numeric_limits<double>::denorm_min()) : y;
    }
  return true;
}

}  // namespace

void feature_sparsity(i64 N, int n, int h, const double* phi, double tau, bool normalise, double within, int threads,
                      double* out) {
  constexpr int W = WIDTH<double>;
  using V = Vec<double, W>;
  const FeatureSparsity<W> wide{n, h, tau, within, normalise}, scaled{n, h, tau, within, false};
  const FeatureSparsityLanes<W> small{n, h, tau, within, normalise};
  const bool together = small.scratch() * sizeof(V) <= MOST_TOGETHER;
  const i64 size = i64(n) * h, most = together && small.scratch() > wide.scratch() ? small.scratch() : wide.scratch();
  const i64 each = apart(most * sizeof(V)), step = together ? W : 1;
  Scratch scratch(each * threads);
  deal(threads, N, step, [&](int thread, Pieces& pieces) {
    V* block = reinterpret_cast<V*>(scratch.p + each * thread);
    pieces.each([&](i64 first) {
      if (together && first + W <= N) small(phi + first * size, size, block, out + first);
      else
        for (i64 k = first; k < N && k < first + step; ++k) out[k] = wide(phi + k * size, block);
      for (i64 k = first; k < N && k < first + step; ++k)
        if (std::vector<double> copy; out[k] != out[k] && of_order_one(phi + k * size, n, h, normalise, copy))
          out[k] = scaled(copy.data(), block);
    });
  });
}

}  // namespace fs
