"""Owns which metrics are measured on a card, by which program, and the launches that do it; the host does the rest.

The host makes of the weights what several kernels share (betas, parts of Jacobians), as the CPU backend does, and
counts what a kernel could not certify.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from ..cuda import metric_programs as kernels
from ..cuda.launch import MetricLaunch
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
from ..models import DiagonalLinear
from . import general, jacobians, linear
from .base import float64_params
from .cpu import CPU, padded, shape_of
from .cuda_programs import RESIDENT, STAGED, dense_text, shape_text

USABLE = 0.5  # of a card's free memory, for what is measured at once
HELD = 80  # rows up to which columns of a Gram matrix are held in registers
MOST_ROWS = 1024  # of a Gram matrix: a thread a row
BLOCKS = 32  # of a multiprocessor, at most
NORMS = (ParameterNorm, Balancedness, L0)


@dataclass(frozen=True)
class Task:
    """How one metric is measured on a card.

    program; points: what is the same for all networks, one array; n, stride, number: of the launch
    given: function of weights [M, P] whose values the kernel reads, [M, ...]; width: doubles of its answer a network
    finish: function of (answers [M, width], weights [M, P]) that gives the records; how: for people
    """

    program: object
    points: np.ndarray
    n: int
    stride: int
    number: float
    given: object
    width: int
    finish: object
    how: str


@dataclass(eq=False)
class Measured:
    """home: the CPU backend's state; tasks {metric: Task or None}; points {(metric, card): Array}."""

    home: object
    tasks: dict = field(default_factory=dict)
    points: dict = field(default_factory=dict)


def explain(run, metric, card):
    """One line of a plan, None where there is nothing to say."""
    host = CPU().explain_metric(run, metric)  # refuses methods that are not possible
    found = task(run, metric, card, None)
    if found is None:
        return host and f"{host}, on the host"
    program = found.program
    where = [f"{program.threads} threads a network" if program.whole else "a thread a network"]
    if program.shared:
        where.append(f"{program.shared / 1024:.1f} KiB of shared memory a block")
    if program.each:
        where.append(f"{8 * program.each / 2**20:.2f} MiB of scratch a {'block' if program.whole else 'thread'}")
    return f"{metric.name} on the card: {found.how}; {', '.join(where)}"


def measure(measured, card, metric, weights):
    """Records of networks `weights` [M, P], float64."""
    run = measured.home.plan.run
    if metric not in measured.tasks:
        measured.tasks[metric] = task(run, metric, card, measured.home)
    found = measured.tasks[metric]
    if found is None or not len(weights):
        return CPU().measure(measured.home, metric, weights)
    if (metric, card) not in measured.points:
        measured.points[metric, card] = card.put(found.points)
    weights = np.ascontiguousarray(weights, dtype=np.float64)
    given = np.ascontiguousarray(found.given(weights))
    answers = launch(found, card, measured.points[metric, card], given)
    return found.finish(answers, weights)


