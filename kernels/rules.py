"""Owns what a step does with a gradient: noise, clipping, penalties, normalisation, momentum, Adam, averages, SAM.

csrc/core/rules/update.h in Triton, in the same order. Parallel over networks BN and all of their parameters; w and g
are tuples of blocks (see state), `carried` has for each block a tuple of its buffers: momentum, or Adam's two moments,
then the average. Blocks are updated one after another, so that one block's intermediate results live at a time.

RULE: where in `numbers`, a tuple of [BN], a hyper-parameter is, -1 if the rule has it not; then flags. () for a plain
    step, w - eta g
BLOCKS: for each block (is it trained, canonical number of its first parameter, true lengths of its last two axes, steps
    of that number along them, where in `numbers` its own step scale, decay and localisation are; -1 if it has none)
"""

import triton
import triton.language as tl

from . import state
from .contract import (
    ADAGRAD,
    ADAM,
    AVERAGE,
    BALANCE_PENALTY,
    BETA1,
    BETA2,
    CLIP_NORM,
    CLIP_VALUE,
    DAMPENING,
    DECOUPLED,
    EPSILON,
    GRADIENT_ALPHA,
    LION,
    LOCALISATION,
    MOMENTUM,
    NESTEROV,
    NORMALISED,
    RHO,
    RMSPROP,
    SIGN,
    UNIT,
    WEIGHT_DECAY,
)
from .draws import noise_of_parameter

TRAINED = tl.constexpr(0)
FIRST = tl.constexpr(1)
ROWS = tl.constexpr(2)
COLUMNS = tl.constexpr(3)
ROW = tl.constexpr(4)
COLUMN = tl.constexpr(5)
EACH = tl.constexpr(6)


@triton.jit
def load(hyper, net, live, COUNT: tl.constexpr):
    """`numbers` from hyper [N, COUNT]; 0.5 where there is no network, since one can divide by it."""
    out = ()
    for k in tl.static_range(COUNT):
        out = out + (tl.load(hyper + (net.to(tl.int64) * COUNT + k), mask=live, other=0.5),)
    return out


@triton.jit
def square(g, BLOCKS: tl.constexpr):
    """||g||^2 [BN]; a unit's inputs are summed first, as in the forward pass, so that blocks stay in their layout."""
    total = 0.0
    for k in tl.static_range(len(g)):
        square = g[k] * g[k]
        if len(g[k].shape) == 3:
            square = tl.sum(square, axis=1 if BLOCKS[k][ROW] == 1 else 2)
        if len(g[k].shape) > 1:
            square = tl.sum(square, axis=1)
        total = total + square
    if total.shape[0] == 1:  # through a scalar: else the layout of a sum spreads to all blocks, by shared memory
        total = tl.zeros([1], total.dtype) + tl.sum(total, axis=0)
    return total


@triton.jit
def directed(g, BLOCKS: tl.constexpr):
    """(g [BN, ...] times a power of two where its square leaves the range of its dtype, its length then)."""
    total = square(g, BLOCKS)
    DOUBLE: tl.constexpr = total.dtype == tl.float64
    LOW: tl.constexpr = 2.0**-960 if DOUBLE else 2.0**-100
    RESCALE: tl.constexpr = 2.0**768 if DOUBLE else 2.0**96
    small = total < LOW
    large = total == float("inf")
    g = state.times(tl.where(small, RESCALE, tl.where(large, 1 / RESCALE, 1.0)).to(total.dtype), g)
    return g, tl.sqrt(square(g, BLOCKS))


@triton.jit
def perturbed(w, g, numbers, RULE: tl.constexpr, BLOCKS: tl.constexpr):
    """w + rho g / ||g||, or w + rho g: where SAM takes its gradient; w where g is zero."""
    scale = numbers[RULE[RHO]]
    if RULE[UNIT]:
        g, size = directed(g, BLOCKS)
        scale = tl.where(size > 0, scale / size, 0.0)
    return state.moved(scale, g, w)


