"""Owns the few functions that NumPy arrays and torch tensors spell differently."""

import numpy as np


def of(name, z):
    """The function `name` of an array or a tensor; one that NumPy lacks is taken from torch."""
    if hasattr(z, name):
        return getattr(z, name)()
    if hasattr(np, name):
        return getattr(np, name)(z)
    import torch

    return getattr(torch.from_numpy(np.ascontiguousarray(z)), name)().numpy()


def like(value, z):
    """A NumPy value as an array of the kind and dtype of z; a tensor as it is."""
    if hasattr(value, "detach"):
        return value
    if isinstance(z, (np.ndarray, np.generic)):
        return np.asarray(value, z.dtype)
    import torch

    return torch.as_tensor(np.array(value), dtype=z.dtype, device=z.device)


def softplus(z):
    """log(1 + exp(z)) without overflow; torch's derivative is that of the function everywhere, 1/2 at zero."""
    return np.logaddexp(z, 0) if isinstance(z, (np.ndarray, np.generic)) else z.logaddexp(like(0, z))


def choose(yes, a, b):
    """a where `yes`, else b, an array or a number; what is not taken has no effect, even if it is infinite."""
    return np.where(yes, a, b) if isinstance(a, (np.ndarray, np.generic)) else a.where(yes, b)


def cross_entropy(f, own):
    """log sum_k exp(f_k - f_y) over the last axis, where `own` is true of entry y alone; all digits near zero too.

    With m the largest f_k it is m - f_y + log(1 + (exp(f_y - m) - 1) + sum_(k != y) exp(f_k - m)). Where f_y is the
    largest, torch takes m for f_y, so that no derivative is a difference of numbers near 1; else for a constant.
    """
    label = choose(own, f, 0).sum(-1)
    most = f.max(-1) if isinstance(f, (np.ndarray, np.generic)) else f.detach().amax(-1)
    most = choose(label >= most, label, most)
    others = choose(own == 0, of("exp", f - most[..., None]), 0).sum(-1)
    return most - label + of("log1p", of("exp", label - most) - 1 + others)
