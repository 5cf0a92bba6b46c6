"""Owns the scaling curves over N, T, d and width, the lone network, and the first result of a process."""

import os
import subprocess
import sys
import time

from . import cases, rows
from .harness import ROOT, Band, Gap, Process, Side, WrongAnswer, admit, fresh, interleave, pinned, ratio

FIRST = """
import time
began = time.perf_counter()
import sys, fastsgd as fs
imported = time.perf_counter()
data = fs.data.sparse_regression(n=40, d=30, nonzero=3, n_test=100, seed=0)
metrics = (fs.metrics.TrainLoss(), fs.metrics.TestLoss(), fs.metrics.JacobianRank(rtol=1e-15))
fs.train(fs.models.DiagonalLinear(d=30), data, rule=fs.rules.SGD(), step_size=0.02, steps=10_000, dtype="float64",
         networks=64, metrics=metrics).numpy("rank")
print(imported - began, time.perf_counter() - began, int("torch" in sys.modules))
"""
ALONE = ("diagonal", "S1", "S2", "S7", "S9", "relu2")
LENGTHS = (10, 100, 1000, 10_000, 100_000)
SIDES = ("fastsgd", "torch-batched", "jax", "numba")



def _has_cuda():
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


SIZES = (1, 10, 100, 1000, 10_000, 100_000)
CURVES = {  # name: (what is on the axis, points [(value, case, N)], sides)
    "N": ("networks N", lambda: [(N, cases.CASES["diagonal"], N) for N in
                                 SIZES + ((1_000_000, 10_000_000) if _has_cuda() else ())], SIDES),
    "d": ("inputs d", lambda: [(d, cases._diagonal(f"d{d}", d=d), 256) for d in (4, 16, 64, 256, 1024)], SIDES),
    "width": ("width h", lambda: [(h, cases._relu2(f"h{h}", h=h, step_size=0.02), 128) for h in (4, 16, 64, 256, 512)],
              SIDES),
    "cores": ("cores", None, ()),
}


def curve(name, cores, settings, say):
    """Network-steps a second against one size, by every side that can: rows with the metric "curve <name>"."""
    if name == "cores":
        yield from over_cores(cores, settings, say)
        return
    axis, points, names = CURVES[name]
    say(f"\ncurve: network-steps a second against {axis}, batch 1, float32, {cores} core(s)")
    processes = {side: Process(side, cores) for side in names}
    try:
        for value, case, N in points():
            sides = [Side(side, processes[side], case, N) for side in names]
            longer = 4 if N >= 10_000 else 1  # the fixed part of a call grows with N
            ready, gaps = admit(sides, case.truth(N), longer * settings.curve_target)
            interleave(ready, settings.curve_rounds, 1)
            said = []
            for side in ready:
                band = Band.of(side.rates)
                said.append(f"{side.name} {band.median:.3g}")
                yield rows.row(cores, f"{case.title.split(',')[0]}, {name}={value}", side.name, f"curve {name}",
                               side.unit, band, side.N, side.T, error=side.error,
                               versions=side.versions | {"at": value, "variant": side.variant})
            for side, reason in gaps.items():
                yield rows.gap(cores, f"{case.title.split(',')[0]}, {name}={value}", side, reason, N,
                               expected="Absent:" in reason)
            say(f"  {name}={value}: " + ", ".join(said))
    finally:
        for process in processes.values():
            process.close()


def over_cores(cores, settings, say):
    """The same call on 1 .. `cores` cores, interleaved."""
    for case in (cases.CASES[name] for name in cases.GOAL_CASES):
        processes = {count: Process("fastsgd", count) for count in range(1, cores + 1)}
        try:
            sides = {count: Side(f"fastsgd, {count}", process, case, case.N) for count, process in processes.items()}
            for side in sides.values():
                side.admit(case.truth(case.N), settings.target)
            interleave(list(sides.values()), settings.rounds, settings.best_of)
            for count, side in sides.items():
                band, who = Band.of(side.rates), case.title.split(",")[0]
                yield rows.row(count, who, "fastsgd", "curve cores", side.unit, band,
                               side.N, side.T, error=side.error, versions=side.versions | {"at": count})
            gain = ratio(sides[cores], sides[1])
            say(f"\n{case.title}: {cores} cores give {gain.median:.2f} [{gain.low:.2f} .. {gain.high:.2f}] times one")
            yield rows.row(cores, case.name, "cores", "cores ratio", "x", gain, case.N, sides[1].T)
        finally:
            for process in processes.values():
                process.close()


