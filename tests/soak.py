"""Owns the soak: runs made at random, each done in many ways that must not change a bit, until time or count is up.

`make soak SOAK_SECONDS=600 SOAK_SEED=7`, or `python tests/soak.py --help`. A failure is printed with the command that
repeats it alone.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from cases import USABLE
from random_runs import described, random_run

import fastsgd as fs
from fastsgd.lowering.work import Work
from fastsgd.native import native

NEAR = 1e-9  # of the reference in float64
GROWTH = 1e3  # times what the run itself makes of a start moved by one part in 1e13: more is not rounding


def everything(result):
    """Everything a result computed, as bytes: equal if and only if every bit is."""
    kept = b"" if result.saved_weights is None else np.asarray(result.saved_weights).tobytes()
    return (np.asarray(result.weights).tobytes(), result.lost.tobytes(), kept,
            {name: a.tobytes() for name, a in sorted(result.records.items())})


def layouts(run, isa):
    """Legal (lanes, team) of a run."""
    module = native(isa)
    lanes, team = module.lanes[run.dtype], module.team[run.dtype]
    return [(1, 1), (lanes, 1), (1, team)] if Work(run).fused else [(1, 1), (lanes, 1)]


def member(result, k):
    """What network k of a result computed."""
    kept = b"" if result.saved_weights is None else np.asarray(result.saved_weights[k]).tobytes()
    return (result.weights[k].tobytes(), int(result.lost[k]), kept,
            {name: a[k].tobytes() for name, a in sorted(result.records.items())})


def resumed(run, rng, folder):
    """The result of a run that is interrupted after a few launches and goes on from its checkpoint."""
    path, left = Path(folder) / f"{rng.integers(2**40)}.ckpt", int(rng.integers(1, 5))
    segment = int(rng.integers(1, max(2, run.steps // 2)))

    def stop(t, T, lost):
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    try:
        return fs.train(run, checkpoint=fs.Checkpoint(path, every=0), progress=stop, tuning=fs.Tuning(segment=segment))
    except KeyboardInterrupt:
        return fs.resume(path, tuning=fs.Tuning(segment=int(rng.integers(1, run.steps + 1)), threads=1))
    finally:
        for left in path.parent.glob(f"{path.name}*"):
            left.unlink()


def ways(run, rng, folder):
    """Yield (name, result) of one run done in other ways: threads, segments, layouts, instruction sets, a restart."""
    yield "one thread", fs.train(run, tuning=fs.Tuning(threads=1))
    yield "three threads", fs.train(run, tuning=fs.Tuning(threads=3, segment=int(rng.integers(1, run.steps + 1))))
    for isa in USABLE:
        for lanes, team in layouts(run, isa):
            segment = int(rng.integers(1, run.steps + 1)) if rng.random() < 0.5 else None
            yield (f"{isa}, lanes {lanes}, team {team}, segment {segment}",
                   fs.train(run, tuning=fs.Tuning(isa=isa, lanes=lanes, team=team, segment=segment, threads=2)))
    yield "interrupted and resumed", resumed(run, rng, folder)


def distance(a, b):
    """The largest difference of weights, relative to the largest weight; inf where one is finite and the other not."""
    size = max(1.0, np.abs(b).max(initial=0))
    return float(np.where(np.isfinite(a) & np.isfinite(b), np.abs(a - b), np.where(np.isfinite(a) == np.isfinite(b), 0,
                                                                                  np.inf)).max(initial=0) / size)


def far_from_reference(run, result):
    """None, or how far the weights are from the reference's, where the run does not itself amplify rounding so much."""
    want = fs.train(run.replace(backend="reference"))
    off = distance(result.weights, want.weights)
    if off <= NEAR and np.array_equal(result.lost, want.lost):
        return None
    start = fs.plan(run).start
    moved = run.replace(init=run.model.unflatten(start * (1 + 1e-13)))
    own = distance(fs.train(moved).weights, result.weights)
    return None if off <= GROWTH * own else f"{off:.1e} (a start moved by 1e-13 moves it by {own:.1e})"


def check(run, rng, folder, reference=True):
    """Sentences on what is wrong with a run; [] if nothing is."""
    result = fs.train(run)
    want, wrong = everything(result), []
    wrong += [f"other bits: {name}" for name, other in ways(run, rng, folder) if everything(other) != want]
    who = np.sort(rng.choice(run.networks, int(rng.integers(1, run.networks + 1)), replace=False))
    part = fs.train(run.replace(ids=who))
    wrong += [f"other bits: member {k} of ids={who.tolist()}" for i, k in enumerate(who)
              if member(part, i) != member(result, k)]
    if reference and run.dtype == "float64":
        off = far_from_reference(run, result)
        wrong += [f"far from the reference: {off}"] if off else []
    return wrong


