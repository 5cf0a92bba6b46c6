"""Owns what is said of the machine before anything is done with its card."""

import platform
import shutil
import subprocess
import sys
from importlib import metadata

from fastsgd.cuda import compiler, driver
from fastsgd.native import cpu_name, native

from . import REHEARSAL, begin


def main():
    begin()
    print(sys.version, platform.platform(), cpu_name())
    if shutil.which("nvidia-smi"):
        print(subprocess.run(["nvidia-smi"], capture_output=True, text=True).stdout)
    for tool in ("nvcc", "ncu", "compute-sanitizer", "g++"):
        print(tool, shutil.which(tool))
    for name in ("numpy", "torch", "triton", "jax", "jaxlib", "pytest", "pybind11", "nvidia-cuda-nvrtc"):
        tried(name, metadata.version, name)
    tried("driver", lambda: driver.driver().version)
    tried("NVRTC", lambda: (compiler.nvrtc().version, compiler.nvrtc().library._name))
    tried("CPU module", lambda: (native().isa, native().__file__))
    if not REHEARSAL:  # both import torch, which knows no card of fibers
        tried("card", _card)
        tried("bandwidth", _bandwidth)


def tried(what, function, *arguments):
    try:
        print(what, function(*arguments))
    except Exception as error:
        print(what, type(error).__name__, error)


def _card():
    import torch

    return torch.version.cuda, torch.cuda.get_device_properties(0), torch.cuda.mem_get_info()


def _bandwidth():
    """Bytes a second between host and card: pageable, and through pinned memory as Card.put sends."""
    import time

    import numpy as np
    import torch

    from fastsgd.cuda import card as cards

    array, out = np.ones(64 << 20, np.float32), {}
    ways = {"pageable": lambda: torch.from_numpy(array).cuda(), "put": lambda: cards.cards(None)[0].put(array)}
    for name, way in list(ways.items()) * 2:
        torch.cuda.synchronize()
        began = time.perf_counter()
        kept = way()
        torch.cuda.synchronize()
        out[f"{name} to the card"] = f"{array.nbytes / (time.perf_counter() - began) / 1e9:.1f} GB/s"
    began = time.perf_counter()
    kept.get()
    return out | {"get": f"{array.nbytes / (time.perf_counter() - began) / 1e9:.1f} GB/s"}


if __name__ == "__main__":
    main()
