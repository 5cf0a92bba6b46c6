"""Gradient flow: against scipy's integrators, the reference, and itself in other company."""

import numpy as np
import pytest
import torch
from general_cases import EACH, NETWORKS, D, general, labelled
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from tiers import some

import fastsgd as fs
from fastsgd.backends.cpu import CPU
from fastsgd.native import native

M, R, L = fs.models, fs.rules, fs.losses
CPU_LANES = native().lanes["float64"]
TIGHT = R.Flow(rtol=1e-10, atol=1e-12)
TIME = 3.0
TIED = M.TiedAutoencoder(D, 2)
FAMILIES = {
    "diagonal": M.DiagonalLinear(D, u0=EACH, v0=0.3), "product": M.DiagonalProduct(D, 3, start_at=(0.5, EACH, 0.4)),
    "power": M.DiagonalPower(D, 3, w0=0.6, z0=EACH), "autoencoder": TIED,
    "mlp": M.MLP(D, (6, 4), activation="tanh", b_scale=0.3), "deep": M.MLP(D, (4, 3, 3), activation="erf"),
    "fixed": M.MLP(D, (6,), activation="softplus", fixed=("W2", "b1")), "linear": M.MLP(D, (), bias=False),
    "square": M.MLP(D, (3,), activation="square"), "outputs": M.MLP(D, (6,), outputs=3, activation="sigmoid"),
}
LOSSES = {"weights": (M.MLP(D, 6, outputs=3, activation="tanh"), L.Squared(0.5, weights=[1, 2, 0.5])),
          "logistic": (M.MLP(D, 6, activation="tanh"), L.Logistic(1.5)),
          "cross_entropy": (M.MLP(D, 6, outputs=4, activation="tanh"), L.CrossEntropy(0.7)),
          "hinge": (M.MLP(D, 6, activation="tanh"), L.Hinge(0.5))}


def flow_of(model, loss=None, **changes):
    return general({"model": model, "rule": TIGHT, "loss": loss or L.Squared()},
                   **{"step_size": TIME / 3, "steps": 3, "networks": NETWORKS, "backend": "cpu",
                      "metrics": fs.metrics.FlowSteps(), "save": fs.SaveAt(linear=4, params=True)} | changes)


def field(run, k):
    """-grad L of network k, by torch."""
    X, y = (torch.tensor(a) for a in (run.data.X, run.data.y))
    free = np.concatenate([np.full(int(np.prod(shape)), run.model.trained(name))
                           for name, shape in run.model.shapes().items()])
    decay = float(np.broadcast_to(run.rule.weight_decay, NETWORKS)[k])

    def slope(t, w):
        w = torch.tensor(w, requires_grad=True)
        f = run.model.forward(run.model.unflatten(w), X)
        value = run.loss.value(f, y, run.model.outputs).mean() + decay / 2 * (w**2).sum()
        if run.rule.penalty is not None:
            value = value + run.rule.penalty.function(run.model.unflatten(w))
        return -torch.autograd.grad(value, w)[0].numpy() * free

    return slope


def by_scipy(run, start, k, method="DOP853", rtol=1e-12, atol=1e-14, time=TIME):
    return solve_ivp(field(run, k), (0, time), start, method=method, rtol=rtol, atol=atol)


def above_its_kinks():
    """An autoencoder's flow whose ReLU units stay on: biases start at 9, where its labels are."""
    start, X = TIED.unflatten(TIED.start(0, np.arange(NETWORKS))), labelled(TIED, L.Squared()).X
    return {"data": fs.Dataset(X, X + 9.0), "init": {"W": start["W"], "b": start["b"] + 9.0}}


