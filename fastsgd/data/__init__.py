"""Owns the names of the data shelf: generated regression problems and the systems of the source paper."""

from ..spec.population import Population
from ..spec.problem import Fresh, Stream
from .paper import PaperRun, PaperSystem, paper
from .synthetic import sparse_regression, teacher_student

__all__ = ["Fresh", "PaperRun", "PaperSystem", "Population", "Stream", "paper", "sparse_regression", "teacher_student"]


def __dir__() -> list[str]:
    return __all__
