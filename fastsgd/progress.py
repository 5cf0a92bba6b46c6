"""Owns what changes during an execution: the Progress of a plan, and that of several groups one after the other."""

import numpy as np

from .spec.fields import portion, spread
from .spec.planned import Groups


def unset(N):
    """[N] of -1: lost at no step, stopped after none."""
    out = np.empty(N, np.int64)
    out.fill(-1)
    return out


class Progress:
    """Everything that changes during an execution, and all that a checkpoint needs besides the run.

    t: steps done; taken: saved steps done; seconds: spent so far, by what
    weights [N, P]; lost [N]; buffers [N, K, P]: what the rule carries from step to step
    stopped, stopped_by [N] int64: after how many steps, and by which of the run's stops; -1 if it has not
    records {metric: [N, S, ...]}; saved_weights [N, S, P] or None
    alive: networks that still move; gone: that are lost
    After a launch weights, buffers and `lost` are read from the backend when somebody asks, since they may be far away.
    """

    def __init__(self, t, taken, weights, lost, buffers, records, saved_weights, seconds, stopped=None,
                 stopped_by=None, alive=None):
        self.t, self.taken, self.seconds = t, taken, seconds
        self.halted = 0 if stopped is None else int(np.count_nonzero(stopped >= 0))
        if stopped is None:
            stopped, stopped_by = unset(len(lost)), unset(len(lost))
        self.stopped, self.stopped_by = stopped, stopped_by
        self.alive = int(np.count_nonzero(lost < 0)) - self.halted if alive is None else alive
        self.records, self.saved_weights = records, saved_weights
        self._state, self._read, self._lost, self._flags = (weights, buffers), None, lost, None

    @property
    def reached(self):
        """How far it is, as files say it."""
        return {"t": self.t, "taken": self.taken}

    @property
    def parts(self):
        """Itself alone: a Together has several."""
        return (self,)

    @property
    def gone(self):
        return len(self.stopped) - self.alive - self.halted

    @property
    def lost(self):
        if self._lost is None:
            self._lost = self._flags()
        return self._lost

    @property
    def weights(self):
        return self._now()[0]

    @property
    def buffers(self):
        return self._now()[1]

    def _now(self):
        if self._state is None:
            self._state = self._read()
        return self._state

    def moved(self, running):
        """The state has changed: take note of how many are left, and of how to read the rest."""
        self._state, self._read = None, running.read
        self._lost, self._flags = None, running.lost
        self.alive, self.halted = running.alive, running.halted

    def settle(self):
        """It moves no more: keep its state, and let go of where that was."""
        _ = self.lost, self.weights
        self._read = self._flags = None

    def copy(self):
        """A Progress that no launch changes."""
        return Progress(self.t, self.taken, self.weights.copy(), self.lost.copy(), self.buffers.copy(), self.records,
                        self.saved_weights, self.seconds, self.stopped.copy(), self.stopped_by.copy())


class Together:
    """The Progress of Groups, which are run one after the other; it has what a Progress has.

    parts: a Progress for each group; where: positions of its networks among those of the run; now: the one in hand
    """

    def __init__(self, parts, where, now=0):
        self.parts, self.where, self.now = list(parts), where, now

    @property
    def t(self):
        """Steps done: the mean over networks, rounded down."""
        each = [len(at) for at in self.where]
        return sum(part.t * N for part, N in zip(self.parts, each, strict=True)) // sum(each)

    @property
    def reached(self):
        return {name: [part.reached[name] for part in self.parts] for name in ("t", "taken")}

    @property
    def seconds(self):
        return {name: sum(part.seconds[name] for part in self.parts) for name in self.parts[0].seconds}

    @property
    def records(self):
        names = dict.fromkeys(name for part in self.parts for name in part.records)
        return {name: spread(self._records(name), self.where) for name in names}

    def _records(self, name):
        """The records of each group; NaN of a group that has none yet."""
        shape = next(part.records[name].shape[1:] for part in self.parts if name in part.records)
        return [part.records.get(name, np.full((len(at), *shape), np.nan))
                for part, at in zip(self.parts, self.where, strict=True)]

    def __getattr__(self, name):
        if name in ("weights", "lost", "buffers", "saved_weights", "stopped", "stopped_by"):
            return spread([getattr(part, name) for part in self.parts], self.where)
        if name in ("alive", "gone", "halted"):
            return sum(getattr(part, name) for part in self.parts)
        raise AttributeError(name)

    def begin(self, k):
        """Group k is in hand: its Progress from now on is no copy's. Returns it."""
        self.parts[k], self.now = self.parts[k].copy(), k
        return self.parts[k]

    def copy(self):
        """A Together that no launch changes."""
        parts = (part.copy() if k == self.now else part for k, part in enumerate(self.parts))
        return Together(parts, self.where, self.now)


def fresh(plan):
    """The progress of a plan, or of Groups, that has not begun."""
    if isinstance(plan, Groups):
        return Together(map(fresh, plan.plans), plan.where)
    kept = None
    if plan.run.save.params:
        kept = np.full((plan.N, len(plan.saves), plan.work.P), np.nan, plan.run.dtype)
    return Progress(0, 0, plan.start, unset(plan.N), plan.fresh_buffers(), {}, kept,
                    {"training": 0.0, "metrics": 0.0}, alive=plan.N)


def begun(where, t, taken, weights, lost, buffers, records, saved_weights, seconds, stopped=None, stopped_by=None):
    """The progress of what has arrays [N, ...]: a Progress, or a Together of groups at the positions `where`.

    t, taken: of groups lists, or the same for all; the seconds are those of the first group
    """
    if where is None:
        return Progress(t, taken, weights, lost, buffers, records, saved_weights, seconds, stopped, stopped_by)
    ts, takens = (value if isinstance(value, list) else [value] * len(where) for value in (t, taken))
    return Together([Progress(
        ts[k], takens[k], weights[at], lost[at], buffers[at], {name: a[at] for name, a in records.items()},
        portion(saved_weights, at), seconds if k == 0 else dict.fromkeys(seconds, 0.0), portion(stopped, at),
        portion(stopped_by, at))
        for k, at in enumerate(where)], where)
