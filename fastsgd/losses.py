"""The public names of losses."""

from .spec.loss import Squared

__all__ = ["Squared"]
