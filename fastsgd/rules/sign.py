"""Owns signed descent."""

from typing import Any

from ..spec.record import record
from .base import Batched, Descent


@record(kw_only=True)
class SignSGD(Batched, Descent):
    """Signed descent: w <- w - eta_t sign(g), with sign(0) = 0; with momentum w <- w - eta_t sign(m), m as in `SGD`.

    Of m the sign alone counts, so that the convention m <- momentum m + (1 - momentum) g ("Signum") is the same rule.
    Source: Bernstein et al. 2018, arXiv 1802.04434
    """

    flags = ("sign",)

    def traits(self) -> dict:
        return super().traits() | {"sign": True}

    def move(self, g: Any, w: Any, carried: dict, number: dict, t: int) -> Any:
        return super().move(g, w, carried, number, t).sign()
