"""Owns expectations of products of two activations under Gaussian inputs, E act(w . x) act(u . x) with x ~ N(0, I)."""

import numpy as np

from ..spec.operators import choose, like

KNOWN = ("erf", "identity", "relu", "leaky", "abs", "square")  # activations that have a closed form
SAME = 1e-16  # squared sine of an angle of which E has the third power, and its derivatives no digit
SLOPES = {"identity": 1.0, "relu": 0.0, "abs": -1.0}  # below zero, of those that are linear in two pieces


def slope_of(activation, slope):
    """The slope below zero of an activation that is linear in two pieces, None of another."""
    return slope if activation == "leaky" else SLOPES.get(activation)


def expected(activation, slope, w, u, same=False):
    """E act(w_i . x) act(u_j . x) [..., m, h] of w [..., h, d] and u [..., m, d]; NumPy or torch.

    With b = w . u, c = |w|^2, s = |u|^2 it is (2/pi) asin(2 b / sqrt((1 + 2 c)(1 + 2 s))) for "erf", c s + 2 b^2 for
    "square". For slopes 1 above and a below zero it is ((1 - a)^2 r + b ((1 + a^2)(pi - theta) + 2 a theta)) / (2 pi),
    theta the angle of w and u, r = |w| |u| sin theta (a = 0: the arc-cosine kernel). Where w_i = 0 the derivative by it
    is what act'(0) gives. same: whether u is w, so that i = j is the same unit and has theta = 0 without rounding
    Source: Saad and Solla 1995; Cho and Saul 2009
    """
    b = u @ w.swapaxes(-1, -2)
    c, s = (w * w).sum(-1)[..., None, :], (u * u).sum(-1)[..., :, None]
    if activation == "square":
        return c * s + 2 * b * b
    if activation == "erf":  # the arc sine as an arc tangent, whose derivative is finite everywhere
        square = 1 + 2 * c + 2 * s + 4 * (c * s - b * b)  # 1 or more, but for rounding
        return 2 / np.pi * _function("arctan2", 2 * b, choose(square > 0.5, square, 1) ** 0.5)
    a = slope_of(activation, slope)
    own = like(np.eye(b.shape[-1]) if same else np.zeros(b.shape[-2:]), b) > 0
    there = c > 0
    r = u[..., :, None, :] - (b / choose(there, c, 1))[..., None] * w[..., None, :, :]
    square = c * (r * r).sum(-1)  # of |w| |u| sin theta, with all digits where they are nearly parallel
    apart = (square > SAME * c * s) & (own == 0)
    length = choose(apart, choose(apart, square, 1) ** 0.5, 0)
    clear = apart | (b != 0)
    theta = _function("arctan2", length, choose(clear, b, 1))
    pair = ((1 - a)**2 * length + b * ((1 + a * a) * (np.pi - theta) + 2 * a * theta)) / (2 * np.pi)
    pair = choose(there & (s > 0), pair, a * (1 + a) / 2 * b)
    return choose(own, (1 + a * a) / 2 * c + 0 * b, pair)


def _function(name, y, x):
    """np.`name`(y, x), or the same of tensors."""
    return getattr(np, name)(y, x) if isinstance(y, (np.ndarray, np.generic)) else getattr(y, name)(x)
