"""Owns the measurement of Jacobian ranks: ours against LAPACK on the same Jacobians and against autograd."""

import os
import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np

import fastsgd as fs
from fastsgd.lowering.work import Work
from fastsgd.measure.host import Host
from fastsgd.metrics.jacobian_rank import count_above, jacobians

from .harness import calls_within, round_of


@dataclass(frozen=True, eq=False)
class RankCase:
    """Ranks of N trained networks of one family: J [m, P] of each at `rtol`."""

    name: str
    title: str
    model: object
    points: np.ndarray
    rtol: float
    step_size: float
    steps: int
    init: dict

    @cached_property
    def data(self):
        rng = np.random.default_rng(1)
        if type(self.model) is fs.models.DiagonalLinear:
            return fs.data.sparse_regression(n=80, d=self.model.d, nonzero=20, seed=0)
        X = rng.standard_normal((30, self.model.d))
        return fs.Dataset(X, np.sin(2 * X[:, 0]))

    @cached_property
    def weights(self):
        """[N, P] float64: half of them at the start, half after `steps` steps of SGD."""
        N = len(next(iter(self.init.values())))
        run = fs.Run(self.model, self.data, fs.rules.SGD(), self.step_size, self.steps, init=self.init, networks=N,
                     dtype="float64", save=fs.SaveAt(steps=[0, self.steps], params=True))
        kept = fs.train(run).saved_weights
        return np.concatenate([kept[::2, 0], kept[1::2, 1]])

    @cached_property
    def jacobians(self):
        return jacobians(self.model, self.model.unflatten(self.weights), self.points)

    @cached_property
    def flops(self):
        """Of Gram matrix and LDL^T, averaged over the networks; 0 for a diagonal network."""
        if type(self.model) is fs.models.DiagonalLinear:
            return 0
        m = len(self.points)
        if type(self.model) is fs.models.ReLU2:
            r = self.columns.astype(float)
            return float((m * r**2 + r**3 / 3).mean())
        return m * m * (sum(self.model.sizes[1:-1]) * 2) + m**3 // 3

    @property
    def columns(self):
        """[N] of B, J J^T = B B^T, of two-layer networks: the inputs once for each set of points where a unit is on."""
        params = self.model.unflatten(self.weights)
        inputs = self.model.d + self.model.hidden_bias
        on = self.points @ params["W1"].swapaxes(1, 2) + params.get("b1", np.zeros(1))[..., None, :] > 0  # [N, m, h]
        return np.array([len({mask.tobytes() for mask in one.T if mask.any()}) for one in on]) * inputs


def _normal(model, N, scale, seed=0, **fixed):
    rng = np.random.default_rng(seed)
    return {name: fixed.get(name, scale) * rng.standard_normal((N, *shape)) for name, shape in model.shapes().items()}


def _cases():
    rng = np.random.default_rng(0)
    unit = rng.standard_normal((60, 2))
    two, one = fs.models.ReLU2(2, 20, False, False), fs.models.ReLU2(1, 100, True, False)
    deep, diagonal = fs.models.MLP(5, (10, 10)), fs.models.DiagonalLinear(200)
    yield RankCase("rank60", "ReLU2 2-20-1, J 60x60", two, unit / np.linalg.norm(unit, axis=1, keepdims=True), 1e-4,
                   0.02, 3000, _normal(two, 64, 0.5))
    yield RankCase("rank181", "MLP 5-10-10-1 with biases, J 181x181", deep, rng.standard_normal((181, 5)), 1e-4,
                   0.01, 3000,
                   _normal(deep, 16, 0.8))
    yield RankCase("rank300", "ReLU2 1-100-1 with hidden biases, J 300x300", one, rng.uniform(-2, 2, (300, 1)), 1e-4,
                   1e-3, 3000, _normal(one, 16, 0.5))
    start = {"u": np.full((32, 200), 0.1), "v": np.zeros((32, 200))}
    yield RankCase("rank400", "DiagonalLinear d=200, J 400x400", diagonal, rng.standard_normal((400, 200)), 1e-15, 0.2,
                   30_000, start)


