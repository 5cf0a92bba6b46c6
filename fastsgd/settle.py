"""Owns the step at which a network was lost, where a launch only says that one of its numbers is not finite any more.

Kernels do not look at every weight and buffer at every step. A number that is not finite never is again, so they look
when they write a network back, and leave one that has such a number as it was at the start of the launch, UNSETTLED.
Here the launch is repeated by halves for those networks alone: a network that comes through the first half goes on from
there, one that does not begins again with half of that half. In all that is one more launch of them, at most.
"""

import numpy as np

from .backends.base import UNSETTLED

ALIVE, ELSEWHERE = -1, 0  # no backend moves a network whose `lost` is not negative


def settle(backend, state, segment):
    """Find the steps at which the UNSETTLED networks of a state that was moved over a Segment were lost.

    They are left as they were before the step whose update made one of their numbers infinite or NaN.
    """
    lost = backend.lost(state)
    who = np.flatnonzero(lost == UNSETTLED)
    if len(who):
        others = lost.copy()
        lost[:] = ELSEWHERE
        others[who] = _halved(backend, state, segment, who)
        lost[:] = others


def _halved(backend, state, segment, who):
    """Steps [M] at which networks `who` [M] are lost, all of them in this segment; they are at its start now."""
    t0, t1 = segment.t0, segment.t1
    steps = np.full(len(who), t0)
    if t1 - t0 == 1:
        return steps
    middle, lost = (t0 + t1) // 2, backend.lost(state)
    lost[who] = ALIVE
    backend.advance(state, segment.part(t0, middle))
    later = lost[who] == ALIVE
    lost[who] = ELSEWHERE
    for half, part in ((~later, segment.part(t0, middle)), (later, segment.part(middle, t1))):
        if half.any():
            steps[half] = _halved(backend, state, part, who[half])
    return steps
