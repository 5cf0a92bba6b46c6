// Owns sample orders made of permutations, as tables: one a step (batches without replacement) or one an epoch.
#include "../core/permutation.h"
#include "arrays.h"
#include "metrics.h"
#include "threads.h"

namespace py = pybind11;
using namespace fs;

namespace {

py::array_t<u32> permuted_order(u64 seed, const py::array& ids, i64 t0, i64 t1, u32 n, i64 batch, bool epochs,
                                int threads) {
  const i64 N = ids.size(), row = (t1 - t0) * batch;
  const u32* who = data<const u32>(ids, "ids", N);
  if (t0 < 0 || t1 < t0 || n < 1 || batch < 1 || threads < 1 || (!epochs && batch > n))
    throw std::invalid_argument("sizes are off");
  const PermutedOrder order{seed, t0, t1, batch, n, epochs};
  const Domain domain = Domain::of(n);
  py::array_t<u32> out({N, t1 - t0, batch});
  u32* to = out.mutable_data();
  py::gil_scoped_release release;
  constexpr int R = 8;  // networks side by side
  deal(threads, N, R, [&](int, Pieces& pieces) {
    pieces.each([&](i64 first) {
      if (first + R <= N) fill<R>(order, domain, who + first, to + first * row);
      else
        for (i64 k = first; k < N; ++k) fill<1>(order, domain, who + k, to + k * row);
      FS_WORKED(R * row);
    });
  });
  return out;
}

}  // namespace

void bind_orders(py::module_& m) { m.def("permuted_order", &permuted_order); }
