"""Rows S10 to S13, the paper's deep networks, small: a residual or dense network on real images. torch comes late."""

from functools import partial


def _row(name, options):
    from .rows import row  # torch is imported when a row is asked for

    return row(name, options)


ROWS = {name: partial(_row, name) for name in ("S10", "S11", "S12", "S13")}
