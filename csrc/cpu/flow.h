// Owns gradient flow of any family: steps of an adaptive Runge-Kutta pair, one network a lane.
//
// A vector holds W networks, each with a step size of its own. A step of the run is a stretch of time: steps of the
// pair end where it ends. A lane whose network has come to the end takes the next one. Parallel: threads over networks,
// one network a lane.
#pragma once
#include "../core/flow.h"
#include "general.h"

namespace fs {

// Where a vector of networks keeps its numbers: [P] each unless it says otherwise.
template <class V>
struct FlowRows {
  V *w, *start, *next, *at;  // now; at the start of the stretch; after a step; within it
  V* k[7];                   // gradients of the stages
  V *x, *residuals, *out, *dloss, *y, *loss;
};

template <class T, int W>
class Flow {
  using V = Vec<T, W>;
  using Tm = Team<T, W, 1>;
  using Pair = DormandPrince;

  const FlowJob<T>& flow;
  const Job<T>& job;
  const Family<T, W>& model;
  FlowRows<V> r;
  // of each lane
  V rtol, atol, decay;
  u32 live = 0;  // a bit each
  i64 member[W] = {}, step[W] = {}, tries[W] = {};
  T since[W] = {}, span[W] = {};  // time in this stretch, and its length
  struct Carried {
    T pace, taken, refused;
  } now[W] = {}, before[W] = {};  // before: at the start of the stretch
  bool again[W] = {};             // whether the last step was refused

 public:
  Flow(const FlowJob<T>& f, const Family<T, W>& m, const FlowRows<V>& rows)
      : flow(f), job(f.all.job), model(m), r(rows), rtol(V::set(0)), atol(V::set(1)), decay(V::set(0)) {
    for (int p = 0; p < model.P; ++p) r.w[p] = V::set(0);
    for (int i = 0; i < f.all.loss_numbers; ++i) r.loss[i] = V::set(0);
  }

  // Run the networks that `take` gives, positions in the job, until it gives -1.
  template <class Take>
  void run(Take take) {
    bool more = true;
    do {
      u32 fresh = 0;
      for (int g = 0; g < W && more; ++g)
        if (!(live >> g & 1)) {
          const i64 k = take();
          if (k < 0) more = false;
          else if (load(g, k)) fresh |= 1u << g;
        }
      if (fresh) begin(fresh);
      if (live) attempt();
    } while (live || more);
  }

 private:
  static T& lane(V& v, int g) { return reinterpret_cast<T*>(&v)[g]; }
  T& carried(i64 k, int which) const { return flow.carried[(k * FlowJob<T>::CARRIED + which) * model.P]; }
  static V mask(u32 bits) {
    V m;
    for (int g = 0; g < W; ++g) lane(m, g) = T(bits >> g & 1);
    return m;
  }
  static V where(V m, V yes, V no) { return choose(m.a > V::set(0).a, yes, no); }

  // Put network k into lane g; false if it has no time to go.
  bool load(int g, i64 k) {
    member[g] = k, step[g] = job.t0 - 1;
    now[g] = {carried(k, 0), carried(k, 1), carried(k, 2)};
    for (int p = 0; p < model.P; ++p) lane(r.w[p], g) = job.W[k * model.P + p];
    for (int i = 0; i < flow.all.loss_numbers; ++i) lane(r.loss[i], g) = flow.all.losses[k * flow.all.loss_numbers + i];
    lane(rtol, g) = flow.rtol[k], lane(atol, g) = flow.atol[k];
    lane(decay, g) = flow.all.hyper[WEIGHT_DECAY] ? flow.all.hyper[WEIGHT_DECAY][k] : T(0);
    live |= 1u << g;
    return stretch(g);
  }
  // Begin the next stretch of lane g; false if there is none, and the network is written back.
  FS_APART bool stretch(int g) {
    const i64 k = member[g];
    do ++step[g];
    while (step[g] < job.t1 && !((span[g] = length(k, step[g])) > 0));
    if (step[g] == job.t1) return retire(g, r.w, now[g], -1);
    since[g] = 0, tries[g] = 0, again[g] = false, before[g] = now[g];
    for (int p = 0; p < model.P; ++p) lane(r.start[p], g) = lane(r.w[p], g);
    return true;
  }
  T length(i64 k, i64 t) const { return job.base[k] * job.multiplier[job.row[k] * (job.t1 - job.t0) + t - job.t0]; }
  // Write lane g back, lost at step t or at the end (-1).
  FS_APART bool retire(int g, V* from, const Carried& c, i64 t) {
    const i64 k = member[g];
    for (int p = 0; p < model.P; ++p) job.W[k * model.P + p] = lane(from[p], g);
    carried(k, 0) = c.pace, carried(k, 1) = c.taken, carried(k, 2) = c.refused;
    job.lost[k] = t;
    live &= ~(1u << g);
    return false;
  }
  void lose(int g) { retire(g, r.start, before[g], step[g]); }

