"""Owns the polish: networks are moved to critical points of their loss by Newton's method, with Hessians' spectra."""

from typing import Any

import numpy as np

from .errors import SpecError
from .metrics.hessian import derivative, refuse_untrained
from .metrics.losses import mean_loss
from .models.base import as_rows
from .models.exact import exact, refuse_population
from .result import Result
from .spec.check import per_network, real, whole
from .spec.loss import Squared
from .spec.record import Record, record

PART = 64 << 20  # bytes that the Hessians of some networks take
TRIES = 30  # of dampings in a row, each four times the one before, until no step is better


@record()
class Polished(Record):
    """N networks at critical points, in float64.

    weights [N, P]; params {name: [N, ...]}; loss [N]: mean training loss, with weight decay where there is some
    gradient_norm [N]; converged [N]: whether it is at most the tolerance
    steps [N]: of Newton's method, those that were taken; moved [N]: distance from where they were
    eigenvalues [N, P']: of the Hessian there, rising, over the P' parameters that are trained
    What is not finite, such as a lost network that overflowed, is NaN.
    """

    weights: np.ndarray
    params: dict
    loss: np.ndarray
    gradient_norm: np.ndarray
    converged: np.ndarray
    steps: np.ndarray
    moved: np.ndarray
    eigenvalues: np.ndarray

    def index(self, threshold: float = 1e-8) -> np.ndarray:
        """[N]: directions in which the loss falls, eigenvalues below -threshold times the largest size: 0 at minima.

        It is -1 where there are no eigenvalues, as of a lost network that overflowed.
        """
        most = np.abs(self.eigenvalues).max(axis=1, keepdims=True)
        return np.where(np.isfinite(most[:, 0]), (self.eigenvalues < -threshold * most).sum(axis=1), -1)