@triton.jit
def noisy(g, scale, numbers, seed, t, ids, RULE: tl.constexpr, BLOCKS: tl.constexpr, KIND: tl.constexpr):
    """g + scale [BN] z at step t, one draw for each trained parameter."""
    out = ()
    for k in tl.static_range(len(g)):
        block = g[k]
        if BLOCKS[k][TRAINED]:
            p, real = state.numbered(block, BLOCKS[k][FIRST], BLOCKS[k][ROWS], BLOCKS[k][COLUMNS], BLOCKS[k][ROW],
                                     BLOCKS[k][COLUMN])
            alpha = state.beside(numbers[RULE[GRADIENT_ALPHA]], block).to(tl.float64) if KIND == "stable" else 2.0
            z = noise_of_parameter(seed, t, state.over(ids, block), p, alpha, KIND)
            block = block + tl.where(real, state.beside(scale, block) * z.to(block.dtype), 0.0)
        out = out + (block,)
    return out


@triton.jit
def clipped(g, numbers, RULE: tl.constexpr, BLOCKS: tl.constexpr):
    """g with its entries, and then its length, brought below what the rule allows."""
    if RULE[CLIP_VALUE] >= 0:
        out = ()
        for k in tl.static_range(len(g)):
            most = state.beside(numbers[RULE[CLIP_VALUE]], g[k])
            out = out + (tl.where(g[k] > most, most, tl.where(g[k] < -most, -most, g[k])),)
        g = out
    if RULE[CLIP_NORM] >= 0:
        total = square(g, BLOCKS)
        RESCALE: tl.constexpr = 2.0**768 if total.dtype == tl.float64 else 2.0**96
        scale = tl.where(total == float("inf"), 1 / RESCALE, 1.0).to(total.dtype)
        size = tl.sqrt(square(state.times(scale, g), BLOCKS))
        share = scale * (numbers[RULE[CLIP_NORM]] / (size + scale * 1e-6))
        g = state.times(tl.where(share < 1, share, 1.0), g)
    return g


@triton.jit
def own(numbers, RULE: tl.constexpr, BLOCKS: tl.constexpr, K: tl.constexpr, WORD: tl.constexpr, OF: tl.constexpr):
    """A number [BN] of block K: its own, number OF of those that arrays have, or hyper-parameter WORD."""
    if BLOCKS[K][EACH] >= 0:
        return numbers[BLOCKS[K][EACH] + OF]
    else:
        return numbers[RULE[WORD]]


@triton.jit
def penalised(w, g, carried, numbers, RULE: tl.constexpr, BLOCKS: tl.constexpr):
    """g and what localisation, decay that is not decoupled and (mu / 4) sum_j (u_j^2 - v_j^2)^2 add to it; to length 1
    if asked."""
    out = ()
    for k in tl.static_range(len(w)):
        block = g[k]
        if RULE[LOCALISATION] >= 0 and BLOCKS[k][TRAINED]:
            point = carried[k][len(carried[k]) - (2 if RULE[AVERAGE] >= 0 else 1)]
            block = tl.fma(state.beside(own(numbers, RULE, BLOCKS, k, LOCALISATION, 2), block), w[k] - point, block)
        if RULE[WEIGHT_DECAY] >= 0 and not RULE[DECOUPLED] and BLOCKS[k][TRAINED]:
            block = tl.fma(state.beside(own(numbers, RULE, BLOCKS, k, WEIGHT_DECAY, 1), block), w[k], block)
        if RULE[BALANCE_PENALTY] >= 0:  # w is (u, v)
            gap = tl.fma(w[k], w[k], -(w[1 - k] * w[1 - k]))
            block = tl.fma(state.beside(numbers[RULE[BALANCE_PENALTY]], block) * gap, w[k], block)
        out = out + (block,)
    if RULE[NORMALISED]:
        out, size = directed(out, BLOCKS)
        out = state.times(tl.where(size > 0, 1 / size, 0.0), out)
    return out


@triton.jit
def mixed(keep, old, new):
    """keep [BN] old + (1 - keep) new, of a block."""
    return tl.fma(state.beside(keep, old), old, state.beside(1 - keep, old) * new)


