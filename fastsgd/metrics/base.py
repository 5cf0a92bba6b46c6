"""Owns what metrics share: their contract, parts of networks that bound memory, predictions, linear algebra of NaN."""

import numpy as np

from ..spec.metric import Custom, Metric

__all__ = ["Custom", "Metric", "by_parts", "eigenvalues", "norm", "of_order_one", "predictions", "singular_values"]

PART = 16 << 20  # bytes that the arrays of one part of the networks may take; more is no faster


def by_parts(function, size, *stacks):
    """function(part of each stack) [M, ...] of a few networks at a time, put together to [N, ...] float64.

    size: bytes that one network takes; a part takes PART bytes, or one network
    stacks: parameters {name: [N, ...]}, one or more (the present ones, those of the start)
    Networks with parameters that are not finite get NaN.
    """
    N = len(next(iter(stacks[0].values())))
    bad = np.zeros(N, dtype=bool)
    for stack in stacks:
        for a in stack.values():
            bad |= ~np.isfinite(a).reshape(N, -1).all(axis=1)
    if bad.any():  # LAPACK refuses what is not finite; zeros stand in
        stacks = [{name: np.where(bad.reshape(-1, *[1] * (a.ndim - 1)), 0, a) for name, a in stack.items()}
                  for stack in stacks]
    step, out = max(1, PART // max(1, int(size))), []
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        for k in range(0, N, step):
            out.append(function(*({name: a[k:k + step] for name, a in stack.items()} for stack in stacks)))
    out = np.concatenate(out).astype(np.float64)
    out[bad] = np.nan
    return out


def predictions(model, params, X):
    """Predictions h(x_1..n) [N, n] or [N, n, o], networks one after the other to bound memory."""
    N, X = len(next(iter(params.values()))), np.asarray(X, dtype=np.float64)
    return np.array([model.forward({name: a[k] for name, a in params.items()}, X) for k in range(N)])


def singular_values(matrices):
    """Singular values [..., k], falling, of matrices [..., m, h]; NaN where an entry is not finite."""
    return _where_finite(lambda a: np.linalg.svd(a, compute_uv=False), matrices)


def eigenvalues(matrices):
    """Eigenvalues [..., m], falling, of symmetric matrices [..., m, m]; NaN where an entry is not finite."""
    return _where_finite(np.linalg.eigvalsh, matrices)[..., ::-1]


def _where_finite(function, matrices):
    bad = ~np.isfinite(matrices).all(axis=(-2, -1))
    values = function(np.where(bad[..., None, None], 0, matrices))
    return np.where(bad[..., None], np.nan, values)


def of_order_one(a, axis):
    """`a` times powers of two that bring its largest sizes along an axis to between 1/2 and 1; zeros stay."""
    return np.ldexp(a, -_powers(a, axis))


def norm(a, axis):
    """Euclidean norms along an axis, or two; no square leaves the range of float64 on the way."""
    powers = _powers(a, axis)
    return np.ldexp(np.sqrt(np.square(np.ldexp(a, -powers)).sum(axis=axis)), powers.squeeze(axis))


def _powers(a, axis):
    """Exponents of the largest sizes along an axis, which stays with length 1; 0 where they are not finite."""
    top = np.abs(a).max(axis=axis, keepdims=True, initial=0)
    return np.where(np.isfinite(top), np.frexp(top)[1], 0)
