"""Bad input is refused before anything runs, by an error that names the field."""

import numpy as np
import pytest
import torch
from cases import problem

import fastsgd as fs

GOOD = {"model": fs.models.DiagonalLinear(3), "data": problem(3), "rule": fs.rules.SGD(), "step_size": 0.01,
        "steps": 10, "dtype": "float64"}
RELU = fs.models.ReLU2(3, 4)
NAN, INF = float("nan"), float("inf")
X, Y = np.ones((5, 3)), np.ones(5)
pytestmark = pytest.mark.usefixtures("nothing_runs")


def spoiled(value, at=(0, 0)):
    """A copy of X with one entry replaced."""
    out = X.copy()
    out[at] = value
    return out


RECORDS = [  # what is made, the field that the message must name
    (lambda: fs.Dataset(Y, Y), "X"),
    (lambda: fs.Dataset(X, X[None]), "y"),
    (lambda: fs.Dataset(X, Y[:4]), "y"),
    (lambda: fs.Dataset(X[:0], Y[:0]), "X"),
    (lambda: fs.Dataset(spoiled(NAN), Y), "X"),
    (lambda: fs.Dataset(X, np.array([1, 2, INF, 3, 4])), "y"),
    (lambda: fs.Dataset(X, Y, X), "X_test and y_test"),
    (lambda: fs.Dataset(X, Y, X[:, :2], Y), "X_test"),
    (lambda: fs.Dataset(X, Y, spoiled(-INF), Y), "X_test"),
    (lambda: fs.Dataset(X, Y, X, Y * NAN), "y_test"),
    (lambda: fs.Dataset([[1, 2], [3]], [1, 2]), "X"),
    (lambda: fs.Dataset(X.astype(str), Y), "X"),
    (lambda: fs.Dataset(X.astype(object), Y), "X"),
    (lambda: fs.Dataset(X * 1j, Y), "X"),
    (lambda: fs.Dataset(X, Y).astype("int32"), "dtype"),
    (lambda: fs.StepSize(-0.1), "step_size"),
    (lambda: fs.StepSize(0.0), "step_size"),
    (lambda: fs.StepSize(NAN), "step_size"),
    (lambda: fs.StepSize(INF), "step_size"),
    (lambda: fs.StepSize([0.1, -0.2]), "step_size"),
    (lambda: fs.StepSize([]), "step_size"),
    (lambda: fs.StepSize("fast"), "step_size"),
    (lambda: fs.StepSize(0.1, decay_at=1.5, decay_by=2), "decay_at"),
    (lambda: fs.StepSize(0.1, decay_at=0.5, decay_by=0), "decay_by"),
    (lambda: fs.StepSize(0.1, decay_by=2), "decay_by"),
    (lambda: fs.StepSize(0.1, decay_timing="during"), "decay_timing"),
    (lambda: fs.StepSize(0.1, warmup=3), "warmup"),
    (lambda: fs.Warmup(0), "warmup.factor"),
    (lambda: fs.Warmup(2, power=-1), "warmup.power"),
    (lambda: fs.Warmup(2, until=2), "warmup.until"),
    (lambda: fs.Warmup(2, shape="linear"), "warmup.shape"),
    (lambda: fs.Warmup(2, clock="epoch"), "warmup.clock"),
    (lambda: fs.Cosine(1.5), "cosine.final"),
    (lambda: fs.Cosine(start=1), "cosine.start"),
    (lambda: fs.StepSize(0.1, cosine=0.5), "step_size.cosine"),
    (lambda: fs.StepTable([[0.1, -0.1]]), "step_size"),
    (lambda: fs.StepTable([0.1, NAN]), "step_size"),
    (lambda: fs.SaveAt(), "save"),
    (lambda: fs.SaveAt(steps=[-1]), "save.steps"),
    (lambda: fs.SaveAt(steps=[]), "save.steps"),
    (lambda: fs.SaveAt(steps=[1.5]), "save.steps"),
    (lambda: fs.SaveAt(linear=0), "save.linear"),
    (lambda: fs.SaveAt(log=True), "save.log"),
    (lambda: fs.orders.Replay([0.5]), "order"),
    (lambda: fs.orders.Replay([]), "order"),
    (lambda: fs.orders.Replay([1, -1]), "order"),
    (lambda: fs.orders.Replay(np.zeros((2, 2, 2, 2), int)), "order"),
    (lambda: fs.orders.Common(-1), "order.network"),
    (lambda: fs.rules.SGD(batch_size=0), "rule.batch_size"),
    (lambda: fs.rules.SGD(batch_size=True), "rule.batch_size"),
    (lambda: fs.rules.SGD(lost_above=0), "rule.lost_above"),
    (lambda: fs.rules.GD(lost_above=NAN), "rule.lost_above"),
    (lambda: fs.models.DiagonalLinear(0), "model.d"),
    (lambda: fs.models.DiagonalLinear(3, u0=NAN), "model.u0"),
    (lambda: fs.models.ReLU2(3, 0), "model.width"),
    (lambda: fs.models.ReLU2(3, 2, W1_scale=-1), "model.W1_scale"),
    (lambda: fs.losses.Squared(0), "loss.factor"),
    (lambda: fs.metrics.JacobianRank(1.0), "rtol"),
    (lambda: fs.metrics.JacobianRank(points=[1.0]), "points"),
    (lambda: fs.metrics.FeatureSparsity(tau=0), "tau"),
    (lambda: fs.metrics.L0(-1), "threshold"),
    (lambda: fs.Tuning(threads=0), "tuning.threads"),
    (lambda: fs.Tuning(segment=1.5), "tuning.segment"),
]


