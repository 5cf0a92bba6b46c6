"""The Triton backend with several outputs: metrics, lost runs, far from zero; test_triton has their conformance."""

import numpy as np
import pytest
import torch
from general_cases import NETWORKS, D, general
from tiers import some
from tolerances import METRIC

import fastsgd as fs
from fastsgd.backends.triton import Triton
from fastsgd.measure import place
from fastsgd.portable import interpreted

pytest.importorskip("triton")
pytestmark = [pytest.mark.skipif(not (interpreted() or torch.cuda.is_available()), reason="no GPU, not interpreted"),
              pytest.mark.filterwarnings("ignore::RuntimeWarning")]  # the interpreter's NumPy, on runs that are lost
M, R, L, F = fs.models, fs.rules, fs.losses, fs.metrics
BACKEND, STEPS = Triton(), 5


@pytest.mark.parametrize("dtype", some(["float64", "float32"]))
@pytest.mark.parametrize("name", ["mlp_two_outputs", "squared_weights", "squared_one_weight", "cross_entropy"])
def test_metrics_of_several_outputs_and_of_weights(name, dtype):
    """Losses and units have kernels; tangent kernels and ranks of several outputs are the definition's or the CPU's."""
    metrics = (F.TrainLoss(), F.TestLoss(), F.FeatureSparsity(tau=0.6), F.NTK(), F.JacobianRank(rtol=1e-3))
    run = general(name, dtype, steps=STEPS, backend="triton", metrics=metrics, save=fs.SaveAt(steps=[2, STEPS]))
    plan = fs.plan(run)
    state = BACKEND.load(plan, plan.start, np.full(NETWORKS, -1), plan.fresh_buffers())
    weights = run.model.unflatten(plan.start.astype("float64"))
    for metric in metrics:
        got = place("triton", plan.work, plan.N).begin(plan).measure_state(state, metric, np.arange(NETWORKS))
        assert (got is None) == (run.model.outputs > 1 and metric in metrics[3:])
        if got is not None:
            want = metric.compute(run.model, weights, run.data, run.loss)
            np.testing.assert_allclose(got, want, rtol=METRIC, atol=METRIC * np.abs(want).max())
    if dtype == "float64":
        got, want = fs.train(run), fs.train(run.replace(backend="reference"))
        for metric in metrics:
            np.testing.assert_allclose(got.numpy(metric.name), want.numpy(metric.name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", [L.CrossEntropy(), L.Squared(weights=[1, 2, 1e-3])], ids=["classes", "outputs"])
def test_runs_of_several_outputs_are_lost_where_the_cpu_loses_them(loss):
    """One output beyond the bound is enough, whichever it is; float32 overflows before it is looked at."""
    odd = np.arange(NETWORKS) % 2 == 1
    run = general({"model": M.MLP(D, 4, outputs=3), "loss": loss, "rule": R.SGD(lost_above=30.0)}, "float32", steps=11,
                  step_size=np.where(odd, 1e6, 0.01), save=None, backend="triton", metrics=())
    got, want = fs.train(run), fs.train(run.replace(backend="cpu"))
    np.testing.assert_array_equal(got.lost, want.lost)
    assert (got.lost[~odd] < 0).all() and (got.lost[odd] > 0).sum() > 2 and np.isfinite(got.weights).all()


def test_a_shift_of_all_outputs_does_not_move_a_softmax():
    """Far below zero the output that pads three to four would be the largest."""
    results = []
    for shift in (0.0, -2000.0):
        init = {"W1": np.linspace(-1, 1, 3 * D).reshape(3, D), "b1": np.array([0.1, 0.0, -0.1]) + shift}
        run = general({"model": M.MLP(D, (), outputs=3), "loss": L.CrossEntropy()}, steps=STEPS, init=init, networks=2,
                      step_size=0.1, save=None, backend="triton", metrics=F.TrainLoss())
        results.append(fs.train(run))
    near, far = results
    np.testing.assert_allclose(far.weights[:, :3 * D], near.weights[:, :3 * D], rtol=1e-9)
    np.testing.assert_allclose(far.numpy("train_loss"), near.numpy("train_loss"), rtol=1e-9)
