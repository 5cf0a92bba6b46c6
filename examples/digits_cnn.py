"""Owns the example: large against small SGD steps on a small residual network and scikit-learn's 8 x 8 digits.

    python examples/digits_cnn.py             # two to three minutes on two cores: a table and digits_cnn.png
    python examples/digits_cnn.py --quick     # seconds, a smoke test: too short for any claim

Plain SGD: batch 8, no momentum, no weight decay, no augmentation. Every schedule starts from the same weights and walks
through the same batches, seed by seed. These images are easy, so every schedule ends near the same test error and some
layers saturate: it is an example of the interface. `fastsgd reproduce S10` is the experiment, on larger images.

Needs the extra `examples` (scikit-learn, matplotlib).
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

import fastsgd as fs
from fastsgd.reproduce.deep.networks import Residual

LAYERS = Residual.layers
BATCH = 8
SCHEDULES = {  # label -> (step size, decay_at or None, warm-up base, colour)
    "small: 0.02, constant": (0.02, None, 1.0, "#0072B2"),
    "large: 0.2 growing, decay at 25 %": (0.2, 0.25, 1.03, "#E69F00"),
    "large: 0.2 growing, decay at 50 %": (0.2, 0.5, 1.03, "#D55E00"),
}
SMALL, SHORT, LONG = SCHEDULES
Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Curve:
    """One run: training loss [epochs] (mean over an epoch's batches), step size [epochs] at their start, and at the
    measured epochs [S] the test error and feature sparsity [S, layers]; `lost` is the epoch of a loss not finite."""

    label: str
    seed: int
    loss: list[float]
    rate: list[float]
    measured: list[int]
    error: list[float]
    sparsity: list[list[float]]
    lost: int | None = None


def data(train: int) -> tuple[Pair, Pair]:
    """((X, y) to train on, (X, y) to test on), the same split for every run; pixels in [0, 1]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    X = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(digits.target)
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    return (X[order[:train]], y[order[:train]]), (X[order[train:]], y[order[train:]])


def run(label: str, seed: int, epochs: int, train: int, width: int) -> Curve:
    """Train one network and return its Curve."""
    torch.set_num_threads(1)  # runs go side by side
    (X, y), test = data(train)
    torch.manual_seed(seed)
    model = Residual(width)
    step_size, decay_at, base, _ = SCHEDULES[label]
    optimizer = torch.optim.SGD(model.parameters(), lr=step_size)
    steps = epochs * (train // BATCH)
    scheduler = (fs.lr_schedulers.FromStepSize(optimizer, step_size, steps) if decay_at is None
                 else fs.lr_schedulers.DeepNetLR(optimizer, steps, decay_at, warmup_base=base))
    meter = fs.modules.FeatureSparsity(model, LAYERS)
    curve = Curve(label, seed, [], [], [], [], [])
    for epoch in range(epochs + 1):
        if epoch % 2 == 0 or epoch == epochs:
            measure(curve, epoch, model, meter, X, test)
        if epoch == epochs:
            break
        curve.rate.append(optimizer.param_groups[0]["lr"])
        losses = []
        for batch in torch.randperm(train)[:train // BATCH * BATCH].split(BATCH):
            loss = nn.functional.cross_entropy(model(X[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        curve.loss.append(float(np.mean(losses)))
        if not np.isfinite(curve.loss[-1]):
            curve.lost = epoch
            break
    return curve


def measure(curve: Curve, epoch: int, model: nn.Module, meter: fs.modules.FeatureSparsity, X: torch.Tensor,
            test: Pair) -> None:
    """Append the test error, and the feature sparsity on the training inputs."""
    model.eval()
    with torch.no_grad():
        error = (model(test[0]).argmax(1) != test[1]).float().mean().item()
    model.train()
    curve.measured.append(epoch)
    curve.error.append(100 * error)
    curve.sparsity.append([100 * layer.coefficient for layer in meter.over(X.split(250)).values()])


def survivors(curves: list[Curve], label: str) -> list[Curve]:
    """The runs of a schedule that reached the end."""
    return [curve for curve in curves if curve.label == label and curve.lost is None]


def table(curves: list[Curve]) -> str:
    """Medians at the last epoch as text, one row a schedule."""
    head = ["schedule", "runs (lost)", "train loss", "test error %", *(f"{name} %" for name in LAYERS.values())]
    rows = [head]
    for label in SCHEDULES:
        left = survivors(curves, label)
        lost = sum(curve.label == label for curve in curves) - len(left)
        ends = [[c.loss[-1], c.error[-1], *c.sparsity[-1]] for c in left]
        cells = [f"{v:.2e}" if k == 0 else f"{v:.1f}" for k, v in enumerate(np.median(ends, axis=0))] if ends else []
        rows.append([label, f"{len(left)} ({lost})", *cells, *["-"] * (len(head) - 2 - len(cells))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in
                               enumerate(zip(row, widths, strict=True))) for row in rows)


def verdict(curves: list[Curve], epochs: int) -> str:
    """What of the paper's claims is seen here, in words, with the numbers they rest on."""
    small, short, long = (survivors(curves, label) for label in SCHEDULES)
    if not (small and short and long):
        return "No verdict: a schedule has no surviving run."
    decay = epochs // 2
    quarter = max(1, decay // 4)
    flat, drop = [], []
    for curve in long:
        level = np.array(curve.loss)
        early, late = (np.median(level[k - quarter:k]) for k in (decay - 2 * quarter, decay))
        flat.append(late / early)
        drop.append(np.median(level[decay + 1:decay + 1 + quarter]) / late)
    level = np.median([np.median(c.loss[decay - 2 * quarter:decay]) for c in long])
    level_small = np.median([np.median(c.loss[decay - 2 * quarter:decay]) for c in small])
    ends = {name: np.median([c.sparsity[-1] for c in part], axis=0) for name, part in
            (("small", small), ("short", short), ("long", long))}
    errors = [np.median([c.error[-1] for c in part]) for part in (small, short, long)]
    layers = list(LAYERS.values())

    def which(a: str, b: str) -> tuple[bool, str]:
        lower = [name for name, x, y in zip(layers, ends[a], ends[b], strict=True) if x < y]
        return len(lower) == len(layers), f"in {len(lower)} of {len(layers)} layers ({', '.join(lower) or 'none'})"

    stays, falls = sum(r > 0.5 for r in flat), sum(r < 0.5 for r in drop)
    sparser, longer = which("long", "small"), which("long", "short")
    lines = [
        (stays == falls == len(long) and level > 2 * level_small,
         f"loss stabilises under the large step and falls after the decay: flat in {stays}, falling in {falls} of "
         f"{len(long)} runs; level {level:.2g}, small step {level_small:.2g} at that time"),
        (sparser[0], f"large steps (decay at 50 %) end sparser than small ones: {sparser[1]}"),
        (longer[0], f"longer large steps end sparser (50 % against 25 %): {longer[1]}"),
        (errors[2] < errors[0], "large steps (decay at 50 %) end with the lower test error: "
         f"{errors[2]:.2f} % against {errors[0]:.2f} %"),
    ]
    return "\n".join(f"{'holds         ' if holds else 'does not hold '} {text}" for holds, text in lines)


def of_layer(k: int, curve: Curve) -> tuple[list[int], np.ndarray]:
    """Epochs [S] and the sparsity [S] of layer k."""
    return curve.measured, np.array(curve.sparsity)[:, k]


def draw(curves: list[Curve], epochs: int, path: str) -> None:
    """Training loss, test error, step size and sparsity of each layer against the epoch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(15, 7), sharex=True, constrained_layout=True)
    panels: list[tuple[str, str, Callable[[Curve], tuple[Any, Any]]]] = [
        ("step size", "step size", lambda c: (np.arange(epochs + 1), [*c.rate, c.rate[-1]])),
        ("training loss", "mean over the epoch's batches", lambda c: (np.arange(epochs) + 0.5, c.loss)),
        ("test error", "% of test images", lambda c: (c.measured, c.error))]
    panels += [(f"activations: {name}", "feature sparsity coefficient (%)", partial(of_layer, k))
               for k, name in enumerate(LAYERS.values())]
    for k, (axis, (title, quantity, values)) in enumerate(zip(axes.flat, panels, strict=True)):
        for label, (*_, colour) in SCHEDULES.items():
            left = [values(curve) for curve in survivors(curves, label)]
            if not left:
                continue
            x, stack = left[0][0], np.array([y for _, y in left])
            axis.fill_between(x, stack.min(axis=0), stack.max(axis=0), color=colour, alpha=0.2, linewidth=0)
            axis.plot(x, np.median(stack, axis=0), color=colour, linewidth=1.7, label=label,
                      drawstyle="default" if k else "steps-post")
        axis.set_title(title, fontsize=11)
        axis.set_ylabel(quantity)
        axis.set_xlim(0, epochs)
        if k < 3:
            axis.set_yscale("log")
        axis.grid(alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    seeds = len({curve.seed for curve in curves})
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"Residual network on 8 x 8 digits, plain SGD, batch {BATCH}; "
                    f"line: median, band: least to largest of {seeds} seeds")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke test of a few seconds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--out", default="digits_cnn.png", help="the figure")
    options = parser.parse_args()
    epochs = options.epochs or (8 if options.quick else 40)
    train, width = (400, 8) if options.quick else (1000, 12)
    started, curves = time.perf_counter(), []
    jobs = [(label, seed, epochs, train, width) for seed in range(options.seeds) for label in SCHEDULES]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(jobs), os.cpu_count() or 1), mp_context=context) as pool:
        for curve in pool.map(run, *zip(*jobs, strict=True)):
            curves.append(curve)
            end = f"lost in epoch {curve.lost}" if curve.lost is not None else f"training loss {curve.loss[-1]:.2e}"
            print(f"[{time.perf_counter() - started:5.0f} s] seed {curve.seed}, {curve.label}: {end}", flush=True)
    print(f"\nMedians at the end of {epochs} epochs; layers: feature sparsity coefficient\n{table(curves)}\n")
    print("Too short for a verdict." if options.quick else verdict(curves, epochs))
    draw(curves, epochs, options.out)
    print(f"\nfigure: {options.out}")


if __name__ == "__main__":
    main()
