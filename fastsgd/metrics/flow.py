"""Owns the metric of gradient flow's integrator: how many steps it took."""

from typing import Any

import numpy as np

from ..spec.record import record
from .base import Metric


@record(eq=True)
class FlowSteps(Metric):
    """Steps of the Runge-Kutta pair so far, [N, S, 2]: those that were taken, and those that were refused and repeated.

    Each took six gradients of the mean loss. For the rule `Flow`
    """

    name: str = "flow_steps"
    needs_carried = ("taken", "refused")

    def axes(self, model: Any, data: Any) -> dict | None:
        return {f"{self.name}_kind": ("taken", "refused")}

    def compute(self, model: Any, params: dict, data: Any, loss: Any, carried: dict) -> np.ndarray:
        return np.stack([carried[name][:, 0] for name in self.needs_carried], axis=1)
