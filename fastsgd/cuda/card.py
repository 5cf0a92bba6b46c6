"""Owns a card: its memory and stream, which are torch's, and launches of programs on it."""

import warnings
from contextlib import suppress
from functools import cache

import numpy as np

from ..errors import BackendUnavailable
from .driver import driver

BITS = {"uint32": "int32", "uint64": "int64", "bool": "uint8"}  # dtypes that torch lacks or stores otherwise
PINNED = 16 << 20  # bytes of each of two buffers through which large arrays go: one is filled, the other is sent


class Array:
    """An array on a card. pointer: its address there; get(): a copy as NumPy."""

    def __init__(self, tensor, shape, dtype):
        self.tensor, self.shape, self.dtype = tensor, shape, np.dtype(dtype)

    @property
    def pointer(self):
        return self.tensor.data_ptr()

    def get(self):
        return fetched(self.tensor).numpy().view(self.dtype).reshape(self.shape)


def send(tensor, out):
    """Copy a flat tensor to one on a card through pinned memory, which the card reads by itself and faster."""
    import torch

    source, target = tensor.view(torch.uint8), out.view(torch.uint8)
    sent = [torch.cuda.Event(), torch.cuda.Event()]
    for number, (at, buffer, event) in enumerate(_parts(len(source), sent)):
        if number > 1:
            event.synchronize()
        part = buffer[:len(source) - at]
        part.copy_(source[at:at + PINNED])
        target[at:at + PINNED].copy_(part, non_blocking=True)
        event.record()
    for event in sent:
        event.synchronize()


def fetched(tensor):
    """A copy of a flat tensor of a card on the host, likewise."""
    import torch

    out = torch.empty(tensor.shape, dtype=tensor.dtype)
    if out.nbytes < PINNED:
        return out.copy_(tensor)
    source, target = tensor.view(torch.uint8), out.view(torch.uint8)
    with torch.cuda.device(tensor.device):
        before = None
        for at, buffer, event in _parts(len(source), [torch.cuda.Event(), torch.cuda.Event()]):
            part = buffer[:len(source) - at]
            part.copy_(source[at:at + PINNED], non_blocking=True)
            event.record()
            if before:
                _arrived(*before, target)
            before = at, part, event
        _arrived(*before, target)
    return out


def _arrived(at, part, event, target):
    """Wait for a part and put it in its place, while the next is under way."""
    event.synchronize()
    target[at:at + PINNED].copy_(part)


def _parts(size, events):
    """(where a part begins, a pinned buffer, an event), two buffers and events by turns."""
    import torch

    buffers = [torch.empty(PINNED, dtype=torch.uint8, pin_memory=True) for _ in events]
    for number, at in enumerate(range(0, size, PINNED)):
        yield at, buffers[number % 2], events[number % 2]


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
        out = self.empty(array.shape, array.dtype)
        with self.torch.cuda.device(self.index), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to it
            flat = self.torch.from_numpy(array.reshape(-1).view(BITS.get(array.dtype.name, array.dtype.name)))
            if array.nbytes < PINNED:
                out.tensor.copy_(flat)
            else:
                send(flat, out.tensor)
        return out


    def empty(self, shape, dtype):
        """An array on the card with whatever lies there."""
        dtype = np.dtype(dtype)
        kind = getattr(self.torch, BITS.get(dtype.name, dtype.name))
        return Array(self.torch.empty(int(np.prod(shape)), dtype=kind, device=f"cuda:{self.index}"), shape, dtype)

    def tally(self, array, values):
        """How often each of `values` stands in an array; waits for what was launched."""
        return self.torch.stack([(array.tensor == value).sum() for value in values]).tolist()

    def positions(self, array, value):
        """Where `value` stands in an array, ascending, as an Array of int64."""
        found = self.torch.nonzero(array.tensor == value).view(-1)
        return Array(found, tuple(found.shape), np.int64)

    def rows(self, array, width, where):
        """Rows `where` of an array of so many numbers a row, as NumPy."""
        index = self.torch.from_numpy(where).to(array.tensor.device)
        return array.tensor.view(-1, width)[index].cpu().numpy().view(array.dtype)

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
            with self.torch.cuda.device(self.index):
                self.torch.zeros(1, device=f"cuda:{self.index}")  # the context is made, and current
                self.kernels[known] = self._load(program, shared)
        return self.kernels[known]

    def _load(self, program, shared):
        from .compiler import built, compiled

        code = built(program)
        if code is not None:
            with suppress(BackendUnavailable):  # built for newer cards than this one
                return driver().load(code, program.threads, shared)
        return driver().load(compiled(program, self.arch), program.threads, shared)

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
