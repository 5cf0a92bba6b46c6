// Owns the time loop of plain SGD for a traced network, whose step at one sample and value at the next are one function
// (fastsgd/trace/sweep.py): most parameters are loaded and stored once a step.
//
// The bits are those of core/general.h with the same network.
#pragma once
#include "steps.h"

namespace fs {

// Spec: as for Steps, and Sweep<Tm>::step(w, x, g, residuals, next, to, out): w += sum_j g_j dh_j/dw at x, of residuals
// that the network left there; out = h(next), which leaves `to`. RESIDUALS: of two samples.
template <class Spec>
class Sweeps : public Steps<Spec> {
  using Base = Steps<Spec>;
  using Base::all, Base::group, Base::groups, Base::job, Base::keys, Base::model;
  using typename Base::A;
  using typename Base::Group;
  using typename Base::T;
  using typename Base::Tm;
  using typename Base::V;
  static constexpr int W = Base::W, OUTPUTS = Base::OUTPUTS, LABELS = Base::LABELS, R = Spec::RESIDUALS / 2;

  struct Hand {  // the sample in hand
    V out[OUTPUTS], y[LABELS];
    int turn;  // which residuals are its
  } hand[Base::MOST];

 public:
  using Base::Base;

  // Run `count` networks from t0 to t1; their positions in the job are at `positions`.
  void run(const i64* positions, int count) {
    this->load(positions, count);
    const i64 work = i64(Base::P) * Base::MOST, most = work < Base::LONG ? Base::LONG / work : 1;
    const Data<T> data(job);
    i64 t = job.t0;
    for (int m = 0; m < groups && t < job.t1; ++m) {
      Group& q = group[m];
      draw_window<W>(job, keys, q.member, t, q.samples.index);
      Base::fetch(q.samples, data, q.samples.index + A::at(t), hand[m].y);
      hand[m].turn = 0;
      model().forward(q.w, q.samples.input(), q.residuals, hand[m].out);
    }
    for (int part; t < job.t1 && groups; t += part) {
      part = steps_at_once(t, job.t1, most, 1);
      for (int m = 0; m < groups; ++m) {
        Group& q = group[m];
        if ((t + 1) % WINDOW == 0) draw_window<W>(job, keys, q.member, t + 1, q.samples.index);
        step_sizes<W>(job, q.member, t, part, q.samples.rate);
      }
      steps(t, part);
      FS_WORKED(work * part);
    }
    for (int m = 0; m < groups; ++m) this->retire(group[m], group[m].alive, -1);
  }

 private:
  // Steps t .. t + count - 1; each begins with the output at its sample in hand.
  __attribute__((noinline)) void steps(i64 t, int count) {
    const Data<T> data(job);
    const auto loss = Spec::loss(all.loss);
    for (int s = 0; s < count && groups; ++s) {
      const int next = A::at(t + s + 1);
      bool died = false;
      for (int m = 0; m < groups; ++m) {
        Group& q = group[m];
        Hand& h = hand[m];
        V g[OUTPUTS];
        const u32 bad = loss.dloss(h.out, h.y, OUTPUTS, g) & q.alive;
        if (__builtin_expect(bad != 0, 0)) {
          this->retire(q, bad, t + s);
          died |= !q.alive;
        }
        const V rate = q.samples.rates(s);
        for (int k = 0; k < OUTPUTS; ++k) g[k] = rate * g[k];
        const auto x = q.samples.input();
        Base::fetch(q.samples, data, q.samples.index + next, h.y);
        V *const from = q.residuals + h.turn * R, *const to = q.residuals + (h.turn ^= 1) * R;
        Spec::template Sweep<Tm>::step(q.w, x, g, from, q.samples.input(), to, h.out);
      }
      if (__builtin_expect(died, 0)) close_up();
    }
  }
  __attribute__((noinline)) void close_up() {
    groups = living_first(group, groups, [&](int to, int from) { hand[to] = hand[from]; });
  }
};

}  // namespace fs
