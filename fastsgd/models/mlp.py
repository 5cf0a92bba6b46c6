"""Owns dense networks of any depth: widths, activation, biases, scalings, weights that stay fixed."""

from typing import Any

from ..errors import SpecError
from ..spec.check import Array, flag, one_of, per_layer, real, whole
from ..spec.record import record
from .activations import ACTIVATIONS
from .base import Model
from .dense import Dense
from .form import Form

MOST_LAYERS = 8


@record()
class MLP(Model):
    """Dense network with L weight layers: a_0 = x, z_l = c_l W_l a_{l-1} + b_l, a_l = act(z_l), h(x) = z_L [o].

    d: number of inputs, >= 1
    widths: hidden widths, 0 .. 7 numbers >= 1, or one number; parameters W1 [h_1, d], b1 [h_1], ..., WL [o, h], bL [o]
    outputs: number o of outputs, >= 1; predictions are [n] for one output, [n, o] for more
    activation: "identity" (a linear network), "relu" (relu'(0) = 0), "leaky" (max(z, 0) + slope min(z, 0)), "abs",
        "square", "tanh", "erf", "sigmoid", "softplus"
    bias: whether layers have biases, one flag or one a layer
    scaling: c_l; "standard" is 1, "ntk" is 1/sqrt(fan-in), "mean_field" is 1/sqrt(fan-in) and 1/fan-in in the last
        layer; or L numbers > 0
    slope: of "leaky" below zero, finite
    fixed: names of parameters that keep their starting values, e.g. ("W2",)
    W_scale, b_scale: deviations of the Gaussian start, >= 0, each [] or [N], or a tuple of L of these; by default
        1/sqrt(fan-in) for W under "standard" and 1 otherwise, and 0 for b
    """

    d: int
    widths: int | tuple[int, ...]
    outputs: int = 1
    activation: str = "relu"
    bias: bool | tuple = True
    scaling: str | tuple = "standard"
    slope: float = 0.01
    fixed: tuple = ()
    W_scale: float | Array | tuple | None = None
    b_scale: float | Array | tuple = 0.0

    def __post_init__(self):
        put = object.__setattr__
        put(self, "d", whole(self.d, "model.d", 1))
        widths = self.widths if isinstance(self.widths, (tuple, list)) else (self.widths,)
        put(self, "widths", tuple(whole(width, "model.widths", 1) for width in widths))
        if len(widths) >= MOST_LAYERS:
            raise SpecError(f"model.widths: {len(widths)} hidden layers given, expected at most {MOST_LAYERS - 1}")
        put(self, "outputs", whole(self.outputs, "model.outputs", 1))
        one_of(self.activation, "model.activation", tuple(ACTIVATIONS))
        bias = self._each(self.bias, "bias")
        put(self, "bias", tuple(flag(value, "model.bias") for value in bias))
        put(self, "slope", real(self.slope, "model.slope"))
        if not isinstance(self.scaling, str):
            scaling = self._each(self.scaling, "scaling")
            put(self, "scaling", tuple(real(value, "model.scaling", 0, low_open=True) for value in scaling))
        else:
            one_of(self.scaling, "model.scaling", ("standard", "ntk", "mean_field"))
        fixed = tuple(self.fixed) if isinstance(self.fixed, (tuple, list)) else (self.fixed,)
        for name in fixed:
            one_of(name, "model.fixed", tuple(self.shapes()))
        put(self, "fixed", fixed)
        default = tuple(fan**-0.5 if self.scaling == "standard" else 1.0 for fan in self.sizes[:-1])
        for name, value in (("W_scale", default if self.W_scale is None else self.W_scale), ("b_scale", self.b_scale)):
            put(self, name, per_layer(self._each(value, name), f"model.{name}", 0))

    def _each(self, value, name):
        """A value for each layer."""
        if not isinstance(value, (tuple, list)):
            return (value,) * self.layers
        if len(value) != self.layers:
            raise SpecError(f"model.{name}: {len(value)} values given, expected one, or one for each of the "
                            f"{self.layers} layers")
        return tuple(value)

    @property
    def layers(self) -> int:
        """Number L of weight layers."""
        return len(self.widths) + 1

    @property
    def sizes(self) -> tuple:
        """(d, h_1, ..., o), L + 1 numbers."""
        return (self.d, *self.widths, self.outputs)

    @property
    def multipliers(self) -> tuple:
        """c_l, L numbers."""
        if not isinstance(self.scaling, str):
            return self.scaling
        fans = self.sizes[:-1]
        if self.scaling == "standard":
            return (1.0,) * self.layers
        last = 1 / fans[-1] if self.scaling == "mean_field" else fans[-1]**-0.5
        return (*(fan**-0.5 for fan in fans[:-1]), last)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {}
        for k, (fan, width) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            shapes[f"W{k + 1}"] = (width, fan)
            if self.bias[k]:
                shapes[f"b{k + 1}"] = (width,)
        return shapes

    def scales(self) -> dict:
        part = {"W": self.W_scale, "b": self.b_scale}
        return {name: (0.0, part[name[0]][int(name[1:]) - 1]) for name in self.shapes()}

    def trained(self, name: str) -> bool:
        return name not in self.fixed

    def form(self) -> Form | None:
        trained = tuple((self.trained(f"W{k + 1}"), self.trained(f"b{k + 1}")) for k in range(self.layers))
        return Dense(self.sizes, self.bias, self.multipliers, trained, self.activation, self.slope)

    def features(self, params: dict, X: Any) -> dict | None:
        out, a, form = {}, X, self.form()
        for k in range(len(self.widths)):
            a = out[f"hidden{k + 1}"] = ACTIVATIONS[self.activation](form.layer(params, k, a), self.slope)
        return out

    def forward(self, params: dict, X: Any) -> Any:
        features = self.features(params, X)
        f = self.form().layer(params, self.layers - 1, features[f"hidden{len(self.widths)}"] if features else X)
        return f[..., 0] if self.outputs == 1 else f
