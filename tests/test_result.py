"""A result is a mapping of its records, labels what was swept, and says what was asked; records print in a line."""

import json

import numpy as np
import pytest
import torch
from cases import problem

import fastsgd as fs

M, R = fs.models, fs.rules
SWEEP = np.array([0.1, 0.2, 0.3, 0.4])
SWEPT = {  # {coordinate: fields of a Run that hold SWEEP}
    "step_size.base": {"step_size": SWEEP},
    "step_size.decay_by": {"step_size": fs.StepSize(0.1, 0.5, SWEEP)},
    "step_size.warmup.power": {"step_size": fs.StepSize(0.1, warmup=fs.Warmup(2.0, SWEEP))},
    "step_size.cosine.start": {"step_size": fs.StepSize(0.1, cosine=fs.Cosine(0.0, SWEEP))},
    "rule.weight_decay": {"rule": R.SGD(weight_decay=SWEEP)},
    "rule.rho": {"rule": R.SAM(rho=SWEEP)},
    "rule.beta1": {"rule": R.Adam(beta1=SWEEP)},
    "rule.label_noise.sigma": {"rule": R.SGD(label_noise=fs.LabelNoise(SWEEP))},
    "rule.gradient_noise.sigma.base": {"rule": R.SGD(gradient_noise=fs.StepSize(SWEEP))},
    "rule.loss_level": {"rule": R.SDE(sgd_step=0.1, loss_level=SWEEP)},
    "model.W_scale": {"model": M.MLP(3, (4, 4), W_scale=SWEEP)},
    "model.b_scale.0": {"model": M.MLP(3, 4, b_scale=(SWEEP, 0.1))},
    "model.u0": {"model": M.DiagonalLinear(3, u0=SWEEP)},
    "model.start_at": {"model": M.DiagonalProduct(3, 3, SWEEP)},
}


def trained(**fields):
    return fs.train(**({"model": M.MLP(3, 4), "data": problem(3), "rule": R.SGD(), "step_size": 0.01, "steps": 3,
                        "dtype": "float64", "metrics": [fs.metrics.TrainLoss(), fs.metrics.TestLoss()]} | fields),
                    tuning=fs.Tuning(threads=1))


def test_a_result_is_a_mapping_of_its_records():
    result = trained()
    assert "train_loss" in result and "absent" not in result and 3 not in result
    assert list(result) == list(result.keys()) == ["train_loss", "test_loss"]
    assert {name: a.shape for name, a in dict(result).items()} == {"train_loss": (1, 1), "test_loss": (1, 1)}
    with pytest.raises(fs.SpecError, match="no record 'absent'"):
        result["absent"]


@pytest.mark.parametrize("name", SWEPT)
@pytest.mark.parametrize("ids", (None, [3, 1]))
def test_every_swept_field_is_a_coordinate(name, ids):
    pytest.importorskip("xarray")
    labelled = trained(**SWEPT[name], ids=ids).to_xarray()
    assert labelled[name].dims == ("net",)
    np.testing.assert_array_equal(labelled[name], SWEEP if ids is None else SWEEP[ids])
    others = {str(coordinate) for coordinate in labelled.coords} - {"net", "step", "step_size", "lost", name}
    assert not others


def test_decays_of_each_network_are_coordinates_of_two_axes():
    pytest.importorskip("xarray")
    size = fs.StepSize(0.1, decay_at=[[0.1, 0.5], [0.2, 0.6]], decay_by=[[2.0, 3.0]])
    labelled = trained(step_size=size).to_xarray()
    np.testing.assert_array_equal(labelled["step_size.decay_at"], size.decay_at)
    assert "step_size.decay_by" not in labelled.coords
    table = trained(step_size=np.full((2, 3), 0.1)).to_xarray()
    assert {"net", "step", "step_size", "lost"} == set(map(str, table.coords))


def test_attributes_say_what_was_asked():
    pytest.importorskip("xarray")
    given = trained(seed=2**63 + 5, rule=R.SGD(batch_size=2, weight_decay=SWEEP), ids=[2]).to_xarray().attrs
    request = json.loads(given["request"], parse_constant=pytest.fail)
    assert given["seed"] == request["seed"] == 2**63 + 5 and request["ids"] == [2]
    assert request["model"] | {"type": "MLP", "d": 3, "widths": [4]} == request["model"]
    assert request["rule"]["batch_size"] == 2 and request["rule"]["weight_decay"] == SWEEP.tolist()
    assert request["data"]["X"] == "float64 [11, 3]" and request["metrics"][0]["type"] == "TrainLoss"
    function = trained(metrics=[fs.metrics.Custom(lambda params, data: np.ones(len(params["W1"])), "ones")])
    assert "lambda" in json.loads(function.to_xarray().attrs["request"])["metrics"][0]["function"]