@pytest.mark.parametrize(("make", "field"), RECORDS, ids=[f"{k}-{field}" for k, (_, field) in enumerate(RECORDS)])
def test_records_refuse(make, field):
    with pytest.raises(fs.SpecError, match=field):
        make()


RUNS = [  # fields changed, the field that the message must name
    ({"data": X}, "data"),
    ({"model": fs.models.DiagonalLinear}, "model"),
    ({"model": "diagonal"}, "model"),
    ({"model": fs.models.DiagonalLinear(4)}, "model.d"),
    ({"rule": fs.rules.SGD}, "rule"),
    ({"rule": "sgd"}, "rule"),
    ({"steps": 0}, "steps"),
    ({"steps": 2.5}, "steps"),
    ({"steps": True}, "steps"),
    ({"steps": 2**40}, "steps"),
    ({"step_size": -1.0}, "step_size"),
    ({"step_size": np.ones((1, 9))}, "step_size"),
    ({"step_size": [0.1, 0.2], "networks": 3}, "step_size"),
    ({"step_size": fs.StepSize([0.1, 0.2], decay_at=[0.1, 0.2, 0.3])}, "decay_at"),
    ({"model": fs.models.DiagonalLinear(3, u0=[0.1, 0.2]), "networks": 3}, "model"),
    ({"networks": 0}, "networks"),
    ({"networks": -2}, "networks"),
    ({"networks": 1.0}, "networks"),
    ({"init": {"u": np.ones(3)}}, "init"),
    ({"init": {"u": np.ones(3), "v": np.ones(2)}}, "init"),
    ({"init": {"u": np.ones(3), "v": np.ones((2, 3))}, "networks": 3}, "init"),
    ({"init": {"u": np.ones(3), "v": np.full(3, NAN)}}, "init"),
    ({"init": {"u": np.ones(3, np.float32), "v": np.ones(3)}}, "init"),
    ({"init": [1]}, "init"),
    ({"init": {}}, "init"),
    ({"order": "common"}, "order"),
    ({"order": fs.orders.Replay([0] * 9)}, "order"),
    ({"order": fs.orders.Replay([11] * 10)}, "order"),
    ({"order": fs.orders.Replay(np.zeros((2, 10), int)), "networks": 3}, "order"),
    ({"order": fs.orders.Replay(np.zeros((1, 10, 2), int))}, "order"),
    ({"order": fs.orders.Replay(np.zeros((10, 2), int))}, r"order: .*\[10, 2\] given, read as \[N, T\].*order\[None\]"),
    ({"step_size": np.ones(10), "networks": 3}, r"step_size: \[10\] given, read as \[N\].*StepTable"),
    ({"step_size": np.ones((10, 1))}, r"step_size: .*\[10, 1\] given, read as"),
    ({"order": fs.orders.Replay(np.zeros((10, 2), int)), "step_size": [0.1, 0.2]}, r"read as \[N, T\].*order\[None\]"),
    ({"order": fs.orders.Replay([0] * 10), "rule": fs.rules.SGD(batch_size=2)}, r"read as \[T\].*\[1, T, batch\]"),
    ({"order": fs.orders.Replay([0] * 10), "rule": fs.rules.GD()}, "order"),
    ({"save": 10}, "save"),
    ({"save": fs.SaveAt(steps=[11])}, "save"),
    ({"metrics": ["rank"]}, "metrics"),
    ({"metrics": [fs.metrics.TrainLoss]}, "metrics"),
    ({"metrics": [fs.metrics.TrainLoss(), fs.metrics.TrainLoss()]}, "train_loss"),
    ({"metrics": [fs.metrics.FeatureSparsity()]}, "feature_sparsity"),
    ({"metrics": [fs.metrics.L0()], "model": RELU}, "l0"),
    ({"metrics": [fs.metrics.TestLoss()], "data": fs.Dataset(X, Y)}, "test_loss"),
    ({"metrics": [fs.metrics.JacobianRank()], "data": fs.Dataset(X, Y)}, "rank"),
    ({"metrics": [fs.metrics.JacobianRank(points=np.ones((4, 2)))]}, "rank"),
    ({"loss": "squared"}, "loss"),
    ({"dtype": "float32"}, "X"),
    ({"dtype": "float32", "data": torch.ones(5)}, "data"),
    ({"dtype": "float16"}, "dtype"),
    ({"backend": "tpu"}, "backend"),
    ({"device": "gpu"}, "device"),
    ({"device": "cuda:0", "backend": "cpu"}, "device"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**64}, "seed"),
    ({"seed": 0.5}, "seed"),
    ({"ids": []}, "ids"),
    ({"ids": [0, 0]}, "ids"),
    ({"ids": [-1]}, "ids"),
    ({"ids": [3], "networks": 3}, "ids"),
    ({"ids": [2], "step_size": [0.1, 0.2]}, "ids"),
    ({"ids": [0.5]}, "ids"),
    ({"progress": 3}, "progress"),
    ({"checkpoint": "/no/such/folder/x.ckpt"}, "checkpoint"),
    ({"tuning": fs.Tuning(lanes=3)}, "lanes"),
    ({"tuning": "fast"}, "tuning"),
]


@pytest.mark.parametrize(("changes", "field"), RUNS, ids=[f"{k}-{field}" for k, (_, field) in enumerate(RUNS)])
def test_runs_refuse(changes, field):
    with pytest.raises((fs.SpecError, fs.PlanError), match=field):
        fs.train(**(GOOD | changes))


def test_float64_data_in_a_float32_run_says_what_to_do():
    with pytest.raises(fs.PlanError, match=r"X: holds float64, but the run is float32.*astype"):
        fs.train(**(GOOD | {"dtype": "float32"}))
    with pytest.raises(fs.PlanError, match="X: holds float64"):
        tensors = fs.Dataset(torch.ones(5, 3).double(), torch.ones(5).double())
        fs.train(**(GOOD | {"dtype": "float32", "data": tensors}))
