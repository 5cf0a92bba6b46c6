"""Owns what shared memory takes for a load of the fused loop: its banks, whose rows the teams of a warp read at random.

Shared memory has 32 banks of 4 bytes, and a load of a warp is answered in so many cycles as the busiest bank has
different words to give. A load of 4 bytes a lane is answered at once for 32 lanes, of 8 for 16, of 16 for 8.
"""

import numpy as np

BANKS = 32


def cycles(first, words):
    """Cycles of a load of a warp, of whose lanes each reads `words` words from `first` [32] on."""
    phases = (first[:, None] + np.arange(words)).reshape(words, -1)
    return sum(int(np.bincount(np.unique(phase) % BANKS, minlength=BANKS).max()) for phase in phases)


def expected(n, lanes, stride, words, spread, copies=1, draws=1000):
    """Mean cycles of a load where each team of `lanes` reads its own of n rows, drawn at random.

    stride, words: words of a row, and of what a lane reads; spread: words between what a team's lanes read, 0 for one
    place; copies: of the rows, side by side by what a team reads; teams take turns with them
    """
    rng, lane = np.random.default_rng(0), np.arange(32)
    team, slot = lane // lanes, words if spread == 0 else spread * lanes
    rows = rng.integers(0, n, (draws, 32 // lanes))
    first = team % copies * slot + lane % lanes * spread
    return np.mean([cycles(row[team] * stride * copies + first, words) for row in rows])
