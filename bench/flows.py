"""Owns the measurement of gradient flow: many networks by fs.flow against SciPy's solve_ivp on the same ones."""

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np

import fastsgd as fs

from .harness import calls_within, check, round_of

RTOL, ATOL = 1e-6, 1e-9  # of every side
NETWORKS, ALONE, CHECKED = 64, 2, 2  # of fs.flow; of scipy one after the other; whose answers are compared
TOLERANCE = 1e-3  # of an answer: tolerances are of each step, so that errors of a whole flow are larger


@dataclass(frozen=True, eq=False)
class FlowCase:
    """Networks of one family, each from a start of its own, for `time` of gradient flow on half the mean square."""

    name: str
    title: str
    model: object
    data: object
    time: float

    @cached_property
    def starts(self):
        """[NETWORKS, P] float64."""
        return self.model.start(0, np.arange(NETWORKS))

    def gradient(self, w):
        """Of networks w [M, P], all samples at once, in NumPy."""
        X, y, p = self.data.X, self.data.y, self.model.unflatten(w)
        if "u" in p:
            g = ((p["u"] * p["v"]) @ X.T - y) @ X / len(y)
            return np.concatenate([g * p["v"], g * p["u"]], axis=1)
        depth, layers = len(self.model.sizes) - 1, [np.broadcast_to(X, (len(w), *X.shape))]
        for k in range(1, depth + 1):
            z = layers[-1] @ p[f"W{k}"].swapaxes(1, 2) + p[f"b{k}"][:, None]
            layers.append(z if k == depth else np.tanh(z))
        delta, out = (layers[-1] - y[:, None]) / len(y), {}
        for k in range(depth, 0, -1):
            out[f"W{k}"], out[f"b{k}"] = delta.swapaxes(1, 2) @ layers[k - 1], delta.sum(axis=1)
            delta = (delta @ p[f"W{k}"]) * (1 - layers[k - 1] ** 2)
        return np.concatenate([out[name].reshape(len(w), -1) for name in p], axis=1)

    def solved(self, starts, method, rtol=RTOL, atol=ATOL):
        """Weights [M, P] by scipy, of all `starts` as one system."""
        from scipy.integrate import solve_ivp

        made = solve_ivp(lambda t, w: -self.gradient(w.reshape(starts.shape)).ravel(), (0, self.time), starts.ravel(),
                         method=method, rtol=rtol, atol=atol, t_eval=[self.time])
        return made.y[:, -1].reshape(starts.shape)


def _cases():
    sparse = fs.data.sparse_regression(n=40, d=30, nonzero=3, seed=0)
    yield FlowCase("flow-diagonal", "DiagonalLinear d=30, n=40, time 20", fs.models.DiagonalLinear(30, u0=0.5, v0=0.1),
                   sparse, 20.0)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 5))
    yield FlowCase("flow-tanh", "MLP 5-10-10-1 tanh with biases, n=50, time 5", fs.models.MLP(
        5, (10, 10), activation="tanh"), fs.Dataset(X, np.sin(X[:, 0]) + X[:, 1] * X[:, 2]), 5.0)


CASES = {case.name: case for case in _cases()}


def planned(case, threads):
    """The plan of all networks."""
    run = fs.Run(case.model, case.data, fs.rules.Flow(rtol=RTOL, atol=ATOL), case.time, 1, dtype="float64",
                 init=case.model.unflatten(case.starts), backend="cpu")
    return fs.plan(run, fs.Tuning(threads=threads))


def sides(case, plan):
    """{side: (function () -> weights of the networks that it solves, how many they are)}."""
    alone = [case.starts[k:k + 1] for k in range(ALONE)]
    return {"fastsgd": (lambda: fs.train(plan).weights, NETWORKS)} | {
        f"solve_ivp {method}": (lambda m=method: np.concatenate([case.solved(one, m) for one in alone]), ALONE)
        for method in ("DOP853", "RK45")} | {
        "solve_ivp RK45, stacked": (lambda: case.solved(case.starts, "RK45"), NETWORKS)}


def flows(name, rounds, target):
    """{side: {"seconds": of one network [rounds], "error", "networks"}} in one process; wrong answers raise first.

    fastsgd has besides "expected": seconds that its plan expected of a network, and the "table" they rest on
    """
    case = CASES[name]
    plan = planned(case, len(os.sched_getaffinity(0)))
    truth, found = case.solved(case.starts[:CHECKED], "DOP853", 1e-11, 1e-13), sides(case, plan)
    out = {}
    for side, (function, N) in found.items():
        error = check(function()[:CHECKED], truth, case.starts[:CHECKED], TOLERANCE)
        out[side] = {"seconds": [], "error": error, "networks": N}
    seconds, words, _ = plan.cost(plan)
    out["fastsgd"] |= {"expected": sum(seconds.values()) / NETWORKS, "table": words}
    functions = {side: function for side, (function, _) in found.items()}
    calls = {side: calls_within(function, target) for side, function in functions.items()}
    for number in range(rounds):
        for side, best in round_of(functions, calls, number):
            out[side]["seconds"].append(best / out[side]["networks"])
    return out
