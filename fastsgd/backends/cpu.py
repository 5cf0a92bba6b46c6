"""Owns the CPU backend: one compiled module per instruction set, threads over blocks of networks."""

import os
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..errors import BackendUnavailable, PlanError
from ..lowering import compiled, own
from ..lowering.contract import ALIVE, UNSETTLED
from ..native import default_threads, native
from .base import Backend, order_bytes


def stride_of(form, d):
    """Columns of X as the kernels read it: the inputs, a one for hidden biases, zeros up to whole vectors."""
    return -(-(d + _hidden_bias(form)) // 16) * 16


def padded(form, X, dtype):
    """X [n, d] in rows of whole vectors: zeros behind, and a one right behind where hidden biases want an input."""
    n, d = X.shape
    out = np.zeros((n, stride_of(form, d)), dtype)
    out[:, :d] = X
    if _hidden_bias(form):
        out[:, d] = 1
    return out


def _hidden_bias(form):
    return 0 if form is None or form.fused is None else form.fused[3]


def shape(work, module, dtype=None):
    """The model for the general loop: its form, or addresses of its traced functions."""
    return own.shape(work.run, module, "model", dtype or work.dtype) if work.form is None else work.form.described()


SHORT = 3e8  # parameters moved by a thread in so short a run that no compiled loop is looked for


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

    @cached_property
    def loop(self):
        """Addresses of the loop compiled for the run, None where the prebuilt one runs it."""
        return compiled.library(self.plan.work, self.module).entries

    def own(self):
        """The same with samples that `give` may change."""
        return replace(self, X=self.X.copy(), y=self.y.copy())

    def give(self, X, y):
        """Other samples of the same shape and dtype."""
        self.X[:, :self.plan.work.d] = X
        self.y[...] = y

    def samples(self, segment):
        """(X, y, indices) of a segment; indices [1 or N, t1 - t0, B] uint32, None if the kernels draw them."""
        plan, work = self.plan, self.plan.work
        if segment.samples is not None:  # a Stream: this stretch is a data set of its own, gone through in order
            X, y = segment.samples
            order = np.arange(X.shape[0] * X.shape[1] * X.shape[2], dtype=np.uint32).reshape(X.shape[:3])
            return padded(work.form, X.reshape(-1, work.d), work.dtype), y.reshape(order.size, -1), order
        if segment.indices is not None or not work.permuted:
            return self.X, self.y, segment.indices
        ids = plan.keys if work.network is None else np.array([work.network])
        order = self.module.permuted_order(work.run.seed, ids.astype(np.uint32), segment.t0, segment.t1, work.n,
                                           1 if work.full else work.batch, work.epoch, plan.tuning.threads)
        return self.X, self.y, order


class CPU(Backend):
    """The default: whole trajectories in the first-level cache, one network a lane or one network a vector."""

    name = "cpu"
    worth_a_launch = 256  # to fetch a network into the cache and take it back costs as much as a dozen

    def supports(self, work):
        if work.unknown:
            return work.unknown
        try:
            return own.why_not(work.run, native())
        except BackendUnavailable as error:
            if os.environ.get("FASTSGD_ISA"):  # a named instruction set runs or raises
                raise
            return str(error)

    def choose(self, work, N, tuning, reserved=None):
        self.refuse(tuning, ("networks", "warps"))
        module = native(tuning.isa)
        team, lanes = module.team[work.dtype], module.lanes[work.dtype]
        threads = tuning.threads or default_threads()
        layout, why = (_fused_layout(work, N, threads, team, lanes) if work.fused else
                       _general_layout(N, threads, lanes))
        if tuning.team is not None or tuning.lanes is not None:
            layout = (tuning.lanes or 1, tuning.team or 1)
            why = "as asked for"
        legal = ((1, team), (lanes, 1), (1, 1)) if work.fused else ((lanes, 1), (1, 1))
        if layout not in legal:
            raise PlanError(f"tuning: lanes={layout[0]}, team={layout[1]} given; legal for this run with {work.dtype} "
                            f"on x86-64-{module.isa} are {', '.join(map(str, legal))}")
        data, stride = work.run.data, stride_of(work.form, work.d)
        if work.fused:
            size = getattr(module, f"block_bytes_{work.dtype}")
            block = size(work.form.fused, layout, work.n, stride, work.batch, work.full)
        else:
            block = _general_bytes(work, module)
        n, n_test = (0 if a is None else a[..., 0].size for a in (data.X, data.X_test))
        memory = {"state": N * (work.P * work.item * (1 + len(work.buffers)) + 8),
                  "data": (n * work.item + (n + n_test) * 8) * (stride + 1), "scratch": threads * block}
        reasons = (f"x86-64-{module.isa}, {threads} thread(s), {layout[0]} network(s) a vector, {layout[1]} lane(s) a "
                   f"network: {why}", f"scratch of a block of networks: {block / 1024:.1f} KiB a thread",
                   *own.explain(work.run, module))
        return replace(tuning, threads=threads, lanes=layout[0], team=layout[1], isa=module.isa), memory, reasons

    def quicken(self, work, N, tuning, seconds):
        module = native(tuning.isa)
        if tuning.compiled is False:
            return tuning, ("the prebuilt time loop, as asked for",)
        why = compiled.why_none(work, tuning.lanes, module.lanes[work.dtype])
        if why and tuning.compiled:
            raise PlanError(f"tuning.compiled: True given, but {why}")
        words = why or "as asked for"
        try:
            if tuning.compiled is None:
                long = not why and N * work.run.steps * (work.P + 10) > SHORT * tuning.threads  # else not worth a look
                pays, words = (compiled.pays(work, module, seconds() or 0.0) if long else
                               (False, why or "too short a run"))
                if not pays:
                    return tuning, (f"the prebuilt time loop: {words}",)
            library = compiled.library(work, module)
            if not library.checked:
                _compare(work, module, library)
                library.note_checked()
        except BackendUnavailable as error:
            if tuning.compiled:
                raise
            return tuning, (f"the prebuilt time loop: {error}",)
        made = f"in {library.seconds:.2f} s" if library.seconds else "before"
        return replace(tuning, compiled=True), (
            f"a time loop of its own, compiled {made}, its bits compared with the prebuilt one's: {words}",)

    def load(self, plan, weights, lost, buffers, reserved=None):
        X, y = plan.work.made(_samples)
        return State(plan, native(plan.tuning.isa), np.array(weights, order="C"), lost.copy(),
                     np.array(buffers, order="C"), X, y)

    def table_bytes(self, plan):
        return plan.step_bytes + order_bytes(plan)

    def advance(self, state, segment):
        plan, work, module = state.plan, state.plan.work, state.module
        if not work.fused:
            _advance_general(state, segment)
            return
        advance = module.advance_float32 if work.dtype == "float32" else module.advance_float64
        X, y, indices = state.samples(segment)
        # in the order of bind_advance: names would take half the time of a short call
        advance(work.form.fused, (plan.tuning.lanes, plan.tuning.team), plan.tuning.threads, work.batch, work.full,
                work.common, plan.first, work.n, work.run.seed, 2 * work.factor, work.bound, plan.keys, state.weights,
                state.lost, plan.base.astype(work.dtype), plan.row, segment.t0, segment.t1, segment.multiplier, X, y,
                indices, None if plan.losses is None else plan.losses[:, :2].astype(work.dtype, "C"),
                state.loop if plan.tuning.compiled else None)

    def lost(self, state):
        return state.lost

    def tally(self, state):
        return state.module.tally(state.lost, ALIVE, UNSETTLED)

    def read(self, state):
        return state.weights, state.buffers


def _samples(work):
    """(X, y) of a run's data in the kernels' layout."""
    data = work.run.data.rows
    X, y = (data.X, data.y) if work.n else (np.empty((0, work.d)), np.empty(0))
    return padded(work.form, X, work.dtype), np.array(y, work.dtype, order="C")


def _fused_layout(work, N, threads, team, lanes):
    """(lanes, team) for N networks of a fused loop, and why. Measured on Zen 4, both dtypes, AVX2 and AVX-512."""
    batch = work.batch
    if N <= lanes // 2:
        return (1, team), f"{N} network(s) would leave most of {lanes} lanes empty"
    if work.form.linear:
        if work.one_row and (work.d <= 64 or batch > 1):
            return (lanes, 1), "one row of X serves all lanes"
        if work.d < 4 or (work.d <= 8 and lanes == team):
            return (lanes, 1), f"{work.d} inputs would leave most of {team} lanes empty"
        return (1, team), f"{work.d} inputs fill vectors of {team}"
    block = work.P * lanes * work.item
    most = 180 << 10 if work.one_row or batch == 1 else 32 << 10  # samples of their own have to be turned into columns
    if N < lanes * threads:
        return (1, team), f"{N} networks would not fill {threads} thread(s) of {lanes} lanes"
    if block > most:
        return (1, team), f"{lanes} networks side by side would need {block >> 10} KiB, too much of the cache"
    return (lanes, 1), f"{lanes} networks side by side need {block / 1024:.1f} KiB and no sums across lanes"


# ---- the general loop, for any family, loss, rule, noise


def _general_layout(N, threads, lanes):
    """(lanes, team) of N networks, and why. A vector's step takes three to four times as long as a number's."""
    if N <= 2 * threads:
        return (1, 1), f"{N} network(s) are sooner done one by one than as {lanes} lanes"
    return (lanes, 1), "the general loop, for any family, loss and rule, has one network a lane"


def _general_bytes(work, module):
    """Scratch of one thread."""
    batch = 0 if work.full or work.fresh else work.batch
    penalty = _penalty(work, module)
    most = getattr(module, f"general_bytes_{work.dtype}")(
        shape(work, module), len(work.buffers), work.labels, batch, penalty["residuals"] if penalty else 0,
        work.groups, work.scratch, 2 + len(work.constants) if work.traits["function"] else 0,
        work.losses)
    return most + (8 * work.P * work.item * module.lanes[work.dtype] if work.flows else 0)  # rows of the pair's stages


def _penalty(work, module):
    """The run's penalty for the general loop, None without one."""
    if work.run.rule.penalty is None:
        return None
    program, library = own.libraries(work.run, module)["penalty", work.dtype]
    return {"residuals": program.rows, **library.entries}


def _own_rule(plan, module):
    """A user's own rule for the general loop, None without one."""
    work = plan.work
    if not work.traits["function"]:
        return None
    program, library = own.libraries(work.run, module)["rule", work.dtype]
    return {"state": program.sizes[0], "constants": work.constants_of(plan.numbers), **library.entries}


def _fresh(plan, module):
    """Samples that the loop makes, None of others."""
    work, data = plan.work, plan.work.run.data
    if not work.fresh:
        return None
    teacher = None if data.teacher is None else (
        own.shape(work.run, module, "teacher", work.dtype) if work.teacher is None else work.teacher.described())
    each = plan.fresh_each
    return {"inputs": data.inputs, "of_all": work.density, "density": each.get("density"), "scale": each.get("scale"),
            "weights": each.get("teachers", work.teacher_weights), "teacher": teacher}


def _noises(plan, segment):
    """{name: noise for the general loop, None without it}."""
    out = {}
    for name in ("label_noise", "gradient_noise"):
        record = plan.work.noises.get(name)
        if record is None:
            out[name] = None
            continue
        base, row, _ = plan.noises[name]
        out[name] = {"kind": record.kind, "one": getattr(record, "on", "") == "one",
                     "amplitude": (base.astype(plan.work.dtype), row, segment.noise[name])}
    return out


def _flow(state):
    """More for gradient flow, None for other rules."""
    plan, work = state.plan, state.plan.work
    if not work.flows:
        return None
    return {"carried": state.buffers, "most": work.run.rule.most,
            **{name: plan.numbers[name].astype(work.dtype) for name in ("rtol", "atol")}}


def _advance_general(state, segment):
    plan, work, module = state.plan, state.plan.work, state.module
    dtype = work.dtype
    X, y, indices = state.samples(segment)
    each = None if plan.each is None else plan.each.astype(dtype)
    buffers = state.buffers[:, :0] if work.flows else state.buffers  # what flow carries is no row of the rule's
    getattr(module, f"advance_general_{dtype}")({
        **_every_launch(work, module), **_noises(plan, segment), "lanes": plan.tuning.lanes,
        "threads": plan.tuning.threads, "t0": segment.t0, "t1": segment.t1, "ids": plan.keys, "W": state.weights,
        "buffers": buffers, "flow": _flow(state), "fresh": _fresh(plan, module),
        "lost": state.lost, "rate": (plan.base.astype(dtype), plan.row, segment.multiplier),
        "hyper": {name: plan.numbers[name].astype(dtype) for name in work.hyper}, "bound": work.bound,
        "own": _own_rule(plan, module), "losses": None if plan.losses is None else plan.losses.astype(dtype),
        "each": each, "counts": segment.counts,
        "first": plan.first, "points": work.n,
        "X": X, "y": y, "indices": indices, "full": work.full, "batch": 1 if work.full else work.batch,
        "common": work.common, "seed": work.run.seed, "loop": state.loop if plan.tuning.compiled else None})


def _every_launch(work, module):
    """Arguments of the general loop that are the same at every launch of a run."""
    traced = own.libraries(work.run, module)["loss", work.dtype][1].entries if work.loss == "traced" else {}
    return {"shape": shape(work, module), "buffer_count": 0 if work.flows else len(work.buffers), **work.traits,
            "fixed": work.fixed, "ends": work.ends, "scratch": work.scratch, "loss": work.loss, **traced,
            "labels": work.labels, "penalty": _penalty(work, module), "factor": work.factor,
            "loss_weights": work.loss_weights}


# ---- a compiled loop, before it is used

COMPARED = 70  # steps: more than are prepared at once


def _compare(work, module, library):
    """Raise BackendUnavailable unless a compiled loop has the prebuilt one's bits, for some networks of the run."""
    dtype, data, T = work.dtype, work.run.data.rows, COMPARED
    N, n = 2 * module.lanes[dtype] + 3, min(work.n, 64)
    rng, outcomes = np.random.default_rng(3), []
    start = (0.4 * rng.standard_normal((N, work.P))).astype(dtype)
    carried = (0.1 * rng.random((N, len(work.buffers), work.P))).astype(dtype)
    shared = {"ids": np.arange(N), "t0": 0, "t1": T, "X": padded(work.form, data.X[:n], dtype),
              "y": np.array(data.y[:n], dtype, order="C"), "indices": None, "first": None, "points": n, "batch": 1,
              "full": False, "common": -1, "seed": 1, "threads": 1, "bound": work.bound}
    base, row = np.geomspace(1e-3, 3e-2, N).astype(dtype), np.zeros(N, np.int32)
    multiplier = np.linspace(1, 0.5, T).astype(dtype)[None]
    for loop in (None, library.entries):
        W, buffers, lost = start.copy(), carried.copy(), np.full(N, ALIVE)
        if work.fused:
            getattr(module, f"advance_{dtype}")(
                **shared, shape=work.form.fused, layout=(module.lanes[dtype], 1), W=W, lost=lost, base=base, row=row,
                multiplier=multiplier, dloss=2 * work.factor, loop=loop)
        else:
            getattr(module, f"advance_general_{dtype}")(
                {**shared, **_every_launch(work, module), "lanes": module.lanes[dtype], "W": W, "buffers": buffers,
                 "lost": lost, "rate": (base, row, multiplier), "label_noise": None, "gradient_noise": None,
                 "hyper": {name: np.full(N, HYPER.get(name, 0.5), dtype) for name in work.hyper}, "each": None,
                 "own": None, "losses": None, "counts": None, "flow": None, "fresh": None, "loop": loop})
        outcomes.append((W.tobytes(), buffers.tobytes(), lost.tobytes()))
    if outcomes[0] != outcomes[1]:
        raise BackendUnavailable("a compiled loop differs from the prebuilt one: this is a fault of fastsgd or of the "
                                 "compiler; fs.Tuning(compiled=False) does without")


HYPER = {"epsilon": 1e-3, "weight_decay": 0.1}  # at which loops are compared, 0.5 for others
