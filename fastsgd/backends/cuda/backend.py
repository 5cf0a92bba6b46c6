"""Owns the CUDA backend: the state of a run on one card or several, and the launches that move it."""

from dataclasses import dataclass, replace

import numpy as np

from ...cuda import card as cards
from ...cuda.program import orders as orders_program
from ...errors import PlanError
from ...lowering.contract import ALIVE, UNSETTLED
from ...native import default_threads
from ..base import Backend, order_bytes
from . import layout, samples
from .structs import Launch, OrderLaunch, number

USABLE = 0.8  # of a card's free memory; the rest is for tables of a launch (192 MiB at most) and the driver


@dataclass(frozen=True)
class Reserved:
    """Bytes of a card that measuring takes: local memory of threads, which training uses too, and the rest."""

    local: int
    total: int


NOTHING = Reserved(0, 0)


@dataclass(eq=False)
class Chunk:
    """Networks first .. last - 1 of the plan on one card: their arrays there, or None while they wait on the host.

    alive, unsettled: how many have these flags; noted: whether the flags on the host are those of the card
    """

    card: object
    first: int
    last: int
    alive: int
    unsettled: int = 0
    arrays: dict | None = None
    noted: bool = True

    @property
    def part(self):
        return slice(self.first, self.last)


@dataclass(eq=False)
class State:
    """weights [N, P], buffers [N, K, P] on the host, where `read` puts them; lost [N]; chunks, data on each card."""

    plan: object
    chosen: object
    weights: np.ndarray
    lost: np.ndarray
    buffers: np.ndarray
    chunks: list
    data: dict  # {card: {name: Array}}


