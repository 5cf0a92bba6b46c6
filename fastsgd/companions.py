"""Owns companions: processes that leave one start side by side, and how far apart they are at each saved step."""

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from .errors import PlanError, SpecError
from .execute import finished, stages
from .metrics.base import norm
from .plan import one as make_plan
from .progress import fresh
from .spec.check import what_is, whole
from .spec.fields import without_ids
from .spec.planned import Tuning
from .spec.record import Record, record
from .spec.run import Run
from .watch import watcher

PART = 32 << 20  # bytes of float64 weights that are compared at a time


@record()
class Companions(Record):
    """C processes from one start, M times, compared at S saved steps.

    names [C]: of the companions; steps [C, S]: the saved steps at which they were compared
    distance [C, C, M, S]: |w_a - w_b| of all parameters
    overlap [C, C, M, S]: <w_a, w_b> / (|w_a| |w_b|), NaN where one of them is 0
    norm [C, M, S]: |w_a|
    results: of each run, in order, with all of their own records
    Where one of a pair was lost before a step, its numbers are NaN from that step on.
    """

    names: tuple
    steps: np.ndarray
    distance: np.ndarray
    overlap: np.ndarray
    norm: np.ndarray
    results: tuple

    def difference(self, record: str) -> np.ndarray:
        """[C, C, M, S, ...]: a record of the first companion minus that of the second, such as "train_loss"."""
        each = len(self.names) // len(self.results)
        values = np.concatenate([_columns(result.numpy(record), each) for result in self.results])
        return values[:, None] - values[None]

    def to_xarray(self) -> Any:
        """An xarray.Dataset with dims companion, other, set, saved. Needs xarray.

        Records that are one number, and that every run has, are there as differences, called delta_ and their name.
        """
        import xarray

        pair = ("companion", "other", "set", "saved")
        data = {"distance": (pair, self.distance), "overlap": (pair, self.overlap),
                "norm": (("companion", "set", "saved"), self.norm)}
        for name, a in self.results[0].records.items():
            if a.ndim == 2 and all(name in result.records for result in self.results):
                data[f"delta_{name}"] = pair, self.difference(name)
        return xarray.Dataset(data, coords={"companion": list(self.names), "other": list(self.names),
                                            "step": (("companion", "saved"), self.steps)})


def companions(runs: Run | Iterable[Run] | Mapping[str, Run], *, each: int = 1,
               progress: bool | str | Callable[[int, int, int], object] | None = None,
               tuning: Tuning | None = None) -> Companions:
    """Train processes side by side from one start, and compare them at their saved steps as they go.

    Only the weights of the moment are in memory. All companions start from the weights of the first one; the runs say
    what else they share. With one seed they see the same draws, with another seed other ones.

    runs: fs.Run, some of them, or {name: fs.Run}, of one model, dtype and number N of networks: SGD with two step
        sizes, GD, fs.rules.Flow, SDE, ... They are compared at their first saved steps, at their second ones, and so
        on; steps may differ (twice as many at half the step size), their number S may not
    each: so many networks next to each other in a run are companions as well: N = M each, and network m each + g is
        companion g in set m. Replicas that differ by their draws, say
    progress, tuning: as for fs.train; progress is that of the first run
    Returns Companions, with C = each times the number of runs. Raises SpecError, PlanError before anything runs.
    """
    named = _named(runs)
    each = whole(each, "each", 1)
    if len(named) * each < 2:
        raise SpecError("runs: one process given, which has no companion; give several runs, or each=... in one")
    plans = _plans(named, each, tuning)
    C, M, S = len(plans) * each, plans[0].N // each, len(plans[0].saves)
    distance, overlap = np.zeros((C, C, M, S)), np.ones((C, C, M, S))
    length = np.full((C, M, S), np.nan)
    done = [fresh(plan) for plan in plans]
    with watcher(plans[0], progress) as watch:
        going = [stages(plan, one, watch if plan is plans[0] else None) for plan, one in zip(plans, done, strict=True)]
        for s in range(S):
            for stage in going:
                next(stage)
            _compare([_columns(one.weights, each) for one in done], [_columns(one.lost, each) for one in done],
                     distance[..., s], overlap[..., s], length[..., s])
        for stage in going:  # steps after the last saved one
            next(stage, None)
    results = tuple(finished(plan, one) for plan, one in zip(plans, done, strict=True))
    names = tuple(name if each == 1 else f"{name} {g}" for name in named for g in range(each))
    steps = np.repeat([plan.saves for plan in plans], each, axis=0)
    return Companions(names, steps, distance, overlap, length, results)


