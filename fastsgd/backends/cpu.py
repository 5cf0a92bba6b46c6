"""Owns the CPU backend: one compiled module per instruction set, threads over blocks of networks."""

import os
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..errors import BackendUnavailable, PlanError
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
from ..metrics.feature_sparsity import by_kernel
from ..models import DiagonalLinear, ReLU2
from ..native import default_threads, native
from ..orders import Common, PerNetwork, Reshuffle
from ..rules import GD, SGD
from ..spec.kinds import kind_of
from ..spec.problem import Dataset, Stream
from . import general, jacobians, linear, traced
from .base import Backend, float64_params


def shape_of(model):
    """What the kernels need to know of a model: (family, d, h, hidden_bias, output_bias), None without one."""
    kind = kind_of(model)
    if kind is DiagonalLinear:
        return ("diagonal", model.d, 0, 0, 0)
    if kind is ReLU2:
        return ("relu2", model.d, model.width, int(model.hidden_bias), int(model.output_bias))
    return None


def stride_of(model):
    """Columns of X as the kernels read it: the inputs, a one for hidden biases, zeros up to whole vectors."""
    hidden_bias = (shape_of(model) or (0, 0, 0, 0))[3]
    return -(-(model.d + hidden_bias) // 16) * 16


def padded(model, X, dtype):
    """X [n, d] in rows of whole vectors: zeros behind, and a one right behind where hidden biases want an input."""
    out = np.zeros((len(X), stride_of(model)), dtype)
    out[:, :model.d] = X
    if out.shape[1] > model.d and (shape_of(model) or (0, 0, 0, 0))[3]:
        out[:, model.d] = 1
    return out


@dataclass(eq=False)
class State:
    """weights [N, P], lost [N] and buffers [N, K, P], which the kernels write to; the data in the kernels' layout."""

    plan: object
    module: object
    weights: np.ndarray
    lost: np.ndarray
    buffers: np.ndarray
    X: np.ndarray
    y: np.ndarray
    points: dict

    @cached_property
    def told(self):
        """What the fused loop is told at every launch, None for the general loop."""
        plan, run = self.plan, self.plan.run
        if not fused(run):
            return None
        return {"shape": shape_of(run.model), "layout": (plan.tuning.lanes, plan.tuning.team),
                "threads": plan.tuning.threads, "batch": plan.batch, "full": run.rule.full,
                "common": run.order.network if isinstance(run.order, Common) else -1, "seed": run.seed,
                "slope": 2 * run.loss.factor, "bound": run.loss.bound(run.rule.lost_above, run.dtype)}

    def give(self, X, y):
        """Other samples of the same shape and dtype."""
        self.X[:, :self.plan.run.model.d] = X
        self.y[...] = y

    def samples(self, segment):
        """(X, y, indices) of a segment; indices [1 or N, t1 - t0, B] uint32, None if the kernels draw them."""
        plan, run = self.plan, self.plan.run
        if segment.samples is not None:  # a Stream: this stretch is a data set of its own, gone through in order
            X, y = segment.samples
            order = np.arange(X.shape[0] * X.shape[1] * X.shape[2], dtype=np.uint32).reshape(X.shape[:3])
            return padded(run.model, X.reshape(-1, run.data.d), run.dtype), y.reshape(order.size, -1), order
        if segment.indices is not None or not permuted(run):
            return self.X, self.y, segment.indices
        network = getattr(run.order, "network", None)
        ids = plan.keys if network is None else np.array([network])
        order = self.module.permuted_order(run.seed, ids.astype(np.uint32), segment.t0, segment.t1, run.data.n,
                                           1 if run.rule.full else plan.batch, isinstance(run.order, Reshuffle),
                                           plan.tuning.threads)
        return self.X, self.y, order


class CPU(Backend):
    """The default: whole trajectories in the first-level cache, one network a lane or one network a vector."""

    name = "cpu"
    worth_a_launch = 256  # to fetch a network into the cache and take it back costs as much as a dozen

    def supports(self, run):
        why_not = None if fused(run) else general.why_not(run, own=True)
        if why_not:
            return why_not
        try:
            return traced.why_not(run, native())
        except BackendUnavailable as error:
            if os.environ.get("FASTSGD_ISA"):  # a named instruction set runs or raises
                raise
            return str(error)

    def choose(self, run, N, tuning):
        self.refuse(tuning, ("networks", "warps"))
        module = native(tuning.isa)
        team, lanes = module.team[run.dtype], module.lanes[run.dtype]
        threads = tuning.threads or default_threads()
        fuses = fused(run)
        layout, why = best_layout(run, N, threads, team, lanes) if fuses else general.layout(N, threads, lanes)
        if tuning.team is not None or tuning.lanes is not None:
            layout = (tuning.lanes or 1, tuning.team or 1)
            why = "as asked for"
        legal = ((1, team), (lanes, 1), (1, 1)) if fuses else ((lanes, 1), (1, 1))
        if layout not in legal:
            raise PlanError(f"tuning: lanes={layout[0]}, team={layout[1]} given; legal for this run with {run.dtype} "
                            f"on x86-64-{module.isa} are {', '.join(map(str, legal))}")
        data, stride, item = run.data, stride_of(run.model), np.dtype(run.dtype).itemsize
        if fuses:
            size = getattr(module, f"block_bytes_{run.dtype}")
            block = size(shape_of(run.model), layout, data.n, stride, run.rule.batch(data.n), run.rule.full)
        else:
            block = general.block_bytes(module, run)
        n_test = 0 if data.X_test is None else len(data.X_test)
        memory = {"state": N * (run.model.P * item * (1 + len(run.rule.buffers())) + 8),
                  "data": (data.n * item + (data.n + n_test) * 8) * (stride + 1), "scratch": threads * block}
        reasons = (f"x86-64-{module.isa}, {threads} thread(s), {layout[0]} network(s) a vector, {layout[1]} lane(s) a "
                   f"network: {why}", f"scratch of a block of networks: {block / 1024:.1f} KiB a thread",
                   *traced.explain(run, module), *self.explain_metrics(run))
        return replace(tuning, threads=threads, lanes=layout[0], team=layout[1], isa=module.isa), memory, reasons

    def load(self, plan, weights, lost, buffers):
        run, data = plan.run, plan.run.data
        X, y = (data.X, data.y) if data.n else (np.empty((0, data.d)), np.empty(0))
        weights, buffers = np.array(weights, order="C"), np.array(buffers, order="C")
        X, y = padded(run.model, X, run.dtype), np.array(y, run.dtype, order="C")
        return State(plan, native(plan.tuning.isa), weights, lost.copy(), buffers, X, y, {})

    def table_bytes(self, plan):
        return plan.step_bytes + order_bytes(plan)

    def advance(self, state, segment):
        plan, dtype = state.plan, state.plan.run.dtype
        if state.told is None:
            return general.advance(state, segment)
        X, y, indices = state.samples(segment)
        getattr(state.module, f"advance_{dtype}")(
            **state.told, ids=plan.keys, W=state.weights, lost=state.lost, base=plan.base.astype(dtype), row=plan.row,
            t0=segment.t0, t1=segment.t1, multiplier=segment.multiplier, X=X, y=y, indices=indices)

    def lost(self, state):
        return state.lost

    def read(self, state):
        return state.weights, state.buffers

    def explain_metric(self, run, metric):
        if kind_of(metric) in (JacobianRank, JacobianSpectrum):
            return jacobians.explain(native(), metric, run)
        return super().explain_metric(run, metric)

    def measure(self, state, metric, weights):
        run, threads, kind = state.plan.run, state.plan.tuning.threads, kind_of(metric)
        if kind in (TrainLoss, TestLoss):
            return self._mean_loss(state, metric, weights)
        if kind in (ParameterNorm, Balancedness, L0) and kind_of(run.model) is DiagonalLinear:
            return linear.norms(state.module, metric, run.model, weights)
        if kind is FeatureSparsity:
            def kernel(phi):
                return by_kernel(state.module, np.ascontiguousarray(phi), metric.tau, metric.normalise, threads)
            return metric.over(kernel, run.model, float64_params(run.model, weights), run.data)
        if kind in (JacobianRank, JacobianSpectrum):
            return jacobians.measure(state.module, metric, run, weights, threads, state.points)
        return None

    @staticmethod
    def _mean_loss(state, metric, weights):
        run, threads = state.plan.run, state.plan.tuning.threads
        test, plain = kind_of(metric) is TestLoss, kind_of(run.loss) is Squared and run.loss.weights is None
        X, y = (run.data.X_test, run.data.y_test) if test else (run.data.X, run.data.y)
        if linear.is_linear(run.model) and plain:
            if metric not in state.points:
                state.points[metric] = linear.reduced(np.array(X, dtype="float64"), np.array(y, dtype="float64"))
            params = float64_params(run.model, weights)
            return linear.losses(state.module, run.model, params, state.points[metric], len(X), run.loss.factor,
                                 threads)
        if metric not in state.points:
            state.points[metric] = padded(run.model, X, "float64"), np.array(y, dtype="float64")
        X, y = state.points[metric]
        weights = np.ascontiguousarray(weights, dtype="float64")
        if shape_of(run.model) and plain:
            return state.module.losses(shape_of(run.model), threads, weights, X, y, run.loss.factor)
        f, o = state.module.predict(general.told(run, state.module, "float64"), threads, weights, X), run.model.outputs
        return run.loss.value(f if o > 1 else f[..., 0], y, o).mean(axis=-1)


def fused(run):
    """Whether the run has the loop of its own that fuses plain steps on squared losses into one sweep."""
    return (shape_of(run.model) is not None and kind_of(run.rule) in (SGD, GD) and run.rule.plain()
            and kind_of(run.loss) is Squared and run.loss.weights is None and kind_of(run.order) is not None
            and kind_of(run.data) in (Dataset, Stream))


def one_label(rule):
    """Whether the rule puts noise on one random label on top of a full step."""
    return getattr(rule.noises().get("label_noise"), "on", "batch") == "one"


def permuted(run):
    """Whether the order of a run is a table of permutations: the kernels draw any other, unless it is given."""
    drawn = not run.rule.full or one_label(run.rule)
    with_replacement = kind_of(run.order) in (PerNetwork, Common) and run.order.replace
    return drawn and run.data.n > 0 and not with_replacement and not hasattr(run.order, "table")


def order_bytes(plan):
    """Bytes of one step in the tables of `State.samples`: permutations, or a Stream in the kernels' layout."""
    run, item = plan.run, np.dtype(plan.run.dtype).itemsize
    if isinstance(run.data, Stream):
        return plan.N * plan.batch * ((stride_of(run.model) + run.model.outputs) * item + 4)
    if not permuted(run):
        return 0
    return 4 * (1 if run.rule.full else plan.batch) * (plan.N if getattr(run.order, "network", None) is None else 1)


def kernels_of_host():
    """The backend that measures on the host: one without kernels where the CPU's module is not built."""
    try:
        native()
    except BackendUnavailable:
        return Backend()
    return CPU()


class Host:
    """Measures for a backend whose networks are elsewhere, by the CPU's kernels if its module is built.

    module: the CPU's, or None
    """

    def __init__(self, plan):
        self.backend = kernels_of_host()
        self.module = native() if isinstance(self.backend, CPU) else None
        self.state = State(plan, self.module, None, None, None, None, None, {})

    def measure(self, metric, weights):
        """Records of networks with weights [M, P], None without a kernel."""
        return self.backend.measure(self.state, metric, weights)

    def records(self, metric, weights):
        """The same, by the metric's own definition where there is no kernel."""
        run, values = self.state.plan.run, self.measure(metric, weights)
        if values is None:
            values = metric.compute(run.model, float64_params(run.model, weights), run.data, run.loss)
        return values


def best_layout(run, N, threads, team, lanes):
    """(lanes, team) for a run of N networks, and why. Measured on Zen 4, both dtypes, AVX2 and AVX-512."""
    model, batch = run.model, run.rule.batch(run.data.n)
    one_row = isinstance(run.order, Common) or run.rule.full or len(getattr(run.order, "table", ())) == 1
    if N <= lanes // 2:
        return (1, team), f"{N} network(s) would leave most of {lanes} lanes empty"
    if kind_of(model) is DiagonalLinear:
        if one_row and (model.d <= 64 or batch > 1):
            return (lanes, 1), "one row of X serves all lanes"
        if model.d < 4 or (model.d <= 8 and lanes == team):
            return (lanes, 1), f"{model.d} inputs would leave most of {team} lanes empty"
        return (1, team), f"{model.d} inputs fill vectors of {team}"
    block = model.P * lanes * np.dtype(run.dtype).itemsize
    most = 180 << 10 if one_row or batch == 1 else 32 << 10  # samples of their own have to be turned into columns
    if N < lanes * threads:
        return (1, team), f"{N} networks would not fill {threads} thread(s) of {lanes} lanes"
    if block > most:
        return (1, team), f"{lanes} networks side by side would need {block >> 10} KiB, too much of the cache"
    return (lanes, 1), f"{lanes} networks side by side need {block / 1024:.1f} KiB and no sums across lanes"