def soak(seed, first=0, count=None, seconds=None, reference=True, say=print):
    """[(number, sentences)] of what failed among runs first, first + 1, ...; run i depends on (seed, i) alone."""
    began, failed, i = time.monotonic(), [], first
    with tempfile.TemporaryDirectory() as folder:
        while (count is None or i < first + count) and (seconds is None or time.monotonic() - began < seconds):
            rng = np.random.default_rng((seed, i))
            run = random_run(rng)
            wrong = check(run, rng, folder, reference)
            if wrong:
                failed.append((i, wrong))
                say(f"FAILED: python tests/soak.py --seed {seed} --first {i} --count 1\n  {described(run)}")
                for sentence in wrong:
                    say(f"  {sentence}")
            i += 1
            if i % 100 == 0:
                say(f"{i - first} runs, {len(failed)} failed, {time.monotonic() - began:.0f} s")
    say(f"seed {seed}: {i - first} runs, {len(failed)} failed, {time.monotonic() - began:.0f} s")
    return failed


def long_run(rng, seconds):
    """A random run with so many steps that it takes about so many seconds, in short launches."""
    run = random_run(rng)
    while isinstance(run.order, fs.orders.Replay) or isinstance(run.step_size, fs.StepTable):
        run = random_run(rng)
    began = time.perf_counter()
    fs.train(run, tuning=fs.Tuning(threads=1, segment=50))
    T = int(max(200, run.steps * seconds / (time.perf_counter() - began)))
    return run.replace(steps=T, save=fs.SaveAt(linear=4, params=run.save.params, of=run.save.of))


def child(run, path, out):
    """In a forked child: train, or go on where a killed child left off; the bits go to a file."""
    tuning = fs.Tuning(threads=2, segment=max(1, run.steps // 40))
    if path.exists():
        result = fs.resume(path, tuning=tuning)
    else:
        result = fs.train(run, checkpoint=fs.Checkpoint(path, every=0), tuning=tuning)
    out.write_text(repr(everything(result)))


def forked(function):
    """The process id of a child that calls a function and ends: status 0 if it returns."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        function()
        status = 0
    except BaseException as error:  # a child must not go on with its parent's work
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def kills(seed, kinds=20, each=5, seconds=0.4, say=print):
    """Kill runs of so many kinds, so many times each, without warning; [sentences] where bits or runs were lost."""
    wrong, done = [], 0
    for kind in range(kinds):
        rng, dice = np.random.default_rng((seed, kind, 1)), random.Random(f"{seed}.{kind}")
        run = long_run(rng, seconds)
        want = repr(everything(fs.train(run, tuning=fs.Tuning(threads=1))))
        with tempfile.TemporaryDirectory() as folder:
            path, out = Path(folder) / "run.ckpt", Path(folder) / "bits"
            for _ in range(each):
                pid = forked(lambda r=run, p=path, o=out: child(r, p, o))
                time.sleep(dice.uniform(0.02, seconds / 2))
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                done += 1
            if not out.exists():
                _, status = os.waitpid(forked(lambda r=run, p=path, o=out: child(r, p, o)), 0)
                if status:
                    wrong.append(f"kind {kind}: cannot go on ({described(run)})")
                    continue
            if out.read_text() != want:
                wrong.append(f"kind {kind}: other bits ({described(run)})")
            litter = sorted(set(os.listdir(folder)) - {"run.ckpt", "run.ckpt.previous", "bits"})
            wrong += [f"kind {kind}: left {litter}"] if litter else []
            say(f"kind {kind}: {each} kills, {described(run)}")
    say(f"seed {seed}: {done} kills over {kinds} kinds of run, {len(wrong)} wrong" + "".join(f"\n  {w}" for w in wrong))
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="by default the time")
    parser.add_argument("--seconds", type=float, help="until when new runs begin")
    parser.add_argument("--count", type=int, help="how many runs; by default 1000 where no seconds are given")
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--kills", type=int, default=0, help="kill so many runs, over 20 kinds, after that")
    parser.add_argument("--alone", action="store_true", help="without the reference, which brings torch")
    options = parser.parse_args()
    seed = int(time.time()) if options.seed is None else options.seed
    count = 1000 if options.count is None and options.seconds is None else options.count
    print(f"seed {seed}, instruction sets {', '.join(USABLE)}", flush=True)
    say = partial(print, flush=True)
    failed = soak(seed, options.first, count, options.seconds, not options.alone, say)
    wrong = kills(seed, each=-(-options.kills // 20), say=say) if options.kills else []
    return 1 if failed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
