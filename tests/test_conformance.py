"""One body for all backends: each must agree with the float64 truth by autograd, over families, rules and dtypes."""

import numpy as np
import pytest
from cases import BACKENDS, DTYPES, MODELS, RULES, USABLE, request
from general_cases import CASES, NETWORKS, general
from tolerances import METRIC, WEIGHTS

import fastsgd as fs
from fastsgd.spec import codec


@pytest.fixture(scope="module")
def truth():
    """The float64 reference result of a request, computed once per (model, rule, order)."""
    known = {}

    def of(model, rule, **fields):
        if (model, rule) not in known:
            known[model, rule] = fs.train(request(model, rule, "float64", backend="reference", **fields))
        return known[model, rule]

    return of


ALL = [pytest.param(backend, model, rule, dtype, marks=pytest.mark.xdist_group(f"truth of {model}"))  # made once
       for backend in BACKENDS for m, model in enumerate(MODELS)
       for r, rule in enumerate(RULES) for k, dtype in enumerate(DTYPES)
       if (backend, dtype) != ("reference", "float64")  # that is the truth
       and (backend != "cuda" or (m + r + k) % 2 == 0)]  # a program each, and cards have the CPU's bits: test_cuda.py


@pytest.mark.parametrize(("backend", "model", "rule", "dtype"), ALL)
def test_agrees_with_the_truth(truth, backend, model, rule, dtype):
    want = truth(model, rule)
    got = fs.train(request(model, rule, dtype, backend=backend))
    assert (got.lost == want.lost).all() and got.survived.all()
    error = np.linalg.norm(got.weights - want.weights, axis=1) / np.linalg.norm(want.weights, axis=1)
    assert error.max() < WEIGHTS[dtype]
    start = fs.train(request(model, rule, dtype, backend=backend, steps=1, save=fs.SaveAt(steps=[0])))
    np.testing.assert_allclose(got.numpy("test_loss")[:, 0], start.numpy("test_loss")[:, 0], rtol=METRIC)
    for name in want.records:
        np.testing.assert_allclose(got.numpy(name), want.numpy(name), rtol=50 * WEIGHTS[dtype])


@pytest.mark.parametrize("name", CASES)
def test_general_loop_agrees_with_the_truth(name):
    """Every instruction set and dtype against one float64 run of the definition, at every saved step."""
    want = fs.train(general(name, backend="reference"))
    size = np.linalg.norm(want.saved_weights, axis=2).max(axis=1)
    moved = np.abs(want.saved_weights[:, -1] - want.saved_weights[:, 0]).max(axis=1)
    assert want.survived.all() and (moved > 1e-3).all()
    for isa in USABLE:
        for dtype in DTYPES:
            got = fs.train(general(name, dtype, backend="cpu"), tuning=fs.Tuning(isa=isa, threads=1))
            error = np.linalg.norm(got.saved_weights - want.saved_weights, axis=2).max(axis=1) / size
            assert got.survived.all() and error.max() < WEIGHTS[dtype], (isa, dtype)
            for record in want.records:
                np.testing.assert_allclose(got.numpy(record), want.numpy(record), rtol=50 * WEIGHTS[dtype], atol=1e-9)


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("stream")])
def test_requests_come_back_from_text(name):
    run = general(name)
    assert f"N={NETWORKS} networks" in fs.plan(run).explain()
    assert codec.fingerprint(codec.decode(*codec.encode(run))) == codec.fingerprint(run)


@pytest.mark.parametrize("backend", BACKENDS)
def test_replay_follows_the_given_order(backend):
    run = request("relu2_3_21", backend=backend)
    drawn = fs.orders.PerNetwork().indices(run.seed, np.arange(19), 0, 50, 11, 1)
    replayed = fs.train(run.replace(order=fs.orders.Replay(drawn)))
    np.testing.assert_array_equal(replayed.weights, fs.train(run).weights)
    other = fs.train(run.replace(order=fs.orders.Replay((drawn + 1) % 11)))
    assert not np.allclose(other.weights, replayed.weights)


@pytest.mark.parametrize("backend", BACKENDS)
def test_step_table_equals_schedule(backend):
    run = request("diagonal_13", backend=backend)
    base, row, table = run.step_size.compile(19, run.steps)
    explicit = fs.train(run.replace(step_size=base[:, None] * table(0, run.steps)[row]))
    np.testing.assert_allclose(explicit.weights, fs.train(run).weights, rtol=1e-12)


def test_gradients_of_the_truth_are_those_of_finite_differences():
    """The witness itself has a witness: central differences of the loss."""
    for name in ("diagonal_13", "relu2_3_21"):
        run = request(name, "gd", N=1, steps=1, backend="reference", step_size=1.0)
        start = fs.plan(run).start[0]
        step = start - fs.train(run).weights[0]

        def loss(flat, model=run.model, data=run.data):
            return np.mean(0.5 * (model.forward(model.unflatten(flat), data.X) - data.y) ** 2)

        each = np.eye(len(start)) * 1e-6
        difference = np.array([(loss(start + e) - loss(start - e)) / 2e-6 for e in each])
        np.testing.assert_allclose(step, difference, atol=1e-8)
