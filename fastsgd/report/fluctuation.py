"""Owns the figure of SGD against its stochastic differential equation."""

import numpy as np

from . import look
from .figure import PANELS, band, steps_axis
from .look import COLOURS, canvas, write

KINDS = (("sgd", "SGD", COLOURS[0]), ("mean", "SDE, delta_t = mean loss", COLOURS[3]),
         ("median", "SDE, delta_t = median loss", COLOURS[2]))


def _lost(m, kind):
    """Steps of SGD at which networks were lost, -1 if they were not; the SDE takes `substeps` for each."""
    lost = m.results[kind].lost
    return lost if kind == "sgd" else np.where(lost < 0, -1, lost // m.case.substeps)


def draw(matches, path):
    """Draw to `path`. matches: a row each, with case, run, steps, results, delta and values(kind, metric)."""
    figure, axes = canvas(max(1, len(matches)), 4, 4.2, 4.2)
    for row, m in enumerate(matches):
        here = axes[4 * row:4 * row + 4]
        for axis, metric in zip(here[:3], ("train_loss", *m.case.complexity), strict=True):
            label, logarithmic = PANELS[metric]
            for k, (kind, _, colour) in enumerate(KINDS):
                band(axis, m.steps, m.values(kind, metric), colour, logarithmic, single=1,
                     linewidth=look.width(k, len(KINDS)), **look.marks(k, len(KINDS), len(m.steps)))
            axis.set_ylabel(label)
            steps_axis(axis, m.case.steps, logarithmic)
        look.survival(here[3], m.case.steps, [(_lost(m, kind), colour) for kind, _, colour in KINDS], "networks",
                      [name for _, name, _ in KINDS])
        here[1].set_title(f"net of {m.case.system}, step size {m.run.step_size:g}, decay at 50 %", fontsize=10)
    figure.suptitle("S14: SGD and its SDE on the same clock, in steps of SGD; line: median, band: 10 to 90 % over "
                    "survivors, thin: a single run", fontsize=10)
    write(figure, path)
