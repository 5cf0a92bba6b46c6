"""Owns row S14: SGD on a loss that has stabilised, against its stochastic differential equation."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .. import orders, rules
from ..data import paper
from ..report import fluctuation as picture
from ..report.table import NAMES, grid, lost_share, number, quantiles
from ..spec.save import SaveAt
from ..spec.schedule import StepSize, StepTable
from ..train import train
from .claims import FEWEST
from .record import Reproduction, Verdict
from .study import metrics_of, request

FOLLOWS = 0.8  # share of the last quarter's saved steps at which the median must lie in the other's band


@dataclass(frozen=True)
class Case:
    """A net, the run whose schedule it has, the length of the run, and SDE steps in one SGD step."""

    system: str
    run: int
    steps: int
    substeps: int
    share: int  # replicas of SGD for one of the SDE
    complexity: tuple


# S1 is cut to a fifth of its length, with the decay in the middle: at step 10000, where its 10 % run has it.
CASES = (Case("S1", 1, 20_001, 4, 8, ("rank", "l0")), Case("S7", 3, 14_126, 8, 2, ("rank", "feature_sparsity")))


LEVELS = {"mean": np.mean, "median": np.median}  # of the training losses of SGD's survivors at a step: delta_t


@dataclass(frozen=True, eq=False)
class Match:
    """SGD and the SDE on one net.

    case, run: the Case and its PaperRun
    steps [S]: saved steps of SGD
    results {kind: Result}: "sgd", and the SDE at the same times at each of LEVELS; delta {level: [S]}
    """

    case: Case
    run: object
    steps: np.ndarray
    results: dict
    delta: dict

    def values(self, kind, metric, s=slice(None)):
        """A metric [A, S] or [A] of the survivors of a kind."""
        result = self.results[kind]
        return result.records[metric][result.survived][:, s]


def match(case, options):
    """Train SGD, then the SDE at the mean and at the median training loss of SGD's survivors; None if none survives.

    The SDE takes `substeps` steps of size gamma_t = eta_t / substeps for each step of SGD, so that both have the same
    time; delta_t is constant between SGD's saved steps, as in the authors' later code.
    """
    whole = paper(case.system)
    system = replace(whole, steps=case.steps)
    run = replace(whole.runs[case.run], decay_at=0.5)
    steps = np.union1d(np.arange(0, 100, 5), np.rint(np.linspace(0, case.steps, options.saved)).astype(np.int64))
    names = {"train_loss", *case.complexity}
    wanted = [metric for metric in metrics_of(system) if metric.name in names]
    asked = request(system, [run], orders.PerNetwork(), SaveAt(steps=steps), options.seed, options.replicas, wanted)
    sgd = train(asked, progress=options.named("S14"))
    if not sgd.survived.any():
        return None
    results, delta = {"sgd": sgd}, {}
    eta = StepSize(run.step_size, run.decay_at, run.decay_by, run.decay_timing)
    fine = np.arange(case.steps * case.substeps) // case.substeps
    for name, of in LEVELS.items():
        delta[name] = of(sgd.records["train_loss"][sgd.survived], axis=0)
        level = delta[name][np.searchsorted(steps, fine, side="right") - 1]
        results[name] = train(asked.replace(
            rule=rules.SDE(sgd_step=eta, loss_level=StepTable(level)), order=None, steps=len(fine),
            step_size=replace(eta, base=eta.base / case.substeps), save=SaveAt(steps=steps * case.substeps),
            networks=max(4, options.replicas // case.share)), progress=options.named("S14"))
    return Match(case, run, steps, results, delta)


def s14(options):
    """The Reproduction of S14."""
    matches = [made for made in (match(case, options) for case in CASES) if made is not None]
    results = {f"{m.case.system}_{'sgd' if kind == 'sgd' else f'sde_{kind}'}": result
               for m in matches for kind, result in m.results.items()}
    verdicts = tuple(verdict for m in matches for level in LEVELS for verdict in _verdicts(m, level))
    title = "SGD against its SDE at the same level of the loss"
    return Reproduction("S14", title, _table(title, matches), verdicts, results, partial(picture.draw, matches))


def _table(title, matches):
    rows = []
    for m in matches:
        stop = int(np.searchsorted(m.steps, m.case.steps // 2, side="right")) - 1
        for metric in ("train_loss", *m.case.complexity):
            for kind, result in m.results.items():
                first, values = metric == "train_loss", m.values(kind, metric)
                cells = [number(np.median(values[:, s])) if len(values) else "-" for s in (0, stop // 2, stop)]
                rows.append((f"{m.case.system} net, step {m.run.step_size:g}" if first and kind == "sgd" else "",
                             NAMES[metric].removeprefix("the "), "SGD" if kind == "sgd" else f"SDE, {kind}", *cells,
                             *quantiles(m.values(kind, metric, -1)), lost_share(result.lost) if first else ""))
    substeps = ", ".join(f"{m.case.substeps} ({m.case.system})" for m in matches)
    notes = ("Medians at the start, in the middle and at the end of the large step, and quantiles at the end. SDE, "
             "mean and median: delta_t is the mean or the median training loss of SGD's survivors, constant between "
             f"saved steps. SDE steps in one of SGD: {substeps}. S1's net runs for 20001 steps, decay in the middle. "
             "Authors' numbers are not known.")
    return grid(f"S14: {title}", ("net", "metric", "of", "start", "middle", "at decay", "end", "10 %", "90 %", "lost"),
                rows, notes, 3)


def _verdicts(m, level):
    stop = m.case.steps // 2
    early, last = int(np.searchsorted(m.steps, 0.1 * stop)), (m.steps >= 0.75 * stop) & (m.steps <= stop)
    for metric in ("train_loss", *m.case.complexity):
        claim = f"{m.case.system}: the SDE at the {level} loss follows SGD in {NAMES[metric]} while the step is large"
        sgd, sde = (m.values(kind, metric) for kind in ("sgd", level))
        if min(len(sgd), len(sde)) < FEWEST:
            yield Verdict(claim, None, "too few runs survive")
            continue
        low, high = np.quantile(sgd[:, last], (0.1, 0.9), axis=0)
        middle, end = np.median(sde[:, last], axis=0), np.median(sgd[:, last], axis=0)[-1]
        inside = np.mean((middle >= low) & (middle <= high))
        yield Verdict(claim, bool(inside >= FOLLOWS), f"its median lies in SGD's 10 to 90 % band at {inside:.0%} of "
                      f"the last quarter's saved steps; at the decay {number(middle[-1])} against {number(end)}")
        if metric != "train_loss":
            start = np.median(sde[:, early])
            yield Verdict(f"{m.case.system}: along that SDE {NAMES[metric]} goes down", bool(middle[-1] < start),
                          f"median {number(start)} after a tenth of that time, {number(middle[-1])} at its end")
