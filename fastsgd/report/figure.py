"""Owns the figure of a study: each metric against the step, median and band over survivors, with some single runs."""

import numpy as np

from . import look
from .look import COLOURS, canvas, write

PANELS = {  # metric -> (axis label, logarithmic)
    "train_loss": ("training loss", True), "test_loss": ("test loss", True), "rank": ("Jacobian rank", False),
    "l0": ("l0: #{|u_j v_j| > 1e-50}", False), "feature_sparsity": ("feature sparsity coefficient", False),
    "sparsity1": ("feature sparsity, layer 1", False), "sparsity2": ("feature sparsity, layer 2", False),
    "spectrum_entropy": ("entropy of the feature spectrum", False),
}
FEWEST = 3  # networks of which a median says something; fewer are drawn one by one
SINGLE = 3  # single runs drawn beside each band
BAND = ("line: median, band: 10 to 90 % over the sample orders that survive to the end; thin: single orders; dashed: "
        "the authors' order")


def draw(study, path):
    """Draw a Study to `path` (png, pdf or svg). Needs matplotlib."""
    from matplotlib.lines import Line2D

    curves, T = study.curves, study.system.steps
    panels = [name for name in PANELS if name in curves[0].replay]
    survive = any(len(curve.lost) for curve in curves)
    rows = max(1, -(-(len(panels) + survive) // 4))
    figure, axes = canvas(rows, -(-(len(panels) + survive) // rows), 4.1, 4.6 if rows == 1 else 3.9)
    for axis, metric in zip(axes, panels, strict=False):
        label, logarithmic = PANELS[metric]
        for k, curve in enumerate(curves):
            _curve(axis, curve, metric, k, len(curves), logarithmic)
        axis.set_ylabel(label)
        steps_axis(axis, T, logarithmic)
    if survive:
        look.survival(axes[len(panels)], T, lost_of(curves))
    both = len({curve.run.rule for curve in curves}) > 1
    handles = [Line2D([], [], color=COLOURS[k], label=_legend(curve, both), **look.marks(k, len(curves), 1)
                      | {"markevery": 1}) for k, curve in enumerate(curves)]
    look.legend(figure, axes[len(panels) + survive:], handles)
    figure.suptitle(f"{study.system.name}: {study.system.title}\n{BAND}", fontsize=10)
    write(figure, path)


def steps_axis(axis, T, logarithmic):
    """The look of a panel against the step."""
    axis.set_xlabel("step")
    look.plain_steps(axis, T)
    if logarithmic:
        axis.set_yscale("log")
    axis.grid(alpha=0.2)


def band(axis, steps, values, colour, logarithmic, single=SINGLE, **line):
    """Median, 10 to 90 % and some single runs of values [M, S]; of fewer than FEWEST the single runs, dotted.

    line: of the median, in place of its usual look
    """
    if len(values) < FEWEST:
        for one in values:
            axis.plot(steps, positive(one, logarithmic), ":", color=colour, linewidth=1.2)
        return
    low, middle, high = (positive(q, logarithmic) for q in np.quantile(values, (0.1, 0.5, 0.9), axis=0))
    axis.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    axis.plot(steps, middle, color=colour, **{"linewidth": 1.8} | line)
    for one in values[:single]:
        axis.plot(steps, positive(one, logarithmic), color=colour, linewidth=0.5, alpha=0.6)


def lost_of(curves):
    """What `look.survival` draws of the curves of a study."""
    return [(curve.lost, COLOURS[k]) for k, curve in enumerate(curves)]


def described(run, both=False):
    """What a PaperRun is, in words: "step size 0.282, decay at 10 %", "step size 0.04 growing to 0.1", "GD, step size
    2".

    both: whether SGD stands beside GD, and is named as well
    """
    grown = "" if run.warmup_factor is None else (
        f" growing to {run.step_size * (1 + (run.warmup_factor - 1) * run.decay_at ** run.warmup_power):.2g}")
    stop = "" if run.decay_at is None else f", decay at {100 * run.decay_at:g} %"
    rule = "GD, " if run.rule == "gd" else "SGD, " if both else ""
    return f"{rule}step size {run.step_size:g}{grown}{stop}"


def positive(values, logarithmic):
    """The values, those that a logarithmic axis cannot show left out."""
    return np.where(values > 0, values, np.nan) if logarithmic else values


def _curve(axis, curve, metric, k, count, logarithmic):
    own = {"linewidth": look.width(k, count), **look.marks(k, count, len(curve.steps))}
    if len(curve.lost):
        band(axis, curve.steps, curve.orders[metric][curve.alive], COLOURS[k], logarithmic, **own)
    axis.plot(curve.steps, positive(curve.replay[metric], logarithmic), color=COLOURS[k],
              **style(curve) | ({} if len(curve.lost) else own))


def style(curve):
    """The line of the run that is no other order: dashed for the authors' order, full for GD, which has none."""
    return {"linewidth": 0.9, "linestyle": "--"} if len(curve.lost) else {"linewidth": 1.8, "linestyle": "-"}


def _legend(curve, both):
    if not len(curve.lost):
        return f"{described(curve.run)} (one run: no sampling)"
    alive, ends = len(curve.alive), "" if curve.replay_lost < 0 else (
        f"; the authors' order is lost at step {curve.replay_lost}")
    few = "" if alive >= FEWEST else "; dotted: each that is left" if alive else "; none is left"
    return f"{described(curve.run, both)}: {len(curve.lost) - alive} of {len(curve.lost)} orders lost{few}{ends}"
