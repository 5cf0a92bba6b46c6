"""Owns the compiled modules: which instruction sets there are, which one this machine runs, and on how many threads."""

import importlib
import os
import platform
from functools import cache

from .errors import BackendUnavailable, PlanError
from .limits import MOST_THREADS, processors

ISAS = ("v4", "v3")  # x86-64 levels, best first: AVX-512, AVX2 + FMA
NEEDS = {"v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"), "v3": ("avx2", "fma", "bmi2", "movbe")}


@cache
def native(isa=None):
    """The compiled module of an instruction set, by default the best this machine has.

    The environment variable FASTSGD_ISA (v3 or v4) overrides the choice. Raises PlanError for an
    unknown name, BackendUnavailable with the reason where it cannot run.
    """
    wanted = isa or os.environ.get("FASTSGD_ISA") or None
    if wanted is not None and wanted not in ISAS:
        raise PlanError(f"{'tuning.isa' if isa else 'FASTSGD_ISA'}: {wanted!r} given, expected one of {ISAS}")
    missing = []
    for name in (wanted,) if wanted else ISAS:
        absent = [flag for flag in NEEDS[name] if flag not in cpu_flags()]
        if absent:
            missing.append(f"x86-64-{name}: this machine has no {', '.join(absent)}")
            continue
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read once, here: spinning threads starve their neighbours
        try:
            module = importlib.import_module(f"fastsgd._cpu_{name}")
        except ImportError as error:
            missing.append(f"x86-64-{name}: module not built ({error})")
            continue
        module.isa = name
        return module
    raise BackendUnavailable("no CPU kernels for this machine: " + "; ".join(missing) + ". backend='reference' runs "
                             "everywhere; `pip install --no-build-isolation -e .` with g++ builds the kernels.")


@cache
def cpu_flags():
    """Names of the instruction-set extensions the operating system reports."""
    try:
        with open("/proc/cpuinfo") as info:
            return frozenset(next(line for line in info if line.startswith(("flags", "Features"))).split())
    except (OSError, StopIteration):
        return frozenset()


@cache
def cpu_name():
    """What the operating system calls the processor."""
    try:
        with open("/proc/cpuinfo") as info:
            return next(line for line in info if line.startswith("model name")).split(":")[1].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def default_threads():
    """FASTSGD_THREADS or OMP_NUM_THREADS if set, else the processors this process may use, its CPU quota included.

    OMP_NUM_THREADS may be a list, one number a level of nesting, as OpenMP says; the first is ours.
    """
    for name in ("FASTSGD_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text:
            first = (text.split(",")[0] if name == "OMP_NUM_THREADS" else text).strip()
            if not (first.isascii() and first.isdecimal() and len(first) < 9 and 1 <= int(first) <= MOST_THREADS):
                raise PlanError(f"{name}={text[:80]!r}: expected a whole number >= 1 and <= {MOST_THREADS}")
            return int(first)
    return min(processors(), MOST_THREADS)
