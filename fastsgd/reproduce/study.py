"""Owns a study of one of the paper's systems: its runs in the authors' order, and each in hundreds of other orders."""

from dataclasses import dataclass, replace

import numpy as np

from .. import metrics, models, orders, rules
from ..losses import Squared
from ..spec.run import Run
from ..spec.save import SaveAt
from ..spec.schedule import StepSize, Warmup
from ..train import train


@dataclass(frozen=True, eq=False)
class Curve:
    """One setting of a study.

    run: the paper's PaperRun
    steps [S]; replay {metric: [S]}, replay_lost: the authors' sample order (GD has none, and is here)
    orders {metric: [M, S]}, lost [M]: other sample orders, the same M for every setting; none for GD
    """

    run: object
    steps: np.ndarray
    replay: dict
    replay_lost: int
    orders: dict
    lost: np.ndarray

    @property
    def alive(self):
        """Positions [A] of the orders that survive to the end."""
        return np.flatnonzero(self.lost < 0)

    def at(self, step):
        """Index of the last saved step that is not beyond `step`."""
        return int(np.searchsorted(self.steps, step, side="right")) - 1

    def values(self, metric, step):
        """A metric [A] at the last saved step not beyond `step`: of the surviving orders, of the one run for GD."""
        if self.run.rule == "gd":
            return self.replay[metric][None, self.at(step)]
        return self.orders[metric][self.alive, self.at(step)]


@dataclass(frozen=True, eq=False)
class Study:
    """A paper system, its curves, and the results that they came from by the name of the file to write."""

    system: object
    curves: tuple
    results: dict


def model_of(system):
    """The model record whose parameters a paper system starts from."""
    init, d = system.init, system.data.d
    if "u" in init:
        return models.DiagonalLinear(d)
    if "W3" in init:
        return models.MLP(d, tuple(len(init[name]) for name in ("W1", "W2")))
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
        return [*wanted, metrics.L0(), metrics.Balancedness()]
    tau = system.sparsity_threshold
    if "W3" in system.init:
        return [*wanted, metrics.FeatureSparsity(tau, layer="hidden1", name="sparsity1"),
                metrics.FeatureSparsity(tau, layer="hidden2", name="sparsity2"),
                metrics.SpectrumEntropy(points=system.rank_points)]
    return [*wanted, metrics.FeatureSparsity(tau), metrics.ActivationDensity(), metrics.PatternDistance(),
            metrics.NuclearNorm(of="neurons" if system.data.X_test is not None else "weighted")]


def schedule_of(runs):
    """The step sizes of several PaperRuns, one network each."""
    def column(name, absent):
        return np.array([absent if getattr(run, name) is None else getattr(run, name) for run in runs], dtype=float)

    warmup = None
    if any(run.warmup_factor is not None for run in runs):
        warmup = Warmup(column("warmup_factor", 1.0), column("warmup_power", 1.0))
    return StepSize(column("step_size", None), column("decay_at", 1.0), column("decay_by", 1.0), runs[0].decay_timing,
                    warmup)


def request(system, runs, order, save, seed=0, replicas=1, wanted=None):
    """The Run that trains each of `runs`, all of one rule, `replicas` times; metrics are `wanted` or the paper's."""
    repeated = [run for run in runs for _ in range(replicas)]
    rule = rules.GD() if runs[0].rule == "gd" else rules.SGD()
    return Run(model_of(system), system.data, rule, schedule_of(repeated), system.steps, init=system.init,
               order=None if rule.full else order, save=save, metrics=metrics_of(system) if wanted is None else wanted,
               loss=Squared(system.loss_factor), dtype="float64", seed=seed)


def saved_steps(system, saved):
    """`saved` equally spaced steps, those at which a run's step size is divided, and that of the printed numbers."""
    decays = [int(run.decay_at * system.steps) for run in system.runs if run.decay_at is not None]
    even = np.rint(np.linspace(0, system.steps, saved)).astype(np.int64)
    return SaveAt(steps=np.union1d(even, [system.printed_at, *decays]))


def study(system, options, save=None, wanted=None, keep=False):
    """Train every run of a PaperSystem: GD once, SGD in the authors' order and in `options.replicas` others.

    The other orders are those of networks 0 .. replicas - 1 under the seed, the same for every run: settings can be
    compared order by order.

    save: SaveAt in place of `saved_steps`; wanted: metrics in place of the paper's
    keep: whether the runs in the authors' order keep their parameters at the saved steps
    Returns a Study.
    """
    save, results, curves = saved_steps(system, options.saved) if save is None else save, {}, []
    kept = replace(save, params=keep)
    for number, run in enumerate(system.runs, 1):
        replay = orders.Replay(system.order())
        first = results[f"run{number}"] = train(request(system, [run], replay, kept, wanted=wanted))
        other = None
        if run.rule == "sgd":
            other = results[f"run{number}_orders"] = train(
                request(system, [run], orders.PerNetwork(), save, options.seed, options.replicas, wanted),
                progress=options.named(run.label))
        curves.append(curve(run, first, other))
    return Study(system, tuple(curves), results)


def curve(run, first, other):
    """The Curve of a run from the Result of the authors' order, or of GD, and that of other orders or None."""
    replay = {name: a[0] for name, a in first.records.items()}
    many = {} if other is None else other.records
    lost = np.empty(0, np.int64) if other is None else other.lost
    return Curve(run, first.steps, replay, int(first.lost[0]), many, lost)
