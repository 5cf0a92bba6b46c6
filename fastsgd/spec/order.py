"""Owns the sample order: which training point network k sees at step t."""

from typing import Any

import numpy as np

from ..errors import SpecError
from . import draws
from .check import Array, as_array, flag, frozen, whole
from .record import Record, record


@record(eq=True)
class PerNetwork:
    """Each network draws its own points, from (seed, network id, step), independently over steps.

    replace: whether the points of one step are drawn with replacement; without, they are the first of a pseudo-random
        permutation of the data made for the step, and the batch is at most n
    """

    replace: bool = True
    network = None

    def __post_init__(self):
        object.__setattr__(self, "replace", flag(self.replace, "order.replace"))

    @property
    def kind(self) -> str:
        """How kernels draw it: "replace", "permute", "epochs", or "table" where it is given."""
        return "replace" if self.replace else "permute"

    def indices(self, run_seed: int, ids: Any, t0: int, t1: int, n: int, batch: int) -> np.ndarray:
        """Sample indices int64 [len(ids), t1 - t0, batch]."""
        if self.replace:
            return np.stack([draws.indices(run_seed, ids, t0, t1, n, item) for item in range(batch)], axis=-1)
        return draws.permuted(run_seed, ids, *np.broadcast_arrays(np.arange(t0, t1)[:, None], np.arange(batch)), n)

    def counts(self, t0: int, t1: int, n: int, batch: int) -> None:
        """Samples of each step [1 or N, t1 - t0], None where all have `batch`, as here."""


@record(eq=True)
class Common:
    """All networks see the order that `PerNetwork` gives to network id `network`: common random numbers.

    network: whose order all share, 0 <= network < 2**32
    replace: as in `PerNetwork`
    """

    network: int = 0
    replace: bool = True

    def __post_init__(self):
        object.__setattr__(self, "network", whole(self.network, "order.network", 0, 2**32 - 1))
        object.__setattr__(self, "replace", flag(self.replace, "order.replace"))

    @property
    def kind(self) -> str:
        """See `PerNetwork.kind`."""
        return "replace" if self.replace else "permute"

    def indices(self, run_seed: int, ids: Any, t0: int, t1: int, n: int, batch: int) -> np.ndarray:
        """See `PerNetwork.indices`; one row stands for all networks."""
        return PerNetwork(self.replace).indices(run_seed, [self.network], t0, t1, n, batch)

    def counts(self, t0: int, t1: int, n: int, batch: int) -> None:
        """See `PerNetwork.counts`."""


