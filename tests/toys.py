"""A toy of every kind that grows, written as CONTRIBUTING.md says: {kind: {file: text, or [(before, after)]}}.

`tests/test_house.py` puts them into a copy of the repository, counts the files and runs the toys.
"""

TOYS = {
    "family": {
        "fastsgd/models/cubic.py": '''"""Owns cubes of a vector, h(x) = <w^3, x>."""

from ..spec.check import per_network, whole
from ..spec.record import record
from .base import Model
from .form import Form, vectors


@record()
class Cube(Form):
    """A vector [d]."""

    d: int
    name, struct, fields = "cubic", "Cube", ("d",)

    @property
    def longest(self):
        return self.d

    def packing(self):
        return vectors(self.name, self.d, 1)


@record()
class Cubic(Model):
    """h(x) = sum_j w_j^3 x_j."""

    d: int
    w0: object = 0.5

    def __post_init__(self):
        object.__setattr__(self, "d", whole(self.d, "model.d", 1))
        object.__setattr__(self, "w0", per_network(self.w0, "model.w0"))

    def shapes(self):
        return {"w": (self.d,)}

    def scales(self):
        return {"w": (self.w0, 0.1)}

    def form(self):
        return Cube(self.d)

    def forward(self, params, X):
        return X @ params["w"] ** 3
''',
        "fastsgd/models/__init__.py": [
            ("    from .diagonal import", "    from .cubic import Cubic\n    from .diagonal import"),
            ('"dense": ("Dense",),', '"cubic": ("Cube", "Cubic"), "dense": ("Dense",),'),
            ('__all__ = ["MLP",', '__all__ = ["MLP", "Cubic",'),
            ('FORMS = ("Dense", ', 'FORMS = ("Cube", "Dense", ')],
        "csrc/core/models/cubic.h": '''// Owns cubes of a vector, h(x) = sum_j w_j^3 x_j.
#pragma once
#include "../sample.h"
#include "../sink.h"

namespace fs {

template <class Tm>
struct Cube {
  using T = typename Tm::T;
  using V = typename Tm::V;
  int d;

  FS_HD constexpr int P() const { return d; }
  FS_HD constexpr int inputs() const { return d; }
  FS_HD constexpr int outputs() const { return 1; }
  FS_HD constexpr int residuals() const { return 0; }
  FS_HD constexpr bool hands_each_over_once() const { return true; }

  template <class X>
  FS_HD void forward(const V* w, X x, V*, V* out) const {
    *out = tree_sum<Tm>(d, [&](int j, V sum) { return fma(w[j] * w[j] * w[j], x.shared(j), sum); });
  }
  template <class X, class Sink>
  FS_HD void vjp(const V* w, X x, const V* g, V*, Sink sink) const {
    Tm::sync();
    for (int j = Tm::first(); j < d; j += Tm::step()) sink(j, V::set(T(3)) * (*g * x.shared(j)), w[j] * w[j]);
    Tm::sync();
  }
};

}  // namespace fs
''',
        "kernels/models/cubic.py": '''"""Owns cubes of a vector, h(x) = <w^3, x>."""

import triton
import triton.language as tl

from .product import inputs

__all__ = ["inputs", "vjp", "value"]


@triton.jit
def value(w, x, SHAPE: tl.constexpr):
    return tl.sum(w[0] * w[0] * w[0] * x, axis=1), ()


@triton.jit
def vjp(to, w, x, kept, g, SHAPE: tl.constexpr):
    return (tl.fma((g * 3)[:, None] * x, w[0] * w[0], to[0]),)
''',
    },
    "rule": {
        "fastsgd/rules/softsign.py": '''"""Owns soft signed descent, w <- w - eta_t g / (1 + |g|)."""

from ..spec.record import record
from .base import Batched


@record(kw_only=True)
class SoftSign(Batched):
    """Soft signed descent: w <- w - eta_t g / (1 + |g|)."""

    flags = ("softsign",)

    def traits(self):
        return super().traits() | {"softsign": True}

    def move(self, g, w, carried, number, t):
        return g / (1 + abs(g))
''',
        "fastsgd/rules/__init__.py": [
            ("    from .sign import SignSGD\n", "    from .sign import SignSGD\n    from .softsign import SoftSign\n"),
            ('"SignSGD"]', '"SignSGD", "SoftSign"]'), ('"Function")', '"Function", "SoftSign")'),
            ('"sign": ("SignSGD",),', '"sign": ("SignSGD",), "softsign": ("SoftSign",),')],
        "csrc/core/rules/update.h": [("  if (u.is(ADAM)) {", '''  if (u.is(SOFTSIGN))
    for (int p = mine<Tm>(begin); p < end; p += Tm::step()) g[p] = g[p] / (one + abs(g[p]));
  if (u.is(ADAM)) {''')],
        "kernels/rules.py": [
            ("    SIGN,\n", "    SIGN,\n    SOFTSIGN,\n"),
            ("    if RULE[ADAM]:\n        first", '''    if RULE[SOFTSIGN]:
        g = g / (1 + tl.abs(g))
    if RULE[ADAM]:
        first''')],
    },
    "loss": {
        "fastsgd/spec/loss.py": [
            ("\n\nKINDS = (Squared,", '''

@record()
class LogCosh(Loss):
    """factor * log cosh(h(x) - y)."""

    factor: float = 1.0
    name = "log_cosh"
    noisy = True

    def value(self, f, y, outputs=1):
        return self.factor * (softplus(2 * (f - y)) - (f - y) - 0.6931471805599453)

    def refuse(self, outputs, y):
        return None if outputs == 1 else "LogCosh needs a model with one output"


KINDS = (LogCosh, Squared,'''),
            ('__all__ = ["KINDS", ', '__all__ = ["KINDS", "LogCosh", ')],
        "csrc/core/losses.h": [("    const V margin = y[0]", '''    if (kind == LOG_COSH) {
      g[0] = c * tanh(f[0] - y[0]);
      return bad;
    }
    const V margin = y[0]''')],
        "kernels/losses.py": [
            ('    elif LOSS[NAME] == "logistic":\n        e = ', '''    elif LOSS[NAME] == "log_cosh":
        e = tl.exp(-2 * tl.abs(f - y))
        return c * tl.where(f > y, 1.0, -1.0) * ((1 - e) / (1 + e)), beyond(f, bound)
    elif LOSS[NAME] == "logistic":
        e = '''),
            ('    elif LOSS[NAME] == "logistic":\n        z = ', '''    elif LOSS[NAME] == "log_cosh":
        r = tl.abs(f - y)
        return c * (r + log1p(tl.exp(-2 * r)) - 0.6931471805599453)
    elif LOSS[NAME] == "logistic":
        z = ''')],
    },
    "noise": {
        "fastsgd/spec/draws.py": [
            ("NOISES = {", '''def evens(seed, ids, t0, t1, stream, item=0):
    """Uniform draws of variance 1, two a block."""
    first, last = t0 // 2, (t1 + 1) // 2
    z = (2 * uniforms(seed, ids, first, last, stream, item) - 1) * 1.7320508075688772
    return z.reshape(len(ids), -1)[:, t0 - 2 * first:t1 - 2 * first]


NOISES = {"uniform": (2, evens), ''')],
        "csrc/core/rules/noise.h": [
            ("  else signs<T, W>(", '''  else if (kind == NoiseKind::UNIFORM) {
    u32 c[4][W];
    alignas(64) double pair[2][W];
    for (int g = 0; g < W; ++g) c[0][g] = block, c[1][g] = id[g], c[2][g] = stream, c[3][g] = item;
    draw_uniforms<W>(seed, c, pair[0], W);
    for (int q = 0; q < 2; ++q)
      for (int g = 0; g < W; ++g) pair[q][g] = (2 * pair[q][g] - 1) * 1.7320508075688772;
    for (int q = 0; q < 2; ++q) z[q] = rounded<T, W>(pair[q]);
  } else signs<T, W>(''')],
        "kernels/draws.py": [
            ("@triton.jit\ndef noise_of_four", '''@triton.jit
def pair_of(w0, w1, w2, w3, KIND: tl.constexpr):
    """The two draws of a block."""
    if KIND == "uniform":
        return ((2 * uniform_of(w0, w1) - 1) * 1.7320508075688772, (2 * uniform_of(w2, w3) - 1) * 1.7320508075688772)
    else:
        return normals_of(w0, w1, w2, w3)


@triton.jit
def noise_of_four'''),
            ('    if KIND == "gaussian":  # a block', '    if KIND != "rademacher":  # a block'),
            ("z0, z1 = normals_of(a0, a1, a2, a3)", "z0, z1 = pair_of(a0, a1, a2, a3, KIND)"),
            ("z2, z3 = normals_of(b0, b1, b2, b3)", "z2, z3 = pair_of(b0, b1, b2, b3, KIND)"),
            ('    if KIND == "gaussian":\n        z0, z1 = normals_of(w0, w1, w2, w3)',
             '    if KIND != "rademacher":\n        z0, z1 = pair_of(w0, w1, w2, w3, KIND)'),
            ('each = 2 if KIND == "gaussian" else 4', 'each = 4 if KIND == "rademacher" else 2'),
            ('shift = 1 if KIND == "gaussian" else 2', 'shift = 2 if KIND == "rademacher" else 1')],
    },
    "metric": {
        "fastsgd/metrics/largest.py": '''"""Owns the largest weight of a network."""

import numpy as np

from ..spec.record import record
from .base import Metric


@record(eq=True)
class Largest(Metric):
    """max_p |w_p|."""

    name: str = "largest"

    def compute(self, model, params, data, loss):
        return np.max([np.abs(a).reshape(len(a), -1).max(axis=1) for a in params.values()], axis=0)
''',
        "fastsgd/metrics/__init__.py": [
            ("    from .losses import", "    from .largest import Largest\n    from .losses import"),
            ("__all__ = [", '__all__ = ["Largest", '),
            ('    "losses": (', '    "largest": ("Largest",), "losses": (')],
        "fastsgd/measure/largest.py": '''"""Owns the kernels of the largest weight."""

import numpy as np

from ..portable import kernel
from . import programs, task
from .registry import Kernels


class Maxima(Kernels):
    """One pass over a network's weights."""

    def on_host(self, metric, host, weights):
        return np.abs(np.asarray(weights, np.float64)).max(axis=1)

    def on_card(self, metric, work, card, host):
        made = programs.program(f"largest, P={work.P}", "largest", "largest", programs.spec({"P": work.P}, {}))
        return task.task(made, np.zeros(1), 0, 0, task.weights(work), 1, "one pass over the weights")

    def on_tiles(self, metric, work):
        return _by_tiles


def _by_tiles(tiles, metric, rows):
    import torch

    out = torch.empty(len(rows), dtype=torch.float64, device=tiles.device)
    kernel("metrics.largest").largest[(len(rows),)](rows, out, rows.shape[1], WIDTH=1 << rows.shape[1].bit_length())
    return out.cpu().numpy()
''',
        "fastsgd/measure/registry.py": [
            ('    "losses": {', '    "largest": {"Maxima": ("Largest",)},\n    "losses": {')],
        "csrc/cuda/metrics/largest.h": '''// Owns the largest weight of a network.   Spec: P.
#pragma once
#include "../general.h"
#include "launch.h"

namespace fs {

template <class Spec>
FS_DEVICE void largest(const MetricLaunch& job) {
  const i64 k = thread_number();
  if (k >= job.N) return;
  double most = 0;
  for (int p = 0; p < Spec::P; ++p) {
    const double size = __builtin_fabs(job.W[k * Spec::P + p]);
    most = size > most ? size : most;
  }
  job.out[k] = most;
}

}  // namespace fs
''',
        "kernels/metrics/largest.py": '''"""Owns the largest weight of a network."""

import triton
import triton.language as tl


@triton.jit
def largest(W, out, width, WIDTH: tl.constexpr):
    column = tl.arange(0, WIDTH)
    w = tl.load(W + tl.program_id(0).to(tl.int64) * width + column, mask=column < width, other=0.0)
    tl.store(out + tl.program_id(0), tl.max(tl.abs(w).to(tl.float64), axis=0))
''',
    },
    "schedule": {
        "fastsgd/spec/schedule.py": [
            ("@record()\nclass StepTable", '''@record()
class Harmonic(Schedule):
    """base / (1 + t)."""

    base: float = 0.1

    def compile(self, N, T):
        return (np.full(N, self.base), np.zeros(N, np.int32),
                lambda t0, t1: 1 / (1 + np.arange(t0, t1, dtype=float)[None, :]))


@record()
class StepTable'''),
            ('__all__ = ["Constant",', '__all__ = ["Constant", "Harmonic",')],
        "fastsgd/__init__.py": [('("Cosine", "StepSize"', '("Cosine", "Harmonic", "StepSize"')],
    },
}
MOST = {"family": 4, "rule": 4, "loss": 3, "metric": 6, "noise": 6, "schedule": 3}  # files to touch, at most


def put_into(root, kinds=TOYS):
    """Write toys of these kinds into a copy of the repository."""
    for kind in kinds:
        for name, change in TOYS[kind].items():
            path = root / name
            if isinstance(change, str):
                path.write_text(change)
                continue
            text = path.read_text()
            for before, after in change:
                assert text.count(before) == 1, f"{name} has {text.count(before)} times {before!r}"
                text = text.replace(before, after)
            path.write_text(text)
