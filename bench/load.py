"""Owns what else the machine does while something is measured: its load, and what other processes take of it."""

import os
import resource
import time

BUSY = 0.1  # share of the processors from which others make numbers doubtful


def _spent():
    """(time, busy seconds of all processors, those of this process and its ended children); None elsewhere."""
    try:
        with open("/proc/stat") as lines:
            user, nice, system, _, _, irq, soft, steal = map(int, next(lines).split()[1:9])
    except (OSError, ValueError, StopIteration):
        return None
    own = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    busy = (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
    return time.monotonic(), busy, own


class Others:
    """What others take of the processors from now on; children that are to be counted as ours have to end before."""

    def __init__(self):
        self.began = _spent()

    def share(self):
        """Part of all processors that other processes took since; None where the system does not tell."""
        now = _spent()
        if self.began is None or now is None or now[0] <= self.began[0]:
            return None
        seconds, busy, own = (a - b for a, b in zip(now, self.began, strict=True))
        return min(1.0, max(0.0, (busy - own) / (seconds * os.cpu_count())))


def sentence(share, when):
    """What to say of the machine; a busy one is called so."""
    if share is None:
        return f"{when}: this system does not say what other processes take"
    load, count = os.getloadavg()[0], os.cpu_count()
    said = f"{when}: other processes took {100 * share:.0f} % of {count} processor(s), load {load:.1f}"
    return f"{said}. The machine is BUSY: take no number for what it can do" if share > BUSY else said


def before(seconds=1.0):
    """The sentence on the machine while this process waits."""
    others = Others()
    time.sleep(seconds)
    return sentence(others.share(), "before")