CASES = {name: flow_of(model, **(above_its_kinks() if model is TIED else {})) for name, model in FAMILIES.items()} | {
    name: flow_of(*pair) for name, pair in LOSSES.items()} | {
    "decay": flow_of(FAMILIES["fixed"], rule=R.Flow(rtol=1e-10, atol=1e-12, weight_decay=EACH)),
    "penalty": flow_of(FAMILIES["mlp"], rule=R.Flow(rtol=1e-10, atol=1e-12, penalty=lambda p: (p["W1"]**4).sum())),
    "traced": flow_of(M.Function(lambda p, x: torch.sin(p["a"] @ x) * p["b"], D, {"a": (D,), "b": ()},
                                 start={"a": (0.3, 0.5), "b": (1.0, 0.1)})),
    "traced_loss": flow_of(FAMILIES["mlp"], L.Function(lambda f, y: torch.log(torch.cosh(f - y)))),
}


@pytest.mark.parametrize("name", some([name for name in CASES if name != "hinge"], 3))  # which has jumps: see below
def test_weights_are_those_of_another_integrator(name):
    run = CASES[name]
    got = fs.train(run)
    for k in (5, NETWORKS - 1):
        want = by_scipy(run, got.saved_weights[k, 0], k).y[:, -1]
        np.testing.assert_allclose(got.weights[k], want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", some(CASES, 3, 1))
def test_the_reference_goes_the_same_steps(name):
    run = CASES[name].replace(rule=R.Flow(rtol=1e-6, atol=1e-8, weight_decay=CASES[name].rule.weight_decay,
                                          penalty=CASES[name].rule.penalty,
                                          most=60 if name == "hinge" else 300))  # hinges have flows that slide
    got, want = fs.train(run), fs.train(run.replace(backend="reference"))
    np.testing.assert_allclose(got.weights, want.weights, rtol=1e-9, atol=1e-10)
    np.testing.assert_array_equal(got.lost, want.lost)
    assert (got.lost < 0).any()
    np.testing.assert_allclose(got.numpy("flow_steps"), want.numpy("flow_steps"), rtol=0, atol=2 * (name == "hinge"))


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.sampled_from(("tanh", "erf", "softplus", "identity")),
       st.floats(0.1, 20.0), st.floats(-9, -4), st.integers(0, 99), st.booleans())
def test_steps_are_scipys(N, width, activation, time, digits, seed, lanes):
    """Every number of networks against the lane count; scipy's RK45 is the same pair with the same step control."""
    rng = np.random.default_rng(seed)
    data = fs.Dataset(rng.standard_normal((6, 3)), rng.standard_normal(6))
    rtol, atol = 10.0**digits, 10.0**(digits - 2)
    run = fs.Run(M.MLP(3, width, activation=activation), data, R.Flow(rtol=rtol, atol=atol), time, 1, networks=N,
                 dtype="float64", seed=seed, backend="cpu", save=fs.SaveAt(steps=[0, 1], params=True))
    got = fs.train(run, tuning=fs.Tuning(lanes=CPU_LANES if lanes else 1, threads=2))
    for k in {0, N - 1}:
        want = by_scipy(run, got.saved_weights[k, 0], k, "RK45", rtol, atol, time)
        np.testing.assert_allclose(got.weights[k], want.y[:, -1], rtol=1e-9, atol=1e-10)
        assert got.buffers[k, 1, 0] == len(want.t) - 1
        assert 6 * (got.buffers[k, 1, 0] + got.buffers[k, 2, 0]) + 2 == want.nfev



@pytest.mark.parametrize("N", range(1, 18))
def test_bits_are_those_of_a_network_alone(N):
    run = flow_of(M.MLP(D, 3, activation="tanh"), networks=N, rule=R.Flow(), metrics=())
    whole = fs.train(run, tuning=fs.Tuning(lanes=CPU_LANES, threads=2))
    for other in (fs.train(run, tuning=fs.Tuning(lanes=1, threads=1)),
                  fs.train(run, tuning=fs.Tuning(lanes=CPU_LANES, threads=1, segment=1))):
        np.testing.assert_array_equal(whole.saved_weights, other.saved_weights)
        np.testing.assert_array_equal(whole.buffers, other.buffers)
    k = N // 2
    alone = fs.train(run.replace(ids=[k]))
    np.testing.assert_array_equal(alone.weights[0], whole.weights[k])


