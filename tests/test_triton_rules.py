"""The Triton backend's rules: knobs, what is carried from step to step, resumes, lost runs, padding, far into a run."""

import numpy as np
import pytest
import torch
from general_cases import D, general
from tiers import some
from tolerances import WEIGHTS

import fastsgd as fs
from fastsgd.backends.cpu import CPU
from fastsgd.backends.triton import Triton
from fastsgd.execute import execute
from fastsgd.portable import interpreted

pytest.importorskip("triton")
pytestmark = [pytest.mark.skipif(not (interpreted() or torch.cuda.is_available()), reason="no GPU, not interpreted"),
              pytest.mark.filterwarnings("ignore::RuntimeWarning")]  # the interpreter's NumPy, on runs that are lost
M, R = fs.models, fs.rules
N, STEPS = 6, 5
EACH = np.linspace(0.1, 0.4, N)
DIAGONAL, NET = M.DiagonalLinear(D, u0=0.5, v0=0.2), M.MLP(D, (6, 3), bias=(True, False, True), fixed=("W2",),
                                                           b_scale=0.3)
CARRIED = {  # rules of one, two and three buffers, with all that a step may do to them
    "momentum": (DIAGONAL, R.SGD(momentum=EACH, nesterov=True, weight_decay=EACH, balance_penalty=0.3, average=0.5,
                                 normalised=True, gradient_noise=0.2)),
    "adam": (NET, R.Adam(average=EACH, weight_decay=0.3, decoupled=True, gradient_noise=0.1, batch_size=2)),
    "sam": (DIAGONAL, R.SAM(rho=0.1, per_sample=True, momentum=0.5, batch_size=2, label_noise=0.1)),
    "outputs": (M.MLP(D, (6, 4), outputs=3), R.SAM(rho=0.1, momentum=0.5, batch_size=2, label_noise=EACH,
                                                   gradient_noise=0.1), fs.losses.Squared(weights=[1, 2, 0.5])),
    "classes": (M.MLP(D, 6, outputs=3), R.SGD(momentum=0.5, average=EACH, weight_decay=0.3), fs.losses.CrossEntropy()),
}


def carried(name, dtype="float64", backend="triton", **fields):
    names = ("model", "rule", "loss")[:len(CARRIED[name])]
    fields = {"steps": STEPS, "networks": N, "step_size": 0.05, "save": None, "metrics": ()} | fields
    return general(dict(zip(names, CARRIED[name], strict=True)), dtype, backend=backend, **fields)


def end(run, tuning=None, progress=None):
    """(Result, buffers at the end, what was done after each launch)."""
    done = []
    result = execute(fs.plan(run, tuning), progress, lambda now: done.append(now.copy()))
    return result, done[-1].buffers, done


def close(got, want, dtype):
    return np.linalg.norm(got - want) < WEIGHTS[dtype] * np.linalg.norm(want)


@pytest.mark.parametrize(("name", "dtype"), some([
    *((name, "float64") for name in CARRIED), ("sam", "float32")]))
def test_what_is_carried_is_the_cpus_and_survives_segments_and_resumes(name, dtype):
    want, buffers, _ = end(carried(name, dtype, backend="cpu"))
    run = carried(name, dtype)
    got, own, _ = end(run)
    assert own.shape == buffers.shape == (N, len(run.rule.buffers()), run.model.P) and own.dtype == dtype
    assert close(got.weights, want.weights, dtype)
    for k in range(own.shape[1]):
        assert close(own[:, k], buffers[:, k], dtype), run.rule.buffers()[k]
    cut, same, done = end(run, fs.Tuning(segment=3))
    assert cut.weights.tobytes() == got.weights.tobytes() and same.tobytes() == own.tobytes()
    assert done[0].t == 3
    again, same, _ = end(run, progress=done[0])
    assert again.weights.tobytes() == got.weights.tobytes() and same.tobytes() == own.tobytes()
    some, few, _ = end(run.replace(ids=[4, 1]))
    assert some.weights.tobytes() == got.weights[[4, 1]].tobytes() and few.tobytes() == own[[4, 1]].tobytes()


