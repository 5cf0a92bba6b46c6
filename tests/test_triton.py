"""The Triton backend: conformance, bits, lost runs, orders, metrics, refusals. Interpreted where there is no GPU."""

from functools import cache

import numpy as np
import pytest
import torch
from cases import MODELS, problem
from general_cases import CASES, NETWORKS, POINTS, RULES, D, general
from tiers import some
from tolerances import METRIC, WEIGHTS

import fastsgd as fs
from fastsgd.backends.triton import Triton
from fastsgd.lowering.work import Work
from fastsgd.measure import place
from fastsgd.portable import interpreted, kernel

pytest.importorskip("triton")
pytestmark = [pytest.mark.skipif(not (interpreted() or torch.cuda.is_available()), reason="no GPU, not interpreted"),
              pytest.mark.filterwarnings("ignore::RuntimeWarning")]  # the interpreter's NumPy, on runs that are lost
STEPS = 5  # two Philox blocks, the second broken off
M, R, L, orders = fs.models, fs.rules, fs.losses, fs.orders
BACKEND = Triton()
TABLE = np.random.default_rng(2).integers(0, POINTS, (1, STEPS, 3))
ONLY = {  # what other cases of the table do not have
    "diagonal": {"model": M.DiagonalLinear(D, u0=0.5, v0=0.2)},
    "diagonal_1": {"model": MODELS["diagonal_1"]}, "diagonal_70": {"model": MODELS["diagonal_70"]},
    "relu2_1_1": {"model": MODELS["relu2_1_1"]}, "relu2_7_70": {"model": MODELS["relu2_7_70"]},
    "paper_5_10_10_1": {"model": M.MLP(D, (10, 10), b_scale=0.3)},
    "fixed": {"model": M.MLP(D, (6, 4), fixed=("W2", "b1"), b_scale=0.3), "rule": R.SGD(batch_size=2)},
    "sigmoid_batch": {"model": M.MLP(D, (6, 5), activation="sigmoid"), "rule": R.GD()},
    "gd": {"model": M.ReLU2(D, 6), "rule": R.GD()},
    "gd_product": {"model": M.DiagonalProduct(D, 3, 0.5), "rule": R.GD()},
    "single_distinct": {"model": M.ReLU2(D, 6), "order": orders.PerNetwork(replace=False)},
    "single_reshuffle": {"model": M.DiagonalLinear(D, u0=0.5), "order": orders.Reshuffle()},
    "single_common": {"model": M.DiagonalLinear(D, u0=0.5), "order": orders.Common(7)},
    "replay_common": {"model": M.ReLU2(D, 6), "order": orders.Replay(TABLE), "rule": R.SGD(batch_size=3)},
    "replay_single": {"model": M.ReLU2(D, 6), "order": orders.Replay(TABLE[0, :, 0])},
    "schedules": {"model": M.ReLU2(D, 6), "step_size": np.random.default_rng(0).uniform(0.01, 0.1, (NETWORKS, STEPS))},
    "noise_single": {"model": M.ReLU2(D, 6), "rule": R.SGD(label_noise=fs.LabelNoise(0.4, "rademacher"))},
    "full_loss": {"model": M.ReLU2(D, 6), "loss": fs.losses.Squared.full()},
    "outputs_linear": {"model": M.MLP(D, (), outputs=3, b_scale=0.3), "rule": R.SGD(label_noise=0.4)},
    "outputs_17": {"model": M.MLP(D, (4, 3, 5), outputs=17, activation="tanh", bias=(True, True, True, False)),
                   "rule": R.SGD(batch_size=2, label_noise=fs.LabelNoise(0.4, "rademacher"))},
    "outputs_weights": {"model": M.MLP(D, 6, outputs=3, fixed=("b2",)), "loss": L.Squared(weights=[1, 0, 2.5]),
                        "rule": R.GD(label_noise=0.2)},
    "classes_linear": {"model": M.MLP(D, (), outputs=3), "loss": L.CrossEntropy(2.0)},
    "classes_deep": {"model": M.MLP(D, (6, 4), outputs=5, b_scale=0.3), "loss": L.CrossEntropy(),
                     "rule": R.SGD(batch_size=2, momentum=0.5, normalised=True)},
}
LEFT_OUT = ("floor", "label_table", "replay", "sde_schedule", "average_saved")  # their steps are written into them


