"""The shelf of model families, one file each."""

from .autoencoder import TiedAutoencoder
from .base import Model
from .diagonal import DiagonalLinear
from .function import Function, from_module
from .mlp import MLP
from .power import DiagonalPower
from .product import DiagonalProduct
from .relu2 import ReLU2

__all__ = ["MLP", "DiagonalLinear", "DiagonalPower", "DiagonalProduct", "Function", "Model", "ReLU2",
           "TiedAutoencoder", "from_module"]


def __dir__():
    return __all__
