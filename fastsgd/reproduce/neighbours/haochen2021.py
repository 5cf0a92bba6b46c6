"""Owns HaoChen et al. 2021: label noise finds the sparse solution of a quadratic model, spherical noise does not."""

import numpy as np

from ... import metrics, models, rules
from ...losses import Squared
from ...report.figure import steps_axis
from ...spec.noise import GradientNoise, LabelNoise
from ...spec.problem import Dataset
from ...spec.save import SaveAt
from ...spec.schedule import StepSize
from ...train import train
from ..record import Reproduction, Verdict
from .page import COLOURS, FEW, band, columns, draw_band, number, sheet

NAME = "haochen2021"
TITLE = "Shape matters: the noise that finds a sparse solution (HaoChen et al. 2021, arXiv 2006.08680)"

N_SAMPLES, D, SUPPORT = 40, 100, 5
LOSS = Squared(0.25)
SIGMAS = (0.01, 0.1, 1.0)  # of the Gaussian noise on every entry of the gradient


def make(replicas=None, seed=0, progress=None, quick=False):
    """GD, label noise, minibatch noise, Gaussian noise of three sizes; `replicas` noises (4, if quick 2) of each.

    The published 3e5 steps of 0.01, divided by 10 at 1/3 and at 2/3; if quick 4e4 steps, divided at 3/4 and 7/8.
    """
    each = replicas or (2 if quick else 4)
    steps, decays = (40_000, (0.75, 0.875)) if quick else (300_000, (1 / 3, 2 / 3))
    rng = np.random.default_rng(seed)
    X, beta = rng.standard_normal((N_SAMPLES, D)), np.where(np.arange(D) < SUPPORT, 1.0, 0.0)
    data = Dataset(X, X @ beta)
    flips = LabelNoise(1.0, kind="rademacher")
    spherical = GradientNoise(np.concatenate([[0.0], np.repeat(SIGMAS, each)]))  # the first network is GD itself
    settings = {"spherical": (rules.GD(gradient_noise=spherical), 1 + each * len(SIGMAS)),
                "minibatch": (rules.SGD(), each), "label": (rules.SGD(label_noise=flips), each),
                "label_full": (rules.GD(label_noise=LabelNoise(1.0, kind="rademacher", on="one")), each)}
    results = {name: train(models.DiagonalPower(D, 2, signed=False, w0=1.0), data, rule=rule, loss=LOSS, steps=steps,
                           step_size=StepSize(np.full(N, 0.01), decay_at=[decays], decay_by=10.0),
                           metrics=(metrics.TrainLoss(), metrics.DistanceToTeacher(beta)), dtype="float64", seed=seed,
                           save=SaveAt(linear=61), progress=progress)
               for name, (rule, N) in settings.items()}
    found = _curves(results, each)
    return Reproduction(NAME, TITLE, _table(found, steps, decays), _verdicts(found), results,
                        lambda path: _draw(found, _named(each, {name: result.lost for name, result in results.items()}),
                                           results["label"].steps, path))


def _named(each, arrays):
    """{setting: [M, ...]} of {name of a result: array [N, ...]}."""
    out = {}
    for name, a in arrays.items():
        if name == "spherical":
            out["GD"] = a[:1]
            for k, sigma in enumerate(SIGMAS):
                out[f"Gaussian noise, deviation {sigma:g}"] = a[1 + k * each:1 + (k + 1) * each]
        else:
            out[{"label": "label noise, one sample a step", "minibatch": "minibatch noise alone (SGD)",
                 "label_full": "label noise on a full step"}[name]] = a
    return out


def _curves(results, each):
    """{setting: (squared distance [M, S], training loss [M, S])}."""
    far, loss = (_named(each, {name: result.numpy(of) for name, result in results.items()})
                 for of in ("distance_to_teacher", "train_loss"))
    return {name: (far[name] ** 2, loss[name]) for name in far}


def _table(found, steps, decays):
    rows = [(name, len(d), *band(d[:, -1]), band(loss[:, -1])[1], int(np.isnan(d[:, -1]).sum()))
            for name, (d, loss) in found.items()]
    return columns(TITLE, ("noise", "runs", "||v^2 - beta*||^2, 10 %", "median", "90 %", "train loss", "lost"), rows,
                   f"h = <v^2, x>, d={D}, n={N_SAMPLES}, {SUPPORT} ones in beta*, loss 1/4 mean r^2, v0 = 1, "
                   f"{steps} steps of 0.01, divided by 10 at {decays[0]:.0%} and {decays[1]:.0%}; one data set.",
                   "Label noise: +-1 with equal odds on the labels of the step. Gaussian noise: its deviation on every "
                   "entry of the gradient. Start: 95.",
                   "Published: label noise recovers beta*, GD and Gaussian noise do not.")


def _verdicts(found):
    end = {name: d[:, -1] for name, (d, _) in found.items()}
    labels = np.concatenate([d for name, d in end.items() if name.startswith("label")])
    gauss = np.concatenate([d for name, d in end.items() if name.startswith("Gauss")])
    minibatch = end["minibatch noise alone (SGD)"]
    return (
        Verdict("label noise recovers the sparse solution", bool((labels < end["GD"][0] / 100).all()),
                f"||v^2 - beta*||^2 at most {number(labels.max())} over {len(labels)} runs"),
        Verdict("gradient descent does not", bool(end["GD"][0] > 10), f"{number(end['GD'][0])}"),
        Verdict("spherical Gaussian noise does not, of any size tried", bool(np.nanmin(gauss) > 1),
                f"{number(np.nanmin(gauss))} to {number(np.nanmax(gauss))} over {len(gauss)} runs with deviations "
                f"{', '.join(f'{s:g}' for s in SIGMAS)}"),
        Verdict("minibatch noise alone helps, but dies before beta* is found",
                bool(np.nanmax(minibatch) < end["GD"][0] and np.nanmin(minibatch) > 1),
                f"{number(np.nanmin(minibatch))} to {number(np.nanmax(minibatch))}, GD {number(end['GD'][0])}"))


def _draw(found, gone, steps, path):
    note = f"median and 10 to 90 % over noises; {FEW}; dashed: GD, one run; the step size is divided by 10 twice"
    survive = {"T": steps[-1], "curves": list(zip(gone.values(), COLOURS, strict=False)), "of": "runs",
               "labels": list(gone)}
    with sheet(path, 2, TITLE, note, survive=survive) as axes:
        for (name, pair), colour in zip(found.items(), COLOURS, strict=False):
            for axis, values in zip(axes, pair, strict=True):
                draw_band(axis, steps, np.where(values > 1e-16, values, np.nan), colour,
                          **({"linestyle": "--", "zorder": 5} if name == "GD" else {}))
        for axis, label in zip(axes, ("||v^2 - beta*||^2", "training loss"), strict=True):
            axis.set_ylabel(label)
            steps_axis(axis, steps[-1], True)
