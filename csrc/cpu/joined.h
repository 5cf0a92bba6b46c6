// Owns the time loop of batch-1 SGD for teams whose networks are small: as many networks as a vector has lanes (a
// "bundle") are stepped together, and the sums over their lanes formed together, a network a lane of the result.
//
// What a step knows of a network besides its parameters - residual, label, step size, whether it lives - is a lane of a
// bundle's vectors. The bits are those of cpu/fused.h, which runs what does not fill a bundle.
#pragma once
#include "fused.h"

namespace fs {

template <class Model>
class Joined {
 public:
  using Tm = typename Model::Lanes;
  using T = typename Tm::T;
  using V = typename Tm::V;
  using Rest = Block<Tm, Model, true>;
  static constexpr int G = 1;                // networks that come together at least
  static constexpr int W = Tm::W, MOST = 2;  // networks in a bundle, bundles in a block
  static constexpr int VECTORS = 64 / W;     // most vectors of inputs for which there is a loop

  static bool fits(const Job<T>& job, const Model& model) {
    return job.batch == 1 && !job.full && model.C() <= VECTORS && job.rows * job.stride < i64(1) << 32;
  }
  static int side(const Job<T>&, const Model&) { return MOST * W; }
  static i64 bytes(const Job<T>& job, const Model& model) { return own_bytes(model) + Rest::bytes(job, model); }

  Joined(const Job<T>& job_, const Model& model_, char* at)
      : job(job_),
        model(model_),
        keys(job_.seed),
        rows(model_.rows()),
        far(job_.rows * job_.stride * i64(sizeof(T)) > NEAR),
        steps(loop(model_.C())),
        rest(job_, model_, at + own_bytes(model_)) {
    bundle = reinterpret_cast<Bundle*>(at), at += MOST * sizeof(Bundle);
    for (int m = 0; m < MOST; ++m, at += W * rows * sizeof(V)) bundle[m].w = reinterpret_cast<V*>(at);
    for (int row = 0; row < rows; ++row)
      for (int lane = 0; lane < W; ++lane) {
        const int p = model.at(row, lane);
        if (p >= 0) slot[p] = row * W + lane;
      }
  }

  // Run `count` networks from t0 to t1; their positions in the job are at `positions`.
  void run(const i64* positions, int count) {
    const int last = count % W,
              whole = last * 8 > W * 5 ? count : count - last;  // a bundle takes as long as 5 / 8 of it
    if (whole) run_bundles(positions, whole);
    if (whole < count) rest.run(positions + whole, count - whole);
  }

 private:
  void run_bundles(const i64* positions, int count) {
    load(positions, count);
    i64 t = job.t0;
    if (t == job.t1) return finish();
    for (int m = 0; m < bundles; ++m) {
      Bundle& q = bundle[m];
      draw(q, t);
      for (int n = 0; n < W; ++n) {
        const u32 at = u32(t) % WINDOW;
        const Row<Tm> x{job.X + q.row[n][1 + at]};
        lane(q.residual, n) = model.value(q.w + n * rows, x, nullptr)[0] - q.label[at][n];
      }
    }
    for (int part; t < job.t1 && bundles; t += part) {
      part = steps_at_once(t, job.t1, WINDOW, 1);
      for (int m = 0; m < bundles; ++m) {
        Bundle& q = bundle[m];
        if ((t + 1) % WINDOW == 0) draw(q, t + 1);
        step_sizes<W>(job, q.member, t, part, q.rate[0]);
      }
      (this->*steps)(t, part);
      close_up();
      FS_WORKED(i64(rows) * MOST * W * part);
    }
    finish();
  }

  struct Bundle {
    V residual;                      // h - y at the sample in hand
    V dloss, bound;                  // of each network's loss
    alignas(64) T label[WINDOW][W];  // of the window's samples
    alignas(64) T rate[WINDOW][W];   // -eta of the steps to come
    u32 row[W][1 + WINDOW];          // where a sample's row begins in X: the one before the window, and the window's
    i64 member[W];                   // position in the job
    u32 alive;                       // bit per network
    V* w;                            // [W, rows]
  };

  const Job<T>& job;
  const Model model;
  const Keys keys;
  const int rows;
  const bool far;
  void (Joined::* const steps)(i64, int);
  Rest rest;
  Bundle* bundle;
  int bundles = 0;
  int slot[VECTORS * 2 * W];  // [P] where a canonical parameter lives in a network's rows

  static i64 own_bytes(const Model& model) { return MOST * (sizeof(Bundle) + W * model.rows() * sizeof(V)); }
  static T& lane(V& v, int n) { return reinterpret_cast<T*>(&v)[n]; }

