"""Owns a look ahead at gradient flow: how many steps of the pair its networks take, counted on a few of them."""

import time
from dataclasses import replace

import numpy as np

from . import backends
from .spec.planned import Segment
from .spec.record import like, record

BUDGET = 0.15  # seconds of looking, after which the rest is taken to go on as it went last
MEMBERS = 16  # networks that are looked at
STRETCH = 1 << 14  # steps of the run whose times are added up at once
CUT = 0.5  # steps of the pair that a look, or the end of a step of the run, costs: it cuts one short
SHARES = np.concatenate([0.5 ** np.arange(14, 4, -1), np.linspace(1 / 16, 1, 16)])  # of the whole time, at looks


@record(eq=True)
class Counted:
    """Steps of the pair, taken and refused, of a network over the whole run: the mean, and the most of those looked at.

    members: networks that were looked at; share: of their time
    """

    mean: float
    most: float
    members: int
    share: float

    @property
    def words(self) -> str:
        part = "" if self.share == 1 else f" over {100 * self.share:.2g} % of the time"
        return f"; for {self.mean:.4g} steps of the pair a network, counted on {self.members}{part}"


def counted(plan) -> Counted:
    """Count, on a copy of some networks of a plan of gradient flow that has its start."""
    places = np.unique(np.linspace(0, plan.N - 1, min(plan.N, MEMBERS)).astype(int))
    part = like(plan.part(places), tuning=replace(plan.tuning, threads=1))
    T = plan.run.steps
    whole = sum(plan.table(t, min(T, t + STRETCH)).sum(axis=1) for t in range(0, T, STRETCH))  # [Q], of the whole run
    backend, began, before, done = backends.by_name(plan.backend), time.perf_counter(), np.zeros(len(places)), 0.0
    state = backend.load(part, part.start, np.full(len(places), -1, np.int64), part.fresh_buffers())
    for k, share in enumerate(SHARES):
        backend.advance(state, Segment(k, k + 1, ((share - done) * whole[:, None]).astype(plan.run.dtype), None))
        counts, last, done = state.buffers[:, 1:3, 0].astype(float).sum(axis=1), share - done, share
        counts -= CUT * (k + 1)
        if time.perf_counter() - began > BUDGET and share < 1:
            return _of(counts + (counts - before) / last * (1 - share), T, share)
        before = counts
    return _of(counts, T, 1.0)


def _of(counts, T, share):
    counts = np.maximum(counts + CUT * T, T)
    return Counted(float(counts.mean()), float(counts.max()), len(counts), float(share))
