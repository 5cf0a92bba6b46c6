"""Owns which metrics are measured on a card, and by which program; the host does the rest.

The host makes of the weights what several kernels share (betas, parts of Jacobians), as the CPU backend does, and
counts what a kernel could not certify.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..cuda import metric_programs as kernels
from ..losses import Squared
from ..metrics import (
    L0,
    Balancedness,
    FeatureSparsity,
    JacobianRank,
    JacobianSpectrum,
    ParameterNorm,
    TestLoss,
    TrainLoss,
)
from ..metrics.layers import hidden
from ..models import DiagonalLinear, DiagonalPower
from ..spec.constant import EPS, constant_within, least_correlation
from ..spec.kinds import kind_of
from . import general, jacobians, linear
from .base import float64_params
from .cpu import CPU, kernels_of_host, padded, shape_of
from .cuda_programs import STAGED, block, dense_text, kept_numbers, shape_text

HELD = 80  # rows up to which columns of a Gram matrix are held in registers
MOST_ROWS = 1024  # of a Gram matrix: a thread a row
NORMS = (ParameterNorm, Balancedness, L0)


@dataclass(frozen=True)
class Given:
    """What a kernel reads of networks: `reads` doubles each.

    made: function of weights [M, P] that makes them on the host, [M, ...]
    factors: of how many parts of a network's weights [factors, reads] they are the product, 1 for weights as they are;
        None where only the host makes them
    """

    made: object
    reads: int
    factors: int | None


@dataclass(frozen=True)
class Task:
    """How one metric is measured on a card.

    program; points: what is the same for all networks, one array; n, stride, number: of the launch
    given: what the kernel reads of networks; width: doubles of its answer a network
    finish: function of (answers [M, width], function of positions that gives weights [m, P]) that gives the records
    how: for people
    """

    program: object
    points: np.ndarray
    n: int
    stride: int
    number: float
    given: Given
    width: int
    finish: object
    how: str


def task(run, metric, card, host):
    """The Task of a metric, None where the host measures it. host: a Host; None to ask for the words alone."""
    kind = kind_of(metric)
    if kind in (TrainLoss, TestLoss):
        return _loss(run, metric, card)
    if kind in NORMS and kind_of(run.model) is DiagonalLinear:
        return _task(kernels.norms(run.model.d, NORMS.index(kind)), np.zeros(1), 0, 0,
                     _parts(run.model), 1, "its own sums in float64",
                     number=getattr(metric, "threshold", 0.0))
    if kind is FeatureSparsity:
        return _sparsity(run, metric, card)
    if kind is JacobianRank or kind is JacobianSpectrum:
        return _jacobian(run, metric, card, host)
    return None


def _first(answers, read):
    return answers[:, 0]


def _task(program, points, n, stride, given, width, how, number=0.0, finish=_first):
    points = np.ascontiguousarray(points, dtype=np.float64)
    return Task(program, points, n, stride, number, given, width, finish, how)


def _weights(model):
    """What a kernel reads that takes weights as they are."""
    return Given(lambda weights: weights, model.P, 1)


def _parts(model):
    """What a kernel reads that takes `linear.parts`; those of u * v are its weights."""
    reads = _scales(model) * model.d
    return Given(lambda weights: linear.parts(model, weights), reads, 1 if kind_of(model) is DiagonalLinear else None)


def _beta(model):
    """What a kernel reads that takes beta [d]: a product of vectors, or powers of them, which only the host makes."""
    factors = None if kind_of(model) is DiagonalPower else model.P // model.d
    return Given(lambda weights: linear.beta(model, float64_params(model, weights)), model.d, factors)


def _scales(model):
    """Parts of which `linear.parts` makes the scales of a Jacobian."""
    return linear.parts(model, np.zeros((1, model.P))).shape[1]


def _loss(run, metric, card):
    model, loss = run.model, run.loss
    test, plain = kind_of(metric) is TestLoss, kind_of(loss) is Squared and loss.weights is None
    X, y = (run.data.X_test, run.data.y_test) if test else (run.data.X, run.data.y)
    X, y = np.array(X, dtype="float64"), np.array(y, dtype="float64")
    staged = 8 * X.shape[0] * (X.shape[1] + 2) <= min(STAGED, card.shared)
    if linear.is_linear(model) and plain:
        R, z, rest = linear.reduced(X, y)
        staged = 8 * (R.size + z.size) <= min(STAGED, card.shared)
        return _task(
            _staged(kernels.linear_losses(model.d, staged=staged), R.size + z.size, staged),
            np.concatenate([R.ravel(), z]), len(R), model.d,
            _beta(model), 1, f"residuals in {len(R)} rows",
            finish=lambda sums, read: loss.factor / len(X) * (sums[:, 0] + rest))
    if shape_of(model) and plain:
        _, d, h, hidden_bias, output_bias = shape_of(model)
        rows = padded(model, X, "float64")[:, :d + hidden_bias]
        return _task(_staged(kernels.mean_losses(d, h, hidden_bias, output_bias, staged=staged), rows.size + y.size,
                             staged), np.concatenate([rows.ravel(), y]), len(X), rows.shape[1], _weights(model), 1,
                     "the fused loop's forward", number=loss.factor)
    if general.family(model) is None:
        return None
    shape, kept, sizes = shape_text(model), kept_numbers(model), general.family(model).get("sizes")
    widest = max(sizes[1:]) if sizes else model.d
    program = kernels.predictions(shape, model.P, kept, staged=staged)
    program = (_staged(program, X.size, staged) if program else
               kernels.wide_predictions(shape, model.P, kept, block(widest), card.shared))
    if program is None:
        return None
    o = model.outputs

    def finish(f, read):
        f = f.reshape(len(f), len(X), o)
        return loss.value(f if o > 1 else f[..., 0], y, o).mean(axis=-1)

    return _task(program, X, len(X), model.d, _weights(model), len(X) * o,
                 "outputs by the general loop's forward, losses of them on the host", finish=finish)


def _staged(program, count, staged):
    return replace(program, shared=8 * count if staged else 0)


def _dense(model):
    """(C++ of the shape, sizes) of a dense network, None of any other."""
    shape = jacobians.dense_shape(model)
    if shape is None:
        return None
    return dense_text(shape), tuple(shape["sizes"])


def _sparsity(run, metric, card):
    dense = _dense(run.model)
    if dense is None:
        return None
    X, names = metric.where(run.model, run.data), list(hidden(run.model))
    layers = [names.index(name) + 1 for name in metric.layers(run.model)]
    within = [constant_within(EPS, metric.normalise * dense[1][layer]) for layer in layers]
    program = kernels.feature_sparsity(*dense, run.model.P, len(X), layers, metric.normalise, within, card.shared)
    return _task(program, X.T, len(X), len(X), _weights(run.model), len(layers), "correlations of one warp a unit",
                 number=least_correlation(metric.tau), finish=(lambda a, read: a) if len(layers) > 1 else _first)


def _jacobian(run, metric, card, host):
    X = metric.where(run.model, run.data)
    method, why = jacobians.choose(metric, run.model, len(X))
    if method == "count" and isinstance(kernels_of_host(), CPU):  # which packs the points
        return _count(run, metric, X, why, host)
    if method == "gram" and len(X) * run.model.outputs <= MOST_ROWS:
        return _gram(run, metric, X, why, card, host)
    return _values(run, metric, X, why, card) if method in ("jacobi", "count") else None


def _count(run, metric, X, why, host):
    model, d = run.model, run.model.d
    points = (np.zeros(4 + 2 * d + 2 * d * d) if host is None else
              jacobians.diagonal_points(host.module, X).packed())
    return _task(kernels.diagonal_ranks(d, _scales(model)), points, len(X), d, _parts(model), 1, f"'count': {why}",
                 number=metric.rtol, finish=lambda count, read: np.where(count[:, 0] < 0, np.nan, count[:, 0]))


def _gram(run, metric, X, why, card, host):
    shape, sizes = _dense(run.model)

    def finish(count, read):
        count = count[:, 0].copy()
        doubtful = count < 0
        if doubtful.any():
            count[doubtful] = host.records(metric, read(np.flatnonzero(doubtful)))
        return count

    return _task(kernels.gram_ranks(shape, sizes, run.model.P, len(X), HELD, card.shared),
                 np.concatenate([X.T.ravel(), (X @ X.T).ravel()]), len(X), len(X), _weights(run.model), 1,
                 f"'gram': {why}; what a block cannot certify is counted on the host", number=metric.rtol,
                 finish=finish)


def _values(run, metric, X, why, card):
    """Singular values by Jacobi's method, and what the metric makes of them."""
    model = run.model
    if linear.is_linear(model):
        points = np.linalg.qr(X, mode="r") if len(X) > model.d else X
        program, given = kernels.scaled_values(model.d, _scales(model), len(points), card.shared), _parts(model)
        kept = min(points.shape)
    else:
        program, given = kernels.dense_values(*_dense(model), model.P, len(X), card.shared), _weights(model)
        points, kept = X.T, min(len(X) * model.outputs, model.P)

    def finish(answers, read):
        return jacobians.of_values(metric, run, answers[:, :kept], answers[:, kept:].astype(np.int32))

    return _task(program, points, len(points), points.shape[1], given, 2 * kept, f"'jacobi': {why}", finish=finish)
