"""Owns the comparison of a card's bits with the CPU's: `smoke`, `every K OF`, `large`, `random SECONDS SEED`.

`smoke`: one kernel. `every`: a share of the small cases of tests/every_kernel.py. `large`: many blocks and chunks of
blocks, lost networks among them, every team. `random`: runs of tests/random_runs.py until the time is over. Every fault
is told, and what comes after it is compared all the same; the exit status is 1 if there was one.
"""

import sys
import time

import numpy as np

import fastsgd as fs
from fastsgd.errors import PlanError

from . import BATCHED, CHECKED, begin, random_system, run_of, sized, start_of, systems, traced


def smoke():
    """One launch of the fused loop, one of the general loop."""
    for system in systems().values():
        yield "fused", lambda system=system: same(run_of(system, CHECKED, CHECKED), fs.Tuning(team=1))
    yield "general", lambda: same(run_of(systems()["ReLU 2-20-1"], CHECKED, CHECKED, rule=fs.rules.SGD(momentum=0.9)))


def every(share, shares):
    """The cases of tests/every_kernel.py whose number is `share` modulo `shares`."""
    import every_kernel

    cases = [(every_kernel.same_weights, case) for case in every_kernel.runs()]
    cases += [(every_kernel.same_records, case) for case in every_kernel.measured()]
    for number, (compare, case) in list(enumerate(cases))[int(share)::int(shares)]:
        yield f"{number} {type(case[0].model).__name__} {compare.__name__}", lambda c=compare, case=case: c(*case)


def large():
    """Runs that fill the card, at the sizes of the benchmarks; one network of 97 is lost."""
    for name, system in systems().items():
        for N, T in sized(((100_000, 2000), (1_000_003, 64)), ((64, 300),)):
            step = np.where(np.arange(N) % 97 == 5, 30.0, system[2])
            run = run_of(system, N, T, step_size=step, init=start_of(system, N))
            for team in sized((None, 1, 2, 4, 8) if N < 200_000 else (None,), (None, 1)):
                yield (f"{name} N={N} T={T} team={team}",
                       lambda run=run, team=team: same(run, fs.Tuning(team=team), lost=True))
    for run in others():
        yield f"{type(run.model).__name__} {run.dtype} {type(run.rule).__name__}", lambda run=run: same(run)


def others():
    """Runs of other families, rules and dtypes at size."""
    for model, n, dtype in ((fs.models.DiagonalLinear(200), 80, "float64"), (fs.models.ReLU2(10, 100), 40, "float32"),
                            (fs.models.MLP(5, (10, 10)), 50, "float32")):
        for rule in (fs.rules.SGD(), fs.rules.SGD(momentum=0.9, label_noise=0.1), fs.rules.GD(), BATCHED):
            yield run_of(random_system(model, n, dtype), sized(20_000, 32), sized(100, 8), rule=rule)
    for rule in (fs.rules.SGD(), fs.rules.Adam()):
        yield run_of(random_system(traced(), 15), sized(20_000, 32), sized(100, 8), rule=rule)


def random(seconds, seed):
    """Random runs, each compared with the CPU's, until `seconds` are over."""
    import random_runs

    began, number = time.time(), 0
    while time.time() - began < float(seconds):
        run = random_runs.random_run(np.random.default_rng((int(seed), number)))
        yield f"random {seed}.{number}", lambda run=run: same(run.replace(backend="cuda", metrics=()))
        number += 1


_truth = {}


def same(run, tuning=None, lost=False):
    """Raise AssertionError unless a run on the card has the bits of the CPU. lost: some must be, and not all."""
    try:
        ours = fs.train(run, tuning=tuning)
    except PlanError as error:
        if tuning is None or tuning.team is None:
            raise
        return f"not compared: {error}"
    if _truth.get("run") is not run:  # one run is compared at several teams
        _truth.update(run=run, theirs=fs.train(run.replace(backend="cpu")))
    theirs = _truth["theirs"]
    differ = (ours.weights.view(np.uint8) != theirs.weights.view(np.uint8)).any(axis=1) | (ours.lost != theirs.lost)
    assert not differ.any(), f"{int(differ.sum())} of {len(differ)} networks differ, the first is {differ.argmax()}"
    gone = int((ours.lost >= 0).sum())
    assert not lost or 0 < gone < len(differ), f"{gone} of {len(differ)} are lost"
    return f"{gone} lost"


PARTS = {"smoke": smoke, "every": every, "large": large, "random": random}


def told(part, comparisons):
    """Make comparisons, (what, function that raises or says something), and tell how each went; is one wrong?"""
    wrong, count = 0, 0
    for what, compare in comparisons:
        began, count = time.time(), count + 1
        try:
            said = compare()
        except Exception as error:
            wrong += 1
            print(f"WRONG {what}: {type(error).__name__}: {str(error)[:2000]}", flush=True)
        else:
            print(f"right {what}: {said or ''} {time.time() - began:.1f} s", flush=True)
    print(f"{part}: {wrong} of {count} are wrong")
    return bool(wrong)


def main(part, *arguments):
    begin()
    sys.exit(told(part, PARTS[part](*arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
