"""Owns the CUDA backend: which program serves a run, its data on cards, its launches."""

from .backend import CUDA

__all__ = ["CUDA"]