@record(eq=True)
class Reshuffle:
    """Epochs: the data are gone through in a new pseudo-random order each time, every point once an epoch.

    Samples are numbered q = t * batch + b over the run; sample q is entry q % n of the permutation of epoch q // n, so
    that a batch may end one epoch and begin the next.

    network: whose order all share, 0 <= network < 2**32, or None: each network has its own
    drop_last: what becomes of an epoch's last samples where the batch does not divide n. False and True are those of
        `torch.utils.data.DataLoader`: they are a step of their own, whose gradient is the mean over them, or they are
        left out, and the next epoch begins. None: the next epoch's first samples fill the batch
    """

    network: int | None = None
    drop_last: bool | None = None
    kind = "epochs"

    def __post_init__(self):
        if self.drop_last is not None:
            object.__setattr__(self, "drop_last", flag(self.drop_last, "order.drop_last"))
        if self.network is not None:
            object.__setattr__(self, "network", whole(self.network, "order.network", 0, 2**32 - 1))

    def indices(self, run_seed: int, ids: Any, t0: int, t1: int, n: int, batch: int) -> np.ndarray:
        """See `PerNetwork.indices`; behind the samples of a short step its first one is repeated."""
        epoch, b = self.epoch(n, batch), np.arange(batch)
        q = (np.arange(t0, t1) * batch)[:, None] + b
        position = np.where(q % epoch < n, q, q - b) % epoch
        return draws.permuted(run_seed, ids if self.network is None else [self.network], q // epoch, position, n)

    def epoch(self, n: int, batch: int) -> int:
        """Samples of an epoch, with those that fill its last step up, or without those that are dropped."""
        return n if self.drop_last is None else (n // batch if self.drop_last else -(-n // batch)) * batch

    def counts(self, t0: int, t1: int, n: int, batch: int) -> np.ndarray | None:
        """Samples of each step [1, t1 - t0] uint32, None where all have `batch`."""
        if self.drop_last is not False or n % batch == 0:
            return None
        steps = -(-n // batch)
        return np.where(np.arange(t0, t1) % steps == steps - 1, n - (steps - 1) * batch, batch).astype(np.uint32)[None]


@record()
class Replay(Record):
    """An explicit order.

    order [T], [N, T] or [N, T, batch] (also [1, T, batch]): indices of training points, each in [0, n). Steps may have
        samples of different number, over which they average: -1 stands behind those of a step that has fewer than
        `batch`. A list of T lists of indices of different lengths is such an order, the same for all networks
    Raises SpecError if it does not hold whole numbers >= 0; the plan checks n, T, N and batch.
    """

    order: Array
    network, kind = None, "table"

    def __post_init__(self):
        order = as_array(_even(self.order), "order", ndim=(1, 2, 3), kinds="iu")
        if order.size == 0:
            raise SpecError(f"order: is empty (shape {order.shape})")
        short = order.ndim == 3 and (order == -1).any()
        if order.min() < -1 or (order.min() < 0 and not short):
            raise SpecError(f"order: holds {order.min()}, expected indices >= 0"
                            + (", and -1 behind the samples of a short step" if order.ndim == 3 else ""))
        there, counts, filled = order >= 0, None, order
        if short:
            counts = np.count_nonzero(there, axis=2)
            if (counts == 0).any():
                raise SpecError(f"order: step {np.argwhere(counts == 0)[0][-1]} has no samples, expected at least one")
            if (there != (np.arange(order.shape[2]) < counts[..., None])).any():
                raise SpecError("order: -1 stands before an index, expected behind all samples of its step")
            counts, filled = frozen(counts.astype(np.uint32)), np.where(there, order, order[..., :1])
        put = object.__setattr__
        put(self, "order", frozen(order))
        put(self, "_filled", frozen(filled) if short else self.order)
        put(self, "_counts", counts)

    @property
    def table(self) -> np.ndarray:
        """The order as [1 or N, T, batch]; behind the samples of a short step its first one is repeated."""
        return self._filled.reshape((1,) * (self.order.ndim == 1) + self.order.shape + (1,) * (self.order.ndim < 3))

    def as_read(self) -> str:
        """What was given, how it was read, and how the other meaning of its axes is written; for messages."""
        axes = ("T",), ("N", "T"), ("N", "T", "batch")
        other = {1: "; batches are [1, T, batch] or [N, T, batch]",
                 2: "; batches [T, batch] that all networks share are given as order[None], [1, T, batch]"}
        return (f"shape {list(self.order.shape)} given, read as [{', '.join(axes[self.order.ndim - 1])}]"
                + other.get(self.order.ndim, ""))

    def counts(self, t0: int, t1: int, n: int, batch: int) -> np.ndarray | None:
        """Samples of each step [1 or N, t1 - t0] uint32, None where all have `batch`."""
        return None if self._counts is None else self._counts[:, t0:t1]

    def indices(self, run_seed: int, ids: Any, t0: int, t1: int, n: int, batch: int) -> np.ndarray:
        """See `PerNetwork.indices`; here `ids` are positions in the run, not draws."""
        table = self.table
        return table[:, t0:t1] if len(table) == 1 else table[ids, t0:t1]


def _even(order):
    """Lists of indices of different lengths, one a step, as [1, T, the largest]; anything else as it is."""
    if not isinstance(order, (list, tuple)) or not order:
        return order
    try:
        steps = [np.asarray(step) for step in order]
    except (TypeError, ValueError):
        return order
    if any(step.ndim != 1 or (step.size and step.dtype.kind not in "iu") for step in steps) or len(
            {len(step) for step in steps}) == 1:
        return order
    out = np.full((1, len(steps), max(map(len, steps))), -1, np.int64)
    for t, step in enumerate(steps):
        out[0, t, :len(step)] = step
    return out
