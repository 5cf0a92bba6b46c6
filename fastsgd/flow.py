"""Owns the front door of gradient flow: a model, data and times become a run of the rule Flow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .errors import SpecError
from .metrics import FlowSteps
from .result import Result
from .rules import Flow
from .spec.check import as_array, finite
from .spec.loss import Loss
from .spec.planned import Tuning
from .spec.run import Run
from .spec.save import SaveAt
from .spec.schedule import StepTable
from .train import train


def flow(model: Any, data: Any, times: Any, *, rtol: Any = 1e-6, atol: Any = 1e-9,
         networks: int | None = None, init: dict | None = None, metrics: Any = (), params: bool = True,
         loss: Loss | None = None, dtype: Any = "float64", backend: str = "auto", seed: int = 0, ids: Any = None,
         keys: Any = None, progress: bool | str | Callable[[int, int, int], object] | None = None,
         checkpoint: str | Path | Checkpoint | None = None, tuning: Tuning | None = None) -> Result:
    """Gradient flow dw/dt = -grad L(w) of many networks, each with its own adaptive steps, saved at given times.

    times [S] or [N, S]: > 0 and growing; weights and metrics are saved at 0 and at these. The integrator's steps end
        there. In the result they are the saved steps 0 .. S
    rtol, atol [] or [N]: what is tolerated of each step's error, see fs.rules.Flow
    params: whether weights are kept at all times, as `result.saved_params`
    networks, init, metrics, loss, dtype, backend, seed, ids, keys, progress, checkpoint, tuning: as for fs.train, which
        takes rule=fs.rules.Flow(...) with weight decay, a penalty or bounds, and the time of a step as its step size
    Returns a Result, with the record "flow_steps" [N, S + 1, 2] of steps taken and refused so far. A network whose flow
    leaves every bound is lost at the stretch in which it does. Raises SpecError, PlanError before anything runs.
    """
    times = finite(as_array(times, "times", ndim=(1, 2)), "times").astype(np.float64)
    lengths = np.diff(times, prepend=0.0, axis=-1)
    if not lengths.size or lengths.min() <= 0:
        raise SpecError(f"times: {'none' if not lengths.size else 'ones that do not grow'} given, expected times > 0, "
                        "each later than the one before")
    metrics = tuple(metrics) if isinstance(metrics, (tuple, list)) else (metrics,)
    if not any(getattr(metric, "name", None) == FlowSteps.name for metric in metrics):
        metrics = (*metrics, FlowSteps())
    S = times.shape[-1]
    run = Run(model, data, Flow(rtol=rtol, atol=atol), StepTable(lengths), S, networks, init, None,
              SaveAt(linear=S + 1, params=params), metrics, loss, dtype, backend, None, seed, ids, keys)
    return train(run, progress=progress, checkpoint=checkpoint, tuning=tuning)
