"""Owns the kernels of ranks and spectra of Jacobians: which one serves a network, and why."""

import numpy as np

from ..backends import cpu
from ..errors import PlanError
from ..portable import kernel
from .registry import Kernels, named

LEAST_COUNTED = 1e-300  # the count of diagonal networks compares relative sizes; it takes 0 as well
LEAST_GRAM = 1e-6  # legal for the Gram matrix: right to a relative 1e-10 + 1e-14 / rtol^2 around the threshold
SAFE_GRAM = 1e-5  # chosen by "auto": right to a relative 1e-4 around the threshold
STACKED = 64 << 20  # bytes of the Jacobians of traced networks at a time
MOST_ROWS = 4096  # of a Gram matrix in a thread's scratch: 128 MiB
BLOCK_ROWS = 1024  # of a Gram matrix on a card: a thread a row
TILE, DEPTH, WARPS = 32, 16, 4  # of kernels/metrics/gram.py
LARGE = 1e130  # largest and 1 / least entry of a Gram matrix whose eigenvalues have lost nothing


class Grams(Kernels):
    """J J^T by structure, in tiles; Triton has it."""

    def on_tiles(self, metric, work):
        return _of_grams if _by_grams(work) else None


class Jacobians(Kernels):
    """By counts, Gram matrices or Jacobi's method, as `choose` says."""

    def explain(self, metric, work, module):
        """The method, why, and the scratch of a thread."""
        points, d = len(metric.where(work.run.model, work.run.data)), work.d
        method, why = choose(metric, work, points)
        if method == "svd":
            size = 8 * points * work.outputs * work.P
        elif work.form is None:
            rows = points * work.outputs  # the Jacobian, and its smaller Gram matrix or its rotations
            size = 8 * (rows * work.P + min(rows, work.P)**2)
        elif work.form.linear:
            size = module.diagonal_rank_bytes(d) if method == "count" else module.jacobi_bytes(min(points, d), d)
        else:
            size = (module.dense_ranks_bytes if method == "gram" else module.dense_values_bytes)(
                work.form.described(), points)
        return f"{metric.name} by {method!r}: {why}; {size / 2**20:.2f} MiB of scratch a thread"

    def on_host(self, metric, host, weights):
        work, module, threads = host.work, host.module, host.threads
        method, X, shared = host.cached(metric, lambda: _prepared(module, metric, work))
        weights = np.ascontiguousarray(weights, dtype=np.float64)
        if method == "svd":
            return None
        if work.form is None:
            return _stacked(module, metric, work, method, shared, X, weights, threads)
        if method == "count":
            count = module.diagonal_rank(shared, work.form.parts(weights), metric.rtol, threads)
            return np.where(count < 0, np.nan, count)  # -1: u and v are finite, but their size is not
        if method == "gram":
            return _gram(module, metric, shared, X, weights, threads)
        values = (module.scaled_values(shared, work.form.parts(weights), threads) if work.form.linear else
                  module.dense_values(shared, X, weights, threads))
        return _of_values(metric, work, *values)

    def on_card(self, metric, work, card, host):
        X = metric.where(work.run.model, work.run.data)
        if work.form is None:
            return None
        method, why = choose(metric, work, len(X))
        if method == "count" and (host is None or hasattr(host, "module")):  # the CPU's module packs the points
            return _count_on_card(metric, work, X, why, host)
        if method == "gram" and len(X) * work.outputs <= BLOCK_ROWS:
            return _gram_on_card(metric, work, X, why, card, host)
        return _values_on_card(metric, work, X, why, card) if method in ("jacobi", "count") else None

    def on_tiles(self, metric, work):
        return _of_grams if self.explain_tiles(metric, work) else None

    def explain_tiles(self, metric, work):
        if named(metric) != "JacobianRank" or not _by_grams(work) or metric.rtol < SAFE_GRAM:
            return None
        if metric.method not in ("auto", "gram"):
            return None
        return (f"{metric.name} by 'gram': eigenvalues of J J^T, made by structure in {TILE} x {TILE} tiles, right "
                f"where no singular value lies within a relative {1e-10 + 1e-14 / metric.rtol**2:.0e} of the threshold")

    def units(self, metric, work):
        points = len(metric.where(work.run.model, work.run.data))
        method, _ = choose(metric, work, points)
        rows, units = points * work.outputs, 0 if work.form is None else work.form.units
        short = min(rows, work.d if work.linear else work.P)
        if method == "count" and points < work.d:  # no certificate saves the elimination
            method = "count.short"
        narrow = min(rows, units * (work.d + 1))  # columns of the factor that two-layer networks are counted from
        if method == "gram" and work.fused_form:
            method = "gram.two_layer"
        if method == "jacobi" and work.linear:
            method = "jacobi.linear"
        units = {"count": {"input": work.d, "square": work.d**2},
                 "gram.two_layer": {"item": rows * units, "square": rows * narrow, "cube": rows * narrow**2},
                 "count.short": {"item": work.d * rows, "square": work.d**2, "cube": work.d**2 * rows},
                 "gram": {"row": rows, "item": rows * rows * units, "cube": rows**3},
                 "jacobi": {"row": rows, "item": rows * work.P, "turned": rows * short * short},
                 "jacobi.linear": {"input": work.d, "square": short * short, "turned": short**3}}
        return f"metric.{method}", units.get(method, {})


