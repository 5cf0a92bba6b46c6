"""The shelf of update rules, one file each; a file is imported when a name of its is asked for."""

from typing import TYPE_CHECKING

from ..shelf import on_demand

if TYPE_CHECKING:
    from .adam import Adam
    from .base import Descent, Rule
    from .flow import Flow
    from .function import Function
    from .gd import GD
    from .lion import Lion
    from .localisation import Localisation
    from .muon import Muon
    from .penalty import Penalty
    from .sam import SAM
    from .scaled import Adagrad, RMSProp
    from .sde import SDE
    from .sgd import SGD
    from .sign import SignSGD

__all__ = ["GD", "SAM", "SDE", "SGD", "Adagrad", "Adam", "Descent", "Flow", "Function", "Lion", "Localisation", "Muon",
           "Penalty", "RMSProp", "Rule", "SignSGD"]
KINDS = ("SGD", "GD", "Adam", "SAM", "SDE", "SignSGD", "Lion", "RMSProp", "Adagrad", "Muon", "Flow",
         "Function")  # that kernels have

__getattr__ = on_demand(__name__, {
    "adam": ("Adam",), "base": ("Descent", "Rule"), "flow": ("Flow",), "function": ("Function",), "gd": ("GD",),
    "lion": ("Lion",), "localisation": ("Localisation",), "muon": ("Muon",), "penalty": ("Penalty",), "sam": ("SAM",),
    "scaled": ("Adagrad", "RMSProp"), "sde": ("SDE",), "sgd": ("SGD",), "sign": ("SignSGD",),
})


def __dir__() -> list[str]:
    return __all__
