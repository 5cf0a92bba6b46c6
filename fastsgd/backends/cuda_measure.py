"""Owns how metrics are measured on cards: what that takes of their memory, and the launches, shared out over them.

Memory is settled when a run is planned. A metric whose least need exceeds the share that is set aside is measured on
the host; the rest are measured for so many networks at once, by so many blocks, as the share has room for.
"""

from dataclasses import dataclass

import numpy as np

from ..cuda.launch import HeldLaunch, MetricLaunch
from ..cuda.metric_programs import held
from .cpu import Host, kernels_of_host
from .cuda_metrics import task
from .cuda_programs import RESIDENT, local_bytes

SHARE = 0.25  # of a card's free memory, for measuring
BLOCKS = 32  # of a multiprocessor, at most
SCRATCHED = 3  # blocks of a multiprocessor that have a network a thread and global memory each: registers allow no more


@dataclass(frozen=True)
class Room:
    """What measuring takes of a card's memory, in bytes.

    tasks {metric: Task}: what is measured there; refused {metric: why it is not}
    local: for the local memory of threads; points: for what networks share; once: for what is measured at once
    """

    tasks: dict
    refused: dict
    local: int
    points: int
    once: int

    @property
    def total(self):
        """Bytes besides local memory, which training uses too."""
        return self.points + self.once


def room(run, N, card, host=None):
    """The Room of N networks on a card. host: a Host; None to ask for sizes and words alone."""
    share, tasks, refused, local, points, wish = int(SHARE * card.free()), {}, {}, 0, 0, 0
    for metric in run.metrics:
        found = task(run, metric, card, host)
        if found is None:
            continue
        own, size = local_bytes(found.program.local, card), points + found.points.nbytes
        least = max(local, own) + size + _bytes(found, 1, 1)
        if least > share:
            refused[metric] = (f"it needs {least / 2**20:.4g} MiB of {card.name}, of whose free memory "
                               f"{share / 2**20:.4g} are for metrics")
            continue
        tasks[metric], local, points = found, max(local, own), size
        wish = max(wish, _bytes(found, _blocks(found, N, card), N))
    return Room(tasks, refused, local, points, min(wish, share - local - points) if tasks else 0)


def _scratch(found):
    """Doubles of scratch a block."""
    return found.program.each * (1 if found.program.whole else found.program.threads)


def _bytes(found, blocks, M):
    return 8 * (blocks * _scratch(found) + M * (found.given.reads + found.width + 1))


