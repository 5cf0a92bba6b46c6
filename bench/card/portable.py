"""Owns the Triton backend on a card: `agree K OF`, a share of the cases against the CPU; `speed`, beside CUDA."""

import sys
from functools import partial

import numpy as np

import fastsgd as fs

from . import begin, random_system, run_of, sized
from .bits import told
from .rows import attempt, keep
from .speed import STEPS

M, R = fs.models, fs.rules
CASES = {  # {case: (model, rule)} that are compared with the CPU
    "diagonal d=30": (M.DiagonalLinear(30), R.SGD()), "ReLU 2-20-1": (M.ReLU2(2, 20), R.SGD()),
    "MLP 5-10-10-1": (M.MLP(5, (10, 10)), R.SGD()), "diagonal d=30, GD": (M.DiagonalLinear(30), R.GD()),
    "ReLU 2-20-1, momentum": (M.ReLU2(2, 20), R.SGD(momentum=0.9)),
    "MLP 5-10-10-1, Adam": (M.MLP(5, (10, 10)), R.Adam()),
    "ReLU 2-20-1, noise": (M.ReLU2(2, 20), R.SGD(batch_size=2, label_noise=0.2)),
    "ReLU 2-20-1, SAM": (M.ReLU2(2, 20), R.SAM(rho=0.05)), "MLP 10-128-128-1": (M.MLP(10, (128, 128)), R.SGD())}
SYSTEMS = {  # {system: (model, n, rule, step size)}, then wide networks
    "S1 diagonal d=200": (M.DiagonalLinear(200), 80, R.SGD(), 0.01),
    "S2 diagonal d=100, GD": (M.DiagonalLinear(100), 40, R.GD(), 0.01),
    "S3 diagonal d=30": (M.DiagonalLinear(30), 20, R.SGD(), 0.01),
    "S4 ReLU 1-100-1": (M.ReLU2(1, 100, output_bias=False), 12, R.SGD(), 1e-4),
    "S7 ReLU 2-20-1": (M.ReLU2(2, 20, hidden_bias=False, output_bias=False), 15, R.SGD(), 0.01),
    "S9 ReLU 5-10-10-1": (M.MLP(5, (10, 10)), 50, R.SGD(), 0.01),
    "wide ReLU 10-512-1": (M.ReLU2(10, 512), 100, R.SGD(), 1e-3),
    "wide ReLU 10-128-128-1": (M.MLP(10, (128, 128)), 100, R.SGD(), 1e-3),
}


def request(system, backend, networks, steps, dtype):
    """The Run of a system."""
    model, n, rule, eta = SYSTEMS[system]
    return run_of(random_system(model, n, dtype, eta), networks, steps, rule=rule, backend=backend)


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


def rate(system, backend, networks, steps, dtype, target):
    """Network-steps a second of training, when everything is compiled, of as many steps as `target` seconds take."""
    def trained(T):
        return fs.train(request(system, backend, networks, T, dtype)).provenance

    T = fitted(lambda T: trained(T)["seconds"]["training"], steps, target)
    provenance = trained(T)
    return provenance["network_steps"] / max(provenance["seconds"]["training"], 1e-4)


def agree(share, shares):
    """Comparisons of a share of the cases in both dtypes."""
    for name in list(CASES)[int(share)::int(shares)]:
        for dtype, legal in (("float32", 1e-3), ("float64", 1e-10)):
            yield f"{name} {dtype}", partial(near, *CASES[name], dtype, legal)


def near(model, rule, dtype, legal):
    """Raise AssertionError where displacements after 60 steps, or the loss, are further from the CPU's than is legal.

    Of the worst network in float64; of the median one in float32, where rounding decides at a kink of ReLU now and
    then, and Adam's first steps are signs.
    """
    run = run_of(random_system(model, 40, dtype, 1e-2), sized(1000, 8), sized(60, 8), rule=rule, backend="triton",
                 metrics=[fs.metrics.TrainLoss()])
    try:
        ours = fs.train(run)
    except fs.BackendUnavailable as reason:
        return f"no kernel: {reason}"
    theirs, start = fs.train(run.replace(backend="cpu")), fs.plan(run.replace(backend="cpu")).start
    moved = np.linalg.norm(theirs.weights - start, axis=1)
    off = np.linalg.norm(ours.weights - theirs.weights, axis=1) / moved
    ratio = np.abs(ours.numpy("train_loss") / theirs.numpy("train_loss") - 1)
    error, loss = (np.quantile(a, 1 if dtype == "float64" else 0.5) for a in (off, ratio))
    assert error < legal and loss < legal, f"error {error:.1e}, of the loss {loss:.1e}, legal {legal:.0e}"
    return f"error {error:.1e}"


def speed():
    """Rows of both backends, for the systems of the paper in float32."""
    for system in SYSTEMS:
        for backend in ("triton", "cuda"):
            attempt(one, system, backend)


def one(system, backend):
    N = sized(100_000, 4)
    value = rate(system, backend, N, sized(2000, 5), "float32", 0.3)
    keep(system, f"backend {backend}, training of a whole call", STEPS, [value], N)


if __name__ == "__main__":
    begin()
    if sys.argv[1] == "agree":
        sys.exit(told("agree", agree(*sys.argv[2:])))
    speed()
