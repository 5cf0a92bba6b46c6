"""Owns the sample order: which training point network k sees at step t."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import SpecError
from . import draws
from .check import as_array, flag, frozen, whole
from .record import Record


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Reshuffle:
    """Epochs: the data are gone through in a new pseudo-random order each time, every point once an epoch.

    Samples are numbered q = t * batch + b over the run; sample q is entry q % n of the permutation of epoch q // n, so
    that a batch may end one epoch and begin the next.

    network: whose order all share, 0 <= network < 2**32, or None: each network has its own
    """

    network: int | None = None
    kind = "epochs"

    def __post_init__(self):
        if self.network is not None:
            object.__setattr__(self, "network", whole(self.network, "order.network", 0, 2**32 - 1))

    def indices(self, run_seed: int, ids: Any, t0: int, t1: int, n: int, batch: int) -> np.ndarray:
        """See `PerNetwork.indices`."""
        q = (np.arange(t0, t1) * batch)[:, None] + np.arange(batch)
        return draws.permuted(run_seed, ids if self.network is None else [self.network], q // n, q % n, n)


@dataclass(frozen=True, eq=False)
class Replay(Record):
    """An explicit order.

    order [T], [N, T] or [N, T, batch] (also [1, T, batch]): indices of training points, each in [0, n)
    Raises SpecError if it does not hold whole numbers >= 0; the plan checks n, T, N and batch.
    """

    order: np.ndarray
    network, kind = None, "table"

    def __post_init__(self):
        order = as_array(self.order, "order", ndim=(1, 2, 3), kinds="iu")
        if order.size == 0:
            raise SpecError(f"order: is empty (shape {order.shape})")
        if order.min() < 0:
            raise SpecError(f"order: holds {order.min()}, expected indices >= 0")
        object.__setattr__(self, "order", frozen(order))

    @property
    def table(self) -> np.ndarray:
        """The order as [1 or N, T, batch]."""
        return self.order.reshape((1,) * (self.order.ndim == 1) + self.order.shape + (1,) * (self.order.ndim < 3))

    def indices(self, run_seed: int, ids: Any, t0: int, t1: int, n: int, batch: int) -> np.ndarray:
        """See `PerNetwork.indices`; here `ids` are positions in the run, not draws."""
        table = self.table
        return table[:, t0:t1] if len(table) == 1 else table[ids, t0:t1]
