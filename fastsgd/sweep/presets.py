"""Owns two sweeps that people ask for: the phase diagram of a two-layer teacher-student, and a grid of grokking."""

import numpy as np

from .. import losses, metrics, models, rules
from ..data import paper
from ..errors import SpecError
from ..spec.check import near
from ..spec.problem import Dataset
from ..spec.run import Run
from ..spec.save import SaveAt
from ..spec.schedule import StepSize
from .request import Sweep


def phase(replicas=256):
    """Step size x decay time x start scale of row S7 of arXiv 2210.05337, with drawn starts and orders.

    The paper's data (15 points of a ReLU teacher in the plane), width and length; the step is divided by 4 at the
    decay; a network starts from Gaussian weights; the start scale is the deviation of those of the hidden layer.
    """
    system = paper("S7")
    width, hidden_bias, output_bias = len(system.init["W1"]), "b1" in system.init, "b2" in system.init
    base = Run(models.ReLU2(2, width, hidden_bias, output_bias), system.data, rules.SGD(),
               StepSize(0.1, decay_at=0.5, decay_by=4.0), system.steps, save=SaveAt(linear=21), dtype="float64",
               loss=losses.Squared(system.loss_factor),
               metrics=[metrics.TrainLoss(), metrics.TestLoss(),
                        metrics.JacobianRank(system.rank_rtol, points=system.rank_points),
                        metrics.FeatureSparsity(system.sparsity_threshold)])
    return Sweep(base, grid={"step_size": np.geomspace(0.05, 0.8, 16),
                             "step_size.decay_at": np.array([0.1, 0.3, 0.5, 0.9]),
                             "model.W1_scale": np.array([0.1, 0.25, 0.5, 1.0])}, replicas=replicas)


def addition(p, share, seed=0):
    """The Dataset of a + b mod p: pairs (a, b) as two unit vectors, the sum's class; a `share` of them to train on."""
    a, b = (x.reshape(-1) for x in np.meshgrid(np.arange(p), np.arange(p)))
    X = np.concatenate([np.eye(p)[a], np.eye(p)[b]], axis=1)
    y, order = (a + b) % p, np.random.default_rng(seed).permutation(p * p)
    n = int(share * p * p)
    return Dataset(X[order[:n]], y[order[:n]], X[order[n:]], y[order[n:]]).astype("float32")


def grokking(replicas=8):
    """Weight decay x step size x width x start of AdamW on addition mod 11, full batches: who generalises, and when.

    Two layers with square activation and cross-entropy on 70 % of the 121 pairs. The fit of the training set comes
    within 100 steps; that of the other pairs much later, earlier with more weight decay, or never.
    Sources: Power et al. 2022, arXiv 2201.02177; Gromov 2023, arXiv 2301.02679
    """
    p = 11
    base = Run(models.MLP(2 * p, 32, outputs=p, activation="square", bias=False), addition(p, 0.7),
               rules.Adam(batch_size=None, decoupled=True, weight_decay=0.1, beta2=0.98), 0.01, 4000,
               save=SaveAt(log=25), loss=losses.CrossEntropy(), dtype="float32",
               metrics=[metrics.TrainLoss(), metrics.TestLoss(), metrics.TrainAccuracy(), metrics.TestAccuracy()])
    return Sweep(base, grid={"rule.weight_decay": np.array([0.01, 0.1, 0.3, 1.0, 3.0]),
                             "step_size": np.geomspace(1e-3, 3e-2, 5), "model.widths": [32, 64]}, replicas=replicas)


PRESETS = {"phase": phase, "grokking": grokking}


def preset(name, replicas=None):
    """The Sweep of a preset. Raises SpecError for another name."""
    if name not in PRESETS:
        raise SpecError(f"preset: {name!r} given, expected {' or '.join(PRESETS)}{near(name, PRESETS)}")
    return PRESETS[name]() if replicas is None else PRESETS[name](replicas)
