"""Owns the gradient of a step that takes samples one after another: their sum, SAM's, and that of noise on one label.

Parallel over networks BN; a gradient is a tuple of blocks like the parameters. X [n, STRIDE] and y are the data.
"""

import triton
import triton.language as tl

from . import labels, losses, rules, state


@triton.jit
def accumulated(bad, at, numbers, share, X, y, indices, rows, batch, scale, mine, t, seed, terms,
                INPUTS: tl.constexpr, VALUE: tl.constexpr, VJP: tl.constexpr, SHAPE: tl.constexpr, STRIDE: tl.constexpr,
                LOSS: tl.constexpr, NOISE: tl.constexpr, DRAWS: tl.constexpr, ONE: tl.constexpr, RULE: tl.constexpr,
                BLOCKS: tl.constexpr, EACH: tl.constexpr):
    """(share * sum of dloss/dw over a step's samples, at parameters `at`; `bad`, or a sample of it out of bounds).

    share [1], left out (1) in a plain step; rows [BN] or [1] int64: of indices [rows, batch]; scale [BN]: of noise
    EACH: every sample's gradient is taken at a point of its own, perturbed along its own gradient
    """
    gradient = state.zeros(at)
    b = batch * 0
    while b < batch:
        if DRAWS:
            i = (rows * 0 + b).to(tl.int32)
        else:
            i = tl.load(indices + rows * batch + b)
        x = INPUTS(X, i, SHAPE, STRIDE)
        label = labels.load(y, i, LOSS)
        if NOISE != "none" and ONE == "none":
            label = labels.noisy(label, scale, labels.noise_of_one(seed, t, mine, b, LOSS, NOISE), LOSS)
        point = at
        if EACH:
            f, residuals = VALUE(at, x, SHAPE)
            g, out = losses.dloss(f, label, terms, LOSS)
            bad = bad | out
            point = rules.perturbed(at, VJP(state.zeros(at), at, x, residuals, g, SHAPE), numbers, RULE, BLOCKS)
        f, residuals = VALUE(point, x, SHAPE)
        g, out = losses.dloss(f, label, terms, LOSS)
        bad = bad | out
        if len(RULE) > 0:
            g = state.over(share, g) * g
        gradient = VJP(gradient, point, x, residuals, g, SHAPE)
        b += 1
    return gradient, bad


@triton.jit
def with_one_label(gradient, w, whole, X, y, i, scale, mine, t, seed, terms, INPUTS: tl.constexpr,
                   VALUE: tl.constexpr, VJP: tl.constexpr, SHAPE: tl.constexpr, STRIDE: tl.constexpr,
                   LOSS: tl.constexpr, NOISE: tl.constexpr):
    """gradient + whole * what noise on the labels of sample i [BN] or [1] changes of its gradient."""
    x = INPUTS(X, i, SHAPE, STRIDE)
    label = labels.load(y, i, LOSS)
    f, residuals = VALUE(w, x, SHAPE)
    z = labels.noise_of_one(seed, t, mine, t * 0, LOSS, NOISE)
    clean, _out = losses.dloss(f, label, terms, LOSS)
    noisy, _out = losses.dloss(f, labels.noisy(label, scale, z, LOSS), terms, LOSS)
    return VJP(gradient, w, x, residuals, (noisy - clean) * whole, SHAPE)
