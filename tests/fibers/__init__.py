"""Owns a card for machines without one: programs compiled by g++ against cuda.h beside this file, threads as fibers."""

import ctypes
import hashlib
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fastsgd.cuda import card as cards
from fastsgd.cuda.program import source_folder

HERE = Path(__file__).parent
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g")
THREADS = 32  # of a block that does not work as one: one warp, so that few networks leave few fibers idle


class Array:
    """As fastsgd.cuda.card.Array; the memory is this machine's."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    @property
    def pointer(self):
        return self.array.ctypes.data

    def get(self):
        return self.array.copy()


class FiberCard:
    """As fastsgd.cuda.card.Card."""

    name, arch, processors, shared = "fibers", "x86-64-v3", 1, 227 << 10

    def __init__(self, folder, memory=1 << 30, sanitize=False, backwards=False):
        self.folder, self.memory, self.sanitize, self.backwards = Path(folder), memory, sanitize, backwards
        self.kernels, self.launches = {}, []

    def free(self):
        return self.memory

    def put(self, array):
        return Array(np.array(array, order="C"))

    def empty(self, shape, dtype):
        dtype = np.dtype(dtype)
        return Array(np.frombuffer(b"\xcd" * (int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape).copy())

    def launch(self, program, count, shared, job):
        library = self.prepare(program, shared)
        library.fastsgd_backwards(self.backwards)
        assert library.fastsgd_job() == ctypes.sizeof(job), f"{program.name}: the struct of a launch has another size"
        self.launches.append((program.name, count))
        threads = program.threads if program.whole else THREADS
        error = library.fastsgd_launch(-(-count // threads), threads, shared, ctypes.byref(job))
        assert error is None, f"{program.name}: {error.decode()}"

    def finish(self):
        pass

    def prepare(self, program, shared):
        if program.key not in self.kernels:
            self.kernels[program.key] = ctypes.CDLL(str(build(program, self.folder, self.sanitize)))
            self.kernels[program.key].fastsgd_launch.restype = ctypes.c_char_p
            self.kernels[program.key].fastsgd_launch.argtypes = (ctypes.c_uint, ctypes.c_uint, ctypes.c_size_t,
                                                                 ctypes.c_void_p)
        return self.kernels[program.key]


def build(program, folder, sanitize=False):
    """The shared library of a program, compiled at its first use."""
    own = hashlib.sha256((HERE / "cuda.h").read_bytes()).hexdigest()[:8]
    made, text = Path(folder) / f"{program.key}-{own}{'-sanitized' * sanitize}.so", Path(folder) / f"{program.key}.cu"
    made.parent.mkdir(parents=True, exist_ok=True)
    if not text.exists():
        text.write_text(program.text)  # for ahead.py
    if not made.exists():
        source = made.with_suffix(f".{os.getpid()}.cpp")
        source.write_text(program.text)
        command = ["g++", "-std=c++17", "-O0", "-march=x86-64-v3", "-ffp-contract=off", "-fPIC", "-shared", "-w",
                   "-include", str(HERE / "cuda.h"), f"-I{source_folder()}", *(SANITIZE if sanitize else ()),
                   str(source), "-o", f"{source}.so"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{program.name} does not compile: {done.stderr[:3000]}"
        os.replace(f"{source}.so", made)
        source.unlink()
    return made


@contextmanager
def in_place(*fiber_cards):
    """While it lasts, this machine's cards are these."""
    kept = cards.cards, cards.why_none
    cards.cards, cards.why_none = lambda device: list(fiber_cards), lambda: None
    try:
        yield
    finally:
        cards.cards, cards.why_none = kept
