"""Owns metrics of the Triton backend: mean losses, Gram matrices and ranks, feature sparsity and densities."""

import numpy as np

from ..metrics import NTK, ActivationDensity, DistinctUnits, FeatureSparsity, JacobianRank, TestLoss, TrainLoss
from ..metrics.layers import hidden
from ..models import MLP, ReLU2
from ..models.activations import ACTIVATIONS
from ..portable import kernel
from ..spec.constant import EPS, constant_within, least_correlation
from ..spec.kinds import kind_of
from . import launches
from .packing import MOST_ENTRIES, packing, padded, power_of_two, stride, terms

SAFE_GRAM = 1e-5  # a Gram matrix squares the singular values; below, its eigenvalues have lost them
PART = 64 << 20  # bytes of activations or Gram matrices at a time
TILE, DEPTH, WARPS = 32, 16, 4
LEAST = 5e-324  # above zero
LARGE = 1e130  # largest and 1 / least entry of a Gram matrix whose eigenvalues have lost nothing
OF_A_FAMILY = ("INPUTS", "VALUE", "SHAPE", "LAYOUT", "WIDTH", "STRIDE", "LOSS")
SPARSE = (FeatureSparsity, DistinctUnits, ActivationDensity)


def measure(state, metric, rows):
    """Records [M, ...] float64 of networks rows() [M, width], like state.W; None where the definition serves."""
    function = _function(state.plan.run, metric)
    return function and function(state, metric, rows())


def _function(run, metric):
    """What makes a metric, None where the definition serves."""
    if kind_of(metric) in (TrainLoss, TestLoss):
        entries = max(len(rows) * stride(rows) for rows in _points(run, metric))
        fits = _warps(run) <= launches.MOST_WARPS and entries <= MOST_ENTRIES
        return _mean_losses if fits else None
    if kind_of(metric) in SPARSE:
        return _of_layers
    grams = dense(run.model) is not None if kind_of(metric) is NTK else explain(run, metric)
    return _of_grams if grams else None


def explain(run, metric):
    """How the backend computes a rank: a sentence, None where the definition serves."""
    if kind_of(metric) is not JacobianRank or dense(run.model) is None or metric.rtol < SAFE_GRAM:
        return None
    if metric.method not in ("auto", "gram"):
        return None
    return (f"{metric.name} by 'gram': eigenvalues of J J^T, made by structure in {TILE} x {TILE} tiles, right where "
            f"no singular value lies within a relative {1e-10 + 1e-14 / metric.rtol**2:.0e} of the threshold")


def dense(model):
    """The model as an MLP of one output, None where it is none."""
    if kind_of(model) is ReLU2:
        return MLP(model.d, model.width, bias=(model.hidden_bias, model.output_bias))
    return model if kind_of(model) is MLP and model.outputs == 1 else None


def _put(state, array, dtype=None):
    import torch

    return torch.from_numpy(np.array(array, dtype, order="C")).to(state.device)


def _points(run, metric):
    """(X, y) that a loss is the mean over."""
    return (run.data.X_test, run.data.y_test) if kind_of(metric) is TestLoss else (run.data.X, run.data.y)


def _warps(run):
    """Warps of a program that holds a network in float64."""
    return launches.warps_of(2 * packing(run.model).width)


