"""Owns how metrics are measured on cards: what that takes of their memory, and the launches, shared out over them.

Memory is settled when a run is planned. A share of the free memory is set aside for metrics. A metric that needs more
for one network is measured on the host. For the others the share decides how many networks are measured at once, and
by how many blocks.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..backends.cuda.backend import CUDA, Reserved
from ..backends.cuda.layout import RESIDENT, local_bytes
from ..backends.cuda.structs import MetricLaunch, ReadLaunch
from ..cuda import card as cards
from .host import Place, on_host
from .programs import reader
from .registry import kernels_of

SHARE = 0.25  # of a card's free memory, for measuring
BLOCKS = 32  # of a multiprocessor, at most
SCRATCHED = 3  # blocks of a multiprocessor that have a network a thread and global memory each: registers allow no more


@dataclass(frozen=True)
class Budget:
    """What measuring takes of a card's memory, in bytes.

    tasks {metric: Task}: what is measured there; refused {metric: why it is not}
    local: for the local memory of threads; points: for what networks share; at_once: for what is measured at once
    """

    tasks: dict
    refused: dict
    local: int
    points: int
    at_once: int

    @property
    def reserved(self):
        return Reserved(self.local, self.points + self.at_once)


def budget(work, N, card, host=None):
    """The Budget of N networks on a card. host: a Host; None to ask for sizes and words alone."""
    share, tasks, refused, local, points, wish = int(SHARE * card.free()), {}, {}, 0, 0, 0
    for metric in work.metrics:
        found = kernels_of(metric).on_card(metric, work, card, host)
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
    return Budget(tasks, refused, local, points, min(wish, share - local - points) if tasks else 0)


def _scratch(found):
    """Doubles of scratch a block."""
    return found.program.each * (1 if found.program.whole else found.program.threads)


def _bytes(found, blocks, M):
    return 8 * (blocks * _scratch(found) + M * (found.given.reads + found.width + 1))


def _blocks(found, M, card):
    """Blocks that M networks and the card have work and a place for."""
    program = found.program
    resident = SCRATCHED if program.each and not program.whole else min(RESIDENT // program.threads, BLOCKS)
    return min(M if program.whole else -(-M * program.lanes // program.threads), card.processors * resident)


def _explain(metric, here, host):
    """One line, None where there is nothing to say. here: a Budget; host: what the host would say."""
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


class Cards(Place):
    """Measures on the cards of a run, and on the host what cards cannot."""

    def __init__(self, work, N):
        super().__init__(work, N)
        self.here, self.host, self.begun = cards.cards(work.run.device), on_host(work, N), False

    @cached_property
    def budgets(self):
        """{card: Budget}; before a run has begun, of sizes and words alone."""
        share, host = -(-self.N // len(self.here)), self.host if self.begun else None
        return {one: budget(self.work, share, one, host) for one in self.here}

    @property
    def reserved(self):
        return {one: budget.reserved for one, budget in self.budgets.items()}

    def explain(self):
        hosts = {metric: self.host.explain_metric(metric) for metric in self.work.metrics}  # refuses what it must
        budget = self.budgets[self.here[0]]
        return tuple(filter(None, (_explain(metric, budget, host) for metric, host in hosts.items())))

    def begin(self, plan):
        self.host.begin(plan)
        self.begun = True
        self.__dict__.pop("budgets", None)
        return self

    def first(self, metric):
        return 1 << 16 if self.parts(metric) else super().first(metric)

    def parts(self, metric):
        return all(metric in budget.tasks for budget in self.budgets.values())

    def measure(self, metric, weights):
        """Records of networks `weights` [M, P]; equal parts of them on each card that can."""
        here = [one for one, budget in self.budgets.items() if metric in budget.tasks]
        if not here or not len(weights):
            return self.host.measure(metric, weights)
        weights = np.ascontiguousarray(weights, dtype=np.float64)
        given = np.ascontiguousarray(self.budgets[here[0]].tasks[metric].given.made(weights))
        part = -(-len(weights) // len(here))
        works = []
        for c, one in enumerate(here):
            mine = given[c * part:(c + 1) * part]
            works.append((one, len(mine), lambda first, last, one=one, mine=mine: one.put(mine[first:last])))
        return self._run(metric, works, lambda some: weights[some])

    def measure_state(self, state, metric, positions):
        shares = CUDA.shares(state, positions)  # None where one of them is on the host
        tasks = [self.budgets[one].tasks.get(metric) for one, _, _ in shares or ()]
        if not tasks or any(found is None or found.given.factors is None for found in tasks):
            return None
        works = []
        for (one, W, at), found in zip(shares, tasks, strict=True):
            where = one.put(at)
            works.append((one, len(at), lambda first, last, one=one, W=W, where=where, given=found.given: _read(
                one, reader(W.dtype.name, given.factors), W, where, first, last, given.reads,
                one.empty((last - first, given.reads), "float64"))))
        return self._run(metric, works, lambda some: CUDA.rows(state, positions[some]))

    def _run(self, metric, works, read):
        """Records from `works`: (card, networks, function that brings those from first to last there as an Array)."""
        width = self.budgets[works[0][0]].tasks[metric].width
        out, at, running = np.empty((sum(M for _, M, _ in works), width)), 0, []
        for one, M, bring in works:
            found, at_once = self.budgets[one].tasks[metric], self.budgets[one].at_once
            if (metric, one) not in self.cache:
                self.cache[metric, one] = one.put(found.points)
            running.append(_launches(found, one, self.cache[metric, one], bring, out[at:at + M], at_once))
            at += M
        while running:  # a launch on each card, then what each has answered
            running = [work for work in running if next(work, None) is not None]
        return found.finish(out, read)


def _read(card, program, W, positions, first, last, reads, out):
    """Launch a program of csrc/cuda/metrics/read.h on networks positions[first:last]; returns `out`."""
    count = last - first
    card.launch(program, count * reads, 0, ReadLaunch(
        W=W.pointer, positions=positions.pointer + positions.dtype.itemsize * first, N=count, reads=reads,
        out=out.pointer))
    return out


def _launches(found, card, points, bring, out, at_once):
    """Fill answers `out` [M, width]; yields after every launch, so that other cards can begin.

    bring: function of (first, last) that gives what the kernel reads of those networks as an Array on the card
    at_once: bytes of the card for a launch, at least as many as one network needs
    """
    program, networks = found.program, len(out)
    blocks = _blocks(found, networks, card)
    if program.each:
        blocks = max(1, min(blocks, at_once // 2 // (8 * _scratch(found))))
    most = max(1, (at_once // 8 - blocks * _scratch(found)) // (found.given.reads + found.width + 1))
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
