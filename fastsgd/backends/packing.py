"""Owns how the Triton kernels see a model: its family, shape, and where each parameter lies in a padded row."""

from dataclasses import dataclass

import numpy as np

from ..models import MLP, DiagonalLinear, DiagonalPower, DiagonalProduct, ReLU2
from ..models.activations import ACTIVATIONS


@dataclass(frozen=True, eq=False)
class Packing:
    """A model in kernels/: arguments of the driver, and the way there and back.

    family: module in kernels/models; shape, layout: its SHAPE and LAYOUT; width: WIDTH, numbers in a row
    slots [P]: where canonical parameter p lies in a row
    """

    family: str
    shape: tuple
    layout: tuple
    width: int
    slots: np.ndarray

    def pack(self, weights):
        """Rows [N, width] of weights [N, P], zeros between; NumPy."""
        rows = np.zeros((len(weights), self.width), weights.dtype)
        rows[:, self.slots] = weights
        return rows


def power_of_two(count):
    """The least power of two >= count, count >= 1."""
    return 1 << (int(count) - 1).bit_length()


def packing(model):
    """The Packing of a model, None without a kernel."""
    kind = type(model)
    if kind is DiagonalLinear:
        return _vectors("diagonal", model.d, 2, ())
    if kind is DiagonalProduct:
        return _vectors("diagonal", model.d, model.depth, ())
    if kind is DiagonalPower:
        return _vectors("power", model.d, 2 if model.signed else 1, (model.depth,))
    if kind is ReLU2:
        return packing(MLP(model.d, model.width, bias=(model.hidden_bias, model.output_bias)))
    return _dense(model) if kind is MLP and model.outputs == 1 else None


def _vectors(family, d, count, shape):
    padded = power_of_two(d)
    slots = (np.arange(count)[:, None] * padded + np.arange(d)).ravel()
    return Packing(family, shape, tuple((k * padded, 0, padded) for k in range(count)), count * padded, slots)


def _dense(model):
    """Layers 1, 3, ... as [fan, width], layers 2, 4, ... as [width, fan], the last as [fan]; see kernels/models/dense."""
    layout, slots, layers, at = [], [], [], 0
    for k, (fan, width) in enumerate(zip(model.sizes[:-1], model.sizes[1:], strict=True)):
        rows, columns = power_of_two(width), power_of_two(fan)
        units, sources = np.arange(width)[:, None], np.arange(fan)[None, :]
        place = len(layout)
        if k == model.layers - 1:
            layout.append((at, 0, columns))
            slots.append(at + sources + 0 * units)
            size = columns
        elif k % 2 == 0:
            layout.append((at, columns, rows))
            slots.append(at + sources * rows + units)
            size = rows * columns
        else:
            layout.append((at, rows, columns))
            slots.append(at + units * columns + sources)
            size = rows * columns
        at += size
        if model.bias[k]:
            last = k == model.layers - 1
            layout.append((at, 0, 0 if last else rows))
            slots.append(at + np.arange(width))
            at += rows
        layers.append((place, place + 1 if model.bias[k] else -1, float(model.multipliers[k]),
                       model.trained(f"W{k + 1}"), model.trained(f"b{k + 1}"), width))
    shape = (tuple(ACTIVATIONS).index(model.activation), *layers, float(model.slope))
    return Packing("dense", shape, tuple(layout), at, np.concatenate([part.ravel() for part in slots]))
