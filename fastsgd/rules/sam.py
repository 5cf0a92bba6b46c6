"""Owns sharpness-aware minimisation."""

from ..spec.check import Array, flag, per_network
from ..spec.record import record
from .base import Batched, Descent


@record(kw_only=True)
class SAM(Batched, Descent):
    """Sharpness-aware minimisation: the gradient is taken at w + rho g / ||g||, g that of the same samples at w.

    rho [] or [N]: radius, >= 0
    per_sample: every sample has a perturbation of its own, along its own gradient ("1-SAM"; with batch_size=None one
        full step of it); otherwise the mean gradient of the step's samples gives one perturbation ("n-SAM" if those are
        all samples)
    unit: whether the perturbation has length rho; otherwise it is rho g
    Source: Foret et al. 2021, arXiv 2010.01412; 1-SAM and n-SAM: Andriushchenko and Flammarion 2022, arXiv 2206.06232
    """

    rho: float | Array
    per_sample: bool = False
    unit: bool = True
    hypers, flags = ("rho",), ("unit",)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "rho", per_network(self.rho, "rule.rho", 0))
        for name in ("per_sample", "unit"):
            object.__setattr__(self, name, flag(getattr(self, name), f"rule.{name}"))

    def numbers(self) -> dict:
        return super().numbers() | {"rho": self.rho}

    def traits(self) -> dict:
        return super().traits() | {"perturb": "sample" if self.per_sample else "batch", "unit": self.unit}
