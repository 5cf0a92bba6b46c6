"""A user's own rule: as the built-in that it writes out, the same bits however it runs, kept in files."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from general_cases import NETWORKS, D, general

import fastsgd as fs
from fastsgd.trace import rule as traced

M, R = fs.models, fs.rules
BETA = np.linspace(0.1, 0.9, NETWORKS)
NET = M.MLP(D, 4, activation="tanh", b_scale=0.3, fixed="b2")


def heavy_ball(p, g, state, lr, beta):
    m = beta * state["m"] + g
    return p - lr * m, {"m": m}


def adam(p, g, state, lr, *, t, b1, b2, epsilon):
    m, v = b1 * state["m"] + (1 - b1) * g, b2 * state["v"] + (1 - b2) * g * g
    return p - lr * (m / (1 - b1**(t + 1)) / ((v / (1 - b2**(t + 1))).sqrt() + epsilon)), {"m": m, "v": v}


def lion(p, g, state, lr, beta):
    return p - lr * torch.sign(beta * state["m"] + (1 - beta) * g), {"m": 0.99 * state["m"] + (1 - 0.99) * g}


def ball(**changes):
    return R.Function(**({"function": heavy_ball, "state": {"m": 0.0}, "constants": {"beta": BETA}} | changes))


TWINS = {  # name: (rule, the built-in, whether its operations are the same)
    "momentum": (ball(batch_size=2), R.SGD(momentum=BETA, batch_size=2), True),
    "adam": (R.Function(adam, batch_size=2, state={"m": 0, "v": 0},
                        constants={"b1": BETA, "b2": 0.99, "epsilon": 1e-8}),
             R.Adam(beta1=BETA, beta2=0.99, batch_size=2), False),  # powers of beta are formed by exp and log
    "lion": (R.Function(lion, state={"m": 0}, constants={"beta": BETA}, weight_decay=0.1, decoupled=True),
             R.Lion(beta1=BETA, weight_decay=0.1), True),
    "momentum_all": (ball(batch_size=None, average=0.5, clip_norm=0.5, gradient_noise=0.1, weight_decay={"W1": 0.1},
                          step_scale={"W2": 0.5}, localisation=0.2),
                     R.GD(momentum=BETA, average=0.5, clip_norm=0.5, gradient_noise=0.1, weight_decay={"W1": 0.1},
                          step_scale={"W2": 0.5}, localisation=0.2), True),
}


def bits(result):
    return result.saved_weights.tobytes(), *(result.numpy(name).tobytes() for name in result.records)


@pytest.mark.parametrize("dtype", ("float64", "float32"))
@pytest.mark.parametrize("name", TWINS)
def test_a_rule_written_out_is_the_built_in(name, dtype):
    mine, ours, alike = TWINS[name]
    run = general({"model": NET, "rule": mine}, dtype)
    got, want = fs.train(run), fs.train(run.replace(rule=ours))
    assert got.provenance["backend"] == "cpu" and got.survived.all()
    if alike:
        assert bits(got) == bits(want)
    witness, most = fs.train(run.replace(backend="reference")), 1e-12 if dtype == "float64" else 2e-5
    for other in (want, witness):
        np.testing.assert_allclose(got.saved_weights, other.saved_weights, rtol=0, atol=most)


def test_it_is_compared_with_torch_and_said():
    text = fs.plan(general({"model": NET, "rule": TWINS["adam"][0]})).explain()
    assert "rule traced: " in text and "equal to torch.autograd at " in text and "constants.b1 0.1 .. 0.9" in text


def test_no_choice_moves_a_bit():
    run = general({"model": NET, "rule": TWINS["adam"][0]}, "float32")
    whole = fs.train(run, tuning=fs.Tuning(threads=1))
    for tuning in (fs.Tuning(threads=2, lanes=1), fs.Tuning(segment=3)):
        assert bits(fs.train(run, tuning=tuning)) == bits(whole)
    part = fs.train(run.replace(ids=[7, 3]))
    assert part.saved_weights.tobytes() == whole.saved_weights[[7, 3]].tobytes()


def test_state_begins_where_it_is_told_for_every_network():
    starts = np.linspace(-1, 1, NETWORKS)
    run = general({"model": NET, "rule": ball(state={"m": starts})}, step_size=0.03)
    assert (fs.plan(run.replace(ids=[4, 2])).fresh_buffers()[:, 0] == starts[[4, 2], None]).all()
    got = fs.train(run)
    assert (got.saved_weights != fs.train(run.replace(rule=ball())).saved_weights).any(axis=(1, 2))[:5].all()
    assert fs.train(run.replace(ids=[4, 2])).weights.tobytes() == got.weights[[4, 2]].tobytes()
    longer = fs.extend(got, steps=run.steps + 5)
    assert longer.weights.tobytes() == fs.train(run.replace(steps=run.steps + 5)).weights.tobytes()
    assert fs.fork(got, steps=run.steps + 5).weights.tobytes() == longer.weights.tobytes()
    plain = fs.train(run.replace(rule=R.SGD(), networks=NETWORKS))  # a fork to a rule whose state begins then
    assert np.isfinite(fs.fork(plain, copies=2, rule=ball(state={"m": np.repeat(starts, 2)}, constants={"beta": 0.1}),
                               steps=run.steps + 5).weights).all()


def test_every_knob_moves_the_output():
    run = general({"model": NET, "rule": ball()}, networks=NETWORKS)
    for backend in ("cpu", "reference"):
        still = bits(fs.train(run.replace(backend=backend)))
        for changes in ({"function": lion}, {"state": {"m": 0.1}}, {"constants": {"beta": 0.3}}, {"batch_size": 2},
                        {"weight_decay": 0.1}):
            assert bits(fs.train(run.replace(backend=backend, rule=ball(**changes)))) != still


def test_constants_and_state_are_axes_of_sweeps(tmp_path):
    pytest.importorskip("xarray")
    run = general({"model": NET, "rule": ball(constants={"beta": 0.5})}, step_size=0.05, save=None)
    grid = {"rule.constants.beta": [0.0, 0.3], "rule.state.m": [0.0, 0.5]}
    ds = fs.Sweep(run, grid=grid, replicas=2).run(tmp_path / "s").open()
    for cell in ((0, 0), (1, 1), (1, 0)):
        beta, m = (values[k] for values, k in zip(grid.values(), cell, strict=True))
        alone = fs.train(run.replace(rule=ball(constants={"beta": beta}, state={"m": m}), keys=np.arange(2)))
        assert np.array_equal(ds["test_loss"].values[cell], alone.numpy("test_loss"))


def test_a_stop_freezes_state_too():
    run = general({"model": NET, "rule": ball(batch_size=2)}, stop=[fs.stops.Below("train_loss", 0.6, every=4)])
    got, want = fs.train(run), fs.train(run.replace(rule=R.SGD(momentum=BETA, batch_size=2)))
    assert 0 < (got.stopped > 0).sum() < NETWORKS and (got.stopped == want.stopped).all()
    assert got.weights.tobytes() == want.weights.tobytes()


# ---- files

ALONE = """
import sys
sys.modules["torch"] = None
import fastsgd as fs
result = fs.Result.load(sys.argv[1])
assert result.run.rule.function is None
again = fs.train(result.run)
assert again.provenance["backend"] == "cpu" and again.saved_weights.tobytes() == result.saved_weights.tobytes()
assert "its function is not here" in fs.plan(result.run).explain()
assert fs.resume(sys.argv[2]).saved_weights.tobytes() == result.saved_weights.tobytes()
"""


def test_results_and_checkpoints_need_neither_the_function_nor_torch(tmp_path):
    run = general({"model": NET, "rule": TWINS["momentum"][0]})
    result = fs.train(run, checkpoint=fs.Checkpoint(tmp_path / "c", every=0), tuning=fs.Tuning(segment=5))
    result.save(tmp_path / "r.npz")
    done = subprocess.run([sys.executable, "-c", ALONE, tmp_path / "r.npz", tmp_path / "c"], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-1500:]
    back = fs.Result.load(tmp_path / "r.npz").run
    np.testing.assert_allclose(fs.train(back.replace(backend="reference")).weights, result.weights, rtol=0, atol=1e-12)
    assert replace(back.rule, constants={"beta": 0.2}).nodes()
    for changes in ({"state": {"v": 0.0}}, {"constants": {"other": 0.1}}, {"graph": "{}"}):
        with pytest.raises(fs.SpecError, match="graph"):
            replace(back.rule, **changes)


# ---- cards


def test_a_card_has_the_same_bits(a_card):
    run = general({"model": NET, "rule": TWINS["adam"][0]}, "float32", metrics=())
    here, there = fs.train(run), fs.train(run.replace(backend="cuda"))
    assert there.provenance["backend"] == "cuda" and there.saved_weights.tobytes() == here.saved_weights.tobytes()
    with pytest.raises(fs.PlanError, match="a thread a network"):
        fs.plan(run.replace(backend="cuda"), fs.Tuning(team=32))


def test_triton_has_no_kernel_and_says_so():
    run = general({"model": M.ReLU2(D, 6), "rule": ball()}, "float32", backend="triton")
    with pytest.raises(fs.BackendUnavailable, match="no kernel for a rule of your own"):
        fs.plan(run)


# ---- refusals


def branch(p, g, state, lr):
    if lr > 0:  # this line
        return p
    return p - lr * g


def norm(p, g, state, lr):
    return p - lr * g / g.norm()  # this line


def in_place(p, g, state, lr):
    p -= lr * g  # this line
    return p


REFUSED = {  # name: (function, fields, words)
    "branch": (branch, {}, "raised.*this line"),
    "norm": (norm, {}, "this line.*brings parameters together"),
    "mean": (lambda p, g, state, lr: p - lr * g.mean(), {}, "torch.(mean|sum): it brings parameters together"),
    "max": (lambda p, g, state, lr: p - lr * g.amax(), {}, "brings parameters together"),
    "softmax": (lambda p, g, state, lr: p - lr * torch.softmax(g, -1), {}, "brings parameters together"),
    "product": (lambda p, g, state, lr: p - lr * (p @ g), {}, "brings parameters together"),
    "sorted": (lambda p, g, state, lr: p - lr * g.sort().values, {}, "depends on others"),
    "flipped": (lambda p, g, state, lr: p - lr * g.flip(0), {}, "moves one parameter's number"),
    "first": (lambda p, g, state, lr: p - lr * g[0], {}, "moves one parameter's number"),
    "count": (lambda p, g, state, lr: p - lr * g / g.numel(), {}, "depends on the number of parameters"),
    "constant": (lambda p, g, state, lr: p - lr * torch.arange(len(g)), {}, "differ from parameter to parameter"),
    "shape": (lambda p, g, state, lr: (p - lr * g)[None], {}, r"returned p of shape \[1, 5\].*test_own_rules"),
    "outer": (lambda p, g, state, lr: p[:, None] * g, {}, "test_own_rules.*shape"),
    "missing_state": (heavy_ball, {"constants": {"beta": 0.1}}, "raised KeyError: 'm'.*the state has"),
    "lost_state": (lambda p, g, state, lr: p, {"state": {"m": 0}}, r"returned Tensor, expected \(new p, \{'m': tensor"),
    "other_state": (lambda p, g, state, lr: (p, {"v": g}), {"state": {"m": 0}}, r"returned \(p, \['v'\]\)"),
    "no_constant": (heavy_ball, {"state": {"m": 0}}, "takes beta, expected .*test_own_rules.*constants="),
    "nothing": (lambda p, g, state, lr: None, {}, "returned NoneType"),
    "precision": (lambda p, g, state, lr: (p - lr * g).double(), {}, "float64.*for parameters of torch.float32"),
    "no_function": (None, {}, "expected a function"), "number": (3, {}, "expected a function"),
    "names": (branch, {"state": {"a b": 0}}, "names as Python has them"),
    "taken": (branch, {"state": {"average": 0}}, "taken"), "taken_too": (branch, {"constants": {"lr": 0}}, "taken"),
    "infinite": (branch, {"constants": {"c": np.inf}}, r"rule\.constants\.c"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_rule_of_each_parameter(name):
    function, fields, words = REFUSED[name]
    with pytest.raises(fs.SpecError, match="(?s)" + words):
        R.Function(function, **fields)


@pytest.mark.filterwarnings("ignore::fastsgd.SlowBackendWarning")
def test_what_has_no_kernel_runs_on_the_reference_backend():
    rule = R.Function(lambda p, g, state, lr: p - lr * torch.special.i0(g) * g)
    run = general({"model": NET, "rule": rule}, metrics=())
    with pytest.raises(fs.BackendUnavailable, match=r"no kernel for the rule Function: .*test_own_rules.*has no rule"):
        fs.plan(run.replace(backend="cpu"))
    assert fs.plan(run).backend == "reference" and fs.train(run).survived.all()


@pytest.mark.filterwarnings("ignore::fastsgd.SlowBackendWarning")
@pytest.mark.parametrize("what", ["rule", "penalty", "loss", "model"])
def test_what_has_no_graph_is_in_no_file(what, tmp_path):
    def strange(*given):
        return torch.special.i0(given[0]["W1"] if isinstance(given[0], dict) else given[0]).sum()

    fields = {"rule": {"rule": R.Function(lambda p, g, state, lr: p - lr * torch.special.i0(g) * g)},
              "penalty": {"rule": R.SGD(penalty=strange)}, "loss": {"loss": fs.losses.Function(strange)},
              "model": {"model": fs.models.Function(strange, D, {"W1": (3,)})}}[what]
    run = general({"model": NET} | fields, metrics=(), step_size=1e-3, steps=2)
    with pytest.raises(fs.SpecError, match=r"has no graph, and files keep no functions: .*it has no rule"):
        fs.train(run).save(tmp_path / "r.npz")
    with pytest.raises(fs.SpecError, match="has no graph"):  # before the first step
        fs.train(run.replace(steps=10**9), checkpoint=tmp_path / "c")


def test_numbers_of_another_length_are_refused():
    with pytest.raises(fs.PlanError, match=r"rule\.constants\.beta has 3"):
        fs.plan(general({"model": NET, "rule": ball(constants={"beta": [0.1, 0.2, 0.3]})}))


@pytest.mark.parametrize(("number", "becomes"), [(1e39, "inf"), (1e-50, "0")])
def test_a_state_that_float32_does_not_have_is_refused(number, becomes):
    for value in (number, np.full(NETWORKS, number)):
        run = general({"model": NET, "rule": ball(state={"m": value})}, "float32")
        with pytest.raises(fs.PlanError, match=f"rule.state.m: .* becomes {becomes} in float32"):
            fs.plan(run)


def test_what_was_traced_is_what_runs():
    graph = traced.graph(traced.Given(heavy_ball, ("m",), ("beta",)))
    assert list(graph) == ["p", "state.m"] and all(node.shape == () for node in graph.values())
