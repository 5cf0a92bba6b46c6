// Owns the model families as the general loop sees them: one lane a network, rows of state in canonical order.
#pragma once
#include <memory>
#include <stdexcept>
#include <type_traits>

#include "../core/losses.h"
#include "../core/models/family.h"
#include "../core/rules/update.h"

namespace fs {

// A loop that is compiled once serves every family: a call costs nanoseconds, a sample of a network many more.
template <class T, int W>
struct Family {
  using V = Vec<T, W>;
  int P, inputs, outputs, residuals;
  virtual ~Family() = default;
  // out [outputs] = h(x), x [inputs]; residuals: what `vjp` wants to know.
  virtual void forward(const V* w, const V* x, V* residuals, V* out) const = 0;
  // to += sum_j g_j dh_j/dw; `to` may be w itself.
  virtual void vjp(const V* w, const V* x, const V* g, V* residuals, V* to) const = 0;
  // Where derivatives may be applied as they come: w and buffers move by sum_j g_j dh_j/dw, as the rule says.
  static constexpr bool MOVES = true, STEPS = true;
  virtual bool moves() const { return false; }
  virtual void move(const Update&, V*, const V*, const V*, V*, V*, const Numbers<V>&) const {}

  u32 dloss(const Loss<T>& loss, const V* f, const V* y, V* g) const {
    if (__builtin_expect(loss.kind == Loss<T>::TRACED, 0))
      return loss.traced.template as<TracedDloss<V, T>, V>()(f, y, loss.bound, g);
    return loss.dloss(f, y, outputs, g);
  }
  u32 dloss(const Loss<T>& loss, const V* f, const V* y, V* g, const V* own) const {
    if (loss.kind == Loss<T>::TRACED) return loss.traced_own.template as<TracedOwnDloss<V>, V>()(f, y, own, g);
    return loss.dloss(f, y, outputs, g, own);
  }
  static bool penalised(const TracedPenalty& penalty) { return bool(penalty.vjp); }
  void penalise(const TracedPenalty& penalty, const V* w, V* residuals, V* to) const {
    if (penalty.vjp) penalty.vjp.template as<TracedPenaltyVjp<V>, V>()(w, residuals, to);
  }
  void step(const TracedRule& own, int begin, int end, const bool* fixed, V* w, const V* g, V* state,
            const V* numbers) const {
    own.move.template as<TracedMove<V>, V>()(begin, end, P, fixed, w, g, state, numbers);
  }
};

// Whether a model may hand each derivative over once, and so move by it. Where its sums cost far more than a gradient
// in rows of its own, it does not: each rule would be one more copy of them.
template <class Model, class = void>
constexpr bool MAY_MOVE = false;
template <class Model>
constexpr bool MAY_MOVE<Model, std::void_t<decltype(&Model::hands_each_over_once)>> = true;

template <class T, int W, class Model>
struct FamilyOf final : Family<T, W> {
  using V = Vec<T, W>;
  Model model;
  explicit FamilyOf(const Model& m) : model(m) {
    this->P = m.P(), this->inputs = m.inputs(), this->outputs = m.outputs(), this->residuals = m.residuals();
  }
  void forward(const V* w, const V* x, V* residuals, V* out) const override {
    model.forward(w, Columns<Team<T, W, 1>>{x}, residuals, out);
  }
  void vjp(const V* w, const V* x, const V* g, V* residuals, V* to) const override {
    model.vjp(w, Columns<Team<T, W, 1>>{x}, g, residuals, Accumulate<V>{to});
  }
  bool moves() const override {
    if constexpr (MOVING) return model.hands_each_over_once();
    else return false;
  }
  void move(const Update& u, V* w, const V* x, const V* g, V* residuals, V* buffers,
            const Numbers<V>& n) const override {
    if constexpr (MOVING) {
      const bool more = u.has(WEIGHT_DECAY) || u.is(NESTEROV);
      const auto by = u.is(ADAM) ? (more ? &FamilyOf::move_by<BY_ADAM, true> : &FamilyOf::move_by<BY_ADAM, false>)
                      : !u.has(MOMENTUM) ? &FamilyOf::move_by<BY_GRADIENT, true>
                      : more             ? &FamilyOf::move_by<BY_MOMENTUM, true>
                                         : &FamilyOf::move_by<BY_MOMENTUM, false>;
      (this->*by)(u, w, x, g, residuals, buffers, n);
    }
  }

 private:
  static constexpr bool MOVING = W > 1 && MAY_MOVE<Model>;
  template <Mover BY, bool MORE>
  void move_by(const Update& u, V* w, const V* x, const V* g, V* residuals, V* buffers, const Numbers<V>& n) const {
    const bool decays = u.has(WEIGHT_DECAY);
    const Move<BY, MORE, V> sink{
        w, buffers, buffers + this->P, n, decays && !u.is(DECOUPLED), decays && u.is(DECOUPLED), u.is(NESTEROV)};
    model.vjp(w, Columns<Team<T, W, 1>>{x}, g, residuals, sink);
  }
};

// A model that was traced, compiled in a library of its own.
template <class T, int W>
struct TracedFamily final : Family<T, W> {
  using V = Vec<T, W>;
  TracedForward<V> forward_;
  TracedVjp<V> vjp_;
  explicit TracedFamily(const TracedShape& s)
      : forward_(s.forward.as<TracedForward<V>, V>()), vjp_(s.vjp.as<TracedVjp<V>, V>()) {
    this->P = s.P, this->inputs = s.inputs, this->outputs = s.outputs, this->residuals = s.residuals;
  }
  void forward(const V* w, const V* x, V* residuals, V* out) const override { forward_(w, x, residuals, out); }
  void vjp(const V* w, const V* x, const V* g, V* residuals, V* to) const override { vjp_(w, x, g, residuals, to); }
};

template <class T, int W>
std::unique_ptr<Family<T, W>> family(const FamilyShape& s) {
  using Tm = Team<T, W, 1>;
  auto made = [](auto model) -> std::unique_ptr<Family<T, W>> {
    return std::make_unique<FamilyOf<T, W, decltype(model)>>(model);
  };
  const int (&n)[MOST_NUMBERS] = s.n;
  switch (s.kind) {
    case FamilyShape::DENSE: return made(Dense<Tm>{s.dense});
#define FS_MADE(KIND, model) \
  case FamilyShape::KIND: return made(model);
      FS_EACH_FORM(FS_MADE)
#undef FS_MADE
    case FamilyShape::TRACED: return std::make_unique<TracedFamily<T, W>>(s.traced);
  }
  throw std::invalid_argument("internal: no such family");
}

}  // namespace fs
