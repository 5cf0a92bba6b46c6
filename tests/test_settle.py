"""Lost where a step itself overflows: frozen before it, weights and buffers, in every backend and launch."""

import numpy as np
import pytest
import torch
from cases import BACKENDS, DTYPES, LANES
from tiers import some

import fastsgd as fs
from fastsgd.backends.cpu import CPU
from fastsgd.execute import execute
from fastsgd.lowering.contract import UNSETTLED
from fastsgd.portable import interpreted
from fastsgd.settle import settle

M, R, L = fs.models, fs.rules, fs.losses
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # Triton's interpreter, on what overflows
D, N, T = 3, 10, 24
KICKED = np.array([-1, 0, 1, 5, -1, 8, 15, 16, 22, 23])  # the step at which each network overflows
FAR = {"float32": 1e18, "float64": 1e150}  # an input so large that a residual is in bounds and a step is not
KICK = {"float32": 1e6, "float64": 1e20}
DEEP = M.MLP(D, (6, 4), b_scale=0.3)
CASES = {  # {name: (model, rule, loss)}
    "diagonal": (M.DiagonalLinear(D, u0=0.5, v0=0.5), R.SGD(), L.Squared()),
    "relu2": (M.ReLU2(D, 21, W1_scale=0.3), R.SGD(), L.Squared()),
    "diagonal_batch": (M.DiagonalLinear(D, u0=0.5, v0=0.5), R.SGD(batch_size=2), L.Squared()),
    "relu2_batch": (M.ReLU2(D, 7, W1_scale=0.3), R.SGD(batch_size=2), L.Squared()),
    "deep": (DEEP, R.SGD(), L.Squared()),
    "momentum": (DEEP, R.SGD(momentum=0.9, nesterov=True, average=0.5), L.Squared()),
    "decay": (DEEP, R.SGD(batch_size=2, weight_decay=0.1, gradient_noise=0.1, label_noise=0.1), L.Squared()),
    "sam": (M.DiagonalLinear(D, u0=0.5, v0=0.5), R.SAM(rho=0.1), L.Squared()),
    "sam_each": (DEEP, R.SAM(rho=0.1, batch_size=2, per_sample=True, momentum=0.5), L.Squared()),
    "adam": (DEEP, R.Adam(average=0.9), L.Squared()),
    "adamw": (M.DiagonalLinear(D, u0=0.5, v0=0.5), R.Adam(weight_decay=0.1, decoupled=True), L.Squared()),
    "logistic": (M.DiagonalLinear(D, u0=0.5, v0=0.5), R.SGD(), L.Logistic()),
    "hinge": (DEEP, R.SGD(batch_size=2, average=0.5), L.Hinge()),
    "outputs": (M.MLP(D, 6, outputs=3), R.SGD(momentum=0.5), L.Squared()),
    "classes": (M.MLP(D, 6, outputs=3), R.SGD(), L.CrossEntropy()),
    "product": (M.DiagonalProduct(D, 3, start_at=0.7), R.SGD(momentum=0.3), L.Squared()),
    "autoencoder": (M.TiedAutoencoder(D, 2), R.SGD(), L.Squared()),
}
TRITON = [name for name in CASES if name not in ("autoencoder", "deep", "relu2_batch", "decay", "outputs")]


def overflowing(name, dtype="float64", **fields):
    """A run of which network k meets a huge sample and a huge step at step KICKED[k], if that is one, and overflows."""
    model, rule, loss = CASES[name]
    rng, o = np.random.default_rng(1), model.outputs
    X, batch = rng.standard_normal((6, D)), rule.batch(6)
    X[5] = np.abs(X[5]) * FAR[dtype]
    y = rng.standard_normal((6, o) if o > 1 else 6)
    if isinstance(model, M.TiedAutoencoder):
        X = np.abs(X)  # so that no output is switched off
        y = X / 2
    elif isinstance(loss, L.CrossEntropy):
        y = np.arange(6) % o
    elif not isinstance(loss, L.Squared):
        y = np.where(np.arange(6) % 2, -1.0, 1.0)  # the huge sample is on the wrong side
    order, steps = rng.integers(0, 5, (N, T, batch)), np.full((N, T), 0.01)
    who = np.flatnonzero(KICKED >= 0)
    order[who, KICKED[who]], steps[who, KICKED[who]] = 5, KICK[dtype]
    if not isinstance(loss, L.Squared):  # their slopes do not grow with the output
        steps[who, KICKED[who]] = np.finfo(dtype).max / 2
    start = np.abs(fs.plan(fs.Run(model, fs.Dataset(X, y), R.SGD(), 1.0, 1, networks=N, loss=loss, dtype="float64",
                                  seed=2, backend="reference")).start)  # so that the huge sample is seen
    init = {k: a.astype(dtype) for k, a in model.unflatten(start).items()}
    if isinstance(loss, L.CrossEntropy):
        init["W2"][:, 5 % o] *= -1  # and its class is not the likely one
    given = {"metrics": (fs.metrics.ParameterNorm(),), "save": fs.SaveAt(linear=2), "seed": 2}
    return fs.Run(**({"model": model, "data": fs.Dataset(X, y).astype(dtype), "rule": rule, "step_size": steps,
                      "steps": T, "order": fs.orders.Replay(order), "loss": loss, "dtype": dtype,
                      "init": init} | given | fields))


