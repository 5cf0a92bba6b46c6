"""Owns the reference backend: the forward pass differentiated by torch.func, one step at a time, on the CPU."""

from dataclasses import dataclass, replace

import numpy as np

from ..errors import PlanError
from ..rules import GD, SGD
from .base import Backend


@dataclass(eq=False)
class State:
    """weights [N, P] torch, lost [N] int64, the plan, and the data as torch tensors."""

    plan: object
    weights: object
    lost: np.ndarray
    X: object
    y: object


class Reference(Backend):
    """The independent witness: slow, plain, right. Any model with a forward pass runs here."""

    name = "reference"

    def supports(self, run):
        if type(run.rule) not in (SGD, GD):
            return f"it does not know the rule {type(run.rule).__name__}"
        return None

    def choose(self, run, N, tuning):
        for name in ("team", "lanes", "isa"):
            if getattr(tuning, name) is not None:
                raise PlanError(f"tuning.{name}: {getattr(tuning, name)!r} given, the reference has no such choice")
        item = np.dtype(run.dtype).itemsize
        batch = run.rule.batch(run.data.n)
        memory = {"state": 3 * N * run.model.P * item, "data": run.data.X.nbytes + run.data.y.nbytes,
                  "gathered samples": N * batch * run.data.d * item}
        return replace(tuning, threads=1), memory, ("forward pass differentiated by torch.func, one step at a time",)

    def load(self, plan, weights, lost):
        import torch

        dtype = getattr(torch, plan.run.dtype)
        X, y = (torch.tensor(a, dtype=dtype) for a in (plan.run.data.X, plan.run.data.y))
        return State(plan, torch.tensor(weights), lost.copy(), X, y)

    def advance(self, state, segment):
        import torch

        plan, run = state.plan, state.plan.run
        model, n, ids = run.model, run.data.n, plan.ids
        draws = None
        if type(run.rule) is not GD:
            draws = segment.indices if segment.indices is not None else run.order.indices(
                run.seed, ids, segment.t0, segment.t1, n, plan.batch)
            draws = torch.from_numpy(np.broadcast_to(draws.astype(np.int64), (plan.N, *draws.shape[1:])).copy())
        rate = torch.from_numpy(plan.base.astype(run.dtype)[:, None] * segment.multiplier[plan.row])  # [N, t1 - t0]

        def sample_loss(weights, x, y):
            f = model.forward(model.unflatten(weights), x)
            return run.loss.value(f, y).mean(), f - y

        gradient = torch.func.vmap(torch.func.grad(sample_loss, has_aux=True), in_dims=(0, 0, 0))
        lost = torch.from_numpy(state.lost)
        bound = run.rule.bound(run.loss, run.dtype)
        for s in range(segment.t1 - segment.t0):
            if draws is None:
                X, y = state.X.expand(plan.N, -1, -1), state.y.expand(plan.N, -1)
            else:
                X, y = state.X[draws[:, s]], state.y[draws[:, s]]
            grad, residual = gradient(state.weights, X, y)
            bad = ~(residual.abs() <= bound).all(dim=1) & (lost < 0)
            lost[bad] = segment.t0 + s
            state.weights = torch.where((lost < 0)[:, None], state.weights - rate[:, s, None] * grad, state.weights)

    def read(self, state):
        return state.weights.numpy(), state.lost
