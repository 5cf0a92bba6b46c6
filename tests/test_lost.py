"""Divergence is data: a lost run is frozen, named and NaN, and its neighbours do not notice."""

import numpy as np
import pytest
from cases import BACKENDS, DTYPES, RULES, request

import fastsgd as fs
from fastsgd import backends

LAYOUTS = ("lanes", "team", "scalar")


def tuning(layout, dtype):
    """A Tuning of one of the CPU's layouts."""
    from fastsgd.native import native

    module = native()
    lanes, team = {"lanes": (module.lanes[dtype], 1), "team": (1, module.team[dtype]), "scalar": (1, 1)}[layout]
    return fs.Tuning(lanes=lanes, team=team)


def mixed(rule, dtype, model="relu2_3_21", **fields):
    """A run of 40 networks of which every other one has an absurd step size."""
    step = np.where(np.arange(40) % 2, 1e6, 0.01)
    return request(model, rule, dtype, steps=60, N=40, step_size=step, **fields)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_neighbours_keep_their_bits(layout, rule, dtype):
    run = mixed(rule, dtype)
    result = fs.train(fs.plan(run, tuning(layout, dtype)))
    odd = np.arange(40) % 2 == 1
    assert (result.lost >= 0)[~odd].sum() == 0 and (result.lost >= 0)[odd].mean() > 0.5
    alone = fs.train(run.replace(ids=np.flatnonzero(~odd)))
    assert alone.weights.tobytes() == result.weights[~odd].tobytes()
    for name, record in result.records.items():
        assert np.isfinite(record[~odd]).all()
        gone = (result.lost[:, None] >= 0) & (result.lost[:, None] < result.steps)
        assert np.isnan(record[gone]).all() and np.isfinite(record[~gone]).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ["sgd", "minibatch", "gd"])
@pytest.mark.parametrize("model", ["diagonal_13", "relu2_3_21"])
def test_the_lost_step_and_the_frozen_weights_are_those_of_the_definition(model, rule, dtype):
    """lost = first step whose loss is not finite; weights = those before that step."""
    run = mixed(rule, dtype, model)
    result = fs.train(run)
    if model == "diagonal_13":  # a ReLU hides a unit whose weights overflowed, so the two may see it a step apart
        np.testing.assert_array_equal(result.lost, fs.train(run.replace(backend="reference")).lost)
    for k in np.flatnonzero(result.lost > 0)[:4]:
        until = int(result.lost[k])
        short = fs.train(run.replace(steps=until, ids=[k], save=None, step_size=fs.StepSize(run.step_size.base)))
        assert short.survived.all()
        assert short.weights[0].tobytes() == result.weights[k].tobytes()


def test_a_stated_bound():
    run = request("diagonal_13", steps=300, step_size=fs.StepSize(0.3), networks=50, dtype="float64")
    free = fs.train(run)
    bound = fs.train(run.replace(rule=fs.rules.SGD(lost_above=1.5)))
    assert (bound.lost >= 0).sum() > (free.lost >= 0).sum()
    both = (bound.lost >= 0) & (free.lost >= 0)
    assert (bound.lost[both] <= free.lost[both]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_lost(backend):
    run = request("diagonal_13", steps=200, step_size=fs.StepSize(50.0), networks=9, backend=backend,
                  save=fs.SaveAt(linear=5))
    result = fs.train(run)
    assert (result.lost >= 0).all() and np.isnan(result.numpy("train_loss")[:, -1]).all()
    assert np.isfinite(result.weights).all()


def test_segments_and_layouts_agree_on_what_was_lost():
    run = mixed("sgd", "float32")
    want = fs.train(run)
    for choice in (fs.Tuning(segment=1), fs.Tuning(segment=13), *(tuning(layout, "float32") for layout in LAYOUTS)):
        got = fs.train(fs.plan(run, choice))
        np.testing.assert_array_equal(got.lost, want.lost)
        assert got.weights.tobytes() == want.weights.tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_marked_between_launches_stays_lost_and_frozen(backend):
    """The flags that a backend is given count from then on, and its tally is that of its flags."""
    plan, backend = fs.plan(request("diagonal_13", backend=backend)), backends.by_name(backend)
    state = backend.load(plan, plan.start, np.full(plan.N, -1), plan.fresh_buffers())
    backend.advance(state, plan.segment(0, 20))
    then, lost = backend.read(state)[0].copy(), backend.lost(state).copy()
    assert (lost == -1).all() and backend.tally(state) == (plan.N, 0)
    lost[2] = 20
    backend.set_lost(state, lost)
    assert backend.tally(state) == (plan.N - 1, 0)
    backend.advance(state, plan.segment(20, 30))
    moved = (backend.read(state)[0] != then).any(axis=1)
    assert not moved[2] and moved.sum() == plan.N - 1 and backend.lost(state).tolist() == lost.tolist()
