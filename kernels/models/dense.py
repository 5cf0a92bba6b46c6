"""Owns dense networks of one output: a_0 = x, z_l = c_l W_l a_{l-1} + b_l, a_l = act(z_l), h(x) = z_L. ReLU2 is L = 2.

Parallel over networks BN and hidden units, which lie along the lanes. Weights of layer 1, 3, ... are blocks
[BN, fan, width], of layer 2, 4, ... [BN, width, fan]: units of odd layers spread over lanes, units of even ones sit
inside a thread, so that a sum over the units of one never rearranges the other. The last layer is a vector
[BN, fan]. SHAPE = (layers, act, slope, width) with layers = ((place of W, place of b or -1, c, trains W, trains b), ...),
and width the true numbers of hidden units: what pads them is zero.
"""

import triton
import triton.language as tl


@triton.jit
def inputs(X, i, SHAPE: tl.constexpr, STRIDE: tl.constexpr):
    """Rows i [K] of X [n, STRIDE] as x [K, STRIDE, 1], or [K, STRIDE] where there is no hidden layer."""
    if len(SHAPE[0]) == 1:
        return tl.load(X + (i[:, None] * STRIDE + tl.arange(0, STRIDE)[None, :]))
    else:
        return tl.load(X + (i[:, None, None] * STRIDE + tl.arange(0, STRIDE)[None, :, None]))


@triton.jit
def activate(z, ACT: tl.constexpr, SLOPE: tl.constexpr):
    """(act(z), act'(z)), with relu'(0) = abs'(0) = 0 and leaky'(0) = slope."""
    one = tl.full(z.shape, 1.0, z.dtype)
    if ACT == "identity":
        return z, one
    elif ACT == "relu":
        return tl.maximum(z, 0.0), tl.where(z > 0, 1.0, 0.0).to(z.dtype)
    elif ACT == "leaky":
        d = tl.where(z > 0, one, one * SLOPE)
        return d * z, d
    elif ACT == "abs":
        return tl.abs(z), tl.where(z > 0, one, tl.where(z < 0, -one, 0.0))
    elif ACT == "square":
        return z * z, z + z
    elif ACT == "tanh":
        e = tl.exp(-2 * tl.abs(z))
        a = (1 - e) / (1 + e)
        return tl.where(z < 0, -a, a), 4 * e / ((1 + e) * (1 + e))
    elif ACT == "erf":
        return tl.erf(z), tl.exp(-(z * z)) * 1.1283791670955126
    elif ACT == "sigmoid":
        e = tl.exp(-tl.abs(z))
        a = tl.where(z < 0, e, one) / (1 + e)
        return a, e / ((1 + e) * (1 + e))
    else:
        e = tl.exp(-tl.abs(z))
        return tl.maximum(z, 0.0) + tl.log(1 + e), tl.where(z < 0, e, one) / (1 + e)


@triton.jit
def unit(z, H: tl.constexpr, ACT: tl.constexpr, SLOPE: tl.constexpr):
    """`activate`, and zero in the lanes that pad H units."""
    a, d = activate(z, ACT, SLOPE)
    if (ACT == "sigmoid" or ACT == "softplus") and H != z.shape[1]:
        real = (tl.arange(0, z.shape[1]) < H)[None, :]
        a = tl.where(real, a, 0.0)
    return a, d


@triton.jit
def value(w, x, SHAPE: tl.constexpr):
    """(h(x) [BN], (activations, derivatives) of every hidden layer)."""
    a = x
    units = ()
    derivatives = ()
    for l in tl.static_range(len(SHAPE[0]) - 1):
        weight = w[SHAPE[0][l][0]]
        if l % 2 == 0:
            z = tl.sum(weight * (a if l == 0 else a[:, :, None]), axis=1)
        else:
            z = tl.sum(weight * a[:, None, :], axis=2)
        if SHAPE[0][l][2] != 1.0:
            z = z * SHAPE[0][l][2]
        if SHAPE[0][l][1] >= 0:
            z = z + w[SHAPE[0][l][1]]
        a, d = unit(z, SHAPE[3][l], SHAPE[1], SHAPE[2])
        units = units + (a,)
        derivatives = derivatives + (d,)
    last = SHAPE[0][len(SHAPE[0]) - 1]
    f = tl.sum(w[last[0]] * a, axis=1)
    if last[2] != 1.0:
        f = f * last[2]
    if last[1] >= 0:
        f = f + w[last[1]]
    return f, (units, derivatives)


@triton.jit
def back(w, kept, g, SHAPE: tl.constexpr):
    """g dh/dz of every hidden layer, first to last, [BN, width] each."""
    deltas = ()
    delta = g[:, None]
    for up in tl.static_range(len(SHAPE[0]) - 1):
        above = SHAPE[0][len(SHAPE[0]) - 1 - up]
        if up == 0:
            sent = w[above[0]] * delta
        elif (len(SHAPE[0]) - 1 - up) % 2 == 0:
            sent = tl.sum(w[above[0]] * delta[:, None, :], axis=2)
        else:
            sent = tl.sum(w[above[0]] * delta[:, :, None], axis=1)
        if above[2] != 1.0:
            sent = sent * above[2]
        delta = kept[1][len(SHAPE[0]) - 2 - up] * sent
        deltas = (delta,) + deltas
    return deltas


@triton.jit
def push(to, w, x, kept, g, SHAPE: tl.constexpr):
    """to + g [BN] dh/dw: with to = w and g = -eta dloss/df, the SGD step."""
    deltas = back(w, kept, g, SHAPE)
    out = ()
    for l in tl.static_range(len(SHAPE[0])):
        weight = to[SHAPE[0][l][0]]
        if SHAPE[0][l][3]:
            if l == len(SHAPE[0]) - 1:
                e = g[:, None]
                source = x if l == 0 else kept[0][l - 1]
            elif l % 2 == 0:
                e = deltas[l][:, None, :]
                source = x if l == 0 else kept[0][l - 1][:, :, None]
            else:
                e = deltas[l][:, :, None]
                source = kept[0][l - 1][:, None, :]
            if SHAPE[0][l][2] != 1.0:
                e = e * SHAPE[0][l][2]
            weight = tl.fma(tl.broadcast_to(e, weight.shape), tl.broadcast_to(source, weight.shape), weight)
        out = out + (weight,)
        if SHAPE[0][l][1] >= 0:
            bias = to[SHAPE[0][l][1]]
            if SHAPE[0][l][4]:
                bias = bias + (g if l == len(SHAPE[0]) - 1 else deltas[l])
            out = out + (bias,)
    return out
