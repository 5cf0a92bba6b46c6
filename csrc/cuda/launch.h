// Owns what crosses to a training kernel: one struct of words of eight bytes, as fastsgd/cuda/launch.py lays it out.
#pragma once
#include "../core/general.h"

namespace fs {

template <class T>
struct Launch {
  const i64* who;  // [count] positions of the networks to run
  i64 count;
  const i64* ids;  // [N]
  T* W;            // [N, P] read and written
  T* buffers;      // [N, buffers, P] read and written
  i64* lost;       // [N] first bad step, written for networks that are lost
  const T* base;   // [N]
  const i32* row;  // [N]
  i64 t0, t1;
  const T* multiplier;  // [Q, t1 - t0]
  const T *X, *y;       // [n, stride] and [n, labels]
  i64 n, stride, batch;
  const u32* indices;  // [index_rows, t1 - t0, batch], where the order is a table
  i64 index_rows, common;
  u64 seed;
  double slope, bound;  // of the squared loss of fused loops: 2 c; of every loss: what is lost beyond
  // of the general loop only
  const T* hyper[HYPERS];          // [N] each, or null
  Amplitude<T> label, gradient;    // base null if there is no such noise
  const T *loss_weights, *taught;  // [o], and [P] of the teacher; or null
  const bool* fixed;               // [P] or null
  T* scratch;                      // [count, ROWS] where blocks keep rows that shared memory has no room for
  double factor;                   // of the loss
};

// The sample of item b of step t.
template <class T>
FS_HD u32 drawn(const Launch<T>& job, u32 id, i64 t, u32 b) {
  u32 c[4][1] = {{u32(t / 4)}, {job.common >= 0 ? u32(job.common) : id}, {ORDER}, {b}};
  philox<1>(c, job.seed);
  const u32 q = u32(t % 4);
  return index_of(q < 2 ? (q < 1 ? c[0][0] : c[1][0]) : (q < 3 ? c[2][0] : c[3][0]), u32(job.n));
}

// The samples of one network, a step after the other from t on: a draw serves four steps.
template <class T>
struct Order {
  u64 seed;
  u32 id, n, block, word[4];

  FS_HD Order(const Launch<T>& job, u32 network, i64 t)
      : seed(job.seed), id(job.common >= 0 ? u32(job.common) : network), n(u32(job.n)), block(u32(t / 4)) {
    if (t % 4) refill();
    for (u32 k = 0; k < u32(t % 4); ++k) shift();
  }
  FS_HD u32 take(i64 t) {
    if (t % 4 == 0) refill();
    const u32 index = index_of(word[0], n);
    shift();
    return index;
  }

 private:
  FS_HD void refill() {
    u32 c[4][1] = {{block++}, {id}, {ORDER}, {0}};
    philox<1>(c, seed);
    for (int q = 0; q < 4; ++q) word[q] = c[q][0];
  }
  FS_HD void shift() { word[0] = word[1], word[1] = word[2], word[2] = word[3]; }
};

}  // namespace fs
