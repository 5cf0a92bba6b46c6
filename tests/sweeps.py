"""Owns small sweeps for tests, and what two stores must have in common."""

import json
import os
import signal
from pathlib import Path

import numpy as np

import fastsgd as fs

DATA = fs.data.sparse_regression(n=12, d=6, nonzero=2, n_test=8, seed=1)
RUN = fs.Run(fs.models.DiagonalLinear(6), DATA, fs.rules.SGD(), 0.1, 60, save=fs.SaveAt(linear=4), dtype="float64",
             metrics=[fs.metrics.TrainLoss(), fs.metrics.TestLoss()])
ONE = fs.Tuning(threads=1)
SIZES = np.array([0.05, 0.4, 3.0])


def small(**given):
    """24 cells of 10 networks in two groups."""
    return fs.Sweep(RUN, **{"grid": {"step_size": SIZES, "rule.momentum": [0, 0.9], "model.u0": [0.1, 0.2, 0.3, 0.4]},
                            "replicas": 10} | given)


def sums(store):
    """Checksums of all numbers of a store, by file."""
    out = {}
    for path in sorted((Path(store.path) / "done").iterdir()):
        record = json.loads(path.read_text())
        out |= {file: check for file, (_, check) in record["files"].items()}
    assert len({name.partition("/")[0] for name in out}) > 1 and not store.missing() and not store.check(thorough=True)
    return out


def shards(store):
    """Bytes of all shards, by file."""
    return {str(path.relative_to(store.path)): path.read_bytes() for path in Path(store.path).glob("g*/*/c.*")}


def some_work(path, seconds):
    """A worker that is killed after so many seconds, or ends."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    fs.sweep.work(path, tuning=ONE, stale=600)
