"""The shelf of update rules, one file each."""

from .base import Rule
from .gd import GD
from .sgd import SGD

__all__ = ["GD", "SGD", "Rule"]
