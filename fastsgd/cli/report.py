"""Owns the command `report`."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SpecError
from .app import Json, Style, app, examples, say


@app.command(epilog=examples("fastsgd report run.npz", "fastsgd report run.npz --json",
                             "fastsgd report phase.zarr --out pages --over step_size,momentum",
                             "fastsgd report phase.zarr --out pages --style paper --svg"))
def report(result: Annotated[Path, typer.Argument(help="file written by `fastsgd run`, or a sweep's store")],
           out: Annotated[Path | None, typer.Option(help="of a store: folder for a page, figures, CSV and "
                                                         "JSON")] = None,
           over: Annotated[str | None, typer.Option(help="of a store: two axes of heat maps, e.g. "
                                                         "step_size,momentum")] = None,
           by: Annotated[str | None, typer.Option(help="of a store: the axis whose values are curves")] = None,
           metric: Annotated[list[str] | None, typer.Option(help="of a store: only this one; may be repeated")] = None,
           svg: Annotated[bool, typer.Option("--svg", help="of a store: figures as SVG too")] = False,
           style: Style = "page", as_json: Json = False) -> None:
    """Print a table of a RESULT; of a sweep's store, finished or not, how far it is, and write its figures to OUT."""
    from ..report.look import STYLES
    from ..spec.check import one_of

    one_of(style, "style", STYLES)
    if result.is_dir():
        from ..report import store as pages
        from ..sweep import open as open_store

        opened = open_store(result)
        data = pages.cells(opened)
        say(pages.text(opened, data), vars(opened.progress()) | {"path": str(result)}, as_json)
        if out is not None:
            pairs = [word.strip() for word in over.split(",")] if over else None
            paths = pages.write(opened, out, pairs, by, metric, svg, style, data)
            typer.echo("wrote " + ", ".join(map(str, paths)), err=as_json)
        return
    from ..report import summary
    from ..result import Result

    loaded = Result.load(result)
    if out is not None or over is not None or by is not None or metric or svg:
        raise SpecError("report: --out, --over, --by, --metric and --svg are for stores of sweeps, which "
                        f"{str(result)!r} is not")
    say(summary.text(loaded), summary.data(loaded), as_json)


