"""Replay of the authors' sample orders in float64 gives the digits they printed, where the run is not chaotic."""

import numpy as np
import pytest
from tolerances import PAPER, PAPER_FLOAT32

import fastsgd as fs
from fastsgd.reproduce.study import request

LOSSES = {"train": "train_loss", "test": "test_loss"}
UNITS = {"nuclear_features": "nuclear_norm", "active": "activation_density", "pattern_distance": "pattern_distance"}
S9 = {**LOSSES, "entropy": "spectrum_entropy", "sparsity1_end": "sparsity1", "sparsity2_end": "sparsity2",
      "rank_end": "rank"}
# system, run, metrics that must agree, tolerance, dtype; ReLU systems were computed in float32 by the authors. S9's
# 10 % run meets a rounding of float32 that changes the third digit, and is replayed in float32 as well
CASES = [
    ("S1", "0.25", {**LOSSES, "norm": "norm", "l0": "l0", "balance": "balance", "rank_end": "rank"}, PAPER, "float64"),
    ("S2", "GD 2.0", {"test": "test_loss", "l0": "l0", "norm": "norm"}, PAPER, "float64"),
    ("S3", "flow", LOSSES, PAPER, "float64"),
    ("S3", "GD 3.0", LOSSES, 2e-3, "float64"),  # a large step: an ulp at the start moves the loss by 1.3e-3 (measured)
    ("S3", "SGD 0.6", LOSSES, PAPER, "float64"),
    ("S3b", "GD 0.25", LOSSES, PAPER, "float64"),
    ("S4", "A", {"train": "train_loss", **UNITS}, PAPER_FLOAT32, "float64"),
    ("S5", "A", {"train": "train_loss", **UNITS}, 1e-3, "float64"),  # four digits are known
    ("S5", "B", {"train": "train_loss", **UNITS}, 1e-3, "float64"),  # rounding grows by 13 (measured)
    ("S7", "0.13", {**LOSSES, "norm": "norm", "rank_end": "rank", "sparsity_end": "feature_sparsity", "nuclear_neurons":
                    "nuclear_norm", "pattern_distance": "pattern_distance"}, PAPER_FLOAT32, "float64"),
    ("S9", "0.011", S9, PAPER_FLOAT32, "float64"),
    ("S9", "0.04, 10 %", S9, PAPER_FLOAT32, "float32"),
    ("S9", "0.04, 10 %", S9, 1e-2, "float64"),
    ("S9", "0.04, 30 %", S9, PAPER_FLOAT32, "float64"),
]


def half_a_unit(printed):
    """Half a unit of the last printed digit."""
    mantissa, _, exponent = repr(printed).partition("e")
    return 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


@pytest.mark.parametrize(("name", "label", "metrics", "tolerance", "dtype"), CASES,
                         ids=[f"{c[0]} {c[1]} {c[4]}" for c in CASES])
def test_printed_digits(name, label, metrics, tolerance, dtype):
    system = fs.data.paper(name)
    run = next(run for run in system.runs if label in run.label)
    asked = request(system, [run], fs.orders.Replay(system.order()), fs.SaveAt(steps=[0, system.printed_at]))
    wanted = [m for m in asked.metrics if m.name in metrics.values()]
    init = {key: a.astype(dtype) for key, a in asked.init.items()}
    result = fs.train(asked.replace(metrics=wanted, data=asked.data.astype(dtype), init=init, dtype=dtype))
    assert result.survived.all()
    for key, metric in metrics.items():
        printed = run.printed[key]
        np.testing.assert_allclose(result.numpy(metric)[0, -1], printed, rtol=tolerance, atol=half_a_unit(printed),
                                   err_msg=f"{name} {key}")


# what the authors report of the start: system, metric, key, tolerance of what was read off a plot
STARTS = [("S1", "rank", "rank_start", 0), ("S4", "feature_sparsity", "sparsity_start", 2e-3),
          ("S7", "rank", "rank_start", 0), ("S7", "feature_sparsity", "sparsity_start", 5e-4),
          ("S9", "rank", "rank_start", 0), ("S9", "train_loss", "train_start", 5e-3),
          ("S9", "test_loss", "test_start", 5e-3), ("S9", "sparsity1", "sparsity1_start", 5e-4),
          ("S9", "sparsity2", "sparsity2_start", 5e-4)]


@pytest.mark.parametrize(("name", "metric", "key", "tolerance"), STARTS, ids=[f"{c[0]} {c[1]}" for c in STARTS])
def test_the_start_is_the_authors(name, metric, key, tolerance):
    system = fs.data.paper(name)
    asked = request(system, [system.runs[-1]], None, fs.SaveAt(steps=[0]))
    result = fs.train(asked.replace(steps=1, metrics=[m for m in asked.metrics if m.name == metric]))
    assert abs(result.numpy(metric)[0, 0] - system.runs[-1].printed[key]) <= tolerance


@pytest.mark.parametrize("name", ["S1", "S3", "S7", "S9"])
def test_the_teacher_made_the_labels(name):
    system = fs.data.paper(name)
    if "beta" in system.teacher:
        made = system.data.X_test @ system.teacher["beta"]
    else:
        d, widths = system.data.d, [len(a) for key, a in system.teacher.items() if key[0] == "W"][:-1]
        made = fs.models.MLP(d, tuple(widths), bias="b1" in system.teacher).forward(system.teacher, system.data.X_test)
    np.testing.assert_allclose(made, system.data.y_test, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["S1", "S3", "S4", "S7", "S9"])
def test_schedules_are_the_authors(name):
    """The StepSize of a request gives, step by step, the step sizes that the authors' formula gives."""
    system = fs.data.paper(name)
    for run in system.runs:
        base, row, table = request(system, [run], None, fs.SaveAt(steps=[0])).step_size.compile(1, system.steps)
        np.testing.assert_allclose(base[0] * table(0, system.steps)[row[0]], run.step_sizes(system.steps), rtol=1e-14)


def test_large_steps_of_s1_lose_rank_with_time():
    """Robust over sample orders: the longer the step stays large, the lower the rank and l0 of the survivors."""
    system = fs.data.paper("S1")
    large = [run for run in system.runs if run.decay_at]
    asked = request(system, large, None, fs.SaveAt(steps=[system.printed_at]), replicas=16)
    result = fs.train(asked)
    for name in ("rank", "l0"):
        medians = np.nanmedian(result.numpy(name)[:, 0].reshape(3, 16), axis=1)
        assert medians[0] > medians[1] > medians[2]
    assert 0.05 < (result.lost >= 0).mean() < 0.7


HORIZON, AGREED = 400, 1e-10  # last bits grow to a relative 1e-10 in about 1200 updates of S1 at 0.282 (measured)


@pytest.mark.parametrize("name", ["S1", "S4", "S7", "S9"])
def test_chaotic_runs_agree_with_the_reference_to_the_horizon(name):
    """Runs whose last bits grow until no digit is left are compared with the independent backend early on."""
    system = fs.data.paper(name)
    run = system.runs[-1]
    asked = request(system, [run], fs.orders.Replay(system.order()[:HORIZON]), fs.SaveAt(steps=[HORIZON]), wanted=())
    asked = asked.replace(steps=HORIZON, step_size=fs.StepTable(run.step_sizes(system.steps)[:HORIZON]))
    ours, reference = (fs.train(asked.replace(backend=backend)) for backend in ("cpu", "reference"))
    moved = np.abs(ours.weights - fs.plan(asked).start).max()
    assert moved > 0.1 and ours.survived.all()
    np.testing.assert_allclose(ours.weights, reference.weights, rtol=0, atol=AGREED * moved)