def choose(metric, work, points):
    """(method, why): "count", "gram", "jacobi" or "svd". Raises PlanError for a named one that is not possible."""
    rank, model = named(metric) == "JacobianRank", work.run.model
    diagonal = work.linear
    rows = points * work.outputs
    compiled = diagonal or work.form is None or work.dense
    rounded = "rtol is 0, and rounding leaves no singular value at zero" if rank and metric.rtol == 0 else None
    reasons = {"svd": None}  # method: why it is not possible
    reasons["jacobi"] = rounded if compiled else f"there is no kernel for {type(model).__name__}"
    if rank:
        reasons["count"] = (None if diagonal and (metric.rtol == 0 or metric.rtol >= LEAST_COUNTED) else
                            f"rtol is below {LEAST_COUNTED:g}" if diagonal else
                            f"{type(model).__name__} is no diagonal network")
        reasons["gram"] = ("diagonal networks are counted, method='count'" if diagonal else
                           f"there is no kernel for {type(model).__name__}" if not compiled else
                           f"rtol={metric.rtol:g} is below {LEAST_GRAM:g}, and the Gram matrix has squared singular "
                           "values" if metric.rtol < LEAST_GRAM else
                           f"the Jacobian has {rows} rows, a thread holds at most {MOST_ROWS}" if rows > MOST_ROWS
                           else None)
    if metric.method != "auto":
        if reasons[metric.method]:
            possible = tuple(name for name, why in reasons.items() if why is None)
            raise PlanError(f"metrics: {metric.name} by method={metric.method!r} is not possible, for "
                            f"{reasons[metric.method]}; possible are {possible}")
        return metric.method, "as asked for"
    if rank and reasons["count"] is None:
        return "count", "exact inertia, no singular value is computed"
    if rank and reasons["gram"] is None and metric.rtol >= SAFE_GRAM:
        return "gram", ("inertia of the Gram matrix, right where no singular value lies within a relative "
                        f"{1e-10 + 1e-14 / metric.rtol**2:.0e} of the threshold")
    if reasons["jacobi"] is None:
        return "jacobi", "one-sided Jacobi, high relative accuracy"
    return "svd", f"the definition by torch.func and LAPACK, for {reasons['jacobi']}"


def diagonal_points(module, X):
    """What counts on points X [m, d] share; columns of any size, since each is squared over its own power of two."""
    power = np.frexp(np.abs(X).max(axis=0))[1]
    columns = np.ldexp(X, -power)
    return module.DiagonalPoints(np.ascontiguousarray(columns.T @ columns), len(X), np.ldexp(1.0, power - power.max()))


# ---- on the host


def _prepared(module, metric, work):
    """(method, points [m, d], what its kernel takes of model and points): all that networks have in common."""
    X = metric.where(work.run.model, work.run.data)
    method, _ = choose(metric, work, len(X))
    if work.form is None:
        return method, np.ascontiguousarray(X), cpu.shape(work, module, "float64") if method != "svd" else None
    if method == "count":
        return method, X, diagonal_points(module, X)
    if work.form.linear:
        return method, X, _narrow(work, X)
    return method, X, work.form.described()


def _narrow(work, X):
    """X, or where there are more points than inputs its R of QR: X diag(s) has the same singular values."""
    return np.linalg.qr(X, mode="r") if len(X) > work.d else X


