"""Owns what is measured inside one process rather than against opponents: memory over T, the paper's systems, calls."""

import gc
import os
import time
from itertools import cycle

import numpy as np

import fastsgd as fs

from .cases import CASES, SEED
from .harness import WrongAnswer, calls_within, round_of


def _status(field):
    """A field of /proc/self/status in MiB."""
    with open("/proc/self/status") as lines:
        return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def memory(N, T, saves):
    """Growth of the resident set's peak in MiB over one fs.train of T steps, beside what the plan states.

    Called in a fresh process; a tiny run goes first, so that libraries and threads are not counted.
    """
    case = CASES["diagonal"]
    threads = fs.Tuning(threads=len(os.sched_getaffinity(0)))
    keep = {"save": fs.SaveAt(linear=saves, params=True), "metrics": (fs.metrics.TrainLoss(),)}
    fs.train(case.run(8, 8, **keep), tuning=threads)
    plan = fs.plan(case.run(N, T, **keep), threads)
    gc.collect()
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # the peak starts anew from what is resident now
    before = _status("VmRSS")
    result = fs.train(plan)
    growth = _status("VmHWM") - before
    assert (result.lost < 0).all()
    return {"growth": growth, "planned": sum(plan.memory.values()) / 2**20,
            "parts": {name: round(size / 2**20, 2) for name, size in plan.memory.items()}}


def paper(name, orders, share, kind):
    """Seconds of a system of the paper: its schedules x `orders` sample orders, without and with metrics.

    share: of the paper's steps
    kind: "training" (no metrics), "losses" (those that the system has, at the paper's spacing) or "demo" (losses, and
        the Jacobian rank and feature sparsity that the paper looks at, at 250 steps)
    Returns {"seconds": of the whole call, "training", "metrics": parts of it, "expected": what the plan said, "table":
    what it rests on, "N", "T", "S", "dtype", "lost": fraction}.
    """
    system, m = fs.data.paper(name), fs.metrics
    case = CASES[name]
    runs = [r for r in system.runs if (r.rule == "gd") == (case.batch is None)] or system.runs
    steps = max(100, int(share * system.steps))
    each = {field: np.repeat([getattr(r, field) or 1.0 for r in runs], orders)
            for field in ("step_size", "decay_at", "decay_by")}
    step = fs.StepSize(each["step_size"], each["decay_at"], each["decay_by"], decay_timing=runs[0].decay_timing)
    metrics = () if kind == "training" else (m.TrainLoss(),)
    if metrics and system.data.X_test is not None:
        metrics = (*metrics, m.TestLoss())
    if kind == "demo" and system.rank_rtol is not None:
        metrics = (*metrics, m.JacobianRank(rtol=system.rank_rtol, points=system.rank_points))
    if kind == "demo" and system.sparsity_threshold is not None:
        metrics = (*metrics, m.FeatureSparsity(tau=system.sparsity_threshold))
    saves = {"training": [steps], "losses": system.evaluations[system.evaluations <= steps],
             "demo": np.unique(np.linspace(0, steps, 250).astype(int))}[kind]
    rule = fs.rules.GD() if case.batch is None else fs.rules.SGD(batch_size=1)
    run = fs.Run(case.model, system.data, rule, step, steps, init=system.init, dtype="float64", metrics=metrics,
                 loss=fs.losses.Squared(system.loss_factor), save=fs.SaveAt(steps=saves), seed=0, backend="cpu")
    plan = fs.plan(run, fs.Tuning(threads=len(os.sched_getaffinity(0))))
    expected, words, _ = plan.cost()
    began = time.perf_counter()
    result = fs.train(plan)
    return {"seconds": time.perf_counter() - began, **result.provenance["seconds"], "N": len(result.ids), "T": steps,
            "S": len(result.steps), "dtype": "float64", "expected": sum(expected.values()), "table": words,
            "lost": float((result.lost >= 0).mean())}


def calls(T, rounds, target):
    """{way of calling: [seconds of a call, one a round]} of one network and T steps: what calls cost beside steps.

    Each way's answer is compared first with a run that was planned for it alone. target: seconds that a round takes
    """
    case, values = CASES["diagonal"], cycle((0.01, 0.02))
    run, rule, starts = case.run(1, T), fs.rules.SGD(), cycle(case.model.unflatten(w) for w in case.start(2))
    plan, order, w = fs.plan(run), case.order(1, T)[0, :, 0], case.start(1).copy()
    ways = {
        "fs.train(model, data, ...)": lambda: fs.train(case.model, case.data, rule=rule, step_size=next(values),
                                                       steps=T, seed=SEED, init=run.init),
        "fs.train(run)": lambda: fs.train(run),
        "fs.train(plan)": lambda: fs.train(plan),
        "plan.train(step_size=...)": lambda: plan.train(step_size=next(values)),
        "plan.train(seed=...)": lambda: plan.train(seed=int(100 * next(values))),
        "plan.train(init=...)": lambda: plan.train(init=next(starts)),
        "fs.functional.advance_": lambda: fs.functional.advance_(case.model, w, case.data.X, case.data.y, order, 0.01),
    }
    for way in [name for name in ways if "advance_" not in name]:
        for _ in range(2):
            got = ways[way]()
            if got.weights.tobytes() != fs.train(fs.plan(got.run)).weights.tobytes():
                raise WrongAnswer(f"{way} differs from a run that was planned for it")
    ways["fs.functional.advance_"]()
    if w.tobytes() != fs.train(fs.plan(run.replace(step_size=0.01))).weights.tobytes():
        raise WrongAnswer("fs.functional.advance_ differs from fs.train")
    counts, out = {way: calls_within(call, target) for way, call in ways.items()}, {way: [] for way in ways}
    for number in range(rounds):
        for way, seconds in round_of(ways, counts, number):
            out[way].append(seconds)
    return out
