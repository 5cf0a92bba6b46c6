"""What the general loop adds to a request is refused before anything runs, by an error that names the field and why."""

import numpy as np
import pytest
from cases import problem
from general_cases import TAUGHT, TEACHER, samples

import fastsgd as fs

M, R, L = fs.models, fs.rules, fs.losses
NAN, INF = float("nan"), float("inf")
D, T = 5, 10
DATA = problem(D)
GOOD = {"model": M.ReLU2(D, 3), "data": DATA, "rule": R.SGD(), "step_size": 0.01, "steps": T, "dtype": "float64"}
TWO = fs.Dataset(DATA.X, np.stack([DATA.y, DATA.y], axis=1))
FRESH = fs.data.Fresh(D, TEACHER, TAUGHT)
STREAM = fs.data.Stream(D, samples)
GUIDE = {"teacher": TEACHER, "weights": TAUGHT}


def bad_numbers(make, field, values):
    """Makers of one record each, all of which must name `field`."""
    return [(lambda value=value: make(value), field) for value in values]


def of_rule(name, values, kind=R.SGD, **needed):
    return bad_numbers(lambda value: kind(**(needed | {name: value})), f"rule.{name}", values)


SAM, SDE = {"kind": R.SAM, "rho": 0.1}, {"kind": R.SDE, "sgd_step": 0.1, "loss_level": 0.1}
RECORDS = [
    *of_rule("momentum", (-0.1, 1.0, NAN, "x", [[0.1]], [0.5, 1.0], [])),
    *of_rule("nesterov", (1, "yes", None), momentum=0.5),
    *of_rule("dampening", (-0.1, 1.1, NAN, None), momentum=0.5), *of_rule("decoupled", (1, None), weight_decay=0.1),
    *of_rule("step_scale", (1, [1.0], {}, {1: 2.0}, {"W1": -1}, {"W1": "x"}, {"W1": [[1.0]]})),
    *of_rule("weight_decay", ({}, {"W1": NAN}, {0: 0.1}, {"W1": 0.1, "b1": -0.1})),
    *of_rule("localisation", (-1, NAN, {"W1": -1}, {}, fs.LabelNoise(0.1), "x")),
    *bad_numbers(lambda v: R.Localisation(0.1, v), "rule.localisation.at", (1.0, {"W1": NAN}, {"W1": "x"}, {2: 1.0})),
    *of_rule("clip_norm", (0, -1, NAN, INF, [1, 0], "x", [])), *of_rule("clip_value", (0, -1, NAN, [[1.0]]), R.Adam),
    *of_rule("weight_decay", (-1, NAN, INF, [0.1, -1])),
    *of_rule("balance_penalty", (-1, NAN)),
    *of_rule("normalised", (1, None)),
    *of_rule("average", (1.0, -0.1, NAN)),
    *of_rule("lost_above", (0, NAN, "x"), R.Adam),
    *of_rule("rho", (-0.1, NAN, None), R.SAM),
    *of_rule("batch_size", (0, 1.5, True, 2**32), **SAM),
    *of_rule("per_sample", (1, None), **SAM), *of_rule("unit", (1, None), **SAM),
    *of_rule("batch_size", (0, 1.5, True, 2**32), R.Adam),
    *of_rule("beta1", (-0.1, 1.0), R.Adam), *of_rule("beta2", (-0.1, 1.0, NAN), R.Adam),
    *of_rule("epsilon", (0, -1, NAN), R.Adam), *of_rule("decoupled", (1, None), R.Adam),
    *of_rule("beta1", (-0.1, 1.0), R.Lion), *of_rule("beta2", (1.0, NAN), R.Lion), *of_rule("beta2", (1.0,), R.RMSProp),
    *of_rule("epsilon", (0, -1), R.RMSProp), *of_rule("epsilon", (0, NAN), R.Adagrad),
    *of_rule("batch_size", (0, True), R.SignSGD), *of_rule("momentum", (-0.1, 1.0, NAN), R.Muon),
    *of_rule("nesterov", (1, None), R.Muon),
    *of_rule("intensity", (0, -1, NAN, [1.0]), **SDE),
    *of_rule("label_noise", (0.1,), **SDE),
    *of_rule("sgd_step", (-1, NAN, "x", [[0.1, -1.0]]), R.SDE, loss_level=0.1),
    *of_rule("loss_level", (-1, NAN, [[[1.0]]], [[NAN]]), R.SDE, sgd_step=0.1),
    *of_rule("label_noise", (fs.GradientNoise(0.1),)), *of_rule("gradient_noise", (fs.LabelNoise(0.1),)),
    *bad_numbers(fs.LabelNoise, "label_noise.sigma", (-1, NAN, "x", [[-0.1, 0.1]], [[]], [[[1.0]]], [0.1, INF])),
    *bad_numbers(fs.GradientNoise, "gradient_noise.sigma", (-1, NAN, [[NAN]])),
    *bad_numbers(lambda v: fs.LabelNoise(0.1, v), "label_noise.kind", ("uniform", None, 3)),
    *bad_numbers(lambda v: fs.LabelNoise(0.1, on=v), "label_noise.on", ("all", None)),
    *bad_numbers(lambda v: fs.LabelNoise(0.1, "stable", alpha=v), "label_noise.alpha", (None, 0, 0.05, 2.1, NAN, "x")),
    *bad_numbers(lambda v: fs.GradientNoise(0.1, "stable", v), "gradient_noise.alpha", (None, -1, [1.0, 3.0], [[1.5]])),
    *bad_numbers(lambda v: fs.GradientNoise(0.1, v, 1.5), "gradient_noise.alpha", ("gaussian", "rademacher")),
    *bad_numbers(lambda v: fs.orders.Reshuffle(drop_last=v), "order.drop_last", (1, "yes", 0)),
    *bad_numbers(fs.orders.Replay, "order", ([[1], []], [[1, 2], [-1]], [[1, 2], [0.5]], [[[-1, 2]]], [[[-1, -1]]],
                                             [[[1, -2]]], [[1, -1]], [1, -1], [[1, 2], 3])),
    *bad_numbers(lambda v: fs.GradientNoise(0.1, v), "gradient_noise.kind", ("uniform", None)),
    *bad_numbers(fs.orders.PerNetwork, "order.replace", (1, None, "no")),
    *bad_numbers(lambda v: fs.orders.Common(0, v), "order.replace", (1, None)),
    *bad_numbers(fs.orders.Reshuffle, "order.network", (-1, 2**32, 1.0, True)),
    *bad_numbers(L.Logistic, "loss.factor", (0, -1, NAN, INF)), *bad_numbers(L.Hinge, "loss.factor", (0, INF)),
    *bad_numbers(L.CrossEntropy, "loss.factor", (0, "x")),
    *bad_numbers(lambda v: L.Squared(weights=v), "loss.weights", ([], [1, -1], [NAN], [[[1.0]]], 1.0, "x")),
    *bad_numbers(lambda v: M.MLP(D, v), "model.widths", (0, 1.5, (3, 0), (1,) * 8, "wide", None, True)),
    *bad_numbers(lambda v: M.MLP(v, 3), "model.d", (0, -1, 2.5)),
    *bad_numbers(lambda v: M.MLP(D, 3, outputs=v), "model.outputs", (0, 1.5, True)),
    *bad_numbers(lambda v: M.MLP(D, 3, activation=v), "model.activation", ("gelu", None, 3)),
    *bad_numbers(lambda v: M.MLP(D, 3, bias=v), "model.bias", (1, (True,), (True, 1), (True,) * 3)),
    *bad_numbers(lambda v: M.MLP(D, 3, scaling=v), "model.scaling", ("mup", (1.0,), (1, 0), (1, NAN), (1, 2, 3), None)),
    *bad_numbers(lambda v: M.MLP(D, 3, slope=v), "model.slope", (NAN, "x")),
    *bad_numbers(lambda v: M.MLP(D, 3, bias=False, fixed=v), "model.fixed", ("W3", ("W1", "b1"), 3, (None,), ["w1"])),
    *bad_numbers(lambda v: M.MLP(D, 3, W_scale=v), "model.W_scale", (-1, (1.0,), (1, 2, 3), (1, NAN))),
    *bad_numbers(lambda v: M.MLP(D, 3, b_scale=v), "model.b_scale", (-1, (1.0,))),
    *bad_numbers(lambda v: M.DiagonalProduct(D, v), "model.depth", (0, 17, 1.5)),
    *bad_numbers(lambda v: M.DiagonalProduct(D, 3, v), "model.start_at", ((1, 2), (1, 2, 3, 4), NAN, "x")),
    *bad_numbers(lambda v: M.DiagonalPower(D, v), "model.depth", (0, 17)),
    *bad_numbers(lambda v: M.DiagonalPower(D, signed=v), "model.signed", (1, None)),
    *bad_numbers(lambda v: M.DiagonalPower(D, w0=v), "model.w0", (NAN, "x")),
    *bad_numbers(lambda v: M.DiagonalPower(D, z0=v), "model.z0", (INF,)),
    *bad_numbers(lambda v: M.TiedAutoencoder(D, v), "model.width", (0, True)),
    *bad_numbers(lambda v: M.TiedAutoencoder(D, 2, bias=v), "model.bias", (1,)),
    *bad_numbers(lambda v: M.TiedAutoencoder(D, 2, W_scale=v), "model.W_scale", (-1,)),
    *bad_numbers(lambda v: M.TiedAutoencoder(D, 2, b_scale=v), "model.b_scale", (NAN,)),
    *bad_numbers(fs.data.Fresh, "data.d", (0, 1.5)),
    *bad_numbers(lambda v: fs.data.Fresh(D, inputs=v), "data.inputs", ("uniform", None)),
    *bad_numbers(lambda v: fs.data.Fresh(D, inputs="sparse", density=v), "data.density", (0, 1.5, NAN)),
    *bad_numbers(lambda v: fs.data.Fresh(D, v, TAUGHT), "data.teacher", (None, "net", M.MLP, M.MLP(D + 1, 2))),
    *bad_numbers(lambda v: fs.data.Fresh(D, TEACHER, v), "data.weights", (
        None, 3, {}, {"W1": np.ones(2)}, TAUGHT | {"W1": np.ones((2, D + 1))}, TAUGHT | {"b1": np.full(2, NAN)})),
    *bad_numbers(lambda v: fs.data.Fresh(D, **GUIDE, X_test=v), "X_test", (DATA.X,)),
    *bad_numbers(lambda v: fs.data.Fresh(D, **GUIDE, X_test=v, y_test=DATA.y), "X_test", (DATA.X[:, 1:], "x")),
    *bad_numbers(lambda v: fs.data.Stream(v, samples), "data.d", (0, "x")),
    *bad_numbers(lambda v: fs.data.Stream(D, v), "data.function", (None, 3)),
    *bad_numbers(lambda v: fs.data.Stream(D, samples, v), "data.outputs", (0, 1.5)),
    *bad_numbers(lambda v: fs.data.Stream(D, samples, y_test=v), "y_test", (DATA.y,)),
    *bad_numbers(lambda v: fs.SaveAt(linear=2, of=v), "save.of", ("mean", None)),
    *bad_numbers(lambda v: fs.SaveAt(linear=2, floor=v), "save.floor", (3, (5, 0.1))),
    *bad_numbers(lambda v: fs.Floor(v, 0.1), "save.floor.steps", (0, 1.5)),
    *bad_numbers(lambda v: fs.Floor(5, v), "save.floor.step_size", (0, NAN, "x")),
    *bad_numbers(lambda v: fs.Dataset(DATA.X, v), "y", (np.ones((11, 0)), np.ones((11, 1, 1)), np.full(11, 2**60))),
]