  // Take sample i in hand: one for all lanes, or that of each network's own data set.
  void fetch(i64 i, int d, int labels) {
    if (!job.first) {
      for (int j = 0; j < d; ++j) r.x[j] = V::set(job.X[i * job.stride + j]);
      for (int j = 0; j < labels; ++j) r.y[j] = V::set(job.y[i * labels + j]);
      return;
    }
    for (int g = 0; g < W; ++g) {
      const i64 row = job.first[member[g]] + i;
      for (int j = 0; j < d; ++j) lane(r.x[j], g) = job.X[row * job.stride + j];
      for (int j = 0; j < labels; ++j) lane(r.y[j], g) = job.y[row * labels + j];
    }
  }
  // to = gradient of the mean loss at parameters `at`; the lanes in which a sample is out of bounds.
  FS_APART u32 gradient(const V* at, V* to) {
    const int P = model.P, d = model.inputs, o = model.outputs, labels = flow.all.labels;
    for (int p = 0; p < P; ++p) to[p] = V::set(0);
    u32 bad = 0;
    const V share = V::set(T(1) / T(job.n));
    for (i64 i = 0; i < job.n; ++i) {
      fetch(i, d, labels);
      model.forward(at, r.x, r.residuals, r.out);
      bad |= flow.all.losses ? model.dloss(flow.all.loss, r.out, r.y, r.dloss, r.loss)
                             : model.dloss(flow.all.loss, r.out, r.y, r.dloss);
      for (int k = 0; k < o; ++k) r.dloss[k] = share * r.dloss[k];
      model.vjp(at, r.x, r.dloss, r.residuals, to);
      FS_WORKED(P);
    }
    model.penalise(flow.all.penalty, at, r.residuals, to);
    if (flow.all.update.has(WEIGHT_DECAY))
      for (int p = 0; p < P; ++p)
        if (flow.all.update.free(p)) to[p] = fma(decay, at[p], to[p]);
    return bad;
  }
  // Root of the mean square of f(p) over what is tolerated at parameters of size `size(p)`.
  template <class F, class S>
  V error(F f, S size) const {
    const V sum = tree_sum<Tm>(model.P, [&](int p, V s) {
      const V e = f(p) / fma(rtol, size(p), atol);
      return fma(e, e, s);
    });
    return sqrt(sum / V::set(T(model.P)));
  }
  // The same of v [P] beside the parameters in hand.
  FS_APART V beside_w(const V* v) const {
    return error([&](int p) { return v[p]; }, [&](int p) { return abs(r.w[p]); });
  }
  static V larger(V a, V b) { return choose(a.a > b.a, a, b); }

