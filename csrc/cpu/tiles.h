// Owns the time loop of diagonal networks whose batches have the same samples for all: two vectors of networks and some
// samples at a time are a tile of sums in registers, so that a number read of X or of the weights serves several.
//
// f = sum_b e_b grad h(x_b):  df/du = v sum_b e_b x_b,  df/dv = u sum_b e_b x_b. The bits are those of cpu/fused.h,
// which runs what does not fill two vectors.
#pragma once
#include "fused.h"

namespace fs {

template <class Model>
class Tiles {
 public:
  using Tm = typename Model::Lanes;
  using T = typename Tm::T;
  using V = typename Tm::V;
  using Rest = Block<Tm, Model, true>;
  static constexpr int G = Tm::W, B = 2;            // networks in a vector, vectors side by side
  static constexpr int R = 4, M = 5, SAMPLES = 64;  // samples in a tile of values, inputs in one of sums; in a pass

  static bool fits(const Job<T>& job, const Model&) { return Rest::batches(job); }
  static int side(const Job<T>&, const Model&) { return B; }
  static i64 bytes(const Job<T>& job, const Model& model) { return own_bytes(job, model) + Rest::bytes(job, model); }

  Tiles(const Job<T>& job_, const Model& model, char* at)
      : job(job_), keys(job_.seed), d(model.inputs()), rest(job_, model, at + own_bytes(job_, model)) {
    u = reinterpret_cast<V*>(at), v = u + B * d, beta = v + B * d, sum = beta + B * d, e = sum + B * d;
    index = reinterpret_cast<u32*>(e + B * SAMPLES);
  }

  // Run `count` networks from t0 to t1; their positions in the job are at `positions`.
  void run(const i64* positions, int count) {
    if (count > G) run_pair(positions, count);
    else rest.run(positions, count);
  }

 private:
  static constexpr int K = Model::PARTIALS;

  const Job<T>& job;
  const Keys keys;
  const int d;
  Rest rest;
  V *u, *v, *beta, *sum;  // [d, B] weights, their products, and the gradient of a step
  V* e;                   // [SAMPLES, B] dloss * residual
  u32* index;             // [4, batch] samples of four steps, of minibatches only
  const T* x[SAMPLES];    // rows of a pass
  i64 member[B * G];      // position of each network in the job
  u32 alive[B];           // bit per lane
  V dloss[B], bound[B];   // of each network's loss

  static i64 own_bytes(const Job<T>& job, const Model& model) {
    const i64 draws = job.full ? 0 : 4 * job.batch;
    return ((4 * model.inputs() + SAMPLES) * B * i64(sizeof(V)) + draws * i64(sizeof(u32)) + 63) / 64 * 64;
  }

  void run_pair(const i64* positions, int count) {
    V base[B];
    for (int k = 0; k < B * G; ++k) {
      const int b = k / G, g = k % G;
      if (g == 0) alive[b] = 0;
      member[k] = positions[k < count ? k : 0];  // spare lanes shadow the first network
      if (k < count) alive[b] |= 1u << g;
      const T* from = job.W + member[k] * job.P;
      for (int j = 0; j < d; ++j) lane(u[j * B + b], g) = from[j], lane(v[j * B + b], g) = from[d + j];
      lane(base[b], g) = -job.base[member[k]];
      lane(dloss[b], g) = dloss_of(job, member[k]), lane(bound[b], g) = bound_of(job, member[k]);
    }
    for (int k = 0; k < B * d; ++k) beta[k] = u[k] * v[k];
    for (i64 t = job.t0; t < job.t1 && (alive[0] || alive[1]); ++t) {
      if (!job.full && (t == job.t0 || t % 4 == 0)) draw_batch<1>(job, keys, member, t, index);
      for (int k = 0; k < B * d; ++k) sum[k] = V::set(0);
      u32 bad[B] = {};
      for (i64 first = 0; first < job.batch; first += SAMPLES) {
        const int some = int(job.batch - first < SAMPLES ? job.batch - first : SAMPLES);
        const u32* which = job.full ? nullptr : index + t % 4 * job.batch + first;
        add(which, first, some, bad);
        FS_WORKED(B * some * d);
      }
      for (int b = 0; b < B; ++b)
        if (__builtin_expect((bad[b] & alive[b]) != 0, 0)) retire(b, bad[b] & alive[b], t);
      V rate[B];
      for (int b = 0; b < B; ++b)
        for (int g = 0; g < G; ++g) {
          const i64 k = member[b * G + g];
          const T step = lane(base[b], g) * job.multiplier[job.row[k] * (job.t1 - job.t0) + t - job.t0];
          lane(rate[b], g) = step / T(job.batch);
        }
      move(rate);
    }
    for (int b = 0; b < B; ++b) retire(b, alive[b], -1);
  }
  static T& lane(V& x, int g) { return reinterpret_cast<T*>(&x)[g]; }