def launch(found, card, points, given):
    """Answers [M, width] of a kernel for `given` [M, ...], in as many launches as the card's memory asks for."""
    program, out = found.program, np.empty((len(given), found.width))
    free = int(USABLE * card.free()) // 8
    threads, units = (program.threads, 1) if program.whole else (1, program.threads)
    at_once = card.processors * min(RESIDENT // program.threads, BLOCKS) * units  # blocks or threads with a place
    if program.each:
        at_once = max(1, min(at_once, free // 2 // program.each))
    most = max(1, free // 2 // (given[0].size + found.width))
    for first in range(0, len(given), most):
        part = card.put(given[first:first + most])
        M = part.shape[0]
        count = min(M, at_once) if program.each or program.whole else M
        scratch = card.empty((count if program.whole else -(-count // program.threads) * program.threads,
                              max(1, program.each)) if program.each else (1,), "float64")
        answers = card.empty((M, found.width), "float64")
        card.launch(program, count * threads, program.shared, MetricLaunch(
            W=part.pointer, N=M, out=answers.pointer, X=points.pointer, n=found.n, stride=found.stride,
            scratch=scratch.pointer, each=program.each, number=found.number))
        card.finish()
        out[first:first + most] = answers.get()
    return out


# ---- which kernel


def task(run, metric, card, home):
    """The Task of a metric, None where the host measures it. home: the CPU's state; None to ask for the words alone."""
    kind = type(metric)
    if kind in (TrainLoss, TestLoss):
        return _loss(run, metric, card)
    if kind in NORMS and type(run.model) is DiagonalLinear:
        return _task(kernels.norms(run.model.d, NORMS.index(kind)), np.zeros(1), 0, 0,
                     lambda weights: linear.parts(run.model, weights), 1, "its own sums in float64",
                     number=getattr(metric, "threshold", 0.0))
    if kind is FeatureSparsity:
        return _sparsity(run, metric, card)
    if kind is JacobianRank or kind is JacobianSpectrum:
        return _jacobian(run, metric, card, home)
    return None


def _itself(weights):
    return weights


def _first(answers, weights):
    return answers[:, 0]


def _task(program, points, n, stride, given, width, how, number=0.0, finish=_first):
    return Task(program, np.ascontiguousarray(points, dtype=np.float64), n, stride, number, given, width, finish, how)


def _loss(run, metric, card):
    model, loss = run.model, run.loss
    test, plain = type(metric) is TestLoss, type(loss) is Squared and loss.weights is None
    X, y = (run.data.X_test, run.data.y_test) if test else (run.data.X, run.data.y)
    X, y = np.array(X, dtype="float64"), np.array(y, dtype="float64")
    staged = 8 * X.shape[0] * (X.shape[1] + 2) <= min(STAGED, card.shared)
    if linear.is_linear(model) and plain:
        R, z, rest = linear.reduced(X, y)
        staged = 8 * (R.size + z.size) <= min(STAGED, card.shared)
        return _task(
            _staged(kernels.linear_losses(model.d, staged=staged), R.size + z.size, staged),
            np.concatenate([R.ravel(), z]), len(R), model.d, lambda w: linear.beta(model, float64_params(model, w)), 1,
            f"residuals in {len(R)} rows", finish=lambda sums, w: loss.factor / len(X) * (sums[:, 0] + rest))
    if shape_of(model) and plain:
        _, d, h, hidden_bias, output_bias = shape_of(model)
        rows = padded(model, X, "float64")[:, :d + hidden_bias]
        return _task(_staged(kernels.mean_losses(d, h, hidden_bias, output_bias, staged=staged), rows.size + y.size,
                             staged), np.concatenate([rows.ravel(), y]), len(X), rows.shape[1], _itself, 1,
                     "the fused loop's forward", number=loss.factor)
    if general.family(model) is None or 8 * (2 * model.P + 4 * _units(model)) > kernels.LOCAL:
        return None
    o = model.outputs

    def finish(f, weights):
        f = f.reshape(len(f), len(X), o)
        return loss.value(f if o > 1 else f[..., 0], y, o).mean(axis=-1)

    return _task(_staged(kernels.predictions(shape_text(model), staged=staged), X.size, staged), X, len(X), model.d,
                 _itself, len(X) * o, "outputs by the general loop's forward, losses of them on the host",
                 finish=finish)


def _staged(program, count, staged):
    return replace(program, shared=8 * count if staged else 0)


def _units(model):
    return sum(getattr(model, "sizes", (0, getattr(model, "width", 0)))[1:]) + 2 * model.d


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
    program = kernels.feature_sparsity(*dense, run.model.P, len(X), layers, metric.normalise, card.shared)
    return _task(program, X.T, len(X), len(X), _itself, len(layers), "correlations of one warp a unit",
                 number=metric.tau, finish=(lambda a, w: a) if len(layers) > 1 else _first)


def _jacobian(run, metric, card, home):
    model = run.model
    X = metric.where(model, run.data)
    method, why = jacobians.choose(metric, model, len(X))
    if method == "count":
        points = np.zeros(1) if home is None else home.module.DiagonalPoints(
            np.ascontiguousarray(X.T @ X), len(X)).packed()
        return _task(kernels.diagonal_ranks(model.d, _parts(model)), points, len(X), model.d,
                     lambda weights: linear.parts(model, weights), 1, f"'count': {why}", number=metric.rtol,
                     finish=lambda count, w: np.where(count[:, 0] < 0, np.nan, count[:, 0]))
    if method == "gram" and len(X) * model.outputs <= MOST_ROWS:
        shape, sizes = _dense(model)
        program = kernels.gram_ranks(shape, sizes, model.P, len(X), HELD, card.shared)

        def finish(count, weights):
            count = count[:, 0].copy()
            doubtful = count < 0
            if doubtful.any():
                count[doubtful] = CPU().measure(home, metric, weights[doubtful])
            return count

        return _task(program, np.concatenate([X.T.ravel(), (X @ X.T).ravel()]), len(X), len(X), _itself, 1,
                     f"'gram': {why}; what a block cannot certify is counted on the host", number=metric.rtol,
                     finish=finish)
    if method == "jacobi" and linear.is_linear(model):
        rows = np.linalg.qr(X, mode="r") if len(X) > model.d else X
        kept, absent = min(rows.shape), min(len(X), model.P) - min(rows.shape)

        def spectra(answers, weights):
            shift, sigma = answers[:, 0].astype(np.int64), np.pad(answers[:, 1:], ((0, 0), (0, absent)))
            return metric.of(sigma) if type(metric) is JacobianRank else metric.of(np.ldexp(sigma, shift[:, None]))

        return _task(kernels.scaled_values(model.d, _parts(model), len(rows)), rows, len(rows), model.d,
                     lambda weights: linear.parts(model, weights), 1 + kept, f"'jacobi': {why}", finish=spectra)
    return None


def _parts(model):
    """Parts of which `linear.parts` makes the scales of a Jacobian."""
    return linear.parts(model, np.zeros((1, model.P))).shape[1]
