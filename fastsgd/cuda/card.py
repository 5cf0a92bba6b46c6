"""Owns a card: its memory and stream, which are torch's, and launches of programs on it."""

from contextlib import suppress
from functools import cache

import numpy as np

from ..errors import BackendUnavailable
from .compiler import built, compiled
from .driver import driver

BITS = {"uint32": "int32", "uint64": "int64", "bool": "uint8"}  # dtypes that torch lacks or stores otherwise


class Array:
    """An array on a card. pointer: its address there; get(): a copy as NumPy."""

    def __init__(self, tensor, shape, dtype):
        self.tensor, self.shape, self.dtype = tensor, shape, np.dtype(dtype)

    @property
    def pointer(self):
        return self.tensor.data_ptr()

    def get(self):
        return self.tensor.cpu().numpy().view(self.dtype).reshape(self.shape)


class Card:
    """One NVIDIA card, as torch numbers them.

    name, arch ("sm_90"), processors (multiprocessors), shared (bytes that a block can have)
    """

    def __init__(self, index):
        import torch

        self.torch, self.index = torch, index
        about = torch.cuda.get_device_properties(index)
        self.name, self.arch = about.name, f"sm_{about.major}{about.minor}"
        self.processors = about.multi_processor_count
        self.shared = getattr(about, "shared_memory_per_block_optin", 48 << 10)
        self.kernels = {}

    def free(self):
        """Bytes of memory that nobody holds, torch's unused reserve included."""
        torch = self.torch
        held = torch.cuda.memory_reserved(self.index) - torch.cuda.memory_allocated(self.index)
        return torch.cuda.mem_get_info(self.index)[0] + held

    def put(self, array):
        """A copy of a NumPy array on the card."""
        array = np.ascontiguousarray(array)
        flat = array.reshape(-1).view(BITS.get(array.dtype.name, array.dtype.name))
        with self.torch.cuda.device(self.index):
            return Array(self.torch.from_numpy(flat.copy()).cuda(), array.shape, array.dtype)

    def empty(self, shape, dtype):
        """An array on the card with whatever lies there."""
        dtype = np.dtype(dtype)
        kind = getattr(self.torch, BITS.get(dtype.name, dtype.name))
        return Array(self.torch.empty(int(np.prod(shape)), dtype=kind, device=f"cuda:{self.index}"), shape, dtype)

    def launch(self, program, count, shared, job):
        """Launch a program on `count` threads, on torch's current stream; returns at once.

        shared: bytes of dynamic shared memory; job: a ctypes struct, passed by value
        """
        with self.torch.cuda.device(self.index):
            kernel = self.prepare(program, shared)
            blocks = -(-count // program.threads)
            stream = self.torch.cuda.current_stream(self.index).cuda_stream
            driver().launch(kernel, blocks, program.threads, shared, stream, job)

    def prepare(self, program, shared):
        """The kernel of a program, compiled and loaded if that was not done before."""
        known = program.key, shared
        if known not in self.kernels:
            self.torch.zeros(1, device=f"cuda:{self.index}")  # the context is made, and current
            self.kernels[known] = self._load(program, shared)
        return self.kernels[known]

    def _load(self, program, shared):
        code = built(program)
        if code is not None:
            with suppress(BackendUnavailable):  # built for newer cards than this one
                return driver().load(code, shared)
        return driver().load(compiled(program, self.arch), shared)

    def finish(self):
        """Wait for what was launched."""
        self.torch.cuda.current_stream(self.index).synchronize()


def why_none():
    """None if there is a card that this process can use, else a sentence saying what is missing and how to get it."""
    try:
        driver()
    except BackendUnavailable as error:
        return str(error)
    import torch

    if torch.version.cuda is None:
        return (f"this torch ({torch.__version__}) is built without CUDA, and torch holds the memory; install a CUDA "
                "build of torch")
    if not torch.cuda.is_available():
        return "the driver is there, but torch sees no card (CUDA_VISIBLE_DEVICES?)"
    return None


@cache
def card(index):
    """The card number `index`."""
    return Card(index)


def cards(device):
    """The cards that a Run's device names: None or "cuda" (torch's current one), "cuda:1", "cuda:0,1".

    Raises BackendUnavailable for a number that this machine has not.
    """
    import torch

    numbers = (device or "cuda").partition(":")[2]
    wanted = [int(number) for number in numbers.split(",")] if numbers else [torch.cuda.current_device()]
    have = torch.cuda.device_count()
    for number in wanted:
        if number >= have:
            raise BackendUnavailable(f"device: {device!r} names card {number}, this machine has {have} card(s), "
                                     "numbered from 0")
    return [card(number) for number in wanted]
