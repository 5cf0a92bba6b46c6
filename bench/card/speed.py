"""Owns our own speed on a card: kernels, teams, the general loop, shapes, ranks, whole calls, a launch a step.

Kernel rates are of device time, by events around a launch; whole calls are wall time of `fs.train`. A rate counts the
steps that were really done: of networks that were not lost. The program that is timed must have the CPU's bits first.
"""

import sys
import time

import numpy as np

import fastsgd as fs
from fastsgd import backends
from fastsgd.backends.base import ALIVE

from . import (
    BATCHED,
    CHECKED,
    NOISY,
    REHEARSAL,
    begin,
    random_system,
    run_of,
    sized,
    start_of,
    systems,
    traced,
    with_momentum,
)
from .bits import same
from .rows import attempt, keep

STEPS = "network-steps/s"
GRAPH = 64  # launches of a CUDA graph
M = fs.models
SHAPES = {  # {case: (model, n, dtype)}
    "diagonal d=30, n=40": (M.DiagonalLinear(30), 40, "float32"),
    "diagonal d=30, n=500": (M.DiagonalLinear(30), 500, "float32"),
    "diagonal d=30, n=20, float64": (M.DiagonalLinear(30), 20, "float64"),
    "diagonal d=100, n=40": (M.DiagonalLinear(100), 40, "float32"),
    "diagonal d=200, n=80": (M.DiagonalLinear(200), 80, "float32"),
    "diagonal d=200, n=80, float64": (M.DiagonalLinear(200), 80, "float64"),
    "ReLU 2-20-1, float64": (M.ReLU2(2, 20, hidden_bias=False, output_bias=False), 15, "float64"),
    "ReLU 1-100-1": (M.ReLU2(1, 100, output_bias=False), 12, "float32"),
    "ReLU 10-100-1": (M.ReLU2(10, 100), 40, "float32"), "MLP 5-10-10-1": (M.MLP(5, (10, 10)), 50, "float32")}


class Held:
    """A run's state on the card. A call launches steps 0 .. T - 1, from where the last call left the networks."""

    def __init__(self, run, tuning=None):
        self.plan = fs.plan(run, tuning)
        self.backend, N = backends.by_name("cuda"), self.plan.N
        self.state = self.backend.load(self.plan, self.plan.start, np.full(N, ALIVE), self.plan.fresh_buffers())
        self.chosen, (self.chunk,) = self.state.chosen, self.state.chunks
        self.again()

    def again(self, t0=0, t1=None):
        """Make the launch of steps t0 .. t1 - 1; what it points to stays alive."""
        segment = self.plan.segment(t0, t1 or self.plan.run.steps)
        self.job, self.kept = self.backend.job(self.state, self.chunk, segment)

    def __call__(self):
        self.chunk.card.launch(self.chosen.program, self.chosen.threads(self.plan.N), self.chosen.shared, self.job)

    def alive(self):
        """Networks that are not lost."""
        return self.chunk.card.tally(self.chunk.arrays["lost"], (ALIVE,))[0]


def seconds_of(launch, repeats=5):
    """Seconds of `repeats` launches by events on torch's stream, after one that is not counted; wall time of fibers."""
    launch()
    if REHEARSAL:
        began = time.perf_counter()
        launch()
        return [time.perf_counter() - began]
    import torch

    out = []
    for _ in range(repeats):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        launch()
        last.record()
        last.synchronize()
        out.append(first.elapsed_time(last) / 1e3)
    return out


def kernel(case, run, tuning=None, target=0.15):
    """A row of device time; T is raised until a launch takes about `target` seconds."""
    tuning = tuning or fs.Tuning()
    team = fs.plan(run, tuning).tuning.team
    few = run.replace(networks=CHECKED, steps=CHECKED, init=_few(run), ids=None)
    same(few, fs.Tuning(team=team))
    T, most = CHECKED, 1 << 17
    while True:
        held = Held(run.replace(steps=T), tuning)
        spent = seconds_of(held, 1)[0]
        if spent > target / 3 or T >= most or REHEARSAL:
            break
        T = int(min(most, max(2 * T, T * target / max(spent, 1e-5))))
    rates = [held.alive() * T / spent for spent in seconds_of(held)]
    kernel = held.chunk.card.prepare(held.chosen.program, held.chosen.shared)
    keep(case, f"kernel, {held.chosen.lanes} lane(s)", STEPS, rates, run.networks, T,
         f"{run.networks - held.alive()} lost; {held.chosen.shared} bytes shared; "
         f"{getattr(kernel, 'blocks', '?')} blocks a multiprocessor; {held.chosen.program.name}")


def _few(run):
    return None if run.init is None else {name: a[:CHECKED] for name, a in run.init.items()}


def kernels():
    """The fused loops at every number of networks; what matters most comes first."""
    for N in sized((1_000_000, 100_000, 10_000, 1000, 300_000), (200,)):
        for name, system in systems().items():
            run = run_of(system, N, CHECKED, init=start_of(system, N))
            attempt(kernel, name, run)
            if N in sized((1_000_000, 100_000), (200,)):
                attempt(kernel, f"{name}, momentum", with_momentum(run), target=0.1)


