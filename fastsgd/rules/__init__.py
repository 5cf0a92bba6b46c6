"""The shelf of update rules, one file each."""

from .adam import Adam
from .base import Descent, Rule
from .gd import GD
from .penalty import Penalty
from .sam import SAM
from .sde import SDE
from .sgd import SGD

__all__ = ["GD", "SAM", "SDE", "SGD", "Adam", "Descent", "Penalty", "Rule"]
KINDS = (SGD, GD, Adam, SAM, SDE)  # that kernels have


def __dir__():
    return __all__
