"""Owns the figure of loss surfaces in a plane, with the ways of several runs on it."""

import numpy as np

from . import look
from .figure import band, described, positive, steps_axis, style
from .look import COLOURS, canvas, write

SURFACES = (("train_loss", "training loss"), ("test_loss", "test loss"))


def draw(parts, path):
    """Draw to `path`. parts: a row each, with study, grid [G], surfaces {metric: [G, G]}, paths {label: [S, 2]},
    ends [A, 2] of other orders, sparse [2]."""
    figure, axes = canvas(len(parts), 5, 4.2, 4.1)
    for row, part in enumerate(parts):
        here = axes[5 * row:5 * row + 5]
        for axis, (metric, label) in zip(here, SURFACES, strict=False):
            _surface(figure, axis, part, metric, f"{part['study'].system.name}: {label} in the plane")
        for axis, (metric, label) in zip(here[2:4], SURFACES, strict=True):
            _losses(axis, part["study"], metric, label)
        look.survival(here[4], part["study"].system.steps,
                      [(curve.lost, _colour(curve.run.label)) for curve in part["study"].curves])
        here[4].legend(*here[2].get_legend_handles_labels(), loc="lower left", frameon=False, fontsize=8)
    figure.suptitle("S3: diagonal net in the plane through its start, the sparse solution and the flow's end. Lines: "
                    "the authors' order (SGD folded to |u|, |v|)\ndots: ends of the other orders that survive; star: "
                    "u = v = sqrt(beta*); right: median and 10 to 90 % over survivors, dashed the authors' order",
                    fontsize=10)
    write(figure, path)


def _surface(figure, axis, part, metric, title):
    grid, values = part["grid"], part["surfaces"][metric]
    levels = np.logspace(np.log10(values.min()) // 1, np.log10(values.max()) // 1 + 1, 25)
    from matplotlib.colors import LogNorm

    filled = axis.contourf(grid, grid, values, levels=levels, norm=LogNorm(), cmap="Greys_r")
    figure.colorbar(filled, ax=axis, format="%.0e", ticks=levels[::6], pad=0.01)
    axis.plot(*part["ends"].T, ".", color=COLOURS[3], markersize=2, alpha=0.5)
    for label, way in part["paths"].items():
        colour = _colour(label)
        axis.plot(*way.T, color=colour, linewidth=0.9)
        axis.plot(*way[-1], "o", color=colour, markersize=4, markeredgecolor="white", markeredgewidth=0.6)
    axis.plot(*part["sparse"], "*", color="white", markersize=11, markeredgecolor="black", markeredgewidth=0.7)
    axis.set_xlim(grid[0], grid[-1])
    axis.set_ylim(grid[0], grid[-1])
    axis.set_xlabel("towards the sparse solution")
    axis.set_ylabel("towards the flow's end")
    axis.set_title(title, fontsize=9)


def _colour(label):
    return COLOURS[2 if label.startswith("SGD") else 1 if label == "GD 3.0" else 0]


def _named(run):
    return "gradient flow" if run.label == "flow" else described(run, both=True)


def _losses(axis, study, metric, label):
    for curve in study.curves:
        colour = _colour(curve.run.label)
        lost = f": {int((curve.lost >= 0).sum())} of {len(curve.lost)} orders lost" if len(curve.lost) else ""
        if len(curve.lost):
            band(axis, curve.steps, curve.orders[metric][curve.alive], colour, True)
        axis.plot(curve.steps, positive(curve.replay[metric], True), color=colour, label=f"{_named(curve.run)}{lost}",
                  **style(curve))
    axis.set_ylabel(label)
    steps_axis(axis, study.system.steps, True)
