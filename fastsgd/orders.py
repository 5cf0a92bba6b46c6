"""The public names of sample orders."""

from .spec.loader import loader
from .spec.order import Common, PerNetwork, Replay, Reshuffle

__all__ = ["Common", "PerNetwork", "Replay", "Reshuffle", "loader"]


def __dir__() -> list[str]:
    return __all__
