"""Owns the Triton backend: the portable GPU path, many networks a program, whole trajectories in registers."""

from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np

from ...errors import PlanError
from ...native import default_threads
from ...portable import interpreted
from ..base import Backend
from .layout import MOST_ENTRIES, hyper, loss_numbers, padded, stride


@dataclass(eq=False)
class State:
    """What lives on the device, as torch tensors; `lost` [N] also on the host, where the caller may mark networks.

    W [N, width], slots [P] of a row, buffers [N, K, width], data X and y, padded; ids, base, row, numbers, hyper, sigma
    (base, row) of label noise and gradient_noise (base, row) of gradient noise as the kernels want them
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
    gradient_noise: tuple


class Triton(Backend):
    """Any GPU that torch and Triton run on, no compiler needed; needs state that fits the registers of one program."""

    name = "triton"

    def supports(self, work):
        return _other_device(work.run) or _no_kernel(work)

    def choose(self, work, N, tuning, reserved=None):
        from . import launches

        self.refuse(tuning, ("team", "lanes", "isa", "compiled"), "; it has networks= and warps=")
        tuning, why = launches.choose(work, N, tuning, self._launch)
        packed, data = work.packing, work.run.data
        carried = f", and {', '.join(work.buffers)} as long" if work.buffers else ""
        memory = {"state": N * (packed.width * work.item * (1 + len(work.buffers)) + 8),
                  "data": work.n * (stride(data.X) + stride(data.y)) * work.item}
        _fit(work, N, sum(memory.values()))
        reasons = (f"{tuning.networks} network(s) a program, {tuning.warps} warp(s) a program: {why}",
                   f"{packed.width} numbers of state a network, padded from P={work.P}{carried}; "
                   + ("interpreted on the CPU, for tests" if interpreted() else f"on {device_of(work.run)}"))
        return replace(tuning, threads=tuning.threads or default_threads()), memory, reasons

    def load(self, plan, weights, lost, buffers, reserved=None):
        import torch

        run, packed, device = plan.run, plan.work.packing, device_of(plan.run)

        def put(array, dtype=None):
            return torch.from_numpy(np.array(array, dtype, order="C")).to(device)

        def amplitude(base, row, _table):
            return put(base, run.dtype), put(row)

        step = amplitude(plan.base, plan.row, plan.table)
        sigma, gradient_noise = (amplitude(*plan.noises[name]) if name in plan.noises else step
                       for name in ("label_noise", "gradient_noise"))
        return State(plan, packed, device, W=put(packed.pack(weights)), slots=put(packed.slots),
                     buffers=put(packed.pack_rows(buffers)), lost=np.array(lost),
                     X=put(padded(run.data.X), run.dtype), y=put(padded(run.data.y), run.dtype), ids=put(plan.keys),
                     base=step[0], row=step[1], numbers=put(loss_numbers(plan.work), run.dtype),
                     hyper=put(hyper(plan)), sigma=sigma, gradient_noise=gradient_noise)

    def table_bytes(self, plan):
        from . import launches

        return plan.step_bytes + launches.table_bytes(plan)

    def advance(self, state, segment):
        from . import launches

        with on(state.device):
            launches.train(state, segment)

    def _launch(self, plan, segment):
        """A Segment from the plan's start to its end, for timing."""
        self.advance(self.load(plan, plan.start, np.full(plan.N, -1), plan.fresh_buffers()), segment)

    def lost(self, state):
        return state.lost

    def read(self, state):
        slots = state.packing.slots
        return state.W.cpu().numpy()[:, slots], state.buffers.cpu().numpy()[:, :, slots]


def device_of(run):
    """The torch device that a run is on."""
    import torch

    return torch.device("cpu" if interpreted() else run.device or "cuda")


def _fit(work, N, need):
    """Refuse what the card's memory, or a table of samples of one step, cannot hold."""
    free, entries = _free(work.run), N * work.batch * (not work.full)
    if free is not None and need > free:
        raise PlanError(f"networks: N={N} networks need {need / 2**30:.4g} GiB on the card, {free / 2**30:.4g} are "
                        "free; run some at a time with ids=")
    if entries > MOST_ENTRIES:
        raise PlanError(f"networks: N={N} networks take {entries} samples a step, a table holds {MOST_ENTRIES}; run "
                        "some at a time with ids=")


def _free(run):
    """Bytes that are free on the run's card, None without one."""
    import torch

    return torch.cuda.mem_get_info(device_of(run))[0] if torch.cuda.is_available() and not interpreted() else None


def on(device):
    """A context in which Triton launches on `device`: it takes torch's current one."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _no_kernel(work):
    """None, or a sentence saying what of the request has no Triton kernel."""
    run = work.run
    if work.only_on_cpu:
        return work.only_on_cpu
    if work.packing is None:
        return f"it has no kernel for the family {type(run.model).__name__}"
    if work.loss == "traced":
        return f"it has no kernel for the loss {type(run.loss).__name__}"
    if run.rule.penalty is not None:
        return "it has no kernel for a penalty of your own"
    if work.traits["function"]:
        return "it has no kernel for a rule of your own"
    if work.losses:
        return "its kernels read one loss for all networks; backend='cpu' has one for each"
    if work.sets:
        return "its kernels read one data set for all networks; backend='cpu' has one for each"
    if work.fresh or work.streamed:
        return f"it has no kernel for {type(run.data).__name__}, data made on the way"
    if work.unknown:
        return work.unknown
    if run.rule.matrices:
        return f"it has no kernel for the rule {type(run.rule).__name__}, which looks at matrices"
    if work.ragged:
        return "it has no kernel for steps of different numbers of samples"
    if getattr(work.noises.get("label_noise"), "kind", "") == "stable":
        return "it has no kernel for stable noise on labels"
    if work.n * max(stride(run.data.X), stride(run.data.y)) > MOST_ENTRIES:
        return f"the data has n={work.n} points, more than 32-bit offsets reach"
    from . import launches

    return launches.too_large(work)


def _other_device(run):
    """None, or a sentence saying why it cannot run on this machine's device, or on the one that is asked for."""
    if interpreted():
        return None if run.backend == "triton" else "Triton's interpreter is for tests, and runs where it is named"
    import torch

    if run.device and "," in run.device:
        return f"device={run.device!r} names several cards, it takes one"
    if run.device and (device_of(run).index or 0) >= torch.cuda.device_count():
        return f"device={run.device!r} given, this machine has {torch.cuda.device_count()} card(s)"
    return None
