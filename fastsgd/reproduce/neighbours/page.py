"""Owns what tables and figures of the neighbours share: aligned columns, medians and bands, one row of panels."""

from contextlib import contextmanager

import numpy as np

from ...report.figure import FEWEST
from ...report.look import canvas, survival, write

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")  # Okabe and Ito
BAND = (0.1, 0.5, 0.9)
FEW = f"dotted: each run, where fewer than {FEWEST} are left"  # what a note says of draw_band


def columns(title, headings, rows, *notes):
    """A table as text: title, headings over right-aligned columns (the first is left-aligned), notes under it."""
    rows = [[cell if isinstance(cell, str) else number(cell) for cell in row] for row in rows]
    width = [max(len(row[k]) for row in (headings, *rows)) for k in range(len(headings))]
    rule = "-" * (sum(width) + 2 * (len(width) - 1))
    lines = ["  ".join([row[0].ljust(width[0]), *(cell.rjust(w) for cell, w in zip(row[1:], width[1:], strict=True))])
             for row in (headings, *rows)]
    return "\n".join([title, lines[0].rstrip(), rule, *(line.rstrip() for line in lines[1:]), rule, *notes])


def number(x):
    """A number in three significant digits, a dash where there is none."""
    if x is None or not np.isfinite(x):
        return "-"
    return f"{x:.0f}" if x == int(x) and abs(x) < 1e6 else f"{x:.3g}"


def band(values, axis=0, fewest=1):
    """(10 %, 50 %, 90 %) along an axis over what is finite; NaN where fewer than `fewest` are."""
    values = np.where(np.isfinite(values), values, np.nan)
    empty = np.isfinite(values).sum(axis=axis) < fewest
    low, middle, high = np.nanquantile(np.where(np.expand_dims(empty, axis), 0, values), BAND, axis=axis)
    return tuple(np.where(empty, np.nan, part) for part in (low, middle, high))


def draw_band(axis, x, values, colour, **style):
    """Median and 10 to 90 % band of values [M, len(x)] over what is finite; a single run as the line that it is.

    Where fewer than FEWEST of several runs are finite, each is dotted in place of a median.
    """
    line = {"linewidth": 1.6} | style
    low, middle, high = band(values, fewest=1 if len(values) == 1 else FEWEST)
    few = np.isnan(middle)
    axis.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axis.plot(x, middle, color=colour, **line)
    single = line | {"linestyle": ":", "linewidth": 1.2, "label": None}
    for one in values[np.isfinite(values[:, few]).any(axis=1)]:
        axis.plot(x, np.where(few, one, np.nan), color=colour, **single)


@contextmanager
def sheet(path, panels, title, note, size=(4.4, 4.2), survive=None):
    """A row of so many axes of `size` inches, title above, note below; written to `path` (png, pdf, svg) at the end.

    survive: keywords of `report.look.survival`, for one more panel. Needs matplotlib.
    """
    figure, axes = canvas(1, panels + (survive is not None), *size)
    yield axes[:panels]
    if survive is not None:
        survival(axes[-1], **survive)
    for axis in axes:
        axis.grid(alpha=0.2)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(note, fontsize=8)
    write(figure, path)
