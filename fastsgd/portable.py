"""Owns how the Triton kernels are found: as the package fastsgd.kernels, or in kernels/ beside the source."""

import os
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

from .errors import BackendUnavailable

PACKAGE = "fastsgd.kernels"
BESIDE = Path(__file__).resolve().parent.parent / "kernels"
NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of the drivers of NVIDIA, AMD, and WSL


def interpreted():
    """Whether Triton interprets its kernels, on CPU tensors: TRITON_INTERPRET=1 before anything imports triton."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


def why_none():
    """None, or what is missing to run Triton kernels here. Where no driver is, nothing heavy is imported to say so."""
    missing = _not_installed()
    if missing or interpreted():
        return missing
    if any(map(os.path.exists, NODES)):
        import torch

        if torch.cuda.is_available():
            return None
    return "torch finds no GPU here; TRITON_INTERPRET=1 interprets the kernels on the CPU, for tests"


@cache
def _not_installed():
    """None, or what is not installed; looked for once, every run asks."""
    if find_spec("triton") is None:
        return ("triton is not installed; `pip install fastsgd[triton]` brings it, and so does a torch built for CUDA "
                "or ROCm")
    if PACKAGE not in sys.modules and find_spec(PACKAGE) is None and not (BESIDE / "__init__.py").exists():
        return f"its kernels are neither installed as {PACKAGE} nor in {BESIDE}"
    return None


@cache
def kernels():
    """The package of kernels; it needs triton, no GPU. Raises BackendUnavailable where either is missing."""
    missing = _not_installed()
    if missing:
        raise BackendUnavailable(missing)
    if PACKAGE not in sys.modules and find_spec(PACKAGE) is None:
        spec = spec_from_file_location(PACKAGE, BESIDE / "__init__.py", submodule_search_locations=[str(BESIDE)])
        sys.modules[PACKAGE] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[PACKAGE])
    return import_module(PACKAGE)


def kernel(name):
    """A module of kernels by its name there, e.g. "models.diagonal"."""
    kernels()
    return import_module(f"{PACKAGE}.{name}")
