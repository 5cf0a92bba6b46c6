"""Owns the Triton backend: how a run is laid out for the portable kernels, and their launches."""

from .backend import Triton

__all__ = ["Triton"]
