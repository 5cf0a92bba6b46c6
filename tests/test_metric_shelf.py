"""Every metric of the shelf on every family: shapes, axes, parts, non-finite networks, symmetry, files, refusals."""

import inspect
import warnings
from pathlib import Path

import numpy as np
import pytest
from cases import MODELS, problem
from tiers import some

import fastsgd as fs
from fastsgd.metrics import base

FAMILIES = {
    "diagonal": fs.models.DiagonalLinear(3), "product": fs.models.DiagonalProduct(3, 3),
    "power": fs.models.DiagonalPower(3, 3), "relu": fs.models.ReLU2(3, 7), "relu_1d": fs.models.ReLU2(1, 7),
    "tanh": fs.models.MLP(3, (6, 5), activation="tanh"), "relu_deep": fs.models.MLP(3, (6, 5)),
    "committee": fs.models.MLP(3, 4, activation="erf", bias=False), "fixed": fs.models.MLP(3, 4, fixed=("W2",)),
    "linear": fs.models.MLP(3, (4, 2), activation="identity"), "several": fs.models.MLP(3, 4, outputs=2),
    "autoencoder": fs.models.TiedAutoencoder(3, 2),
}
M = fs.metrics
ARGUMENTS = {  # metrics that cannot be made from nothing, or have options that take other ways
    "CosineAlignment": [{"directions": np.eye(3)[:2]}], "DistanceToTeacher": [{"beta": np.ones(3)}],
    "FittedFunction": [{"points": np.ones((4, 3))}, {"points": [0.0, 0.5]}],
    "GeneralisationError": [{"teacher": np.eye(3)[:2]}], "TeacherOverlaps": [{"teacher": np.eye(3)[:2]}],
    "NuclearNorm": [{}, {"of": "weighted"}, {"of": "neurons"}], "KernelDistance": [{}, {"kind": "relative"}],
    "Sharpness": [{}, {"k": 3}, {"k": 2, "method": "lanczos"}], "NTKEigenvalue": [{}, {"k": 3}],
    "HessianTrace": [{}, {"method": "hutchinson", "probes": 3}], "FeatureRank": [{}, {"centre": "column"}],
}
KINDS = {name: getattr(M, name) for name in M.__all__ if isinstance(getattr(M, name), type)}
SHELF = [kind(**given) for name, kind in KINDS.items() if name not in ("Metric", "Custom")
         for given in ARGUMENTS.get(name, [{}])]
OF_RULES = {metric.name for metric in SHELF if metric.needs_carried}  # not of weights: tests of their rules have them
CASES = [(family, metric) for family in FAMILIES for metric in SHELF
         if metric.name not in OF_RULES and metric.refuse(FAMILIES[family], problem(FAMILIES[family].d)) is None]
IDS = [f"{family}-{metric.name}-{k}" for k, (family, metric) in enumerate(CASES)]


def weights(model, N=5, seed=0):
    return model.unflatten(np.random.default_rng(seed).standard_normal((N, model.P)))


def data_of(model):
    """Data whose labels fit the number of outputs."""
    data = problem(model.d)
    if model.outputs == 1:
        return data
    return Several(np.random.default_rng(1).standard_normal((data.n, model.outputs)), data)


class Several:
    """A data set with labels [n, o]."""

    def __init__(self, y, data):
        self.X, self.y, self.X_test, self.y_test, self.d, self.n = data.X, y, data.X_test, y[:9], data.d, data.n


def value(family, metric, params, seed=1):
    """The metric by its definition; the start, where needed, is other random weights."""
    model = FAMILIES[family]
    N = len(next(iter(params.values())))
    start = {"start": weights(model, N, seed)} if metric.needs_start else {}
    return metric.compute(model, params, data_of(model), fs.losses.Squared(), **start)


def test_the_shelf_is_complete():
    assert {metric.name for _, metric in CASES} >= {metric.name for metric in SHELF} - {"train_accuracy",
                                                                                         "test_accuracy", *OF_RULES}


