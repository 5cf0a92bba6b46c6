"""Owns what is measured on a card: throughput of the CUDA backend beside opponents, ranks, and one large run.

`python -m bench.gpu` needs a card and appends to bench/data/gpu.csv, each row with the card's name. An answer is
checked before anything is timed: the weights of the first networks must have the bits of the CPU backend. Rounds
alternate between the sides; a row holds the median and the least and largest round.
"""

import argparse
import csv
import platform
import time
from pathlib import Path

import numpy as np

import fastsgd as fs
from fastsgd import backends
from fastsgd.cuda import card as cards

from . import rows
from .harness import Band, WrongAnswer

PATH = Path(__file__).with_name("data") / "gpu.csv"
CHECKED = 64  # networks and steps whose bits are compared before anything is timed
FIELDS = ("card", "versions", "commit", "when", "case", "N", "T", "side", "what", "median", "low", "high")


def systems():
    """{name: (model, data in float32, step size)} that are swept most."""
    narrow = fs.models.ReLU2(2, 20, hidden_bias=False, output_bias=False)
    return {"diagonal d=30": (fs.models.DiagonalLinear(30), fs.data.sparse_regression(
                n=20, d=30, nonzero=3, seed=0).astype("float32"), 0.02),
            "ReLU 2-20-1": (narrow, fs.data.teacher_student(n=15, d=2, teacher_width=3, seed=0).astype("float32"), 0.1)}


def run_of(system, N, T, **fields):
    model, data, step_size = system
    return fs.Run(model, data, fs.rules.SGD(), step_size, T, networks=N, seed=0, **({"backend": "cuda"} | fields))


def check(system):
    """Raise WrongAnswer unless the card has the bits of the CPU."""
    ours, theirs = (fs.train(run_of(system, CHECKED, CHECKED, backend=name)) for name in ("cuda", "cpu"))
    if ours.weights.tobytes() != theirs.weights.tobytes():
        differ = int((ours.weights != theirs.weights).any(axis=1).sum())
        raise WrongAnswer(f"{differ} of {CHECKED} networks differ from the CPU's bits")


def fused(system, N, T):
    """Seconds of a whole call of fs.train."""
    began = time.perf_counter()
    fs.train(run_of(system, N, T))
    return time.perf_counter() - began


def one_step_a_launch(system, N, T):
    """Seconds of T launches of one step each, queued without waiting: the control of the same arithmetic."""
    plan, backend = fs.plan(run_of(system, N, T)), backends.by_name("cuda")
    state = backend.load(plan, plan.start, np.full(N, -1), plan.fresh_buffers())
    wave, program = state.waves[0], state.chosen.program
    job, kept = backend.job(state, wave, plan.segment(0, T))
    table = job.multiplier
    wave.card.finish()
    began = time.perf_counter()
    for t in range(T):
        job.t0, job.t1, job.multiplier = t, t + 1, table + t * kept["multiplier"].dtype.itemsize
        wave.card.launch(program, N * state.chosen.lanes, state.chosen.shared, job)
    wave.card.finish()
    return time.perf_counter() - began


def jax_scan(system, N, T):
    """Seconds of jit(vmap(scan)) of a step differentiated by jax.grad, compiled before, given the same draws."""
    import jax

    jnp = jax.numpy
    model, data, step_size = system
    X, y = jnp.asarray(data.X), jnp.asarray(data.y)
    start = {name: jnp.asarray(a) for name, a in model.unflatten(model.start(0, np.arange(N)).astype("f4")).items()}
    order = jnp.asarray(fs.orders.PerNetwork().indices(0, np.arange(N), 0, T, data.n, 1)[..., 0].astype(np.int32))

    def loss(w, i):
        out = (w["u"] * w["v"]) @ X[i] if "u" in w else (w["W2"] @ jax.nn.relu(w["W1"] @ X[i]))[0]
        return 0.5 * (out - y[i]) ** 2

    def step(w, i):
        return jax.tree.map(lambda a, g: a - step_size * g, w, jax.grad(loss)(w, i)), None

    many = jax.jit(jax.vmap(lambda w, order: jax.lax.scan(step, w, order)[0]))
    jax.block_until_ready(many(start, order))
    began = time.perf_counter()
    jax.block_until_ready(many(start, order))
    return time.perf_counter() - began


