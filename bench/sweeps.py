"""Owns what a sweep costs beside its runs: `python -m bench.sweeps [RANGES [CELLS]]` prints some lines and keeps none.

A range is 1e4 diagonal networks, d = 30, 1e4 steps, 50 saved steps, 3 metrics; cells are one network each.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import fastsgd as fs
from fastsgd.sweep.work import do, run_of

from . import load

DATA = fs.data.sparse_regression(n=20, d=30, nonzero=3, n_test=200, seed=0)
METRICS = (fs.metrics.TrainLoss(), fs.metrics.TestLoss(), fs.metrics.ParameterNorm())


def base(model, steps, metrics=METRICS):
    return fs.Run(model, DATA, fs.rules.SGD(), fs.StepSize(0.1, decay_at=0.5, decay_by=2.0), steps,
                  save=fs.SaveAt(linear=50), metrics=metrics, dtype="float64")


def against_train(folder, ranges):
    """Ranges of a sweep with four per-network fields, each done beside `fs.train` of the same networks."""
    n = 39 * ranges  # cells
    values = {"step_size": np.geomspace(0.005, 0.05, n), "step_size.decay_at": np.linspace(0.2, 0.8, n),
              "model.u0": np.linspace(0.05, 0.2, n), "step_size.decay_by": np.linspace(1, 4, n)}
    store = fs.Sweep(base(fs.models.DiagonalLinear(30), 10_000), zip=values, replicas=256).store(folder, size=9984)
    ratios, shares = [], []
    for name in store.names:
        began = time.perf_counter()
        plan = fs.plan(run_of(store, store.range(name)))
        planned = time.perf_counter() - began
        began = time.perf_counter()
        fs.train(plan)
        trained = planned + time.perf_counter() - began
        began = time.perf_counter()
        do(store, name)
        whole = time.perf_counter() - began
        ratios.append(trained / whole)
        shares.append(planned / whole)
    size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(ratios)} ranges: {np.median(ratios):.1%} of the speed of fs.train, everything synced; planning "
          f"{np.median(shares):.2%} of a range; peak {peak:.0f} MB; {size / store.sweep.networks:.0f} MB a million "
          "networks")


def of_a_cell(folder, cells):
    """Milliseconds a cell of one network, where all of them are one kernel's."""
    rng = np.random.default_rng(0)
    for model in (fs.models.DiagonalLinear(30), fs.models.MLP(30, 8)):
        values = {"step_size": rng.uniform(1e-3, 1e-2, cells), "rule.weight_decay": rng.uniform(1e-3, 0.1, cells)}
        began = time.perf_counter()
        store = fs.Sweep(base(model, 100, METRICS[:1]), zip=values).run(Path(folder) / type(model).__name__)
        print(f"{cells} cells of one {type(model).__name__}, 100 steps, 50 saved: "
              f"{(time.perf_counter() - began) / cells * 1e3:.3f} ms a cell, {len(store.names)} ranges")


def of_a_report(folder):
    """Seconds of the command that reports a store."""
    began = time.perf_counter()
    words = ["report", str(folder), "--out", str(Path(folder).parent / "report")]
    subprocess.run([sys.executable, "-m", "fastsgd", *words], check=True, capture_output=True)
    print(f"report: {time.perf_counter() - began:.2f} s")


def main(ranges=4, cells=20_000):
    print(load.before(), flush=True)
    others = load.Others()
    with tempfile.TemporaryDirectory() as folder:
        against_train(Path(folder) / "a.zarr", ranges)
        of_a_report(Path(folder) / "a.zarr")
        of_a_cell(folder, cells)
    print(load.sentence(others.share(), "meanwhile"))


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
