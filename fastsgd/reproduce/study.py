"""Owns a study of one of the paper's systems: its runs in the authors' order, and each in hundreds of other orders."""

from dataclasses import dataclass

import numpy as np

from .. import metrics, models, orders, rules
from ..data import paper
from ..errors import SpecError
from ..losses import Squared
from ..spec.run import Run
from ..spec.save import SaveAt
from ..spec.schedule import StepSize, Warmup
from ..train import train

NAMES = ("S1", "S2", "S3", "S4", "S5", "S7")


@dataclass(frozen=True, eq=False)
class Curve:
    """One setting of a study.

    run: the paper's PaperRun
    steps [S]; replay {metric: [S]}, replay_lost: the authors' sample order
    orders {metric: [M, S]}, lost [M]: other sample orders, none for GD
    """

    run: object
    steps: np.ndarray
    replay: dict
    replay_lost: int
    orders: dict
    lost: np.ndarray


@dataclass(frozen=True, eq=False)
class Study:
    """A paper system, its curves, the results they came from, and how long training and metrics took."""

    system: object
    curves: tuple
    results: dict


def model_of(system):
    """The model record whose parameters a paper system starts from."""
    init, d = system.init, system.data.d
    if "u" in init:
        return models.DiagonalLinear(d)
    return models.ReLU2(d, len(init["W1"]), hidden_bias="b1" in init, output_bias="b2" in init)


def metrics_of(system):
    """The metrics that the paper reports for a system."""
    wanted = [metrics.TrainLoss()]
    if system.data.X_test is not None:
        wanted.append(metrics.TestLoss())
    wanted.append(metrics.ParameterNorm())
    if system.rank_points is not None:
        wanted.append(metrics.JacobianRank(system.rank_rtol, points=system.rank_points))
    if "u" in system.init:
        wanted += [metrics.L0(), metrics.Balancedness()]
    else:
        wanted.append(metrics.FeatureSparsity(system.sparsity_threshold))
    return wanted


def schedule_of(runs):
    """The step sizes of several PaperRuns, one network each."""
    def column(name, absent):
        return np.array([absent if getattr(run, name) is None else getattr(run, name) for run in runs], dtype=float)

    warmup = None
    if any(run.warmup_factor is not None for run in runs):
        warmup = Warmup(column("warmup_factor", 1.0), column("warmup_power", 1.0))
    return StepSize(column("step_size", None), column("decay_at", 1.0), column("decay_by", 1.0), runs[0].decay_timing,
                    warmup)


def request(system, runs, rule, order, saves, seed, replicas=1):
    """The Run that trains each of `runs` `replicas` times."""
    repeated = [run for run in runs for _ in range(replicas)]
    return Run(model_of(system), system.data, rule, schedule_of(repeated), system.steps, init=system.init, order=order,
               save=saves, metrics=metrics_of(system), loss=Squared(system.loss_factor), dtype="float64", seed=seed)


def study(name, replicas=256, saved=250, seed=0, progress=None):
    """Train every run of the paper's system `name`: SGD runs in the authors' order and in `replicas` others, GD once.

    Returns a Study. Raises SpecError for a name it does not know.
    """
    if name not in NAMES:
        raise SpecError(f"name: {name!r} given, expected one of {', '.join(NAMES)}")
    system = paper(name)
    even = np.rint(np.linspace(0, system.steps, saved)).astype(np.int64)
    saves = SaveAt(steps=np.union1d(even, [system.printed_at]))
    results, curves = {}, {}
    descent = [run for run in system.runs if run.rule == "gd"]
    stochastic = [run for run in system.runs if run.rule == "sgd"]
    if descent:
        result = results["gd"] = train(request(system, descent, rules.GD(), None, saves, seed))
        for k, run in enumerate(descent):
            curves[run.label] = _curve(run, result, k, None, None)
    if stochastic:
        replay = orders.Replay(system.order())
        first = results["authors_order"] = train(request(system, stochastic, rules.SGD(), replay, saves, seed))
        other = results["other_orders"] = train(
            request(system, stochastic, rules.SGD(), orders.PerNetwork(), saves, seed, replicas), progress=progress)
        for k, run in enumerate(stochastic):
            curves[run.label] = _curve(run, first, k, other, slice(k * replicas, (k + 1) * replicas))
    return Study(system, tuple(curves[run.label] for run in system.runs), results)


def _curve(run, result, k, other, members):
    replay = {name: a[k] for name, a in result.records.items()}
    many = {} if other is None else {name: a[members] for name, a in other.records.items()}
    lost = np.empty(0, np.int64) if other is None else other.lost[members]
    return Curve(run, result.steps, replay, int(result.lost[k]), many, lost)
