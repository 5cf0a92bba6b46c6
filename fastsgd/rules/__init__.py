"""The shelf of update rules, one file each."""

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
KINDS = (SGD, GD, Adam, SAM, SDE, SignSGD, Lion, RMSProp, Adagrad, Muon, Flow, Function)  # that kernels have


def __dir__() -> list[str]:
    return __all__