class CUDA(Backend):
    """Whole trajectories in registers, one network a thread or a team of threads."""

    name = "cuda"

    def supports(self, work):
        return layout.why_not(work)

    def choose(self, work, N, tuning, reserved=None):
        self.refuse(tuning, ("lanes", "isa", "networks", "warps", "compiled"))
        here = cards.cards(work.run.device)
        chosen = layout.choose(work, N, here[0], tuning)
        share, reserved = -(-N // len(here)), reserved or {}
        measuring = reserved.get(here[0], NOTHING)
        chunks = _chunks(N, here, chosen, reserved)
        most = max(sum(chunk.card is one for chunk in chunks) for one in here)
        on = ", ".join(f"{one.name} ({one.arch})" for one in here)
        parts = {"data": chosen.data_bytes, f"networks in {most} chunk(s)": share * chosen.network_bytes,
                 "rows of blocks": chosen.scratch(share), "local memory": max(chosen.local, measuring.local),
                 "metrics": measuring.total}
        reasons = (f"on {on}: {chosen.why}",
                   f"program: {chosen.program.name}, {chosen.program.threads} threads a block",
                   "on a card: " + ", ".join(f"{what} {size / 2**20:.1f} MiB" for what, size in parts.items() if size))
        memory = {"state on the host": N * chosen.network_bytes}
        return replace(tuning, team=chosen.lanes, threads=tuning.threads or default_threads()), memory, reasons

    def load(self, plan, weights, lost, buffers, reserved=None):
        here = cards.cards(plan.run.device)
        chosen = layout.choose(plan.work, plan.N, here[0], plan.tuning)
        chunks = _chunks(plan.N, here, chosen, reserved or {})
        shared = samples.data(plan.work, chosen)
        data = {one: {name: one.put(a) for name, a in shared.items()} for one in here}
        for one in here:
            one.prepare(chosen.program, chosen.shared)
        weights, buffers = np.array(weights, order="C"), np.array(buffers, order="C")
        state = State(plan, chosen, weights, lost.copy(), buffers, chunks, data)
        self.set_lost(state, lost)
        return state

    def table_bytes(self, plan):
        return plan.step_bytes + order_bytes(plan)

    def advance(self, state, segment):
        moved = [chunk for chunk in state.chunks if chunk.alive]
        for chunk in moved:
            job, _kept = self.job(state, chunk, segment)
            chunk.card.launch(state.chosen.program, state.chosen.threads(job.count), state.chosen.shared, job)
            chunk.noted = False
            if sum(other.card is chunk.card for other in state.chunks) > 1:  # the card is needed for another
                self._counted(chunk)
                self._to_host(state, chunk)
                self._note_lost(state, chunk)
                chunk.arrays = None
        for chunk in moved:
            if chunk.arrays is not None:
                self._counted(chunk)

    @staticmethod
    def _counted(chunk):
        """Wait for a launch and take over how many networks are left, which the card counts."""
        before = chunk.alive
        chunk.alive, chunk.unsettled = chunk.card.tally(chunk.arrays["lost"], (ALIVE, UNSETTLED))
        if chunk.alive != before:
            chunk.arrays.pop("positions")

    @staticmethod
    def _away(state, chunk):
        """Bring a chunk's networks to their card."""
        plan, put, part = state.plan, chunk.card.put, chunk.part
        dtype = plan.run.dtype
        arrays = {"W": state.weights[part], "buffers": state.buffers[part], "lost": state.lost[part],
                  "ids": plan.keys[part], "base": plan.base[part].astype(dtype), "row": plan.row[part]}
        arrays |= {name: plan.numbers[name][part].astype(dtype) for name in plan.work.hyper}
        if plan.losses is not None:
            arrays["losses"] = plan.losses[part].astype(dtype)
        if plan.work.constants:
            arrays["constants"] = plan.work.constants_of(plan.numbers)[part]
        arrays |= {} if plan.first is None else {"first": plan.first[part]}
        for name, (base, row, _) in plan.noises.items():
            short = name.partition("_")[0]
            arrays |= {f"{short}_base": base[part].astype(dtype), f"{short}_row": row[part]}
        arrays |= {name: a[part] for name, a in plan.fresh_each.items()}
        if plan.each is not None:
            arrays["each"] = plan.each[part].astype(dtype)
        chunk.arrays = {name: put(a) for name, a in arrays.items()}

    @staticmethod
    def _to_host(state, chunk):
        """Copy a chunk's networks into the arrays on the host."""
        state.weights[chunk.part] = chunk.arrays["W"].get()
        if state.buffers.size:
            state.buffers[chunk.part] = chunk.arrays["buffers"].get()

    @staticmethod
    def _note_lost(state, chunk):
        if not chunk.noted:
            state.lost[chunk.part], chunk.noted = chunk.arrays["lost"].get(), True

    def job(self, state, chunk, segment):
        """(struct of a launch of a chunk's living networks over a segment, the arrays that it points to)."""
        work, one = state.plan.work, chunk.card
        if chunk.arrays is None:
            self._away(state, chunk)
        if "positions" not in chunk.arrays:
            chunk.arrays["positions"] = one.positions(chunk.arrays["lost"], ALIVE)
        made = {"multiplier": one.put(segment.multiplier)}
        made |= {f"{name.partition('_')[0]}_multiplier": one.put(a) for name, a in segment.noise.items()}
        made |= self._samples(state, chunk, segment)
        if segment.counts is not None:
            made["counts"] = one.put(segment.counts if len(segment.counts) == 1 else segment.counts[chunk.part])
        arrays = state.data[one] | chunk.arrays | made
        job = Launch(**{name: a.pointer for name, a in arrays.items() if a.dtype.itemsize * np.prod(a.shape)})
        if state.chosen.rows:
            arrays["scratch"] = one.empty((state.chosen.scratch(chunk.alive),), np.uint8)
            job.scratch = arrays["scratch"].pointer
        job.count, job.t0, job.t1, job.seed = chunk.alive, segment.t0, segment.t1, work.run.seed
        job.n, job.stride = arrays["X"].shape if "X" in arrays else (0, 0)
        if work.sets:
            job.n = work.n
        job.batch = work.batch
        job.index_rows, job.count_rows = (arrays[name].shape[0] if name in arrays else 0
                                          for name in ("indices", "counts"))
        job.common = work.common
        bound = min(work.bound, float(np.finfo(work.dtype).max))
        job.dloss, job.factor, job.bound = (number(value, work.dtype)
                                            for value in (2 * work.factor, work.factor, bound))
        return job, arrays

    @staticmethod
    def _samples(state, chunk, segment):
        """Arrays on the card that replace the data or order of a stretch: of a Stream, a Replay, permutations."""
        work, one = state.plan.work, chunk.card
        part = chunk.part
        if segment.samples is not None:  # a Stream: this stretch is a data set of its own, gone through in order
            X, y = (a[part] for a in segment.samples)
            rows = np.arange(X.shape[0] * X.shape[1] * X.shape[2], dtype=np.uint32).reshape(X.shape[:3])
            made = samples.rows(work, X.reshape(-1, work.d), y.reshape(rows.size, -1), state.chosen)
            return {name: one.put(a) for name, a in (made | {"indices": rows}).items()}
        if segment.indices is not None:
            rows = segment.indices if len(segment.indices) == 1 else segment.indices[part]
            return {"indices": one.put(rows)}
        if not work.permuted:
            return {}
        ids = chunk.arrays["ids"] if work.network is None else one.put(np.array([work.network], dtype=np.int64))
        batch, count = 1 if work.full else work.batch, ids.shape[0]
        out = one.empty((count, segment.t1 - segment.t0, batch), np.uint32)
        one.launch(orders_program(), count, 0, OrderLaunch(
            ids=ids.pointer, N=count, t0=segment.t0, t1=segment.t1, batch=batch, n=work.n,
            epoch=work.epoch, seed=work.run.seed, out=out.pointer))
        return {"indices": out}

    def lost(self, state):
        for chunk in state.chunks:
            self._note_lost(state, chunk)
        return state.lost

    def set_lost(self, state, lost):
        state.lost[:] = lost
        for chunk in state.chunks:
            flags, chunk.noted = state.lost[chunk.part], True
            chunk.alive, chunk.unsettled = np.count_nonzero(flags == ALIVE), np.count_nonzero(flags == UNSETTLED)
            if chunk.arrays is not None:
                chunk.arrays["lost"] = chunk.card.put(flags)
                chunk.arrays.pop("positions", None)

    def tally(self, state):
        return sum(chunk.alive for chunk in state.chunks), sum(chunk.unsettled for chunk in state.chunks)

    def read(self, state):
        for chunk in state.chunks:
            if chunk.arrays is not None:
                self._to_host(state, chunk)
        return state.weights, state.buffers

    @staticmethod
    def rows(state, positions):
        """Weights [m, P] of the networks at `positions`, ascending, all of them on cards."""
        P = state.weights.shape[1]
        return np.concatenate([one.rows(W, P, where) for one, W, where in CUDA.shares(state, positions)])

    @staticmethod
    def shares(state, positions):
        """(card, W there, positions in it) of networks at `positions`, ascending; None where one is on the host."""
        shares = []
        for chunk in state.chunks:
            first, last = np.searchsorted(positions, (chunk.first, chunk.last))
            if first < last and chunk.arrays is None:
                return None
            if first < last:
                shares.append((chunk.card, chunk.arrays["W"], positions[first:last] - chunk.first))
        return shares or None


def _chunks(N, here, chosen, reserved):
    """Chunks of N networks: ranges of equal length for the cards `here`, each in as few chunks as its memory allows.

    reserved {card: Reserved}: what metrics take. Programs run one after another, and the largest local memory counts.
    Raises PlanError for a card that has no room for one network.
    """
    share, chunks = -(-N // len(here)), []
    for c, one in enumerate(here):
        first, last = c * share, min(N, (c + 1) * share)
        taken = reserved.get(one, NOTHING)
        local, metrics = max(chosen.local, taken.local), taken.total
        fixed = chosen.data_bytes + chosen.scratch(share) + local + metrics
        most = (int(USABLE * one.free()) - fixed) // chosen.network_bytes
        if most < 1:
            raise PlanError(f"device: {one.name} has {one.free() / 2**30:.3g} GiB free, of which {USABLE:.0%} can be "
                            f"used; the data need {chosen.data_bytes / 2**30:.3g}, local memory {local / 2**30:.3g}, "
                            f"rows {chosen.scratch(share) / 2**30:.3g}, metrics {metrics / 2**30:.3g}, a network "
                            f"{chosen.network_bytes} bytes. Free memory of the card, give fewer data, or take "
                            "backend='cpu'")
        if first < last:
            size = -(-(last - first) // -(-(last - first) // most))
            chunks += [Chunk(one, at, min(last, at + size), 0) for at in range(first, last, size)]
    return chunks
