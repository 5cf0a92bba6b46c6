"""Owns dense networks: a_0 = x, z_l = c_l W_l a_{l-1} + b_l, a_l = act(z_l), h(x) = z_L. ReLU2 is L = 2.

Parallel over networks BN and hidden units, which lie along the lanes. Weights of layers 1, 3, ... are blocks
[BN, fan, width], of layers 2, 4, ... [BN, width, fan]: units of odd layers spread over lanes, units of even ones sit
inside a thread, so that a sum over the units of one never rearranges the other. The last layer is one of them where
there are several outputs, [BN, fan] and its bias [BN] where there is one.
SHAPE = (act, layer 1, ..., layer L, slope), a layer (place of W, of b or -1, c, trains W, trains b, width), width the
true number of units: what pads them is zero; act is one of the numbers below.
"""

import triton
import triton.language as tl

from ..contract import ABS, ERF, IDENTITY, LEAKY, RELU, SIGMOID, SOFTPLUS, SQUARE, TANH
from ..elementary import expm1, log1p

WEIGHT = tl.constexpr(0)
BIAS = tl.constexpr(1)
SCALE = tl.constexpr(2)
TRAINS_WEIGHT = tl.constexpr(3)
TRAINS_BIAS = tl.constexpr(4)
UNITS = tl.constexpr(5)


@triton.jit
def inputs(X, i, SHAPE: tl.constexpr, STRIDE: tl.constexpr):
    """Rows i [K] of X [n, STRIDE] as x [K, STRIDE, 1], or [K, STRIDE] for a layer that is a vector."""
    if len(SHAPE) == 3 and SHAPE[1][UNITS] == 1:
        return tl.load(X + (i[:, None] * STRIDE + tl.arange(0, STRIDE)[None, :]))
    else:
        return tl.load(X + (i[:, None, None] * STRIDE + tl.arange(0, STRIDE)[None, :, None]))


@triton.jit
def activate(z, ACT: tl.constexpr, SLOPE: tl.constexpr):
    """(act(z), act'(z)), with relu'(0) = abs'(0) = 0 and leaky'(0) = slope."""
    one = tl.full(z.shape, 1.0, z.dtype)
    if ACT == IDENTITY:
        return z, one
    elif ACT == RELU:
        return tl.maximum(z, 0.0), tl.where(z > 0, 1.0, 0.0).to(z.dtype)
    elif ACT == LEAKY:
        d = tl.where(z > 0, one, one * SLOPE)
        return d * z, d
    elif ACT == ABS:
        return tl.abs(z), tl.where(z > 0, one, tl.where(z < 0, -one, 0.0))
    elif ACT == SQUARE:
        return z * z, z + z
    elif ACT == TANH:
        e = tl.exp(-2 * tl.abs(z))
        m = expm1(-2 * tl.abs(z))
        a = -m / (2 + m)
        return tl.where(z < 0, -a, a), 4 * e / ((1 + e) * (1 + e))
    elif ACT == ERF:
        return tl.erf(z), tl.exp(-(z * z)) * 1.1283791670955126
    elif ACT == SIGMOID:
        e = tl.exp(-tl.abs(z))
        a = tl.where(z < 0, e, one) / (1 + e)
        return a, e / ((1 + e) * (1 + e))
    else:
        e = tl.exp(-tl.abs(z))
        return tl.maximum(z, 0.0) + log1p(e), tl.where(z < 0, e, one) / (1 + e)


@triton.jit
def unit(z, H: tl.constexpr, ACT: tl.constexpr, SLOPE: tl.constexpr):
    """`activate`, and zero in the lanes that pad H units."""
    a, d = activate(z, ACT, SLOPE)
    if (ACT == SIGMOID or ACT == SOFTPLUS) and H != z.shape[1]:
        real = (tl.arange(0, z.shape[1]) < H)[None, :]
        a = tl.where(real, a, 0.0)
    return a, d


@triton.jit
def scaled(z, C: tl.constexpr):
    """C z, nothing where C is 1."""
    if C == 1.0:
        return z
    else:
        return z * C


@triton.jit
def through(weight, a, LAYER: tl.constexpr):
    """W a [BN, width], or [BN], of a layer."""
    if len(weight.shape) == 2:
        return tl.sum(weight * a, axis=1)
    elif LAYER % 2 == 0:
        return tl.sum(weight * a[:, None, :], axis=2)
    elif LAYER == 1:
        return tl.sum(weight * a, axis=1)
    else:
        return tl.sum(weight * a[:, :, None], axis=1)


@triton.jit
def value(w, x, SHAPE: tl.constexpr):
    """(h(x) [BN] or [BN, O], (activations, derivatives) of every hidden layer)."""
    a = x
    units = ()
    derivatives = ()
    for layer in tl.static_range(1, len(SHAPE) - 1):
        z = scaled(through(w[SHAPE[layer][WEIGHT]], a, layer), SHAPE[layer][SCALE])
        if SHAPE[layer][BIAS] >= 0:
            z = z + w[SHAPE[layer][BIAS]]
        if layer < len(SHAPE) - 2:
            a, d = unit(z, SHAPE[layer][UNITS], SHAPE[0], SHAPE[len(SHAPE) - 1])
            units = units + (a,)
            derivatives = derivatives + (d,)
    return z, (units, derivatives)


@triton.jit
def back(w, residuals, g, SHAPE: tl.constexpr):
    """g dh/dz of every layer, first to last: [BN, width] each, and g of the last."""
    deltas = (g,)
    for layer in tl.static_range(len(SHAPE) - 2, 1, -1):
        if len(w[SHAPE[layer][WEIGHT]].shape) == 2:
            sent = w[SHAPE[layer][WEIGHT]] * g[:, None]
        elif layer % 2 == 0:
            sent = tl.sum(w[SHAPE[layer][WEIGHT]] * deltas[0][:, :, None], axis=1)
        else:
            sent = tl.sum(w[SHAPE[layer][WEIGHT]] * deltas[0][:, None, :], axis=2)
        deltas = (residuals[1][layer - 2] * scaled(sent, SHAPE[layer][SCALE]),) + deltas
    return deltas


@triton.jit
def vjp(to, w, x, residuals, g, SHAPE: tl.constexpr):
    """to + g dh/dw, g [BN] or [BN, O]: with to = w and g = -eta dloss/df, the SGD step."""
    deltas = back(w, residuals, g, SHAPE)
    sources = (x,) + residuals[0]
    out = ()
    for layer in tl.static_range(1, len(SHAPE) - 1):
        weight = to[SHAPE[layer][WEIGHT]]
        if SHAPE[layer][TRAINS_WEIGHT]:
            if len(weight.shape) == 2:
                e = deltas[layer - 1][:, None]
                a = sources[layer - 1]
            elif layer % 2 == 0:
                e = deltas[layer - 1][:, :, None]
                a = sources[layer - 1][:, None, :]
            else:
                e = deltas[layer - 1][:, None, :]
                a = sources[layer - 1] if layer == 1 else sources[layer - 1][:, :, None]
            e = tl.broadcast_to(scaled(e, SHAPE[layer][SCALE]), weight.shape)
            weight = tl.fma(e, tl.broadcast_to(a, weight.shape), weight)
        out = out + (weight,)
        if SHAPE[layer][BIAS] >= 0:
            bias = to[SHAPE[layer][BIAS]]
            if SHAPE[layer][TRAINS_BIAS]:
                bias = bias + deltas[layer - 1]
            out = out + (bias,)
    return out
