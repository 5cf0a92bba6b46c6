"""Owns the launches that a profiler looks at: `python -m bench.card.profiled CASE`, three launches of one kernel."""

import sys

import numpy as np

import fastsgd as fs
from fastsgd.measure import place

from . import begin, random_system, run_of, sized, start_of, systems, with_momentum
from .speed import Held, ranked


def diagonal():
    return _training("diagonal d=30")


def relu():
    return _training("ReLU 2-20-1")


def momentum():
    system = systems()["diagonal d=30"]
    N = sized(400_000, 64)
    return Held(with_momentum(run_of(system, N, 256, init=start_of(system, N))))


def wide():
    """69 KiB of shared memory a block: are there three blocks a multiprocessor?"""
    return Held(run_of(random_system(fs.models.DiagonalLinear(200), 80), sized(50_000, 32), 256))


def ranks():
    run = ranked(sized(8000, 9))
    held = Held(run)
    measured = place("cuda", held.plan.work, held.plan.N).begin(held.plan)
    return lambda: measured.measure_state(held.state, run.metrics[0], np.arange(run.networks))


def _training(name):
    system, N = systems()[name], sized(400_000, 64)
    return Held(run_of(system, N, 256, init=start_of(system, N)))


CASES = {"diagonal": diagonal, "relu": relu, "ranks": ranks, "momentum": momentum, "wide": wide}

if __name__ == "__main__":
    begin()
    launch = CASES[sys.argv[1]]()
    for _ in range(3):
        launch()