def test_going_on_files_and_checkpoints_have_the_same_bits(tmp_path):
    run = flow_of(FAMILIES["mlp"], steps=6, save=fs.SaveAt(linear=4))
    want, half = fs.train(run), fs.train(run.replace(steps=2))
    half.save(tmp_path / "half.npz")
    for got in (fs.extend(half, 6), fs.extend(fs.Result.load(tmp_path / "half.npz"), 6), fs.fork(half, steps=6),
                fs.train(run, checkpoint=tmp_path / "it.ckpt"), fs.resume(tmp_path / "it.ckpt")):
        np.testing.assert_array_equal(got.weights, want.weights)
        np.testing.assert_array_equal(got.buffers, want.buffers)


@pytest.mark.parametrize("N", some((9, 1, 3, 7, 5, 6), 3))
def test_each_network_has_a_data_set_of_its_own(N):
    model, rng = FAMILIES["mlp"], np.random.default_rng(0)
    X, y = rng.standard_normal((3, 6, D)), rng.standard_normal((3, 6))
    which = np.arange(N) % 3
    run = flow_of(model, data=fs.Dataset(X, y, which=which), networks=N, rule=R.Flow(), metrics=fs.metrics.TrainLoss())
    for backend in ("cpu", "reference"):
        got = fs.train(run.replace(backend=backend))
        for k in range(N):
            alone = fs.train(run.replace(data=fs.Dataset(X[which[k]], y[which[k]]), ids=[k]))
            np.testing.assert_allclose(got.weights[k], alone.weights[0], rtol=0 if backend == "cpu" else 1e-9)
            np.testing.assert_allclose(got.numpy("train_loss")[k], alone.numpy("train_loss")[0], rtol=1e-9)


def test_each_network_has_its_own_tolerance_and_times():
    model, data = FAMILIES["mlp"], labelled(FAMILIES["mlp"], L.Squared())
    got = fs.flow(model, data, np.linspace(1, 3, 4)[:, None] * np.array([0.5, 1.0]), rtol=[1e-3, 1e-6, 1e-9, 1e-12],
                  atol=[1e-3, 1e-6, 1e-9, 1e-12])
    for k, rtol in enumerate((1e-3, 1e-6, 1e-9, 1e-12)):
        alone = fs.flow(model, data, np.linspace(1, 3, 4)[k] * np.array([0.5, 1.0]), rtol=rtol, atol=rtol, ids=[k],
                        networks=4)
        np.testing.assert_array_equal(alone.weights[0], got.weights[k])
    taken = got.numpy("flow_steps")[:, -1, 0]
    assert (np.diff(taken) > 0).all() and got.numpy("flow_steps").shape == (4, 3, 2)


def test_errors_fall_with_the_tolerance():
    run = flow_of(FAMILIES["deep"])
    exact = fs.train(run.replace(rule=R.Flow(rtol=1e-13, atol=1e-14))).weights
    off = [np.abs(fs.train(run.replace(rule=R.Flow(rtol=r, atol=r))).weights - exact).max() for r in (1e-4, 1e-6, 1e-8)]
    assert off[0] < 1e-2 and off[1] < 1e-4 and off[2] < 1e-6


def test_gradient_descent_comes_to_the_flow_as_its_steps_shrink():
    """The distance is of first order in the step size."""
    run = flow_of(FAMILIES["mlp"], metrics=(), save=None)
    flow = fs.train(run).weights
    off = [np.abs(fs.train(run.replace(rule=R.GD(), step_size=TIME / T, steps=T)).weights - flow).max(axis=1)
           for T in (500, 1000, 2000)]
    np.testing.assert_allclose(off[0] / off[1], 2, rtol=0.05)
    np.testing.assert_allclose(off[1] / off[2], 2, rtol=0.03)


