"""Owns how the Triton kernels see a model, a loss and a rule: family, shape, where parameters lie; places and flags."""

from dataclasses import dataclass

import numpy as np

from ..cuda.launch import HYPERS
from ..models import MLP, DiagonalLinear, DiagonalPower, DiagonalProduct, ReLU2
from ..models.activations import ACTIVATIONS
from ..spec.kinds import kind_of

MOST_ENTRIES = 2**31 - 1  # of X, of labels, of a segment's table of samples: what 32-bit offsets reach
FLAGS = ("nesterov", "normalised", "decoupled", "adam", "unit")  # after HYPERS, in the order of kernels/rules.py


@dataclass(frozen=True, eq=False)
class Packing:
    """A model in kernels/: arguments of the driver, and the way there and back.

    family: module in kernels/models; shape, layout: its SHAPE and LAYOUT; width: WIDTH, numbers in a row
    slots [P]: where canonical parameter p lies in a row; places: PLACES, the way from a row to p, see kernels/rules.py
    """

    family: str
    shape: tuple
    layout: tuple
    width: int
    slots: np.ndarray
    places: tuple

    def pack(self, weights):
        """Rows [N, width] of weights [N, P], zeros between; NumPy."""
        rows = np.zeros((len(weights), self.width), weights.dtype)
        rows[:, self.slots] = weights
        return rows

    def pack_rows(self, buffers):
        """Rows [N, K, width] of buffers [N, K, P]."""
        return self.pack(buffers.reshape(-1, buffers.shape[2])).reshape(*buffers.shape[:2], self.width)


def power_of_two(count):
    """The least power of two >= count, count >= 1."""
    return 1 << (int(count) - 1).bit_length()


def packing(model):
    """The Packing of a model, None without a kernel."""
    kind = kind_of(model)
    if kind is DiagonalLinear:
        return _vectors("diagonal", model.d, 2, ())
    if kind is DiagonalProduct:
        return _vectors("diagonal", model.d, model.depth, ())
    if kind is DiagonalPower:
        return _vectors("power", model.d, 2 if model.signed else 1, (model.depth,))
    if kind is ReLU2:
        return packing(MLP(model.d, model.width, bias=(model.hidden_bias, model.output_bias)))
    return _dense(model) if kind is MLP else None


def _vectors(family, d, count, shape):
    padded = power_of_two(d)
    slots = (np.arange(count)[:, None] * padded + np.arange(d)).ravel()
    places = tuple((True, k * d, 0, d, 0, 1) for k in range(count))
    return Packing(family, shape, tuple((k * padded, 0, padded) for k in range(count)), count * padded, slots, places)


def _dense(model):
    """Layers 1, 3, ... as [fan, width], layers 2, 4, ... as [width, fan], a last one of one output as [fan].

    Offsets steer Triton, which gives a lane as many neighbours as the alignment lets it load at once. Off by one, a
    lane has a unit of its own with all its inputs, and no sum over inputs crosses lanes. A matrix between hidden layers
    is aligned to four, as a last one [width, fan] is: its rows lie on few lanes, and few sums cross them.
    """
    layout, slots, layers, places, at, p = [], [], [], [], 0, 0
    for k, (fan, width) in enumerate(zip(model.sizes[:-1], model.sizes[1:], strict=True)):
        last = k == model.layers - 1
        vector = last and width == 1
        aligned = not vector if k % 2 == 1 else 0 < k and not last
        columns, rows = power_of_two(fan), power_of_two(width)
        units, sources = np.arange(width)[:, None], np.arange(fan)[None, :]
        at += -at % 4 if aligned else 1 - at % 2
        block, slot = (((0, columns), sources + 0 * units) if vector else ((columns, rows), sources * rows + units)
                       if k % 2 == 0 else ((rows, columns), units * columns + sources))
        place = len(layout)
        layout.append((at, *block))
        slots.append(at + slot.ravel())
        places.append((model.trained(f"W{k + 1}"), p, *((0, fan, 0, 1) if vector else (fan, width, 1, fan) if k % 2 == 0
                                                        else (width, fan, fan, 1))))
        at += max(1, block[0]) * block[1]
        p += fan * width
        if model.bias[k]:
            at += 1 - at % 2
            layout.append((at, 0, 0 if vector else rows))
            slots.append(at + np.arange(width))
            places.append((model.trained(f"b{k + 1}"), p, 0, width, 0, 1))
            at += rows
            p += width
        layers.append((place, place + 1 if model.bias[k] else -1, float(model.multipliers[k]),
                       model.trained(f"W{k + 1}"), model.trained(f"b{k + 1}"), width))
    shape = (tuple(ACTIVATIONS).index(model.activation), *layers, float(model.slope))
    return Packing("dense", shape, tuple(layout), at + -at % 4, np.concatenate(slots), tuple(places))


def told(run):
    """LOSS of kernels/losses."""
    outputs = run.model.outputs
    return run.loss.name, outputs, power_of_two(outputs), getattr(run.loss, "weights", None) is not None


def terms(run):
    """The numbers that go with LOSS, float64: factor, bound and, where outputs have weights, those, padded by zeros."""
    weights = getattr(run.loss, "weights", None)
    return np.concatenate([[run.loss.factor, run.loss.bound(run.rule.lost_above, run.dtype)],
                           [] if weights is None else padded(weights[None])[0]])


def stride(rows):
    """Numbers in a row of inputs or labels [n, k], padded to a power of two, or [n]."""
    return power_of_two(rows.shape[1]) if rows.ndim > 1 else 1


def padded(rows):
    """Inputs or labels [n, k] with zeros up to a power of two; labels [n] as they are."""
    return rows if rows.ndim == 1 else np.pad(rows, ((0, 0), (0, stride(rows) - rows.shape[1])))


def plain(rule):
    """Whether a step is w - eta g with no more than label noise added to it."""
    return not (rule.numbers() or rule.buffers() or rule.normalised or rule.gradient_noise)


def described(rule):
    """{constexpr argument: value} of a rule in kernels/train.batches."""
    names, traits, noise = tuple(rule.numbers()), rule.traits(), rule.gradient_noise
    places = tuple(names.index(name) if name in names else -1 for name in HYPERS)
    return {"RULE": () if plain(rule) else places + tuple(traits[name] for name in FLAGS),
            "PERTURB": traits["perturb"], "SWAY": noise.kind if noise else "none", "HYPERS": len(names),
            "BUFFERS": len(rule.buffers())}


def hyper(plan):
    """The hyper-parameters in use [N, HYPERS] of a plan, in the run's dtype."""
    out = np.zeros((plan.N, len(plan.numbers)), plan.run.dtype)
    for k, (name, values) in enumerate(plan.numbers.items()):
        least = np.finfo(plan.run.dtype).tiny if name == "epsilon" else 0  # what pads a row is 0 / epsilon, not 0 / 0
        out[:, k] = np.maximum(values, least)
    return out
