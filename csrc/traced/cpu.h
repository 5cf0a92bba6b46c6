// Owns what a traced program is compiled with on a CPU: the core's headers, and the names under which it is called.
#pragma once
#include "../core/functions.h"
#include "../core/sample.h"
#include "../core/sink.h"
#include "../core/team.h"

#define FS_EXPORT extern "C" __attribute__((visibility("default")))

// forward, pull of `Model<Tm>` for vectors of W numbers, as core/traced.h calls them.
#define FS_TRACED_MODEL(Model, T, W)                                                                                   \
  FS_EXPORT void forward_##W(const fs::Vec<T, W>* w, const fs::Vec<T, W>* x, fs::Vec<T, W>* kept,                      \
                             fs::Vec<T, W>* out) {                                                                     \
    Model<fs::Team<T, W, 1>>().forward(w, fs::Columns<fs::Team<T, W, 1>>{x}, kept, out);                               \
  }                                                                                                                    \
  FS_EXPORT void pull_##W(const fs::Vec<T, W>* w, const fs::Vec<T, W>* x, const fs::Vec<T, W>* g, fs::Vec<T, W>* kept, \
                          fs::Vec<T, W>* to) {                                                                         \
    Model<fs::Team<T, W, 1>>().pull(w, fs::Columns<fs::Team<T, W, 1>>{x}, g, kept, fs::Accumulate<fs::Vec<T, W>>{to}); \
  }
// slope of `Loss<Tm>`.
#define FS_TRACED_LOSS(Loss, T, W)                                                                         \
  FS_EXPORT fs::u32 slope_##W(const fs::Vec<T, W>* f, const fs::Vec<T, W>* y, T bound, fs::Vec<T, W>* g) { \
    return Loss<fs::Team<T, W, 1>>().slope(f, y, bound, g);                                                \
  }
// pull of `Penalty<Tm>`.
#define FS_TRACED_PENALTY(Penalty, T, W)                                                       \
  FS_EXPORT void penalty_##W(const fs::Vec<T, W>* w, fs::Vec<T, W>* kept, fs::Vec<T, W>* to) { \
    Penalty<fs::Team<T, W, 1>>().pull(w, kept, fs::Accumulate<fs::Vec<T, W>>{to});             \
  }