  void load(const i64* positions, int count) {
    bundles = (count + W - 1) / W;
    for (int m = 0; m < bundles; ++m) {
      Bundle& q = bundle[m];
      q.alive = 0;
      for (int r = 0; r < W * rows; ++r) q.w[r] = V::set(0);  // padding stays zero for good
      for (int n = 0; n < W; ++n) {
        const int k = m * W + n;
        q.member[n] = positions[k < count ? k : m * W];  // spare lanes shadow the bundle's first network
        const T* from = job.W + q.member[n] * job.P;
        T* to = reinterpret_cast<T*>(q.w + n * rows);
        for (int p = 0; p < model.P(); ++p) to[slot[p]] = from[p];
        if (k < count) q.alive |= 1u << n;
        lane(q.dloss, n) = dloss_of(job, q.member[n]), lane(q.bound, n) = bound_of(job, q.member[n]);
        q.row[n][WINDOW] = 0;
      }
    }
  }
  void finish() {
    for (int m = 0; m < bundles; ++m) retire(bundle[m], bundle[m].alive, -1);
  }
  // Write back the living networks in `which`, lost at step t or alive (-1); the broken ones stay as they were at t0.
  __attribute__((noinline)) void retire(Bundle& q, u32 which, i64 t) {
    for (int n = 0; n < W; ++n) {
      if (!(which & q.alive & 1u << n)) continue;
      const T* from = reinterpret_cast<const T*>(q.w + n * rows);
      T* to = job.W + q.member[n] * job.P;
      bool bad = false;
      for (int p = 0; p < model.P(); ++p) bad |= !finite(from[slot[p]]);
      for (int p = 0; p < model.P() && !bad; ++p) to[p] = from[slot[p]];
      job.lost[q.member[n]] = bad ? UNSETTLED : t;
    }
    q.alive &= ~which;
  }
  // Where fewer bundles hold the living, they move there.
  void close_up() {
    int living = 0;
    for (int m = 0; m < bundles; ++m) living += __builtin_popcount(bundle[m].alive);
    if (living > (bundles - 1) * W) return;
    int to = 0;
    for (int from = 0; from < bundles * W; ++from) {
      Bundle &a = bundle[from / W], &b = bundle[to / W];
      const int k = from % W, n = to % W;
      if (!(a.alive >> k & 1)) continue;
      ++to;
      if (&a == &b && k == n) continue;
      __builtin_memcpy(b.w + n * rows, a.w + k * rows, rows * sizeof(V));
      __builtin_memcpy(b.row[n], a.row[k], sizeof b.row[n]);
      lane(b.dloss, n) = lane(a.dloss, k), lane(b.bound, n) = lane(a.bound, k);
      lane(b.residual, n) = lane(a.residual, k), b.member[n] = a.member[k];
      for (int s = 0; s < WINDOW; ++s) b.label[s][n] = a.label[s][k];
      a.alive &= ~(1u << k), b.alive |= 1u << n;
    }
    bundles = (living + W - 1) / W;
  }

  // Rows and labels of the window of steps that t is in.
  void draw(Bundle& q, i64 t) {
    for (int n = 0; n < W; ++n) {
      u32* row = q.row[n];
      row[0] = row[WINDOW];
      for (int s = 0; job.indices && s < WINDOW; ++s) row[1 + s] = 0;  // outside a replay any sample will do
      draw_window<1>(job, keys, q.member + n, t, row + 1);
      for (int s = 0; s < WINDOW; ++s) q.label[s][n] = job.y[row[1 + s]], row[1 + s] *= u32(job.stride);
    }
  }

  // Steps t .. t + count - 1; each begins with the residual at its sample in hand.
  template <int C>
  __attribute__((noinline)) void run_steps(i64 t, int count) {
    const Model model = this->model;
    const T* X = job.X;
    const bool far = this->far;
    alignas(64) T step[W];
    for (int s = 0; s < count; ++s) {
      const int next = int(u32(t + s + 1) % WINDOW);
      for (Bundle *q = bundle, *end = bundle + bundles; q < end; ++q) {
        const u32 bad = beyond(q->residual, q->bound) & q->alive;
        if (__builtin_expect(bad != 0, 0)) retire(*q, bad, t + s);
        if (far) fetch(*q, next);
        (V::load(q->rate[s]) * (q->dloss * q->residual)).store(step);
        asm("" : "+m"(step));  // broadcasts are loads then, of which there are enough
        V* const w = q->w;
        const u32(*row)[1 + WINDOW] = q->row;
        const V value = joined<V>([&](int n) {
          const Row<Tm> x{X + row[n][next]}, to{X + row[n][next + 1]};
          return model.template vjp_value_parts<C>(w + n * 2 * C, x, V::set(step[n]), to);
        });
        q->residual = value - V::load(q->label[next]);
      }
    }
  }
  // Ask for the rows after the next.
  void fetch(const Bundle& q, int next) const {
    if (next + 1 >= WINDOW) return;
    for (int n = 0; n < W; ++n) ask_for(job.X + q.row[n][next + 2], job.stride);
  }

  template <int C = 1>
  static constexpr auto loop(int vectors) -> void (Joined::*)(i64, int) {
    if constexpr (C == VECTORS) return &Joined::run_steps<C>;
    else return vectors == C ? &Joined::run_steps<C> : loop<C + 1>(vectors);
  }
};

}  // namespace fs
