"""Owns the figure of a study: each metric against the step, median and band over survivors, with some single runs."""

import numpy as np

PANELS = {  # metric -> (axis label, logarithmic)
    "train_loss": ("training loss", True), "test_loss": ("test loss", True), "rank": ("Jacobian rank", False),
    "l0": ("l0: #{|u_j v_j| > 1e-50}", False), "feature_sparsity": ("feature sparsity coefficient", False),
}
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")  # Okabe and Ito, told apart by everyone
SINGLE = 3  # single runs drawn beside each band


def draw(study, path):
    """Draw a Study to `path` (png, pdf or svg). Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [name for name in PANELS if name in study.curves[0].replay]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.1 * len(panels), 4.6), constrained_layout=True)
    for axis, metric in zip(np.atleast_1d(axes), panels, strict=True):
        label, logarithmic = PANELS[metric]
        for colour, curve in zip(COLOURS, study.curves, strict=False):
            _curve(axis, curve, metric, colour, logarithmic)
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.set_xlim(0, study.system.steps)
        if logarithmic:
            axis.set_yscale("log")
        axis.ticklabel_format(axis="x", style="sci", scilimits=(0, 4))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
    handles = [pyplot.Line2D([], [], color=colour, label=_legend(curve))
               for colour, curve in zip(COLOURS, study.curves, strict=False)]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(f"{study.system.name}: {study.system.title}\nline: median, band: 10 to 90 % over the sample orders "
                    "that survive to the end; thin: single orders; dashed: the authors' order", fontsize=10)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _curve(axis, curve, metric, colour, logarithmic):
    def clean(values):
        return np.where(values > 0, values, np.nan) if logarithmic else values

    survivors = np.flatnonzero(curve.lost < 0)
    if len(survivors):
        values = curve.orders[metric][survivors]
        low, middle, high = np.quantile(values, (0.1, 0.5, 0.9), axis=0)
        axis.fill_between(curve.steps, clean(low), clean(high), color=colour, alpha=0.18, linewidth=0)
        axis.plot(curve.steps, clean(middle), color=colour, linewidth=1.8)
        for k in survivors[:SINGLE]:
            axis.plot(curve.steps, clean(curve.orders[metric][k]), color=colour, linewidth=0.5, alpha=0.6)
    axis.plot(curve.steps, clean(curve.replay[metric]), color=colour, linewidth=0.9, linestyle="--")


def _legend(curve):
    if not len(curve.lost):
        return f"{curve.run.label} (one run: no sampling)"
    ends = "" if curve.replay_lost < 0 else f"; the authors' order is lost at step {curve.replay_lost}"
    return f"{curve.run.label}: {int((curve.lost >= 0).sum())} of {len(curve.lost)} orders lost{ends}"
