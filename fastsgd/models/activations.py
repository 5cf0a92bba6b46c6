"""Owns the activations of dense networks by name, in operators that NumPy and torch both run."""

from ..spec.operators import choose, of, softplus

# Each takes (z, slope). Where a derivative does not exist, relu'(0) = abs'(0) = 0 and leaky'(0) = slope.
ACTIVATIONS = {
    "identity": lambda z, slope: z,
    "relu": lambda z, slope: choose(z > 0, z, 0),
    "leaky": lambda z, slope: choose(z > 0, z, slope * z),
    "abs": lambda z, slope: abs(z),
    "square": lambda z, slope: z * z,
    "tanh": lambda z, slope: of("tanh", z),
    "erf": lambda z, slope: of("erf", z),
    "sigmoid": lambda z, slope: of("sigmoid", z),
    "softplus": lambda z, slope: softplus(z),
}
SMOOTH = frozenset({"tanh", "erf", "sigmoid", "softplus"})  # those that take an elementary function