@cache
def served():
    """Names of the shared cases that Triton has kernels for."""
    return [name for name in CASES if not name.startswith(LEFT_OUT) and _serves(general(name, backend="triton"))]


def _serves(run):
    from fastsgd.backends.triton.backend import _no_kernel

    return _no_kernel(Work(run)) is None


def run_of(name, dtype="float64", **fields):
    case = ONLY.get(name, name)
    save = fs.SaveAt(steps=[3, STEPS], params=True)  # two launches, the second from the middle of a block
    return general(case, dtype, **({"steps": STEPS, "save": save, "metrics": ()} | fields))


def distance(got, want):
    size = np.linalg.norm(want.saved_weights, axis=2).max(axis=1)
    return (np.linalg.norm(got.saved_weights - want.saved_weights, axis=2).max(axis=1) / size).max()


@pytest.mark.parametrize("name", [*ONLY, *some(served(), 3)])
def test_agrees_with_the_truth_and_with_the_cpu(name):
    """One program with all networks, against autograd in float64, and against the CPU on the same draws."""
    want = fs.train(run_of(name, backend="reference"))
    moved = np.abs(want.saved_weights[:, -1] - want.saved_weights[:, 0]).max(axis=1)
    assert want.survived.all() and (moved > 1e-4).sum() > NETWORKS // 3  # units may be dead
    for dtype in WEIGHTS if name in ONLY or name.endswith("_diagonal") else ("float64",):
        got = fs.train(run_of(name, dtype, backend="triton"))
        assert got.survived.all() and distance(got, want) < WEIGHTS[dtype], dtype
        assert distance(got, fs.train(run_of(name, dtype, backend="cpu"))) < WEIGHTS[dtype], dtype


def test_every_family_activation_loss_and_order_is_among_them():
    runs = [run_of(name) for name in (*ONLY, *served())]
    assert {run.model.activation for run in runs if type(run.model) is M.MLP} == set(M.activations.ACTIVATIONS)
    assert {run.loss.name for run in runs} == {"squared", "logistic", "hinge", "cross_entropy", "output"}
    assert {run.model.outputs for run in runs if run.loss.name == "squared"} >= {1, 2, 3, 17}
    assert {type(run.order).__name__ for run in runs} == {"PerNetwork", "Common", "Reshuffle", "Replay"}
    assert {Work(run).packing.module for run in runs} == {"dense", "product", "power"}
    assert {type(run.rule) for run in runs} == {getattr(R, name) for name in R.__all__} - {
        R.Rule, R.Descent, R.Penalty, R.Localisation, R.Flow, R.Muon, R.Function}
    assert {name for name in RULES if f"{name}_relu2" not in served()} == {  # of which the first two are LEFT_OUT
        "label_table", "sde_schedule", "stable_labels", "muon"}


def net(**changes):
    return M.MLP(**({"d": D, "widths": (6, 4), "activation": "leaky", "b_scale": 0.3} | changes))