SIDES = {"fastsgd, one launch": (fused, None), "fastsgd, a launch a step": (one_step_a_launch, 2000),
         "JAX jit(vmap(scan))": (jax_scan, 200)}  # side: (seconds of N networks and T steps, most steps)


def throughput(name, system, N, target, rounds, tell):
    """Yield rows of network-steps a second of every side, and of the ratios to the first."""
    check(system)
    T, ready = {}, {}
    for side, (seconds, most) in SIDES.items():
        try:
            probe = min(most or 1000, 1000)
            spent = min(seconds(system, N, probe) for _ in range(2))
            T[side], ready[side] = min(most or 10**7, max(64, int(probe * target / spent))), seconds
        except Exception as error:
            tell(f"{name} N={N}: {side} is a gap, {type(error).__name__}: {error}")
    rates = {side: [] for side in ready}
    for number in range(rounds):
        for side in list(ready) if number % 2 == 0 else reversed(list(ready)):
            rates[side].append(N * T[side] / ready[side](system, N, T[side]))
    first = next(iter(rates))
    for side, values in rates.items():
        yield {"case": name, "N": N, "T": T[side], "side": side, "what": "network-steps/s", "band": Band.of(values)}
        if side != first:
            ratios = [a / b for a, b in zip(rates[first], values, strict=True)]
            yield {"case": name, "N": N, "T": T[side], "side": side, "what": "ratio of the first to it",
                   "band": Band.of(ratios)}


def ranks(N, rounds):
    """A row of Jacobian ranks a second, J 60x60 in float64 of 2-20-1 networks."""
    model, data, step_size = systems()["ReLU 2-20-1"]
    points = np.random.default_rng(0).standard_normal((60, 2))
    metric = fs.metrics.JacobianRank(1e-4, points=points)
    run = fs.Run(model, data, fs.rules.SGD(), step_size, 1, networks=N, metrics=[metric], backend="cuda")
    rate = [N / fs.train(run).provenance["seconds"]["metrics"] / 2 for _ in range(rounds)]
    return {"case": "ReLU 2-20-1, J 60x60", "N": N, "T": 1, "side": "fastsgd", "what": "ranks/s", "band": Band.of(rate)}


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--networks", nargs="+", type=int, default=[10**3, 10**5, 10**6])
    parser.add_argument("--target", type=float, default=1.0, help="seconds of one call")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--large", type=int, nargs=2, default=[10**6, 10**5], help="N and T of the large run")
    parser.add_argument("--rows", type=Path, default=PATH)
    options = parser.parse_args(arguments)
    shared = {"card": ", ".join(one.name for one in cards.cards(None)), "commit": rows.conditions()["commit"],
              "versions": f"fastsgd {fs.__version__}, numpy {np.__version__}, python {platform.python_version()}",
              "when": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime())}

    def keep(row):
        band = row.pop("band")
        row |= shared | {"median": band.median, "low": band.low, "high": band.high}
        new = not options.rows.exists()
        with options.rows.open("a", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(f"{row['case']}, N={row['N']}, T={row['T']}: {row['side']}: {row['median']:.4g} "
              f"({row['low']:.4g} .. {row['high']:.4g}) {row['what']}", flush=True)

    for name, system in systems().items():
        for N in options.networks:
            for row in throughput(name, system, N, options.target, options.rounds, print):
                keep(row)
    keep(ranks(options.networks[-1], options.rounds))
    N, T = options.large
    seconds = fused(systems()["diagonal d=30"], N, T)
    keep({"case": "diagonal d=30", "N": N, "T": T, "side": "fastsgd, one run", "what": "seconds",
          "band": Band.of([seconds])})


if __name__ == "__main__":
    main()
