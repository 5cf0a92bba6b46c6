"""Owns the stochastic differential equation of SGD on a loss that has stabilised."""

from typing import Any

import numpy as np

from ..errors import SpecError
from ..spec.check import real
from ..spec.noise import LabelNoise, amplitude, lengths
from ..spec.record import record
from .gd import GD


@record(kw_only=True)
class SDE(GD):
    """Small-step gradient descent with Jacobian-shaped noise, an Euler-Maruyama discretisation of SGD's diffusion.

    w <- w - gamma grad L(w) + sqrt(gamma intensity eta_t delta_t / n) phi_w(X)^T z,   z ~ N(0, I_n)

    gamma is the run's `step_size`, small. With loss c r^2 the covariance of SGD's steps on residuals of equal size is
    matched by intensity = 4 c (2 for c = 1/2), the default. Losses with weights are refused.

    sgd_step: eta_t, the step size of the SGD run that is modelled: a number or [N] >= 0, an fs.StepSize, or a table
        [1, T] or [N, T]
    loss_level: delta_t, that run's training loss, likewise
    intensity: > 0, or None for the matched one
    Source: arXiv 2210.05337, equation (8)
    """

    sgd_step: object
    loss_level: object
    intensity: float | None = None
    whole_run = True

    def __post_init__(self):
        super().__post_init__()
        if self.label_noise is not None:
            raise SpecError("rule.label_noise: given, but SDE makes its own; use fs.rules.GD(label_noise=...)")
        for name in ("sgd_step", "loss_level"):
            object.__setattr__(self, name, amplitude(getattr(self, name), f"rule.{name}"))
        if self.intensity is not None:
            object.__setattr__(self, "intensity", real(self.intensity, "rule.intensity", 0, low_open=True))

    def noises(self) -> dict:
        return super().noises() | {"label_noise": LabelNoise(1.0)}

    def lengths(self) -> dict[str, int]:
        return (super().lengths() | lengths(self.sgd_step, "rule.sgd_step")
                | lengths(self.loss_level, "rule.loss_level"))

    def refuse(self, run: Any) -> str | None:
        if not hasattr(run.loss, "noisy"):
            return f"SDE is for squared losses, {type(run.loss).__name__} given"
        if run.loss.weights is not None:
            return "SDE has the same noise on every output, this loss has weights; use Squared(factor)"
        for name in ("sgd_step", "loss_level"):
            steps = getattr(getattr(self, name), "steps", run.steps)
            if steps != run.steps:
                return f"the table of {name} has {steps} steps, the run has T={run.steps}"
        return super().refuse(run)

    def noise_schedule(self, name: str, run: Any, population: int) -> tuple:
        if name != "label_noise":
            return super().noise_schedule(name, run, population)
        # Noise sigma_t on every label moves the weights by gamma (2 c sigma_t / n) phi^T z.
        c = np.reshape(run.loss.factor, (-1, 1))  # [N, 1], or [1, 1]
        scale = (4 * c if self.intensity is None else self.intensity) * run.data.n / (2 * c)**2
        parts = [a.compile(population, run.steps) for a in (self.sgd_step, self.loss_level, run.step_size)]

        def table(t0, t1):
            eta, delta, gamma = (base[:, None] * values(t0, t1)[row] for base, row, values in parts)
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(gamma > 0, np.sqrt(scale * eta * delta / gamma), 0.0)

        return np.ones(population), np.arange(population, dtype=np.int32), table