NOISE = fs.LabelNoise(0.2)
KNOBS = {  # what the kernels are told of a request, one thing at a time
    "width": {"model": net(widths=(6, 5))}, "depth": {"model": net(widths=(6,))}, "bias": {"model": net(bias=False)},
    "activation": {"model": net(activation="relu")}, "slope": {"model": net(slope=0.3)},
    "scaling": {"model": net(scaling="ntk")}, "fixed": {"model": net(fixed=("W2",))},
    "factor": {"loss": L.Squared(0.6)}, "weights": {"loss": L.Squared(weights=[1.1])}, "seed": {"seed": 4},
    "ids": {"ids": [2, 1, 0]},
    "batch": {"rule": R.SGD(batch_size=3, label_noise=NOISE)}, "full": {"rule": R.GD(label_noise=NOISE)},
    "sigma": {"rule": R.SGD(batch_size=2, label_noise=0.3)}, "clean": {"rule": R.SGD(batch_size=2)},
    "kind": {"rule": R.SGD(batch_size=2, label_noise=fs.LabelNoise(0.2, "rademacher"))},
    "bound": {"rule": R.SGD(batch_size=2, label_noise=NOISE, lost_above=0.1)},
    "order": {"order": orders.Common()}, "whose": {"order": orders.Common(1)}, "epochs": {"order": orders.Reshuffle()},
    "distinct": {"order": orders.PerNetwork(replace=False)}, "base": {"step_size": [0.05, 0.05, 0.06]},
    "table": {"step_size": fs.StepTable(np.full(2, 0.04))}, "start": {"model": net(b_scale=0.2)},
}


def test_every_knob_moves_the_output():
    still = {"model": net(), "rule": R.SGD(batch_size=2, label_noise=NOISE), "steps": 2, "networks": 3,
             "save": None, "metrics": (), "step_size": 0.05}
    seen = {}
    for knob, fields in ({"none": {}} | KNOBS).items():
        result = fs.train(general(still | fields, backend="triton"))
        seen[knob] = result.weights.tobytes() + result.lost.tobytes()
    assert len(set(seen.values())) == len(seen), {a for a in seen for b in seen if a < b and seen[a] == seen[b]}


@pytest.mark.parametrize(("name", "segments"), [("diagonal", (1, 3)), ("relu2_7_70", (3,)), ("distinct_relu2", (2,)),
                                                ("label_noise_relu2", (3,))])
def test_segments_resumes_and_company_move_no_bit(name, segments):
    run = run_of(name, "float32", backend="triton")
    want = fs.train(run)
    for segment in segments:
        got = fs.train(run, tuning=fs.Tuning(segment=segment))
        assert got.saved_weights.tobytes() == want.saved_weights.tobytes()
    some = fs.train(run.replace(ids=[7, 2]))
    assert some.saved_weights.tobytes() == want.saved_weights[[7, 2]].tobytes()
    few = fs.train(run, tuning=fs.Tuning(networks=4))
    assert distance(few, want) < WEIGHTS["float32"]


@pytest.mark.parametrize("order", [orders.PerNetwork(), orders.Common(3), orders.PerNetwork(replace=False),
                                   orders.Common(3, replace=False), orders.Reshuffle(), orders.Reshuffle(4)], ids=str)
@pytest.mark.parametrize("n", [1, 3, 70, 1000])
def test_tables_of_orders_have_the_contracts_integers(order, n):
    from fastsgd.backends.triton import launches

    t0, t1, batch = 2**33 - 5, 2**33 + 4, min(3, n)
    run = fs.Run(M.DiagonalLinear(2), fs.Dataset(np.ones((n, 2), "f4"), np.ones(n, "f4")), R.SGD(batch_size=batch), 0.1,
                 9, networks=50, order=order, seed=2**64 - 3, ids=[3, 49, 0], backend="triton")
    plan = fs.plan(run)
    state = BACKEND.load(plan, plan.start, np.full(3, -1), plan.fresh_buffers())
    if not getattr(order, "replace", False):
        t0, t1 = t0 % 2**29, t0 % 2**29 + 9  # as many steps as permutations can tell apart
    segment = fs.spec.planned.Segment(t0, t1, None, None)
    positions, _ = launches._order_ids(state)
    want = order.indices(run.seed, plan.ids, t0, t1, n, batch)
    np.testing.assert_array_equal(launches.table(state, segment, positions).cpu().numpy(), want)


