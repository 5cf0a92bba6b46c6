"""Turn every knob: each field of a request, perturbed, must move every backend's output; tuning must not move a bit."""

from dataclasses import fields

import numpy as np
import pytest
from cases import BACKENDS, bits, problem, request
from general_cases import general
from general_knobs import KNOBS as GENERAL
from general_knobs import RECORDS as MORE
from general_knobs import SHARED

import fastsgd as fs

DATA = problem(3)


def base(**changes):
    """A small run in which every knob matters."""
    schedule = fs.StepSize(0.05, 0.4, 2.0, "after", fs.Warmup(3.0, 0.5, 0.3), fs.Cosine(0.2, 0.1))
    defaults = {"model": fs.models.ReLU2(3, 5, W1_scale=0.5, W2_scale=0.5, b1_scale=0.3, b2_scale=0.3), "data": DATA,
                "rule": fs.rules.SGD(batch_size=2), "step_size": schedule, "steps": 20, "networks": 3,
                "metrics": (fs.metrics.TrainLoss(), fs.metrics.TestLoss()), "save": fs.SaveAt(linear=4),
                "dtype": "float64", "seed": 3}
    return fs.Run(**(defaults | changes))


def model(**changes):
    scales = {"W1_scale": 0.5, "W2_scale": 0.5, "b1_scale": 0.3, "b2_scale": 0.3}
    return fs.models.ReLU2(**({"d": 3, "width": 5} | scales | changes))


def step(**changes):
    return fs.StepSize(**({"base": 0.05, "decay_at": 0.4, "decay_by": 2.0, "decay_timing": "after",
                           "warmup": fs.Warmup(3.0, 0.5, 0.3), "cosine": fs.Cosine(0.2, 0.1)} | changes))


def points(**changes):
    arrays = {"X": DATA.X, "y": DATA.y, "X_test": DATA.X_test, "y_test": DATA.y_test}
    return fs.Dataset(**(arrays | {name: arrays[name] * 1.1 for name in changes}))


def sets(which):
    """The data, and the data larger, each network by its own number."""
    arrays = {name: getattr(DATA, name) for name in ("X", "y", "X_test", "y_test")}
    return fs.Dataset(**{name: np.stack([a, 1.1 * a]) for name, a in arrays.items()}, which=which)


START = {name: np.full(shape, 0.3) for name, shape in model().shapes().items()}
KNOBS = {
    "Run.model": {"model": model(width=6)},
    "Run.data": {"data": problem(3, seed=1)},
    "Run.rule": {"rule": fs.rules.GD()},
    "Run.step_size": {"step_size": step(base=0.06)},
    "Run.steps": {"steps": 21},
    "Run.networks": {"networks": 4},
    "Run.init": {"init": START},
    "Run.order": {"order": fs.orders.Common()},
    "Run.save": {"save": fs.SaveAt(linear=5)},
    "Run.metrics": {"metrics": (fs.metrics.TrainLoss(),)},
    "Run.loss": {"loss": fs.losses.Squared.full()},
    "Run.dtype": {"dtype": "float32", "data": DATA.astype("float32")},
    "Run.seed": {"seed": 4},
    "Run.ids": {"ids": [2, 1, 0]},
    "Run.keys": {"keys": [0, 1, 1]},
    "Dataset.X": {"data": points(X=1)},
    "Dataset.y": {"data": points(y=1)},
    "Dataset.X_test": {"data": points(X_test=1)},
    "Dataset.y_test": {"data": points(y_test=1)},
    "Dataset.which": {"data": sets([0, 1, 0])},
    "Run.stop": {"stop": [fs.stops.Above("norm", 0.0, every=10)]},
    "StepSize.base": {"step_size": step(base=[0.05, 0.05, 0.06])},
    "StepSize.decay_at": {"step_size": step(decay_at=0.5)},
    "StepSize.decay_by": {"step_size": step(decay_by=2.5)},
    "StepSize.decay_timing": {"step_size": step(decay_timing="before")},
    "StepSize.warmup": {"step_size": step(warmup=None)},
    "Warmup.factor": {"step_size": step(warmup=fs.Warmup(3.5, 0.5, 0.3))},
    "Warmup.power": {"step_size": step(warmup=fs.Warmup(3.0, 0.6, 0.3))},
    "Warmup.until": {"step_size": step(warmup=fs.Warmup(3.0, 0.5, 0.4))},
    "Warmup.shape": {"step_size": step(warmup=fs.Warmup(3.0, 0.5, 0.3, "exponential"))},
    "Warmup.clock": {"step_size": step(warmup=fs.Warmup(3.0, 0.5, 0.3, clock="own"))},
    "StepSize.cosine": {"step_size": step(cosine=None)},
    "Cosine.final": {"step_size": step(cosine=fs.Cosine(0.3, 0.1))},
    "Cosine.start": {"step_size": step(cosine=fs.Cosine(0.2, 0.3))},
    "StepTable.values": {"step_size": fs.StepTable(np.full(20, 0.04))},
    "Replay.order": {"order": fs.orders.Replay(np.zeros((1, 20, 2), int))},
    "Squared.factor": {"loss": fs.losses.Squared(0.6)},
    "SaveAt.steps": {"save": fs.SaveAt(steps=[7])},
    "SaveAt.linear": {"save": fs.SaveAt(linear=6)},
    "SaveAt.log": {"save": fs.SaveAt(log=3)},
    "SaveAt.first": {"save": fs.SaveAt(linear=4, first=5)},
    "SaveAt.params": {"save": fs.SaveAt(linear=4, params=True)},
    "ReLU2.d": {"model": model(d=4), "data": problem(4)},
    "ReLU2.width": {"model": model(width=4)},
    "ReLU2.hidden_bias": {"model": model(hidden_bias=False)},
    "ReLU2.output_bias": {"model": model(output_bias=False)},
    "ReLU2.W1_scale": {"model": model(W1_scale=0.6)},
    "ReLU2.W2_scale": {"model": model(W2_scale=0.6)},
    "ReLU2.b1_scale": {"model": model(b1_scale=0.4)},
    "ReLU2.b2_scale": {"model": model(b2_scale=[0.3, 0.3, 0.4])},
    "DiagonalLinear.d": {"model": fs.models.DiagonalLinear(4), "data": problem(4)},
    "DiagonalLinear.u0": {"model": fs.models.DiagonalLinear(3, u0=0.2)},
    "DiagonalLinear.v0": {"model": fs.models.DiagonalLinear(3, v0=0.2)},
}
GENERAL_MODEL = fs.models.ReLU2(5, 4, b1_scale=0.3)
SHARED_KNOBS = {f"{rule}.{name}" for rule in ("GD", "SAM", "Adam", "SignSGD", "Lion", "Muon", "RMSProp", "Adagrad",
                                               "SDE")
                for name in SHARED}
