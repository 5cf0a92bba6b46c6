"""Owns the form of dense networks, which `MLP` and `ReLU2` are: sizes, C++ of its shape, places in Triton's rows."""

import numpy as np

from ..spec.record import record
from .activations import ACTIVATIONS, SMOOTH
from .form import Form, Packing, power_of_two


@record()
class Dense(Form):
    """A dense network with L weight layers, a_0 = x, z_l = c_l W_l a_{l-1} + b_l, a_l = act(z_l), h(x) = z_L.

    sizes: d, h_1, ..., o; bias, multipliers: of each layer; trained: (of W_l, of b_l) for each layer
    """

    sizes: tuple
    bias: tuple
    multipliers: tuple
    trained: tuple
    activation: str = "relu"
    slope: float = 0.01
    fused: tuple | None = None
    name, struct = "dense", "Dense"

    @property
    def residuals(self):
        return 3 * sum(self.sizes[1:])

    @property
    def longest(self):
        return max(self.sizes)

    @property
    def smooth(self):
        return self.activation in SMOOTH

    @property
    def units(self):
        return sum(self.sizes[1:-1])

    @property
    def outputs(self):
        """Number o of outputs."""
        return self.sizes[-1]

    @property
    def layers(self):
        """Number L of weight layers."""
        return len(self.bias)

    def described(self):
        weights, biases = zip(*self.trained, strict=True)
        return {"form": self.name, "sizes": self.sizes, "bias": self.bias, "multipliers": self.multipliers,
                "weights_trained": weights, "biases_trained": biases, "activation": self.activation,
                "slope": self.slope}

    def text(self):
        return f"fs::Dense<Tm, fs::Activation::{self.activation.upper()}>{{{self.shape_text()}}}"

    def shape_text(self):
        """C++ of the fs::DenseShape."""
        def braced(values):
            return "{" + ", ".join(values) + "}"

        def flags(values):
            return braced("true" if value else "false" for value in values)

        return "fs::DenseShape" + braced((
            str(self.layers), braced(map(str, self.sizes)), flags(self.bias),
            braced(flags(values) for values in zip(*self.trained, strict=True)),
            braced(repr(float(c)) for c in self.multipliers), f"fs::Activation::{self.activation.upper()}",
            repr(float(self.slope))))

    def layer(self, params, k, a):
        """z of layer k + 1 at activations a [..., n, fan-in]; NumPy or torch."""
        z = self.multipliers[k] * (a @ params[f"W{k + 1}"].swapaxes(-1, -2))
        return z + params[f"b{k + 1}"][..., None, :] if self.bias[k] else z

    def packing(self):
        """Layers 1, 3, ... as [fan, width], layers 2, 4, ... as [width, fan], a last one of one output as [fan].

        Offsets steer Triton, which gives a lane as many neighbours as the alignment lets it load at once. Off by one, a
        lane has a unit of its own with all its inputs, and no sum over inputs crosses lanes. A matrix between hidden
        layers is aligned to four, as a last one [width, fan] is: its rows lie on few lanes, and few sums cross them.
        """
        layout, slots, layers, blocks, at, p = [], [], [], [], 0, 0
        for k, (fan, width) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            last, (trains_weights, trains_biases) = k == self.layers - 1, self.trained[k]
            vector = last and width == 1
            aligned = not vector if k % 2 == 1 else 0 < k and not last
            columns, rows = power_of_two(fan), power_of_two(width)
            units, sources = np.arange(width)[:, None], np.arange(fan)[None, :]
            at += -at % 4 if aligned else 1 - at % 2
            block, slot = (((0, columns), sources + 0 * units) if vector else
                           ((columns, rows), sources * rows + units) if k % 2 == 0 else
                           ((rows, columns), units * columns + sources))
            place = len(layout)
            layout.append((at, *block))
            slots.append(at + slot.ravel())
            blocks.append((trains_weights, p, *((0, fan, 0, 1) if vector else (fan, width, 1, fan) if k % 2 == 0 else
                                                (width, fan, fan, 1))))
            at += max(1, block[0]) * block[1]
            p += fan * width
            if self.bias[k]:
                at += 1 - at % 2
                layout.append((at, 0, 0 if vector else rows))
                slots.append(at + np.arange(width))
                blocks.append((trains_biases, p, 0, width, 0, 1))
                at += rows
                p += width
            layers.append((place, place + 1 if self.bias[k] else -1, float(self.multipliers[k]), trains_weights,
                           trains_biases, width))
        shape = (tuple(ACTIVATIONS).index(self.activation), *layers, float(self.slope))
        return Packing(self.name, shape, tuple(layout), at + -at % 4, np.concatenate(slots), tuple(blocks))