  // Samples first .. first + some - 1 of a step, which are at `which`, or all that there are.
  void add(const u32* which, i64 first, int some, u32 (&bad)[B]) {
    T y[SAMPLES];
    for (int i = 0; i < some; ++i) {
      const i64 k = which ? i64(which[i]) : first + i;
      x[i] = job.X + k * job.stride, y[i] = job.y[k];
    }
    int i = 0;
    for (; i + R <= some; i += R) values<R>(i, y, bad);
    for (; i < some; ++i) values<1>(i, y, bad);
    int j = 0;
    for (; j + M <= d; j += M) accumulate<M>(j, some);
    for (; j < d; ++j) accumulate<1>(j, some);
  }

  // A tile of values, by the tree of tree_sum: partial sums FIRST, FIRST + STEP, ...
  template <int S, int FIRST, int STEP>
  FS_HD void tile(const T* const (&row)[S], V (&out)[S][B]) const {
    if constexpr (STEP == K) {
      V s[S][B];  // not `out`: what goes to memory there would do so at every turn of the loop
      FS_UNROLL
      for (int i = 0; i < S; ++i)
        for (int b = 0; b < B; ++b) s[i][b] = V::set(0);
      for (int c = FIRST; c < d; c += K) {
        const V w0 = loaded(beta[c * B]), w1 = loaded(beta[c * B + 1]);
        FS_UNROLL
        for (int i = 0; i < S; ++i) {
          const V xi = loaded(V::set(row[i][c]));
          s[i][0] = loaded(fma(w0, xi, s[i][0])), s[i][1] = loaded(fma(w1, xi, s[i][1]));
        }
      }
      FS_UNROLL
      for (int i = 0; i < S; ++i)
        for (int b = 0; b < B; ++b) out[i][b] = s[i][b];
    } else {
      V other[S][B];
      tile<S, FIRST, 2 * STEP>(row, other);
      if constexpr (2 * STEP < K) asm("" : "+m"(other));  // where it has room while the next is made
      tile<S, FIRST + STEP, 2 * STEP>(row, out);
      FS_UNROLL
      for (int i = 0; i < S; ++i)
        for (int b = 0; b < B; ++b) out[i][b] = other[i][b] + out[i][b];
    }
  }
  template <int S>
  __attribute__((noinline)) void values(int first, const T* y, u32 (&bad)[B]) {
    const T* row[S];
    for (int i = 0; i < S; ++i) row[i] = x[first + i];
    V h[S][B];
    tile<S, 0, 1>(row, h);
    FS_UNROLL
    for (int i = 0; i < S; ++i)
      for (int b = 0; b < B; ++b) {
        const V r = h[i][b] - V::set(y[first + i]);
        bad[b] |= beyond(r, bound[b]);
        e[(first + i) * B + b] = dloss[b] * r;
      }
  }
  // sum += e x for S inputs from j on, samples in order.
  template <int S>
  __attribute__((noinline)) void accumulate(int j, int some) {
    V s[S][B];
    FS_UNROLL
    for (int m = 0; m < S; ++m)
      for (int b = 0; b < B; ++b) s[m][b] = sum[(j + m) * B + b];
    for (int i = 0; i < some; ++i) {
      const T* row = x[i] + j;
      const V e0 = loaded(e[i * B]), e1 = loaded(e[i * B + 1]);
      FS_UNROLL
      for (int m = 0; m < S; ++m) {
        const V xm = loaded(V::set(row[m]));
        s[m][0] = fma(e0, xm, s[m][0]), s[m][1] = fma(e1, xm, s[m][1]);
      }
    }
    FS_UNROLL
    for (int m = 0; m < S; ++m)
      for (int b = 0; b < B; ++b) sum[(j + m) * B + b] = s[m][b];
  }
  void move(const V (&rate)[B]) {
    for (int j = 0; j < d; ++j)
      for (int b = 0; b < B; ++b) {
        const int k = j * B + b;
        const V g = rate[b] * sum[k], uk = u[k], vk = v[k], u1 = fma(g, vk, uk), v1 = fma(g, uk, vk);
        u[k] = u1, v[k] = v1, beta[k] = u1 * v1;
      }
  }
  // Write back the networks in lanes `which` of vector b, lost at step t or alive (-1); broken ones stay as at t0.
  __attribute__((noinline)) void retire(int b, u32 which, i64 t) {
    for (int g = 0; g < G; ++g) {
      if (!(which >> g & 1)) continue;
      const i64 k = member[b * G + g];
      bool bad = false;
      for (int j = 0; j < d; ++j) bad |= !finite(lane(u[j * B + b], g)) || !finite(lane(v[j * B + b], g));
      T* to = job.W + k * job.P;
      for (int j = 0; j < d && !bad; ++j) to[j] = lane(u[j * B + b], g), to[d + j] = lane(v[j * B + b], g);
      job.lost[k] = bad ? UNSETTLED : t;
    }
    alive[b] &= ~which;
  }
};

}  // namespace fs
