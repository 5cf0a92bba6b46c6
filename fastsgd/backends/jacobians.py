"""Owns how the CPU backend computes ranks and spectra of Jacobians: which kernel serves a model, and why."""

import numpy as np

from ..errors import PlanError
from ..metrics import JacobianRank
from ..spec.kinds import kind_of
from . import general, linear, traced

LEAST_COUNTED = 1e-300  # the count of diagonal networks compares relative sizes; it takes 0 as well
LEAST_GRAM = 1e-6  # legal for the Gram matrix: right to a relative 1e-10 + 1e-14 / rtol^2 around the threshold
SAFE_GRAM = 1e-5  # chosen by "auto": right to a relative 1e-4 around the threshold
STACKED = 64 << 20  # bytes of the Jacobians of traced networks at a time
MOST_ROWS = 4096  # of a Gram matrix in a thread's scratch: 128 MiB


def dense_shape(model):
    """The shape of a dense network as the kernels know it, else None."""
    shape = general.family(model)
    return shape if shape and shape["family"] == "dense" else None


def choose(metric, model, points):
    """(method, why): "count", "gram", "jacobi" or "svd". Raises PlanError for a named one that is not possible."""
    rank = kind_of(metric) is JacobianRank
    diagonal, shape = linear.is_linear(model), dense_shape(model)
    rows = points * model.outputs
    compiled = diagonal or shape or traced.own_model(model)
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


def explain(module, metric, run):
    """One line of a plan: the method, why, and the scratch of a thread."""
    points = len(metric.where(run.model, run.data))
    method, why = choose(metric, run.model, points)
    d, shape = run.data.d, dense_shape(run.model)
    if method == "svd":
        size = 8 * points * run.model.outputs * run.model.P
    elif traced.own_model(run.model):
        rows, P = points * run.model.outputs, run.model.P  # the Jacobian, and its smaller Gram matrix or its rotations
        size = 8 * (rows * P + min(rows, P)**2)
    elif shape:
        size = (module.dense_ranks_bytes if method == "gram" else module.dense_values_bytes)(shape, points)
    else:
        size = module.diagonal_rank_bytes(d) if method == "count" else module.jacobi_bytes(min(points, d), d)
    return f"{metric.name} by {method!r}: {why}; {size / 2**20:.2f} MiB of scratch a thread"


def diagonal_points(module, X):
    """What counts on points X [m, d] share; columns of any size, since each is squared over its own power of two."""
    power = np.frexp(np.abs(X).max(axis=0))[1]
    columns = np.ldexp(X, -power)
    return module.DiagonalPoints(np.ascontiguousarray(columns.T @ columns), len(X), np.ldexp(1.0, power - power.max()))


def prepare(module, metric, run):
    """(method, points [m, d], what its kernel takes of model and points): all that networks have in common."""
    model, X = run.model, metric.where(run.model, run.data)
    method, _ = choose(metric, model, len(X))
    if traced.own_model(model):
        return method, np.ascontiguousarray(X), general.told(run, module, "float64") if method != "svd" else None
    if method == "count":
        return method, X, diagonal_points(module, X)
    if linear.is_linear(model):
        return method, X, np.linalg.qr(X, mode="r") if len(X) > model.d else X
    return method, X, dense_shape(model)


def measure(module, metric, run, weights, threads, kept):
    """Ranks [M] or spectra [M, k] of networks `weights` [M, P], None where the definition serves.

    kept: dict that outlives the call, for what networks have in common
    """
    if metric not in kept:
        kept[metric] = prepare(module, metric, run)
    model, (method, X, common) = run.model, kept[metric]
    if method == "svd":
        return None
    if traced.own_model(model):
        return _stacked(module, metric, model, method, common, X, weights, threads)
    if method == "count":
        count = module.diagonal_rank(common, linear.parts(model, weights), metric.rtol, threads)
        return np.where(count < 0, np.nan, count)  # -1: u and v are finite, but their size is not
    if linear.is_linear(model):
        values = module.scaled_values(common, linear.parts(model, weights), threads)
    else:
        weights = np.ascontiguousarray(weights, dtype=np.float64)
        if method == "gram":
            return _gram(module, metric, common, X, weights, threads)
        values = module.dense_values(common, X, weights, threads)
    return of_values(metric, run, *values)


def _stacked(module, metric, model, method, shape, X, weights, threads):
    """Ranks or spectra of Jacobians that a traced network's own code makes, some networks at a time."""
    free = np.concatenate([np.full(int(np.prod(size, dtype=int)), model.trained(name))
                           for name, size in model.shapes().items()])
    at_once, out = max(1, STACKED // (8 * len(X) * model.outputs * model.P)), []
    weights = np.ascontiguousarray(weights, dtype=np.float64)
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


def of_values(metric, run, sigma, exponents):
    """A rank [M] or spectrum [M, k] of singular values of a Jacobian that lacks columns of zeros, or has some more."""
    most = metric.most(run.model, run.data)  # with a column for each trained parameter
    sigma, exponents = (np.pad(a, ((0, 0), (0, max(0, most - a.shape[1]))))[:, :most] for a in (sigma, exponents))
    return metric.of(sigma, exponents)


def _gram(module, metric, shape, X, weights, threads):
    """Ranks [M] from Gram matrices; of singular values where a Gram matrix is not finite, zero, or has lost digits."""
    count = module.dense_ranks(shape, X, weights, metric.rtol, threads).astype(np.float64)
    for k in np.flatnonzero(count < 0):
        count[k] = metric.of(*module.dense_values(shape, X, weights[k:k + 1], threads))[0]
    return count
