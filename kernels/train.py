"""Owns the time loop on a GPU: one program trains BN networks of any family from step t0 to t1, all in registers.

Parallel over networks: a program is BN of them, and keeps their parameters [BN, ...], their step sizes and the step at
which each was lost. A family gives INPUTS, VALUE and VJP (kernels/models). With batch 1 a step is
    w <- VJP(w; g = -eta_t dloss/df(h(x_i), y_i + sigma_t z)),     i = high word of word * n
with one Philox draw every four steps. A batch sums VJP over its samples first (gradients), and so does a rule that is
not plain, which makes of the gradient what it says (rules). A network is lost at the first step on which one of its
samples is out of bounds; it keeps the parameters and buffers from before, and no neighbour notices. One that has a
number that is not finite stays in memory as it was at t0, UNSETTLED: the host finds the step at which it got it.
"""

import triton
import triton.language as tl

from . import gradients, labels, losses, rules, state
from .contract import ORDER, UNSETTLED
from .draws import block_of_four, index_of

SCALARS = ["N", "first", "skip", "steps", "batch", "n", "seed"]


@triton.jit
def per_step(base, row, multiplier, net, live, steps, s):
    """base * multiplier [BN] at step s of the segment, of a schedule (base [N], row [N], multiplier [Q, steps])."""
    at = tl.load(row + net, mask=live, other=0).to(tl.int64) * steps
    return tl.load(base + net, mask=live, other=0.0) * tl.load(multiplier + at + s)


@triton.jit
def begun(W, lost, ids, numbers, N, LAYOUT: tl.constexpr, WIDTH: tl.constexpr, LOSS: tl.constexpr,
          COMMON: tl.constexpr, BN: tl.constexpr):
    """What a program knows of its networks when it begins, [BN] each:

    net: their positions; live: whether there is a network; gone: `lost`; alive: whether it is to be moved
    w: parameters, in blocks; mine: ids; order: rows of the table of orders, [1] with COMMON; terms: of the loss
    """
    net = tl.program_id(0) * BN + tl.arange(0, BN)
    live = net < N
    gone = tl.load(lost + net, mask=live, other=0)
    alive = live & (gone < 0)
    w = state.load(W, net, live, LAYOUT, WIDTH, W.dtype.element_ty)
    terms = losses.load(numbers, LOSS)
    mine = tl.load(ids + net, mask=live, other=0).to(tl.uint32)
    if COMMON:
        order = tl.arange(0, 1)
    else:
        order = tl.where(live, net, 0)
    return net, live, gone, alive, w, mine, order, terms


@triton.jit(do_not_specialize=SCALARS)
def one_sample(W, lost, ids, order_ids, base, row, multiplier, X, y, indices, sigma, sigma_row, sigma_multiplier,
               numbers, N: tl.int32, first: tl.uint32, skip: tl.int32, steps: tl.int32, batch: tl.int32, n: tl.uint32,
               seed: tl.uint64,
               INPUTS: tl.constexpr, VALUE: tl.constexpr, VJP: tl.constexpr, SHAPE: tl.constexpr,
               LAYOUT: tl.constexpr, WIDTH: tl.constexpr, STRIDE: tl.constexpr, LOSS: tl.constexpr,
               NOISE: tl.constexpr, DRAWS: tl.constexpr, COMMON: tl.constexpr, BN: tl.constexpr):
    """Batch-1 steps t0 = 4 first + skip .. t0 + steps - 1.

    W [N, WIDTH]: parameters as LAYOUT says; lost [N] int64: first bad step, -1 if none, UNSETTLED
    ids [N]: for the noise; order_ids [N], or [1] with COMMON: whose order is drawn, used with DRAWS
    base [N], row [N] int32, multiplier [Q, steps]: step sizes; sigma, sigma_row, sigma_multiplier: likewise of noise
    X [n, STRIDE], y [n] or [n, O]: data; numbers: terms of the loss, see losses
    indices [rows, steps] int32: the order where DRAWS is off, [1, steps] with COMMON
    """
    net, live, gone, alive, w, mine, order, terms = begun(W, lost, ids, numbers, N, LAYOUT, WIDTH, LOSS, COMMON, BN)
    drawn = tl.load(order_ids + order).to(tl.uint32)
    t0 = first.to(tl.int64) * 4 + skip
    block = first
    s = -skip
    while s < steps:
        if DRAWS:
            words = block_of_four(seed, block, drawn, ORDER, 0)
        if NOISE != "none":
            z = labels.noise_of_four(seed, block, mine, LOSS, NOISE)
        for q in tl.static_range(4):
            at = tl.minimum(tl.maximum(s + q, 0), steps - 1)
            if DRAWS:
                i = index_of(words[q], n)
            else:
                i = tl.load(indices + order.to(tl.int64) * steps + at)
            x = INPUTS(X, i, SHAPE, STRIDE)
            label = labels.load(y, i, LOSS)
            if NOISE != "none":
                scale = per_step(sigma, sigma_row, sigma_multiplier, net, live, steps, at)
                label = labels.noisy(label, scale, z[q], LOSS)
            f, residuals = VALUE(w, x, SHAPE)
            g, bad = losses.dloss(f, label, terms, LOSS)
            inside = (s + q >= 0) & (s + q < steps)
            bad = bad & alive & inside
            gone = tl.where(bad, t0 + (s + q), gone)
            alive = alive & (bad == 0)
            rate = -per_step(base, row, multiplier, net, live, steps, at)
            w = state.choose(alive & inside, VJP(w, w, x, residuals, state.over(rate, g) * g, SHAPE), w)
        s += 4
        block += 1
    bad = state.broken(w)
    state.store(W, w, net, live & (bad == 0), LAYOUT, WIDTH)
    tl.store(lost + net, tl.where(bad, UNSETTLED, gone), mask=live)