ELSEWHERE = {  # fields that choose how, not what; each has tests of its own
    "Run.backend", "Run.device", "SDE.label_noise",
}
RECORDS = (fs.Run, fs.Dataset, fs.StepSize, fs.Warmup, fs.Cosine, fs.StepTable, fs.rules.SGD, fs.rules.GD,
           fs.orders.PerNetwork, fs.orders.Common, fs.orders.Replay, fs.losses.Squared, fs.SaveAt, fs.models.ReLU2,
           fs.models.DiagonalLinear)


def output(run):
    """Everything a run returns, as bytes."""
    result = fs.train(run, tuning=fs.Tuning(threads=1))
    kept = None if result.saved_weights is None else result.saved_weights.tobytes()
    return bits(result), result.steps.tolist(), result.ids.tolist(), kept


def test_every_field_has_its_knob():
    have = {f"{record.__name__}.{field.name}" for record in (*RECORDS, *MORE) for field in fields(record)}
    assert have == set(KNOBS) | set(GENERAL) | ELSEWHERE


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_moves_every_backend(knob, backend):
    still = {"model": fs.models.DiagonalLinear(3)} if knob.startswith("DiagonalLinear") else {}
    before, after = output(base(backend=backend, **still)), output(base(backend=backend, **(still | KNOBS[knob])))
    assert before != after


@pytest.mark.parametrize(("knob", "backend"), [
    (knob, backend) for knob in GENERAL for backend in BACKENDS
    if backend != "cuda" or knob not in SHARED_KNOBS])  # one text serves all rules there: SGD's fields stand for it
def test_every_knob_of_the_general_loop_moves_every_backend(knob, backend):
    before, after = (general_output(fields, backend) for fields in GENERAL[knob])
    assert before != after


SEEN = {}  # of what several knobs begin with; the fields are kept, so that no others have their id


def general_output(fields, backend):
    if (id(fields), backend) not in SEEN:
        run = general({"model": GENERAL_MODEL} | fields, backend=backend, step_size=0.05, networks=2)
        SEEN[id(fields), backend] = output(run)
    return SEEN[id(fields), backend]


@pytest.mark.parametrize("metric", [
    (fs.metrics.L0(), fs.metrics.L0(0.01)), (fs.metrics.JacobianRank(1e-9), fs.metrics.JacobianRank(0.9)),
    (fs.metrics.JacobianRank(1e-9), fs.metrics.JacobianRank(1e-9, points=DATA.X[:2]))], ids=["L0", "rtol", "points"])
def test_metric_knobs_of_diagonal_networks(metric):
    run = base(model=fs.models.DiagonalLinear(3, u0=0.3), metrics=())
    first, second = (fs.train(run.replace(metrics=[m])).numpy(m.name) for m in metric)
    assert (first != second).any()


@pytest.mark.parametrize("metric", [
    (fs.metrics.FeatureSparsity(), fs.metrics.FeatureSparsity(tau=0.3)),
    (fs.metrics.FeatureSparsity(tau=0.9), fs.metrics.FeatureSparsity(tau=0.9, normalise=False))],
    ids=["tau", "normalise"])
def test_metric_knobs_of_relu_networks(metric):
    run = base(model=model(width=12), networks=200, metrics=())
    first, second = (fs.train(run.replace(metrics=[m])).numpy(m.name) for m in metric)
    assert (first != second).any()


@pytest.mark.parametrize("tuning", [{"threads": 1}, {"lanes": 1, "team": 1}, {"segment": 3}])
def test_tuning_moves_no_bit(tuning):
    run = request("relu2_3_21")
    assert bits(fs.train(run, tuning=fs.Tuning(**tuning))) == bits(fs.train(run))
