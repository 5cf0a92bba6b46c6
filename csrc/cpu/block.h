// Owns the time loop on one CPU thread: a block of networks is packed into the cache, run from t0 to t1, and unpacked.
//
// A vector holds Tm::networks networks (a "group"); M groups are stepped side by side, first all their values, then all
// their updates, so that the latency of one group's sums hides behind the work of the others.
#pragma once
#include "../core/philox.h"
#include "../core/rules/step.h"
#include "job.h"

namespace fs {

constexpr int CHUNK = 64;  // steps whose draws and step sizes are prepared at once

// How many networks' worth of everything one thread needs, in vectors; the plan states it in bytes.
template <class Tm, class Model, int M>
struct Block {
  using T = typename Tm::T;
  using V = typename Tm::V;
  static constexpr int G = Tm::networks;

  const Job<T>& job;
  const Model model;
  V *w, *kept, *gradient, *columns;  // [M, rows], [M, kept], [M, rows], [M, stride]
  T* rate;                           // [M, CHUNK, G] -eta
  u32* index;                        // [M, CHUNK or 1 * batch, G]
  i64 member[M][G];                  // position of each network in the job
  u32 alive[M];                      // bit per lane
  int active[M], groups;

  static i64 chunk(const Job<T>& job) { return job.batch == 1 ? CHUNK : 4; }
  static i64 vectors(const Job<T>& job, const Model& model) {
    return M * (2 * model.rows() + model.kept() + (G > 1 ? job.stride : 0));
  }
  static i64 bytes(const Job<T>& job, const Model& model) {
    i64 draws = job.full ? 0 : M * chunk(job) * job.batch * G;
    return vectors(job, model) * sizeof(V) + M * CHUNK * G * sizeof(T) + (draws + 32 * G) * sizeof(u32);
  }

  Block(const Job<T>& job_, const Model& model_, char* scratch) : job(job_), model(model_) {
    V* v = reinterpret_cast<V*>(scratch);
    w = v, v += M * model.rows();
    gradient = v, v += M * model.rows();
    kept = v, v += M * model.kept();
    columns = v, v += G > 1 ? M * job.stride : 0;
    rate = reinterpret_cast<T*>(v);
    index = reinterpret_cast<u32*>(rate + M * CHUNK * G);
  }

  // ---- packing: canonical parameters [P] of network g <-> lanes of a group's rows
  T& lane(int m, int row, int k) { return reinterpret_cast<T*>(w + m * model.rows() + row)[k]; }
  void pack(int m, int g) {
    const T* from = job.W + member[m][g] * job.P;
    for (int p = 0; p < model.P(); ++p) {
      int row, k;
      model.slot(p, row, k);
      if (k >= 0) lane(m, row, g * Tm::L + k) = from[p];
      else
        for (k = 0; k < Tm::L; ++k) lane(m, row, g * Tm::L + k) = from[p];
    }
  }
  void unpack(int m, int g) {
    T* to = job.W + member[m][g] * job.P;
    for (int p = 0; p < model.P(); ++p) {
      int row, k;
      model.slot(p, row, k);
      to[p] = lane(m, row, g * Tm::L + (k < 0 ? 0 : k));
    }
  }

  // ---- draws and step sizes of steps t .. t + count - 1
  void prepare(i64 t, int count) {
    for (int a = 0; a < groups; ++a) {
      int m = active[a];
      for (int g = 0; g < G; ++g) {
        i64 k = member[m][g];
        const T* multiplier = job.multiplier + job.row[k] * (job.t1 - job.t0) + (t - job.t0);
        T* out = rate + m * CHUNK * G + g;
        for (int s = 0; s < count; ++s) out[s * G] = -(job.base[k] * multiplier[s]);
        if (!job.full) indices(k, t, count, index + m * chunk(job) * job.batch * G + g);
      }
    }
  }
  void indices(i64 k, i64 t, int count, u32* out) {
    const i64 B = job.batch;
    if (job.indices) {
      const u32* from = job.indices + (((job.index_rows > 1 ? k : 0) * (job.t1 - job.t0)) + t - job.t0) * B;
      for (i64 s = 0; s < count * B; ++s) out[s * G] = from[s];
      return;
    }
    const u32 id = u32(job.common >= 0 ? job.common : job.ids[k]);
    u32 drawn[CHUNK + 32];
    const u32 first = u32(t / 4), skip = u32(t % 4);
    for (i64 b = 0; b < B; ++b) {
      for (u32 at = 0; at < skip + count; at += 32) draw_indices<8>(job.seed, id, first + at / 4, u32(b), u32(job.n), drawn + at, 1);
      for (int s = 0; s < count; ++s) out[(s * B + b) * G] = drawn[skip + s];
    }
  }

  // ---- samples: one row for all networks of the group, or one row each, turned into columns
  template <bool SHARED>
  auto input(int m, const u32* at) {
    if constexpr (SHARED) {
      (void)m;
      return Row<Tm>{job.X + i64(at[0]) * job.stride};
    } else {
      return Columns<Tm>{columns + m * job.stride};
    }
  }
  template <bool SHARED>
  V fetch(int m, const u32* at) {  // labels of the group; fills its columns
    if constexpr (SHARED) {
      (void)m;
      return V::set(job.y[at[0]]);
    } else {
      alignas(64) T label[G];
      T* to = reinterpret_cast<T*>(columns + m * job.stride);
      const int width = model.inputs();
      for (int g = 0; g < G; ++g) {
        const T* x = job.X + i64(at[g]) * job.stride;
        for (int j = 0; j < width; ++j) to[j * G + g] = x[j];
        label[g] = job.y[at[g]];
      }
      return V::load(label);
    }
  }

