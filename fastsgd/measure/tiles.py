"""Owns where metrics of the Triton backend are measured: on its device, by the kernels of kernels/metrics."""

import numpy as np

from ..backends.triton.backend import device_of, on
from .host import Place, on_host
from .registry import kernels_of

PART = 64 << 20  # bytes of activations or Gram matrices at a time


class Tiles(Place):
    """Measures on the run's device, or on the host without a kernel. device, plan, slots: of the state in hand."""

    def __init__(self, work, N):
        super().__init__(work, N)
        self.host, self.plan = on_host(work, N), None

    def explain_metric(self, metric):
        return kernels_of(metric).explain_tiles(metric, self.work) or self.host.explain_metric(metric)

    def begin(self, plan):
        import torch

        self.host.begin(plan)
        self.plan, self.device = plan, device_of(plan.run)
        self.slots = torch.from_numpy(self.work.packing.slots.copy()).to(self.device)
        return self

    def measure_state(self, state, metric, positions):
        import torch

        return self._measured(metric, lambda: state.W[torch.from_numpy(positions).to(self.device)])

    def measure(self, metric, weights):
        import torch

        values = self._measured(metric, lambda: torch.from_numpy(
            self.work.packing.pack(np.asarray(weights))).to(self.device))
        return self.host.measure(metric, weights) if values is None else values

    def _measured(self, metric, rows):
        """Records of networks rows() [M, width], like W of a state; None where there is no kernel."""
        function = kernels_of(metric).on_tiles(metric, self.work)
        if function is None:
            return None
        with on(self.device):
            return function(self, metric, rows())

    def put(self, array, dtype=None):
        """An array as a tensor on the device."""
        import torch

        return torch.from_numpy(np.array(array, dtype, order="C")).to(self.device)

    def by_parts(self, function, rows, bytes_each):
        """function(parameters {name: [m, ...]}, float64 tensors on the device) of all rows, some at a time."""
        step = max(1, int(PART // max(1, bytes_each)))
        parts = (rows[k:k + step, self.slots].double() for k in range(0, len(rows), step))
        return np.concatenate([function(self.work.run.model.unflatten(part)) for part in parts])