def alone(name, settings, say):
    """One network, T steps: a whole fs.train against a plain NumPy loop that is given its draws."""
    case = cases.CASES[name]
    say(f"\none network, {case.title}, 1 core")
    processes = {side: Process(side, 1) for side in ("fastsgd", "numpy-loop")}
    try:
        for T in LENGTHS if settings.rounds > 2 else LENGTHS[1:4]:
            sides = {side: Side(side, process, case, 1) for side, process in processes.items()}
            for side in sides.values():
                side.admit(case.truth(1), settings.target, T=T)
            short = T < 10_000  # long loops of NumPy take seconds, and no repeats to be told apart
            interleave(list(sides.values()), settings.rounds if short else 2, settings.best_of if short else 1)
            band = ratio(sides["fastsgd"], sides["numpy-loop"])
            ours = Band.of([1e6 * T / rate for rate in sides["fastsgd"].rates])
            say(f"  T={T}: {ours.median:.4g} us, {band.median:.3g} [{band.low:.3g} .. {band.high:.3g}] times the "
                "speed of NumPy")
            yield rows.row(1, name, "fastsgd", "one network", "us", ours, 1, T, case.dtype,
                           sides["fastsgd"].error)
            yield rows.row(1, name, "numpy-loop", "one network ratio", "x", band, 1, T, case.dtype,
                           sides["fastsgd"].error)
    except (Gap, WrongAnswer) as reason:
        say(f"  not timed. {reason}")
        yield rows.gap(1, name, "numpy-loop", str(reason), 1)
    finally:
        for process in processes.values():
            process.close()


def first_results(settings, say):
    """Seconds from the start of a fresh process to the first result, and to an import of NumPy alone, in turn."""
    times = {"fastsgd": [], "NumPy": []}
    imports, torch = [], False
    bytecode = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # is there
    for _ in range(4 * settings.rounds):
        for name, text in (("fastsgd", FIRST), ("NumPy", "import numpy.random")):
            began = time.perf_counter()
            with pinned(1):
                done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True,
                                      check=True, env=bytecode)
            times[name].append(time.perf_counter() - began)
            if name == "fastsgd":
                imported, _, loaded = done.stdout.split()
                imports.append(float(imported))
                torch |= loaded == "1"
    ours, numpy, imports = Band.of(times["fastsgd"]), Band.of(times["NumPy"]), Band.of(imports)
    say(f"first result of a fresh process: {ours.median:.3f} s [{ours.low:.3f} .. {ours.high:.3f}], of which "
        f"`import fastsgd` {imports.median:.3f} s, torch {'imported' if torch else 'not imported'}; a process that "
        f"imports NumPy alone: {numpy.median:.3f} s [{numpy.low:.3f} .. {numpy.high:.3f}]")
    yield rows.row(1, "import", "fastsgd", "import", "s", imports)
    yield rows.row(1, "import", "numpy", "import", "s", numpy)
    yield rows.row(1, "first result", "fastsgd", "first result", "s", ours, 64, 10_000, "float64",
                   versions={"torch": torch})


def calls(settings, say):
    """Microseconds of a call of one network and ten steps, made in several ways."""
    try:
        found = fresh(1, "calls", 10, settings.rounds, settings.target / 3)
    except Gap as reason:
        say(f"a call: not timed. {reason}")
        yield rows.gap(1, "diagonal", "a call", str(reason), 1)
        return
    say("\none network, ten steps, 1 core")
    for way, seconds in found.items():
        band = Band.of([1e6 * each for each in seconds])
        say(f"  {way:28s} {band.median:.4g} us [{band.low:.4g} .. {band.high:.4g}]")
        yield rows.row(1, "diagonal", way, "a call", "us", band, 1, 10)
