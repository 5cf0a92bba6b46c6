// Owns draws of many networks at once: normal ones, permutations, and orders made of these as tables, one a step
// (batches without replacement) or one an epoch.
#include "../core/normal.h"
#include "../core/permutation.h"
#include "kernels.h"
#include "starts.h"
#include "threads.h"

namespace fs {

namespace {

constexpr int TOGETHER = 8;  // networks drawn for at once; those left over are drawn for one by one
constexpr i64 PIECE = 1024;  // networks that one thread draws for

template <int R>
void normals_of(u64 seed, const u32* ids, i64 t0, i64 t1, u32 stream, u32 item, double* to, i64 row) {
  for (i64 block = t0 / 2; 2 * block < t1; ++block) {
    u32 c[4][R];
    double pair[2][R];
    for (int k = 0; k < R; ++k) c[0][k] = u32(block), c[1][k] = ids[k], c[2][k] = stream, c[3][k] = item;
    draw_normals(seed, c, pair[0], R);
    for (i64 t = 2 * block; t < 2 * block + 2; ++t)
      if (t >= t0 && t < t1)
        for (int k = 0; k < R; ++k) to[k * row + t - t0] = pair[t % 2][k];
  }
}

// The start of R networks: k is the first of them, `to` its row.
template <int R, class T>
bool started(u64 seed, const u32* keys, const std::vector<Group>& groups, i64 k, i64 P, T* to) {
  constexpr i64 STRETCH = 128;  // parameters drawn at a time
  double z[R][STRETCH], mean[R], deviation[R];
  bool fine = true;
  i64 at = 0;
  for (const Group& group : groups) {
    bool drawn = false;
    for (int r = 0; r < R; ++r) {
      mean[r] = group.mean[group.own_mean ? k + r : 0] + 0.0;  // a mean of -0 is 0
      deviation[r] = group.deviation[group.own_deviation ? k + r : 0];
      drawn |= deviation[r] != 0;
    }
    for (i64 j = 0; j < group.size; j += STRETCH, FS_WORKED(R * STRETCH)) {
      const i64 count = group.size - j < STRETCH ? group.size - j : STRETCH;
      if (drawn) normals_of<R>(seed, keys + k, at + j, at + j + count, INIT, 0, z[0], STRETCH);
      for (int r = 0; r < R; ++r) {
        for (i64 i = 0; i < count; ++i) {
          const T w = T(drawn ? z[r][i] * deviation[r] + mean[r] : mean[r]);
          fine &= w - w == 0;
          to[r * P + at + j + i] = w;
        }
      }
    }
    at += group.size;
  }
  return fine;
}

template <int R>
void permuted(u64 seed, const u32* ids, u32 key, const Domain& d, const u32* positions, i64 count, u32 item, u32* to) {
  u32 network_ids[R], keys[MOST_ROUNDS][R];
  for (int k = 0; k < R; ++k) network_ids[k] = ids[k];
  permutation_keys(d, seed, network_ids, key, item, keys);
  for (i64 j = 0; j < count; ++j) {
    u32 i[R];
    for (int k = 0; k < R; ++k) i[k] = positions[j];
    permute(d, keys, i);
    for (int k = 0; k < R; ++k) to[k * count + j] = i[k];
  }
}

}  // namespace

void normals(u64 seed, i64 N, const u32* ids, i64 t0, i64 t1, u32 stream, u32 item, int threads, double* out) {
  const i64 count = t1 - t0;
  deal(threads, N, PIECE, [&](int, Pieces& pieces) {
    pieces.each([&](i64 k) {
      const i64 end = k + PIECE < N ? k + PIECE : N;
      for (; k + TOGETHER <= end; k += TOGETHER)
        normals_of<TOGETHER>(seed, ids + k, t0, t1, stream, item, out + k * count, count);
      for (; k < end; ++k) normals_of<1>(seed, ids + k, t0, t1, stream, item, out + k * count, count);
      FS_WORKED(PIECE * count);
    });
  });
}

template <class T>
bool starts(u64 seed, i64 N, const u32* keys, const std::vector<Group>& groups, int threads, T* out) {
  i64 P = 0;
  for (const Group& group : groups) P += group.size;
  const i64 some = PIECE * TOGETHER / P, piece = some < 1 ? TOGETHER : some * TOGETHER;
  std::atomic<bool> fine{true};
  deal(threads, N, piece, [&](int, Pieces& pieces) {
    pieces.each([&](i64 k) {
      const i64 end = k + piece < N ? k + piece : N;
      bool own = true;
      for (; k + TOGETHER <= end; k += TOGETHER) own &= started<TOGETHER>(seed, keys, groups, k, P, out + k * P);
      for (; k < end; ++k) own &= started<1>(seed, keys, groups, k, P, out + k * P);
      if (!own) fine.store(false, std::memory_order_relaxed);
    });
  });
  return fine.load();
}
template bool starts<float>(u64, i64, const u32*, const std::vector<Group>&, int, float*);
template bool starts<double>(u64, i64, const u32*, const std::vector<Group>&, int, double*);

void permuted_orders(const PermutedOrder& order, i64 N, const u32* ids, int threads, u32* out) {
  const Domain domain = Domain::of(order.n);
  const i64 row = (order.t1 - order.t0) * order.batch;
  deal(threads, N, TOGETHER, [&](int, Pieces& pieces) {
    pieces.each([&](i64 first) {
      if (first + TOGETHER <= N) fill<TOGETHER>(order, domain, ids + first, out + first * row);
      else
        for (i64 k = first; k < N; ++k) fill<1>(order, domain, ids + k, out + k * row);
      FS_WORKED(TOGETHER * row);
    });
  });
}

void permutations(u64 seed, i64 N, const u32* ids, u32 key, u32 n, i64 m, const u32* positions, u32 item, u32* out) {
  const Domain d = Domain::of(n);
  i64 k = 0;
  for (; k + TOGETHER <= N; k += TOGETHER) permuted<TOGETHER>(seed, ids + k, key, d, positions, m, item, out + k * m);
  for (; k < N; ++k) permuted<1>(seed, ids + k, key, d, positions, m, item, out + k * m);
}

}  // namespace fs
