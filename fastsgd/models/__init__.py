"""The shelf of model families, one file each."""

from .autoencoder import Autoencoder, TiedAutoencoder
from .base import Model
from .dense import Dense
from .diagonal import DiagonalLinear
from .function import Function, from_module
from .mlp import MLP
from .population import Population
from .power import DiagonalPower, Power
from .product import DiagonalProduct, Product
from .relu2 import ReLU2

__all__ = ["MLP", "DiagonalLinear", "DiagonalPower", "DiagonalProduct", "Function", "Model", "ReLU2",
           "TiedAutoencoder", "from_module"]
FORMS = (Dense, Product, Power, Autoencoder, Population)  # what kernels know of families, see form.py


def __dir__() -> list[str]:
    return __all__
