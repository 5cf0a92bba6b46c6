"""Owns what a backend must say: supports, choose, load, advance, lost, read."""

import numpy as np

from ..errors import PlanError
from ..lowering.contract import ALIVE, UNSETTLED


class Backend:
    """One way to run a plan. A backend trusts the plan's sizes and never changes a dtype. It knows of a run what its
    Work says, and nothing of metrics: fastsgd/measure does.

    supports(work): None, or a sentence saying why it cannot do this run, on a machine that has what it needs
    choose(work, N, tuning, reserved): (Tuning with every choice made, {what: bytes}, reasons); PlanError for a choice
        that it lacks. reserved: what measuring takes of its memory, as its measure.Place says
    quicken(work, N, tuning, seconds): (Tuning, reasons) of a run that may have a time loop of its own, compiled before
        it begins; seconds: function () -> expected seconds of training, None where they are unknown
    load(plan, weights, lost, buffers, reserved): a state holding weights [N, P], lost [N] and the rule's buffers
        [N, K, P]
    table_bytes(plan): bytes of the tables that `advance` needs for one step; the kernels draw what is in no
        table
    advance(state, segment): move the networks that are not lost over a Segment; one that gets a weight or a buffer
        that is not finite stays as it was at the segment's start, and is UNSETTLED (see fastsgd/settle.py).
        KeyboardInterrupt may come in the middle: then the state is worth nothing
    lost(state): [N] int64, first bad step, ALIVE if none, or UNSETTLED; not to be written to
    set_lost(state, lost): from now on these are the flags; only the networks that are ALIVE are moved
    tally(state): (networks ALIVE, networks UNSETTLED), which is asked for after every launch
    read(state): (weights [N, P], buffers [N, K, P]) as NumPy arrays, not to be written to
    """

    name = None
    slow = False  # whether it has no kernels
    worth_a_launch = 1  # samples that a network should see in a launch, however long it takes

    def supports(self, work):
        raise NotImplementedError

    def choose(self, work, N, tuning, reserved=None):
        raise NotImplementedError

    def refuse(self, tuning, names, hint=""):
        """Raise PlanError for a choice that this backend does not have."""
        for name in names:
            given = getattr(tuning, name)
            if given not in (None, False):
                raise PlanError(f"tuning.{name}: {given!r} given, the backend {self.name!r} has no such choice{hint}")

    def quicken(self, work, N, tuning, seconds):
        return tuning, ()

    def load(self, plan, weights, lost, buffers, reserved=None):
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
        alive = int(np.count_nonzero(lost == ALIVE))
        return alive, 0 if alive == len(lost) else int(np.count_nonzero(lost == UNSETTLED))

    def read(self, state):
        raise NotImplementedError


def order_bytes(plan):
    """Bytes of one step in the tables that an order takes: permutations, or a Stream in the kernels' layout."""
    work = plan.work
    if work.streamed:
        stride = -(-(work.d + 1) // 16) * 16
        return plan.N * plan.batch * (work.item * (stride + work.outputs) + 4)
    if not work.permuted:
        return 0
    return 4 * (1 if work.full else plan.batch) * (plan.N if work.network is None else 1)
