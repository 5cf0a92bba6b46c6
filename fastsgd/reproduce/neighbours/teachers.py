"""Owns averages over teachers: row S7 of arXiv 2210.05337 with a teacher and data for each network, in one call."""

import numpy as np

from ...data import paper, teacher_student
from ...metrics import FeatureSparsity, JacobianRank, TestLoss, TrainLoss
from ...orders import PerNetwork
from ...report.figure import described, steps_axis
from ...report.look import width
from ...spec.problem import Dataset
from ...spec.save import SaveAt
from ...train import train
from ..record import Reproduction, Verdict
from ..study import request
from .page import COLOURS, FEW, band, columns, draw_band, number, sheet

NAME = "teachers"
TITLE = "S7 over many teachers (Andriushchenko et al. 2022, arXiv 2210.05337, section 5)"

FEWEST = 30  # teachers that a share is judged on


def make(replicas=None, seed=0, progress=None, quick=False):
    """The four step sizes of S7 for each of `replicas` teachers (256, 32 if quick), each with data of its own."""
    system, K = paper("S7"), replicas or (32 if quick else 256)
    made = [teacher_student(system.data.n, 2, 3, n_test=200, seed=10_000 * seed + k) for k in range(K)]
    data = Dataset(*(np.stack([getattr(one, name) for one in made]) for name in ("X", "y", "X_test", "y_test")),
                   which=np.tile(np.arange(K), len(system.runs)))
    wanted = (TrainLoss(), TestLoss(), JacobianRank(1e-4), FeatureSparsity(system.sparsity_threshold))
    save = SaveAt(linear=12 if quick else 30)
    run = request(system, system.runs, PerNetwork(), save, seed, K, wanted)  # from the start of the paper's net
    result = train(run.replace(data=data, keys=data.which), progress=progress)  # a teacher's networks share an order
    return Reproduction(NAME, TITLE, _table(system, result), tuple(_verdicts(system, result)), {"runs": result},
                        lambda path: _draw(system, result, path))


def _of(system, result, name):
    """A record [settings, K, S], NaN where a network was lost."""
    return result.numpy(name).reshape(len(system.runs), -1, len(result.steps))


def _lost(system, result):
    return result.lost.reshape(len(system.runs), -1) >= 0


def _table(system, result):
    rows, lost = [], _lost(system, result)
    for k, run in enumerate(system.runs):
        cells = []
        for name in ("train_loss", "test_loss", "rank", "feature_sparsity"):
            low, middle, high = band(_of(system, result, name)[k, :, -1:])
            cells.append(f"{number(middle[0])} ({number(low[0])} .. {number(high[0])})")
        rows.append((run.label, f"{lost[k].mean():.0%}", *cells))
    K = lost.shape[1]
    return columns(TITLE, ("step size, decay", "lost", "training loss", "test loss", "rank", "feature sparsity"), rows,
                   f"{K} teachers of 3 units, {system.data.n} points each, {system.steps} steps, the start of the "
                   "paper's net, a sample order for each teacher.", "Medians and 10 .. 90 % over the teachers whose "
                   "network was not lost.")


def _verdicts(system, result):
    lost, sparsity, test = _lost(system, result), _of(system, result, "feature_sparsity"), _of(
        system, result, "test_loss")
    rank = np.nanmedian(_of(system, result, "rank")[:, :, -1], axis=1)
    end = np.nanmedian(sparsity[:, :, -1], axis=1)

    def each(values):
        return ", ".join(f"{run.label}: {number(x)}" for run, x in zip(system.runs, values, strict=True))

    yield Verdict("large steps leave sparser features and a lower rank than the small one",
                  bool((end[1:] < end[0]).all() and (rank[1:] < rank[0]).all()),
                  f"median feature sparsity at the end {each(end)}; rank {each(rank)}")
    yield Verdict("the longer the large step, the sparser the features", bool((np.diff(end) < 0).all()),
                  f"median feature sparsity at the end {each(end)}")
    both = ~lost[0] & ~lost[-1]
    better = (test[-1, :, -1] < test[0, :, -1])[both]
    yield Verdict("networks of the longest large step generalise better than those of the small one",
                  bool(better.mean() > 0.5) if len(better) >= FEWEST else None,
                  f"for {better.mean():.0%} of the {both.sum()} teachers whose networks are kept by both")
    yield Verdict("the small step loses no network, the large one some", bool(not lost[0].any() and lost[-1].any()),
                  f"{lost[0].mean():.0%} and {lost[-1].mean():.0%} of {lost.shape[1]} are lost")


def _draw(system, result, path):
    lost = result.lost.reshape(len(system.runs), -1)
    note = f"median and 10 to 90 % over those of {lost.shape[1]} teachers whose network is not lost; {FEW}"
    survive = {"T": system.steps, "curves": list(zip(lost, COLOURS, strict=False)), "of": "networks",
               "labels": [described(run) for run in system.runs]}
    with sheet(path, 4, TITLE, note, (3.8, 3.9), survive) as axes:
        for axis, name, words in zip(axes, ("train_loss", "test_loss", "rank", "feature_sparsity"), (
                "training loss", "test loss", "rank of the Jacobian", "feature sparsity"), strict=True):
            values = _of(system, result, name)
            for k, colour in zip(range(len(system.runs)), COLOURS, strict=False):
                draw_band(axis, result.steps, values[k], colour, linewidth=width(k, lost.shape[0]))
            axis.set_ylabel(words)
            steps_axis(axis, system.steps, name.endswith("loss"))
