"""A signal is answered in the middle of a kernel: the call ends with the handler's exception, and nothing is broken."""

import signal
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

import fastsgd as fs
from fastsgd import backends
from fastsgd.native import native

SOON, LATE = 0.1, 60.0  # seconds: when the signal comes; every call below takes minutes if nobody hears it
ONE_LAUNCH = 10**7


class Rung(Exception):
    pass


@contextmanager
def alarm(seconds=SOON, error=Rung):
    """The handler of SIGALRM raises `error` after so many seconds."""
    def ring(number, frame):
        raise error

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def dataset(n, d, dtype):
    rng = np.random.default_rng(0)
    return fs.Dataset(rng.standard_normal((n, d)).astype(dtype), rng.standard_normal(n).astype(dtype))


def run(model, rule, dtype="float32", n=40, steps=10**6, **fields):
    data = dataset(n, model.d, dtype)
    return fs.Run(model, data, rule, 1e-6, steps, networks=64, dtype=dtype, backend="cpu", **fields)


R, M = fs.rules, fs.models
RUNS = {  # each takes minutes in one launch
    "fused": lambda: run(M.DiagonalLinear(300), R.SGD()),
    "wide": lambda: run(M.DiagonalLinear(50_000), R.SGD(), n=10),
    "full batch": lambda: run(M.ReLU2(10, 200), R.GD(), n=200_000, steps=100),
    "minibatch": lambda: run(M.ReLU2(10, 50), R.SGD(batch_size=32)),
    "general": lambda: run(M.MLP(10, (20, 20)), R.SGD(momentum=0.5)),
    "general, full batch": lambda: run(M.MLP(10, (20, 20)), R.SAM(rho=0.1, batch_size=None), n=100_000, steps=100),
    "fresh": lambda: run(M.MLP(10, (20, 20)), R.SGD(batch_size=16)).replace(data=fs.data.Fresh(
        10, M.MLP(10, 2), {name: np.ones(shape, "float32") for name, shape in M.MLP(10, 2).shapes().items()})),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", RUNS)
def test_training_is_left_in_the_middle_of_a_launch(name, threads):
    plan = fs.plan(RUNS[name](), fs.Tuning(threads=threads, segment=ONE_LAUNCH))
    began = time.monotonic()
    with pytest.raises(Rung), alarm():
        fs.train(plan)
    assert time.monotonic() - began < LATE


def square(n):
    return np.random.default_rng(0).standard_normal((n, n))


CALLS = {
    "rank": lambda: fs.linalg.rank(np.broadcast_to(square(1000), (20, 1000, 1000)), 1e-4, threads=2),
    "one rank": lambda: fs.linalg.rank(square(4000), 1e-4),
    "singular values": lambda: fs.linalg.singular_values(square(1500)),
    "feature sparsity": lambda: native().feature_sparsity(np.tile(np.abs(square(1000)), (1, 1, 8)), 0.99, False, 1e-15,
                                                          1),
    "points of a rank": lambda: native().DiagonalPoints(1 + np.eye(3000), 3000),
    "normal draws": lambda: native().normals(1, np.arange(200_000, dtype=np.uint32), 0, 1000, 2, threads=2),
    "orders": lambda: native().permuted_order(1, np.arange(2000, dtype=np.uint32), 0, 1000, 10**6, 100, False, 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_metrics_are_left_in_the_middle(name):
    began = time.monotonic()
    with pytest.raises(Rung), alarm(0.4):
        while True:  # what is done before the signal comes is done again
            CALLS[name]()
    assert time.monotonic() - began < LATE


def test_a_handler_that_returns_changes_nothing():
    rung, small = [], run(M.MLP(5, (4, 4)), R.SGD(momentum=0.5), "float64", steps=20_000)
    want = fs.train(small).weights.tobytes()
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(fs.linalg.rank(np.eye(3), 0.1)))  # calls us again
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        for _ in range(20):
            assert fs.train(small, tuning=fs.Tuning(segment=ONE_LAUNCH)).weights.tobytes() == want
            if len(rung) > 1:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung and set(map(int, rung)) == {3}


def test_another_thread_is_not_asked():
    """Handlers run on the main thread alone: a kernel that another thread waits for goes on to its end."""
    small, seen = run(M.MLP(5, (4, 4)), R.SGD(momentum=0.5), "float64", steps=20_000), []
    worker = threading.Thread(target=lambda: seen.append(fs.train(small).weights.tobytes()))
    worker.start()
    with pytest.raises(Rung), alarm(0.02):
        while True:
            time.sleep(0.01)  # not in join: CPython takes a thread for ended whose join was interrupted
    worker.join()
    assert seen == [fs.train(small).weights.tobytes()]


def test_what_was_interrupted_in_its_first_launch_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    cpu, path = type(backends.by_name("cpu")), tmp_path / "run.ckpt"
    request = run(M.ReLU2(10, 50), R.SGD(batch_size=8), steps=3000, metrics=[fs.metrics.TrainLoss()],
                  save=fs.SaveAt(linear=2))
    want, advance = fs.train(request), cpu.advance

    def interrupted(self, state, segment):
        with alarm(0.01, KeyboardInterrupt):
            while True:  # on weights that are long half moved
                advance(self, state, segment)

    monkeypatch.setattr(cpu, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fs.train(request, checkpoint=fs.Checkpoint(path, every=3600))
    monkeypatch.undo()
    result = fs.resume(path)
    assert result.weights.tobytes() == want.weights.tobytes()
    assert result.records["train_loss"].tobytes() == want.records["train_loss"].tobytes()