@triton.jit(do_not_specialize=SCALARS)
def batches(W, lost, ids, order_ids, base, row, multiplier, X, y, indices, sigma, sigma_row, sigma_multiplier, numbers,
            N: tl.int32, first: tl.uint32, skip: tl.int32, steps: tl.int32, batch: tl.int32, n: tl.uint32,
            seed: tl.uint64, buffers, hyper, gradient_noise, gradient_noise_row, gradient_noise_multiplier,
            INPUTS: tl.constexpr, VALUE: tl.constexpr, VJP: tl.constexpr, SHAPE: tl.constexpr, LAYOUT: tl.constexpr,
            WIDTH: tl.constexpr, STRIDE: tl.constexpr, LOSS: tl.constexpr, NOISE: tl.constexpr, DRAWS: tl.constexpr,
            COMMON: tl.constexpr, ONE: tl.constexpr, RULE: tl.constexpr, BLOCKS: tl.constexpr, PERTURB: tl.constexpr,
            GRADIENT_NOISE: tl.constexpr, HYPERS: tl.constexpr, BUFFERS: tl.constexpr, BN: tl.constexpr):
    """Steps on the mean of `batch` samples, and of a rule that is not plain; arguments as for `one_sample`, but for

    DRAWS: take all samples, 0 .. batch - 1, at every step; else indices [rows, steps, batch]
    ONE: noise is on one label a step, that of sample indices [rows, steps], and adds what it changes of its gradient;
        "own", or "common" with one row, or "none": it is on every label
    RULE, BLOCKS: see rules; buffers [N, BUFFERS, WIDTH]; hyper [N, HYPERS]; PERTURB: SAM's, "batch", "sample" or "none"
    gradient_noise, gradient_noise_row, gradient_noise_multiplier: its amplitudes, like sigma's; GRADIENT_NOISE: its
        kind, or "none"
    """
    net, live, gone, alive, w, mine, order, terms = begun(W, lost, ids, numbers, N, LAYOUT, WIDTH, LOSS, COMMON, BN)
    carried = state.load_carried(buffers, net, live, BUFFERS, LAYOUT, WIDTH)
    hypers = rules.load(hyper, net, live, HYPERS)
    t0 = first.to(tl.int64) * 4 + skip
    share = (tl.zeros([1], W.dtype.element_ty) + 1) / batch
    whole = batch if len(RULE) == 0 else 1
    s = skip * 0
    while s < steps:
        bad = alive & (alive == 0)
        scale = share
        if NOISE != "none":
            scale = per_step(sigma, sigma_row, sigma_multiplier, net, live, steps, s)
        rows = order.to(tl.int64) * steps + s
        point, gradient = w, w
        for turn in tl.static_range(2 if PERTURB == "batch" else 1):
            if turn == 1:
                point = rules.perturbed(w, gradient, hypers, RULE, BLOCKS)
            gradient, bad = gradients.accumulated(
                bad, point, hypers, share, X, y, indices, rows, batch, scale, mine, t0 + s, seed, terms, INPUTS,
                VALUE, VJP, SHAPE, STRIDE, LOSS, NOISE, DRAWS, ONE, RULE, BLOCKS, PERTURB == "sample")
        if ONE != "none":
            if ONE == "common":
                i = tl.load(indices + tl.arange(0, 1) + s)
            else:
                i = tl.load(indices + tl.where(live, net, 0).to(tl.int64) * steps + s)
            gradient = gradients.with_one_label(gradient, w, whole, X, y, i, scale, mine, t0 + s, seed, terms,
                                                INPUTS, VALUE, VJP, SHAPE, STRIDE, LOSS, NOISE)
        bad = bad & alive
        gone = tl.where(bad, t0 + s, gone)
        alive = alive & (bad == 0)
        rate = -per_step(base, row, multiplier, net, live, steps, s)
        if len(RULE) == 0:
            w = state.choose(alive, state.moved(rate / batch, gradient, w), w)
        else:
            if GRADIENT_NOISE != "none":
                amplitude = per_step(gradient_noise, gradient_noise_row, gradient_noise_multiplier, net, live, steps, s)
                gradient = rules.noisy(gradient, amplitude, hypers, seed, t0 + s, mine, RULE, BLOCKS, GRADIENT_NOISE)
            w, carried = rules.update(alive, w, gradient, carried, hypers, rate, t0 + s, RULE, BLOCKS)
        s += 1
    bad = state.broken(w)
    if BUFFERS > 0:
        for k in tl.static_range(len(w)):
            bad = bad | state.broken(carried[k])
    state.store(W, w, net, live & (bad == 0), LAYOUT, WIDTH)
    state.store_carried(buffers, carried, net, live & (bad == 0), BUFFERS, LAYOUT, WIDTH)
    tl.store(lost + net, tl.where(bad, UNSETTLED, gone), mask=live)
