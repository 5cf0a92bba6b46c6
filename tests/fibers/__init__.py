"""Owns a card for machines without one: programs compiled by g++ against cuda.h beside this file, threads as fibers."""

import ctypes
import fcntl
import hashlib
import os
import subprocess
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from fastsgd.cuda import card as cards
from fastsgd.cuda.program import headers_hash, source_folder

HERE = Path(__file__).parent
# What the address sanitizer finds by itself is not asked for twice: it would double the compile.
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize=null,object-size,pointer-overflow",
            "-fno-sanitize-recover=undefined", "-g0")
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

    def __init__(self, folder, memory=1 << 30, sanitize=False, backwards=False, shared=True):
        self.folder, self.memory, self.backwards = Path(folder), memory, backwards
        self.how = sanitize, shared  # programs are built
        self.kernels, self.launches = {}, []

    def free(self):
        return self.memory

    def put(self, array):
        return Array(np.array(array, order="C"))

    def empty(self, shape, dtype):
        dtype = np.dtype(dtype)
        return Array(np.frombuffer(b"\xcd" * (int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape).copy())

    def tally(self, array, values):
        return [int(np.count_nonzero(array.array == value)) for value in values]

    def positions(self, array, value):
        return Array(np.flatnonzero(array.array == value))

    def rows(self, array, width, where):
        return array.array.reshape(-1, width)[where]

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
            self.kernels[program.key] = ctypes.CDLL(str(build(program, self.folder, *self.how)))
            self.kernels[program.key].fastsgd_launch.restype = ctypes.c_char_p
            self.kernels[program.key].fastsgd_launch.argtypes = (ctypes.c_uint, ctypes.c_uint, ctypes.c_size_t,
                                                                 ctypes.c_void_p)
        return self.kernels[program.key]


def build(program, folder, sanitize=False, shared=True):
    """The shared library of a program, compiled at its first use.

    shared: whether what programs have in common is compiled once, before, which pays from some ten programs on
    """
    words, runtime = prepared(sanitize, shared)
    made, text = Path(folder) / f"{program.key}-{words.name}.so", Path(folder) / f"{program.key}.cu"
    made.parent.mkdir(parents=True, exist_ok=True)
    if not text.exists():
        text.write_text(program.text)  # for ahead.py
    with made_once(made) as temporary:
        if temporary:
            source = temporary.with_suffix(".cpp")
            source.write_text(program.text)
            compiled = source.with_suffix(".o")
            try:
                run(program.name, [*command(sanitize), "-include", str(words / "words.h"), "-c", str(source), "-o",
                                   str(compiled)])
                run(program.name, ["g++", "-shared", "-nostdlib", str(compiled), str(runtime), "-o", str(temporary)])
            finally:
                source.unlink()
                compiled.unlink(missing_ok=True)
    return made


@cache
def prepared(sanitize, shared):
    """What all programs share: the folder of the precompiled words and headers, and the library of fibers beneath."""
    own = text_of("cuda.h", "shared.h", "fibers.cpp") + headers_hash() + compiler()
    kinds = "-sanitized" * sanitize
    everything = HERE.parents[1] / "build" / "fibers" / "shared"
    folder = everything / f"{short(own)}{kinds}{'-alone' * (not shared)}"
    folder.mkdir(parents=True, exist_ok=True)
    common = [HERE / "shared.h"] * shared
    with made_once(folder / "words.h.gch") as temporary:
        if temporary:
            headers = [HERE / "cuda.h", *sorted((source_folder() / "cuda").rglob("*.h")), *common]
            (folder / "words.h").write_text("".join(f'#include "{header}"\n' for header in headers))
            run("words.h", [*command(sanitize), "-x", "c++-header", str(folder / "words.h"), "-o", str(temporary)])
    machine = everything / f"{short(text_of('cuda.h', 'fibers.cpp') + compiler())}{kinds}.o"  # whatever the headers
    with made_once(machine) as temporary:
        if temporary:
            run("fibers.cpp", [*command(sanitize), "-O0" if sanitize else "-O1", "-c", str(HERE / "fibers.cpp"), "-o",
                               str(temporary)])
    with made_once(folder / "libfibers.so") as temporary:
        if temporary:
            run("shared.h", [*command(sanitize), "-DFS_SHARED_HERE=", "-shared", str(machine), "-x", "c++",
                             *map(str, common), "-o", str(temporary)])
    return folder, folder / "libfibers.so"


def text_of(*names):
    return "".join((HERE / name).read_text() for name in names)


def short(text):
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@contextmanager
def made_once(path):
    """A file made by one process while others wait: where to write it, or None where it is there already."""
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            yield None
            return
        temporary = path.with_name(f".{path.name}.new")
        yield temporary
        os.replace(temporary, path)


@cache
def compiler():
    return subprocess.run(["g++", "-v"], capture_output=True, text=True, check=True).stderr


def command(sanitize):
    return ["g++", "-std=c++17", "-O0", "-march=x86-64-v3", "-ffp-contract=off", "-fPIC", "-w", f"-I{source_folder()}",
            *(SANITIZE if sanitize else ())]


def run(name, command):
    surroundings = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # no sanitized compiler
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings)
    assert done.returncode == 0, f"{name} does not compile: {done.stderr[:3000]}"


@contextmanager
def in_place(*fiber_cards):
    """While it lasts, this machine's cards are these."""
    kept = cards.cards, cards.why_none
    cards.cards, cards.why_none = lambda device: list(fiber_cards), lambda: None
    try:
        yield
    finally:
        cards.cards, cards.why_none = kept