def end(run, tuning=None):
    """(Result, buffers at the end)."""
    done = []
    result = execute(fs.plan(run, tuning), on_launch=lambda now: done.append(now.buffers.copy()))
    return result, done[-1]


def check(run, tuning=None, alone=(3, 6)):
    """Frozen before the step that overflows, to the bit; returns what `end` does."""
    result, buffers = end(run, tuning)
    np.testing.assert_array_equal(result.lost, KICKED)
    assert np.isfinite(result.weights).all() and np.isfinite(buffers).all()
    for k in alone:
        t, order, table = KICKED[k], run.order.table[:, :KICKED[k]], run.step_size.values[:, :KICKED[k]]
        short = run.replace(steps=int(t), ids=[k], order=fs.orders.Replay(order), step_size=table, save=None)
        before, kept = end(short, tuning)
        assert before.survived.all() and before.weights[0].tobytes() == result.weights[k].tobytes()
        assert kept[0].tobytes() == buffers[k].tobytes()
    norm = result.numpy("norm")
    np.testing.assert_array_equal(np.isnan(norm), (KICKED >= 0)[:, None] & (KICKED[:, None] < result.steps))
    return result, buffers


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_lost_before_the_step_that_overflows(name, dtype, backend):
    result, buffers = check(overflowing(name, dtype, backend=backend))
    if backend != "cpu":
        want, carried = end(overflowing(name, dtype, backend="cpu"))
        near = {"rtol": 1e-12, "atol": 1e-12} if dtype == "float64" else {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(result.weights, want.weights, **near)
        np.testing.assert_allclose(buffers, carried, **near)
    if backend == "cuda":
        assert result.weights.tobytes() == want.weights.tobytes() and buffers.tobytes() == carried.tobytes()


@pytest.mark.skipif(not (interpreted() or torch.cuda.is_available()), reason="no GPU, not interpreted")
@pytest.mark.parametrize("name", some(TRITON, 3))
def test_lost_before_the_step_that_overflows_in_triton(name):
    pytest.importorskip("triton")
    result, _ = check(overflowing(name, "float32", backend="triton"), fs.Tuning(segment=9), alone=(3,))
    want = fs.train(overflowing(name, "float32", backend="cpu"))
    np.testing.assert_allclose(result.weights, want.weights, 1e-4, 1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_what_is_lost_depends_on_nothing_but_the_run(name, dtype):
    """Launches, threads, layouts, saved steps, company: none of them changes a bit."""
    run = overflowing(name, dtype)
    want, carried = end(run)
    choices = [fs.Tuning(segment=1), fs.Tuning(segment=7, threads=3), fs.Tuning(lanes=1, team=1, threads=1)]
    choices += [fs.Tuning(lanes=LANES[dtype], threads=2)]
    for tuning in choices:
        got, buffers = end(run, tuning)
        assert got.lost.tobytes() == want.lost.tobytes() and got.weights.tobytes() == want.weights.tobytes()
        assert buffers.tobytes() == carried.tobytes()
    for change in ({"save": fs.SaveAt(steps=[0, T])}, {"save": fs.SaveAt(linear=T + 1)}):
        got, buffers = end(run.replace(**change))
        assert got.lost.tobytes() == want.lost.tobytes() and got.weights.tobytes() == want.weights.tobytes()
        assert buffers.tobytes() == carried.tobytes()
    some, buffers = end(run.replace(ids=[7, 3, 4]))
    assert some.lost.tolist() == KICKED[[7, 3, 4]].tolist() and buffers.tobytes() == carried[[7, 3, 4]].tobytes()
    assert some.weights.tobytes() == want.weights[[7, 3, 4]].tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_weight_that_no_sample_sees(backend):
    """A unit's weights become -inf: it is off for good, and every residual from then on is in bounds."""
    model = M.MLP(1, 2, bias=False, fixed=("W2",))
    data = fs.Dataset(np.array([[1.0], [2.0], [1e150]]), np.zeros(3))
    run = fs.Run(model, data, R.SGD(), np.where(np.arange(12) == 5, 1e20, 1e-3)[None], 12, dtype="float64",
                 backend=backend, order=fs.orders.Replay(np.where(np.arange(12) == 5, 2, np.arange(12) % 2)),
                 init={"W1": np.array([[0.5], [-0.5]]), "W2": np.array([[1.0, 1.0]])})
    got = [fs.train(run, tuning=fs.Tuning(segment=segment)) for segment in (None, 1, 4)]
    assert all(result.lost.tolist() == [5] for result in got)
    assert all(result.weights.tobytes() == got[0].weights.tobytes() for result in got)
    assert 0.4 < got[0].weights[0, 0] < 0.5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", [R.Adam(), R.SGD(momentum=0.9), R.SGD(momentum=0.9, average=0.5)])
def test_a_buffer_alone(rule, backend):
    """Adam's second moment overflows where its step is small; a momentum does where the step size is tiny."""
    x = np.float32(1e13 if isinstance(rule, R.Adam) else 1.5e19)
    run = fs.Run(M.MLP(1, (), bias=False), fs.Dataset(np.array([[x]]), np.zeros(1, np.float32)), rule, 1e-44, 9,
                 init={"W1": np.ones((1, 1), np.float32)}, backend=backend)
    result, buffers = end(run)
    assert result.lost[0] == (0 if isinstance(rule, R.Adam) else 1)
    assert np.isfinite(result.weights).all() and np.isfinite(buffers).all()


def test_one_more_launch_of_those_that_overflow_at_most(monkeypatch):
    moved, advance = [], CPU.advance

    def counted(self, state, segment):
        moved.append((segment.t1 - segment.t0) * int((state.lost < 0).sum()))
        advance(self, state, segment)

    monkeypatch.setattr(CPU, "advance", counted)
    run = overflowing("momentum", save=None)
    fs.train(run, tuning=fs.Tuning(segment=T))
    broken = int((KICKED >= 0).sum())
    assert moved[0] == N * T and moved[1] == broken * T // 2 and sum(moved[1:]) <= broken * T


def test_a_stream_is_not_asked_twice():
    asked = []

    def made(ids, t0, t1, batch):
        asked.extend(range(t0, t1))
        X = np.ones((len(ids), t1 - t0, batch, 1))
        X[:, [t - t0 for t in range(t0, t1) if t == 11]] = 1e150
        return X, 0 * X[..., 0]

    steps = np.where(np.arange(20) == 11, 1e20, 0.01)[None].repeat(2, 0)
    run = fs.Run(M.MLP(1, (), bias=False), fs.data.Stream(1, made), R.SGD(), steps, 20, dtype="float64",
                 init={"W1": np.ones((1, 1))})
    result = fs.train(run, tuning=fs.Tuning(segment=9))
    assert result.lost.tolist() == [11, 11] and sorted(asked) == list(range(18))


def test_an_interrupt_meanwhile_leaves_a_checkpoint_to_resume(tmp_path, monkeypatch):
    run, path = overflowing("momentum", save=fs.SaveAt(linear=5)), tmp_path / "run.ckpt"
    want, tuning = fs.train(run), fs.Tuning(segment=4)
    part, seen = CPU.advance, []

    def interrupted(self, state, segment):
        seen.append(segment)
        if len(seen) == 6:
            assert (state.lost == 0).any(), "others are held still"
            raise KeyboardInterrupt
        part(self, state, segment)

    monkeypatch.setattr(CPU, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fs.train(run, checkpoint=path, tuning=tuning)
    monkeypatch.undo()
    got = fs.resume(path)
    assert got.lost.tobytes() == want.lost.tobytes() and got.weights.tobytes() == want.weights.tobytes()
    np.testing.assert_array_equal(got.numpy("norm"), want.numpy("norm"))


def test_what_was_lost_before_stays_as_it_was():
    """Settling moves nobody else: not the lost, nor those that came through."""
    plan = fs.plan(overflowing("momentum"), fs.Tuning(threads=1))
    backend, run = CPU(), plan.segment(0, T)
    state = backend.load(plan, plan.start, np.full(N, -1), plan.fresh_buffers())
    state.lost[6] = 3
    backend.advance(state, run)
    unsettled = state.lost == UNSETTLED
    assert unsettled.tolist() == [k >= 0 and k != KICKED[6] for k in KICKED]
    assert (state.weights[unsettled] == plan.start[unsettled]).all() and (state.weights[6] == plan.start[6]).all()
    others = state.weights[~unsettled].copy()
    settle(backend, state, run)
    assert state.lost.tolist() == [3 if k == KICKED[6] else k for k in KICKED]
    assert (state.weights[~unsettled] == others).all()
