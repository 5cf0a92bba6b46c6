"""Owns the rows of measurements: one line holds a number with all its conditions."""

import csv
import json
import os
import subprocess
from datetime import datetime, timezone
from pathlib import Path

COLUMNS = ("date", "commit", "machine", "cores", "isa", "case", "provider", "N", "T", "dtype", "metric", "unit",
           "median", "low", "high", "answer_error", "versions")
PATH = Path(__file__).with_name("data") / "rows.csv"


def conditions():
    """What all rows of a run share: date, commit, machine, isa."""
    from fastsgd.native import cpu_name, native

    return {"date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ"), "commit": _commit(),
            "machine": cpu_name(), "isa": f"x86-64-{native().isa}"}


def row(cores, case, provider, metric, unit, band, N="", T="", dtype="float32", error="", versions=None):
    """A row without its shared conditions; band: Band, or None for a gap whose reason stands in `versions`."""
    numbers = ("", "", "") if band is None else (f"{x:.4g}" for x in (band.median, band.low, band.high))
    error = f"{error:.1e}" if isinstance(error, float) and error == error else ""
    return dict(zip(COLUMNS[3:4] + COLUMNS[5:], (cores, case, provider, N, T, dtype, metric, unit, *numbers, error,
                                                 json.dumps(versions or {}, sort_keys=True)), strict=True))


def gap(cores, case, provider, reason, N="", dtype="float32", expected=False):
    """The row of what was not measured, and why; expected: nobody asked for it, or it cannot be on this machine."""
    facts = {"expected": True} if expected else None
    return row(cores, case, provider, "gap", reason, None, N, dtype=dtype, versions=facts)


def missing(rows):
    """The gaps that need not have been: no time was left, or something failed."""
    return [row for row in rows if row["metric"] == "gap" and not json.loads(row["versions"]).get("expected")]


def append(rows, path=PATH, columns=COLUMNS):
    """Add rows to the file, with a header if it is new."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def read(path=PATH):
    """All rows, as dicts of text."""
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def _commit():
    """FASTSGD_COMMIT, else the short hash of the checked-out commit, with a + if files differ from it."""
    if os.environ.get("FASTSGD_COMMIT"):  # a tree that travelled without its history
        return os.environ["FASTSGD_COMMIT"]

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=PATH.parents[2], check=True,
                              capture_output=True, text=True).stdout

    try:
        head, changed = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return head.strip() + "+" * bool(changed.strip())
