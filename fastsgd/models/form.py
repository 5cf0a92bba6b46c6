"""Owns what kernels know of a family: a Form, plain sizes and where its parameters lie."""

import numpy as np

from ..spec.record import record


class Form:
    """What kernels know of a network; a family's `form()` makes it.

    A subclass is a frozen dataclass of sizes. Several families may have one form: a two-layer ReLU network is a dense
    one.

    name: the form in the kernels' words; core/models/NAME.h has the struct `struct`, a template over threads
    fields: names of the whole numbers that the struct is made of, in its order
    residuals: numbers that a network keeps between a forward pass and its derivatives, as that header says
    longest: items of the longest axis that threads can share
    fused: (family, d, h, hidden_bias, output_bias) of the CPU's and the cards' fused loops, None without one
    costs: (line of the cost table, parameters) of another form that takes as long; None for a line of its own
    smooth: whether an activation takes an elementary function; units: of all hidden layers
    """

    name = struct = None
    fields = ()
    residuals = 0
    fused = None
    linear = False  # whether h(x) = <beta, x>: then `beta`, `parts` and `factors` are there
    costs = None
    smooth = False
    units = 0

    @property
    def longest(self):
        raise NotImplementedError

    def numbers(self):
        """Values of `fields`."""
        return tuple(int(getattr(self, name)) for name in self.fields)

    def described(self):
        """What the CPU's bindings read."""
        return {"form": self.name, "numbers": self.numbers()}

    def text(self):
        """C++ of the struct, for programs; Tm says which threads cooperate."""
        return f"fs::{self.struct}<Tm>{{{', '.join(map(str, self.numbers()))}}}"

    def packing(self):
        """The Packing of the Triton kernels, None without one."""
        return None


@record()
class Packing:
    """A form in kernels/: arguments of the driver, and the way there and back.

    module: of kernels/models; shape, layout: its SHAPE and LAYOUT; width: WIDTH, numbers in a row
    slots [P]: where canonical parameter p lies in a row; blocks: BLOCKS, the way from a row to p, see kernels/rules.py
    """

    module: str
    shape: tuple
    layout: tuple
    width: int
    slots: np.ndarray
    blocks: tuple

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


def vectors(module, d, count, shape=()):
    """The Packing of `count` vectors [d]."""
    padded = power_of_two(d)
    slots = (np.arange(count)[:, None] * padded + np.arange(d)).ravel()
    blocks = tuple((True, k * d, 0, d, 0, 1) for k in range(count))
    return Packing(module, shape, tuple((k * padded, 0, padded) for k in range(count)), count * padded, slots, blocks)


def product(factors):
    """The elementwise product of arrays."""
    out = factors[0]
    for factor in factors[1:]:
        out = out * factor
    return out