@triton.jit
def raised(x, exponent):
    """x [BN] to a whole power."""
    out = tl.full(x.shape, 1.0, x.dtype)
    while exponent > 0:
        out = tl.where(exponent % 2 == 1, out * x, out)
        x = x * x
        exponent = exponent // 2
    return out


@triton.jit
def signs(x):
    """-1, 0 or 1."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0)).to(x.dtype)


@triton.jit
def corrections(numbers, t, RULE: tl.constexpr):
    """1 - beta^(t + 1) [BN] of Adam's two moments at step t; by what dampening multiplies a gradient."""
    if RULE[ADAM]:
        return 1 - raised(numbers[RULE[BETA1]], t + 1), 1 - raised(numbers[RULE[BETA2]], t + 1)
    elif RULE[DAMPENING] >= 0:
        return (tl.where(t > 0, 1 - numbers[RULE[DAMPENING]], 1.0),)
    else:
        return ()


@triton.jit
def stepped(w, g, carried, numbers, rate, parts, RULE: tl.constexpr, BLOCKS: tl.constexpr, K: tl.constexpr):
    """(w, carried) of block K after a step of rate = -eta_t along g; parts: `corrections`."""
    if BLOCKS[K][EACH] >= 0:
        rate = rate * numbers[BLOCKS[K][EACH]]
    if RULE[WEIGHT_DECAY] >= 0 and RULE[DECOUPLED] and BLOCKS[K][TRAINED]:
        decay = own(numbers, RULE, BLOCKS, K, WEIGHT_DECAY, 1)
        w = state.beside(tl.fma(rate, decay, tl.full(rate.shape, 1.0, rate.dtype)), w) * w
    after = ()
    if RULE[ADAM]:
        first = mixed(numbers[RULE[BETA1]], carried[0], g)
        second = mixed(numbers[RULE[BETA2]], carried[1], g * g)
        size = tl.sqrt(second / state.beside(parts[1], g)) + state.beside(numbers[RULE[EPSILON]], g)
        g = (first / state.beside(parts[0], g)) / size
        after = (first, second)
    elif RULE[LION]:
        after = (mixed(numbers[RULE[BETA2]], carried[0], g),)
        g = signs(mixed(numbers[RULE[BETA1]], carried[0], g))
    elif RULE[RMSPROP] or RULE[ADAGRAD]:
        after = (mixed(numbers[RULE[BETA2]], carried[0], g * g) if RULE[RMSPROP] else carried[0] + g * g,)
        g = g / (tl.sqrt(after[0]) + state.beside(numbers[RULE[EPSILON]], g))
    elif RULE[MOMENTUM] >= 0:
        if RULE[DAMPENING] >= 0:
            g = state.beside(parts[0], g) * g
        momentum = state.beside(numbers[RULE[MOMENTUM]], g)
        after = (tl.fma(momentum, carried[0], g),)
        g = tl.fma(momentum, after[0], g) if RULE[NESTEROV] else after[0]
    if RULE[SIGN]:
        g = signs(g)
    w = tl.fma(state.beside(rate, w), g, w)
    if RULE[LOCALISATION] >= 0:
        after = after + (carried[len(carried) - (2 if RULE[AVERAGE] >= 0 else 1)],)
    if RULE[AVERAGE] >= 0:
        after = after + (mixed(numbers[RULE[AVERAGE]], carried[len(carried) - 1], w),)
    return w, after


@triton.jit
def update(go, w, g, carried, numbers, rate, t, RULE: tl.constexpr, BLOCKS: tl.constexpr):
    """(w, carried) of the networks that go [BN] after a step along the mean gradient g, the others' as they were.

    rate [BN]: -eta_t; t: steps done before this one
    """
    g = penalised(w, clipped(g, numbers, RULE, BLOCKS), carried, numbers, RULE, BLOCKS)
    parts = corrections(numbers, t, RULE)
    moved = ()
    after = ()
    for k in tl.static_range(len(w)):
        block, buffers = stepped(w[k], g[k], carried[k], numbers, rate, parts, RULE, BLOCKS, k)
        moved = moved + state.choose(go, (block,), (w[k],))
        after = after + (state.choose(go, buffers, carried[k]),)
    return moved, after
