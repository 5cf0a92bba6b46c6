"""Owns the CPU backend: one compiled module per instruction set, threads over blocks of networks."""

import importlib
import os
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ..errors import BackendUnavailable, PlanError
from ..metrics import JacobianRank, TestLoss, TrainLoss
from ..models import DiagonalLinear, ReLU2
from ..orders import Common
from ..rules import GD, SGD
from .base import Backend, float64_params

LEAST_RTOL = 1e-150  # the rank kernel squares it; below, the metric's definition serves
ISAS = ("v4", "v3")  # x86-64 levels, best first: AVX-512, AVX2 + FMA
NEEDS = {"v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"), "v3": ("avx2", "fma", "bmi2", "movbe")}


@cache
def native(isa=None):
    """The compiled module of an instruction set, by default the best this machine has.

    The environment variable FASTSGD_ISA (v3 or v4) overrides the choice. Raises PlanError for an
    unknown name, BackendUnavailable with the reason where it cannot run.
    """
    wanted = isa or os.environ.get("FASTSGD_ISA") or None
    if wanted is not None and wanted not in ISAS:
        raise PlanError(f"{'tuning.isa' if isa else 'FASTSGD_ISA'}: {wanted!r} given, expected one of {ISAS}")
    missing = []
    for name in (wanted,) if wanted else ISAS:
        absent = [flag for flag in NEEDS[name] if flag not in cpu_flags()]
        if absent:
            missing.append(f"x86-64-{name}: this machine has no {', '.join(absent)}")
            continue
        try:
            module = importlib.import_module(f"fastsgd._cpu_{name}")
        except ImportError as error:
            missing.append(f"x86-64-{name}: module not built ({error})")
            continue
        module.isa = name
        return module
    raise BackendUnavailable("no CPU kernels for this machine: " + "; ".join(missing) + ". backend='reference' runs "
                             "everywhere; `pip install --no-build-isolation -e .` with g++ builds the kernels.")


@cache
def cpu_flags():
    """Names of the instruction-set extensions the operating system reports."""
    try:
        with open("/proc/cpuinfo") as info:
            return frozenset(next(line for line in info if line.startswith(("flags", "Features"))).split())
    except (OSError, StopIteration):
        return frozenset()


