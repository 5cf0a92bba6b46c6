"""Companions: what is said of them is what NumPy makes of the weights that each process has by itself."""

import numpy as np
import pytest

import fastsgd as fs

R = fs.rules
MODEL = fs.models.MLP(3, 4, activation="tanh")
RNG = np.random.default_rng(0)
DATA = fs.Dataset(RNG.standard_normal((8, 3)), RNG.standard_normal(8))
N, T, S = 6, 40, 5
BASE = fs.Run(MODEL, DATA, R.SGD(), np.linspace(0.02, 0.1, N), T, dtype="float64", metrics=fs.metrics.TrainLoss(),
              save=fs.SaveAt(linear=S))
RUNS = {"sgd": BASE, "half": BASE.replace(step_size=BASE.step_size.base / 2, steps=2 * T),
        "noise": BASE.replace(seed=5), "gd": BASE.replace(rule=R.GD(momentum=0.5)),
        "flow": BASE.replace(rule=R.Flow(), step_size=BASE.step_size.base * T / (S - 1), steps=S - 1),
        "sde": BASE.replace(rule=R.SDE(sgd_step=0.05, loss_level=0.3))}


def separately(run, start):
    """(weights [S, N, P], Result) of a run from given weights."""
    own = fs.train(run.replace(init=MODEL.unflatten(start), save=fs.SaveAt(linear=S, params=True)))
    return own.saved_weights.swapaxes(0, 1), own


def compared(weights):
    """(distances, overlaps) [C, C, M, S] of weights [C, S, M, P]."""
    w = np.moveaxis(weights, 1, 2)
    lengths = np.linalg.norm(w, axis=-1)
    distance = np.linalg.norm(w[:, None] - w[None], axis=-1)
    return distance, (w[:, None] * w[None]).sum(-1) / (lengths[:, None] * lengths[None])


def test_processes_that_differ_in_everything_but_their_start():
    got = fs.companions(RUNS)
    start = fs.plan(BASE).start
    weights, results = zip(*(separately(run, start) for run in RUNS.values()), strict=True)
    distance, overlap = compared(np.array(weights))
    assert got.names == tuple(RUNS) and got.steps.tolist() == [r.steps.tolist() for r in results]
    np.testing.assert_allclose(got.distance, distance, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(got.overlap, overlap, rtol=1e-12)
    np.testing.assert_allclose(got.norm, np.linalg.norm(np.moveaxis(np.array(weights), 1, 2), axis=-1), rtol=1e-12)
    assert (got.distance[..., 0] == 0).all() and (got.distance[2, 0, :, -1] > 0).all()
    losses = np.array([own.numpy("train_loss") for own in results])
    np.testing.assert_array_equal(got.difference("train_loss"), losses[:, None] - losses[None])
    for own, result in zip(results, got.results, strict=True):
        np.testing.assert_array_equal(own.weights, result.weights)
    seen = got.to_xarray()
    assert seen["delta_train_loss"].shape == (6, 6, N, S)
    np.testing.assert_array_equal(seen["distance"].sel(companion="gd", other="flow"), got.distance[3, 4])


def test_replicas_within_a_run():
    """Three networks a set, of one start and draws of their own."""
    run = BASE.replace(step_size=0.05, networks=12)
    got = fs.companions(run, each=3)
    start = fs.plan(run).start.reshape(4, 3, -1)[:, :1].repeat(3, axis=1).reshape(12, -1)
    weights, _ = separately(run, start)
    distance, overlap = compared(weights.reshape(S, 4, 3, -1).transpose(2, 0, 1, 3))
    np.testing.assert_allclose(got.distance, distance, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(got.overlap, overlap, rtol=1e-12)
    assert got.names == ("run 0 0", "run 0 1", "run 0 2") and got.difference("train_loss").shape == (3, 3, 4, S)
    both = fs.companions([run, run.replace(rule=R.GD())], each=3)
    assert both.distance.shape == (6, 6, 4, S)
    np.testing.assert_array_equal(both.distance[:3, :3], got.distance)
    assert (both.distance[3, 4:] == 0).all()  # gradient descent has no draws


def test_the_lost_are_nan_from_their_step_on_and_members_keep_their_bits():
    run = BASE.replace(model=fs.models.DiagonalLinear(3), step_size=np.linspace(0.05, 3, N), metrics=())
    got = fs.companions([run, run.replace(step_size=0.01, networks=N)])
    lost = got.results[0].lost
    assert (lost >= 0).any() and (lost < 0).any()
    late = (lost[:, None] >= 0) & (lost[:, None] < got.steps[0])
    np.testing.assert_array_equal(np.isnan(got.distance[0, 1]), late)
    np.testing.assert_array_equal(np.isnan(got.norm[0]), late)
    assert not np.isnan(got.norm[1]).any()
    some = fs.companions([run.replace(ids=[4, 1]), run.replace(step_size=0.01, networks=N, ids=[4, 1])])
    np.testing.assert_array_equal(some.distance, got.distance[:, :, [4, 1]])
    assert fs.companions([run, run.replace(step_size=0.01, networks=N)], tuning=fs.Tuning(
        threads=1, segment=3)).distance.tobytes() == got.distance.tobytes()


def test_weights_at_zero_have_no_overlap():
    run = BASE.replace(model=fs.models.DiagonalLinear(3, u0=0.0, v0=0.0), metrics=())
    got = fs.companions([run, run.replace(seed=1)])
    assert np.isnan(got.overlap).all() and (got.distance == 0).all() and (got.norm == 0).all()


@pytest.mark.parametrize("runs, more, error, message", (
    (BASE, {}, fs.SpecError, "one process given"), ([], {}, fs.SpecError, "no companion"),
    (3, {}, fs.SpecError, "runs"), ([BASE, 4], {}, fs.SpecError, "runs"), (BASE, {"each": 0}, fs.SpecError, "each"),
    (BASE, {"each": 4}, fs.PlanError, "does not divide"),
    ([BASE, BASE.replace(save=None)], {}, fs.PlanError, "saved steps"),
    ([BASE, BASE.replace(dtype="float32", data=DATA.astype("float32"))], {}, fs.PlanError, "another model or dtype"),
    ([BASE, BASE.replace(model=fs.models.MLP(3, 5, activation="tanh"))], {}, fs.PlanError, "another model or dtype"),
    ([BASE, BASE.replace(step_size=0.1, networks=3)], {}, fs.PlanError, "N=3 networks"),
    ([BASE, BASE.replace(rule=R.SGD(average=0.5), save=fs.SaveAt(linear=S, of="average"))], {}, fs.SpecError,
     "saves the average")))
def test_what_cannot_be_compared_is_refused(runs, more, error, message):
    with pytest.raises(error, match=message):
        fs.companions(runs, **more)
