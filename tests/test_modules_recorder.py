"""A Recorder keeps what a training went through, as arrays, in a file and in a figure."""

import numpy as np
import pytest
import torch
from torch import nn

import fastsgd as fs


def test_a_recorder_along_a_training(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.randn(30, 1, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = fs.lr_schedulers.DeepNetLR(optimizer, 10, 0.5)
    sparsity, rank = fs.modules.FeatureSparsity(model, ["1"]), fs.modules.JacobianRank(model)
    recorder = fs.modules.Recorder(optimizer, sparsity, rank)
    recorder.measure(x, test_error=3)
    losses = []
    for _ in range(10):
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        recorder.update(loss)
        optimizer.step()
        schedule.step()
        losses.append(float(loss))
    recorder.measure(x, test_error=2)
    kept = recorder.arrays()
    assert kept["loss"].tolist() == losses and kept["step"].tolist() == [0, 10]
    np.testing.assert_allclose(kept["learning_rate"], [0.1] * 4 + [0.01] * 4 + [0.001] * 2, rtol=1e-12)
    now = sparsity.over(x)["1"]
    assert (kept["sparsity"][1, 0], kept["density"][1, 0]) == (now.coefficient, now.density)
    assert kept["rank"][1] == rank.over(x).rank and kept["test_error"].tolist() == [3, 2]
    recorder.save(tmp_path / "kept.npz")
    with np.load(tmp_path / "kept.npz") as file:
        assert all(np.array_equal(file[name], value) for name, value in kept.items())
    with pytest.raises(fs.PlanError, match=r"\['error'\] given, \['test_error'\] before"):
        recorder.measure(x, error=1)
    with pytest.raises(fs.SpecError, match="dict given as a meter"):
        fs.modules.Recorder(optimizer, {})
    pytest.importorskip("matplotlib")
    recorder.draw(tmp_path / "kept.png")
    assert (tmp_path / "kept.png").stat().st_size > 5_000