@pytest.mark.parametrize(("family", "metric"), some(CASES, 2, 1), ids=IDS)
def test_shapes_axes_and_what_is_not_finite(family, metric):
    model = FAMILIES[family]
    params = weights(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        want = value(family, metric, params)
        axes = metric.axes(model, data_of(model))
        assert want.dtype == np.float64 and want.shape == (5, *map(len, (axes or {}).values()))
        assert np.isfinite(want).all()
        for a in params.values():
            a[1], a[3] = np.nan, np.inf
            a[2] = 1e200  # finite, but squares are not
        if metric.name in ("rank", "spectrum", "train_loss", "test_loss"):
            return  # these are only asked about finite networks
        got = value(family, metric, params)
    np.testing.assert_allclose(got[[0, 4]], want[[0, 4]], rtol=1e-11, atol=1e-13)
    assert np.isnan(got[[1, 3]]).all()


@pytest.mark.parametrize(("family", "metric"), some(CASES), ids=IDS)
def test_parts_do_not_matter(family, metric, monkeypatch):
    params = weights(FAMILIES[family])
    want = value(family, metric, params)
    monkeypatch.setattr(base, "PART", 1)
    np.testing.assert_allclose(value(family, metric, params), want, rtol=1e-11, atol=1e-13)


SYMMETRIC = [(family, metric) for family, metric in CASES if family in ("relu", "committee", "relu_1d")
             and "unit" not in (metric.axes(FAMILIES[family], problem(FAMILIES[family].d)) or {})
             and getattr(metric, "method", "") != "hutchinson"]  # the same signs would meet other parameters


@pytest.mark.parametrize(("family", "metric"), SYMMETRIC, ids=lambda x: getattr(x, "name", x))
def test_permuting_hidden_units_changes_nothing(family, metric):
    model = FAMILIES[family]
    order = np.random.default_rng(3).permutation(model.shapes()["W1"][0])

    def permuted(params):
        return {name: a[:, :, order] if name == "W2" else a if name == "b2" else a[:, order]
                for name, a in params.items()}

    params, start = weights(model), weights(model, seed=1)
    extra = ({}, {}) if not metric.needs_start else ({"start": start}, {"start": permuted(start)})
    want = metric.compute(model, params, problem(model.d), fs.losses.Squared(), **extra[0])
    got = metric.compute(model, permuted(params), problem(model.d), fs.losses.Squared(), **extra[1])
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", ["diagonal", "relu", "tanh"])
def test_through_a_run_its_files_and_its_labels(family, tmp_path):
    """Start, steps, files and labels of everything that a family can have, in a float32 run."""
    model = FAMILIES[family]
    data = problem(model.d).astype("float32")
    metrics = [metric for metric in SHELF if metric.name not in OF_RULES and metric.refuse(model, data) is None]
    metrics = list({metric.name: metric for metric in metrics}.values())
    run = fs.Run(model, data, fs.rules.SGD(), 0.05, 20, networks=3, save=fs.SaveAt(linear=3, params=True),
                 metrics=metrics, seed=4, init={n: a[:3] for n, a in weights(model, 3).items()}, dtype="float32")
    with pytest.raises(fs.PlanError, match="float64"):
        fs.plan(run)
    run = run.replace(init={name: np.float32(0.3 * a) for name, a in run.init.items()})
    checkpoint = str(tmp_path / "c")
    result = fs.train(run, checkpoint=fs.Checkpoint(checkpoint, every=0))
    assert result.survived.all()
    start, middle = ({name: np.float64(a[:, s]) for name, a in model.unflatten(result.saved_weights).items()}
                     for s in (0, 1))
    for metric in metrics:
        more = {"start": start} if metric.needs_start else {}
        want = metric.compute(model, middle, data, run.loss, **more)
        np.testing.assert_allclose(result.numpy(metric.name)[:, 1], want, rtol=1e-9, atol=1e-12)
    result.save(tmp_path / "r")
    back = fs.Result.load(tmp_path / "r")
    resumed = fs.resume(checkpoint)
    for metric in metrics:
        np.testing.assert_array_equal(back.numpy(metric.name), result.numpy(metric.name))
        np.testing.assert_array_equal(resumed.numpy(metric.name), result.numpy(metric.name))
    pytest.importorskip("xarray")
    labelled = back.to_xarray()
    for metric in metrics:
        dims = ("net", "step", *(metric.axes(model, data) or {}))
        assert labelled[metric.name].dims == dims
        for axis, labels in (metric.axes(model, data) or {}).items():
            assert labelled[axis].values.tolist() == list(labels)


def test_labels_name_what_they_stand_for():
    pytest.importorskip("xarray")
    grid = np.linspace(-1, 1, 5)
    run = fs.Run(fs.models.ReLU2(1, 3), problem(1), fs.rules.SGD(), 0.01, 2, networks=2, dtype="float64",
                 metrics=[M.FittedFunction(grid), M.NTK(), M.Predictions()])
    labelled = fs.train(run).to_xarray()
    assert labelled["fitted_function"].dims == ("net", "step", "fitted_function_point")
    np.testing.assert_array_equal(labelled["fitted_function_point"], grid)
    assert labelled["ntk"].dims[2:] == ("ntk_row", "ntk_column") and labelled["predictions"].dims[2] == "sample"
    deep = run.replace(model=fs.models.MLP(1, (4, 3)), metrics=[M.FeatureSparsity(), M.ActiveUnits(layer="hidden2")])
    labelled = fs.train(deep).to_xarray()
    assert labelled["feature_sparsity"].sel(layer="hidden2").shape == (2, 1)
    assert labelled["active_units"].dims == ("net", "step")


def test_records_keep_their_shape_when_every_network_is_lost():
    run = fs.Run(fs.models.ReLU2(1, 3), problem(1), fs.rules.SGD(lost_above=1e-9), 0.01, 9, networks=2, dtype="float64",
                 metrics=[M.Predictions(), M.ParameterNorm()])
    result = fs.train(run)
    assert not result.survived.any() and result.numpy("predictions").shape == (2, 1, 11)
    assert np.isnan(result.numpy("predictions")).all() and result.numpy("norm").shape == (2, 1)


def test_the_plan_counts_what_records_of_arrays_take():
    run = fs.Run(MODELS["relu2_3_21"], problem(3), fs.rules.SGD(), 0.01, 9, networks=5, dtype="float64",
                 save=fs.SaveAt(linear=3), metrics=[M.NTK(), M.ParameterNorm()])
    assert fs.plan(run).memory["records"] == 8 * 5 * 3 * (11 * 11 + 1)


RELU, DIAGONAL, DEEP = FAMILIES["relu"], FAMILIES["diagonal"], FAMILIES["relu_deep"]
REFUSED = [  # model, metric, what the message must hold
    (DIAGONAL, M.ActiveUnits(), "no hidden activations"), (RELU, M.ActiveUnits(layer="hidden1"), "hidden1"),
    (DEEP, M.DistinctUnits(layer="hidden"), "hidden2"), (fs.models.MLP(3, ()), M.FeatureRank(), "no hidden"),
    (fs.models.MLP(3, 4, activation="abs"), M.PatternDistance(), "abs"),
    (DEEP, M.NuclearNorm(of="neurons"), "two-layer"), (DEEP, M.GradientCount(), "two-layer"),
    (RELU, M.NuclearNorm(of="weighted", layer="hidden"), "leave layer out"), (RELU, M.Gain(), "u and v"),
    (fs.models.DiagonalProduct(3, 3), M.Gain(), "u and v"), (RELU, M.LinearCoefficients(), "linear"),
    (DEEP, M.LpNorm(), "relu"), (DIAGONAL, M.DistanceToTeacher(np.ones(4)), "beta"), (RELU, M.Kinks(), "d=3"),
    (fs.models.MLP(1, 4, activation="tanh"), M.Kinks(), "no kinks"),
    (fs.models.ReLU2(1, 4), M.Kinks(high=-9.0), "empty"),
    (RELU, M.GeneralisationError(np.ones((1, 3))), "b1"), (DEEP, M.Overlaps(), "two-layer"),
    (fs.models.MLP(3, 4, bias=False, activation="tanh"), M.GeneralisationError(np.ones((1, 3))), "closed form"),
    (fs.models.MLP(3, 4, bias=False), M.GeneralisationError(np.ones((2, 3)), [1.0]), "teacher_output"),
    (RELU, M.TeacherOverlaps(np.ones((2, 4))), "teacher"), (RELU, M.CosineAlignment(np.ones((2, 4))), "directions"),
    (RELU, M.FittedFunction(np.ones((2, 4))), "points"), (RELU, M.NTK(points=np.ones((2, 4))), "points"),
    (RELU, M.NTKEigenvalue(12), "11 rows"),
    (DIAGONAL, M.Sharpness(7), "6 parameters"), (RELU, M.Sharpness(5, "lanczos", iterations=4), "iterations"),
    (RELU, M.TrainAccuracy(), "-1 and 1"), (RELU, M.TestAccuracy(), "-1 and 1"),
    (fs.models.MLP(3, 4, fixed=("W1", "W2", "b1", "b2")), M.GradientNorm(), "trained"),
    (RELU, M.ParameterNorm(name="W1"), "belongs"), (RELU, M.SpectrumEntropy(points=np.ones((2, 4))), "points"),
]


@pytest.mark.parametrize(("model", "metric", "word"), REFUSED, ids=[f"{m.name}-{w}" for _, m, w in REFUSED])
def test_the_plan_refuses(model, metric, word):
    data = problem(model.d)
    if model.outputs > 1:
        y, y_test = (np.repeat(a[:, None], model.outputs, axis=1) for a in (data.y, data.y_test))
        data = fs.Dataset(data.X, y, data.X_test, y_test)
    run = fs.Run(model, data, fs.rules.SGD(), 0.1, 3, metrics=[metric], dtype="float64")
    with pytest.raises(fs.PlanError, match=metric.name) as caught:
        fs.plan(run)
    assert word in str(caught.value)


def test_gradients_in_the_inputs_are_of_one_output():
    assert "2 outputs" in M.GradientOuterProduct().refuse(FAMILIES["several"], problem(3))


def test_a_metric_may_not_be_called_like_an_axis():
    run = fs.Run(RELU, problem(3), fs.rules.SGD(), 0.1, 3, dtype="float64",
                 metrics=[M.Predictions(), M.ParameterNorm(name="sample")])
    with pytest.raises(fs.PlanError, match="'sample' belongs"):
        fs.plan(run)


def test_metrics_of_the_test_set_need_one():
    data = fs.Dataset(np.ones((2, 3)), np.ones(2))
    for metric in (M.SpectrumEntropy(), M.EffectiveRank(), M.TestAccuracy()):
        with pytest.raises(fs.PlanError, match="X_test"):
            fs.plan(fs.Run(RELU, data, fs.rules.SGD(), 0.1, 3, metrics=[metric], dtype="float64"))


ILLEGAL = [
    (M.ActiveUnits, {"threshold": -1}), (M.ActiveUnits, {"relative": True, "threshold": 2}),
    (M.ActiveUnits, {"relative": 1}), (M.DistinctUnits, {"tau": 0}), (M.FeatureRank, {"share": 1.0}),
    (M.FeatureRank, {"centre": None}), (M.NuclearNorm, {"of": "weights"}), (M.SchattenQuasiNorm, {"p": 1.5}),
    (M.SchattenQuasiNorm, {"of": 3}), (M.CountAbove, {"threshold": np.nan}), (M.CountAbove, {"of": None}),
    (M.SpectrumEntropy, {"points": [1.0]}), (M.EffectiveRank, {"points": [[np.inf]]}), (M.LpNorm, {"p": 0}),
    (M.DistanceToTeacher, {"beta": [np.nan]}), (M.Sharpness, {"k": 0}), (M.Sharpness, {"method": "power"}),
    (M.Sharpness, {"rtol": 0}), (M.Sharpness, {"iterations": 0}), (M.HessianTrace, {"method": "lanczos"}),
    (M.HessianTrace, {"probes": 0}), (M.HessianTrace, {"seed": -1}), (M.NTK, {"points": "x"}),
    (M.NTKEigenvalue, {"k": 1.5}), (M.KernelDistance, {"kind": "euclid"}), (M.JacobianSquaredNorm, {"points": 3}),
    (M.Kinks, {"low": 2, "high": 1}), (M.Kinks, {"low": np.nan}), (M.Kinks, {"apart": 2}), (M.Kinks, {"bend": 0}),
    (M.CosineAlignment, {"directions": [[0.0, 0.0]]}), (M.TeacherOverlaps, {"teacher": [1.0]}),
    (M.GeneralisationError, {"teacher": [[1.0]], "factor": 0}), (M.FittedFunction, {"points": None}),
    (M.GeneralisationError, {"teacher": [[1.0]], "teacher_output": [np.inf]}), (M.DistanceTravelled, {"relative": 0}),
]


@pytest.mark.parametrize(("kind", "given"), ILLEGAL, ids=[f"{k.__name__}-{g}" for k, g in ILLEGAL])
def test_illegal_fields_are_refused(kind, given):
    with pytest.raises(fs.SpecError, match=f"{kind.__name__}.{list(given)[-1]}"):
        kind(**given)


def test_every_field_is_documented():
    for name, kind in KINDS.items():
        for field in inspect.signature(kind).parameters:
            text = "".join(inspect.getdoc(base) or "" for base in kind.__mro__ if base is not object)
            assert field == "name" or field in text, f"{name}.{field}"


def test_every_metric_stands_in_the_documentation():
    table = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text()
    for metric in SHELF:
        row = next(line for line in table.splitlines() if f"`{type(metric).__name__}" in line)
        assert f"`{metric.name}`" in row


def test_the_start_is_each_networks_own_when_others_are_lost():
    model = fs.models.ReLU2(3, 5)
    run = fs.Run(model, problem(3), fs.rules.SGD(), np.where(np.arange(40) % 3, 0.02, 9.0), 60, seed=1, dtype="float64",
                 metrics=[M.DistanceTravelled(), M.PatternDistance()], save=fs.SaveAt(linear=3, params=True))
    result = fs.train(run)
    alive = np.flatnonzero(result.survived)
    assert 0 < len(alive) < 40 and alive[0] != 0
    start, now = (result.saved_weights[alive, s] for s in (0, -1))
    np.testing.assert_allclose(result.numpy("distance_travelled")[alive, -1], np.linalg.norm(now - start, axis=1))
    want = M.PatternDistance().compute(model, model.unflatten(now), run.data, None, start=model.unflatten(start))
    np.testing.assert_array_equal(result.numpy("pattern_distance")[alive, -1], want)
    assert np.isnan(result.numpy("pattern_distance")[~result.survived, -1]).all()


def test_data_without_a_training_set():
    """Metrics of training data are refused, those of given points and of parameters are not."""
    data = fs.data.Fresh(3, RELU, weights=RELU.unflatten(np.ones(RELU.P)))
    needs = (M.TrainLoss, M.Predictions, M.TrainAccuracy, M.NTK, M.GradientCount, M.GradientOuterProduct, M.Sharpness,
             M.GradientNorm, M.HessianTrace, M.ActiveUnits, M.FeatureSparsity, M.NuclearNorm, M.PatternDistance)
    for metric in (*(kind() for kind in needs), M.NuclearNorm("weighted")):
        assert "no training set" in metric.refuse(RELU, data)
    for metric in (M.NTK(points=np.ones((2, 3))), M.FittedFunction(np.ones((2, 3))), M.NuclearNorm("neurons"),
                   M.ParameterNorm(), M.Overlaps(), M.EffectiveRank(points=np.ones((2, 3)))):
        assert metric.refuse(RELU, data) is None
    line = fs.data.Fresh(1, fs.models.ReLU2(1, 2), weights=fs.models.ReLU2(1, 2).unflatten(np.ones(7)))
    assert "no training set" in M.Kinks(low=0.0).refuse(fs.models.ReLU2(1, 2), line)
    assert M.Kinks(0.0, 1.0).refuse(fs.models.ReLU2(1, 2), line) is None
