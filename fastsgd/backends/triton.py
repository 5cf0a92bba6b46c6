"""Owns the Triton backend: the portable GPU path, many networks a program, whole trajectories in registers."""

from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np

from ..errors import PlanError
from ..losses import CrossEntropy, Hinge, Logistic, Squared
from ..native import default_threads
from ..portable import interpreted, why_none
from ..rules import GD, SAM, SDE, SGD, Adam
from ..spec.kinds import kind_of, unknown
from ..spec.problem import Dataset
from .base import Backend
from .cpu import Host, kernels_of_host
from .packing import MOST_ENTRIES, hyper, packing, padded, stride, terms

RULES = (SGD, GD, SAM, Adam, SDE)
LOSSES = (Squared, Logistic, Hinge, CrossEntropy)


@dataclass(eq=False)
class State:
    """What lives on the device, as torch tensors; `lost` [N] also on the host, where the caller may mark networks.

    W [N, width], slots [P] of a row, buffers [N, K, width], data X and y, padded; ids, base, row, numbers, hyper, sigma
    (base, row) of label noise and sway (base, row) of gradient noise as the kernels want them
    """

    plan: object
    packing: object
    device: object
    W: object
    slots: object
    buffers: object
    lost: np.ndarray
    X: object
    y: object
    ids: object
    base: object
    row: object
    numbers: object
    hyper: object
    sigma: tuple
    sway: tuple
    points: dict
    host: object = None  # a Host, for what is measured there


class Triton(Backend):
    """Any GPU that torch and Triton run on, no compiler needed; needs state that fits the registers of one program."""

    name = "triton"
    kind = "cuda"

    def supports(self, run):
        return _no_device(run) or _no_kernel(run)

    def choose(self, run, N, tuning):
        from . import launches

        self.refuse(tuning, ("team", "lanes", "isa"), "; it has networks= and warps=")
        tuning, why = launches.choose(run, N, tuning, self._launch)
        packed, item, data = packing(run.model), np.dtype(run.dtype).itemsize, run.data
        carried = f", and {', '.join(run.rule.buffers())} as long" if run.rule.buffers() else ""
        memory = {"state": N * (packed.width * item * (1 + len(run.rule.buffers())) + 8),
                  "data": data.n * (stride(data.X) + stride(data.y)) * item}
        _fit(run, N, sum(memory.values()))
        reasons = (f"{tuning.networks} network(s) a program, {tuning.warps} warp(s) a program: {why}",
                   f"{packed.width} numbers of state a network, padded from P={run.model.P}{carried}; "
                   + ("interpreted on the CPU, for tests" if interpreted() else f"on {_device(run)}"),
                   *self.explain_metrics(run))
        return replace(tuning, threads=tuning.threads or default_threads()), memory, reasons

    def load(self, plan, weights, lost, buffers):
        import torch

        run, packed, device = plan.run, packing(plan.run.model), _device(plan.run)

        def put(array, dtype=None):
            return torch.from_numpy(np.array(array, dtype, order="C")).to(device)

        def amplitude(base, row, _table):
            return put(base, run.dtype), put(row)

        step = amplitude(plan.base, plan.row, plan.table)
        sigma, sway = (amplitude(*plan.noises[name]) if name in plan.noises else step
                       for name in ("label_noise", "gradient_noise"))
        return State(plan, packed, device, W=put(packed.pack(weights)), slots=put(packed.slots),
                     buffers=put(packed.pack_rows(buffers)), lost=np.array(lost),
                     X=put(padded(run.data.X), run.dtype), y=put(padded(run.data.y), run.dtype), ids=put(plan.keys),
                     base=step[0], row=step[1], numbers=put(terms(run), run.dtype), hyper=put(hyper(plan)), sigma=sigma,
                     sway=sway, points={})

    def table_bytes(self, plan):
        from . import launches

        return plan.step_bytes + launches.table_bytes(plan)

    def advance(self, state, segment):
        from . import launches

        with _on(state.device):
            launches.train(state, segment)

    def _launch(self, plan, segment):
        """A Segment from the plan's start to its end, for timing."""
        self.advance(self.load(plan, plan.start, np.full(plan.N, -1), plan.fresh_buffers()), segment)

    def lost(self, state):
        return state.lost

    def read(self, state):
        slots = state.packing.slots
        return state.W.cpu().numpy()[:, slots], state.buffers.cpu().numpy()[:, :, slots]

    def explain_metric(self, run, metric):
        from . import tiles

        return tiles.explain(run, metric) or kernels_of_host().explain_metric(run, metric)

    def measure_held(self, state, metric, who):
        import torch

        from . import tiles

        with _on(state.device):
            return tiles.measure(state, metric, lambda: state.W[torch.from_numpy(who).to(state.device)])

    def measure(self, state, metric, weights):
        import torch

        from . import tiles

        with _on(state.device):
            values = tiles.measure(state, metric, lambda: torch.from_numpy(
                state.packing.pack(np.asarray(weights))).to(state.device))
        if values is None:  # what has no kernel here may have one there
            if state.host is None:
                state.host = Host(state.plan)
            values = state.host.measure(metric, weights)
        return values


