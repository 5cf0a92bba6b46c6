"""Owns the kernels of feature sparsity, and on Triton of densities and distinct units, from the same counts."""

import numpy as np

from ..metrics.feature_sparsity import by_kernel
from ..metrics.layers import hidden
from ..portable import kernel
from ..spec.constant import EPS, constant_within, least_correlation
from .host import float64_params
from .registry import Kernels, named

TILE, DEPTH, WARPS = 32, 16, 4  # of kernels/metrics/sparsity.py
LEAST = 5e-324  # above zero


class Units(Kernels):
    """Counts of units; Triton has them."""

    def on_tiles(self, metric, work):
        return _of_layers


class Sparsity(Units):
    """Correlations of columns of activations."""

    def on_host(self, metric, host, weights):
        def kernel(phi):
            return by_kernel(host.module, np.ascontiguousarray(phi), metric.tau, metric.normalise, host.threads)

        run = host.work.run
        return metric.over(kernel, run.model, float64_params(run.model, weights), run.data)

    def on_card(self, metric, work, card, host):
        if not work.dense:
            return None
        from . import task
        from .programs.sparsity import feature_sparsity

        X, names = metric.where(work.run.model, work.run.data), list(hidden(work.run.model))
        layers = [names.index(name) + 1 for name in metric.layers(work.run.model)]
        within = [constant_within(EPS, metric.normalise * work.form.sizes[layer]) for layer in layers]
        made = feature_sparsity(work.form, work.P, len(X), layers, metric.normalise, within, card.shared)
        return task.task(made, X.T, len(X), len(X), task.weights(work), len(layers), "correlations of one warp a unit",
                         number=least_correlation(metric.tau),
                         finish=(lambda answers, read: answers) if len(layers) > 1 else task.first)

    def units(self, metric, work):
        shapes = work.run.model.shapes()
        units = max((shape[0] for name, shape in shapes.items() if name.startswith("W")), default=0)
        return "metric.sparsity", {"item": work.n * units * units, "feature": work.n * units * work.d}


# ---- kernels/metrics/sparsity.py


def _of_layers(tiles, metric, rows):
    """A number [M] or [M, layers] from the activations of hidden layers on the training inputs."""
    run = tiles.work.run
    X, layers = tiles.put(metric.where(run.model, run.data)), metric.layers(run.model)

    def part(params):
        features = run.model.features(params, X)
        values = [_sparsity(metric, features[layer].contiguous()) for layer in layers]
        return values[0] if len(layers) == 1 else np.stack(values, axis=1)

    return tiles.by_parts(part, rows, 8 * 4 * len(X) * sum(hidden(run.model).values()))


def _sparsity(metric, phi):
    """The metric [M] of activations phi [M, n, h] float64; the counts are those of fastsgd/metrics."""
    import torch

    from ..backends.triton import launches

    M, n, h = phi.shape
    known = torch.isfinite(phi).flatten(1).all(dim=1)
    normalise = named(metric) == "FeatureSparsity" and metric.normalise
    given, phi = phi, _of_order_one(phi, normalise)
    mean, deviation = (torch.empty((M, h), dtype=torch.float64, device=phi.device) for _ in range(2))
    positive, nonzero, merged = (torch.empty((M, h), dtype=torch.int32, device=phi.device) for _ in range(3))
    module, tiles = kernel("metrics.sparsity"), -(-h // TILE)
    shared = {"M": TILE, "DEPTH": DEPTH, **launches.options(WARPS)}
    module.columns[(M, tiles)](phi, mean, deviation, positive, nonzero, n, h, **shared)
    if named(metric) == "ActivationDensity":
        return (nonzero.sum(dim=1).double() / (n * h)).cpu().numpy()
    alive = positive > 0
    if named(metric) == "DistinctUnits":
        scale = given.abs().amax(dim=(1, 2))[:, None] if metric.relative else 1
        alive = given.amax(dim=1) > metric.threshold * scale
    alive = alive.to(torch.int32)
    within = constant_within(EPS, normalise * h) * n**0.5
    deviation = torch.where(deviation <= within * mean.abs(), torch.inf, deviation)
    tau = torch.tensor([least_correlation(metric.tau)], dtype=torch.float64, device=phi.device)
    module.merges[(M, tiles)](phi, mean, deviation, alive, merged, tau, n, h, **shared)
    kept = alive * (1 - merged)
    if named(metric) == "DistinctUnits":
        return kept.sum(dim=1).double().cpu().numpy()
    share = (positive * kept).sum(dim=1).double() / (n * h)
    return torch.where(known, share, torch.nan).cpu().numpy()


def _of_order_one(phi, normalise):
    """Activations [M, n, h], rows divided by their lengths if asked for, then columns by their largest sizes.

    What is positive stays so, whatever it is divided by.
    """
    import torch

    scaled = phi
    if normalise:
        scaled = _divided(scaled, scaled.abs().amax(dim=2, keepdim=True))
        scaled = _divided(scaled, torch.linalg.vector_norm(scaled, dim=2, keepdim=True))
    scaled = _divided(scaled, scaled.abs().amax(dim=1, keepdim=True))
    return torch.where((phi > 0) & (scaled == 0), LEAST, scaled).contiguous()


def _divided(phi, sizes):
    return phi / sizes.where(sizes > 0, 1)
