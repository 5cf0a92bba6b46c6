"""The Triton backend measures networks where they lie: weights come home once, for the result."""

import numpy as np
import pytest
import torch
from tolerances import METRIC

import fastsgd as fs
from fastsgd.backends.triton import Triton
from fastsgd.measure.tiles import Tiles
from fastsgd.portable import interpreted

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(not (interpreted() or torch.cuda.is_available()), reason="no GPU, not interpreted")
M, R, F = fs.models, fs.rules, fs.metrics
MODELS = {"diagonal": M.DiagonalLinear(5, u0=0.5, v0=0.2), "relu2": M.ReLU2(3, 5)}


@pytest.fixture
def reads(monkeypatch):
    """A list that grows by one whenever weights are read from the device."""
    seen, read = [], Triton.read
    monkeypatch.setattr(Triton, "read", lambda self, state: (seen.append(state), read(self, state))[1])
    return seen


def run_of(name, dtype, **fields):
    """Five networks; a huge weight of network 3 belongs to an input that is zero: no sample sees it overflow."""
    rng, model = np.random.default_rng(0), MODELS[name]
    X = rng.standard_normal((7, model.d)).astype(dtype)
    X[:, -1] = 0
    start = model.start(0, np.arange(5)).astype(dtype)
    start[3, -1 if name == "diagonal" else model.d - 1] = np.finfo(dtype).max / 45 / 1.25**2.5  # the fourth step
    metrics = [F.TrainLoss(), F.TestLoss(), *([F.FeatureSparsity(), F.NTK()] if name == "relu2" else [])]
    fields = {"rule": R.SGD(weight_decay=45), "save": fs.SaveAt(4), "metrics": metrics, "backend": "triton"} | fields
    return fs.Run(model, fs.Dataset(X, X[:, 0].copy(), X_test=X[:4], y_test=X[:4, 0].copy()), step_size=0.05, steps=8,
                  networks=5, init=model.unflatten(start), dtype=dtype, **fields)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_weights_are_read_once_and_records_are_those_of_weights_at_home(name, dtype, reads, monkeypatch):
    run = run_of(name, dtype)
    got = fs.train(run)
    assert len(reads) == 1, "weights were read for a record"
    want = fs.train(run.replace(backend="cpu"))
    np.testing.assert_array_equal(got.lost, want.lost)
    assert (want.lost >= 0).tolist() == [False, False, False, True, False]
    monkeypatch.setattr(Tiles, "measure_state", lambda self, state, metric, positions: None)
    home = fs.train(run)
    assert len(reads) > 2
    np.testing.assert_array_equal(home.lost, got.lost)
    for metric in run.metrics:
        np.testing.assert_array_equal(home.numpy(metric.name), got.numpy(metric.name), metric.name)
        near = {"rtol": 1e3 * np.finfo(dtype).eps, "atol": METRIC}
        np.testing.assert_allclose(got.numpy(metric.name), want.numpy(metric.name), **near)


def test_what_has_no_kernel_and_averages_are_measured_at_home(reads):
    """Norms have no kernel here, and averages are not what lies in the state's rows."""
    for fields in ({"metrics": F.ParameterNorm()}, {"rule": R.SGD(average=0.5), "metrics": F.TrainLoss(),
                                                    "save": fs.SaveAt(steps=[2, 8], of="average")}):
        run, before = run_of("diagonal", "float64", **({"rule": R.SGD()} | fields)), len(reads)
        got, want = fs.train(run), fs.train(run.replace(backend="cpu"))
        assert len(reads) > before + 1
        name = run.metrics[0].name
        np.testing.assert_allclose(got.numpy(name), want.numpy(name), rtol=METRIC)


@pytest.mark.parametrize("scale", [1, 1e-170, 1e200])
def test_constants_and_scales_are_those_of_the_definition(scale):
    """Units that scaled rows make constant stay, copies merge, at any scale; ranks, where a Gram matrix has none."""
    X = np.linspace(0.1, 1, 40)[:, None]
    model = M.ReLU2(1, 6, False, False)
    init = {"W1": scale * np.array([1, 2, 0.3, -1, 0.7, 1.9])[:, None], "W2": np.ones((1, 6)) / scale**0.5}
    metrics = [F.FeatureSparsity(), F.FeatureSparsity(normalise=False, name="plain"),
               F.FeatureSparsity(1.0, False, "all"), F.JacobianRank(points=X)]
    run = fs.Run(model, fs.Dataset(X, X[:, 0]), R.SGD(), 1e-9, 1, init=init, dtype="float64", backend="triton",
                 save=fs.SaveAt(steps=[0]), metrics=metrics)
    got = fs.train(run)
    np.testing.assert_allclose([got.numpy(metric.name)[0, 0] for metric in metrics], [5 / 6, 1 / 6, 5 / 6, 1])
