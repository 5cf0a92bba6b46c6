"""Owns the table of a single result: records at the last saved step, over survivors."""

from typing import Any

import numpy as np

from .table import number


def data(result: Any) -> dict:
    """What `text` says, as numbers: {"networks", "lost", "steps", "at", "records": {name: quantiles}, ...}."""
    alive = result.survived
    records = {name: dict(zip(("10%", "50%", "90%"), np.quantile(a[alive, -1], (0.1, 0.5, 0.9)).tolist(), strict=True))
               for name, a in result.records.items() if a.ndim == 2 and alive.any()}
    return {"model": type(result.run.model).__name__, "networks": len(alive), "lost": int((~alive).sum()),
            **({"stopped": int((result.stopped >= 0).sum())} if result.run.stop else {}),
            "steps": result.run.steps, "at": int(result.steps[-1]), "dtype": result.run.dtype,
            "seconds": result.provenance.get("seconds", {}), "records": records}


def text(result: Any) -> str:
    """Plain text: what ran, what was lost, and the quantiles of every record at the last saved step."""
    alive = result.survived
    seconds = result.provenance.get("seconds", {})
    stopped = f", {int((result.stopped >= 0).sum())} stopped" if result.run.stop else ""
    spent = ", ".join(f"{what} {value:.2f} s" for what, value in seconds.items())
    networks = f"{len(alive)} network{'s' * (len(alive) != 1)}"
    lines = [f"{type(result.run.model).__name__}: {networks}, {result.run.steps} steps, {result.run.dtype}; "
             f"{int((~alive).sum())} lost{stopped}; {spent}"]
    if not alive.any():
        return "\n".join([*lines, "no network survived, so there is nothing to take quantiles of"])
    names = [name for name, a in result.records.items() if a.ndim == 2]
    width = max([len("record"), *map(len, names)])
    lines.append(f"{'record'.ljust(width)}  {'10 %':>11}  {'median':>11}  {'90 %':>11}   at step {result.steps[-1]}, "
                 "over survivors")
    for name in names:
        q = np.quantile(result.records[name][alive, -1], (0.1, 0.5, 0.9))
        lines.append(f"{name.ljust(width)}  " + "  ".join(f"{number(x):>11}" for x in q))
    return "\n".join(lines)
