"""Owns the figure of a deep row: step size, loss and test error against the epoch, and sparsity layer by layer."""

import numpy as np

from .look import COLOURS, canvas, write

LINES = ("-", "-", "-", "-", ":", "--", "-.")  # the small step, the three large ones, the constants


def draw(study, path):
    """Draw a deep Study to `path`. Line: mean over the seeds that survive, band: least to largest. Needs matplotlib."""
    layers = list(study.recipe.network.layers.values())
    panels = [("step size", "of each epoch's first update", lambda c: (np.arange(len(c.rate)), c.rate)),
              ("training loss", "mean over an epoch's batches", lambda c: (np.arange(len(c.loss)) + 0.5, c.loss)),
              ("test error", "% of test images", lambda c: (c.epochs[1:], c.error[1:]))]
    panels += [(f"activations: {name}", "feature sparsity coefficient (%)",
                lambda c, k=k: (c.epochs, c.sparsity[:, k])) for k, name in enumerate(layers)]
    figure, axes = canvas(2, -(-len(panels) // 2), 4.0, 3.7)
    for k, (axis, (title, quantity, values)) in enumerate(zip(axes, panels, strict=False)):
        for j, setting in enumerate(study.recipe.settings):
            _curves(axis, [values(curve) for curve in study.of(setting)], j, setting.label)
        axis.set_title(title, fontsize=11)
        axis.set_ylabel(quantity)
        axis.set_xlabel("epoch")
        axis.set_xlim(0, study.epochs)
        if k < 3:
            axis.set_yscale("log")
        axis.grid(alpha=0.2)
    for axis in axes[len(panels):]:
        axis.remove()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    lost = sum(curve.lost for curve in study.curves)
    figure.suptitle(f"{study.name}: {study.title}, {study.data}; line: mean, band: least to largest of {study.seeds} "
                    f"seeds, {lost} of {len(study.curves)} runs lost", fontsize=10)
    write(figure, path)


def _curves(axis, curves, j, label):
    grey = j > 3  # constants in grey, so that the paper's four settings stand out
    colour = "0.45" if grey else COLOURS[j]
    if not curves:
        axis.plot([], [], color=colour, linestyle=LINES[j % len(LINES)], label=f"{label} (all lost)")
        return
    x, stack = curves[0][0], np.array([y for _, y in curves])
    if not grey:
        axis.fill_between(x, stack.min(axis=0), stack.max(axis=0), color=colour, alpha=0.2, linewidth=0)
    axis.plot(x, stack.mean(axis=0), color=colour, linestyle=LINES[j % len(LINES)], linewidth=1.1 if grey else 1.7,
              label=label)
