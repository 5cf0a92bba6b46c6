"""Owns the functions of single numbers that a graph may have: each in NumPy, in torch, in C++, and its derivative.

A derivative is a function of g, the derivative with respect to the value, of the value and of the arguments; it gives
one derivative for each argument, None for an argument that has none. Kinks are torch's: relu'(0) = abs'(0) = 0, the
derivative of a maximum of two equal numbers is shared between them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Function:
    """numpy, torch: callables on arrays; code: C++ of vectors {0}, {1}, {2}; derivative as above; cost: operations."""

    count: int
    numpy: Callable
    torch: Callable
    code: str
    derivative: Callable | None
    cost: int = 1


def _f(name, *args):
    from .graph import apply

    return apply(name, *args)


def _torch(name):
    """The function `name` of torch, imported when it is called."""
    def call(*args):
        import torch

        return getattr(torch, name)(*args)

    return call


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _softplus(z):
    return z.logaddexp(z.new_zeros(()))


def _sigmoid(z):
    e = np.exp(-np.abs(z))
    return np.where(z < 0, e, 1) / (1 + e)


def _unary(numpy, torch, code, derivative, cost=16):
    return Function(1, numpy, _torch(torch) if isinstance(torch, str) else torch, code, derivative, cost)


def _binary(numpy, torch, code, derivative, cost=1):
    return Function(2, numpy, _torch(torch), code, derivative, cost)


def _compare(numpy, torch, sign):
    kept = _torch(torch)
    return Function(2, lambda a, b: numpy(a, b) * 1.0, lambda a, b: kept(a, b).to(a.dtype),
                    f"choose(({{0}}).a {sign} ({{1}}).a, V::set(1), V::set(0))", None)


def _where(name, torch, numpy):
    return Function(3, numpy, torch, "choose(({0}).a != V::set(0).a, {1}, {2})",
                    lambda g, n, c, a, b: (None, _f("where", c, g, 0.0), _f("where", c, 0.0, g)))


SIGNS = {"gt": ">", "lt": "<", "ge": ">=", "le": "<=", "eq": "==", "ne": "!="}  # comparisons, as C++ writes them
TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)

TABLE = {
    "add": _binary(np.add, "add", "{0} + {1}", lambda g, n, a, b: (g, g)),
    "sub": _binary(np.subtract, "sub", "{0} - {1}", lambda g, n, a, b: (g, -g)),
    "mul": _binary(np.multiply, "mul", "{0} * {1}", lambda g, n, a, b: (g * b, g * a)),
    "div": _binary(np.divide, "div", "{0} / {1}", lambda g, n, a, b: (g / b, -(g / b * n)), 4),
    "max": _binary(np.maximum, "maximum", "choose(({0}).a > ({1}).a, {0}, {1})",
                   lambda g, n, a, b: (_share(g, a, b, "gt"), _share(g, a, b, "lt"))),
    "min": _binary(np.minimum, "minimum", "choose(({0}).a < ({1}).a, {0}, {1})",
                   lambda g, n, a, b: (_share(g, a, b, "lt"), _share(g, a, b, "gt"))),
    "pow": _binary(np.power, "pow", "exp({1} * log({0}))",
                   lambda g, n, a, b: (g * b * _f("pow", a, b - 1.0), g * n * _f("log", a)), 32),
    "neg": _unary(np.negative, "neg", "-{0}", lambda g, n, a: (-g,), 1),
    "abs": _unary(np.abs, "abs", "abs({0})", lambda g, n, a: (g * _f("sign", a),), 1),
    "sign": _unary(np.sign, "sign", "gate({0}, V::set(1)) - gate(-{0}, V::set(1))", None, 2),
    "relu": _unary(lambda a: np.maximum(a, 0), "relu", "relu({0})", lambda g, n, a: (_f("gate", n, g),), 1),
    "gate": Function(2, lambda a, g: np.where(a > 0, g, 0.0), lambda a, g: g.where(a > 0, g.new_zeros(())),
                     "gate({0}, {1})", lambda g, n, a, b: (None, _f("gate", a, g))),
    "square": _unary(np.square, "square", "{0} * {0}", lambda g, n, a: (g * (a + a),), 1),
    "sqrt": _unary(np.sqrt, "sqrt", "sqrt({0})", lambda g, n, a: (g / (n + n),), 4),
    "length": _unary(np.sqrt, "sqrt", "sqrt({0})",  # of a vector of this square: torch has 0 for its derivative at 0
                     lambda g, n, a: (_f("where", _f("gt", n, 0.0), g / (n + n), 0.0),), 4),
    "exp": _unary(np.exp, "exp", "exp({0})", lambda g, n, a: (g * n,)),
    "expm1": _unary(np.expm1, "expm1", "expm1({0})", lambda g, n, a: (g * (n + 1.0),)),
    "log": _unary(np.log, "log", "log({0})", lambda g, n, a: (g / a,)),
    "log1p": _unary(np.log1p, "log1p", "log1p({0})", lambda g, n, a: (g / (a + 1.0),)),
    "sin": _unary(np.sin, "sin", "sin({0})", lambda g, n, a: (g * _f("cos", a),)),
    "cos": _unary(np.cos, "cos", "cos({0})", lambda g, n, a: (-(g * _f("sin", a)),)),
    "tanh": _unary(np.tanh, "tanh", "tanh({0})", lambda g, n, a: (g * (1.0 - n * n),)),
    "erf": _unary(_erf, "erf", "erf({0})", lambda g, n, a: (g * (TWO_OVER_ROOT_PI * _f("exp", -(a * a))),)),
    "sigmoid": _unary(_sigmoid, "sigmoid", "sigmoid({0})", lambda g, n, a: (g * (n * (1.0 - n)),)),
    "softplus": _unary(lambda a: np.logaddexp(0, a), _softplus, "softplus({0})",
                       lambda g, n, a: (g * _f("sigmoid", a),)),
    "floor": _unary(np.floor, "floor", "floor({0})", None, 4),
    "trunc": _unary(np.trunc, "trunc", "trunc({0})", None, 4),
    "round": _unary(np.round, "round", "nearest({0})", None, 4),
    "still": _unary(lambda a: a, lambda a: a, "{0}", None, 0),  # of which no result depends: it has no derivative
    "not": _unary(lambda a: (a == 0) * 1.0, lambda a: (a == 0).to(a.dtype), "V::set(1) - {0}", None, 1),
    "and": _binary(np.multiply, "mul", "{0} * {1}", None),
    "or": _binary(np.maximum, "maximum", "choose(({0}).a > ({1}).a, {0}, {1})", None),
    **{name: _compare(getattr(np, numpy), name, SIGNS[name]) for name, numpy in (
        ("gt", "greater"), ("lt", "less"), ("ge", "greater_equal"), ("le", "less_equal"), ("eq", "equal"),
        ("ne", "not_equal"))},
    "where": _where("where", lambda c, a, b: a.where(c != 0, b), lambda c, a, b: np.where(c != 0, a, b)),
}


def _share(g, a, b, wins):
    """g where a wins against b, half of it where they are equal."""
    return _f("where", _f(wins, a, b), g, _f("where", _f("eq", a, b), 0.5 * g, 0.0))
