"""Going on with a result gives the bits of one run of as many steps."""

import numpy as np
import pytest
from general_cases import NETWORKS, STEPS, general

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
    for name, result in (("plain", plain), ("carried", carried)):
        result.save(tmp_path / f"{name}.npz")
    loaded = fs.Result.load(tmp_path / "plain.npz")
    np.testing.assert_array_equal(fs.extend(loaded, 30).weights, fs.extend(plain, 30).weights)
    with pytest.raises(fs.SpecError, match="carries momentum from step to step"):
        fs.extend(fs.Result.load(tmp_path / "carried.npz"), 30)