def teams():
    """Each number of lanes a network, by rules of the fused loop; the general loop by threads and by blocks."""
    N = sized(100_000, CHECKED)
    for name, system in systems().items():
        run = run_of(system, N, CHECKED, init=start_of(system, N))
        adam = run.replace(rule=fs.rules.Adam(), step_size=1e-3)
        for case, asked, lanes in ((f"{name}, momentum", with_momentum(run), (1, 2, 4, 8)),
                                   (f"{name}, Adam", adam, (1, 2, 4, 8)),
                                   (f"{name}, momentum, 2 a step", run.replace(rule=BATCHED, step_size=1e-3),
                                    (1, 2, 4, 8)),
                                   (f"{name}, label noise", run.replace(rule=NOISY, step_size=1e-3), (1, 32)),
                                   (name, run, (1, 2, 4, 8))):
            for team in lanes:
                attempt(kernel, f"{case}, {team} lane(s) asked for", asked, fs.Tuning(team=team), 0.1)


def all_shapes():
    """SHAPES and one of a user's own, which imports torch."""
    return SHAPES | {"traced sine 2-20-1": (traced(), 15, "float32")}


def shapes():
    """What the table of docs/cuda.md bounds: few and many samples, wide networks, float64."""
    for case, given in all_shapes().items():
        attempt(kernel, case, run_of(random_system(*given), sized(300_000, 32), CHECKED), None, 0.1)


def ranked(N):
    """The run whose ranks are timed."""
    system, points = systems()["ReLU 2-20-1"], np.random.default_rng(0).standard_normal((60, 2))
    return run_of(system, N, 1, metrics=[fs.metrics.JacobianRank(1e-4, points=points)], save=fs.SaveAt(steps=[1]),
                  init=start_of(system, N))


def ranks():
    """Jacobian ranks a second, J 60x60 in float64 of 2-20-1 networks: wall time of the metric in `fs.train`."""
    for N in sized((100_000, 1_000_000), (9,)):
        run = ranked(N)
        (metric,) = run.metrics
        results = [fs.train(run) for _ in range(sized(3, 1))]
        few = min(N, 2000)
        want = fs.train(run.replace(backend="cpu", ids=np.arange(few))).numpy(metric.name)
        wrong = int((results[-1].numpy(metric.name)[:few] != want).sum())
        if wrong:
            raise AssertionError(f"{wrong} of {few} ranks are not the CPU's")
        keep("ReLU 2-20-1, J 60x60", "metric, whole call", "ranks/s",
             [N / max(result.provenance["seconds"]["metrics"], 1e-9) for result in results], N, 1,
             f"the first {few} are the CPU's")


def whole():
    """Wall time of whole calls of `fs.train`: starting weights, copies and launches beside the kernel."""
    system = systems()["diagonal d=30"]
    fs.train(run_of(system, CHECKED, CHECKED))  # a process's first use of a card takes seconds
    for N, T in sized(((1_000_000, 100_000), (100_000, 20_000), (1_000_000, 2000)), ((CHECKED, 300),)):
        launches, began = [], time.perf_counter()
        result = fs.train(run_of(system, N, T), progress=lambda t, *_, seen=launches: seen.append(t))
        spent, training = time.perf_counter() - began, result.provenance["seconds"]["training"]
        notes = f"{len(launches)} launches, {int((result.lost >= 0).sum())} lost"
        keep("diagonal d=30", "whole call", "seconds", [spent], N, T, notes)
        keep("diagonal d=30", "whole call, its training", "seconds", [training], N, T, notes)
        keep("diagonal d=30", "whole call", STEPS, [result.provenance["network_steps"] / spent], N, T, notes)


def steps():
    """Our own kernel launched once a step: queued from Python, and as a CUDA graph of many launches."""
    for name, system in systems().items():
        for N in sized((1_000_000, 100_000), (CHECKED,)):
            attempt(one_step_a_launch, name, system, N)


def one_step_a_launch(name, system, N):
    """Rows of launches of one step each, whose networks end where one launch of as many steps leaves them."""
    start = start_of(system, N)
    held, want = Held(run_of(system, N, GRAPH, init=start)), Held(run_of(system, N, GRAPH, init=start))
    table, item = held.job.multiplier, held.kept["multiplier"].dtype.itemsize

    def many(T=GRAPH):
        for t in range(T):
            held.job.t0, held.job.t1, held.job.multiplier = t, t + 1, table + t * item
            held()

    many()
    want()
    if held.chunk.arrays["W"].get().tobytes() != want.chunk.arrays["W"].get().tobytes():
        raise AssertionError("launches of one step end elsewhere than one launch")
    held.chunk.card.finish()
    began = time.perf_counter()
    for _ in range(sized(16, 1)):
        many()
    held.chunk.card.finish()
    keep(name, "a launch a step, from Python", STEPS, [sized(16, 1) * GRAPH * N / (time.perf_counter() - began)], N)
    if not REHEARSAL:
        import torch

        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            many()
        keep(name, f"a launch a step, CUDA graph of {GRAPH}", STEPS,
             [GRAPH * N / spent for spent in seconds_of(graph.replay)], N)


PARTS = {"kernels": kernels, "whole": whole, "ranks": ranks, "steps": steps, "teams": teams, "shapes": shapes}


def main(*parts):
    begin()
    for part in parts or PARTS:
        attempt(PARTS[part])


if __name__ == "__main__":
    main(*sys.argv[1:])
