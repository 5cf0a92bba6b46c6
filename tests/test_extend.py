"""Going on with a result gives the bits of one run of as many steps; a fork goes on from any of its states."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from general_cases import NETWORKS, RULES, STEPS, general

import fastsgd as fs

MORE = STEPS + 17
RATES = np.linspace(0.02, 0.05, NETWORKS)
SAVES = fs.SaveAt(steps=[0, 5, STEPS, STEPS + 1, MORE], params=True)
CASES = ("momentum_relu2", "everything_relu2", "adamw_relu2", "sam_each_relu2", "reshuffle_net",
         "common_distinct_relu2", "sde_diagonal", "rmsprop_diagonal", "fresh_batch", "stream", "average_saved",
         "mlp_fixed", "one_label_relu2")


def short(run):
    return run.replace(steps=STEPS, save=fs.SaveAt(steps=[0, 5, STEPS], params=True, of=run.save.of))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", CASES)
def test_bits_are_those_of_one_run(name, backend):
    given = general(name, backend=backend, step_size=RATES)
    whole = given.replace(steps=MORE, save=fs.SaveAt(steps=SAVES.steps, params=True, of=given.save.of))
    want, got = fs.train(whole), fs.train(short(whole))
    for steps in (STEPS + 1, MORE):
        got = fs.extend(got, steps)
    keep = np.isin(want.steps, got.steps)
    assert got.run.steps == MORE and got.steps.tolist() == [0, 5, STEPS]
    np.testing.assert_array_equal(got.weights, want.weights)
    np.testing.assert_array_equal(got.lost, want.lost)
    np.testing.assert_array_equal(got.saved_weights, want.saved_weights[:, keep])
    for record in want.records:
        np.testing.assert_array_equal(got.numpy(record), want.numpy(record)[:, keep])
    if got.buffers is not None:
        np.testing.assert_array_equal(got.buffers, want.buffers)
    assert "host" in got.provenance and (got.provenance["network_steps"] == want.provenance["network_steps"])


def test_saved_steps_lost_networks_and_ids():
    model = fs.models.DiagonalLinear(5)
    data = fs.data.sparse_regression(n=8, d=5, nonzero=2, n_test=9, seed=0)
    run = fs.Run(model, data, fs.rules.SGD(), np.geomspace(0.1, 3, 12), 40, metrics=fs.metrics.TestLoss(),
                 save=fs.SaveAt(linear=5), ids=[11, 3, 7], dtype="float64")
    got, want = fs.extend(fs.train(run), 80), fs.train(run.replace(steps=80, save=fs.SaveAt(
        steps=[0, 10, 20, 30, 40, 60, 80])))
    assert got.lost[0] >= 0 and got.steps.tolist() == want.steps.tolist()
    np.testing.assert_array_equal(got.weights, want.weights)
    np.testing.assert_array_equal(got.numpy("test_loss"), want.numpy("test_loss"))
    np.testing.assert_array_equal(got.select([1, 2]).weights, want.weights[1:])
    both = fs.concat([got.select([0]), got.select([1, 2])])
    np.testing.assert_array_equal(fs.extend(both, 90).weights, fs.extend(got, 90).weights)


def test_networks_keep_their_numbers(tmp_path):
    """Also those of files and selections, whose runs know keys in the place of ids."""
    whole = general("momentum_relu2", step_size=RATES, ids=[9, 2, 7])
    first = fs.train(whole)
    first.save(tmp_path / "a.npz")
    for result in (first, fs.Result.load(tmp_path / "a.npz"), first.select([2, 0])):
        for got in (fs.extend(result, MORE), fs.fork(result, steps=MORE), fs.fork(result, 5)):
            assert got.ids.tolist() == result.ids.tolist()
            got.save(tmp_path / "b.npz")
            assert fs.Result.load(tmp_path / "b.npz").ids.tolist() == result.ids.tolist()
    halves = [fs.extend(first.select([k]), MORE) for k in range(3)]
    assert fs.concat(halves).ids.tolist() == [9, 2, 7]
    assert fs.fork(first, copies=2, steps=MORE).ids.tolist() == list(range(6))


def test_a_schedule_of_the_whole_run_is_asked_for():
    run = general("momentum_relu2", step_size=fs.StepSize(0.05, decay_at=0.5, decay_by=4))
    with pytest.raises(fs.PlanError, match=r"step_size: is another one on steps 0 \.\. 12 in a run of 26 steps"):
        fs.extend(fs.train(run), 2 * STEPS)
    longer = fs.StepSize(0.05, decay_at=int(STEPS / 2) / (2 * STEPS) + 1e-9, decay_by=4)
    want = fs.train(run.replace(step_size=longer, steps=2 * STEPS))
    np.testing.assert_array_equal(fs.extend(fs.train(run), 2 * STEPS, step_size=longer).weights, want.weights)


def test_a_given_order_goes_on_as_it_began():
    run = general("replay_net", step_size=RATES)
    with pytest.raises(fs.PlanError, match="order: has 13 steps"):
        fs.extend(fs.train(run), 20)
    table = np.concatenate([run.order.order, run.order.order[:, :7]], axis=1)
    got = fs.extend(fs.train(run), 20, order=fs.orders.Replay(table))
    np.testing.assert_array_equal(got.weights, fs.train(run.replace(steps=20, order=fs.orders.Replay(table))).weights)
    with pytest.raises(fs.PlanError, match=r"order: is another one on steps 0 \.\. 12"):
        fs.extend(fs.train(run), 20, order=fs.orders.Replay((table + 1) % 7))


def test_what_cannot_go_on_is_refused(tmp_path):
    plain, carried = (fs.train(general(name, step_size=0.02)) for name in ("mlp_relu", "momentum_relu2"))
    for steps in (STEPS, 0, 1.5, True, "x"):
        with pytest.raises(fs.SpecError, match="steps"):
            fs.extend(plain, steps)
    with pytest.raises(fs.SpecError, match=r"result: Run given"):
        fs.extend(plain.run, 99)
    carried.save(tmp_path / "carried.npz")
    with pytest.raises(fs.SpecError, match="carries momentum from step to step, which this result does not have"):
        fs.extend(replace(fs.Result.load(tmp_path / "carried.npz"), buffers=None), 30)


@pytest.mark.parametrize("name", [name for name, fields in RULES.items() if fields.buffers()])
def test_files_keep_what_every_rule_carries(name, tmp_path):
    run = general(f"{name}_relu2", step_size=RATES, steps=MORE, save=SAVES)
    first = fs.train(short(run))
    first.save(tmp_path / "it.npz")
    got, want = fs.extend(fs.Result.load(tmp_path / "it.npz"), MORE), fs.train(run)
    np.testing.assert_array_equal(got.weights, want.weights)
    np.testing.assert_array_equal(got.buffers, want.buffers)


def test_starting_weights_are_not_made_again(monkeypatch):
    """Neither plan of an extension draws them, unless a metric looks at step 0."""
    made = []
    plans = sys.modules["fastsgd.plan"]
    start = plans.start_of
    monkeypatch.setattr(plans, "start_of", lambda *given: made.append(1) or start(*given))
    run = general("momentum_relu2", step_size=RATES)
    first = fs.train(run)
    assert len(made) == 1
    fs.extend(first, MORE)
    assert len(made) == 1
    moved = run.replace(metrics=fs.metrics.DistanceTravelled(), steps=MORE, save=None)
    got = fs.extend(fs.train(moved.replace(steps=STEPS)), MORE)
    np.testing.assert_array_equal(got.numpy("distance_travelled")[:, -1], fs.train(moved).numpy(
        "distance_travelled")[:, -1])


# ---- forks


@pytest.mark.parametrize("name", CASES)
def test_a_fork_that_changes_nothing_has_the_bits_of_the_result(name):
    run = general(name, step_size=RATES, steps=MORE, save=SAVES)
    want = fs.train(run)
    for at in (0, 5, 9, STEPS):
        got = fs.fork(want, at)
        np.testing.assert_array_equal(got.weights, want.weights)
        assert got.steps.tolist() == sorted({at, *(s for s in want.steps if s >= at)})
        for record in want.records:
            np.testing.assert_array_equal(got.numpy(record)[:, -2:], want.numpy(record)[:, -2:])


def test_a_fork_has_new_noise_from_one_state():
    """Against a simulation by hand from the state, with draws of another seed at the same steps."""
    model, data = fs.models.DiagonalLinear(4), fs.data.sparse_regression(n=6, d=4, nonzero=2, seed=1)
    run = fs.Run(model, data, fs.rules.SGD(momentum=0.5), np.array([0.02, 0.03]), 30, dtype="float64", seed=1,
                 save=fs.SaveAt(linear=4, params=True))
    first = fs.train(run)
    got = fs.fork(first, 17, seed=8, copies=3, steps=40, step_size=np.linspace(0.01, 0.06, 6))
    there = fs.train(run.replace(steps=17))
    order = fs.orders.PerNetwork().indices(8, np.arange(6), 17, 40, 6, 1)[:, :, 0]
    for k in range(6):
        w, m = there.weights[k // 3].copy(), there.buffers[k // 3, 0].copy()
        for t in range(23):
            x, y = data.X[order[k, t]], data.y[order[k, t]]
            u, v = w[:4], w[4:]
            m = 0.5 * m + (x @ (u * v) - y) * np.concatenate([x * v, x * u])
            w = w - np.linspace(0.01, 0.06, 6)[k] * m
        np.testing.assert_allclose(got.weights[k], w, rtol=1e-12)
    assert got.steps.tolist() == [17, 27, 40] and got.provenance["forked"] == [{"at": 17, "seed": 1, "copies": 3}]
    np.testing.assert_array_equal(got.saved_weights[:, 0], np.repeat(there.weights, 3, axis=0))
    np.testing.assert_array_equal(fs.extend(got, 50).weights, fs.fork(
        first, 17, seed=8, copies=3, steps=50, step_size=np.linspace(0.01, 0.06, 6)).weights)


def test_forks_keep_the_lost_and_take_other_rules_and_files(tmp_path):
    model, data = fs.models.DiagonalLinear(5), fs.data.sparse_regression(n=8, d=5, nonzero=2, n_test=9, seed=0)
    run = fs.Run(model, data, fs.rules.SGD(), np.geomspace(0.1, 6, 12), 60, metrics=fs.metrics.DistanceTravelled(),
                 save=fs.SaveAt(linear=5, params=True), dtype="float64", ids=[11, 3, 7])
    first = fs.train(run)
    step = int(first.lost[0])
    assert 0 < step < 60
    for at in (step // 2, step + 1, 60):
        got = fs.fork(first, at, seed=4, steps=61, rule=fs.rules.Adam(average=0.5), step_size=1e-3)
        assert (got.lost[0] == step) == (at > step) and got.base.tolist() == [1e-3] * 3
        got.save(tmp_path / "fork.npz")
        loaded = fs.Result.load(tmp_path / "fork.npz")
        np.testing.assert_array_equal(fs.extend(loaded, 70).weights, fs.extend(got, 70).weights)
    start = fs.train(run.replace(steps=1, save=fs.SaveAt(steps=[0], params=True))).saved_weights[:, 0]
    assert got.survived.tolist() == [False, True, False]
    np.testing.assert_allclose(got.numpy("distance_travelled")[1, -1], np.linalg.norm(got.weights[1] - start[1]),
                               rtol=1e-12)
    with pytest.raises(fs.SpecError, match="was forked itself"):
        fs.fork(got, 60, steps=80, seed=1)
    assert fs.fork(got, 61, steps=80, seed=1).provenance["forked"][1]["at"] == 61


@pytest.mark.parametrize("given, error, message", (
    ({"at": 14}, fs.SpecError, "at"), ({"at": -1}, fs.SpecError, "at"), ({"at": 1.5}, fs.SpecError, "at"),
    ({}, fs.SpecError, "steps: 13 in all given, the state is that of step 13"),
    ({"at": 5, "steps": 5}, fs.SpecError, "expected more"), ({"at": 5, "copies": 0}, fs.SpecError, "copies"),
    ({"at": 5, "copies": 2, "step_size": RATES}, fs.PlanError, "disagree"),
    ({"at": 5, "seed": -1}, fs.SpecError, "seed"), ({"at": 5, "rule": "SGD"}, fs.SpecError, "rule"),
    ({"at": 5, "save": fs.SaveAt(steps=[99])}, fs.SpecError, "beyond")))
def test_forks_that_cannot_be_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        fs.fork(fs.train(general("momentum_relu2", step_size=RATES)), **given)


def test_a_plan_says_what_starting_from_weights_means():
    run = general("mlp_relu", step_size=RATES)
    assert "draws of seed 3" not in fs.plan(run).explain()
    again = run.replace(init=fs.train(run).params)
    assert "starts from init, at step 0 with the draws of seed 3" in fs.plan(again).explain()