def test_a_flow_along_a_line_is_known_in_closed_form():
    """u v of a diagonal network with one input x = 1, y: dz/dt = (y - z) z', by conserved u^2 - v^2 = 0: logistic."""
    data = fs.Dataset(np.ones((1, 1)), np.array([0.8]))
    a = np.geomspace(1e-4, 0.5, 7)
    got = fs.flow(M.DiagonalLinear(1, u0=a, v0=a), data, [1.0, 5.0, 20.0], rtol=1e-12, atol=1e-14)
    z0, t = a[:, None]**2, np.array([1.0, 5.0, 20.0])
    z = 0.8 / (1 + (0.8 / z0 - 1) * np.exp(-2 * 0.8 * t))  # dz/dt = 2 z (y - z)
    saved = got.saved_weights[:, 1:]
    np.testing.assert_allclose(saved[..., 0] * saved[..., 1], z, rtol=1e-10)


def test_kinks_cost_steps_as_they_do_scipy():
    """At a kink the gradient jumps: steps are refused until one is short enough to go across it."""
    rule = R.Flow(rtol=1e-4, atol=1e-5)
    run = flow_of(M.ReLU2(D, 5, b1_scale=0.3), networks=5, rule=rule, step_size=TIME, steps=1,
                  save=fs.SaveAt(steps=[0, 1], params=True))
    got = fs.train(run)
    for k in range(5):
        want = by_scipy(run, got.saved_weights[k, 0], k, "RK45", 1e-4, 1e-5)
        np.testing.assert_allclose(got.weights[k], want.y[:, -1], rtol=1e-7, atol=1e-8)
        assert got.buffers[k, 1, 0] == len(want.t) - 1
    assert got.numpy("flow_steps")[:, -1, 1].max() > 0


# ---- networks that are lost


def explosive(most=100_000, steps=20, **changes):
    """dw/dt = 2 x w^2 with x = 1: w = 1 / (1 / w0 - 2 t), infinite at t = 1 / (2 w0)."""
    model = M.Function(lambda p, x: p["w"] * x[0], 1, {"w": ()})
    loss = L.Function(lambda f, y: -2 / 3 * f**3 + 0 * y)
    data = fs.Dataset(np.ones((2, 1)), np.zeros(2))
    start = {"w": np.array([0.2, 1.0, 0.1, 2.0, -1.0, 0.9])}
    return fs.Run(model, data, R.Flow(rtol=1e-9, atol=1e-12, most=most), 0.1, steps, init=start,
                  loss=loss, dtype="float64", save=fs.SaveAt(linear=steps + 1, params=True), **changes)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_flow_that_ends_in_finite_time_is_lost_there(backend):
    steps, most = (20, 100_000) if backend == "cpu" else (6, 30)  # the reference is slow
    run = explosive(most, steps, backend=backend)
    got = fs.train(run)
    w0 = run.init["w"]
    end = 1 / (2 * w0)
    assert got.lost.tolist() == [-1, 4, -1, 2, -1, 5]
    t = 0.1 * np.arange(steps + 1)
    for k, step in enumerate(got.lost):
        there = got.saved_weights[k, :step + 1 if step >= 0 else steps + 1, 0]
        np.testing.assert_allclose(there, 1 / (1 / w0[k] - 2 * t[:len(there)]), rtol=1e-6)
        assert np.isnan(got.saved_weights[k, len(there):]).all()
        if step >= 0:
            assert step == int(np.floor(end[k] / 0.1 - 1e-9)) and got.weights[k, 0] == there[-1]
    if backend == "cpu":
        survivors = fs.train(run.replace(init={"w": w0[[0, 2, 4]]}))
        np.testing.assert_array_equal(survivors.weights, got.weights[[0, 2, 4]])
        for lanes in (1, CPU_LANES):
            again = fs.train(run, tuning=fs.Tuning(lanes=lanes, threads=1, segment=3))
            np.testing.assert_array_equal(again.weights, got.weights)
            np.testing.assert_array_equal(again.buffers, got.buffers)
            np.testing.assert_array_equal(again.lost, got.lost)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_bounds_and_a_limit_on_steps(backend):
    run = flow_of(FAMILIES["mlp"], backend=backend, rule=R.Flow(most=2))
    assert (fs.train(run).lost == 0).all()
    model = M.MLP(D, 3, activation="tanh")
    out = np.abs(model.predict(fs.train(flow_of(model, steps=1)).saved_weights[:, 0], run.data.X) - run.data.y).max(1)
    bounded = fs.train(flow_of(model, backend=backend, rule=R.Flow(lost_above=np.sort(out)[4].item())))
    assert (bounded.lost[out > np.sort(out)[4]] == 0).all()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("knob", [{"rtol": 1e-3}, {"atol": 1e-2}, {"most": 3}, {"weight_decay": 0.1},
                                  {"lost_above": 0.1}, {"penalty": lambda p: (p["u"]**2).sum()}],
                         ids=lambda knob: next(iter(knob)))
