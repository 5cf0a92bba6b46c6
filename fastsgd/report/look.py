"""Owns the look of figures: sizes and fonts of a page or of a paper, colours, and what tells curves apart."""

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
_style = ContextVar("style", default="page")


@contextmanager
def style(name):
    """Figures within the block are for a "page" (a screen, a README) or a "paper": at its column's width, fonts of 7
    points, no title above, since the caption says it. Raises SpecError for another name."""
    if name not in STYLES:
        raise SpecError(f"style: {name!r} given, expected one of {STYLES}")
    token = _style.set(name)
    try:
        yield
    finally:
        _style.reset(token)


def canvas(rows, columns, width, height):
    """(figure, axes [rows * columns]), which need no screen and are kept nowhere. Needs matplotlib.

    width, height: of a panel on a page, in inches
    """
    from matplotlib.figure import Figure  # without pyplot, which takes a third of a second to import

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes.reshape(-1)


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
    if figure._suptitle is not None:
        figure._suptitle.remove()
        figure._suptitle = None
    for text in figure.findobj(Text):
        text.set_fontsize(min(7, 0.7 * text.get_fontsize()))
    for line in figure.findobj(Line2D):
        line.set_linewidth(0.6 * line.get_linewidth())
        line.set_markersize(0.55 * line.get_markersize())
    for points in figure.findobj(PathCollection):
        points.set_sizes(0.3 * points.get_sizes())


def width(k, count):
    """Width of curve k of `count`: later ones are drawn on top, and are thinner, so that those below show."""
    return 1.4 + 0.8 * (count - 1 - k)


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


def survival(axis, T, curves):
    """The share of networks that are not lost against the step, by its logarithm, for most are lost early.

    curves: (lost [M], colour, keywords of the line)
    """
    for lost, colour, given in curves:
        steps = np.sort(lost[lost >= 0])
        x = np.concatenate([[1], steps + 1, [T]])  # a network lost in its first step is not there after one step
        y = 1 - np.concatenate([[0], np.arange(1, len(steps) + 1), [len(steps)]]) / len(lost)
        axis.plot(x, y, color=colour, drawstyle="steps-post", **given)
    axis.set_ylabel("share of orders not lost")
    axis.set_ylim(-0.02, 1.03)
    axis.set_xlabel("step")
    axis.set_xscale("log")
    axis.set_xlim(1, T)
    axis.grid(alpha=0.2)