@pytest.mark.parametrize("name", CARRIED)
def test_a_lost_network_keeps_what_it_carried(name):
    odd, rule = np.arange(N) % 2 == 1, CARRIED[name][1]
    rule = type(rule)(**(vars(rule) | {"lost_above": 1e3}))
    run = carried(name, steps=8, step_size=np.where(odd, 1e3, 0.01), rule=rule)
    got, own, _ = end(run)
    want, buffers, _ = end(run.replace(backend="cpu"))
    np.testing.assert_array_equal(got.lost, want.lost)
    assert (got.lost[odd] > 0).all() and (got.lost[~odd] < 0).all()
    np.testing.assert_allclose(own, buffers, rtol=1e-9, atol=1e-12)
    k = np.flatnonzero(odd)[0]
    before, kept, _ = end(run.replace(steps=int(got.lost[k]), ids=[k]))
    assert before.weights[0].tobytes() == got.weights[k].tobytes() and kept[0].tobytes() == own[k].tobytes()


@pytest.mark.parametrize("name", CARRIED)
def test_what_pads_a_row_stays_zero_far_into_a_run(name):
    """Steps that begin at 10**6 + 3: powers of beta and draws of gradient noise are those of that time."""
    t0, states = 10**6 + 3, []
    for backend in (Triton(), CPU()):
        plan = fs.plan(carried(name, backend=backend.name, steps=t0 + 9))
        state = backend.load(plan, plan.start, np.full(N, -1), plan.fresh_buffers() + 0.1)
        backend.advance(state, plan.segment(t0, t0 + 3))
        states.append((state, *backend.read(state)))
    (state, *got), (_, *want) = states
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-15)
    padding = np.setdiff1d(np.arange(state.packing.width), state.packing.slots)
    assert len(padding)
    for rows in (state.W.cpu().numpy(), state.buffers.cpu().numpy()):
        assert not rows[..., padding].any() and rows.any()


OTHERS = {  # each moves a run away from all the others
    "plain": R.SGD(), "momentum": R.SGD(momentum=0.5), "more momentum": R.SGD(momentum=0.6),
    "nesterov": R.SGD(momentum=0.5, nesterov=True), "decay": R.SGD(weight_decay=0.1),
    "balance": R.SGD(balance_penalty=0.5), "normalised": R.SGD(normalised=True),
    "average": R.SGD(average=0.5), "slower average": R.SGD(average=0.9), "batch": R.SGD(batch_size=2, momentum=0.5),
    "gradient noise": R.SGD(gradient_noise=0.1), "louder": R.SGD(gradient_noise=0.2),
    "signs": R.SGD(gradient_noise=fs.GradientNoise(0.1, "rademacher")), "sam": R.SAM(rho=0.1), "rho": R.SAM(rho=0.2),
    "long": R.SAM(rho=0.1, unit=False), "sam batch": R.SAM(rho=0.1, batch_size=2), "sam momentum": R.SAM(
        rho=0.1, momentum=0.5), "each": R.SAM(rho=0.1, batch_size=2, per_sample=True), "adam": R.Adam(),
    "beta1": R.Adam(beta1=0.5), "beta2": R.Adam(beta2=0.5), "epsilon": R.Adam(epsilon=0.1),
    "adam decay": R.Adam(weight_decay=0.1), "adamw": R.Adam(weight_decay=0.1, decoupled=True),
    "sde": R.SDE(sgd_step=0.1, loss_level=0.5), "sgd_step": R.SDE(sgd_step=0.2, loss_level=0.5),
}


def test_every_knob_of_a_rule_moves_the_output():
    seen = {}
    for knob, rule in OTHERS.items():
        of = "weights" if rule.average is None else "average"
        run = general({"model": DIAGONAL, "rule": rule}, steps=3, networks=2, step_size=0.05, metrics=(),
                      backend="triton", save=fs.SaveAt(steps=[3], params=True, of=of))
        seen[knob] = fs.train(run).saved_weights.tobytes()
    assert len(set(seen.values())) == len(seen), {a for a in seen for b in seen if a < b and seen[a] == seen[b]}


def test_plans_say_what_buffers_take():
    plans = [fs.plan(general({"model": M.DiagonalLinear(30), "rule": rule}, backend="triton", metrics=()))
             for rule in (R.SGD(), R.Adam(average=0.5))]
    plain, full = (plan.memory["state"] for plan in plans)
    assert full - plain == plans[0].N * 3 * 64 * 8
    assert "padded from P=60, and first_moment, second_moment, average as long" in plans[1].explain()
