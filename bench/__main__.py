"""Owns the command `python -m bench`: measure, append the rows, rewrite the tables."""

import argparse
import sys
import time
from pathlib import Path

from fastsgd.errors import SpecError

from . import compare, duel, load, report, rows, suite


def measure(quick=False, only=None, path=None, report_only=False):
    """Measure (or not), append the rows, and rewrite tables and plots from the newest full run.

    quick: a look in two minutes; its rows are kept only where a path is given, and it rewrites nothing
    only: names of parts
    Returns the exit status: 1 if something is missing that could have been measured. Raises SpecError for `only`.
    """
    unknown = sorted(set(only or ()) - set(suite.PARTS))
    if unknown:
        raise SpecError(f"only: {', '.join(map(repr, unknown))} given, legal are {', '.join(suite.PARTS)}")
    path, missing = path or (None if quick else rows.PATH), []
    if not report_only:
        missing = _measured(suite.QUICK if quick else suite.Settings(), only or suite.PARTS, path)
    if report_only or (path == rows.PATH and not quick):
        for changed in report.rewrite(rows.read(path or rows.PATH)):
            print(f"rewrote {changed}")
    return 1 if missing else 0


def meet(names, against, quick=False, path=None):
    """Measure fastsgd against the opponents named on the cases named; rows are kept only where a path is given.

    Returns the exit status, as `measure` does. Raises SpecError for names that there are not.
    """
    settings = duel.chosen(names, against, quick)
    return 1 if _told(duel.whole(settings, lambda text: print(text, flush=True)), path) else 0


def compared(first, second):
    """A table of two files of rows. Raises SpecError for files that are none."""
    return compare.text(first, second)


def _measured(settings, only, path):
    """Measure whole parts; the rows that are missing."""
    return _told(suite.whole(settings, lambda text: print(text, flush=True), only), path)


def _told(measured, path):
    """Print rows and append them; those that are missing. Gaps, and what the machine did, are said at the end."""
    began, shared, made = time.perf_counter(), rows.conditions(), []
    print(", ".join(f"{name} {value}" for name, value in shared.items()))
    print(load.before(), flush=True)
    others = load.Others()
    for row in measured:
        made.append(shared | row)
        if path:
            rows.append(made[-1:], path)
    missing = rows.missing(made)
    if any(row["metric"] == "gap" for row in made):
        print(f"\nNot measured ({len(missing)} of these rows could have been):\n{report.gaps(made)}")
    print(f"\n{load.sentence(others.share(), 'meanwhile')}")
    print(f"{time.perf_counter() - began:.0f} s in all, {sum(row['metric'] != 'gap' for row in made)} rows"
          + (f", {len(missing)} MISSING" if missing else ""))
    return missing


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look in two minutes; rows are kept only with --rows")
    parser.add_argument("--only", nargs="+", choices=suite.PARTS, help="measure only these parts")
    parser.add_argument("--rows", type=Path, help=f"CSV file to append to (full runs: {rows.PATH.name} in bench/data)")
    parser.add_argument("--report", action="store_true", help="measure nothing, rewrite tables and plots from the rows")
    options = parser.parse_args(arguments)
    return measure(options.quick, options.only, options.rows, options.report)


if __name__ == "__main__":
    sys.exit(main())