@pytest.mark.parametrize(("make", "field"), RECORDS, ids=[f"{k}-{field}" for k, (_, field) in enumerate(RECORDS)])
def test_records_refuse(make, field):
    with pytest.raises(fs.SpecError, match=field):
        make()


SIGNS, CLASSES = np.sign(DATA.y), np.arange(11) % 3
THREE = M.MLP(D, 4, outputs=3)
STEPS = np.full((1, T - 1), 0.1)
RUNS = [  # fields changed, what the message must say
    ({"loss": L.CrossEntropy(), "data": fs.Dataset(DATA.X, CLASSES)}, "loss: CrossEntropy needs.*two or more outputs"),
    ({"loss": L.CrossEntropy(), "model": THREE}, "loss: CrossEntropy needs labels.*0 .. 2"),
    ({"loss": L.CrossEntropy(), "model": THREE, "data": fs.Dataset(DATA.X, CLASSES + 1)}, "classes"),
    ({"loss": L.CrossEntropy(), "model": M.MLP(D, 4, outputs=2), "data": TWO}, "classes"),
    ({"loss": L.CrossEntropy(), "model": THREE, "data": fs.Dataset(DATA.X, CLASSES, DATA.X, CLASSES + 1)}, "classes"),
    ({"loss": L.CrossEntropy(), "model": THREE, "data": FRESH}, "inputs made on the way"),
    ({"loss": L.Logistic(), "data": fs.Dataset(DATA.X, (SIGNS + 1) / 2)}, "Logistic needs labels.*-1 and"),
    ({"loss": L.Hinge(), "data": DATA}, "Hinge needs labels.*-1 and"),
    ({"loss": L.Hinge(), "model": THREE, "data": fs.Dataset(DATA.X, SIGNS)}, "one output"),
    ({"loss": L.Logistic(), "data": FRESH}, "inputs made on the way"),
    ({"data": TWO}, r"y has shape \(11, 2\), a model with 1 output"),
    ({"model": THREE}, r"y has shape \(11,\), a model with 3 output"),
    ({"model": THREE, "data": TWO}, "3 output"),
    ({"model": M.TiedAutoencoder(D, 2)}, r"needs \(11, 5\)"),
    ({"loss": L.Squared(weights=[1, 2])}, "loss.weights has 2 entries, the model has 1"),
    ({"rule": R.SGD(label_noise=0.1), "loss": L.CrossEntropy(), "model": THREE,
      "data": fs.Dataset(DATA.X, CLASSES)}, "label_noise is for squared losses"),
    ({"rule": R.SGD(label_noise=0.1), "loss": L.Logistic(), "data": fs.Dataset(DATA.X, SIGNS)}, "label_noise"),
    ({"rule": R.SDE(sgd_step=0.1, loss_level=0.1), "loss": L.Hinge(), "data": fs.Dataset(DATA.X, SIGNS)}, "SDE"),
    ({"rule": R.SDE(sgd_step=0.1, loss_level=0.1), "loss": L.Squared(weights=[2])}, "SDE .* this loss has weights"),
    ({"rule": R.SGD(label_noise=fs.LabelNoise(0.1, on="one"))}, "on='one'.*GD"),
    ({"rule": R.SGD(label_noise=STEPS)}, "table of label_noise has 9 steps"),
    ({"rule": R.SGD(gradient_noise=STEPS)}, "table of gradient_noise has 9 steps"),
    ({"rule": R.SDE(sgd_step=STEPS, loss_level=0.1)}, "table of sgd_step has 9 steps"),
    ({"rule": R.SDE(sgd_step=0.1, loss_level=STEPS)}, "table of loss_level has 9 steps"),
    ({"rule": R.SGD(momentum=[0.1, 0.2, 0.3]), "step_size": [0.1] * 4}, "step_size has 4, rule.momentum has 3"),
    ({"rule": R.SGD(momentum=[0.0, 0.0, 0.0]), "step_size": [0.1] * 4}, "rule.momentum has 3"),
    ({"rule": R.SAM(rho=[0.1, 0.2]), "networks": 3}, "rule.rho has 2, networks has 3"),
    ({"rule": R.Adam(beta1=[0.1] * 2, epsilon=[0.1] * 3)}, "rule.beta1 has 2, rule.epsilon has 3"),
    ({"rule": R.SGD(label_noise=[0.1, 0.2]), "networks": 3}, "label_noise.sigma has 2, networks has 3"),
    ({"rule": R.SGD(label_noise=np.ones((2, T))), "step_size": [0.1] * 4}, "label_noise.sigma .* has 2"),
    ({"rule": R.SGD(gradient_noise=fs.StepSize([0.1, 0.2])), "step_size": [0.1] * 4}, "gradient_noise.sigma .* has 2"),
    ({"rule": R.SDE(sgd_step=[0.1] * 2, loss_level=[0.1] * 3)}, "sgd_step.* has 2, .*loss_level.* has 3"),
    ({"model": M.MLP(D, 3, W_scale=([0.1] * 2, 1.0)), "networks": 3}, "starting W1.* has 2"),
    ({"model": M.DiagonalProduct(D, 2, ([0.1] * 2, 1.0)), "networks": 3}, "starting w1.* has 2"),
    ({"rule": R.SGD(nesterov=True)}, "nesterov needs a momentum"),
    ({"rule": R.SGD(dampening=0.5)}, "dampening needs a momentum"),
    ({"rule": R.SGD(dampening=0.5, momentum=0.5, nesterov=True)}, "nesterov needs dampening 0"),
    ({"rule": R.SGD(step_scale={"W1": 1, "w1": 2})}, "step_scale names w1; the parameters of this model are W1"),
    ({"rule": R.SGD(weight_decay={"u": 1})}, "weight_decay names u"),
    ({"rule": R.SGD(localisation={"u": 1})}, "localisation.gamma names u"),
    ({"rule": R.SGD(localisation=R.Localisation(1, {"W1": np.ones((3, D))}))}, "localisation.at has"),
    ({"rule": R.SGD(localisation=R.Localisation(1, {name: np.ones(2) for name in ("W1", "b1", "W2", "b2")}))},
     r"localisation\.at\.W1 has shape"),
    ({"rule": R.SGD(step_scale={"W1": [1, 2]}), "networks": 3}, r"rule\.step_scale\.W1 has 2"),
    ({"rule": R.SGD(localisation=[1, 2]), "networks": 3}, "rule.localisation.gamma has 2"),
    ({"rule": R.SGD(gradient_noise=fs.GradientNoise(1, "stable", [1, 2])), "networks": 3}, "noise.alpha has 2"),
    ({"rule": R.SGD(batch_size=DATA.n + 1), "order": fs.orders.Reshuffle(drop_last=True)}, "drop_last leaves no step"),
    ({"rule": R.SGD(batch_size=3), "order": fs.orders.Replay([[0, 1]] * (T - 1) + [[2]])}, "2 samples a step"),
    ({"rule": R.SGD(batch_size=2), "order": fs.orders.Replay([[0, 1]] * T + [[2]])}, "11 steps"),
    ({"rule": R.SGD(balance_penalty=0.1)}, "balance_penalty needs parameters u and v"),
    ({"rule": R.SGD(balance_penalty=0.1), "model": M.DiagonalPower(D)}, "balance_penalty"),
    ({"save": fs.SaveAt(linear=2, of="average")}, "save.of: 'average' given"),
    ({"save": fs.SaveAt(linear=2, floor=fs.Floor(5, 0.1)), "data": FRESH}, "save.floor"),
    ({"data": FRESH, "rule": R.GD()}, "rule: GD takes all samples"),
    ({"data": FRESH, "rule": R.Adam(batch_size=None)}, "rule: Adam takes all samples"),
    ({"data": STREAM, "rule": R.SDE(sgd_step=0.1, loss_level=0.1)}, "rule: SDE takes all samples"),
    ({"data": FRESH, "order": fs.orders.Reshuffle()}, "order: Reshuffle given, but every sample is new"),
    ({"data": FRESH, "order": fs.orders.Replay([0] * T)}, "order: Replay given"),
    ({"data": STREAM, "order": fs.orders.Common()}, "order: Common given"),
    ({"data": FRESH, "model": M.ReLU2(D - 1, 3)}, "model.d: is 4, but data has d=5"),
    ({"data": FRESH, "model": THREE}, "data: labels have 1 number.*3 output"),
    ({"data": fs.data.Fresh(D)}, "data: labels have 5 number"),
    ({"data": fs.data.Stream(D, samples, outputs=2)}, "data: labels have 2 number"),
    ({"data": FRESH, "metrics": [fs.metrics.TrainLoss()]}, "no training set"),
    ({"data": STREAM, "metrics": [fs.metrics.FeatureSparsity()]}, "no training set"),
    ({"data": STREAM, "metrics": [fs.metrics.TestLoss()]}, "test_loss"),
    ({"data": STREAM, "metrics": [fs.metrics.JacobianRank()]}, "rank"),
    ({"order": fs.orders.PerNetwork(replace=False), "rule": R.SGD(batch_size=12)}, "12 samples a step without repl"),
    ({"order": fs.orders.Common(0, replace=False), "rule": R.SAM(rho=0.1, batch_size=12)}, "n=11 points"),
    ({"order": fs.orders.Replay([0] * T), "rule": R.SGD(batch_size=2)}, "order: has 1 samples a step"),
    ({"dtype": "float32", "data": fs.Dataset(DATA.X.astype("f"), np.arange(11) + 2**24)}, "y: holds a whole.*2..24"),
    ({"rule": R.SGD(label_noise=0.1), "steps": 2**34}, "steps: 17179869184 given, with gaussian noise on labels"),
    ({"rule": R.SGD(gradient_noise=0.1), "steps": 2**32 + 1}, "steps: 4294967297 given, with gradient noise"),
    ({"data": FRESH, "steps": 2**33}, "steps: .*made on the way"),
    ({"order": fs.orders.PerNetwork(replace=False), "steps": 2**31}, "steps: .*without replacement"),
    ({"order": fs.orders.Reshuffle(), "rule": R.SGD(batch_size=11), "steps": 2**31}, "steps: .*epochs"),
]