def _stacked(module, metric, work, method, shape, X, weights, threads):
    """Ranks or spectra of Jacobians that a traced network's own code makes, some networks at a time."""
    free = np.ones(work.P, bool) if work.fixed is None else ~work.fixed
    at_once, out = max(1, STACKED // (8 * len(X) * work.outputs * work.P)), []
    for k in range(0, len(weights), at_once):
        J = module.jacobians(shape, threads, weights[k:k + at_once], X)
        J = J if free.all() else np.ascontiguousarray(J[..., free])
        known = np.isfinite(J).all(axis=(1, 2))
        J = np.where(known[:, None, None], J, 0.0)
        if method == "gram":
            made = module.gram_ranks(J, metric.rtol, threads).astype(np.float64)
        else:
            made = metric.of(*module.jacobi_values(J, threads))
        out.append(np.where(known.reshape(-1, *(1,) * (made.ndim - 1)), made, np.nan))
    return np.concatenate(out)


def _of_values(metric, work, sigma, exponents):
    """A rank [M] or spectrum [M, k] from singular values of a Jacobian with fewer or more columns of zeros."""
    most = metric.most(work.run.model, work.run.data)  # with a column for each trained parameter
    sigma, exponents = (np.pad(a, ((0, 0), (0, max(0, most - a.shape[1]))))[:, :most] for a in (sigma, exponents))
    return metric.of(sigma, exponents)


def _gram(module, metric, shape, X, weights, threads):
    """Ranks [M] from Gram matrices, or from singular values where a Gram matrix is not finite, zero, or lost digits."""
    count = module.dense_ranks(shape, X, weights, metric.rtol, threads).astype(np.float64)
    for k in np.flatnonzero(count < 0):
        count[k] = metric.of(*module.dense_values(shape, X, weights[k:k + 1], threads))[0]
    return count


# ---- on a card: csrc/cuda/metrics/{diagonal, gram_rank, jacobi}.h


def _count_on_card(metric, work, X, why, host):
    from . import task
    from .programs import jacobians as programs

    points = np.zeros(4 + 2 * work.d + 2 * work.d**2) if host is None else diagonal_points(host.module, X).packed()
    return task.task(
        programs.diagonal_ranks(work.d, task.scales(work)), points, len(X), work.d, task.parts(work), 1,
        f"'count': {why}", number=metric.rtol,
        finish=lambda count, read: np.where(count[:, 0] < 0, np.nan, count[:, 0]))


def _gram_on_card(metric, work, X, why, card, host):
    from . import task
    from .programs import jacobians as programs

    def finish(count, read):
        count = count[:, 0].copy()
        doubtful = count < 0
        if doubtful.any():
            count[doubtful] = host.records(metric, read(np.flatnonzero(doubtful)))
        return count

    return task.task(
        programs.gram_ranks(work.form, work.P, len(X), card.shared),
        np.concatenate([X.T.ravel(), (X @ X.T).ravel()]), len(X), len(X), task.weights(work), 1,
        f"'gram': {why}; what a block cannot certify is counted on the host", number=metric.rtol, finish=finish)


def _values_on_card(metric, work, X, why, card):
    """Singular values by Jacobi's method, and what the metric makes of them."""
    from . import task
    from .programs import jacobians as programs

    if work.form.linear:
        points = _narrow(work, X)
        made = programs.scaled_values(work.d, task.scales(work), len(points), card.shared)
        given, kept = task.parts(work), min(points.shape)
    else:
        made = programs.dense_values(work.form, work.P, len(X), card.shared)
        points, given, kept = X.T, task.weights(work), min(len(X) * work.outputs, work.P)

    def finish(answers, read):
        return _of_values(metric, work, answers[:, :kept], answers[:, kept:].astype(np.int32))

    return task.task(made, points, len(points), points.shape[1], given, 2 * kept, f"'jacobi': {why}", finish=finish)


# ---- kernels/metrics/gram.py


def _by_grams(work):
    return work.dense and work.outputs == 1


def _of_grams(tiles, metric, rows):
    """Kernels [M, m, m] or ranks [M] from the Gram matrices of Jacobians."""
    import torch

    run, form = tiles.work.run, tiles.work.form
    rank = named(metric) == "JacobianRank"
    X = metric.where(run.model, run.data) if rank else metric.points if metric.points is not None else run.data.X
    X = tiles.put(X, "float64")

    def part(params):
        K = grams(form, params, X)
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

    return tiles.by_parts(part, rows, 8 * 3 * len(X) * (len(X) + form.units))


def grams(form, params, X):
    """J J^T [M, m, m] of the trained parameters of a dense network of one output, at X [m, d]; float64 tensors."""
    import torch

    from ..backends.triton import launches

    sources, derivatives = _backward(form, params, X)
    N, m = derivatives[0].shape[:2]
    K = torch.zeros((N, m, m), dtype=torch.float64, device=X.device)
    tiles = -(-m // TILE)
    for k in range(form.layers):
        trains = [float(form.trained[k][0]), float(form.bias[k] and form.trained[k][1])]
        if not any(trains):
            continue
        scales = torch.tensor([trains[0] * form.multipliers[k]**2, trains[1]], dtype=torch.float64, device=X.device)
        a = sources[k].contiguous()
        kernel("metrics.gram").add_layer[(N, tiles, tiles)](
            K, a, derivatives[k].contiguous(), scales, m, a.shape[-1], derivatives[k].shape[-1],
            0 if a.ndim == 2 else a.shape[1] * a.shape[2], M=TILE, DEPTH=DEPTH, **launches.options(WARPS))
    return K


def _backward(form, params, X):
    """(inputs of each layer, derivatives dh/dz of each layer [M, m, width]) of a dense network of one output."""
    import torch

    from ..models.activations import ACTIVATIONS

    a, sources, inside = X, [], []
    with torch.enable_grad():
        for k in range(form.layers):
            sources.append(a)
            z = form.layer(params, k, a)
            if k == 0:
                z = z.requires_grad_()
            inside.append(z)
            a = ACTIVATIONS[form.activation](z, form.slope)
        derivatives = torch.autograd.grad(inside[-1].sum(), inside)
    return [source.detach() for source in sources], derivatives
