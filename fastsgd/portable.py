"""Owns how the Triton kernels are found: as the package fastsgd.kernels, or in kernels/ beside the source."""

import os
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

from .errors import BackendUnavailable

PACKAGE = "fastsgd.kernels"


def interpreted():
    """Whether Triton interprets its kernels, on CPU tensors: TRITON_INTERPRET=1 before anything imports triton."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


@cache
def kernels():
    """The package of kernels. Raises BackendUnavailable where triton or the package is missing."""
    if find_spec("triton") is None:
        raise BackendUnavailable("triton is not installed; `pip install fastsgd[triton]` brings it, and so does a "
                                 "torch built for CUDA or ROCm")
    if PACKAGE not in sys.modules and find_spec(PACKAGE) is None:
        folder = Path(__file__).resolve().parent.parent / "kernels"
        if not (folder / "__init__.py").exists():
            raise BackendUnavailable(f"the Triton kernels are neither installed as {PACKAGE} nor in {folder}")
        spec = spec_from_file_location(PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)])
        sys.modules[PACKAGE] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[PACKAGE])
    return import_module(PACKAGE)


def why_none():
    """None, or what is missing to run Triton kernels here."""
    try:
        kernels()
    except BackendUnavailable as error:
        return str(error)
    import torch

    if interpreted() or torch.cuda.is_available():
        return None
    return "torch finds no GPU here; TRITON_INTERPRET=1 interprets the kernels on the CPU, for tests"


def kernel(name):
    """A module of kernels by its name there, e.g. "models.diagonal"."""
    kernels()
    return import_module(f"{PACKAGE}.{name}")
