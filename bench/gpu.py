"""Owns what is measured on a card: one large run, ranks, throughput of the CUDA backend beside opponents.

`python -m bench.gpu` needs a card and appends to bench/data/gpu.csv, each row with the card's name and as soon as it is
known; what matters most comes first. An answer is checked before anything is timed: the program that is timed must give
the bits of the CPU backend, JAX must come near them. All sides begin with the same weights, which are made before the
clock starts; JAX has its samples on the card by then. fastsgd is timed from bringing the weights to the card until the
last launch is done; the large run has a row for the whole call as well. Rounds alternate between the sides; a row holds
the median and the least and largest round.
"""

import argparse
import csv
import os
import platform
import sys
import time
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np

import fastsgd as fs
from fastsgd import backends
from fastsgd.cuda import card as cards

from . import rows
from .harness import Band, Gap, WrongAnswer, error_of

PATH = Path(__file__).with_name("data") / "gpu.csv"
CHECKED = 64  # networks and steps that are compared before anything is timed
NEAR = 1e-2  # of a displacement: what other arithmetic in float32 may differ by
FIELDS = ("card", "versions", "commit", "when", "case", "N", "T", "side", "what", "median", "low", "high")


def systems():
    """{name: (model, data in float32, step size)} that are swept most."""
    narrow = fs.models.ReLU2(2, 20, hidden_bias=False, output_bias=False)
    return {"diagonal d=30": (fs.models.DiagonalLinear(30), fs.data.sparse_regression(
                n=20, d=30, nonzero=3, seed=0).astype("float32"), 0.02),
            "ReLU 2-20-1": (narrow, fs.data.teacher_student(n=15, d=2, teacher_width=3, seed=0).astype("float32"), 0.1)}


def start_of(system, N):
    """Starting weights {name: [N, ...]}, which take longer to draw than a run does."""
    model = system[0]
    return model.unflatten(model.start(0, np.arange(N)).astype("float32"))


def run_of(system, N, T, **fields):
    model, data, step_size = system
    return fs.Run(model, data, fs.rules.SGD(), step_size, T, networks=N, seed=0, **({"backend": "cuda"} | fields))


def same_bits(run, tuning):
    """Raise WrongAnswer unless a run on the card has the bits of the CPU."""
    ours, theirs = fs.train(run, tuning=tuning).weights, fs.train(run.replace(backend="cpu")).weights
    if ours.tobytes() != theirs.tobytes():
        differ = int((ours != theirs).any(axis=1).sum())
        raise WrongAnswer(f"{differ} of {len(ours)} networks differ from the CPU's bits with {tuning}")


def check(system, N):
    """Raise WrongAnswer unless the program that N networks take has the bits of the CPU."""
    one = {name: a[0] for name, a in start_of(system, 1).items()}
    tuning = fs.Tuning(team=fs.plan(run_of(system, N, CHECKED, init=one)).tuning.team)
    same_bits(run_of(system, CHECKED, CHECKED), tuning)


def fused(system, N, start):
    """Function of T: seconds of training in launches of many steps."""
    def seconds(T):
        return fs.train(run_of(system, N, T, init=start)).provenance["seconds"]["training"]

    return seconds


LAUNCHES = 2000


def one_step_a_launch(system, N, start):
    """Function of T: seconds of T launches of one step each, queued from Python without waiting: a control."""
    plan, backend = fs.plan(run_of(system, N, LAUNCHES, init=start)), backends.by_name("cuda")
    state = backend.load(plan, plan.start, np.full(N, -1), plan.fresh_buffers())
    if len(state.waves) > 1:
        raise Gap(f"{len(state.waves)} waves")
    wave, chosen = state.waves[0], state.chosen
    job, kept = backend.job(state, wave, plan.segment(0, LAUNCHES))
    table, item = job.multiplier, kept["multiplier"].dtype.itemsize

    def seconds(T):
        wave.card.finish()
        began = time.perf_counter()
        for t in range(T):
            job.t0, job.t1, job.multiplier = t, t + 1, table + t * item
            wave.card.launch(chosen.program, chosen.threads(N), chosen.shared, job)
        wave.card.finish()
        return time.perf_counter() - began

    seconds.holds = state, kept  # what the launches read and write
    return seconds


