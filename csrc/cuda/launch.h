// Owns what crosses to a training kernel: one struct of words of eight bytes, as fastsgd/backends/cuda/structs.py lays
// it out.
#pragma once
#include "../core/general.h"

namespace fs {

// A number of the run's dtype in a word of eight bytes: converted in a kernel, it would be converted at every step.
template <class T>
struct alignas(8) Number {
  T value;
  FS_HD operator T() const { return value; }
};

template <class T>
struct Launch {
  const i64* positions;  // [count] positions of the networks to run
  i64 count;
  const i64* ids;  // [N]
  T* W;            // [N, P] read and written
  T* buffers;      // [N, buffers, P] read and written
  i64* lost;       // [N] first bad step, -1 if none, UNSETTLED; written for networks that run
  const T* base;   // [N]
  const i32* row;  // [N]
  i64 t0, t1;
  const T* multiplier;  // [Q, t1 - t0]
  const T *X, *y;       // [n, stride] and [n, labels], or those of all data sets one after the other
  i64 n, stride, batch;
  const i64* first;    // [N] row at which a network's data set begins, in programs with SETS
  const u32* indices;  // [index_rows, t1 - t0, batch], where the order is a table
  i64 index_rows, common;
  u64 seed;
  Number<T> dloss, bound;  // of the squared loss of fused loops: 2 c; of every loss: what is lost beyond
  // of the general loop only, but for `losses`
  const T* hyper[HYPERS];                   // [N] each, or null
  Amplitude<T> label, gradient;             // base null if there is no such noise
  const T *loss_weights, *teacher_weights;  // [o], and [P] of the teacher; or null
  const bool* fixed;                        // [P] or null
  const i32* ends;                          // [2 groups + 1], and of each network [N, groups, EACH]; or null
  const T* each;
  const u32* counts;  // [count_rows, t1 - t0] or null
  i64 count_rows;
  const T* losses;        // [N, LOSSES] where networks have losses of their own
  const T* constants;     // [N, OWN - 2] of a rule that was traced
  T* scratch;             // [blocks, ROWS] where blocks keep rows that do not fit in shared memory
  Number<T> factor;       // of the loss
  const double* density;  // [N] of inputs made here, their scale [N], and teachers [N, P of the teacher], in programs
  const T *scale, *teachers;  // with OWN_INPUTS; null where networks have them in common
};

// Draws samples of the network at position k.
struct Draws {
  u64 seed;
  u32 id, n;

  template <class T>
  FS_HD Draws(const Launch<T>& job, i64 k)
      : seed(job.seed), id(u32(job.common >= 0 ? job.common : job.ids[k])), n(u32(job.n)) {}

  // Samples of item b of the four steps of a block.
  FS_HD void block(u32 number, u32 b, u32 (&index)[4]) const {
    u32 c[4][1] = {{number}, {id}, {ORDER}, {b}};
    philox<1>(c, seed);
    FS_UNROLL
    for (int q = 0; q < 4; ++q) index[q] = index_of(c[q][0], n);
  }
};

// Where a table of `count` samples a step has item b of step t of network k.
template <class T>
FS_HD const u32* listed(const Launch<T>& job, i64 k, i64 t, i64 b, i64 count) {
  return job.indices + ((job.index_rows > 1 ? k : 0) * (job.t1 - job.t0) + t - job.t0) * count + b;
}

// One of four.
FS_HD u32 pick(const u32 (&index)[4], u32 q) {
  return q < 2 ? (q < 1 ? index[0] : index[1]) : (q < 3 ? index[2] : index[3]);
}

}  // namespace fs
