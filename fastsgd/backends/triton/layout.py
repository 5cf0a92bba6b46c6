"""Owns how the Triton kernels see a loss, a rule and rows of samples: constants of a program and arrays of numbers."""

import numpy as np

from ...lowering.contract import FLAGS, HYPERS
from ...models.form import power_of_two

MOST_ENTRIES = 2**31 - 1  # of X, of labels, of a segment's table of samples: what 32-bit offsets reach


def loss(work):
    """LOSS of kernels/losses."""
    return work.loss, work.outputs, power_of_two(work.outputs), work.loss_weights is not None


def loss_numbers(work):
    """The numbers that go with LOSS, float64: factor, bound and, where outputs have weights, those, padded by zeros."""
    weights = work.run.loss.weights if work.loss_weights is not None else None
    return np.concatenate([[work.factor, work.bound], [] if weights is None else padded(weights[None])[0]])


def stride(rows):
    """Numbers in a row of inputs or labels [n, k], padded to a power of two, or [n]."""
    return power_of_two(rows.shape[1]) if rows.ndim > 1 else 1


def padded(rows):
    """Inputs or labels [n, k] with zeros up to a power of two; labels [n] as they are."""
    return rows if rows.ndim == 1 else np.pad(rows, ((0, 0), (0, stride(rows) - rows.shape[1])))


def rule(work):
    """{constexpr argument: value} of the rule in kernels/train.batches."""
    found = tuple(work.hyper.index(name) if name in work.hyper else -1 for name in HYPERS)
    noise = work.noises.get("gradient_noise")
    return {"RULE": () if work.plain_but_for_labels else found + tuple(work.traits[name] for name in FLAGS),
            "PERTURB": work.traits["perturb"], "GRADIENT_NOISE": noise.kind if noise else "none",
            "HYPERS": len(work.hyper) + 3 * work.groups, "BUFFERS": len(work.buffers)}


def blocks(work):
    """BLOCKS of kernels/rules: those of the packing, and where among the numbers those of a block's array begin."""
    if not work.groups:
        return tuple((*block, -1) for block in work.packing.blocks)
    arrays = np.searchsorted(np.cumsum(work.sizes), [block[1] for block in work.packing.blocks], "right")
    return tuple((*block, len(work.hyper) + 3 * int(k)) for block, k in zip(work.packing.blocks, arrays, strict=True))


def hyper(plan):
    """The hyper-parameters in use [N, HYPERS] of a plan, in the run's dtype; then those of its arrays of parameters."""
    own = np.zeros((plan.N, 0)) if plan.each is None else plan.each.reshape(plan.N, -1)
    out = np.concatenate([np.zeros((plan.N, len(plan.numbers))), own], axis=1).astype(plan.run.dtype)
    for k, (name, values) in enumerate(plan.numbers.items()):
        least = np.finfo(plan.run.dtype).tiny if name == "epsilon" else 0  # what pads a row is 0 / epsilon, not 0 / 0
        out[:, k] = np.maximum(values, least)
    return out
