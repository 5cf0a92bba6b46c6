"""Owns the runs of the toys, in a copy of the repository that has them: each backend against the float64 truth."""

import sys
from pathlib import Path

import interpreter
import numpy as np
from cases import problem
from fibers import FiberCard, in_place
from tolerances import METRIC, WEIGHTS

import fastsgd as fs

M, R, L, F = fs.models, fs.rules, fs.losses, fs.metrics
PLAIN = {"model": M.DiagonalProduct(5, 2, start_at=0.4), "rule": R.SGD(), "loss": L.Squared()}
RUNS = {"family": {"model": M.Cubic(5)}, "rule": {"rule": R.SoftSign(batch_size=3)}, "loss": {"loss": L.LogCosh(0.7)},
        "noise": {"rule": R.SGD(label_noise=fs.LabelNoise(0.3, "uniform"),
                                gradient_noise=fs.GradientNoise(0.2, "uniform"))},
        "metric": {"metrics": (F.Largest(),)}, "schedule": {"step_size": fs.Harmonic(0.2)},
        "all": {"model": M.Cubic(5), "loss": L.LogCosh(), "step_size": fs.Harmonic(0.2), "metrics": (F.Largest(),),
                "rule": R.SoftSign(batch_size=2, weight_decay=0.1, label_noise=fs.LabelNoise(0.1, "uniform"))}}


def run_of(kind, dtype="float64", **fields):
    given = {"step_size": 0.05, "steps": 12, "networks": 7, "dtype": dtype, "seed": 3, "save": fs.SaveAt(4),
             "metrics": (F.TrainLoss(),)} | PLAIN | RUNS[kind] | fields
    return fs.Run(data=problem(5).astype(dtype), **given)


def main(folder):
    with in_place(FiberCard(Path(folder))), interpreter.once():
        for kind in RUNS:
            want = fs.train(run_of(kind, backend="reference"))
            moved = np.abs(want.weights - fs.plan(run_of(kind, backend="reference")).start).max()
            assert moved > 1e-3 and want.survived.all(), kind
            for backend in ("cuda", "triton") if kind in ("noise", "all") else ("cuda",):
                for dtype in ("float64", "float32") if kind == "all" else ("float64",):
                    run = run_of(kind, dtype, backend=backend)
                    if any(metric.name == "largest" for metric in run.metrics) and backend == "cuda":
                        assert "largest on the card" in fs.plan(run).explain()
                    got = fs.train(run)
                    error = np.abs(got.weights - want.weights).max() / np.abs(want.weights).max()
                    assert got.survived.all() and error < WEIGHTS[dtype], (kind, backend, dtype, error)
                    for name in want.records:
                        np.testing.assert_allclose(got.numpy(name), want.numpy(name), rtol=max(
                            METRIC, 50 * WEIGHTS[dtype]), err_msg=f"{kind} {backend}")
        whole = fs.train(run_of("all", backend="cuda"))
        cut = fs.train(run_of("all", backend="cuda"), tuning=fs.Tuning(segment=5))
        part = fs.train(run_of("all", backend="cuda", ids=[5, 2], networks=None))
    assert cut.weights.tobytes() == whole.weights.tobytes()
    assert part.weights.tobytes() == whole.weights[[5, 2]].tobytes()
    path = Path(folder) / "toys.npz"
    whole.save(path)
    np.testing.assert_array_equal(fs.Result.load(path).weights, whole.weights)


if __name__ == "__main__":
    main(sys.argv[1])
    print("right")
