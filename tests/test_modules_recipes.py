"""The recipes of docs/modules.md run: several processes, averaged weights, Lightning where it is installed."""

from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from importlib import import_module
from multiprocessing import get_context

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastsgd as fs


def one_of_two(rank, meet):
    """In a process of its own: half of the samples counted through DistributedDataParallel, both counts merged."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2, timeout=timedelta(minutes=8))
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2)), torch.randn(50, 5)
    ddp = nn.parallel.DistributedDataParallel(model)
    meter = fs.modules.FeatureSparsity(ddp.module, ["1"])
    with meter:
        ddp(x[rank::2])
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, meter.counts())
    joined = fs.modules.FeatureSparsity(model, ["1"])
    for counts in everyone:
        joined.merge(counts)
    dist.destroy_process_group()
    return joined.compute(), fs.modules.FeatureSparsity(model, ["1"]).over(x)


def test_two_processes_of_distributed_data_parallel(tmp_path):
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this torch has no gloo")
    import_module("torch._dynamo")  # DistributedDataParallel imports it: once for both
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        answers = list(pool.map(one_of_two, range(2), [tmp_path / "meet"] * 2))
    assert all(joined == whole for joined, whole in answers)


def test_averaged_weights_need_batch_statistics_of_their_own():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    x, y = torch.randn(64, 5), torch.randn(64, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    for _ in range(20):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        average.update_parameters(model)
    torch.optim.swa_utils.update_bn(DataLoader(TensorDataset(x), 64), average)
    result = fs.modules.FeatureSparsity(average.module, ["2"]).over(x)["2"]
    average.train()  # whose statistics over one batch of everything are the refreshed ones, but for their divisor
    with fs.modules.FeatureSparsity(average.module, ["2"]) as meter, torch.no_grad():
        average.module(x)
    assert abs(result.density - meter.compute()["2"].density) < 0.02


def test_a_schedule_and_a_meter_in_lightning(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
            self.rates = []

        def training_step(self, batch, index):
            self.rates.append(self.optimizers().param_groups[0]["lr"])
            return (self.net(batch[0]) - batch[1]).square().mean()

        def validation_step(self, batch, index):
            self.net(batch[0])

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            schedule = fs.lr_schedulers.DeepNetLR(optimizer, 12, 0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": interval}}

    class Sparsity(lightning.Callback):
        def __init__(self, model, layers):
            self.meter, self.kept = fs.modules.FeatureSparsity(model, layers), []

        def on_validation_start(self, trainer, module):
            self.meter.attach()

        def on_validation_end(self, trainer, module):
            self.meter.detach()
            if not trainer.sanity_checking:
                self.kept.append(self.meter.compute())

    data = DataLoader(TensorDataset(torch.randn(32, 5), torch.randn(32, 1)), 8)
    for interval in ("step", "epoch"):
        module = Module()
        sparsity = Sparsity(module.net, ["1"])
        trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
                                    enable_progress_bar=False, default_root_dir=tmp_path, callbacks=[sparsity])
        if interval == "epoch":
            with pytest.raises(fs.PlanError, match="interval='step'"):
                trainer.fit(module, data, data)
            continue
        trainer.fit(module, data, data)
        assert module.rates == pytest.approx([0.1] * 5 + [0.01] * 5 + [0.001] * 2)
        assert [kept["1"].samples for kept in sparsity.kept] == [32] * 3
