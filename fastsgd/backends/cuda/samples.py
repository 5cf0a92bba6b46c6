"""Owns what a run's data are on a card: rows of samples as a program reads them, and what else all networks share."""

import numpy as np

from .layout import Layout, in_fused_loop


def rows(work, X, y, chosen):
    """{name: array} of samples X [n, d], y [n, ...] as the program wants them.

    Rows of X have the program's stride. In the fused loop a one follows the inputs where hidden biases want it, then
    the label; the general loop has y [n, labels].
    """
    if in_fused_loop(work):
        layout = Layout(work, chosen.lanes)
        wide = np.ones((len(X), layout.inputs), work.dtype)
        wide[:, :work.d] = X
        return {"X": layout.place(wide, np.reshape(y, (-1, 1)))}
    rows = np.zeros((len(X), chosen.stride), work.dtype)
    rows[:, :work.d] = X
    return {"X": rows, "y": np.array(y, work.dtype).reshape(len(X), -1)}


def data(work, chosen):
    """{name: array} of everything that is the same for all networks."""
    given = work.run.data.rows
    out = rows(work, given.X, given.y, chosen) if work.n else {}
    if not in_fused_loop(work):
        out |= {"loss_weights": work.loss_weights, "fixed": work.fixed, "teacher_weights": work.teacher_weights,
                "ends": work.ends}
    return {name: array for name, array in out.items() if array is not None}
