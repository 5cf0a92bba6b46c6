"""Owns what a run's data are on a card: rows of samples as a program reads them, and what else all networks share."""

import numpy as np

from . import general
from .cuda_programs import Layout, in_fused_loop


def samples(run, X, y, chosen):
    """{name: array} of samples X [n, d], y [n, ...] as the program wants them.

    Rows of X have the program's stride, zeros behind. In the fused loop a one follows the inputs where hidden biases
    want it, then the label; the general loop has y [n, labels].
    """
    rows = np.zeros((len(X), chosen.stride), run.dtype)
    rows[:, :run.data.d] = X
    if not in_fused_loop(run):
        return {"X": rows, "y": np.array(y, run.dtype).reshape(len(X), -1)}
    layout = Layout(run, chosen.lanes)
    rows[:, run.data.d:layout.inputs] = 1
    rows[:, layout.label:layout.label + (layout.lanes if layout.spreads else 1)] = np.reshape(y, (-1, 1))
    layout.pack(rows)
    return {"X": rows}


def data(run, chosen):
    """{name: array} of everything that is the same for all networks."""
    given = run.data
    out = samples(run, given.X, given.y, chosen) if given.n else {}
    if in_fused_loop(run):
        return out
    weights, fixed = getattr(run.loss, "weights", None), general.fixed(run.model)
    if weights is not None:
        out["loss_weights"] = np.asarray(weights, run.dtype)
    if fixed is not None:
        out["fixed"] = fixed
    if getattr(given, "teacher", None) is not None:
        out["taught"] = given.teacher.flatten(given.weights, 1, "data.weights").astype(run.dtype)
    return out