  // First gradients of the lanes `fresh`, and step sizes for those that have none: Hairer, Norsett, Wanner, II.4.
  void begin(u32 fresh) {
    const u32 bad = gradient(r.w, r.next) & fresh;
    const V m = mask(fresh);
    for (int p = 0; p < model.P; ++p) r.k[0][p] = where(m, r.next[p], r.k[0][p]);
    for (int g = 0; g < W; ++g)
      if (bad >> g & 1) lose(g);
    u32 paceless = 0;
    for (int g = 0; g < W; ++g) paceless |= u32(now[g].pace == 0) << g;
    paceless &= fresh & live;
    if (!paceless) return;
    V d0 = beside_w(r.w), d1 = beside_w(r.k[0]), h;
    for (int g = 0; g < W; ++g) {
      const T a = lane(d0, g), b = lane(d1, g), first = a < T(1e-5) || b < T(1e-5) ? T(1e-6) : T(0.01) * a / b;
      lane(h, g) = paceless >> g & 1 && first < span[g] ? first : span[g];
    }
    for (int p = 0; p < model.P; ++p) r.at[p] = fma(V::set(0) - h, r.k[0][p], r.w[p]);
    const u32 off = gradient(r.at, r.next);
    for (int p = 0; p < model.P; ++p) r.next[p] = r.next[p] - r.k[0][p];
    V d2 = beside_w(r.next) / h;
    V root;  // of 0.01 / max(d1, d2)
    for (int g = 0; g < W; ++g) lane(root, g) = lane(d1, g) > lane(d2, g) ? lane(d1, g) : lane(d2, g);
    root = exp(V::set(T(Pair::POWER)) * log(root / V::set(T(0.01))));
    for (int g = 0; g < W; ++g)
      if (paceless >> g & 1) {
        const T first = lane(h, g), flat = T(1e-15), slow = first * T(1e-3) > T(1e-6) ? first * T(1e-3) : T(1e-6);
        T pace = lane(d1, g) <= flat && lane(d2, g) <= flat ? slow : lane(root, g);
        if (!(pace < 100 * first)) pace = 100 * first;
        if (off >> g & 1 || !(lane(d2, g) < __builtin_inf())) pace = first;
        now[g].pace = pace < span[g] ? pace : span[g];
      }
  }

  template <int S>
  u32 stage(V h) {
    V* to = S == Pair::STAGES - 1 ? r.next : r.at;
    for (int p = 0; p < model.P; ++p) {
      V sum = V::set(T(Pair::A[S][0])) * r.k[0][p];
      FS_UNROLL
      for (int j = 1; j < S; ++j)
        if (Pair::A[S][j] != 0) sum = fma(V::set(T(Pair::A[S][j])), r.k[j][p], sum);
      to[p] = fma(V::set(0) - h, sum, r.w[p]);
    }
    return gradient(to, r.k[S]);
  }

