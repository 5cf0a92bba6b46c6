"""Owns one training of a deep row: plain SGD or with momentum, a schedule, what is measured on the way."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ...lr_schedulers import DeepNetLR, FromStepSize
from ...modules import FeatureSparsity, Recorder

MEASURED = 8  # times, equally spaced
COUNTED = 1000  # training images over which sparsity is counted


@dataclass(frozen=True)
class Setting:
    """A schedule: step size, when it is decayed (None: constant), a^(100 s) by which it grows until then."""

    label: str
    step: float
    decay_at: float | None = None
    growth: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """What the settings of a row share.

    network: a class that is called with (width, channels, classes) and has `layers`
    augment: random crops (two pixels of padding) and flips
    """

    network: type
    settings: tuple
    width: int = 8
    batch: int = 32
    momentum: float = 0.0
    weight_decay: float = 0.0
    augment: bool = False


@dataclass(frozen=True, eq=False)
class Curve:
    """One training: loss [E] and step size [E] an epoch; at epochs [S] sparsity [S, L], density [S, L] and test
    error [S] in per cent; tuning error at the end; whether the loss stopped being finite."""

    setting: Setting
    seed: int
    loss: np.ndarray
    rate: np.ndarray
    epochs: np.ndarray
    sparsity: np.ndarray
    density: np.ndarray
    error: np.ndarray
    tuning: float
    lost: bool


def training(recipe, setting, seed, images, epochs):
    """Train one network and return its Curve. Every setting of a seed has the same start, batches and crops."""
    torch.set_num_threads(1)  # trainings go side by side
    (X, y), tune, test = (tuple(map(torch.from_numpy, part)) for part in (images.train, images.tune, images.test))
    torch.manual_seed(seed)
    model = recipe.network(recipe.width, X.shape[1], images.classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=setting.step, momentum=recipe.momentum,
                                weight_decay=recipe.weight_decay)
    batches = len(X) // recipe.batch
    scheduler = (FromStepSize(optimizer, setting.step, epochs * batches) if setting.decay_at is None
                 else DeepNetLR(optimizer, epochs * batches, setting.decay_at, warmup_base=setting.growth))
    recorder = Recorder(optimizer, FeatureSparsity(model, recipe.network.layers))
    measured = np.unique(np.rint(np.linspace(0, epochs, MEASURED + 1)).astype(int))
    lost = False
    for epoch in range(epochs + 1):
        lost = lost or not all(torch.isfinite(value).all() for value in model.state_dict().values())
        if epoch in measured and not lost:
            recorder.measure(X[:COUNTED].split(500), error=wrong(model, *test))
        if epoch == epochs or lost:
            break
        for batch in torch.randperm(len(X))[:batches * recipe.batch].split(recipe.batch):
            x = crops_and_flips(X[batch]) if recipe.augment else X[batch]
            loss = nn.functional.cross_entropy(model(x), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.update(loss)
            scheduler.step()
            if lost := not torch.isfinite(loss):
                break
    kept = recorder.arrays()
    done = len(kept["loss"]) // batches
    loss, rate = (kept[name][:done * batches].reshape(done, batches) for name in ("loss", "learning_rate"))
    return Curve(setting, seed, loss.mean(axis=1), rate[:, 0], measured[:len(kept["step"])], 100 * kept["sparsity"],
                 100 * kept["density"], kept["error"], float("nan") if lost else wrong(model, *tune), lost)


@torch.no_grad()
def wrong(model, X, y):
    """Share of images that are labelled wrongly, in per cent, in evaluation mode."""
    model.eval()
    errors = sum(int((model(x).argmax(1) != k).sum()) for x, k in zip(X.split(500), y.split(500), strict=True))
    model.train()
    return 100 * errors / len(X)


def crops_and_flips(x, pad=2):
    """Each image shifted by up to `pad` pixels, and mirrored or not."""
    n, _, h, w = x.shape
    padded = nn.functional.pad(x, (pad,) * 4)
    top, left = torch.randint(0, 2 * pad + 1, (2, n))
    rows, columns = top[:, None] + torch.arange(h), left[:, None] + torch.arange(w)
    columns = torch.where(torch.rand(n, 1) < 0.5, columns.flip(1), columns)
    moved = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    # in channels-last layout, torch 2.13's CPU convolutions of few channels write out of bounds
    return moved.clone(memory_format=torch.contiguous_format)