def test_noise_follows_the_contract():
    """The draws themselves, far into a run, read off one step of a network that is its own bias."""
    for kind in ("gaussian", "rademacher"):
        draw = {"gaussian": fs.spec.draws.normals, "rademacher": fs.spec.draws.signs}[kind]
        for batch in (1, 3):
            rule = R.SGD(batch_size=batch, label_noise=fs.LabelNoise(1.0, kind))
            run = general({"model": M.MLP(1, (), W_scale=0.0), "rule": rule,
                           "data": fs.Dataset(np.zeros((2, 1)), np.zeros(2))}, steps=STEPS, step_size=1.0, metrics=(),
                          backend="triton", networks=5, save=fs.SaveAt(steps=range(STEPS + 1), params=True))
            b = fs.train(run).saved_weights[..., 1]  # b <- b - (b - mean of z)
            z = np.mean([draw(run.seed, range(5), 0, STEPS, "label_noise", item) for item in range(batch)], axis=0)
            np.testing.assert_allclose(b[:, 1:], z, atol=1e-14)


@pytest.mark.parametrize(("rule", "dtype"), [(R.SGD(), "float32"), (R.SGD(batch_size=3, label_noise=0.1), "float64"),
                                             (R.GD(), "float32")], ids=["one", "batch", "gd"])
def test_lost_runs_freeze_where_the_cpu_freezes_them_and_neighbours_do_not_notice(rule, dtype):
    odd = np.arange(NETWORKS) % 2 == 1
    run = general({"model": M.DiagonalLinear(D, u0=0.5, v0=0.2), "rule": rule}, dtype, steps=11, backend="triton",
                  step_size=np.where(odd, 1e3, 0.01), save=fs.SaveAt(steps=[11]), networks=NETWORKS,
                  metrics=fs.metrics.TrainLoss())
    got, want = fs.train(run), fs.train(run.replace(backend="cpu"))
    np.testing.assert_array_equal(got.lost, want.lost)
    assert (got.lost[odd] > 0).all() and (got.lost[~odd] < 0).all()
    assert np.isnan(got.numpy("train_loss")[odd]).all() and np.isfinite(got.numpy("train_loss")[~odd]).all()
    alone = fs.train(run.replace(ids=np.flatnonzero(~odd)))
    assert alone.weights.tobytes() == got.weights[~odd].tobytes()
    k = np.flatnonzero(odd)[0]
    before = fs.train(run.replace(steps=int(got.lost[k]), ids=[k], save=None))
    assert before.survived.all() and before.weights[0].tobytes() == got.weights[k].tobytes()
    cut = fs.train(run, tuning=fs.Tuning(segment=5))
    np.testing.assert_array_equal(cut.lost, got.lost)
    assert cut.weights.tobytes() == got.weights.tobytes()


def test_a_stated_bound():
    run = general({"model": M.ReLU2(D, 6), "rule": R.SGD(lost_above=2.0)}, steps=11, step_size=0.4, networks=NETWORKS,
                  backend="triton", metrics=())
    got, want = fs.train(run), fs.train(run.replace(backend="cpu"))
    np.testing.assert_array_equal(got.lost, want.lost)
    assert 0 < (got.lost >= 0).sum() < NETWORKS


F = fs.metrics
POINTS_3 = np.random.default_rng(1).standard_normal((40, 3))
MEASURED = {
    "relu2": M.ReLU2(3, 41), "net": M.MLP(3, (9, 5), fixed=("W2",), scaling="ntk", b_scale=0.1), "linear": M.MLP(3, ()),
    "erf": M.MLP(3, (9, 5), activation="erf", bias=(True, False, True)),
    "diagonal": M.DiagonalLinear(3, u0=np.linspace(0.1, 1, 6), v0=0.3), "power": M.DiagonalPower(3, 3),
}
METRICS = (F.TrainLoss(), F.TestLoss(), F.NTK(), F.NTK(points=POINTS_3, name="far"),
           F.JacobianRank(rtol=1e-3, points=POINTS_3), F.FeatureSparsity(tau=0.6),
           F.FeatureSparsity(tau=0.6, normalise=False, name="plain"), F.ActivationDensity(),
           F.DistinctUnits(tau=0.5, relative=True), F.DistinctUnits(tau=0.7, threshold=0.3, name="firm"))


