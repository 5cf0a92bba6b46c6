"""Owns the look of figures: sizes and fonts of a page or of a paper, colours, and what tells curves apart."""

import textwrap
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from ..errors import SpecError
from ..files import whole

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")  # Okabe and Ito, told apart by everyone
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLES = ("page", "paper")
COLUMN, BOTH = 3.4, 7.0  # inches of a paper's column, and of the page's two
MOST = 4  # panels across a paper's page
_style = ContextVar("style", default="page")


@contextmanager
def style(name):
    """Figures within the block are for a "page" (a screen, a README) or a "paper": at its column's width, fonts of 7
    points, at most MOST panels across, no title above and no note below, since the caption says it. Raises SpecError
    for another name."""
    if name not in STYLES:
        raise SpecError(f"style: {name!r} given, expected one of {STYLES}")
    token = _style.set(name)
    try:
        yield
    finally:
        _style.reset(token)


def canvas(rows, columns, width, height):
    """(figure, axes [rows * columns]), which need no screen and are kept nowhere. Needs matplotlib.

    In a paper a row of more than MOST panels goes on in the next line.
    width, height: of a panel on a page, in inches
    """
    from matplotlib.figure import Figure  # without pyplot, which takes a third of a second to import

    lines = -(-columns // MOST) if _style.get() == "paper" else 1  # of each row
    across = -(-columns // lines)
    figure = Figure(figsize=(width * across, height * rows * lines), layout="constrained")
    grid = figure.add_gridspec(rows * lines, across)
    axes = [figure.add_subplot(grid[row * lines + k // across, k % across]) for row in range(rows)
            for k in range(columns)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def write(figure, path):
    """Write a figure in the format that its name ends in (png, pdf, svg), in the style of the block, whole or not at
    all."""
    shrunk(figure)
    with whole(path) as file:
        figure.savefig(file, dpi=dpi(130), format=Path(path).suffix[1:] or "png")


def dpi(page):
    """Dots an inch: what a page has, or a paper's."""
    return 300 if _style.get() == "paper" else page


def shrunk(figure):
    """Give a figure the size and fonts of a paper, if the style is that."""
    if _style.get() != "paper":
        return
    from matplotlib.collections import PathCollection
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    width, height = figure.get_size_inches()
    across = len({round(axis.get_position().x0, 2) for axis in figure.axes})
    new = COLUMN if across <= 2 else BOTH
    figure.set_size_inches(new, new * height / width)
    for name in ("_suptitle", "_supxlabel"):
        if getattr(figure, name) is not None:
            getattr(figure, name).remove()
            setattr(figure, name, None)
    for text in figure.findobj(Text):
        text.set_fontsize(min(7, 0.7 * text.get_fontsize()))
    for line in figure.findobj(Line2D):
        line.set_linewidth(0.6 * line.get_linewidth())
        line.set_markersize(0.55 * line.get_markersize())
    for points in figure.findobj(PathCollection):
        points.set_sizes(0.3 * points.get_sizes())


def width(k, count):
    """Width of curve k of `count`: later ones are drawn on top, and are thinner, so that those below show."""
    return 1.4 + min(0.8, 3.2 / max(1, count - 1)) * (count - 1 - k)


def marks(k, count, points):
    """Marker of curve k of `count`, at some of its points, at others than those of its neighbours."""
    every = max(1, points // 6)
    return {"marker": MARKERS[k % len(MARKERS)], "markevery": (every * (k + 1) // (count + 1), every), "markersize": 5,
            "markeredgecolor": "white", "markeredgewidth": 0.6}


def plain_steps(axis, T):
    """Steps in words that need no factor beside the axis: 0, 20k, 40k."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_xlim(0, T)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))


def short(x):
    """20000 as 20k, 1500000 as 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:g}{letter}"
    return f"{x:g}"


def legend(figure, free, handles):
    """The legend of all panels: in the first of the axes that are `free`, under the panels where none is.

    The others of `free` are removed.
    """
    if len(free):
        free[0].set_axis_off()
        for handle in handles:
            first, *more = handle.get_label().split(": ", 1)
            handle.set_label("\n".join([first + ":" * len(more), *textwrap.wrap("".join(more), 44)]))
        free[0].legend(handles=handles, loc="center left", frameon=False, fontsize=9)
    else:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    for axis in free[1:]:
        axis.remove()


def survival(axis, T, curves, of="orders", labels=None):
    """The share of networks that are not lost against the step, by its logarithm, for most are lost early.

    curves: (lost [M], colour) of each, none drawn where M = 0; of: what the networks are, in words
    labels: of the curves, for a legend that also says how many are lost
    """
    colon = ":\n" if _style.get() == "paper" else ": "
    at = np.geomspace(1, T, 61)  # where curves that lie on each other have their markers
    several = sum(bool(len(lost)) for lost, _ in curves) > 1
    for k, (lost, colour) in enumerate(curves):
        if not len(lost):
            continue
        steps = np.sort(lost[lost >= 0]) + 1  # a network lost in its first step is not there after one step
        left = 1 - np.arange(len(steps) + 1) / len(lost)
        axis.plot(np.concatenate([[1], steps, [T]]), left[[*range(len(left)), -1]], color=colour,
                  drawstyle="steps-post", linewidth=width(k, len(curves)),
                  label=labels and f"{labels[k]}{colon}{len(steps)} of {len(lost)} lost")
        if several:
            axis.plot(at, left[np.searchsorted(steps, at, side="right")], color=colour, linestyle="none",
                      **marks(k, len(curves), len(at)))
    axis.set_ylabel(f"share of {of} not lost")
    axis.set_ylim(-0.02, 1.03)
    axis.set_xlabel("step")
    axis.set_xscale("log")
    axis.set_xlim(1, T)
    axis.grid(alpha=0.2)
    if labels:
        axis.legend(fontsize=8, loc="best", framealpha=0.8, edgecolor="none")