def _named(runs):
    """{name: Run} of what was given, each of its own networks alone."""
    if isinstance(runs, Run):
        runs = [runs]
    if not isinstance(runs, Mapping):
        try:
            runs = {f"run {k}": run for k, run in enumerate(runs)}
        except TypeError:
            raise SpecError(f"runs: {what_is(runs)} given, expected fs.Run, several, or "
                            "{name: fs.Run}") from None
    for name, run in runs.items():
        if not isinstance(run, Run) or not isinstance(name, str):
            raise SpecError(f"runs: {name!r}: {what_is(run)} given, expected names and fs.Run")
        if run.save.of != "weights" or run.save.floor is not None:
            raise SpecError(f"runs: {name!r} saves {'the average' if run.save.floor is None else 'at the floor'}; "
                            "companions are compared by the weights themselves")
    return {name: without_ids(run) for name, run in runs.items()}


def _plans(named, each, tuning):
    """Plans of the runs, all from the start of the first."""
    (_, first), *rest = named.items()
    plan = make_plan(first, tuning)
    if plan.N % each:
        raise PlanError(f"each: {each} given, which does not divide the run's N={plan.N} networks")
    start = plan.start.reshape(-1, each, plan.start.shape[1])
    start = np.repeat(start[:, :1], each, axis=1).reshape(plan.start.shape)
    given = first.model.unflatten(start)
    plans = [plan if np.array_equal(start, plan.start) else make_plan(first.replace(init=given), tuning)]
    for name, run in rest:
        if run.model.shapes() != first.model.shapes() or run.dtype != first.dtype:
            raise PlanError(f"runs: {name!r} has another model or dtype than the first one")
        other = make_plan(run, tuning)
        if other.N != plan.N or len(other.saves) != len(plan.saves):
            raise PlanError(f"runs: {name!r} has N={other.N} networks and {len(other.saves)} saved steps, the first "
                            f"one {plan.N} and {len(plan.saves)}")
        same = np.array_equal(other.start, start)
        plans.append(other if same else make_plan(run.replace(init=given), tuning))
    return plans


def _columns(array, each):
    """[each, M, ...] of an array [M each, ...]: the companions of one run."""
    return np.moveaxis(array.reshape(-1, each, *array.shape[1:]), 1, 0)


def _compare(weights, lost, distance, overlap, length):
    """Fill distance, overlap [C, C, M] and length [C, M] from weights [each, M, P] and lost [each, M] of the runs."""
    weights, alive = [w for run in weights for w in run], [m < 0 for run in lost for m in run]
    at_once = max(1, PART // (8 * len(weights) * weights[0].shape[1]))
    for k in range(0, len(weights[0]), at_once):
        part = slice(k, k + at_once)
        own = [np.where(m[part, None], w[part].astype(np.float64), np.nan) for w, m in zip(weights, alive, strict=True)]
        for a, w in enumerate(own):
            length[a, part] = norm(w, 1)
            distance[a, a, part] = overlap[a, a, part] = np.where(alive[a][part], 0, np.nan)
            overlap[a, a, part] += np.where(length[a, part] > 0, 1, np.nan)
        for a, b in combinations(range(len(own)), 2):
            distance[a, b, part] = distance[b, a, part] = norm(own[a] - own[b], 1)
            overlap[a, b, part] = overlap[b, a, part] = _cosine(own[a], own[b], length[a, part], length[b, part])


def _cosine(a, b, lengths_a, lengths_b):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(((a / lengths_a[:, None]) * (b / lengths_b[:, None])).sum(axis=1), -1, 1)
