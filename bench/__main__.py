"""Owns the command `python -m bench`: measure, append the rows, rewrite the tables."""

import argparse
import time
from pathlib import Path

from . import report, rows, suite


def measure(quick=False, only=None, path=None, report_only=False):
    """Measure (or not), append the rows, and rewrite tables and plots from the newest full run.

    quick: a look in two minutes; its rows are kept only where a path is given, and it rewrites nothing
    """
    path = path or (None if quick else rows.PATH)
    if not report_only:
        began, shared = time.perf_counter(), rows.conditions()
        print(", ".join(f"{name} {value}" for name, value in shared.items()))
        settings = suite.QUICK if quick else suite.Settings()
        for row in suite.whole(settings, lambda text: print(text, flush=True), only or suite.PARTS):
            if path:
                rows.append([shared | row], path)
        print(f"\n{time.perf_counter() - began:.0f} s in all")
    if report_only or (path == rows.PATH and not quick):
        for changed in report.rewrite(rows.read(path or rows.PATH)):
            print(f"rewrote {changed}")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look in two minutes; rows are kept only with --rows")
    parser.add_argument("--only", nargs="+", choices=suite.PARTS, help="measure only these parts")
    parser.add_argument("--rows", type=Path, help=f"CSV file to append to (full runs: {rows.PATH.name} in bench/data)")
    parser.add_argument("--report", action="store_true", help="measure nothing, rewrite tables and plots from the rows")
    options = parser.parse_args(arguments)
    measure(options.quick, options.only, options.rows, options.report)


if __name__ == "__main__":
    main()