  static u32 lanes_of(int g) { return ((1u << Tm::L) - 1u) << (g * Tm::L); }

  // ---- loss of a network: its parameters are written back as they are, and its lanes no longer count
  __attribute__((noinline)) void retire(int m, u32 bad, i64 t) {
    for (int g = 0; g < G; ++g) {
      const u32 mine = lanes_of(g);
      if (!(bad & mine)) continue;
      unpack(m, g);
      job.lost[member[m][g]] = t;
      alive[m] &= ~mine;
    }
  }
  void compress() {
    int left = 0;
    for (int a = 0; a < groups; ++a)
      if (alive[active[a]]) active[left++] = active[a];
    groups = left;
  }

  template <bool SHARED>
  void steps_sgd(i64 t, int count) {
    const Model model = this->model;  // a copy of its own lets the compiler keep sizes in registers
    const V slope = V::set(job.slope);
    const T bound = job.bound;
    const int rows = model.rows(), held = model.kept();
    V g[M];
    for (int s = 0; s < count && groups; ++s) {
      bool died = false;
      for (int a = 0; a < groups; ++a) {
        const int m = active[a];
        const u32* at = index + (m * CHUNK + s) * G;
        V y = fetch<SHARED>(m, at);
        V r = model.value(w + m * rows, input<SHARED>(m, at), kept + m * held) - y;
        u32 bad = beyond(r, bound) & alive[m];
        if (__builtin_expect(bad != 0, 0)) {
          retire(m, bad, t + s);
          died |= !alive[m];
        }
        const T* eta = rate + (m * CHUNK + s) * G;
        V e;
        if constexpr (G == 1) e = V::set(*eta);
        else e = V::load(eta);
        g[m] = e * (slope * r);
      }
      if (__builtin_expect(died, 0)) compress();
      for (int a = 0; a < groups; ++a) {
        const int m = active[a];
        const u32* at = index + (m * CHUNK + s) * G;
        model.pull(w + m * rows, input<SHARED>(m, at), g[m], kept + m * held, Apply<V>{w + m * rows});
      }
    }
  }

  template <bool SHARED>
  void steps_batch(i64 t, int count) {
    const Model model = this->model;
    const V slope = V::set(job.slope);
    const int rows = model.rows(), held = model.kept();
    for (int s = 0; s < count && groups; ++s) {
      bool died = false;
      for (int a = 0; a < groups; ++a) {
        const int m = active[a];
        V *wm = w + m * rows, *gm = gradient + m * rows, *km = kept + m * held;
        for (int r = 0; r < rows; ++r) gm[r] = V::set(0);
        u32 bad = 0;
        for (i64 b = 0; b < job.batch; ++b) {
          const u32 all[1] = {u32(b)};
          const u32* at = job.full ? all : index + ((m * chunk(job) + s) * job.batch + b) * G;
          V y = fetch<SHARED>(m, at);
          auto x = input<SHARED>(m, at);
          V r = model.value(wm, x, km) - y;
          bad |= beyond(r, job.bound);
          gather_gradient(model, wm, gm, x, r, slope, km);
        }
        if (__builtin_expect((bad & alive[m]) != 0, 0)) {
          retire(m, bad & alive[m], t + s);
          died |= !alive[m];
        }
        alignas(64) T eta[G];
        for (int g = 0; g < G; ++g) eta[g] = rate[(m * CHUNK + s) * G + g] / T(job.batch);
        V e;
        if constexpr (G == 1) e = V::set(*eta);
        else e = V::load(eta);
        if (alive[m]) apply_gradient(model, wm, gm, e);
      }
      if (died) compress();
    }
  }

  // Pack `count` networks; network k of the block is at position who(k) of the job.
  template <class Who>
  void load(int count, Who who) {
    groups = (count + G - 1) / G;
    for (i64 k = 0; k < i64(groups) * model.rows(); ++k) w[k] = V::set(0);  // padding stays zero for good
    for (int m = 0; m < groups; ++m) {
      active[m] = m, alive[m] = 0;
      for (int g = 0; g < G; ++g) {
        const int k = m * G + g;
        member[m][g] = who(k < count ? k : m * G);  // spare lanes shadow the group's first network
        pack(m, g);
        if (k < count) alive[m] |= lanes_of(g);
      }
    }
  }

  // Run `count` networks from t0 to t1; their positions in the job are at `who`.
  template <bool SHARED, bool BATCH>
  void run(const i64* who, int count) {
    load(count, [&](int k) { return who[k]; });
    const i64 longest = BATCH ? chunk(job) : CHUNK;
    for (i64 t = job.t0; t < job.t1 && groups;) {
      int part = int(job.t1 - t < longest ? job.t1 - t : longest);
      prepare(t, part);
      if constexpr (BATCH) steps_batch<SHARED>(t, part);
      else steps_sgd<SHARED>(t, part);
      t += part;
    }
    for (int a = 0; a < groups; ++a)
      for (int g = 0; g < G; ++g)
        if (alive[active[a]] & lanes_of(g)) unpack(active[a], g);
  }
};

}  // namespace fs
