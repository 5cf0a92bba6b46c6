"""Owns the networks that still run: the backend's state of them, what is measured there, who stops, the room it leaves.

A network that stops is frozen as a lost one is: backends do not move what has a step for its flag. Once half of the
networks that a backend holds are frozen, those that move are packed anew, so that a launch costs what they take.
"""

import time
from functools import cached_property

import numpy as np

from . import backends, measure
from .errors import SpecError
from .lowering.contract import ALIVE
from .plan import PART
from .settle import settle

PLACES = 256  # of kinds of networks that are kept
LAUNCH_SECONDS = 0.25  # of a launch: bars move and checkpoints are written between launches, which cost nothing then


class Taken:
    """The networks that a step is measured on.

    positions [M]: of them among all; weights [M, P], read when somebody asks; held: whether they are the state's own
    """

    def __init__(self, positions, read, held):
        self.positions, self.held, self._read = positions, held, read

    @cached_property
    def weights(self):
        return self._read()


class Running:
    """The networks of a plan, and those of them that a backend holds.

    alive, halted: how many move, how many have stopped
    """

    def __init__(self, plan, done, place):
        self.plan, self.place = plan, place
        self.backend = backends.by_name(plan.backend)
        self.stopped, self.by, self.halted = done.stopped, done.stopped_by, done.halted
        self.networks = {}  # {metric: networks a call}
        self.places = {}  # {(data set, loss) of a network: where those that have them are measured}
        self.positions = self.rest = None  # [M] of what the backend holds, and (weights, buffers, lost) of all
        lost = np.where(self.stopped >= 0, self.stopped, done.lost) if self.halted else done.lost
        self._load(plan, done.weights, lost, done.buffers)
        self.alive = done.alive

    def _load(self, held, weights, lost, buffers):
        self.held = held
        self.state = self.backend.load(held, weights, lost, buffers, self.place and self.place.reserved)

    def advance(self, t0, t1):
        """Move over steps t0 .. t1 - 1; returns the seconds of the launch."""
        segment = self.held.segment(t0, t1)
        began = time.perf_counter()
        self.backend.advance(self.state, segment)
        spent = time.perf_counter() - began
        self.alive = settle(self.backend, self.state, segment)
        return spent

    # ---- the state of all networks

    def read(self):
        """(weights [N, P], buffers [N, K, P]), not to be written to."""
        if self.positions is None:
            return self.backend.read(self.state)
        for whole, part in zip(self.rest, self.backend.read(self.state), strict=False):
            whole[self.positions] = part
        return self.rest[:2]

    def lost(self):
        """[N] first bad step of each network, -1 if none."""
        flags = self.backend.lost(self.state)
        if self.positions is not None:
            self.rest[2][self.positions] = flags
            flags = self.rest[2]
        return np.where(self.stopped >= 0, ALIVE, flags) if self.halted else flags

    # ---- stopping

    def next_look(self, t):
        """The first step after t at which a look is due."""
        return min([t // stop.every * stop.every + stop.every for stop in self.plan.run.stop], default=np.inf)

    def look(self, done):
        """Stop the networks that have reached a level, if a look is due after `done.t` steps; whether it was."""
        stops = self.plan.work.stops
        due = [k for k, (stop, _) in enumerate(stops) if stop.due(done.t, self.plan.run.steps)]
        if not due or not self.alive:
            return False
        flags = self.backend.lost(self.state).copy()
        at = np.flatnonzero(flags == ALIVE)
        positions = at if self.positions is None else self.positions[at]
        everybody = len(positions) == self.plan.N
        taken = Taken(positions, lambda: done.weights if everybody else done.weights[positions], True)
        values, by = {}, np.full(len(positions), -1)
        for k in due:
            stop, metric = stops[k]
            if metric not in values:
                values[metric] = self._numbers(metric, taken)
            by[(by < 0) & stop.reached(values[metric], self.plan.levels[k][positions])] = k
        hit = by >= 0
        if hit.any():
            self.stopped[positions[hit]], self.by[positions[hit]] = done.t, by[hit]
            flags[at[hit]] = done.t
            self.backend.set_lost(self.state, flags)
            self.halted += int(hit.sum())
            self.alive -= int(hit.sum())
            if 0 < 2 * self.alive <= len(flags):
                self._pack(at[~hit])
        return True

    def _pack(self, at):
        """Let the backend hold those at positions `at` of what it holds, and no others."""
        weights, buffers = self.backend.read(self.state)
        flags = self.backend.lost(self.state)
        if self.rest is None:
            self.rest = np.array(weights), np.array(buffers), np.array(flags)
            self.positions = np.arange(self.plan.N)
        for whole, part in zip(self.rest, (weights, buffers, flags), strict=True):
            whole[self.positions] = part
        self.positions, self.state = self.positions[at], None
        self._load(self.held.part(at), weights[at], flags[at], buffers[at])

    # ---- measuring

    def _numbers(self, metric, taken):
        """A metric of the networks taken, [M]."""
        out = np.empty(len(taken.positions))
        for positions, values in self.measured(metric, taken):
            if values.size != len(positions):
                raise SpecError(f"stop: {metric.name!r} has values of shape {values.shape[1:]}, expected a metric of "
                                "one number")
            out[np.searchsorted(taken.positions, positions)] = values.reshape(-1)
        return out

    def measured(self, metric, taken):
        """Yield (positions, values) of a metric; where networks have data sets or losses of their own, kind by kind."""
        if self.kinds is None:
            yield from self._measured(metric, taken, self.place)
            return
        kinds = self.kinds[taken.positions]
        order = np.argsort(kinds, kind="stable")
        for at in np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1) if len(order) else ():
            one = Taken(taken.positions[at], lambda at=at: taken.weights[at], taken.held)
            yield from self._measured(metric, one, self._place(int(kinds[at[0]]), int(one.positions[0])))

    @cached_property
    def kinds(self):
        """[N] which networks have the same data set and the same loss; None where all do."""
        plan, columns = self.plan, []
        if plan.sets is not None:
            columns.append(plan.sets)
        if plan.run.loss.lengths():
            columns.append(plan.losses[:, 1:])
        if not columns:
            return None
        return np.unique(np.column_stack(columns), axis=0, return_inverse=True)[1].reshape(-1)

    def _place(self, kind, k):
        """The place where metrics of networks of a kind are measured; the network at position k is one."""
        if kind not in self.places:
            run = self.plan.run
            data = run.data if self.plan.sets is None else run.data.of(int(self.plan.sets[k]))
            work = self.plan.work.of(data, run.loss.picked(int(self.plan.ids[k])))
            if len(self.places) >= PLACES:  # points and tables that they keep
                self.places.clear()
            self.places[kind] = measure.place(self.plan.backend, work, self.plan.N).begin(self.plan)
        return self.places[kind]

    def _measured(self, metric, taken, place):
        """The same in one place, so few networks at a time that Ctrl-C is answered within a second.

        They are so few, too, that PART holds what the definition of a metric makes, where the place sees to no memory.
        """
        at, run, lie = 0, place.work.run, taken.held
        points = max(run.data.n, 0 if run.data.X_test is None else len(run.data.X_test))
        most = max(4 * (self.plan.tuning.threads or 1),
                   PART // (24 * run.model.P + 48 * points * run.model.outputs))
        while at < len(taken.positions):
            size = self.networks.get(metric.name) or place.first(metric)
            if not (lie and place.parts(metric)):
                size = min(size, most)
            positions = taken.positions[at:at + size]
            began = time.perf_counter()
            with np.errstate(over="ignore"):  # a network about to be lost may overflow: inf is its value
                if lie:
                    values = self._where_they_lie(metric, positions, place)
                    if values is None:
                        lie = False
                        continue
                else:
                    values = self._read_and_measured(metric, positions, place, taken.weights[at:at + size])
            yield positions, values
            at += len(positions)
            spent = max(time.perf_counter() - began, 1e-6)
            self.networks[metric.name] = int(min(4 * size, max(16, len(positions) * LAUNCH_SECONDS / spent)))

    def _where_they_lie(self, metric, positions, place):
        """Values of a metric for networks at `positions` [M]; None if the backend does not measure all of them."""
        if self.positions is not None:
            places = np.minimum(np.searchsorted(self.positions, positions), len(self.positions) - 1)
            if not np.array_equal(self.positions[places], positions):
                return None
            positions = places
        return place.measure_state(self.state, metric, positions)

    def _read_and_measured(self, metric, positions, place, weights):
        """Values of a metric for networks at `positions` [M] of weights [M, P], by a kernel or its own definition."""
        run, more = place.work.asked, {}
        values = place.measure(metric, weights)
        if values is not None:
            return values
        if metric.needs_start:
            more["start"] = measure.float64_params(run.model, self.plan.start[positions])
        if metric.needs_carried:
            names, buffers = run.rule.buffers(), self.read()[1]
            more["carried"] = {name: np.asarray(buffers[positions, names.index(name)], np.float64)
                               for name in metric.needs_carried}
        return metric.compute(run.model, measure.float64_params(run.model, weights), run.data, run.loss, **more)