@pytest.mark.parametrize(("name", "dtype"), [*((name, "float64") for name in MEASURED), ("net", "float32")])
def test_metric_kernels_agree_with_the_definitions(name, dtype):
    model = MEASURED[name]
    metrics = [metric for metric in METRICS if metric.refuse(model, problem(3)) is None]
    run = fs.Run(model, problem(3).astype(dtype), R.SGD(), 0.01, 5, networks=6, metrics=metrics, dtype=dtype,
                 backend="triton")
    plan = fs.plan(run)
    state = BACKEND.load(plan, plan.start, np.full(6, -1), plan.fresh_buffers())
    measured, made = place("triton", plan.work, plan.N).begin(plan), 0
    for metric in metrics:
        got = measured.measure_state(state, metric, np.arange(6))
        if got is not None:
            want = metric.compute(model, model.unflatten(plan.start.astype("float64")), run.data, run.loss)
            np.testing.assert_allclose(got, want, rtol=METRIC, atol=METRIC * np.abs(want).max())
            assert got.dtype == np.float64
            made += 1
    assert made == (2 if name in ("diagonal", "power") else len(metrics))


def test_what_has_no_kernel_here_is_measured_by_the_cpus():
    run = fs.Run(M.DiagonalLinear(3, u0=0.3), problem(3), R.SGD(), 0.01, 3, dtype="float64", backend="triton",
                 metrics=(F.JacobianRank(rtol=1e-15, points=POINTS_3), F.L0(), F.Sharpness()))
    assert "rank by 'count'" in fs.plan(run).explain()
    got, want = fs.train(run), fs.train(run.replace(backend="reference"))
    for metric in run.metrics:
        np.testing.assert_allclose(got.numpy(metric.name), want.numpy(metric.name), rtol=1e-9)


def test_constant_and_dead_units_are_counted_as_the_definition_counts_them():
    """A unit that is always off, one that is constant, two that are copies: 1 dead, 1 merged, constants stay."""
    model = M.ReLU2(1, 5, output_bias=False)
    init = {"W1": np.array([[1.0], [2.0], [0.0], [-1.0], [1.0]]), "b1": np.array([0.0, 0.0, 1.0, -9.0, 0.5]),
            "W2": np.ones((1, 5))}
    data = fs.Dataset(np.linspace(0.1, 1, 8)[:, None], np.zeros(8))
    run = fs.Run(model, data, R.SGD(), 1e-9, 1, init=init, dtype="float64", backend="triton", save=fs.SaveAt(steps=[0]),
                 metrics=(F.FeatureSparsity(normalise=False), F.DistinctUnits(threshold=0.0), F.ActivationDensity()))
    got = fs.train(run)
    assert [got.numpy(metric.name)[0, 0] for metric in run.metrics] == [0.4, 2.0, 0.8]


class Own(R.SGD):
    """A rule of a user's own, as far as anybody can tell."""

    def traits(self):
        return super().traits()


class OwnLoss(L.Squared):
    """A loss of a user's own, as far as anybody can tell."""

    def value(self, f, y, outputs=1):
        return super().value(f, y, outputs)


