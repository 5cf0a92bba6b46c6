"""Owns the names of the data shelf: generated regression problems and the systems of the source paper."""

from .paper import PaperRun, PaperSystem, paper
from .synthetic import sparse_regression, teacher_student

__all__ = ["PaperRun", "PaperSystem", "paper", "sparse_regression", "teacher_student"]
