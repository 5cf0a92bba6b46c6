"""Owns the figure of a study: each metric against the step, median and band over survivors, with some single runs."""

from pathlib import Path

import numpy as np

from ..files import whole

PANELS = {  # metric -> (axis label, logarithmic)
    "train_loss": ("training loss", True), "test_loss": ("test loss", True), "rank": ("Jacobian rank", False),
    "l0": ("l0: #{|u_j v_j| > 1e-50}", False), "feature_sparsity": ("feature sparsity coefficient", False),
    "sparsity1": ("feature sparsity, layer 1", False), "sparsity2": ("feature sparsity, layer 2", False),
    "spectrum_entropy": ("entropy of the feature spectrum", False),
}
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")  # Okabe and Ito, told apart by everyone
SINGLE = 3  # single runs drawn beside each band
BAND = ("line: median, band: 10 to 90 % over the sample orders that survive to the end; thin: single orders; dashed: "
        "the authors' order")


def canvas(rows, columns, width, height):
    """(figure, axes [rows * columns], close(figure, path)) on a backend that needs no screen. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=(width * columns, height * rows), constrained_layout=True,
                                   squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)

    def close(figure, path):
        write(figure, path)
        pyplot.close(figure)

    return figure, axes.reshape(-1), close


def write(figure, path):
    """Write a figure in the format that its name ends in (png, pdf, svg), whole or not at all."""
    with whole(path) as file:
        figure.savefig(file, dpi=130, format=Path(path).suffix[1:] or "png")


def draw(study, path):
    """Draw a Study to `path` (png, pdf or svg). Needs matplotlib."""
    from matplotlib.lines import Line2D

    panels = [name for name in PANELS if name in study.curves[0].replay]
    rows = -(-len(panels) // 4)
    figure, axes, close = canvas(rows, -(-len(panels) // rows), 4.1, 4.6 if rows == 1 else 3.9)
    for axis, metric in zip(axes, panels, strict=False):
        label, logarithmic = PANELS[metric]
        for colour, curve in zip(COLOURS, study.curves, strict=False):
            _curve(axis, curve, metric, colour, logarithmic)
        axis.set_ylabel(label)
        steps_axis(axis, study.system.steps, logarithmic)
    for axis in axes[len(panels):]:
        axis.remove()
    handles = [Line2D([], [], color=colour, label=_legend(curve))
               for colour, curve in zip(COLOURS, study.curves, strict=False)]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(f"{study.system.name}: {study.system.title}\n{BAND}", fontsize=10)
    close(figure, path)


def steps_axis(axis, T, logarithmic):
    """The look of a panel against the step."""
    axis.set_xlabel("step")
    axis.set_xlim(0, T)
    if logarithmic:
        axis.set_yscale("log")
    axis.ticklabel_format(axis="x", style="sci", scilimits=(0, 4))
    axis.grid(alpha=0.2)


def band(axis, steps, values, colour, logarithmic, single=SINGLE):
    """Median, 10 to 90 % and some single runs of values [M, S]; nothing for M = 0."""
    if not len(values):
        return
    low, middle, high = (positive(q, logarithmic) for q in np.quantile(values, (0.1, 0.5, 0.9), axis=0))
    axis.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    axis.plot(steps, middle, color=colour, linewidth=1.8)
    for one in values[:single]:
        axis.plot(steps, positive(one, logarithmic), color=colour, linewidth=0.5, alpha=0.6)


def positive(values, logarithmic):
    """The values, those that a logarithmic axis cannot show left out."""
    return np.where(values > 0, values, np.nan) if logarithmic else values


def _curve(axis, curve, metric, colour, logarithmic):
    if len(curve.lost):
        band(axis, curve.steps, curve.orders[metric][curve.alive], colour, logarithmic)
    axis.plot(curve.steps, positive(curve.replay[metric], logarithmic), color=colour, **style(curve))


def style(curve):
    """The line of the run that is no other order: dashed for the authors' order, full for GD, which has none."""
    return {"linewidth": 0.9, "linestyle": "--"} if len(curve.lost) else {"linewidth": 1.8, "linestyle": "-"}


def _legend(curve):
    if not len(curve.lost):
        return f"{curve.run.label} (one run: no sampling)"
    ends = "" if curve.replay_lost < 0 else f"; the authors' order is lost at step {curve.replay_lost}"
    return f"{curve.run.label}: {int((curve.lost >= 0).sum())} of {len(curve.lost)} orders lost{ends}"
