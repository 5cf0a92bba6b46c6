"""Owns where metrics are measured on the host: by the CPU's kernels, or by their definitions where there are none."""

from functools import cached_property

import numpy as np

from ..errors import BackendUnavailable, PlanError
from ..native import default_threads, native
from .registry import kernels_of


def float64_params(model, weights):
    """Parameters {name: [N, ...]} in float64: what metrics are computed from."""
    return model.unflatten(np.asarray(weights, dtype=np.float64))


class Place:
    """Where the metrics of N networks of a run are measured. This one has no kernels: definitions serve.

    reserved: what that takes of the backend's memory, for its `choose` and `load`
    cache: what outlives a call, such as points that all networks share
    """

    reserved = None

    def __init__(self, work, N):
        self.work, self.N, self.cache = work, N, {}

    def explain(self):
        """Sentences for the plan; PlanError for a method that the place lacks."""
        return tuple(filter(None, map(self.explain_metric, self.work.metrics)))

    def explain_metric(self, metric):
        """A sentence, or None where there is nothing to say."""
        if hasattr(metric, "by_definition") and metric.method not in metric.by_definition:
            raise PlanError(f"metrics: {metric.name} by method={metric.method!r} needs a kernel, which this backend "
                            f"lacks for {type(self.work.run.model).__name__}; legal here are 'auto' and 'svd'")
        return None

    def begin(self, plan):
        """Take note of a plan's choices, before anything is measured."""
        return self

    def first(self, metric):
        """Networks of the first call of a metric, before it is known how long one takes."""
        return 64

    def parts(self, metric):
        """Whether `measure_state` takes any number of networks, in parts that memory holds."""
        return False

    def measure(self, metric, weights):
        """Records [M, ...] float64 of networks with weights [M, P], None without a kernel."""
        return None

    def measure_state(self, state, metric, positions):
        """The same of the networks at `positions` [M], ascending, of a backend's state, where they lie; None where
        their weights have to be read first.
        """
        return None

    def records(self, metric, weights):
        """As `measure`; by the metric's own definition where there is no kernel."""
        run, values = self.work.asked, self.measure(metric, weights)
        if values is None:
            values = metric.compute(run.model, float64_params(run.model, weights), run.data, run.loss)
        return values

    def cached(self, metric, make):
        """make(), the first time that a metric asks for it."""
        if metric not in self.cache:
            self.cache[metric] = make()
        return self.cache[metric]


class Host(Place):
    """The CPU's compiled module."""

    def __init__(self, work, N):
        super().__init__(work, N)
        self.module = native()

    @cached_property
    def threads(self):
        """How many a call may use: a plan's, which `begin` notes, or all."""
        return default_threads()

    def begin(self, plan):
        self.threads = plan.tuning.threads
        if plan.tuning.isa is not None:
            self.module = native(plan.tuning.isa)
        return self

    def explain_metric(self, metric):
        return kernels_of(metric).explain(metric, self.work, self.module) or super().explain_metric(metric)

    def measure(self, metric, weights):
        return kernels_of(metric).on_host(metric, self, weights)


def on_host(work, N):
    """The best Place of the host: without kernels where the CPU's module is not built."""
    try:
        return Host(work, N)
    except BackendUnavailable:
        return Place(work, N)
