"""Owns the ceilings as providers: peak.cpp built on the fly, timed beside the others."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path


class Absent(Exception):
    """A provider that cannot run here, with the reason: a named gap in the table."""


@cache
def library():
    """The compiled probe. Raises Absent without a compiler."""
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if compiler is None:
        raise Absent("no g++ found")
    with tempfile.TemporaryDirectory() as folder:  # a loaded library survives the removal of its file
        made = Path(folder) / "peak.so"
        command = [compiler, "-O3", "-std=c++17", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC",
                   Path(__file__).with_suffix(".cpp"), "-o", made]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Absent(f"peak.cpp does not compile: {done.stderr.strip()[-300:]}")
        probe = ctypes.CDLL(str(made))
    for name, arguments in (("fma_flops", (ctypes.c_int, ctypes.c_long, ctypes.c_int)),
                            ("copy_bytes", (ctypes.c_long, ctypes.c_int))):
        getattr(probe, name).restype, getattr(probe, name).argtypes = ctypes.c_double, arguments
    return probe


class Peak:
    """Most float32 flops a second; vectors of 256 and, where the processor has them, 512 bits; the larger is kept."""

    name, unit, first_T = "fma-peak", "flop/s", 1_000_000

    def __init__(self, cores):
        self.cores = cores
        self.variants = tuple(f"{bits} bit" for bits in (256, 512) if library().has_width(bits))
        if not self.variants:
            raise Absent("no AVX2 with FMA")

    def versions(self):
        return {}

    def prepare(self, case, N, T, variant, options):
        return lambda: library().fma_flops(int(variant.split()[0]), T, self.cores)

    def work(self, N, T, out):
        return out


class Copy(Peak):
    """Bytes read and written a second by memcpy between buffers that no cache holds."""

    name, unit, first_T = "copy", "byte/s", 4

    def __init__(self, cores):
        self.cores, self.variants = cores, ("memcpy",)
        library()

    def prepare(self, case, N, T, variant, options):
        return lambda: library().copy_bytes(T, self.cores)