REFUSED = {
    "a rule": ({"rule": Own()}, "no kernel for the rule Own, which computes something of its own"),
    "a family": ({"model": M.TiedAutoencoder(D, 2)}, "TiedAutoencoder"),
    "a loss": ({"loss": OwnLoss()}, "no kernel for the loss OwnLoss"),
    "too many outputs": ({"model": M.MLP(D, 256, outputs=100)}, "one network keeps"),
    "fresh": ({"data": fs.data.Fresh(D, M.ReLU2(D, 2), {k: np.ones(s) for k, s in M.ReLU2(D, 2).shapes().items()})},
              "made on the way"),
    "too wide": ({"model": M.MLP(D, (256, 256))}, "one network keeps"),
    "too wide with buffers": ({"model": M.MLP(D, (64, 64)), "rule": R.Adam(average=0.5)}, "keeps 48080 32-bit numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_do_is_said_before_anything_runs(name, nothing_runs):
    fields, words = REFUSED[name]
    run = general({"model": M.ReLU2(D, 6)} | fields, backend="triton", metrics=())
    with pytest.raises(fs.BackendUnavailable, match=words):
        fs.plan(run)
    assert fs.plan(run.replace(backend="auto")).backend != "triton"


@pytest.mark.parametrize(("choice", "words"), [
    ({"networks": 3}, "power of two"), ({"warps": 6}, "power of two"), ({"lanes": 1}, "has no such choice"),
    ({"isa": "v3"}, "networks= and warps=")])
def test_tuning_is_checked(choice, words):
    with pytest.raises(fs.PlanError, match=words):
        fs.plan(run_of("diagonal", backend="triton"), fs.Tuning(**choice))


def test_memory_of_the_card_is_looked_at(monkeypatch):
    monkeypatch.setattr("fastsgd.backends.triton.backend._free", lambda run: 200)
    with pytest.raises(fs.PlanError, match="on the card"):
        fs.plan(run_of("diagonal", backend="triton"))


@pytest.mark.parametrize("choice", [{"networks": 2}, {"warps": 2}])
def test_other_backends_have_no_programs(choice):
    for backend in ("cpu", "reference"):
        with pytest.raises(fs.PlanError, match="no such choice"):
            fs.plan(run_of("diagonal", backend=backend), fs.Tuning(**choice))


def test_the_plan_says_how_it_runs():
    text = fs.plan(run_of("relu2_7_70", backend="triton"), fs.Tuning(networks=2, warps=1)).explain()
    assert "backend: triton" in text and "2 network(s) a program, 1 warp(s) a program: as asked for" in text
    assert "padded from P=561" in text


def test_what_is_missing_is_said(monkeypatch):
    from fastsgd import portable
    from fastsgd.errors import BackendUnavailable

    run = run_of("diagonal", backend="triton")
    if not torch.cuda.is_available():
        monkeypatch.setenv("TRITON_INTERPRET", "0")
        with pytest.raises(BackendUnavailable, match="torch finds no GPU here"):
            fs.plan(run)

    def absent(name):
        return None

    monkeypatch.setattr(portable, "find_spec", absent)
    monkeypatch.setattr(portable, "_not_installed", portable._not_installed.__wrapped__)  # forget what was found
    with pytest.raises(BackendUnavailable, match=r"pip install fastsgd\[triton\]"):
        fs.plan(run)


def test_the_interpreter_runs_only_where_it_is_named():
    if interpreted():
        plan = fs.plan(run_of("diagonal"))
        assert plan.backend == "cpu" and any("interpreter is for tests" in reason for reason in plan.reasons)


def test_rows_hold_each_parameter_once_and_hidden_matrices_begin_aligned():
    for model in (M.DiagonalLinear(30), M.ReLU2(2, 20), M.MLP(5, (10, 12, 7)), M.MLP(5, ()), M.DiagonalPower(3, 2),
                  M.MLP(2, 20, outputs=3), M.MLP(5, (10, 12), outputs=3), M.MLP(5, (), outputs=4)):
        packed = model.form().packing()
        assert len(set(packed.slots.tolist())) == model.P and packed.slots.max() < packed.width
        assert kernel(f"models.{packed.module}").value
        for k, (at, a, b) in enumerate(packed.layout):
            assert {a, b} <= {0, *(2**j for j in range(20))}
            aligned = packed.module != "dense" or (a and k and not (a == 16 and b == 4))  # but a third, last matrix
            assert at % 4 == 0 if aligned else at % 2 == 1
