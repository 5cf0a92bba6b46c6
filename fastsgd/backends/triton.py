"""Owns the Triton backend: the portable GPU path, many networks a program, whole trajectories in registers."""

from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np

from ..errors import BackendUnavailable, PlanError
from ..losses import Hinge, Logistic, Squared
from ..models import MLP
from ..native import default_threads, native
from ..portable import interpreted, why_none
from ..rules import GD, SGD
from ..spec.problem import Dataset
from .base import Backend
from .cpu import CPU, home
from .packing import packing, power_of_two

LOSSES = (Squared, Logistic, Hinge)
MOST_ENTRIES = 2**31 - 1  # of X, and of a segment's table of samples: what 32-bit offsets reach


@dataclass(eq=False)
class State:
    """What lives on the device, as torch tensors; `lost` [N] also on the host, where the caller may mark networks.

    W [N, width], data X [n, stride] and y [n]; ids, base, row, numbers and sigma (base, row) as the kernels want them
    """

    plan: object
    packing: object
    device: object
    W: object
    lost: np.ndarray
    X: object
    y: object
    ids: object
    base: object
    row: object
    numbers: object
    sigma: tuple
    points: dict
    home: object = None  # the CPU backend's state, for what is measured there


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
        memory = {"state": N * (packed.width * item + 8),
                  "data": data.n * (power_of_two(data.d) + 1) * item}
        _fit(run, N, sum(memory.values()))
        reasons = (f"{tuning.networks} network(s) a program, {tuning.warps} warp(s) a program: {why}",
                   f"{packed.width} numbers of state a network, padded from P={run.model.P}; "
                   + ("interpreted on the CPU, for tests" if interpreted() else f"on {_device(run)}"))
        return replace(tuning, threads=tuning.threads or default_threads()), memory, reasons

    def load(self, plan, weights, lost, buffers):
        import torch

        run, packed, device = plan.run, packing(plan.run.model), _device(plan.run)

        def put(array, dtype=None):
            return torch.from_numpy(np.array(array, dtype, order="C")).to(device)

        X = np.zeros((run.data.n, power_of_two(run.data.d)), run.dtype)
        X[:, :run.data.d] = run.data.X
        bound = run.loss.bound(run.rule.lost_above, run.dtype)
        sigma = tuple(plan.noises["label_noise"][:2]) if plan.noises else (plan.base, plan.row)
        return State(plan, packed, device, W=put(packed.pack(weights)), lost=np.array(lost), X=put(X),
                     y=put(run.data.y, run.dtype), ids=put(plan.ids), base=put(plan.base, run.dtype), row=put(plan.row),
                     numbers=put([run.loss.factor, bound], run.dtype),
                     sigma=(put(sigma[0], run.dtype), put(sigma[1])), points={})

    def advance(self, state, segment):
        from . import launches

        with _on(state.device):
            launches.train(state, segment)

    def _launch(self, plan, segment):
        """A Segment from the plan's start to its end, for timing."""
        self.advance(self.load(plan, plan.start, np.full(plan.N, -1), None), segment)

    def lost(self, state):
        return state.lost

    def read(self, state):
        plan = state.plan
        weights = state.W.cpu().numpy()[:, state.packing.slots]
        return weights, np.empty((plan.N, 0, plan.run.model.P), plan.run.dtype)

    def explain_metric(self, run, metric):
        from . import tiles

        elsewhere = CPU() if _compiled() else super()
        return tiles.explain(run, metric) or elsewhere.explain_metric(run, metric)

    def measure(self, state, metric, weights):
        from . import tiles

        with _on(state.device):
            values = tiles.measure(state, metric, weights)
        if values is None and _compiled():  # what has no kernel here may have one there
            if state.home is None:
                state.home = home(state.plan)
            values = CPU().measure(state.home, metric, weights)
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


def _compiled():
    """Whether the CPU's compiled module is there."""
    try:
        return native() is not None
    except BackendUnavailable:
        return False


def _no_kernel(run):
    """None, or a sentence saying what of the request has no Triton kernel."""
    model, rule, loss = run.model, run.rule, run.loss
    if packing(model) is None:
        more = f" with {model.outputs} outputs" if type(model) is MLP else ""
        return f"it has no kernel for the family {type(model).__name__}{more}"
    if type(rule) not in (SGD, GD):
        return f"it has no kernel for the rule {type(rule).__name__}; it has SGD and GD"
    used = [*rule.numbers(), *(["normalised"] if rule.normalised else []),
            *(["average"] if rule.average is not None else []),
            *(name for name in rule.noises() if name != "label_noise")]
    if used:
        return f"it has plain steps and label noise, no {', '.join(dict.fromkeys(used))}"
    if type(loss) not in LOSSES or getattr(loss, "weights", None) is not None:
        more = " with weights" if type(loss) is Squared else ""
        return f"it has no kernel for the loss {type(loss).__name__}{more}"
    if not isinstance(run.data, Dataset):
        return f"it has no kernel for {type(run.data).__name__}, data made on the way"
    if run.data.n * power_of_two(run.data.d) > MOST_ENTRIES:
        return f"X has n={run.data.n} points, more than 32-bit offsets reach"
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