def _blocks(found, M, card):
    """Blocks that M networks and the card have work and a place for."""
    program = found.program
    places = SCRATCHED if program.each and not program.whole else min(RESIDENT // program.threads, BLOCKS)
    return min(M if program.whole else -(-M * program.lanes // program.threads), card.processors * places)


def explain(run, here):
    """Lines of a plan, for a card with the Room `here`."""
    host = kernels_of_host()
    hosts = {metric: host.explain_metric(run, metric) for metric in run.metrics}  # refuses what is not possible
    return tuple(filter(None, (_explain(metric, here, host) for metric, host in hosts.items())))


def _explain(metric, here, host):
    """One line, None where there is nothing to say. here: a Room; host: what the CPU backend would say."""
    if metric in here.refused:
        return f"{metric.name}, on the host: {here.refused[metric]}" + (f"; {host}" if host else "")
    if metric not in here.tasks:
        return host and f"{host}, on the host"
    found = here.tasks[metric]
    program = found.program
    where = [f"{program.threads if program.whole else program.lanes} thread(s) a network"]
    if program.shared:
        where.append(f"{program.shared / 1024:.1f} KiB of shared memory a block")
    if program.each:
        where.append(f"{8 * program.each / 2**20:.2f} MiB of scratch a {'block' if program.whole else 'thread'}")
    if program.local:
        where.append(f"{program.local / 1024:.1f} KiB of local memory a thread")
    return f"{metric.name} on the card: {found.how}; {', '.join(where)}"


class Measured:
    """What measuring a plan's networks on the cards `here` needs: the Host, tasks, points on cards."""

    def __init__(self, plan, here):
        self.host, share = Host(plan), -(-plan.N // len(here))
        self.rooms = {one: room(plan.run, share, one, self.host) for one in here}
        self.points = {}  # {(metric, card): Array}

    def on_cards(self, metric):
        """Whether every card measures a metric."""
        return all(metric in room.tasks for room in self.rooms.values())

    def measure(self, metric, weights):
        """Records of networks `weights` [M, P]; equal parts of them on each card that can."""
        here = [one for one, room in self.rooms.items() if metric in room.tasks]
        if not here or not len(weights):
            return self.host.measure(metric, weights)
        weights = np.ascontiguousarray(weights, dtype=np.float64)
        given = np.ascontiguousarray(self.rooms[here[0]].tasks[metric].given.made(weights))
        part = -(-len(weights) // len(here))
        works = []
        for c, one in enumerate(here):
            mine = given[c * part:(c + 1) * part]
            works.append((one, len(mine), lambda first, last, one=one, mine=mine: one.put(mine[first:last])))
        return self._run(metric, works, lambda some: weights[some])

    def measure_held(self, metric, shares, read):
        """The same of networks that lie on cards; None where a card does not measure it, or not from what lies there.

        shares: (card, W [..., P] there, positions [m] in it) of networks one after another
        read: function of positions among those that gives weights [m, P]
        """
        tasks = [self.rooms[one].tasks.get(metric) for one, _, _ in shares]
        if not tasks or any(found is None or found.given.factors is None for found in tasks):
            return None
        works = []
        for (one, W, who), found in zip(shares, tasks, strict=True):
            where = one.put(who)
            works.append((one, len(who), lambda first, last, one=one, W=W, where=where, given=found.given: _held(
                one, held(W.dtype.name, given.factors), W, where, first, last, given.reads,
                one.empty((last - first, given.reads), "float64"))))
        return self._run(metric, works, read)

    def _run(self, metric, works, read):
        """Records from `works`: (card, networks, function that brings those from first to last there as an Array)."""
        width = self.rooms[works[0][0]].tasks[metric].width
        out, at, running = np.empty((sum(M for _, M, _ in works), width)), 0, []
        for one, M, bring in works:
            found, once = self.rooms[one].tasks[metric], self.rooms[one].once
            if (metric, one) not in self.points:
                self.points[metric, one] = one.put(found.points)
            running.append(_launches(found, one, self.points[metric, one], bring, out[at:at + M], once))
            at += M
        while running:  # a launch on each card, then what each has answered
            running = [work for work in running if next(work, None) is not None]
        return found.finish(out, read)


def _held(card, program, W, who, first, last, reads, out):
    """Launch a program of csrc/cuda/metrics/held.h on networks who[first:last]; returns `out`."""
    count = last - first
    card.launch(program, count * reads, 0, HeldLaunch(
        W=W.pointer, who=who.pointer + who.dtype.itemsize * first, N=count, reads=reads, out=out.pointer))
    return out


def _launches(found, card, points, bring, out, once):
    """Fill answers `out` [M, width]; yields after every launch, so that other cards can begin.

    bring: function of (first, last) that gives what the kernel reads of those networks as an Array on the card
    once: bytes of the card for a launch, at least as many as one network needs
    """
    program, networks = found.program, len(out)
    blocks = _blocks(found, networks, card)
    if program.each:
        blocks = max(1, min(blocks, once // 2 // (8 * _scratch(found))))
    most = max(1, (once // 8 - blocks * _scratch(found)) // (found.given.reads + found.width + 1))
    for first in range(0, networks, most):
        M = min(most, networks - first)
        part = bring(first, first + M)
        threads = min(M, blocks) * program.threads if program.whole else min(M, blocks * program.threads)
        if not program.whole and not program.each:
            threads = M * program.lanes
        scratch = card.empty((max(1, min(blocks, M) * _scratch(found)),), "float64")
        answers = card.empty((M, found.width), "float64")
        card.launch(program, threads, program.shared, MetricLaunch(
            W=part.pointer, N=M, out=answers.pointer, X=points.pointer, n=found.n, stride=found.stride,
            scratch=scratch.pointer, each=program.each, number=found.number))
        yield first
        card.finish()
        out[first:first + M] = answers.get()