def test_every_knob_moves_every_backend(knob, backend):
    run = flow_of(M.DiagonalLinear(D, u0=0.5, v0=0.2), rule=R.Flow(), networks=2, backend=backend)
    before, after = fs.train(run), fs.train(run.replace(rule=R.Flow(**knob)))
    assert (before.weights != after.weights).any()


def test_single_precision():
    run = flow_of(FAMILIES["mlp"], dtype="float32", rule=R.Flow(rtol=1e-5, atol=1e-6))
    want = fs.train(flow_of(FAMILIES["mlp"])).weights
    np.testing.assert_allclose(fs.train(run).weights, want, atol=2e-4)


# ---- what is refused


def test_what_flow_has_not_is_refused():
    for rule, message in ((R.Flow(label_noise=0.1), "Flow has no label_noise"), (R.Flow(average=0.5), "no average"),
                          (R.Flow(gradient_noise=0.1), "no gradient_noise"), (R.Flow(normalised=True), "normalised"),
                          (R.Flow(clip_norm=1.0), "no clip_norm"), (R.Flow(step_scale={"W1": 0.5}), "no step_scale"),
                          (R.Flow(weight_decay={"W1": 0.5}), "one weight decay for all")):
        with pytest.raises(fs.PlanError, match=message):
            fs.plan(flow_of(FAMILIES["mlp"], rule=rule))
    with pytest.raises(fs.PlanError, match="less than float32 can tell"):
        fs.plan(flow_of(FAMILIES["mlp"], dtype="float32"))
    for fields in ({"rtol": 0}, {"atol": -1}, {"most": 0}, {"rtol": np.nan}, {"rtol": "x"}):
        with pytest.raises(fs.SpecError, match=f"rule.{next(iter(fields))}"):
            R.Flow(**fields)
    data = labelled(FAMILIES["mlp"], L.Squared())
    for times in ([], [0.0, 1.0], [2.0, 1.0], [-1.0], [np.inf], [[1.0, 1.0]], "x", 3.0):
        with pytest.raises(fs.SpecError, match="times"):
            fs.flow(FAMILIES["mlp"], data, times)
    with pytest.raises(fs.PlanError, match="flow_steps is not possible here: GD does not carry taken, refused"):
        fs.plan(flow_of(FAMILIES["mlp"], rule=R.GD()))
    with pytest.raises(fs.SpecError, match="flow_steps is of what a rule carries"):
        fs.functional.measure(fs.metrics.FlowSteps(), FAMILIES["mlp"], np.zeros(FAMILIES["mlp"].P), data)
    with pytest.raises(fs.PlanError, match="takes all samples at every step"):
        fs.plan(flow_of(FAMILIES["mlp"], data=fs.data.Fresh(D, FAMILIES["linear"], {"W1": np.ones((1, D))})))


def test_cards_say_that_they_have_no_kernel():
    from fastsgd.backends.cuda import layout
    from fastsgd.backends.triton import backend
    from fastsgd.lowering.work import Work

    work = Work(flow_of(FAMILIES["mlp"]))
    assert layout.why_not(work) == backend._no_kernel(work) == "gradient flow has kernels on the CPU alone"