  // One step of the pair in every lane.
  void attempt() {
    V h;
    for (int g = 0; g < W; ++g) {
      const T left = span[g] - since[g];
      lane(h, g) = !(live >> g & 1) ? T(0) : now[g].pace < left ? now[g].pace : left;
    }
    stage<1>(h), stage<2>(h), stage<3>(h), stage<4>(h), stage<5>(h);
    const u32 bad = stage<6>(h);
    const V none = V::set(0);
    V norm = error(
        [&](int p) {
          V sum = fma(none, r.next[p], V::set(T(Pair::E[0])) * r.k[0][p]);  // NaN where a parameter is infinite
          FS_UNROLL
          for (int j = 2; j < Pair::STAGES; ++j) sum = fma(V::set(T(Pair::E[j])), r.k[j][p], sum);
          return h * sum;
        },
        [&](int p) { return larger(abs(r.w[p]), abs(r.next[p])); });
    V factor = V::set(T(Pair::SAFETY)) * exp(V::set(T(Pair::POWER)) * log(norm));
    u32 taken = 0;
    for (int g = 0; g < W; ++g)
      if (live >> g & 1) taken |= u32(lane(norm, g) < 1 && !(bad >> g & 1)) << g;
    move(taken);
    for (int g = 0; g < W; ++g)
      if (live >> g & 1) {
        if (taken >> g & 1) accept(g, lane(h, g), lane(norm, g) > 0 ? lane(factor, g) : T(Pair::MOST));
        else refuse(g, lane(h, g), bad >> g & 1 ? T(Pair::LEAST) : lane(factor, g));
      }
  }
  void move(u32 taken) {
    if ((taken & live) == live) {
      std::swap(r.w, r.next), std::swap(r.k[0], r.k[Pair::STAGES - 1]);
      return;
    }
    const V m = mask(taken);
    for (int p = 0; p < model.P; ++p) {
      r.w[p] = where(m, r.next[p], r.w[p]);
      r.k[0][p] = where(m, r.k[Pair::STAGES - 1][p], r.k[0][p]);
    }
  }
  void accept(int g, T h, T factor) {
    if (!(factor < T(Pair::MOST))) factor = T(Pair::MOST);
    if (again[g] && factor > 1) factor = 1;
    const bool last = h == span[g] - since[g];
    const T wanted = h * factor;
    now[g].pace =
        last && now[g].pace > wanted ? now[g].pace : wanted;  // a step cut short says nothing against longer ones
    now[g].taken += 1, again[g] = false, since[g] += h;
    if (last) stretch(g);
    else count(g);
  }
  void refuse(int g, T h, T factor) {
    now[g].pace = h * (factor > T(Pair::LEAST) ? factor : T(Pair::LEAST));
    now[g].refused += 1, again[g] = true;
    count(g);
  }
  // A network is lost where time stands still, or after too many steps.
  void count(int g) {
    if (++tries[g] >= flow.most || !(since[g] + now[g].pace > since[g])) lose(g);
  }
};

// Calls f(size, pointer) for each array of `rows`.
template <class T, int W, class F>
void each_flow_row(const FlowJob<T>& flow, const Family<T, W>& m, FlowRows<Vec<T, W>>& rows, F f) {
  for (auto* one : {&rows.w, &rows.start, &rows.next, &rows.at}) f(m.P, *one);
  for (auto& one : rows.k) f(m.P, one);
  f(m.inputs, rows.x);
  f(m.residuals > flow.all.penalty.residuals ? m.residuals : flow.all.penalty.residuals, rows.residuals);
  for (auto* one : {&rows.out, &rows.dloss}) f(m.outputs, *one);
  f(flow.all.labels, rows.y), f(flow.all.loss_numbers, rows.loss);
}

template <class T, int W>
void flow_lanes(const FlowJob<T>& flow, const std::vector<i64>& living) {
  const auto model = family<T, W>(flow.all.shape);
  FlowRows<Vec<T, W>> rows;
  i64 size = 0;
  each_flow_row(flow, *model, rows, [&](i64 count, auto&) { size += count * i64(sizeof(Vec<T, W>)); });
  const i64 each = apart(size), count = i64(living.size());
  Scratch scratch(each * busy(flow.all.job.threads, count));
  deal(flow.all.job.threads, count, 1, [&](int thread, Pieces& pieces) {
    char* at = scratch.p + each * thread;
    FlowRows<Vec<T, W>> own;
    each_flow_row(flow, *model, own, [&](i64 many, auto& row) {
      row = reinterpret_cast<Vec<T, W>*>(at);
      at += many * sizeof(Vec<T, W>);
    });
    Flow<T, W>(flow, *model, own).run([&] {
      const i64 next = pieces.take();
      return next < 0 ? next : living[next];
    });
  });
}

template <class T>
void advance_flow(const FlowJob<T>& flow) {
  std::vector<i64> living;
  for (i64 k = 0; k < flow.all.job.N; ++k)
    if (flow.all.job.lost[k] < 0) living.push_back(k);
  if (living.empty()) return;
  if (flow.all.job.layout.lanes == WIDTH<T>) flow_lanes<T, WIDTH<T>>(flow, living);
  else if (flow.all.job.layout.lanes == 1) flow_lanes<T, 1>(flow, living);
  else throw std::invalid_argument("internal: no such layout");
}

}  // namespace fs
