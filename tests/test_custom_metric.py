"""Users' own metrics: functions in a run, what they may return, and files, which keep their names alone."""

import json

import numpy as np
import pytest
from cases import bits, request

import fastsgd as fs
from fastsgd import checkpoint

Custom = fs.metrics.Custom


def largest(params, data):
    """Largest weight of the first layer."""
    return np.abs(params["W1"]).max(axis=(1, 2))


def margins(params, data):
    """[N, n]: labels times the first weights' responses."""
    return data.y * (data.X @ params["W1"][:, 0].T).T


def asked(*metrics, **fields):
    return request("relu2_3_21", N=5, metrics=metrics, save=fs.SaveAt(linear=3, params=True), **fields)


def test_functions_are_metrics():
    result = fs.train(asked(largest, fs.metrics.TrainLoss(), Custom(margins, name="margin")))
    W1 = result.saved_params["W1"].cpu().numpy()
    np.testing.assert_array_equal(result.numpy("largest"), np.abs(W1).max(axis=(2, 3)))
    np.testing.assert_array_equal(result.numpy("margin")[:, 1], margins({"W1": W1[:, 1]}, result.run.data))
    assert result.numpy("margin").shape == (5, 3, 11)
    pytest.importorskip("xarray")
    assert result.to_xarray()["margin"].dims == ("net", "step", "margin_0")


@pytest.mark.parametrize("function", [lambda p, d: p["W1"][:, 0, 0].tolist(), lambda p, d: p["W1"][:, 0, 0] > 0,
                                      lambda p, d: p["W1"][:, 0, 0].astype(np.float32), "torch"])
def test_what_a_function_may_return(function):
    if function == "torch":
        import torch

        def function(params, data):
            return torch.from_numpy(params["W1"])[:, 0, 0]

    record = fs.train(asked(Custom(function, "some"))).numpy("some")
    assert record.dtype == np.float64 and record.shape == (5, 3) and np.isfinite(record).all()


def test_functions_get_float64_and_as_many_networks_as_there_are():
    seen = []

    def look(params, data):
        seen.append({(a.dtype, len(a)) for a in params.values()})
        return np.zeros(len(params["W1"]))

    fs.train(asked(look, dtype="float32"))
    assert all(dtypes == {(np.dtype("float64"), 5)} for dtypes in seen) and len(seen) == 3


WRONG = {
    "a number": (lambda p, d: 1.0, r"returned shape \(\) for N=5 networks, expected \[5, ...\]"),
    "short": (lambda p, d: np.zeros(4), r"returned shape \(4,\) for N=5"),
    "parameters first": (lambda p, d: p["W1"].T, r"returned shape \(3, 21, 5\)"),
    "complex": (lambda p, d: np.zeros(5, complex), "holds complex128"),
    "text": (lambda p, d: np.array(["a"] * 5), "expected real numbers"), "nothing": (lambda p, d: None, "object"),
    "ragged": (lambda p, d: [[1], [1, 2], [], [1], [1]], "cannot be read as an array"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_returns_name_the_metric(kind):
    function, message = WRONG[kind]
    with pytest.raises(fs.SpecError, match="spread") as caught:
        fs.train(asked(Custom(function, "spread")))
    assert caught.match(message)


def test_a_shape_may_not_change_on_the_way():
    calls = []

    def grow(params, data):
        calls.append(1)
        return np.zeros((len(params["W1"]), len(calls)))

    with pytest.raises(fs.SpecError, match=r"grow returned shape \(5, 2\), expected \(5, 1\)"):
        fs.train(asked(grow))


@pytest.mark.parametrize("make", [lambda: Custom("f"), lambda: Custom(3, "x"), lambda: Custom(np.ndarray, "x"),
                                  lambda: Custom(lambda p, d: 0), lambda: Custom(largest, "two words"),
                                  lambda: Custom(largest, 3), lambda: Custom(), lambda: asked(lambda p, d: 0)])
def test_what_is_no_metric(make):
    with pytest.raises(fs.SpecError, match="Custom"):
        make()


def test_names_are_checked_like_all_others():
    with pytest.raises(fs.SpecError, match="occur twice"):
        asked(largest, Custom(margins, "largest"))
    with pytest.raises(fs.PlanError, match="belongs"):
        fs.plan(asked(Custom(largest, "W1")))


def test_results_keep_the_record_without_the_function(tmp_path):
    result = fs.train(asked(largest))
    result.save(tmp_path / "r.npz")
    back = fs.Result.load(tmp_path / "r.npz")
    assert bits(back) == bits(result) and back.run.metrics[0].name == "largest"
    with pytest.raises(fs.PlanError, match="largest is not possible here: files keep no functions"):
        fs.plan(back.run)
    assert bits(fs.train(back.run.replace(metrics=[largest]))) == bits(result)
    with np.load(tmp_path / "r.npz") as file:
        assert json.loads(str(file["header"]))["run"].count("largest") == 1


def test_checkpoints_go_on_with_the_function(tmp_path):
    path = str(tmp_path / "c")
    run = asked(largest, fs.metrics.TrainLoss(), steps=900)
    want = fs.train(run)
    halfway = []

    def stop(t, T, lost):
        halfway.append(t)
        if t >= 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fs.train(run, checkpoint=fs.Checkpoint(path, every=0), progress=stop, tuning=fs.Tuning(segment=100))
    assert 0 < checkpoint.load(path)[1].t < 900
    with pytest.raises(fs.PlanError, match=r"fs.resume\(path, functions="):
        fs.resume(path)
    with pytest.raises(fs.SpecError, match="functions"):
        fs.resume(path, functions={"smallest": largest})
    assert bits(fs.resume(path, functions={"largest": largest})) == bits(want)


def test_a_subclass_of_metric_is_a_metric(tmp_path):
    class First(fs.metrics.Metric):
        name = "first"

        def compute(self, model, params, data, loss):
            return params["W1"][:, 0, 0]

    result = fs.train(asked(First()))
    np.testing.assert_array_equal(result.numpy("first"), result.saved_params["W1"].cpu().numpy()[:, :, 0, 0])
    with pytest.raises(fs.SpecError, match="no part of fastsgd"):
        fs.train(asked(First()), checkpoint=str(tmp_path / "never"))
