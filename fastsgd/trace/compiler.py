"""Owns how C++ written at run time becomes functions to call: g++, one library a text, dtype and machine.

A library in the cache is named by a hash of everything it was made from: text, headers, flags, and the compiler's path
and version. It is written whole or not at all, so that processes may share the folder.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ..cuda.program import C_TYPES, source_folder
from ..errors import BackendUnavailable
from ..files import cache_folder, keep

FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden", "-w")
MACHINE = {"v3": ("-march=x86-64-v3",), "v4": ("-march=x86-64-v4",)}  # as setup.py builds the modules
KINDS = {"Model": ("FS_TRACED_MODEL", ("forward", "vjp")), "Loss": ("FS_TRACED_LOSS", ("dloss", "own_dloss")),
         "Penalty": ("FS_TRACED_PENALTY", ("penalty",)), "Rule": ("FS_TRACED_RULE", ("move",))}


@dataclass(eq=False)
class Library:
    """A compiled text: addresses of its functions, of a traced one's for one number and for a vector; seconds that it
    took, 0 from the cache.

    checked: whether its results have been compared with the graph's, or the prebuilt loop's
    """

    key: str
    entries: dict
    seconds: float
    path: Path
    checked: bool = False
    handle: object = field(default=None, repr=False)

    def note_checked(self):
        """Remember, on disk too, that this library computes what it should."""
        self.checked = True
        with suppress(OSError):
            keep(self.path.with_suffix(".checked"), _digest(self.path.read_bytes()).encode())


@cache
def compiler():
    """(path, version) of the C++ compiler: FASTSGD_CXX, or g++. Raises BackendUnavailable without one."""
    wanted = os.environ.get("FASTSGD_CXX") or "g++"
    path = shutil.which(wanted)
    if path is None:
        raise BackendUnavailable(f"there is no C++ compiler ({wanted!r} is not to be found), which own models, losses, "
                                 "penalties and rules and compiled loops need; install g++, or set FASTSGD_CXX")
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise BackendUnavailable(f"the C++ compiler {path} does not run ({error})") from None
    if done.returncode:
        raise BackendUnavailable(f"the C++ compiler {path} does not run: {done.stderr.strip()[:300]}")
    return path, done.stdout


@cache
def headers(folders=("core", "traced")):
    """A hash of every header that a text may include."""
    digest, root = hashlib.sha256(), source_folder()
    for path in sorted(path for name in folders for path in (root / name).rglob("*.h")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def source(text, kind, dtype, width):
    """A translation unit of the struct `kind` in `text`."""
    macro, _ = KINDS[kind]
    T = C_TYPES[dtype]
    return (f'#include "traced/cpu.h"\nnamespace {{\nusing namespace fs;\n{text}}}\n'
            f"{macro}({kind}, {T}, 1)\n{macro}({kind}, {T}, {width})\n")


_LOADED = {}


def library(text, kind, dtype, isa, width):
    """The Library of a traced struct. Raises BackendUnavailable where it cannot be compiled."""
    names = {name: (f"{name}_1", f"{name}_{width}") for name in KINDS[kind][1]}
    return made(source(text, kind, dtype, width), isa, names)


def made(unit, isa, names, folders=("core", "traced")):
    """The Library of a translation unit. Raises BackendUnavailable where it cannot be compiled.

    names: {entry: its function, or functions}; folders: of headers that it may include
    """
    command, key = _command(unit, isa, folders)
    if key not in _LOADED:
        kept, began = _kept(key), time.perf_counter()
        seconds = 0.0
        if kept is None:
            kept = _compile(command, unit, key)
            seconds = time.perf_counter() - began
        try:
            handle = ctypes.CDLL(str(kept))
        except OSError as error:
            raise BackendUnavailable(f"a compiled library cannot be loaded ({error})") from None

        def address(name):
            return (tuple(map(address, name)) if isinstance(name, tuple) else
                    ctypes.cast(getattr(handle, name), ctypes.c_void_p).value)

        checked = False
        with suppress(OSError):
            checked = kept.with_suffix(".checked").read_text() == _digest(kept.read_bytes())
        _LOADED[key] = Library(key, {entry: address(name) for entry, name in names.items()}, seconds, kept, checked,
                               handle)
    return _LOADED[key]


def is_kept(unit, isa, folders=("core", "traced")):
    """Whether a translation unit has been compiled before. Raises BackendUnavailable without a compiler."""
    _, key = _command(unit, isa, folders)
    return key in _LOADED or (folder() / f"{key}.hash").exists()


def _command(unit, isa, folders):
    """(command of the compiler, what names the library of a unit)."""
    path, version = compiler()
    command = [path, *FLAGS, *MACHINE[isa], f"-I{source_folder()}"]
    return command, _digest("\0".join((unit, headers(folders), *FLAGS, *MACHINE[isa], path, version)).encode())[:32]


def folder():
    """Where compiled programs are kept."""
    return cache_folder() / "traced"


def _digest(data):
    return hashlib.sha256(data).hexdigest()


def _kept(key):
    """The library in the cache, None if it is not there or not whole."""
    made = folder() / f"{key}.so"
    with suppress(OSError):
        if (folder() / f"{key}.hash").read_text() == _digest(made.read_bytes()):
            return made
    return None


def _compile(command, unit, key):
    """The library of a unit, in the cache if that can be written to."""
    with tempfile.TemporaryDirectory(prefix="fastsgd-") as scratch:
        text, made = Path(scratch) / "traced.cpp", Path(scratch) / "traced.so"
        text.write_text(unit)
        done = subprocess.run([*command, str(text), "-o", str(made)], capture_output=True, text=True)
        if done.returncode:
            raise BackendUnavailable(f"{command[0]} could not compile what was written for this run: "
                                     f"{done.stderr.strip()[:1000]}")
        code = made.read_bytes()
        try:
            kept = folder() / f"{key}.so"
            keep(kept, code)
            keep(folder() / f"{key}.hash", _digest(code).encode())
            return kept
        except OSError:  # a cache that cannot be written is no reason to stop
            own = Path(_own_folder()) / f"{key}.so"
            own.write_bytes(code)
            return own


@cache
def _own_folder():
    """A folder of this process, for where there is no cache."""
    made = tempfile.TemporaryDirectory(prefix="fastsgd-traced-")
    _LOADED["folder"] = made  # taken away when the process ends
    return made.name
