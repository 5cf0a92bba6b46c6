"""The shelf of data: generated regression problems and the systems of the source paper."""

from typing import TYPE_CHECKING

from ..shelf import on_demand

if TYPE_CHECKING:
    from ..spec.population import Population
    from ..spec.problem import Fresh, Stream
    from .paper import PaperRun, PaperSystem, paper
    from .synthetic import sparse_regression, teacher_student

__all__ = ["Fresh", "PaperRun", "PaperSystem", "Population", "Stream", "paper", "sparse_regression", "teacher_student"]

__getattr__ = on_demand(__name__, {
    ".spec.population": ("Population",), ".spec.problem": ("Fresh", "Stream"),
    "paper": ("PaperRun", "PaperSystem", "paper"), "synthetic": ("sparse_regression", "teacher_student"),
})


def __dir__() -> list[str]:
    return __all__