def test_the_kernel_takes_arrays_as_they_are_or_not_at_all():
    plan = fs.plan(flow_of(FAMILIES["mlp"]))
    told = []

    class Recorder:
        def advance_general_float64(self, what):
            told.append(what)

    state = CPU().load(plan, plan.start, np.full(plan.N, -1), plan.fresh_buffers())
    module, state.module = state.module, Recorder()
    CPU().advance(state, plan.segment(0, 2))
    for name, spoil in (("rtol", lambda a: a[:-1].copy()), ("atol", lambda a: a.astype(np.float32)),
                        ("carried", lambda a: a[:, :2].copy()), ("most", lambda a: 0)):
        with pytest.raises((ValueError, TypeError)):
            module.advance_general_float64(told[0] | {"flow": told[0]["flow"] | {name: spoil(told[0]["flow"][name])}})
    with pytest.raises(ValueError):
        module.advance_general_float64(told[0] | {"full": False})


def test_saved_times_are_a_coordinate():
    model, data = FAMILIES["mlp"], labelled(FAMILIES["mlp"], L.Squared())
    times = np.geomspace(0.1, 5, 4)
    shared = fs.flow(model, data, times, networks=3).to_xarray()
    assert shared["time"].dims == ("step",)
    np.testing.assert_allclose(shared["time"], [0, *times], rtol=1e-14)
    own = fs.flow(model, data, times * np.array([[1.0], [2], [3]]), ids=[2, 0])
    np.testing.assert_allclose(own.to_xarray()["time"], [[0, *(3 * times)], [0, *times]], rtol=1e-14)
    np.testing.assert_array_equal(own.to_pandas()["time"], own.to_xarray()["time"].values.ravel())
    run = flow_of(model, step_size=fs.StepSize([0.5, 0.25, 1.0], decay_at=0.5, decay_by=2.0), steps=4, networks=None,
                  save=fs.SaveAt(steps=[0, 3]))
    np.testing.assert_allclose(fs.train(run).to_xarray()["time"], [[0, 1.25], [0, 0.625], [0, 2.5]])
    assert "time" not in fs.train(run.replace(rule=R.GD(), metrics=(), step_size=0.01)).to_xarray()


def test_a_plan_counts_the_steps_of_a_few_networks(monkeypatch):
    """They are what explain() and expected rest on, and the run does not notice."""
    from fastsgd import probe

    monkeypatch.setattr(probe, "BUDGET", 1e9)
    for steps, time, rtol in ((1, 20.0, 1e-6), (10, 0.5, 1e-4), (400, 0.01, 1e-4)):
        run = flow_of(FAMILIES["mlp"], steps=steps, step_size=time, networks=12, rule=R.Flow(rtol=rtol), metrics=())
        plan = fs.plan(run)
        look = probe.counted(plan)
        text = plan.explain()
        result = fs.train(plan)
        each = result.buffers[:, 1:3, 0].sum(axis=1)
        assert look.share == 1 and look.members == 12 and 0.6 < look.mean / each.mean() < 1.6
        assert 0.5 < look.most / each.max() < 1.6
        assert f"for {look.mean:.4g} steps of the pair a network, counted on 12, " in text + ", "
        assert result.weights.tobytes() == fs.train(run).weights.tobytes()


def test_a_look_ends_after_a_while_and_goes_on_as_it_went(monkeypatch):
    from fastsgd import probe

    monkeypatch.setattr(probe, "BUDGET", 0.0)
    run = flow_of(FAMILIES["mlp"], steps=3, step_size=[5.0, 10.0], networks=None)
    look = probe.counted(fs.plan(run))
    assert look.share < 0.01 and look.members == 2 and look.mean >= 3 and "% of the time" in look.words


def test_expected_seconds_of_a_flow_are_for_its_steps():
    run = flow_of(FAMILIES["mlp"], steps=1, step_size=5.0, networks=300, rule=R.Flow(rtol=1e-4))
    plan = fs.plan(run)
    least, words, _ = plan.cost()
    assert "the least that a flow takes" in words and 2 * least["training"] < plan.expected["training"]
    more = fs.plan(run.replace(networks=1200), plan.tuning).expected["training"]
    assert more / plan.expected["training"] == pytest.approx(4, rel=0.3)
    fine = fs.plan(run.replace(rule=R.Flow(rtol=1e-10, atol=1e-12))).expected["training"]
    assert fine > 2 * plan.expected["training"]
    assert "measured on" in plan.explain().splitlines()[-1]