RECORDS = [problem(30, n=200), fs.data.Fresh(3, M.MLP(3, 50), {name: np.ones(shape) for name, shape in M.MLP(
    3, 50).shapes().items()}), fs.data.Stream(3, lambda *asked: None), fs.StepSize(np.full(500, 0.1)),
    fs.StepTable(np.full(500, 0.1)), fs.Warmup(np.ones(500)), fs.Cosine(np.zeros(500)), fs.SaveAt(steps=np.arange(500)),
    fs.orders.Replay(np.zeros(500, int)), R.SGD(weight_decay=np.ones(500)), R.Adam(label_noise=np.ones(500)),
    M.ReLU2(3, 4, W1_scale=np.ones(500)), M.MLP(3, 4, W_scale=np.ones(500)), M.TiedAutoencoder(3, 2),
    fs.losses.Squared(weights=np.ones(500)), fs.metrics.JacobianRank(points=np.ones((50, 3))),
    fs.LabelNoise(np.ones(500)), fs.metrics.Custom(np.mean, "mean")]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_print_in_a_line(record):
    text = repr(record)
    assert "\n" not in text and len(text) < 400 and text.startswith(type(record).__name__ + "(")
    assert str(record) == text


def test_systems_runs_and_plans_print_in_a_line():
    assert repr(problem(3, n=5)).startswith("Dataset(X=float64 [5, 3], y=float64 [5], X_test=float64 [9, 3]")
    assert repr(M.DiagonalLinear(3, u0=0.25)) == "DiagonalLinear(d=3, u0=0.25, v0=0.0)"
    run = fs.Run(M.MLP(3, 4), problem(3, n=300), R.SGD(), np.full(300, 0.1), 5, dtype="float64")
    for record, most in ((fs.data.paper("S7"), 1200), (run, 1500), (fs.plan(run), 3000), (trained(), 200)):
        assert "\n" not in repr(record) and len(repr(record)) < most


@pytest.mark.parametrize("dtype", (np.float32, np.dtype("float32"), torch.float32, "float32", "torch.float32"))
def test_dtypes_of_numpy_and_torch_are_taken(dtype):
    for data in (fs.data.sparse_regression(8, 3, 2, 5, dtype=dtype), fs.data.teacher_student(8, 3, 2, dtype=dtype),
                 fs.data.paper("S7", dtype=dtype).data):
        assert data.X.dtype == data.y.dtype == np.float32
    plain = fs.data.sparse_regression(8, 3, 2, 5)
    result = fs.train(M.MLP(3, 4), plain.astype("float32"), rule=R.SGD(), step_size=0.01, steps=3, dtype=dtype)
    assert result.run.dtype == "float32" and result.weights.dtype == np.float32
    system = fs.data.paper("S7", dtype=dtype)
    assert all(a.dtype == np.float32 for a in (*system.init.values(), *system.teacher.values()))


@pytest.mark.parametrize("dtype", ("float16", np.float16, int, float, None, 3, torch.int64, np.ndarray, ["float32"],
                                   np.dtype(">f8"), "f8"))
def test_other_dtypes_are_refused_by_name(dtype):
    for make in (lambda: fs.data.sparse_regression(8, 3, 2, dtype=dtype), lambda: fs.data.paper("S7", dtype=dtype),
                 lambda: fs.data.teacher_student(8, 3, 2, dtype=dtype), lambda: trained(dtype=dtype)):
        with pytest.raises(fs.SpecError, match=r"dtype: .* given, expected one of"):
            make()


def test_steps_that_are_whole_floats_are_taken():
    assert trained(steps=1e1).run.steps == 10 and type(trained(steps=np.float32(7)).run.steps) is int
    for bad in (2.5, 0.0, float("nan"), float("inf"), 1e300, -1e3):
        with pytest.raises(fs.SpecError, match=r"steps: .* given, expected a whole number"):
            trained(steps=bad)


def test_labels_of_what_layers_share_are_the_same_out_of_a_file(tmp_path):
    pytest.importorskip("xarray")
    X = np.random.default_rng(0).standard_normal((9, 6))
    model = fs.models.MLP(6, (4, 3), W_scale=np.array([0.1, 0.2, 0.3]), b_scale=0.1)
    result = fs.train(fs.Run(model, fs.Dataset(X, X[:, 0]), fs.rules.SGD(), 0.1, 20, dtype="float64"))
    result.save(tmp_path / "a.npz")
    names = [set(one.to_xarray().coords) for one in (result, fs.Result.load(tmp_path / "a.npz"))]
    assert names[0] == names[1] and "model.W_scale" in names[0] and "model.W_scale.0" not in names[0]
