"""Owns the order of a torch DataLoader as a Replay: index for index what the loader would draw."""

from typing import Any

import numpy as np

from ..errors import SpecError
from .check import as_array, flag, shown, whole
from .order import Replay


def loader(loader: Any, steps: int, *, batch_size: int | None = None, shuffle: bool | None = None,
           drop_last: bool | None = None, seeds: Any = None) -> Replay:
    """The batches that a `torch.utils.data.DataLoader` gives, over as many epochs as `steps` take, as a Replay.

    loader: a DataLoader of a data set with indices, and any sampler. It is not moved on: its generator, or torch's own
        where it has none, has the same state as before, so that the loader then gives the very same batches. Or a
        number n of samples: that of a loader made of the rest
    steps: T >= 1
    batch_size (1), shuffle (True), drop_last (False): of the loader of n samples
    seeds: of its generator, `torch.Generator().manual_seed(seed)`: one for all networks, or [N]; needed to shuffle
    Returns a Replay of shape [1 or N, T, batch], in which -1 stands behind the samples of a short batch.
    """
    import torch

    steps = whole(steps, "steps", 1, 2**34)
    rest = {"batch_size": batch_size, "shuffle": shuffle, "drop_last": drop_last, "seeds": seeds}
    if isinstance(loader, torch.utils.data.DataLoader):
        given = [name for name, value in rest.items() if value is not None]
        if given:
            raise SpecError(f"{given[0]}: given, but the loader has its own; give a number of samples for `loader`")
        if isinstance(loader.dataset, torch.utils.data.IterableDataset):
            raise SpecError("loader: its data set is iterated over, expected one with indices")
        return Replay(_padded([_batches(loader, steps)]))
    if not hasattr(loader, "__index__"):
        raise SpecError(f"loader: {shown(loader)} given, expected a torch DataLoader or a number of samples")
    n = whole(loader, "loader", 1, 2**32 - 1)
    batch = whole(1 if batch_size is None else batch_size, "batch_size", 1)
    shuffle = flag(True if shuffle is None else shuffle, "shuffle")
    drop = flag(False if drop_last is None else drop_last, "drop_last")
    if shuffle and seeds is None:
        raise SpecError("seeds: missing; shuffling needs one number >= 0, or [N]")
    made = as_array(0 if seeds is None else seeds, "seeds", ndim=(0, 1), kinds="iu").ravel()
    if not made.size or made.min() < 0:
        raise SpecError(f"seeds: {shown(seeds)} given, expected whole numbers >= 0")
    return Replay(_padded([_batches(torch.utils.data.DataLoader(
        range(n), batch, shuffle=shuffle, drop_last=drop, generator=torch.Generator().manual_seed(int(seed))), steps)
        for seed in made]))


def _batches(loader, steps):
    """Indices [[...], ...] of the first `steps` batches; generators are put back to where they were."""
    import torch

    sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    how = {"batch_size": None, "sampler": sampler} if loader.batch_sampler is None else {"batch_sampler": sampler}
    indices = torch.utils.data.DataLoader(_Indices(), collate_fn=_as_it_is, generator=loader.generator, **how)
    states = {id(one): (one, one.get_state()) for one in _generators(loader)}
    # An epoch's iterator draws a seed for workers, even without any; one whose workers persist is made once.
    made = getattr(loader, "_iterator", None) is not None
    out = []
    with torch.random.fork_rng(devices=[]):
        while len(out) < steps:
            before = len(out)
            for batch in sampler if made else indices:
                out.append(_checked(batch))
                if len(out) == steps:
                    break
            if len(out) == before:
                raise SpecError("loader: has no batch in an epoch, expected at least one")
            made = made or loader.persistent_workers
    for one, state in states.values():
        one.set_state(state)
    return out


def _generators(loader):
    """The torch generators of a loader and its samplers."""
    import torch

    parts = [loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None)]
    found = (getattr(part, "generator", None) for part in parts)
    return [one for one in found if isinstance(one, torch.Generator)]


class _Indices:
    """A data set whose samples are their own indices."""

    def __getitem__(self, index):
        return index

    def __len__(self):
        return 2**32


def _as_it_is(batch):
    return batch


def _checked(batch):
    """The indices of a batch as [B]."""
    indices = np.atleast_1d(np.asarray(batch))
    if indices.ndim != 1 or (indices.size and (indices.dtype.kind not in "iu" or indices.min() < 0)):
        raise SpecError(f"loader: its sampler gives {shown(batch)}, expected indices >= 0")
    return indices


def _padded(networks):
    """Steps of several networks as [N, T, B], -1 behind what is short."""
    out = np.full((len(networks), len(networks[0]), max(len(step) for steps in networks for step in steps)), -1)
    for k, steps in enumerate(networks):
        for t, step in enumerate(steps):
            out[k, t, :len(step)] = step
    return out