def _mean_losses(state, metric, rows):
    """Mean losses [M] by kernels/metrics/losses."""
    import torch

    run = state.plan.run
    if metric not in state.points:
        given, y = _points(run, metric)
        state.points[metric] = _put(state, padded(given), "float64"), _put(state, padded(y), "float64")
    X, y = state.points[metric]
    networks = min(state.plan.tuning.networks, power_of_two(len(rows)))
    chunks = 1 if launches.interpreted() else min(32, power_of_two(len(X)))
    out = torch.empty((len(rows), chunks), dtype=torch.float64, device=state.device)
    _, fixed = launches.constants(run, state.plan.tuning, True)
    fixed = {name: fixed[name] for name in OF_A_FAMILY}
    kernel("metrics.losses").sums[(-(-len(rows) // networks), chunks)](
        rows, X, y, out, _put(state, terms(run)), len(rows), len(X), **fixed, BN=networks,
        CHUNKS=chunks, **launches.options(_warps(run)))
    return (out.sum(dim=1) / len(X)).cpu().numpy()


def _by_parts(function, state, rows, bytes_each):
    """function(parameters {name: [m, ...]}, float64 tensors on the device) of all rows, some at a time."""
    step = max(1, int(PART // max(1, bytes_each)))
    parts = (rows[k:k + step, state.slots].double() for k in range(0, len(rows), step))
    return np.concatenate([function(state.plan.run.model.unflatten(part)) for part in parts])


def _of_layers(state, metric, rows):
    """A number [M] or [M, layers] from the activations of hidden layers on the training inputs."""
    run = state.plan.run
    X, layers = _put(state, metric.where(run.model, run.data)), metric.layers(run.model)

    def part(params):
        features = run.model.features(params, X)
        values = [_sparsity(metric, features[layer].contiguous()) for layer in layers]
        return values[0] if len(layers) == 1 else np.stack(values, axis=1)

    return _by_parts(part, state, rows, 8 * 4 * len(X) * sum(hidden(run.model).values()))


def _sparsity(metric, phi):
    """The metric [M] of activations phi [M, n, h] float64; the counts are those of fastsgd/metrics."""
    import torch

    M, n, h = phi.shape
    known = torch.isfinite(phi).flatten(1).all(dim=1)
    normalise = kind_of(metric) is FeatureSparsity and metric.normalise
    given, phi = phi, _of_order_one(phi, normalise)
    mean, deviation = (torch.empty((M, h), dtype=torch.float64, device=phi.device) for _ in range(2))
    positive, nonzero, merged = (torch.empty((M, h), dtype=torch.int32, device=phi.device) for _ in range(3))
    module, tiles = kernel("metrics.sparsity"), -(-h // TILE)
    shared = {"M": TILE, "DEPTH": DEPTH, **launches.options(WARPS)}
    module.columns[(M, tiles)](phi, mean, deviation, positive, nonzero, n, h, **shared)
    if kind_of(metric) is ActivationDensity:
        return (nonzero.sum(dim=1).double() / (n * h)).cpu().numpy()
    alive = positive > 0
    if kind_of(metric) is DistinctUnits:
        scale = given.abs().amax(dim=(1, 2))[:, None] if metric.relative else 1
        alive = given.amax(dim=1) > metric.threshold * scale
    alive = alive.to(torch.int32)
    within = constant_within(EPS, normalise * h) * n**0.5
    deviation = torch.where(deviation <= within * mean.abs(), torch.inf, deviation)
    tau = torch.tensor([least_correlation(metric.tau)], dtype=torch.float64, device=phi.device)
    module.merges[(M, tiles)](phi, mean, deviation, alive, merged, tau, n, h, **shared)
    kept = alive * (1 - merged)
    if kind_of(metric) is DistinctUnits:
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


def _of_grams(state, metric, rows):
    """Kernels [M, m, m] or ranks [M] from the Gram matrices of Jacobians."""
    import torch

    run = state.plan.run
    rank = kind_of(metric) is JacobianRank
    X = metric.where(run.model, run.data) if rank else metric.points if metric.points is not None else run.data.X
    X = _put(state, X, "float64")

    def part(params):
        K = grams(dense(run.model), params, X)
        if not rank:
            return K.cpu().numpy()
        trace = K.diagonal(dim1=1, dim2=2).sum(dim=1)
        known = (trace > 1 / LARGE) & (trace < LARGE)
        values = torch.linalg.eigvalsh(torch.where(known[:, None, None], K, 0))
        count = (values > metric.rtol**2 * values[:, -1:]).sum(dim=1).double().cpu().numpy()
        for k in torch.nonzero(~known).ravel().tolist():  # too large or small to be squared, zero, or not finite
            one = {name: a[k:k + 1].cpu().numpy() for name, a in params.items()}
            count[k] = metric.compute(run.model, one, run.data, run.loss)[0]
        return count

    return _by_parts(part, state, rows, 8 * 3 * len(X) * (len(X) + sum(dense(run.model).widths)))


def grams(model, params, X):
    """J J^T [M, m, m] of the trained parameters of an MLP of one output, at X [m, d]; float64 tensors."""
    import torch

    sources, derivatives = _backward(model, params, X)
    N, m = derivatives[0].shape[:2]
    K = torch.zeros((N, m, m), dtype=torch.float64, device=X.device)
    tiles = -(-m // TILE)
    for k in range(model.layers):
        trains = [float(name in params and model.trained(name)) for name in (f"W{k + 1}", f"b{k + 1}")]
        if not any(trains):
            continue
        scales = torch.tensor([trains[0] * model.multipliers[k]**2, trains[1]], dtype=torch.float64, device=X.device)
        a = sources[k].contiguous()
        kernel("metrics.gram").add_layer[(N, tiles, tiles)](
            K, a, derivatives[k].contiguous(), scales, m, a.shape[-1], derivatives[k].shape[-1],
            0 if a.ndim == 2 else a.shape[1] * a.shape[2], M=TILE, DEPTH=DEPTH, **launches.options(WARPS))
    return K


def _backward(model, params, X):
    """(inputs of each layer, derivatives dh/dz of each layer [M, m, width]) of an MLP of one output."""
    import torch

    a, sources, inside = X, [], []
    with torch.enable_grad():
        for k in range(model.layers):
            sources.append(a)
            z = model._layer(params, k, a)
            if k == 0:
                z = z.requires_grad_()
            inside.append(z)
            a = ACTIVATIONS[model.activation](z, model.slope)
        derivatives = torch.autograd.grad(inside[-1].sum(), inside)
    return [source.detach() for source in sources], derivatives
