"""Owns how a sweep's networks are numbered: blocks of cells that ranges cut, and what is added when a sweep grows."""

from dataclasses import dataclass
from math import prod

import numpy as np

from ..errors import SpecError
from ..spec.record import Record

SECONDS = 2.0  # of work that a range should be
FEWEST, MOST = 64, 10_000  # networks of a range
BYTES = 64 << 20  # of records that a range may have
CHUNK = 1 << 20  # bytes of an inner chunk


@dataclass(frozen=True, eq=False)
class Block(Record):
    """A box of cells and replicas, numbered row by row, replicas last.

    low, high: per axis of the group, its replicas last, which of its values; first: number of its first range
    """

    low: tuple
    high: tuple
    first: int

    @property
    def shape(self):
        return tuple(h - l for l, h in zip(self.low, self.high, strict=True))  # noqa: E741

    @property
    def cells(self):
        return prod(self.shape[:-1])


@dataclass(frozen=True, eq=False)
class Range(Record):
    """Networks that are computed, written and resumed together: whole cells, or a part of one.

    name: of its files; group: name of its group; number: which row of shards
    cells [C, axes]: index of each cell's value on each axis of the group; replicas (low, high)
    first: number of its first cell in the block; block: which
    """

    name: str
    group: str
    number: int
    cells: np.ndarray
    replicas: tuple
    block: int
    first: int

    @property
    def networks(self):
        return len(self.cells) * (self.replicas[1] - self.replicas[0])


@dataclass(eq=False)
class Layout(Record):
    """The ranges of one group.

    name: of the group; size: networks of a shard; stride: every which network's records are kept; blocks: a list
    first: for each axis, the first of its values that the group has: what tells it from others, whatever its name
    """

    name: str
    size: int
    stride: int
    blocks: list
    first: tuple = ()

    def pieces(self, block):
        """(cells a range, ranges a cell) of a block, one of them 1."""
        replicas = block.shape[-1]
        return (self.size // replicas, 1) if replicas <= self.size else (1, -(-replicas // self.size))

    def count(self, block):
        """Ranges of a block."""
        cells, cuts = self.pieces(block)
        return -(-block.cells // cells) * cuts

    @property
    def ranges(self):
        """Ranges in all."""
        return self.blocks[-1].first + self.count(self.blocks[-1]) if self.blocks else 0

    def names(self):
        """Names of all ranges, in order."""
        return [f"{self.name}.{k:06d}" for k in range(self.ranges)]

    def range(self, number):
        """The Range of a number."""
        which = max(k for k, block in enumerate(self.blocks) if block.first <= number)
        block = self.blocks[which]
        cells, cuts = self.pieces(block)
        first = (number - block.first) // cuts * cells
        cell = np.arange(first, min(first + cells, block.cells))
        where = np.stack(np.unravel_index(cell, block.shape[:-1] or (1,)), axis=-1)[:, :len(block.shape) - 1]
        low, high = block.low[-1], block.high[-1]
        if cuts > 1:
            low = block.low[-1] + (number - block.first) % cuts * self.size
            high = min(high, low + self.size)
        where = where + np.array(block.low[:-1], np.int64)
        return Range(f"{self.name}.{number:06d}", self.name, number, where, (low, high), which, first)

    def kept(self, networks):
        """Positions in a range of the networks whose records are kept."""
        return np.arange(0, networks, self.stride)

    @property
    def kept_size(self):
        """Rows of a shard of records."""
        return -(-self.size // self.stride)

    def rows(self, index):
        """Rows [M] in the arrays of all networks of members index [M, axes + 1] (replica last), -1 for none."""
        out = np.full(len(index), -1, np.int64)
        for block in self.blocks:
            inside = ((index >= block.low) & (index < block.high)).all(axis=1)
            if not inside.any():
                continue
            cells, cuts = self.pieces(block)
            at = index[inside] - np.array(block.low)
            cell = np.ravel_multi_index(tuple(at[:, :-1].T), block.shape[:-1]) if at.shape[1] > 1 else np.zeros(
                len(at), np.int64)
            replica = at[:, -1]
            number = block.first + cell // cells * cuts + (replica // self.size if cuts > 1 else 0)
            place = replica % self.size if cuts > 1 else cell % cells * block.shape[-1] + replica
            out[inside] = number * self.size + place
        return out

    def grow(self, shape):
        """Add the blocks by which the box grows to `shape` (replicas last). SpecError if it would shrink."""
        shape = tuple(map(int, shape))
        old = tuple(map(max, zip(*(block.high for block in self.blocks), strict=True))) if self.blocks else (0,) * len(
            shape)
        if any(new < was for new, was in zip(shape, old, strict=True)):
            raise SpecError(f"sweep: the store has {_words(old)} values and replicas, {_words(shape)} were given; a "
                            "store grows, but does not shrink")
        for axis in range(len(shape)) if self.blocks else (None,):
            low = [0] * len(shape)
            high = list(shape)
            if axis is not None:
                high[:axis], low[axis] = old[:axis], old[axis]
            if all(h > l for l, h in zip(low, high, strict=True)):  # noqa: E741
                self.blocks.append(Block(tuple(low), tuple(high), self.ranges))

    def chunk(self, rows, row_bytes):
        """Rows of an inner chunk: about CHUNK bytes, a divisor of the shard's rows."""
        most = max(1, min(rows, CHUNK // max(1, row_bytes)))
        return max(k for k in range(1, most + 1) if rows % k == 0)


def _words(shape):
    return " x ".join(map(str, shape))


def size(networks, replicas, seconds, row_bytes):
    """Networks of a range: about SECONDS of work, whole cells where that is possible.

    seconds: of one network, None if nobody knows; row_bytes: of its records
    """
    wanted = MOST if seconds is None else int(np.clip(SECONDS / max(seconds, 1e-9), FEWEST, MOST))
    wanted = int(max(1, min(wanted, BYTES // max(1, row_bytes), networks)))
    if wanted >= replicas:
        return wanted // replicas * replicas
    return replicas if replicas <= 4 * wanted else wanted
