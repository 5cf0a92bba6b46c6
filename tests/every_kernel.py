"""Runs a small case of every training kernel on this machine's card, or on one of fibers; for sanitizers.

`python tests/every_kernel.py` on a machine with a card, under compute-sanitizer; `... FOLDER` with fibers that g++
compiles into FOLDER with its address and undefined-behaviour sanitizers; `... FOLDER planted` with an error put there.
"""

import sys
from contextlib import nullcontext

import fibers
import numpy as np
from cases import request
from general_cases import general

import fastsgd as fs
from fastsgd.backends import cuda_programs

GENERAL = ("everything_relu2", "sam_each_relu2", "adamw_relu2", "reshuffle_net", "one_label_two_outputs", "fresh_batch",
           "cross_entropy", "autoencoder", "product_3", "power_3")


def unstaged(n=6000, d=3):
    """More data than shared memory holds."""
    rng = np.random.default_rng(2)
    data = fs.Dataset(rng.standard_normal((n, d)).astype("f4"), rng.standard_normal(n).astype("f4"))
    return fs.Run(fs.models.ReLU2(d, 5), data, fs.rules.SGD(), 0.01, 6, networks=3)


def runs():
    """(run, team) for every kernel."""
    yield request("diagonal_13", "sgd", "float32", 9), 1
    yield request("diagonal_13", "sgd", "float64", 9), 8
    yield request("relu2_7_70", "sgd", "float32", 9), 16
    yield request("relu2_3_21", "minibatch", "float32", 9), 4
    yield request("relu2_2_20_plain", "gd", "float64", 9), 1
    yield unstaged(), 8
    for name in GENERAL:
        yield general(name, "float32", steps=6), None


def main(folder=None, planted=None):
    if planted:
        cuda_programs._labels = lambda run: 0  # shared memory that lacks room for the labels
    card = fibers.FiberCard(folder, sanitize=True) if folder else None
    with fibers.in_place(card) if card else nullcontext():
        for count, (run, team) in enumerate(runs()):
            if planted and count:
                break
            run = run.replace(metrics=())
            ours = fs.train(run.replace(backend="cuda"), tuning=fs.Tuning(team=team, segment=4))
            assert ours.weights.tobytes() == fs.train(run.replace(backend="cpu")).weights.tobytes(), run.model
    print("every kernel has the bits of the CPU")


if __name__ == "__main__":
    main(*sys.argv[1:])
