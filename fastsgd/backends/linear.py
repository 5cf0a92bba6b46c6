"""Owns what the CPU backend knows of linear predictors <beta, x>: beta, scales of J, losses from few points, norms."""

import numpy as np

from ..metrics import L0, Balancedness, ParameterNorm
from ..models import DiagonalLinear, DiagonalPower, DiagonalProduct
from ..spec.kinds import kind_of

FAMILIES = (DiagonalLinear, DiagonalProduct, DiagonalPower)


def is_linear(model):
    """Whether the model is one of the families <beta, x>."""
    return kind_of(model) in FAMILIES


def beta(model, params):
    """beta [N, d] of parameters {name: [N, d]}."""
    if kind_of(model) is DiagonalPower:
        powers = [w**model.depth for w in params.values()]
        return powers[0] - powers[1] if model.signed else powers[0]
    return _product(list(params.values()))


def parts(model, weights):
    """Parts [N, K, d] of weights [N, P]: J on X has the singular values of X diag(s), s_j = sqrt(sum_k parts_kj^2)."""
    weights = np.ascontiguousarray(weights, dtype=np.float64)
    kind = kind_of(model)
    if kind is DiagonalLinear:
        return weights.reshape(len(weights), 2, model.d)  # v and u, in the other order
    factors = list(model.unflatten(weights).values())
    if kind is DiagonalProduct:
        factors = [_product(factors[:k] + factors[k + 1:]) if len(factors) > 1 else np.ones_like(factors[0])
                   for k in range(len(factors))]
    elif kind is DiagonalPower:
        factors = [model.depth * w ** (model.depth - 1) for w in factors]
    return np.stack(factors, axis=1)


def _product(factors):
    out = factors[0]
    for factor in factors[1:]:
        out = out * factor
    return out


def reduced(X, y):
    """(R, z, rest) with |X b - y|^2 = |R b - z|^2 + rest for all b, in at most d rows; rest is a number.

    [X y] = Q [R z; 0 r] where there are more points than inputs; residuals keep the accuracy of X b - y, since Q is
    orthogonal and nothing is squared.
    """
    d = X.shape[1]
    if len(X) <= d:
        return X, y, 0.0
    triangle = np.linalg.qr(np.column_stack([X, y]), mode="r")
    return np.ascontiguousarray(triangle[:d, :d]), triangle[:d, d].copy(), float(triangle[d, d] ** 2)


def losses(module, model, params, points, n, factor, threads):
    """Mean losses factor / n * |X beta - y|^2 [N] from `reduced` points of n samples."""
    R, z, rest = points
    b = np.ascontiguousarray(beta(model, params))
    return factor / n * (module.linear_losses(R, z, b, len(R) == model.d and n > model.d, threads) + rest)


def norms(module, metric, model, weights):
    """ParameterNorm, Balancedness or L0 [N] of u and v."""
    both = parts(model, weights)
    which = (ParameterNorm, Balancedness, L0).index(kind_of(metric))
    return module.diagonal_norms(both, getattr(metric, "threshold", 0.0))[which]
