"""The shelf of model families, one file each."""

from .base import Model
from .diagonal import DiagonalLinear
from .relu2 import ReLU2

__all__ = ["DiagonalLinear", "Model", "ReLU2"]
