"""The recipes of docs/modules.md run: several processes, averaged weights, Lightning where it is installed."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastsgd as fs

TWO_PROCESSES = """
import os, sys, torch
import torch._dynamo  # DistributedDataParallel imports it: once for both
import torch.distributed as dist
import fastsgd as fs
from torch import nn

torch.set_num_threads(1)
child = os.fork()
rank = 0 if child else 1
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
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
assert joined.compute() == fs.modules.FeatureSparsity(model, ["1"]).over(x), rank
dist.destroy_process_group()
if child:
    assert os.waitpid(child, 0)[1] == 0
print("right", flush=True)
"""


def test_two_processes_of_distributed_data_parallel(tmp_path):
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    done = subprocess.run([sys.executable, "-c", TWO_PROCESSES, str(tmp_path / "meet")], capture_output=True, text=True,
                          timeout=500)
    assert done.returncode == 0 and done.stdout.split() == ["right", "right"], done.stderr


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
