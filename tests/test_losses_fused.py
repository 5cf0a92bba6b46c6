"""Factors and bounds of each network in the fused loops: the bits of the same networks trained alone."""

from dataclasses import replace

import numpy as np
import pytest
from cases import problem
from general_cases import D, general

import fastsgd as fs

M, R, L = fs.models, fs.rules, fs.losses
N = 19  # networks: more than two vectors of either dtype, and some over
FACTORS = np.random.default_rng(0).uniform(0.2, 1.5, N)
BOUNDS = np.where(np.arange(N) % 3, np.inf, 0.7)
CASES = {  # (model, rule, order or None, layouts): each loop that fuses
    "joined": (M.DiagonalLinear(D, u0=0.5, v0=0.2), R.SGD(), None, "team"),
    "joined batch": (M.DiagonalLinear(D, u0=0.5, v0=0.2), R.SGD(batch_size=3), None, "team"),
    "joined full": (M.DiagonalLinear(D, u0=0.5, v0=0.2), R.GD(), None, "team"),
    "wide": (M.DiagonalLinear(70, u0=0.5, v0=0.2), R.SGD(), None, "team"),
    "lanes": (M.DiagonalLinear(D, u0=0.5, v0=0.2), R.SGD(), None, "lanes"),
    "one row": (M.DiagonalLinear(D, u0=0.5, v0=0.2), R.SGD(), fs.orders.Common(), "lanes"),
    "tiles": (M.DiagonalLinear(D, u0=0.5, v0=0.2), R.GD(), None, "lanes"),
    "scalar": (M.DiagonalLinear(D, u0=0.5, v0=0.2), R.SGD(), None, "scalar"),
    "relu2": (M.ReLU2(D, 6), R.SGD(), None, "lanes"),
    "relu2 team": (M.ReLU2(D, 20), R.SGD(), None, "team"),
    "relu2 batch": (M.ReLU2(D, 6), R.SGD(batch_size=5), None, "lanes"),
}


def run_of(name, dtype, **changes):
    model, rule, order, _ = CASES[name]
    fields = {"model": model, "rule": rule, "data": problem(model.d).astype(dtype), "loss": L.Squared(FACTORS)}
    return general(fields, dtype, **({"order": order, "step_size": 0.05, "metrics": (), "steps": 70,
                                      "save": fs.SaveAt(linear=3, params=True)} | changes))


def tuning(name, dtype):
    wide = {"float32": 8, "float64": 4}[dtype]
    return fs.Tuning(**{"lanes": {"lanes": wide}, "team": {"team": wide}, "scalar": {"lanes": 1, "team": 1}}[
        CASES[name][3]], isa="v3", segment=33)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("name", CASES)
def test_each_network_has_the_bits_of_it_alone(name, dtype):
    run, choice = run_of(name, dtype), tuning(name, dtype)
    plan = fs.plan(run, choice)
    assert plan.work.fused and plan.work.losses
    whole = fs.train(plan)
    for k in (0, 7, N - 1):
        alone = fs.train(run.replace(loss=L.Squared(FACTORS[k]), ids=[k], networks=N))
        assert alone.saved_weights.tobytes() == whole.saved_weights[[k]].tobytes()
    for other in (fs.Tuning(), fs.Tuning(lanes=1, team=1)):
        assert fs.train(run, tuning=other).weights.tobytes() == whole.weights.tobytes()
    part = fs.train(run.replace(ids=[11, 3]), tuning=fs.Tuning(isa="v3"))
    assert part.saved_weights.tobytes() == whole.saved_weights[[11, 3]].tobytes()


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("name", CASES)
def test_each_network_is_lost_beyond_its_own_bound(name, dtype):
    rule = replace(CASES[name][1], lost_above=BOUNDS)
    run, choice = run_of(name, dtype, rule=rule), tuning(name, dtype)
    assert fs.plan(run, choice).work.fused
    got = fs.train(run, tuning=choice)
    never, soon = (fs.train(run.replace(rule=replace(rule, lost_above=most), networks=N)) for most in (np.inf, 0.7))
    assert got.lost.tolist() == np.where(BOUNDS < 1, soon.lost, never.lost).tolist() and (got.lost >= 0).any()
    want = np.where((BOUNDS < 1)[:, None], soon.weights, never.weights)
    assert got.weights.tobytes() == want.tobytes()


@pytest.mark.parametrize("backend", ("cpu", "reference"))
def test_lost_networks_leave_their_lanes_to_others_with_their_losses(backend):
    """Bundles close up once networks are lost: what is a network's own goes along."""
    rule = R.SGD(lost_above=np.where(np.arange(40) % 4, 0.5, np.inf))
    run = run_of("joined", "float64", rule=rule, loss=L.Squared(np.linspace(0.3, 1.2, 40)), backend=backend)
    whole = fs.train(run)
    assert (whole.lost >= 0).sum() > 20 and whole.survived.sum() >= 10
    if backend == "cpu":
        for k in (0, 4, 36, 39):
            one = fs.train(run.replace(ids=[k]))
            assert one.weights.tobytes() == whole.weights[[k]].tobytes() and one.lost[0] == whole.lost[k]
    else:
        ours = fs.train(run.replace(backend="cpu"))
        assert ours.lost.tolist() == whole.lost.tolist()
        np.testing.assert_allclose(ours.weights, whole.weights, rtol=1e-9)


def test_the_plan_says_why_no_loop_is_compiled():
    run = run_of("relu2", "float32", rule=R.SGD(momentum=0.5, lost_above=BOUNDS))
    assert "each network has a loss of its own, which the general loop reads" in fs.plan(run).explain()
    with pytest.raises(fs.PlanError, match="each network has a loss of its own"):
        fs.plan(run, fs.Tuning(compiled=True))


def test_a_loop_of_the_runs_own_takes_them_too():
    run = run_of("relu2", "float32", rule=R.SGD(lost_above=BOUNDS))
    try:
        made = fs.train(run, tuning=fs.Tuning(compiled=True, lanes=8, isa="v3"))
    except (fs.BackendUnavailable, fs.PlanError) as error:
        pytest.skip(str(error))
    assert made.weights.tobytes() == fs.train(run, tuning=fs.Tuning(compiled=False)).weights.tobytes()


@pytest.mark.parametrize(("name", "dtype", "rule"), [
    ("joined", "float32", R.SGD(lost_above=BOUNDS)), ("tiles", "float64", R.GD()),
    ("relu2", "float64", R.SGD(momentum=0.5, lost_above=BOUNDS))], ids=["one sample", "batches", "carries"])
def test_a_card_has_them_in_its_fused_loop(name, dtype, rule, a_card):
    run = run_of(name, dtype, rule=rule)
    plan = fs.plan(run.replace(backend="cuda"))
    assert "the general loop" not in plan.explain()
    here, there = fs.train(run), fs.train(plan)
    assert there.saved_weights.tobytes() == here.saved_weights.tobytes() and there.lost.tolist() == here.lost.tolist()
