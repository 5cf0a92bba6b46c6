"""What is done with a card while one is at hand: bits, speed, profiles, sanitizers, each part a module and a process.

`python -m bench.card` runs them in time boxes; `python -m bench.card.kit FOLDER` prepares at home what they need, so
that no card waits for a compiler. With REHEARSAL=FOLDER in the environment a card made of fibers, compiled into that
folder, has an H100's numbers; sizes are small then, and speeds mean nothing.
"""

import os
from functools import cache

import numpy as np

import fastsgd as fs
from fastsgd.cuda import card as cards

REHEARSAL = os.environ.get("REHEARSAL")
BATCHED, NOISY = fs.rules.SGD(momentum=0.9, batch_size=2), fs.rules.SGD(label_noise=0.1)  # the latter: general loop
CHECKED = 64  # networks and steps that are compared before anything is timed


@cache
def begin():
    """Put the card of fibers in place where this is a rehearsal."""
    if REHEARSAL:
        import fibers

        class Hopper(fibers.FiberCard):
            name, arch, processors, index = "a rehearsal with fibers", "sm_90", 132, 0

        one = Hopper(REHEARSAL, memory=78 << 30)
        cards.cards, cards.why_none = (lambda device: [one]), (lambda: None)


def sized(real, rehearsed):
    """What a card is given, or what a rehearsal is."""
    return rehearsed if REHEARSAL else real


def systems():
    """{name: (model, data in float32, step size)} that are swept most."""
    narrow = fs.models.ReLU2(2, 20, hidden_bias=False, output_bias=False)
    return {"diagonal d=30": (fs.models.DiagonalLinear(30), fs.data.sparse_regression(
                n=20, d=30, nonzero=3, seed=0).astype("float32"), 0.02),
            "ReLU 2-20-1": (narrow, fs.data.teacher_student(n=15, d=2, teacher_width=3, seed=0).astype("float32"), 0.1)}


def random_system(model, n, dtype="float32", step_size=1e-3):
    """(model, data, step size) with Gaussian inputs and labels."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((n, model.d)) / model.d**0.5, rng.standard_normal(n)
    return model, fs.Dataset(X, y).astype(dtype), step_size


def traced():
    """A network of a user's own, from another benchmark: W2 sin(W1 x + b1)."""
    from bench import own

    return own.CASES["own-sine"].model


def start_of(system, N):
    """Starting weights {name: [N, ...]}, which take longer to draw than a run does."""
    model, data, _ = system
    return model.unflatten(model.start(0, np.arange(N)).astype(data.X.dtype))


def run_of(system, N, T, **fields):
    """Plain SGD of N networks for T steps on the card."""
    model, data, step_size = system
    given = {"model": model, "data": data, "step_size": step_size, "steps": T, "networks": N, "rule": fs.rules.SGD(),
             "dtype": data.X.dtype.name, "backend": "cuda", "seed": 0}
    return fs.Run(**(given | fields))


def with_momentum(run):
    """With momentum 0.9, at a tenth of the step size: its steps are ten times as long in the long run."""
    return run.replace(rule=fs.rules.SGD(momentum=0.9), step_size=run.step_size.base / 10)
