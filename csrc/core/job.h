// Owns the one plain struct that crosses from Python to the kernels: sizes, pointers, and the steps to run.
#pragma once
#include "contract.h"
#include "macros.h"

namespace fs {

// Shape of a model: `family` names the header in core/models, the rest are its sizes.
struct Shape {
  enum Family { DIAGONAL, RELU2 } family;
  int d, h, hidden_bias, output_bias;
};

// Layout: `lanes` networks side by side in a vector, or `team` lanes on one network. (1, 1) is scalar code.
struct Layout {
  int lanes, team;
  constexpr bool scalar() const { return lanes == 1 && team == 1; }
};

// What `lost` says of a network that has a number that is not finite: it is lost at a step before the launch's end, or
// before the one at which a sample was out of bounds. In memory it is as it was at t0; the host finds the step.
constexpr i64 UNSETTLED = FS_UNSETTLED;

// A loop that was compiled for one run (csrc/compiled), by addresses; `run` is null where there is none. `job` points
// to the Job of a fused loop, or to the GeneralJob of any other.
struct CompiledLoop {
  i64 (*bytes)(const void* job);  // scratch of a block of networks
  i64 (*side)(const void* job);   // vectors of networks in it, at most
  void (*run)(const void* job, char* scratch, const i64* positions, int networks);  // from t0 to t1
};

template <class T>
struct Job {
  Shape shape;
  Layout layout;
  CompiledLoop loop;
  int threads;
  // networks
  i64 N, P;
  const i64* ids;  // [N]
  T* W;            // [N, P] read and written
  i64* lost;       // [N] first bad step, -1 if none, UNSETTLED; read and written
  const T* base;   // [N]
  const i32* row;  // [N] row of `multiplier`
  // time
  i64 t0, t1;
  const T* multiplier;  // [Q, t1 - t0]
  // samples
  const T* X;          // [rows, stride], zeros from column d (or a one, then zeros, if there are hidden biases)
  const T* y;          // [rows]
  i64 n, stride;       // samples that a network draws from
  i64 rows;            // n, or those of all data sets one after the other
  const i64* first;    // [N] row at which a network's data set begins, or null: all share one
  const u32* indices;  // [index_rows, t1 - t0, batch], or null: draw them
  i64 index_rows;
  i64 batch;   // samples in a step
  bool full;   // the whole data set in a step
  i64 common;  // network id whose draws all share, or -1
  u64 seed;
  // step: w += -(base * multiplier) * mean over the batch of dloss * residual * grad h
  T dloss, bound;
  const T* losses;  // [N, 2] bound and factor c of each network, where these are its own: dloss is 2 c then; or null
  const T* quads;   // [n, 4] inputs and label side by side, where a sample has so few; or null
};

}  // namespace fs
