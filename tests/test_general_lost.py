"""Lost runs in the general loop: frozen before the bad step, buffers too, and no neighbour notices."""

import numpy as np
import pytest
from cases import BACKENDS, DTYPES
from general_cases import DIAGONAL, TAUGHT, TEACHER, D, general, labelled

import fastsgd as fs
from fastsgd.execute import execute

M, R, L = fs.models, fs.rules, fs.losses
N = 20
ODD = np.arange(N) % 2 == 1
SMALL = fs.SaveAt(linear=3)
RULES = {
    "momentum": R.SGD(momentum=0.9, average=0.5),
    "batch": R.SGD(batch_size=3, weight_decay=0.1, label_noise=0.1, gradient_noise=0.1),
    "sam": R.SAM(rho=0.1, per_sample=True, batch_size=2),
    "sam_full": R.SAM(rho=0.1, batch_size=None, average=0.9),
    "one": R.GD(label_noise=fs.LabelNoise(0.5, on="one"), momentum=0.3),
}


def mixed(rule, dtype="float64", **fields):
    """A run of which every other network has an absurd step size."""
    return general({"model": DIAGONAL, "rule": rule}, dtype, steps=60, step_size=np.where(ODD, 1e3, 0.01), save=SMALL,
                   **fields)


def end(run, tuning=None):
    """(Result, buffers) of a run."""
    buffers = []
    plan = fs.plan(run, tuning or fs.Tuning(threads=1) if run.backend != "reference" else tuning)
    result = execute(plan, on_launch=lambda done: buffers.append(done.buffers))
    return result, buffers[-1].copy()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RULES)
def test_neighbours_keep_their_bits_and_records_end(name, dtype):
    run = mixed(RULES[name], dtype)
    result, buffers = end(run)
    assert (result.lost[~ODD] < 0).all() and (result.lost[ODD] >= 0).all()
    alone, own = end(run.replace(ids=np.flatnonzero(~ODD)))
    assert alone.weights.tobytes() == result.weights[~ODD].tobytes() and own.tobytes() == buffers[~ODD].tobytes()
    for record in result.records.values():
        assert np.isnan(record[ODD, -1]).all() and np.isfinite(record[~ODD]).all()
    for choice in (fs.Tuning(segment=1, threads=1), fs.Tuning(lanes=1, threads=3)):
        again, same = end(run, choice)
        np.testing.assert_array_equal(again.lost, result.lost)
        assert again.weights.tobytes() == result.weights.tobytes() and same.tobytes() == buffers.tobytes()


@pytest.mark.parametrize("name", RULES)
def test_the_lost_step_is_the_references_and_what_is_carried_stays(name):
    run = mixed(RULES[name])
    result, buffers = end(run)
    want, carried = end(run.replace(backend="reference"))
    np.testing.assert_array_equal(result.lost, want.lost)
    np.testing.assert_allclose(result.weights, want.weights, rtol=1e-6)
    np.testing.assert_allclose(buffers, carried, rtol=1e-6, atol=1e-12)
    members = np.flatnonzero(result.lost > 0)[:3]
    assert len(members)
    for k in members:
        before, kept = end(run.replace(steps=int(result.lost[k]), ids=[k]))
        assert before.survived.all()
        assert before.weights[0].tobytes() == result.weights[k].tobytes() and kept[0].tobytes() == buffers[k].tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("loss", "outputs"), [(L.Squared(), 1), (L.Squared(), 2), (L.Logistic(), 1), (L.Hinge(), 1),
                                               (L.CrossEntropy(), 3)])
def test_a_stated_bound_is_on_the_gap_or_the_output(loss, outputs, backend):
    """The first step on which |h(x) - y|, or |h(x)|, of one output of the step's samples is above `lost_above`."""
    model, T, one = M.MLP(D, 5, outputs=outputs), 20, fs.Tuning(threads=1)
    data = labelled(model, loss)
    run = general({"model": model, "rule": R.GD(momentum=0.5), "loss": loss, "data": data}, backend=backend, steps=T,
                  step_size=np.linspace(0.05, 1.5, N), save=fs.SaveAt(linear=T + 1, params=True), metrics=())
    params = model.unflatten(fs.train(run, tuning=one).saved_weights)
    f = np.array([[model.forward({name: a[k, t] for name, a in params.items()}, data.X) for t in range(T)]
                  for k in range(N)])
    gap = np.abs(f - data.y if isinstance(loss, L.Squared) else f).reshape(N, T, -1).max(axis=2)
    bound = np.sort(gap.max(axis=1))[N // 2 - 1:][:2].mean()  # between two networks: one half is lost
    beyond = ~(gap <= bound)
    first = np.where(beyond.any(axis=1), beyond.argmax(axis=1), -1)
    assert (first >= 0).sum() == N // 2 and first.max() > 0
    bounded = run.replace(rule=R.GD(momentum=0.5, lost_above=bound), save=SMALL)
    np.testing.assert_array_equal(fs.train(bounded, tuning=one).lost, first)


@pytest.mark.parametrize("backend", BACKENDS)
def test_on_fresh_data_and_averages(backend):
    """Averages of the lost are not measured, and data made on the way go on for the others."""
    run = general({"model": M.DiagonalLinear(D, u0=0.5), "rule": R.SGD(average=0.5, batch_size=2),
                   "data": fs.data.Fresh(D, TEACHER, TAUGHT)}, backend=backend, steps=40, networks=4,
                  step_size=[0.01, 60.0, 0.02, 90.0], save=fs.SaveAt(linear=3, params=True, of="average"))
    result = fs.train(run)
    assert (result.lost >= 0).tolist() == [False, True, False, True]
    assert np.isnan(result.saved_weights[[1, 3], -1]).all() and np.isfinite(result.saved_weights[[0, 2]]).all()
    alone = fs.train(run.replace(ids=[2]))
    assert alone.saved_weights.tobytes() == result.saved_weights[[2]].tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_descent_that_does_not_survive_is_not_measured(backend):
    """The projection to the valley floor may diverge where the run does not: NaN there, and the run goes on."""
    run = general({"model": DIAGONAL, "rule": R.SGD(momentum=0.1)}, backend=backend, networks=3, step_size=0.01,
                  save=fs.SaveAt(linear=3, params=True, floor=fs.Floor(40, 50.0)))
    result = fs.train(run)
    assert result.survived.all() and np.isnan(result.numpy("train_loss")).all()
    assert result.weights.tobytes() == fs.train(run.replace(save=SMALL)).weights.tobytes()
