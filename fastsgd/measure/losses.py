"""Owns the kernels of mean losses on training and test sets."""

import numpy as np

from ..backends import cpu
from ..models.form import power_of_two
from ..portable import kernel
from .registry import Kernels, named

OF_A_FAMILY = ("INPUTS", "VALUE", "SHAPE", "LAYOUT", "WIDTH", "STRIDE", "LOSS")  # what kernels/metrics/losses.py takes


class MeanLosses(Kernels):
    """By the fewest rows that do for linear predictors, by the fused loop's forward pass, or by the general loop's."""

    def on_host(self, metric, host, weights):
        work, module, threads = host.work, host.module, host.threads
        X, y = _points(metric, work)
        if work.linear and work.squared:
            R, z, rest = host.cached(metric, lambda: reduced(np.array(X, "float64"), np.array(y, "float64")))
            beta = np.ascontiguousarray(work.form.beta(np.asarray(weights, np.float64)))
            short = len(R) == work.d and len(X) > work.d
            return work.factor / len(X) * (module.linear_losses(R, z, beta, short, threads) + rest)
        X, y = host.cached(metric, lambda: (cpu.padded(work.form, X, "float64"), np.array(y, dtype="float64")))
        weights = np.ascontiguousarray(weights, dtype="float64")
        if _fused(work):
            return module.losses(work.form.fused, threads, weights, X, y, work.factor)
        return _means(work, module.predict(cpu.shape(work, module, "float64"), threads, weights, X), y)

    def on_card(self, metric, work, card, host):
        from ..backends.cuda.layout import STAGED
        from . import task
        from .programs import losses as programs

        X, y = (np.array(a, dtype="float64") for a in _points(metric, work))
        if work.linear and work.squared:
            R, z, rest = reduced(X, y)
            stages = 8 * (R.size + z.size) <= min(STAGED, card.shared)
            return task.task(
                task.staged(programs.linear_losses(work.d, staged=stages), R.size + z.size, stages),
                np.concatenate([R.ravel(), z]), len(R), work.d, task.beta(work), 1, f"residuals in {len(R)} rows",
                finish=lambda sums, read: work.factor / len(X) * (sums[:, 0] + rest))
        stages = 8 * X.shape[0] * (X.shape[1] + 2) <= min(STAGED, card.shared)
        if _fused(work):
            _, d, h, hidden_bias, output_bias = work.form.fused
            rows = cpu.padded(work.form, X, "float64")[:, :d + hidden_bias]
            made = programs.mean_losses(d, h, hidden_bias, output_bias, staged=stages)
            return task.task(
                task.staged(made, rows.size + y.size, stages), np.concatenate([rows.ravel(), y]), len(X), rows.shape[1],
                task.weights(work), 1, "the fused loop's forward", number=work.factor)
        if work.form is None:
            return None
        made = programs.predictions(work, staged=stages)
        made = task.staged(made, X.size, stages) if made else programs.wide_predictions(work, card.shared)
        return made and task.task(
            made, X, len(X), work.d, task.weights(work), len(X) * work.outputs,
            "outputs by the general loop's forward, losses of them on the host",
            finish=lambda f, read: _means(work, f.reshape(len(f), len(X), work.outputs), y))

    def on_tiles(self, metric, work):
        from ..backends.triton import launches
        from ..backends.triton.layout import MOST_ENTRIES, stride

        entries = max(len(rows) * stride(rows) for rows in _points(metric, work))
        fits = launches.warps_of(2 * work.packing.width) <= launches.MOST_WARPS and entries <= MOST_ENTRIES
        return _by_tiles if fits else None

    def units(self, metric, work):
        n = len(_points(metric, work)[0])
        if work.linear and work.squared:
            return "metric.linear_loss", {"item": min(n, work.d) * work.d, "parameter": work.P}
        return f"metric.loss.{'fused' if work.fused_form else 'general'}", {"item": n * work.P}


def _points(metric, work):
    """(X, y) that a loss is the mean over."""
    data = work.run.data
    return (data.X_test, data.y_test) if named(metric) == "TestLoss" else (data.X, data.y)


def _fused(work):
    return work.fused_form is not None and work.squared


def _means(work, f, y):
    """Mean losses [M] of predictions f [M, n, o]."""
    return work.run.loss.value(f if work.outputs > 1 else f[..., 0], y, work.outputs).mean(axis=-1)


def reduced(X, y):
    """(R, z, rest) with |X b - y|^2 = |R b - z|^2 + rest for all b, in at most d rows; rest is a number.

    [X y] = Q [R z; 0 r] where there are more points than inputs; residuals keep the accuracy of X b - y, since Q is
    orthogonal and nothing is squared.
    """
    d = X.shape[1]
    if len(X) <= d:
        return X, y, 0.0
    triangle = np.linalg.qr(np.column_stack([X, y]), mode="r")
    return np.ascontiguousarray(triangle[:d, :d]), triangle[:d, d].copy(), float(triangle[d, d] ** 2)


# ---- kernels/metrics/losses.py


def _by_tiles(tiles, metric, rows):
    import torch

    from ..backends.triton import launches
    from ..backends.triton.layout import loss_numbers, padded

    work, plan = tiles.work, tiles.plan
    X, y = tiles.cached(metric, lambda: tuple(tiles.put(padded(a), "float64") for a in _points(metric, work)))
    networks = min(plan.tuning.networks, power_of_two(len(rows)))
    chunks = 1 if launches.interpreted() else min(32, power_of_two(len(X)))
    out = torch.empty((len(rows), chunks), dtype=torch.float64, device=tiles.device)
    _, fixed = launches.constants(work, plan.tuning, True)
    fixed = {name: fixed[name] for name in OF_A_FAMILY}
    kernel("metrics.losses").sums[(-(-len(rows) // networks), chunks)](
        rows, X, y, out, tiles.put(loss_numbers(work)), len(rows), len(X), **fixed, BN=networks, CHUNKS=chunks,
        **launches.options(launches.warps_of(2 * work.packing.width)))
    return (out.sum(dim=1) / len(X)).cpu().numpy()
