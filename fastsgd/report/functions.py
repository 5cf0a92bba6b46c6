"""Owns the figure of fitted one-dimensional functions at several steps."""

import numpy as np

from . import look
from .figure import described, lost_of
from .look import COLOURS, canvas, write

SINGLE = 5


def draw(data, path):
    """Draw to `path`. data: study, whose curves have "fitted_function" [M, S, k]; points [k]."""
    study, x = data["study"], data["points"]
    steps = study.curves[0].steps
    across = len(steps) + 1  # at the right of each row: how many of its orders survive
    figure, axes = canvas(len(study.curves), across, 2.9, 2.9)
    y = study.system.data.y
    for row, curve in enumerate(study.curves):
        many = curve.orders["fitted_function"][curve.alive]
        for k, step in enumerate(steps):
            axis = axes[row * across + k]
            if len(many):
                low, high = np.quantile(many[:, k], (0.1, 0.9), axis=0)
                axis.fill_between(x, low, high, color=COLOURS[row], alpha=0.2, linewidth=0)
            for one in many[:SINGLE, k]:
                axis.plot(x, one, color=COLOURS[row], linewidth=0.5, alpha=0.7)
            axis.plot(x, curve.replay["fitted_function"][k], "--", color="black", linewidth=1.2)
            axis.plot(study.system.data.X[:, 0], y, "o", color="black", markersize=3.5)
            axis.set_ylim(y.min() - 1.5, y.max() + 1.5)
            stop = int(curve.run.decay_at * study.system.steps)
            axis.set_title(f"step {step}" + (", large step size" if step <= stop else ""), fontsize=9)
            axis.set_xlabel("x")
        look.survival(axes[row * across + len(steps)], study.system.steps, lost_of(study.curves)[row:row + 1])
        lost = int((curve.lost >= 0).sum())
        named = described(curve.run).replace(" growing", "\ngrowing").replace(", decay", "\ndecay")
        axes[row * across].set_ylabel(f"h(x)\n{named}\n{lost} of {len(curve.lost)} orders lost")
    figure.suptitle("S6: functions of the nets of S5 over time. Dots: data; dashed: the authors' order; thin: single "
                    "other orders; band: 10 to 90 % of them", fontsize=10)
    write(figure, path)