CASES = {case.name: case for case in _cases()}


def _ours(case, threads):
    metric = fs.metrics.JacobianRank(case.rtol, case.points)
    host = Host(Work(fs.Run(case.model, case.data, fs.rules.SGD(), 0.1, 1, dtype="float64")), len(case.weights))
    host.threads = threads
    return lambda: host.measure(metric, case.weights)


def _stack(case, threads):
    return lambda: fs.linalg.rank(case.jacobians, case.rtol, threads=threads)


def _numpy(case, threads):
    return lambda: count_above(np.linalg.svd(case.jacobians, compute_uv=False), case.rtol)


def _torch(case, threads):
    import torch

    J = torch.from_numpy(case.jacobians)

    def count():
        sigma = torch.linalg.svdvals(J)
        return (sigma > case.rtol * sigma[:, :1]).sum(dim=1).numpy()

    return count


def _autograd(case, threads):
    """What a newcomer writes: a backward pass for each point, then the SVD; two networks, since it is slow."""
    import torch

    X = torch.from_numpy(case.points)

    def one(k):
        params = {name: torch.from_numpy(a[k].copy()).requires_grad_()
                  for name, a in case.model.unflatten(case.weights).items()}
        rows = []
        for x in X:
            out = case.model.forward(params, x[None])[0]
            rows.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(out, list(params.values()))]))
        sigma = torch.linalg.svdvals(torch.stack(rows))
        return int((sigma > case.rtol * sigma[0]).sum())

    return lambda: np.array([one(k) for k in range(2)])


SIDES = {"fastsgd": _ours, "fs.linalg.rank": _stack, "numpy": _numpy, "torch": _torch, "autograd": _autograd}


def _checked(case, side, got):
    """Largest difference from LAPACK's counts where no singular value is near the threshold.

    At 1e-15 LAPACK itself is off by several; there the scaled columns are counted by `fs.linalg`.
    """
    if case.rtol >= 1e-10:
        sigma = np.linalg.svd(case.jacobians[:len(got)], compute_uv=False)
        near = (np.abs(sigma / (case.rtol * sigma[:, :1]) - 1) < 1e-4).any(axis=1)
        want = count_above(sigma, case.rtol)
    else:
        params = case.model.unflatten(case.weights[:len(got)])
        A = np.linalg.qr(case.points, mode="r") * np.hypot(params["u"], params["v"])[:, None]
        sigma = fs.linalg.singular_values(A)
        near = (np.abs(sigma / (case.rtol * sigma[:, :1]) - 1) < 1e-9).any(axis=1)
        want = count_above(sigma, case.rtol)
    return int(np.abs(np.asarray(got) - want)[~near].max(initial=0))


def ranks(name, rounds, target):
    """Seconds of one rank by every side, interleaved, in one process pinned to its cores.

    Returns {side: {"seconds": [rounds], "off": largest difference of a count}}, and "fma-peak": flop/s in float64.
    """
    import torch

    from .peak import library

    case, threads = CASES[name], len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    functions = {side: make(case, threads) for side, make in SIDES.items()
                 if not (side == "fs.linalg.rank" and case.rtol < 1e-10)}
    out, calls = {}, {}
    for side, function in functions.items():
        got = function()
        calls[side] = calls_within(function, target)
        out[side] = {"seconds": [], "off": _checked(case, side, got), "networks": len(got)}
    out["fma-peak"] = {"rates": []}
    for number in range(rounds):
        for side, best in round_of(functions, calls, number):
            out[side]["seconds"].append(best / out[side]["networks"])
            time.sleep(0.01)
        spent = []
        for _ in range(3):
            began = time.perf_counter()
            flops = library().fma_flops(512 if library().has_width(512) else 256, 2_000_000, threads)
            spent.append(flops / (time.perf_counter() - began) / 2)  # the probe is in float32
        out["fma-peak"]["rates"].append(max(spent))
    return out
