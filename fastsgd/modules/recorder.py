"""Owns what is kept along a training: loss and learning rate of each update, sparsity and rank now and then."""

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PlanError, SpecError
from ..files import whole


class Recorder:
    """Loss, learning rate, feature sparsity and Jacobian rank along one training, as arrays and as a figure.

        recorder = Recorder(optimizer, FeatureSparsity(model, layers), JacobianRank(model, output="random"))
        recorder.update(loss)       # after each loss.backward(), before the schedule's step
        recorder.measure(inputs)    # now and then: feature sparsity and rank over these inputs

    optimizer: a torch optimizer; the learning rate of its first parameter group is kept
    sparsity: a FeatureSparsity, or None
    rank: a JacobianRank, or None; it takes seconds on a deep network
    Raises SpecError for meters of another kind.
    """

    def __init__(self, optimizer: Any, sparsity: Any = None, rank: Any = None) -> None:
        for meter, verb in ((sparsity, "attach"), (rank, "over")):
            if meter is not None and not hasattr(meter, verb):
                raise SpecError(f"Recorder: {type(meter).__name__} given as a meter, expected a FeatureSparsity and a "
                                "JacobianRank")
        self.optimizer, self.sparsity, self.rank = optimizer, sparsity, rank
        self._loss, self._rate, self._step = [], [], []
        self._layers, self._ranks, self._more = [], [], []

    @property
    def updates(self) -> int:
        """Number of updates taken in."""
        return len(self._loss)

    def update(self, loss: Any) -> None:
        """Keep the loss of an update, a number or a tensor of one, and the learning rate that it is made with."""
        loss = float(loss.detach()) if hasattr(loss, "detach") else float(loss)
        self._loss.append(loss)
        self._rate.append(float(self.optimizer.param_groups[0]["lr"]))

    def measure(self, data: Any = None, **more: Any) -> Any:
        """Keep sparsity and rank over `data` at this time, and numbers of your own, the same names each time.

        data: as for `FeatureSparsity.over`; without meters none is needed. A loader is gone through once a meter
        more: e.g. test_error=3.2
        Raises PlanError for names that differ from the first time's.
        """
        if self._more and more.keys() != self._more[0].keys():
            raise PlanError(f"Recorder: {sorted(more)} given, {sorted(self._more[0])} before")
        if self.sparsity is not None:
            self._layers.append([[layer.coefficient, layer.density] for layer in self.sparsity.over(data).values()])
        if self.rank is not None:
            self._ranks.append(self.rank.over(data).rank)
        self._step.append(self.updates)
        self._more.append({name: float(value) for name, value in more.items()})

    def arrays(self) -> dict:
        """{name: array}: loss [T], learning_rate [T]; step [S] of the measurements, with sparsity [S, L], density
        [S, L], rank [S] and your own [S]; layers [L]. What was not measured is left out."""
        out = {"loss": np.array(self._loss), "learning_rate": np.array(self._rate), "step": np.array(self._step, int)}
        if self._layers:
            out["sparsity"], out["density"] = np.moveaxis(np.array(self._layers), 2, 0)
            out["layers"] = np.array(self.sparsity.layers)
        if self._ranks:
            out["rank"] = np.array(self._ranks)
        for name in (self._more[0] if self._more else ()):
            out[name] = np.array([row[name] for row in self._more])
        return out

    def save(self, path: str | Path) -> None:
        """Write the arrays as one npz file, whole or not at all."""
        with whole(path) as file:
            np.savez(file, **self.arrays())

    def draw(self, path: str | Path, smooth: Any = 50) -> Any:
        """Draw the stabilisation figure: loss, learning rate, sparsity by layer, rank. Needs matplotlib.

        smooth: updates over which the loss is averaged
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        kept = self.arrays()
        panels = [name for name in ("loss", "learning_rate", "sparsity", "rank", *(self._more[0] if self._more else ()))
                  if name in kept]
        figure = Figure(figsize=(4.2 * len(panels), 3.8), constrained_layout=True)
        FigureCanvasAgg(figure)
        for axis, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            values = kept[name]
            if name == "sparsity":
                for column, layer in zip(values.T, kept["layers"], strict=True):
                    axis.plot(kept["step"], column, marker=".", label=layer or "output")
                axis.legend(frameon=False, fontsize=8)
            elif name == "loss":
                width = max(1, min(smooth, len(values) // 10))
                means = [values[k:k + width].mean() for k in range(0, len(values), width)]
                axis.semilogy(np.arange(len(means)) * width, means)
            else:
                axis.plot(np.arange(len(values)) if name == "learning_rate" else kept["step"], values)
            axis.set_title(name.replace("_", " "))
            axis.set_xlabel("update")
            axis.grid(alpha=0.2)
        figure.savefig(path, dpi=110)
