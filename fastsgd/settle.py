"""Owns the step at which a network was lost, where a launch only says that one of its numbers is not finite any more.

Kernels do not look at every weight and buffer at every step. A number that is not finite never is again, so they look
when they write a network back, and leave one that has such a number as it was at the start of the launch, UNSETTLED.
Here the launch is repeated by halves for those networks alone: a network that comes through the first half goes on from
there, one that does not begins again with half of that half. In all that is one more launch of them, at most.
"""

import numpy as np

from .lowering.contract import ALIVE, UNSETTLED

PAUSED = 0  # no backend moves a network whose flag is a step


def settle(backend, state, segment):
    """Find the steps at which the UNSETTLED networks of a state that was moved over a Segment were lost.

    They are left as they were before the step whose update made one of their numbers infinite or NaN. Returns how many
    networks are ALIVE, which settling does not change.
    """
    alive, unsettled = backend.tally(state)
    if unsettled:
        lost = backend.lost(state).copy()
        positions = np.flatnonzero(lost == UNSETTLED)
        lost[positions] = _halved(backend, state, segment, positions)
        backend.set_lost(state, lost)
    return alive


def _halved(backend, state, segment, positions):
    """Steps [M] at which networks at `positions` [M] are lost, all in this segment; they are at its start now."""
    t0, t1 = segment.t0, segment.t1
    steps = np.full(len(positions), t0)
    if t1 - t0 == 1:
        return steps
    middle = (t0 + t1) // 2
    flags = np.full(len(backend.lost(state)), PAUSED)
    flags[positions] = ALIVE
    backend.set_lost(state, flags)
    backend.advance(state, segment.part(t0, middle))
    later = backend.lost(state)[positions] == ALIVE
    for half, part in ((~later, segment.part(t0, middle)), (later, segment.part(middle, t1))):
        if half.any():
            steps[half] = _halved(backend, state, part, positions[half])
    return steps
