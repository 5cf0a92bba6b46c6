"""Owns Andriushchenko et al. 2023 (SAM): sharpness-aware minimisation lowers the rank of features."""

import numpy as np

from ... import metrics, models, rules
from ...spec.problem import Dataset
from ...spec.save import SaveAt
from ...train import train
from ..record import Reproduction, Verdict
from .page import COLOURS, FEW, band, columns, draw_band, number, sheet

NAME = "andriushchenko2023sam"
TITLE = "SAM leads to low-rank features (Andriushchenko et al. 2023, arXiv 2305.16292)"

N_SAMPLES, D, TEACHER, WIDTH = 20, 3, 3, 100
ETA, STEPS = 0.01, 19953
RHOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6)
ACTIVATIONS = {"abs": np.abs, "relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}
REFERENCE = {"rank": (18, 18, 16, 12, 8), "distinct": (99, 95, 58, 26, 15), "test": (0.040, 0.011, 0.021, 0.014, 0.014)}
NAMES = {"rank": "feature_rank", "distinct": "distinct_units", "active": "active_units", "test": "test_loss",
         "train": "train_loss"}


def problem(seed, activation):
    """Unit-norm inputs and a teacher of three units with unit-norm weights and signs; 1000 test points."""
    rng = np.random.default_rng(seed)
    X, X_test, W = (a / np.linalg.norm(a, axis=1, keepdims=True)
                    for a in (rng.standard_normal((k, D)) for k in (N_SAMPLES, 1000, TEACHER)))
    signs = rng.choice((-1.0, 1.0), TEACHER)
    y, y_test = (ACTIVATIONS[activation](inputs @ W.T) @ signs for inputs in (X, X_test))
    return Dataset(X, y, X_test, y_test)


def make(replicas=None, seed=0, progress=None, quick=False):
    """Six radii x three activations x 8 data sets (if quick 2) x `replicas` starts and sample orders (4) of each."""
    sets, each = (2, replicas or 4) if quick else (8, replicas or 4)
    results, found = {}, {}
    for activation in ACTIVATIONS:
        model = models.MLP(D, WIDTH, activation=activation, W_scale=0.3, b_scale=(0.1, 0.0))
        parts = []
        for k in range(sets):
            result = results[f"{activation}_data{k}"] = train(
                model, problem(seed + k, activation), rule=rules.SAM(rho=np.repeat(RHOS, each)), step_size=ETA,
                networks=len(RHOS) * each, steps=STEPS, dtype="float64", seed=seed + k,
                metrics=(metrics.TrainLoss(), metrics.TestLoss(), metrics.FeatureRank(), metrics.DistinctUnits(),
                         metrics.ActiveUnits(0.05)), save=SaveAt(linear=1), progress=progress)
            parts.append({name: result.numpy(of)[:, -1].reshape(len(RHOS), each) for name, of in NAMES.items()})
        found[activation] = {name: np.concatenate([part[name] for part in parts], axis=1) for name in NAMES}
    return Reproduction(NAME, TITLE, _table(found, sets, each), _verdicts(found), results,
                        lambda path: _draw(found, sets, each, path))


def _medians(one):
    """{record: medians [radii]} over data sets, starts and orders that survive."""
    return {name: band(values, axis=1)[1] for name, values in one.items()}


def _table(found, sets, each):
    rows = [(f"published, abs, rho {rho:g}", REFERENCE["rank"][k], REFERENCE["distinct"][k], None, REFERENCE["test"][k],
             None, "") for k, rho in enumerate(RHOS[:len(REFERENCE["rank"])])]
    for activation, one in found.items():
        middle = _medians(one)
        rows += [(f"{activation}, rho {rho:g}", middle["rank"][k], middle["distinct"][k], middle["active"][k],
                  middle["test"][k], middle["train"][k], f"{np.isnan(one['train'][k]).mean():.0%}")
                 for k, rho in enumerate(RHOS)]
    headings = ("setting", "feature rank", "distinct units", "active units", "test loss", "train loss", "lost")
    return columns(TITLE, headings, rows,
                   f"{D}-{WIDTH}-1 with biases, n={N_SAMPLES} unit-norm inputs, teacher of {TEACHER} units, loss "
                   f"1/2 mean r^2, normalised SAM on one sample a step, eta {ETA}, {STEPS} steps; start: W 0.3, hidden",
                   f"biases 0.1. Medians over {sets} data sets x {each} starts and orders; published: one run on data "
                   "that are not known to us.",
                   "Rank: principal components for 99.99 % of the squares; distinct: correlation below 0.999; active: "
                   "above 0.05.")


def _verdicts(found):
    middle = {activation: _medians(one) for activation, one in found.items()}

    def listed(activation, name):
        return ", ".join(number(x) for x in middle[activation][name])

    out = []
    for activation in found:
        rank = middle[activation]["rank"]
        out.append(Verdict(f"SAM lowers the rank of {activation} features", bool(rank[-1] < 0.7 * rank[0]),
                           f"{listed(activation, 'rank')} at rho {', '.join(f'{r:g}' for r in RHOS)}"))
    out.append(Verdict("SAM leaves fewer distinct units, with every activation",
                       all(m["distinct"][-1] < 0.7 * m["distinct"][0] for m in middle.values()),
                       "; ".join(f"{activation} {listed(activation, 'distinct')}" for activation in found)))
    test = middle["abs"]["test"]
    out.append(Verdict("a small radius improves the test loss of abs networks", bool(test[1] < 0.6 * test[0]),
                       listed("abs", "test")))
    better = None if 0.8 < test[4] / test[0] < 1.25 else bool(test[4] < test[0])
    out.append(Verdict("and so does a radius of 0.4", better,
                       f"{number(test[0])} to {number(test[4])}; train loss there {number(middle['abs']['train'][4])}"))
    return tuple(out)


def _draw(found, sets, each, path):
    lost = {activation: int(np.isnan(one["train"]).sum()) for activation, one in found.items()}
    note = (f"median and 10 to 90 % over {sets} data sets x {each} starts and orders; {FEW}; dashed: published, abs, "
            "one run; lost: " + ", ".join(f"{count} {activation}" for activation, count in lost.items())
            + f" of {sets * each * len(RHOS)} each")
    panels = {"rank": "feature rank (99.99 %)", "distinct": "distinct units of 100", "test": "test loss"}
    with sheet(path, len(panels), TITLE, note) as axes:
        for axis, (name, label) in zip(axes, panels.items(), strict=True):
            for (activation, one), colour in zip(found.items(), COLOURS, strict=False):
                draw_band(axis, RHOS, one[name].T, colour, label=activation, marker="o", markersize=3)
            axis.plot(RHOS[:len(REFERENCE[name])], REFERENCE[name], "k--", linewidth=1, label="abs, published")
            axis.set(xlabel="radius rho of SAM", ylabel=label)
        axes[2].set_yscale("log")
        axes[0].legend(frameon=False, fontsize=8)