def _device(run):
    """The torch device that a run is on."""
    import torch

    return torch.device("cpu" if interpreted() else run.device or "cuda")


def _fit(run, N, need):
    """Refuse what the card's memory, or a table of samples of one step, cannot hold."""
    free, entries = _free(run), N * run.rule.batch(run.data.n) * (not run.rule.full)
    if free is not None and need > free:
        raise PlanError(f"networks: N={N} networks need {need / 2**30:.4g} GiB on the card, {free / 2**30:.4g} are "
                        "free; run some at a time with ids=")
    if entries > MOST_ENTRIES:
        raise PlanError(f"networks: N={N} networks take {entries} samples a step, a table holds {MOST_ENTRIES}; run "
                        "some at a time with ids=")


def _free(run):
    """Bytes that are free on the run's card, None without one."""
    import torch

    return torch.cuda.mem_get_info(_device(run))[0] if torch.cuda.is_available() and not interpreted() else None


def _on(device):
    """A context in which Triton launches on `device`: it takes torch's current one."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _no_kernel(run):
    """None, or a sentence saying what of the request has no Triton kernel."""
    model, rule, loss = run.model, run.rule, run.loss
    if packing(model) is None:
        return f"it has no kernel for the family {type(model).__name__}"
    if kind_of(rule) not in RULES:
        return f"it has no kernel for the rule {type(rule).__name__}; it has {', '.join(r.__name__ for r in RULES)}"
    if kind_of(loss) not in LOSSES:
        return f"it has no kernel for the loss {type(loss).__name__}; it has {', '.join(k.__name__ for k in LOSSES)}"
    if rule.penalty is not None:
        return "it has no kernel for a penalty of your own"
    if kind_of(run.data) is not Dataset:
        return f"it has no kernel for {type(run.data).__name__}, data made on the way"
    why_not = unknown(order=run.order)
    if why_not:
        return why_not
    if run.data.n * max(stride(run.data.X), stride(run.data.y)) > MOST_ENTRIES:
        return f"the data has n={run.data.n} points, more than 32-bit offsets reach"
    from . import launches

    return launches.too_large(run)


def _no_device(run):
    """None, or a sentence saying what is missing to run Triton kernels here."""
    missing = why_none()
    if missing:
        return missing
    if interpreted():
        return None if run.backend == "triton" else "Triton's interpreter is for tests, and runs where it is named"
    import torch

    if run.device and "," in run.device:
        return f"device={run.device!r} names several cards, it takes one"
    if run.device and (_device(run).index or 0) >= torch.cuda.device_count():
        return f"device={run.device!r} given, this machine has {torch.cuda.device_count()} card(s)"
    return None
