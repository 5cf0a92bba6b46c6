"""The shelf of model families, one file each; a file is imported when a name of its is asked for."""

from typing import TYPE_CHECKING

from ..shelf import on_demand

if TYPE_CHECKING:
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
FORMS = ("Dense", "Product", "Power", "Autoencoder", "Population")  # what kernels know of families, see form.py

__getattr__ = on_demand(__name__, {
    "autoencoder": ("Autoencoder", "TiedAutoencoder"), "base": ("Model",), "dense": ("Dense",),
    "diagonal": ("DiagonalLinear",), "function": ("Function", "from_module"), "mlp": ("MLP",),
    "population": ("Population",), "power": ("DiagonalPower", "Power"), "product": ("DiagonalProduct", "Product"),
    "relu2": ("ReLU2",),
})


def __dir__() -> list[str]:
    return __all__