def polish(of: Any, data: Any = None, params: Any = None, *, loss: Any = None, weight_decay: Any = None,
           tol: float = 1e-12, steps: int = 100) -> Polished:
    """Move networks to the critical points next to them: grad L(w) = 0, a minimum or a saddle, whichever it is.

    w <- w - H (H^2 + mu)^-1 grad L, the damped Newton (Levenberg-Marquardt) step for |grad L|^2, with mu a multiple of
    |grad L|^2 that adapts: it never raises |grad L|, converges quadratically, and also where the critical points are no
    isolated ones, as those of networks with more parameters than samples. It is for networks that are close to one: far
    away, |grad L| has minima of its own. For small P: each step takes whole Hessians.

    of: a Result, of which model, data, loss, weight decay and final weights are taken; or a model
    data: fs.Dataset; params: {name: [N, ...] or [...]} or flat [N, P]; loss: by default fs.losses.Squared()
    weight_decay [] or [N]: L is the mean training loss plus (weight_decay / 2) ||w||^2; by default 0, or the result's
    tol: > 0, |grad L| at which a network is done; one that comes no closer stops where it is
    steps: most steps of each network, >= 0; 0 measures where they are
    Returns a Polished. Raises SpecError. ReLU networks are polished within the linear region they are in, or go across
    kinks where that lowers |grad L|.
    """
    model, data, rows, loss, weight_decay = _given(of, data, params, loss, weight_decay)
    tol, steps = real(tol, "tol", 0, low_open=True), whole(steps, "steps", 0)
    free = np.concatenate([np.full(int(np.prod(shape)), model.trained(name)) for name, shape in model.shapes().items()])
    N, count = len(rows), int(free.sum())
    decay = np.broadcast_to(per_network(0.0 if weight_decay is None else weight_decay, "weight_decay", 0), (N,))
    at_once = max(1, PART // (32 * count**2 + 64 * data.n * model.P))
    parts = [_polished(model, data, loss, rows[k:k + at_once], decay[k:k + at_once], free, tol, steps)
             for k in range(0, N, at_once)]
    weights, gradient, taken, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    named = model.unflatten(weights)
    with np.errstate(over="ignore", invalid="ignore"):
        value = mean_loss(model, named, data.X, data.y, loss) + decay / 2 * (weights[:, free]**2).sum(axis=1)
        moved = np.linalg.norm(weights - rows, axis=1)
    return Polished(weights, named, value, gradient, gradient <= tol, taken, moved, values)


def _given(of, data, params, loss, weight_decay):
    """(model, data, weights [N, P] float64, loss, weight decay) of the arguments."""
    if isinstance(of, Result):
        if any(value is not None for value in (data, params, loss)):
            raise SpecError("polish(result): takes no data, params or loss; give the model in its place")
        run = of.run
        rule, lacking = run.rule, None
        if rule.penalty is not None or np.any(rule.balance_penalty) or rule.localisation is not None:
            lacking = "a penalty"
        elif isinstance(rule.weight_decay, dict):
            lacking = "a weight decay for each parameter"
        elif np.any(rule.weight_decay) and rule.traits().get("decoupled"):
            lacking = "decoupled weight decay"
        if lacking and weight_decay is None:
            raise SpecError(f"result: its rule has {lacking}, which is no part of the loss that is polished; say "
                            "weight_decay=0 to leave it out")
        if weight_decay is None:
            decay = np.asarray(rule.weight_decay, np.float64)
            weight_decay = decay[run.ids] if decay.ndim and run.ids is not None else decay
        of, data, params, loss = run.model, run.data, of.weights, run.loss
    elif data is None or params is None:
        raise SpecError(f"{'data' if data is None else 'params'}: missing")
    loss = Squared() if loss is None else loss
    if not getattr(data, "n", 0):
        raise SpecError("data: has no training set, whose mean loss is polished; see fs.Dataset")
    if loss.lengths():
        raise SpecError(f"loss: {', '.join(loss.lengths())} of each network given, polish takes one loss; select the "
                        "networks of one and give loss=loss.picked(k) with their params")
    if data.sets:
        raise SpecError(f"data: has {data.sets} data sets, polish takes one; select the networks of one and give "
                        "data=data.of(k) with their params")
    if of.d != data.d:
        raise SpecError(f"model.d: is {of.d}, but X has d={data.d} inputs")
    why = refuse_untrained(of) or refuse_population(of, data, loss) or loss.refuse(of.outputs, data.y)
    if why:
        raise SpecError(f"polish: {why}")
    of, data, loss = exact(of, data, loss)
    return of, data, as_rows(of, params)[0].astype(np.float64), loss, weight_decay


def _polished(model, data, loss, rows, decay, free, tol, steps):
    """(weights, |grad|, steps taken, eigenvalues) of some networks."""
    w, finite = rows.copy(), np.isfinite(rows).all(axis=1)
    w[~finite] = 0

    def of_loss(kind, positions):
        return derivative(kind, model, model.unflatten(w[positions]), data, loss)

    def gradient(positions):
        return of_loss("gradient", positions) + decay[positions, None] * w[positions][:, free]

    def hessian(positions):
        return of_loss("hessian", positions) + decay[positions, None, None] * np.eye(int(free.sum()))

    everyone = np.arange(len(w))
    with np.errstate(over="ignore", invalid="ignore"):
        g = gradient(everyone)
        size, damping, taken = np.linalg.norm(g, axis=1), np.ones(len(w)), np.zeros(len(w), np.int64)
        busy = np.flatnonzero(finite & np.isfinite(size) & (size > tol))
        for _ in range(steps):
            if not len(busy):
                break
            busy = busy[_step(w, g, size, damping, taken, busy, hessian(busy), gradient, free)]
            busy = busy[size[busy] > tol]
        values = np.full((len(w), int(free.sum())), np.nan)
        good = np.flatnonzero(finite & np.isfinite(size))
        if len(good):
            values[good] = np.linalg.eigvalsh(hessian(good))
    w[~finite], size[~finite] = rows[~finite], np.nan
    return w, size, taken, values


def _step(w, g, size, damping, taken, busy, H, gradient, free):
    """One damped step of the networks `busy`, in place; whether each came closer, [len(busy)]."""
    curvature, V = np.linalg.eigh(H)
    q = (V.swapaxes(1, 2) @ g[busy][:, :, None])[..., 0]
    least = (np.finfo(float).eps * np.abs(curvature).max(axis=1))**2
    closer = np.zeros(len(busy), bool)
    for _ in range(TRIES):
        left = np.flatnonzero(~closer)
        positions = busy[left]
        mu = np.maximum(damping[positions] * size[positions]**2, least[left]) + np.finfo(float).tiny
        along = curvature[left] * q[left] / (curvature[left]**2 + mu[:, None])
        before = w[positions]
        moved = before.copy()
        moved[:, free] -= (V[left] @ along[:, :, None])[..., 0]
        w[positions] = moved
        there = gradient(positions)
        length = np.linalg.norm(there, axis=1)
        good = length < size[positions]
        w[positions[~good]] = before[~good]
        g[positions[good]], size[positions[good]] = there[good], length[good]
        damping[positions] *= np.where(good, 1 / 4, 4)
        taken[positions[good]] += 1
        closer[left[good]] = True
        if closer.all():
            break
    return closer