def default_threads():
    """FASTSGD_THREADS or OMP_NUM_THREADS if set, else the cores this process may use."""
    for name in ("FASTSGD_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text:
            if not text.isdigit() or int(text) < 1:
                raise PlanError(f"{name}={text!r}: expected a whole number >= 1")
            return int(text)
    return len(os.sched_getaffinity(0))


def shape_of(model):
    """What the kernels need to know of a model: (family, d, h, hidden_bias, output_bias), None without one."""
    if type(model) is DiagonalLinear:
        return ("diagonal", model.d, 0, 0, 0)
    if type(model) is ReLU2:
        return ("relu2", model.d, model.width, int(model.hidden_bias), int(model.output_bias))
    return None


def stride_of(model):
    """Columns of X as the kernels read it: the inputs, a one for hidden biases, zeros up to whole vectors."""
    return -(-(model.d + shape_of(model)[3]) // 16) * 16


def padded(model, X, dtype):
    """X [n, d] in rows of whole vectors: zeros behind, and a one right behind where hidden biases want an input."""
    out = np.zeros((len(X), stride_of(model)), dtype)
    out[:, :model.d] = X
    if shape_of(model)[3]:
        out[:, model.d] = 1
    return out


@dataclass(eq=False)
class State:
    """weights [N, P] and lost [N], which the kernels write to, and the data in the kernels' layout."""

    plan: object
    module: object
    weights: np.ndarray
    lost: np.ndarray
    X: np.ndarray
    y: np.ndarray
    points: dict


class CPU(Backend):
    """The default: whole trajectories in the first-level cache, one network a lane or one network a vector."""

    name = "cpu"

    def supports(self, run):
        if shape_of(run.model) is None:
            return f"it has no kernel for the family {type(run.model).__name__}"
        if type(run.rule) not in (SGD, GD):
            return f"it has no kernel for the rule {type(run.rule).__name__}"
        try:
            native()
        except BackendUnavailable as error:
            if os.environ.get("FASTSGD_ISA"):  # a named instruction set runs or raises
                raise
            return str(error)
        return None

    def choose(self, run, N, tuning):
        module = native(tuning.isa)
        team, lanes = module.team[run.dtype], module.lanes[run.dtype]
        threads = tuning.threads or default_threads()
        layout, why = best_layout(run, N, threads, team, lanes)
        if tuning.team is not None or tuning.lanes is not None:
            layout = (tuning.lanes or 1, tuning.team or 1)
            why = "as asked for"
        if layout not in ((1, team), (lanes, 1), (1, 1)):
            raise PlanError(f"tuning: lanes={layout[0]}, team={layout[1]} given; legal with {run.dtype} on "
                            f"x86-64-{module.isa} are (1, {team}), ({lanes}, 1) and (1, 1)")
        data, shape = run.data, shape_of(run.model)
        full, batch = type(run.rule) is GD, run.rule.batch(run.data.n)
        stride, item = stride_of(run.model), np.dtype(run.dtype).itemsize
        block = getattr(module, f"block_bytes_{run.dtype}")(shape, layout, data.n, stride, batch, full)
        n_test = 0 if data.X_test is None else len(data.X_test)
        memory = {"state": N * (run.model.P * item + 8), "data": (data.n * item + (data.n + n_test) * 8) * (stride + 1),
                  "scratch": threads * block}
        reasons = (f"x86-64-{module.isa}, {threads} thread(s), {layout[0]} network(s) a vector, {layout[1]} lane(s) a "
                   f"network: {why}", f"scratch of a block of networks: {block / 1024:.1f} KiB a thread")
        return replace(tuning, threads=threads, lanes=layout[0], team=layout[1], isa=module.isa), memory, reasons

    def load(self, plan, weights, lost):
        run = plan.run
        return State(plan, native(plan.tuning.isa), np.array(weights, order="C"), lost.copy(),
                     padded(run.model, run.data.X, run.dtype), np.array(run.data.y, dtype=run.dtype), {})

    def advance(self, state, segment):
        plan, run = state.plan, state.plan.run
        getattr(state.module, f"advance_{run.dtype}")(
            shape=shape_of(run.model), layout=(plan.tuning.lanes, plan.tuning.team), threads=plan.tuning.threads,
            ids=plan.ids, W=state.weights, lost=state.lost, base=plan.base.astype(run.dtype), row=plan.row,
            t0=segment.t0, t1=segment.t1, multiplier=segment.multiplier, X=state.X, y=state.y,
            indices=segment.indices, batch=plan.batch, full=type(run.rule) is GD,
            common=run.order.network if isinstance(run.order, Common) else -1, seed=run.seed,
            slope=2 * run.loss.factor, bound=run.rule.bound(run.loss, run.dtype))

    def read(self, state):
        return state.weights, state.lost

    def measure(self, state, metric, who):
        run, threads = state.plan.run, state.plan.tuning.threads
        if type(metric) in (TrainLoss, TestLoss):
            if metric not in state.points:
                test = type(metric) is TestLoss
                X, y = (run.data.X_test, run.data.y_test) if test else (run.data.X, run.data.y)
                state.points[metric] = padded(run.model, X, "float64"), np.array(y, dtype="float64")
            weights = np.ascontiguousarray(state.weights[who], dtype="float64")
            return state.module.losses(shape_of(run.model), threads, weights, *state.points[metric], run.loss.factor)
        if type(metric) is JacobianRank and type(run.model) is DiagonalLinear and metric.rtol >= LEAST_RTOL:
            if metric not in state.points:
                X = metric.where(run.model, run.data)
                state.points[metric] = np.ascontiguousarray(X.T @ X), len(X)
            gram, m = state.points[metric]
            params = float64_params(run.model, state.weights[who])
            scale = np.hypot(params["u"], params["v"])
            count = state.module.diagonal_rank(gram, scale, metric.rtol, threads, m)
            return np.where(count < 0, np.nan, count)  # -1: u and v are finite, but their size is not
        return None


def best_layout(run, N, threads, team, lanes):
    """(lanes, team) for a run of N networks, and why. Measured on Zen 4, both dtypes, AVX2 and AVX-512."""
    model = run.model
    if type(model) is DiagonalLinear:
        one_row = isinstance(run.order, Common) or type(run.rule) is GD or len(getattr(run.order, "table", ())) == 1
        if one_row and model.d <= 64:
            return (lanes, 1), "one row of X serves all lanes"
        if model.d < 4 or (model.d <= 8 and lanes == team):
            return (lanes, 1), f"{model.d} inputs would leave most of {team} lanes empty"
        return (1, team), f"{model.d} inputs fill vectors of {team}"
    block = model.P * lanes * np.dtype(run.dtype).itemsize
    if N < lanes * threads:
        return (1, team), f"{N} networks would not fill {threads} thread(s) of {lanes} lanes"
    if block > 180 << 10:
        return (1, team), f"{lanes} networks side by side would need {block >> 10} KiB, too much of the cache"
    return (lanes, 1), f"{lanes} networks side by side need {block / 1024:.1f} KiB and no sums across lanes"
