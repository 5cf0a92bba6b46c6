"""Owns the tables of a study: the authors' numbers beside ours, over survivors, with what was lost."""

import numpy as np

# metric -> (heading, key of the authors' number)
COLUMNS = {
    "train_loss": ("train loss", "train"), "test_loss": ("test loss", "test"), "rank": ("Jacobian rank", "rank_end"),
    "l0": ("l0", "l0"), "feature_sparsity": ("feature sparsity", "sparsity_end"), "norm": ("norm", "norm"),
    "balance": ("balance", "balance"),
}


def number(x):
    """A number in four significant digits, a dash where there is none."""
    if x is None or not np.isfinite(x):
        return "-"
    return f"{x:.0f}" if x == int(x) and abs(x) < 1e6 else f"{x:.4g}"


def quantiles(curve, metric, s):
    """(10 %, 50 %, 90 %) of a metric at saved step s over the networks that survive to the end, None if none does."""
    alive = curve.orders[metric][curve.lost < 0, s]
    return np.quantile(alive, (0.1, 0.5, 0.9)) if len(alive) else None


def rows(study):
    """The table as (headings, rows of strings): per setting and metric the authors' number and ours."""
    headings = ("setting", "metric", "authors", "authors' order here", "median", "10 %", "90 %", "lost")
    out = []
    for curve in study.curves:
        s = int(np.searchsorted(curve.steps, study.system.printed_at))
        lost = f"{np.mean(curve.lost >= 0):.0%} of {len(curve.lost)}" if len(curve.lost) else "-"
        for k, metric in enumerate(name for name in COLUMNS if name in curve.replay):
            heading, key = COLUMNS[metric]
            q = quantiles(curve, metric, s) if len(curve.lost) else None
            low, middle, high = ("-",) * 3 if q is None else map(number, q)
            here = number(curve.replay[metric][s])
            if curve.replay_lost >= 0:
                here = f"lost at {curve.replay_lost}"
            printed, first = number(curve.run.printed.get(key)), k == 0
            label, gone = (curve.run.label, lost) if first else ("", "")
            out.append((label, heading, printed, here, middle, low, high, gone))
    return headings, out


def text(study):
    """The table as plain text, with a line of conditions under it."""
    headings, body = rows(study)
    width = [max(len(row[k]) for row in (headings, *body)) for k in range(len(headings))]

    def line(row):
        return "  ".join([row[0].ljust(width[0]), row[1].ljust(width[1])]
                         + [cell.rjust(w) for cell, w in zip(row[2:], width[2:], strict=True)])

    system = study.system
    rule = "-" * (sum(width) + 2 * (len(width) - 1))
    parts = [f"{system.name}: {system.title}", line(headings), rule]
    for row in body:
        parts.append(line(row))
    parts.append(rule)
    parts.append(f"After {system.printed_at} of {system.steps} steps; median and quantiles over orders that survive")
    parts.append("to the end (a lost run's loss stopped being finite). Authors' ranks, sparsities: read off plots.")
    return "\n".join(part.rstrip() for part in parts)