def jax_scan(system, N, start, unroll=1):
    """Function of T: seconds of jit(vmap(scan)) of a step differentiated by jax.grad, compiled before."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else it takes most of the card for itself
    import jax
    import torch

    if torch.cuda.is_available() and jax.default_backend() == "cpu":
        raise Gap("JAX sees no card")
    jax.config.update("jax_default_matmul_precision", "highest")  # float32, as asked
    jnp = jax.numpy
    model, data, step_size = system
    X, y, ready = jnp.asarray(data.X), jnp.asarray(data.y), {}

    def loss(w, i):
        out = (w["u"] * w["v"]) @ X[i] if "u" in w else (w["W2"] @ jax.nn.relu(w["W1"] @ X[i]))[0]
        return 0.5 * (out - y[i]) ** 2

    def step(w, i):
        return jax.tree.map(lambda a, g: a - step_size * g, w, jax.grad(loss)(w, i)), None

    many = jax.jit(jax.vmap(lambda w, order: jax.lax.scan(step, w, order, unroll=unroll)[0]))

    def device(start):
        return {name: jnp.asarray(a) for name, a in start.items()}

    order = fs.orders.PerNetwork().indices(0, np.arange(CHECKED), 0, CHECKED, data.n, 1)[..., 0].astype(np.int32)
    few, truth = start_of(system, CHECKED), fs.train(run_of(system, CHECKED, CHECKED, backend="cpu")).weights
    answer = model.flatten({name: np.asarray(a) for name, a in many(device(few), jnp.asarray(order)).items()}, CHECKED)
    error = error_of(answer, truth, model.flatten(few, CHECKED))
    if error > NEAR:
        raise WrongAnswer(f"relative error {error:.1e} of the displacement, at most {NEAR:.0e} is legal")
    start = device(start)

    def seconds(T):
        if T not in ready:
            ready.clear()
            ready[T] = jax.random.randint(jax.random.key(0), (N, T), 0, data.n)
            jax.block_until_ready(many(start, ready[T]))
        began = time.perf_counter()
        jax.block_until_ready(many(start, ready[T]))
        return time.perf_counter() - began

    return seconds


SIDES = {"fastsgd, one launch": (fused, 10**7), "fastsgd, a launch a step": (one_step_a_launch, LAUNCHES),
         "JAX jit(vmap(scan))": (jax_scan, 200), "JAX jit(vmap(scan)), unrolled 8": (partial(jax_scan, unroll=8), 200)}
# side: (function of a system, N and starting weights that gives a function of T, most steps)


def fitted(seconds, most, target):
    """T such that a call takes about `target` seconds, at most `most`; a short call is mostly its fixed part."""
    T = min(most, 64)
    seconds(T)  # compiles
    for _ in range(3):
        spent = max(seconds(T), 1e-4)
        if spent > target / 2 or T == most:
            break
        T = max(1, min(most, int(T * target / spent)))
    return T


def throughput(name, system, N, target, rounds, tell):
    """Yield rows of network-steps a second of every side, and of the ratios to the first."""
    check(system, N)
    T, ready, start = {}, {}, start_of(system, N)
    for side, (prepare, most) in SIDES.items():
        try:
            seconds = prepare(system, N, start)
            T[side], ready[side] = fitted(seconds, most, target), seconds
        except Exception as error:
            tell(f"{name} N={N}: {side} is a gap, {type(error).__name__}: {error}")
    rates = {side: [] for side in ready}
    for number in range(rounds):
        for side in list(ready) if number % 2 == 0 else reversed(list(ready)):
            rates[side].append(N * T[side] / max(ready[side](T[side]), 1e-4))
    first = next(iter(SIDES))
    for side, values in rates.items():
        row = {"case": name, "N": N, "T": T[side], "side": side}
        yield row | {"what": "network-steps/s", "band": Band.of(values)}
        if side != first and first in rates:
            ratios = [a / b for a, b in zip(rates[first], values, strict=True)]
            yield row | {"what": "ratio of the first to it", "band": Band.of(ratios)}


def ranks(N, rounds):
    """A row of Jacobian ranks a second, J 60x60 in float64 of 2-20-1 networks."""
    system = systems()["ReLU 2-20-1"]
    points = np.random.default_rng(0).standard_normal((60, 2))
    metric = fs.metrics.JacobianRank(1e-4, points=points)
    run = run_of(system, N, 1, metrics=[metric], save=fs.SaveAt(steps=[1]), init=start_of(system, N))
    rate = [N / max(fs.train(run).provenance["seconds"]["metrics"], 1e-4) for _ in range(rounds + 1)]
    return {"case": "ReLU 2-20-1, J 60x60", "N": N, "T": 1, "side": "fastsgd", "what": "ranks/s",
            "band": Band.of(rate[1:])}  # the first compiles


def carried(name, system, N, target, rounds):
    """Yield rows of the general loop, SGD with momentum 0.9: as planned, a thread a network, a block of 32 threads."""
    start, momentum, tunings = start_of(system, N), fs.rules.SGD(momentum=0.9), (None, 1, 32)
    for team in tunings:
        same_bits(run_of(system, CHECKED, CHECKED).replace(rule=momentum), fs.Tuning(team=team))

    def seconds(tuning, T):
        run = run_of(system, N, T, init=start).replace(rule=momentum)
        return fs.train(run, tuning=tuning).provenance["seconds"]["training"]

    for team in tunings:
        timed = partial(seconds, fs.Tuning(team=team))
        T = fitted(timed, 10**6, target)
        side = f"fastsgd, {'as planned' if team is None else f'{team} thread(s) a network'}"
        yield {"case": f"{name}, momentum", "N": N, "T": T, "side": side, "what": "network-steps/s",
               "band": Band.of([N * T / max(timed(T), 1e-4) for _ in range(rounds)])}


def large(N, T):
    """Yield rows of one run of diagonal networks: seconds of the whole call, with starting weights, and of training."""
    system = systems()["diagonal d=30"]
    check(system, N)
    began = time.perf_counter()
    result = fs.train(run_of(system, N, T))
    whole = time.perf_counter() - began
    for side, seconds in (("one run", whole), ("one run, training", result.provenance["seconds"]["training"])):
        yield {"case": "diagonal d=30", "N": N, "T": T, "side": f"fastsgd, {side}", "what": "seconds",
               "band": Band.of([seconds])}


def versions():
    """What the rows were measured with."""
    def of(name):
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            return f"no {name}"

    return ", ".join([f"fastsgd {fs.__version__}", *map(of, ("numpy", "torch", "jax")),
                      f"python {platform.python_version()}"])


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--networks", nargs="+", type=int, default=[10**5, 10**6, 10**3])
    parser.add_argument("--target", type=float, default=1.0, help="seconds of one call")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--large", type=int, nargs=2, default=[10**6, 10**5], help="N and T of the large run")
    parser.add_argument("--rows", type=Path, default=PATH)
    options = parser.parse_args(arguments)
    shared = {"card": ", ".join(one.name for one in cards.cards(None)), "commit": rows.conditions()["commit"],
              "versions": versions(), "when": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime())}

    def keep(row):
        band = row.pop("band")
        row |= shared | {"median": band.median, "low": band.low, "high": band.high}
        options.rows.parent.mkdir(parents=True, exist_ok=True)
        new = not options.rows.exists()
        with options.rows.open("a", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(f"{row['case']}, N={row['N']}, T={row['T']}: {row['side']}: {row['median']:.4g} "
              f"({row['low']:.4g} .. {row['high']:.4g}) {row['what']}", flush=True)

    tell = partial(print, flush=True)
    parts = {"the large run": lambda: large(*options.large),
             "ranks": lambda: [ranks(max(options.networks), options.rounds)]}
    parts |= {f"{name} N={N}": partial(throughput, name, system, N, options.target, options.rounds, tell)
              for N in options.networks for name, system in systems().items()}
    parts |= {f"{name}, momentum": partial(carried, name, system, options.networks[0], options.target, options.rounds)
              for name, system in systems().items()}
    missing = []
    for what, rows_of in parts.items():
        try:
            for row in rows_of():
                keep(row)
        except Exception as error:  # what comes after it is measured all the same
            missing.append(what)
            tell(f"{what} is a gap, {type(error).__name__}: {error}")
    if missing:
        sys.exit(f"not measured: {', '.join(missing)}")


if __name__ == "__main__":
    main()
