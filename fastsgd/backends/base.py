"""Owns what a backend must say: supports, load, advance, read; measure if it can."""

import numpy as np

from ..errors import PlanError
from ..metrics.jacobian_rank import JacobianMetric

ALIVE, UNSETTLED = -1, -2  # as csrc/core/job.h and kernels/train.py have them


class Backend:
    """One way to run a plan. A backend trusts the plan's sizes and never changes a dtype.

    supports(run): None, or a sentence saying why it cannot do this run
    choose(run, N, tuning): (Tuning with every choice made, {what: bytes}, reasons, and how each metric is computed);
        PlanError for a choice or a method of a metric that it lacks
    load(plan, weights, lost, buffers): a state holding weights [N, P], lost [N] and the rule's buffers [N, K, P]
    table_bytes(plan): what `advance` has to be given, or makes, of tables for one step before it begins; the kernels
        draw what is not there
    advance(state, segment): move the networks that are not lost over a Segment; one that gets a weight or a buffer
        that is not finite stays as it was at the segment's start, and is UNSETTLED (see fastsgd/settle.py).
        KeyboardInterrupt may come in the middle: then the state is worth nothing
    lost(state): [N] int64, first bad step, ALIVE if none, or UNSETTLED; not to be written to
    set_lost(state, lost): from now on these are the flags; only the networks that are ALIVE are moved
    tally(state): (networks ALIVE, networks UNSETTLED), which is asked for after every launch
    read(state): (weights [N, P], buffers [N, K, P]) as NumPy arrays, not to be written to
    measure(state, metric, weights): records [M, ...] float64 of M networks with weights [M, P], None without a kernel
    first_measured(state, metric): networks of the first call of a metric, before it is known how long one takes
    measure_held(state, metric, who): the same of the state's networks at positions `who` [M], ascending, measured where
        they lie; None where they had better be read
    """

    name = None
    kind = "cpu"  # of the devices it runs on, as Run.device names them
    slow = False  # whether it has no kernels
    worth_a_launch = 1  # samples that a network should see in a launch, however long it takes

    def supports(self, run):
        raise NotImplementedError

    def choose(self, run, N, tuning):
        raise NotImplementedError

    def refuse(self, tuning, names, hint=""):
        """Raise PlanError for a choice that this backend has not."""
        for name in names:
            given = getattr(tuning, name)
            if given is not None:
                raise PlanError(f"tuning.{name}: {given!r} given, the backend {self.name!r} has no such choice{hint}")

    def load(self, plan, weights, lost, buffers):
        raise NotImplementedError

    def table_bytes(self, plan):
        return plan.step_bytes

    def advance(self, state, segment):
        raise NotImplementedError

    def lost(self, state):
        raise NotImplementedError

    def set_lost(self, state, lost):
        state.lost[:] = lost

    def tally(self, state):
        lost = self.lost(state)
        return int(np.count_nonzero(lost == ALIVE)), int(np.count_nonzero(lost == UNSETTLED))

    def read(self, state):
        raise NotImplementedError

    def explain_metrics(self, run):
        """Sentences; PlanError for a method that it lacks."""
        return tuple(filter(None, (self.explain_metric(run, metric) for metric in run.metrics)))

    def explain_metric(self, run, metric):
        """A sentence, or None where there is nothing to say."""
        if isinstance(metric, JacobianMetric) and metric.method not in ("auto", "svd"):
            raise PlanError(f"metrics: {metric.name} by method={metric.method!r} needs a kernel that the backend "
                            f"{self.name!r} has not for {type(run.model).__name__}; legal here are 'auto' and 'svd'")
        return None

    def measure(self, state, metric, weights):
        return None

    def first_measured(self, state, metric):
        return 64

    def measure_held(self, state, metric, who):
        return None


def float64_params(model, weights):
    """Parameters {name: [N, ...]} in float64: what metrics are computed from."""
    return model.unflatten(np.asarray(weights, dtype=np.float64))
