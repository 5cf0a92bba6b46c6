"""Runs a small case of every kernel, training and metrics, on this machine's card or one of fibers; for sanitizers.

`python tests/every_kernel.py` on a machine with a card, under compute-sanitizer; `... FOLDER` with fibers that g++
compiles into FOLDER with its address and undefined-behaviour sanitizers; `... FOLDER some` takes one case in nine,
`... FOLDER planted` has an error put there.
"""

import sys
from contextlib import nullcontext
from dataclasses import replace

import fibers
import numpy as np
from cases import request
from general_cases import D, general

import fastsgd as fs
from fastsgd.backends.cuda import layout
from fastsgd.cuda import card as cards
from fastsgd.measure.programs import jacobians

GENERAL = ("everything_relu2", "sam_each_relu2", "adamw_relu2", "reshuffle_net", "one_label_two_outputs", "fresh_batch",
           "cross_entropy", "autoencoder", "product_3", "power_3", "population", "fresh_each")

TOGETHER = {"everything_relu2": 64, "sam_each_relu2": 32, "normalised_relu2": 32, "autoencoder": 64, "product_3": 32,
            "power_3": 64, "fresh_batch": 64, "gradient_signs_relu2": 32, "one_label_two_outputs": 64,
            "population_each": 32}  # a block each

CARRIED = (("diagonal_13", fs.rules.SGD(momentum=0.5, nesterov=True, weight_decay=0.1, average=0.5), 4),
           ("relu2_7_70", fs.rules.SGD(momentum=0.5), 16),
           ("relu2_3_21", fs.rules.Adam(average=0.9, weight_decay=0.1), 2),
           ("diagonal_13", fs.rules.SGD(momentum=0.5, batch_size=3), 2), ("relu2_3_21", fs.rules.GD(momentum=0.5), 4))


def unstaged(n=6000, d=3):
    """More data than shared memory holds."""
    rng = np.random.default_rng(2)
    data = fs.Dataset(rng.standard_normal((n, d)).astype("f4"), rng.standard_normal(n).astype("f4"))
    return fs.Run(fs.models.ReLU2(d, 5), data, fs.rules.SGD(), 0.01, 6, networks=3)


def runs(few=False):
    """(run, team) for every kernel; `few`: one program of a case, where a compile takes seconds."""
    yield request("diagonal_13", "sgd", "float32", 9), 1
    yield request("diagonal_13", "sgd", "float64", 9), 8
    yield request("relu2_7_70", "sgd", "float32", 9), 16
    yield request("relu2_3_21", "minibatch", "float32", 9), 4
    yield request("relu2_2_20_plain", "gd", "float64", 9), 1
    yield unstaged(), 8
    for name, rule, team in CARRIED:
        yield request(name, "sgd", "float32", 9).replace(rule=rule), team
    for name in GENERAL:
        if few and name in TOGETHER:
            continue
        yield general(name, "float32", steps=6), 1
    for name, threads in TOGETHER.items():
        yield general(name, "float32", steps=6), threads
    wide = fs.models.MLP(D, (150, 90), activation="tanh")  # more than a block's shared memory holds
    yield general({"model": wide, "rule": fs.rules.GD(momentum=0.5)}, steps=3, networks=3, step_size=0.01), None


def measured():
    """(run, rows of a Gram matrix that registers hold, bytes of shared memory) for every kernel that measures."""
    m, relu, diagonal = fs.metrics, fs.models.ReLU2(3, 4), fs.models.DiagonalLinear(3)
    rng = np.random.default_rng(0)
    data, X = fs.Dataset(*(rng.standard_normal(shape) for shape in ((9, 3), 9))), rng.standard_normal((7, 3))

    def run(model, *metrics):
        return fs.Run(model, data, fs.rules.GD(), 0.01, 1, networks=3, dtype="float64", metrics=metrics)

    rank, spectrum = m.JacobianRank(points=X), m.JacobianSpectrum(points=X)
    yield run(relu, m.TrainLoss(), rank, spectrum, m.FeatureSparsity()), 80, None
    yield run(relu, rank), 0, None
    yield run(relu, rank, spectrum), 0, 1 << 10
    yield run(fs.models.ReLU2(3, 50), m.TrainLoss()), 80, None
    yield run(fs.models.MLP(3, 2), m.TrainLoss()), 80, None
    yield run(fs.models.MLP(3, (70, 20)), m.TrainLoss()), 80, None
    yield run(diagonal, m.TrainLoss(), m.ParameterNorm(), m.JacobianRank(1e-9, X), spectrum), 80, None


def same_weights(run, team):
    run = run.replace(metrics=())
    ours = fs.train(run.replace(backend="cuda"), tuning=fs.Tuning(team=team, segment=4))
    assert ours.weights.tobytes() == fs.train(run.replace(backend="cpu")).weights.tobytes(), "other weights"


def same_records(run, held, shared):
    one = cards.cards(None)[0]
    kept = jacobians.REGISTER_ROWS, one.shared
    jacobians.REGISTER_ROWS, one.shared = held, shared or one.shared
    try:
        plan = fs.plan(run.replace(backend="cuda"))
        assert plan.explain().count("on the card: ") == len(run.metrics), plan.explain()
        ours, theirs = fs.train(plan), fs.train(run.replace(backend="cpu"))
    finally:
        jacobians.REGISTER_ROWS, one.shared = kept
    for name, record in theirs.records.items():
        np.testing.assert_allclose(ours.records[name], record, rtol=1e-14 * (name == "feature_sparsity"), err_msg=name)


def main(folder=None, mode="all"):
    if mode == "planted":
        choose = layout.choose  # shared memory that lacks room for two numbers
        layout.choose = lambda *given: replace(made := choose(*given), shared=made.shared - 8)
    card, wrong = fibers.FiberCard(folder, sanitize=True, shared=mode == "all") if folder else None, []
    with fibers.in_place(card) if card else nullcontext():
        cases = [(same_weights, case) for case in runs(few=folder is not None)]
        cases += [(same_records, case) for case in measured()]
        for number, (compare, case) in enumerate({"all": cases, "some": cases[::9], "planted": cases[:1]}[mode]):
            what = f"{number}: {type(case[0].model).__name__}, {compare.__name__}"
            try:
                compare(*case)
            except Exception as error:  # the others are looked at all the same
                wrong.append(what)
                print(f"WRONG {what}: {type(error).__name__}: {error}", flush=True)
            else:
                print(f"right {what}", flush=True)
    if wrong:
        sys.exit(f"{len(wrong)} of {len(cases)} are wrong: {'; '.join(wrong)}")
    print("every kernel has the bits of the CPU")


if __name__ == "__main__":
    main(*sys.argv[1:])
