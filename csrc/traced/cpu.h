// Owns what a traced program is compiled with on a CPU: the core's headers, and the names under which it is called.
#pragma once
#include "../core/functions.h"
#include "../core/sample.h"
#include "../core/sink.h"
#include "../core/team.h"

#define FS_EXPORT extern "C" __attribute__((visibility("default")))

// forward, vjp of `Model<Tm>` for vectors of W numbers, as core/traced.h calls them.
#define FS_TRACED_MODEL(Model, T, W)                                                                   \
  FS_EXPORT void forward_##W(const fs::Vec<T, W>* w, const fs::Vec<T, W>* x, fs::Vec<T, W>* residuals, \
                             fs::Vec<T, W>* out) {                                                     \
    Model<fs::Team<T, W, 1>>().forward(w, fs::Columns<fs::Team<T, W, 1>>{x}, residuals, out);          \
  }                                                                                                    \
  FS_EXPORT void vjp_##W(const fs::Vec<T, W>* w, const fs::Vec<T, W>* x, const fs::Vec<T, W>* g,       \
                         fs::Vec<T, W>* residuals, fs::Vec<T, W>* to) {                                \
    Model<fs::Team<T, W, 1>>().vjp(w, fs::Columns<fs::Team<T, W, 1>>{x}, g, residuals,                 \
                                   fs::Accumulate<fs::Vec<T, W>>{to});                                 \
  }
// dloss of `Loss<Tm>`, for networks that share their bound, and for networks that have numbers of their own.
#define FS_TRACED_LOSS(Loss, T, W)                                                                          \
  FS_EXPORT fs::u32 dloss_##W(const fs::Vec<T, W>* f, const fs::Vec<T, W>* y, T bound, fs::Vec<T, W>* g) {  \
    return Loss<fs::Team<T, W, 1>>().dloss(f, y, bound, g, (const fs::Vec<T, W>*)nullptr);                  \
  }                                                                                                         \
  FS_EXPORT fs::u32 own_dloss_##W(const fs::Vec<T, W>* f, const fs::Vec<T, W>* y, const fs::Vec<T, W>* own, \
                                  fs::Vec<T, W>* g) {                                                       \
    return Loss<fs::Team<T, W, 1>>().dloss(f, y, *own, g, own + 1);                                         \
  }
// vjp of `Penalty<Tm>`.
#define FS_TRACED_PENALTY(Penalty, T, W)                                                            \
  FS_EXPORT void penalty_##W(const fs::Vec<T, W>* w, fs::Vec<T, W>* residuals, fs::Vec<T, W>* to) { \
    Penalty<fs::Team<T, W, 1>>().vjp(w, residuals, fs::Accumulate<fs::Vec<T, W>>{to});              \
  }
// move of `Rule<Tm>`.
#define FS_TRACED_RULE(Rule, T, W)                                                                                \
  FS_EXPORT void move_##W(int begin, int end, int P, const bool* fixed, fs::Vec<T, W>* w, const fs::Vec<T, W>* g, \
                          fs::Vec<T, W>* state, const fs::Vec<T, W>* numbers) {                                   \
    Rule<fs::Team<T, W, 1>>().move(begin, end, P, fixed, w, g, state, numbers);                                   \
  }
