"""Owns the front door: one call that plans, runs and returns a result."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import SpecError
from .execute import execute
from .plan import plan as plan
from .replan import again, ready
from .result import Result
from .spec.loss import Loss
from .spec.planned import Groups, Plan, Tuning
from .spec.run import Run
from .spec.save import SaveAt
from .watch import watcher

if TYPE_CHECKING:
    from .checkpoint import Checkpoint


def train(model: Any, data: Any = None, *, rule: Any = None, step_size: Any = None, steps: int | float | None = None,
          networks: int | None = None, init: dict | None = None, order: Any = None, save: SaveAt | None = None,
          metrics: Any = (), loss: Loss | None = None, dtype: Any = "float32", backend: str = "auto",
          device: Any = None, seed: int = 0, ids: Any = None, keys: Any = None, stop: Any = (),
          progress: bool | str | Callable[[int, int, int], object] | None = None,
          checkpoint: "str | Path | Checkpoint | None" = None, tuning: Tuning | None = None) -> Result:
    """Train many small networks, each by its own trajectory, and measure them on the way.

    w_k <- w_k - eta_k(t) * mean over the batch of grad loss(h_{w_k}(x_i), y_i),   t = 0 .. T-1,  k = 0 .. N-1

    model: a family from fs.models; or a whole fs.Run or fs.plan(run), and then none of the fields below
    data, rule, step_size, steps, networks, init, order, save, metrics, loss, dtype, backend, device, seed, ids, keys,
        stop: as in fs.Run
    progress: None (silent), True (a bar on stderr), a name to stand before the bar, or a function called with
        (t, T, number lost) after each launch; where networks have batch sizes of their own, t is the mean over networks
    checkpoint: path or fs.Checkpoint. A file that holds this very run is gone on with, and a warning says from which
        step; any other file is refused. Ctrl-C, SIGTERM and SIGHUP leave the progress there
    tuning: fs.Tuning - speed choices of your own
    Returns a Result. Raises SpecError, PlanError or BackendUnavailable before anything runs.
    """
    if isinstance(model, (Run, Plan, Groups)):
        fields = (data, rule, step_size, steps, networks, init, order, save, loss, device, ids, keys)
        if any(f is not None for f in fields) or metrics or stop or (dtype, backend, seed) != ("float32", "auto", 0):
            raise SpecError("train(run): takes a Run or a Plan and no fields; change them with run.replace(...)")
        if not isinstance(model, Run) and tuning is not None:
            raise SpecError("tuning: a Plan has made its choices; give it to fs.plan(run, tuning)")
        made = model if isinstance(model, (Plan, Groups)) else ready(
            tuple(getattr(model, name) for name in Run.__dataclass_fields__), tuning, model)
    else:
        for name, value in (("data", data), ("rule", rule), ("step_size", step_size), ("steps", steps)):
            if value is None:
                raise SpecError(f"{name}: missing")
        made = ready((model, data, rule, step_size, steps, networks, init, order, save, metrics, loss, dtype, backend,
                      device, seed, ids, keys, stop), tuning)
    return _run(made, checkpoint, progress)


def _once_more(made: Any, step_size: Any, seed: int | None, init: dict | None, progress: Any, checkpoint: Any
               ) -> Result:
    return _run(again(made, step_size, seed, init), checkpoint, progress)


def _run(made: Any, checkpoint: Any, progress: Any) -> Result:
    if checkpoint is not None:
        from .checkpoint import run_with  # and with it all that a file may hold

        return run_with(made, checkpoint, progress)
    if progress is None:
        return execute(made)
    with watcher(made, progress) as watch:
        return execute(made, None, watch)


Plan._door = Groups._door = staticmethod(_once_more)  # type: ignore[method-assign]
