"""Replay of the authors' sample orders in float64 gives the digits they printed, where the run is not chaotic."""

import numpy as np
import pytest
from tolerances import PAPER, PAPER_FLOAT32

import fastsgd as fs
from fastsgd.reproduce.study import request

# system, run, metrics that must agree, tolerance; ReLU systems were computed in float32 by the authors
CASES = [
    ("S1", "0.25", {"train": "train_loss", "test": "test_loss", "norm": "norm", "l0": "l0", "balance": "balance",
                    "rank_end": "rank"}, PAPER),
    ("S2", "GD 2.0", {"test": "test_loss", "l0": "l0", "norm": "norm"}, PAPER),
    ("S3", "flow", {"train": "train_loss", "test": "test_loss"}, PAPER),
    ("S4", "A", {"train": "train_loss"}, PAPER_FLOAT32),
    ("S5", "A", {"train": "train_loss"}, 1e-3),  # printed to four digits
    ("S7", "0.13", {"train": "train_loss", "test": "test_loss", "norm": "norm", "rank_end": "rank",
                    "sparsity_end": "feature_sparsity"}, PAPER_FLOAT32),
]


def half_a_unit(printed):
    """Half a unit of the last printed digit."""
    mantissa, _, exponent = repr(printed).partition("e")
    return 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


@pytest.mark.parametrize(("name", "label", "metrics", "tolerance"), CASES, ids=[f"{c[0]} {c[1]}" for c in CASES])
def test_printed_digits(name, label, metrics, tolerance):
    system = fs.data.paper(name)
    run = next(run for run in system.runs if label in run.label)
    gd = run.rule == "gd"
    rule, order = (fs.rules.GD(), None) if gd else (fs.rules.SGD(), fs.orders.Replay(system.order()))
    asked = request(system, [run], rule, order, fs.SaveAt(steps=[0, system.printed_at]), 0)
    wanted = [m for m in asked.metrics if m.name in metrics.values()]
    result = fs.train(asked.replace(metrics=wanted))
    assert result.survived.all()
    for key, metric in metrics.items():
        printed = run.printed[key]
        np.testing.assert_allclose(result.numpy(metric)[0, -1], printed, rtol=tolerance, atol=half_a_unit(printed),
                                   err_msg=f"{name} {key}")


def test_large_steps_of_s1_lose_rank_with_time():
    """Robust over sample orders: the longer the step stays large, the lower the rank and l0 of the survivors."""
    system = fs.data.paper("S1")
    large = [run for run in system.runs if run.decay_at]
    asked = request(system, large, fs.rules.SGD(), None, fs.SaveAt(steps=[system.printed_at]), 0, replicas=16)
    result = fs.train(asked)
    for name in ("rank", "l0"):
        medians = np.nanmedian(result.numpy(name)[:, 0].reshape(3, 16), axis=1)
        assert medians[0] > medians[1] > medians[2]
    assert 0.05 < (result.lost >= 0).mean() < 0.7