@pytest.mark.parametrize(("changes", "words"), RUNS, ids=range(len(RUNS)))
def test_the_plan_refuses(changes, words, nothing_runs):
    with pytest.raises(fs.PlanError, match=words):
        fs.train(**(GOOD | changes))


@pytest.mark.parametrize("changes", [
    {"order": fs.orders.PerNetwork(replace=False), "rule": R.SGD(batch_size=11)},
    {"order": fs.orders.Reshuffle(), "rule": R.SGD(batch_size=30)},
    {"rule": R.SGD(label_noise=np.ones((1, T))), "networks": 3},
    {"data": fs.data.Fresh(D, TEACHER, {name: a[None] for name, a in TAUGHT.items()})},
    {"data": fs.Dataset(DATA.X, np.arange(11) + 2**24)},
    {"init": {name: np.ones((4, *shape)) for name, shape in GOOD["model"].shapes().items()},
     "model": M.ReLU2(D, 3, W1_scale=[0.1, 0.2])},
])
def test_what_is_just_legal_runs(changes):
    assert fs.train(**(GOOD | changes), tuning=fs.Tuning(threads=1)).survived.all()


def test_a_run_with_a_function_has_no_checkpoint_and_no_file(tmp_path, nothing_runs):
    with pytest.raises(fs.SpecError, match=r"data\.function: the function samples cannot be written"):
        fs.train(**(GOOD | {"data": STREAM}), checkpoint=tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("function", "words"), [
    (lambda ids, t0, t1, batch: samples(ids, t0, t1, batch)[0], r"returned ndarray, expected \(X, y\)"),
    (lambda ids, t0, t1, batch: samples(ids, t0, t1, batch + 1), "data.function's X: has shape"),
    (lambda ids, t0, t1, batch: (samples(ids, t0, t1, batch)[0], np.ones((1, 1))), "data.function's y: has shape"),
    (lambda ids, t0, t1, batch: (samples(ids, t0, t1, batch)[0] * NAN, None), "data.function's X: .*nan"),
    (lambda ids, t0, t1, batch: (samples(ids, t0, t1, batch)[0], np.full((len(ids), t1 - t0, batch), INF)), "y: .*inf"),
    (lambda ids, t0, t1, batch: (samples(ids, t0, t1, batch)[0], "labels"), "data.function's y"),
])
@pytest.mark.parametrize("backend", ("cpu", "reference"))
def test_what_a_stream_gives_is_checked(function, words, backend):
    with pytest.raises(fs.SpecError, match=words):
        fs.train(**(GOOD | {"data": fs.data.Stream(D, function)}), backend=backend)
