"""The public names of sample orders."""

from .spec.order import Common, PerNetwork, Replay

__all__ = ["Common", "PerNetwork", "Replay"]
