"""Owns the command `bench`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import SpecError
from .app import app, examples, interruptible


@app.command(epilog=examples("fastsgd bench --quick", "fastsgd bench --calibrate",
                             "fastsgd bench --case S1 --against jax",
                             "fastsgd bench --case S7 --opponent my_module:Mine --rows mine.csv",
                             "fastsgd bench --compare here.csv there.csv"))
def bench(quick: Annotated[bool, typer.Option("--quick", help="a look in two minutes; keeps no rows")] = False,
          calibrate: Annotated[bool, typer.Option("--calibrate", help="measure what plans expect of this machine, and "
                                                                      "nothing else")] = False,
          only: Annotated[list[str] | None, typer.Option(help="measure only this part; may be repeated")] = None,
          rows: Annotated[Path | None, typer.Option(help="CSV file to append to instead of the checkout's")] = None,
          report: Annotated[bool, typer.Option("--report", help="measure nothing, rewrite tables and plots")] = False,
          case: Annotated[list[str] | None, typer.Option(help="with --against or --opponent: the case, e.g. S1; may "
                                                                "be repeated")] = None,
          against: Annotated[list[str] | None, typer.Option(help="measure against this opponent alone, e.g. jax; may "
                                                                 "be repeated")] = None,
          opponent: Annotated[list[str] | None, typer.Option(help="an opponent of your own, my_module:Class; "
                                                                  "docs/opponents.md says what it needs")] = None,
          compare: Annotated[tuple[Path, Path] | None, typer.Option(help="print two files of rows beside each "
                                                                         "other")] = None) -> None:
    """Measure fastsgd against its opponents, and append the rows; or calibrate the cost model of plans."""
    if calibrate:
        from .. import calibrate as calibration
        from .. import cost

        typer.echo(f"wrote {cost.write(calibration.calibrate(typer.echo))}")
        return
    root = Path(__file__).parents[2]
    if not (root / "bench" / "__main__.py").exists():
        raise SpecError(f"bench: the benchmarks are part of the source tree, which {root} is not; get a checkout "
                        "and run `make bench` or, after `pip install -e '.[bench]'`, `fastsgd bench` in it "
                        "(--calibrate works here)")
    sys.path.insert(0, str(root))
    from importlib import import_module

    program = import_module("bench.__main__")
    if compare:
        typer.echo(program.compared(*compare))
    elif case or against or opponent:
        if not (against or opponent) or only or report:
            raise SpecError("bench: --case goes with --against NAME or --opponent my_module:Class, and without --only "
                            "and --report")
        wrong = [name for name in opponent or () if ":" not in name]
        if wrong:
            raise SpecError(f"opponent: {wrong[0]!r} given, expected my_module:Class; those of fastsgd's own "
                            "benchmarks are for --against")
        sys.path.insert(0, os.getcwd())
        with interruptible(lambda: _kept(rows)):
            raise typer.Exit(program.meet(case, [*(against or ()), *(opponent or ())], quick, rows))
    else:
        with interruptible(lambda: _kept(rows if quick else rows or "the checkout's file")):
            raise typer.Exit(program.measure(quick, only, rows, report))


def _kept(rows: Path | str | None) -> str:
    """What an interrupt leaves."""
    return f"what was measured is in {rows}; --only PART does what is left" if rows else "nothing is kept"


