"""Owns a pass of a module over data: inputs out of a loader, evaluation mode and back, names with near matches."""

from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import chain

import torch
from torch.utils.data import Dataset, IterableDataset

from ..errors import PlanError, SpecError


def checked_module(model, owner):
    """`model`, or SpecError if it is no torch.nn.Module."""
    if not isinstance(model, torch.nn.Module):
        raise SpecError(f"{owner}: {type(model).__name__} given as the model, expected a torch.nn.Module")
    return model


def known(names, legal, field):
    """`names` as a tuple; SpecError for none, a bare string or repeats, PlanError for names outside `legal`."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise SpecError(f"{field}: {names!r} given, expected a sequence of names")
    names = tuple(names)
    if not names or len(set(names)) < len(names):
        raise SpecError(f"{field}: {list(names)} given, expected one or more names, each once")
    for name in names:
        if name not in legal:
            near = get_close_matches(str(name), legal, n=5, cutoff=0.4) or sorted(filter(None, legal))[:5]
            raise PlanError(f"{field}: the model has no {name!r}; near it are {', '.join(map(repr, near))}")
    return names


def device_of(model):
    """The device of the first parameter or buffer; the CPU for a module without any."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def inputs(data, device):
    """Yield the input tensor of each batch, on `device`.

    data: one tensor [B, ...], or an iterable (a DataLoader) of tensors or of (input, ...) tuples or lists
    Raises SpecError for anything else.
    """
    unbatched = isinstance(data, Dataset) and not isinstance(data, IterableDataset)
    if isinstance(data, (Mapping, str)) or not isinstance(data, Iterable) or unbatched:
        raise SpecError(f"data: {type(data).__name__} given, expected a tensor of inputs or a loader of batches")
    for batch in [data] if isinstance(data, torch.Tensor) else data:
        x = batch[0] if isinstance(batch, (tuple, list)) and len(batch) else batch
        if not isinstance(x, torch.Tensor):
            raise SpecError(f"data: the loader yields {_described(batch)}, expected a tensor or (input, ...) with a "
                            "tensor first; give what the model takes, e.g. over(batch['x'] for batch in loader)")
        yield x.to(device, non_blocking=True)


@contextmanager
def evaluating(model):
    """The model in evaluation mode; afterwards every submodule is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def full_precision(device):
    """Products and convolutions in their operands' precision: no autocast, TF32 or bfloat16; afterwards as before."""
    backends = torch.backends
    knobs = [getattr(backend, kind, None) for backend in (backends.cuda, backends.cudnn, backends.mkldnn)
             for kind in ("matmul", "conv", "rnn")]
    knobs = [(knob, "fp32_precision", "ieee") for knob in knobs if hasattr(knob, "fp32_precision")]
    if not knobs:  # before torch 2.9
        knobs = [(backends.cuda.matmul, "allow_tf32", False), (backends.cudnn, "allow_tf32", False)]
    before = [getattr(knob, name) for knob, name, _ in knobs]
    for knob, name, value in knobs:
        setattr(knob, name, value)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for (knob, name, _), value in zip(knobs, before, strict=True):
            setattr(knob, name, value)


def float64_device(device):
    """Where float64 sums of tensors on `device` live: there, or on the CPU if the device has no float64 (MPS)."""
    return torch.device("cpu") if device.type == "mps" else device


def _described(batch):
    kind = type(batch).__name__
    return f"{kind} of {type(batch[0]).__name__}" if isinstance(batch, (tuple, list)) and len(batch) else kind
