// Owns the model families as the general loop sees them: one lane a network, rows of state in canonical order.
#pragma once
#include <memory>
#include <stdexcept>

#include "../core/models/autoencoder.h"
#include "../core/models/dense.h"
#include "../core/models/family.h"
#include "../core/models/power.h"
#include "../core/models/product.h"

namespace fs {

// A loop that is compiled once serves every family: a call costs nanoseconds, a sample of a network many more.
template <class T, int W>
struct Family {
  using V = Vec<T, W>;
  int P, inputs, outputs, kept;
  virtual ~Family() = default;
  // out [outputs] = h(x), x [inputs]; kept [kept] is what `pull` wants to know.
  virtual void forward(const V* w, const V* x, V* kept, V* out) const = 0;
  // to += sum_j g_j dh_j/dw; `to` may be w itself.
  virtual void pull(const V* w, const V* x, const V* g, V* kept, V* to) const = 0;
};

template <class T, int W, class Model>
struct FamilyOf final : Family<T, W> {
  using V = Vec<T, W>;
  Model model;
  explicit FamilyOf(const Model& m) : model(m) {
    this->P = m.P(), this->inputs = m.inputs(), this->outputs = m.outputs(), this->kept = m.kept();
  }
  void forward(const V* w, const V* x, V* kept, V* out) const override {
    model.forward(w, Columns<Team<T, W, 1>>{x}, kept, out);
  }
  void pull(const V* w, const V* x, const V* g, V* kept, V* to) const override {
    model.pull(w, Columns<Team<T, W, 1>>{x}, g, kept, Accumulate<V>{to});
  }
};

template <class T, int W>
std::unique_ptr<Family<T, W>> family(const FamilyShape& s) {
  using Tm = Team<T, W, 1>;
  auto made = [](auto model) -> std::unique_ptr<Family<T, W>> {
    return std::make_unique<FamilyOf<T, W, decltype(model)>>(model);
  };
  switch (s.kind) {
    case FamilyShape::DENSE: return made(Dense<Tm>{s.dense});
    case FamilyShape::PRODUCT: return made(Product<Tm>{s.d, s.depth});
    case FamilyShape::POWER: return made(Power<Tm>{s.d, s.depth, s.on});
    case FamilyShape::AUTOENCODER: return made(Autoencoder<Tm>{s.d, s.h, s.on});
  }
  throw std::invalid_argument("internal: no such family");
}

}  // namespace fs
