"""Owns the command `reproduce`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .app import Style, app, examples


def _names() -> list[str]:
    from ..reproduce import NAMES, NEIGHBOURS

    return ["all", "neighbours", "deep", *NAMES, *NEIGHBOURS]


@app.command(epilog=examples("fastsgd reproduce S1 --quick", "fastsgd reproduce all --out rows",
                             "fastsgd reproduce S1 --style paper",
                             "fastsgd reproduce neighbours"))
def reproduce(name: Annotated[str, typer.Argument(help="S1 to S9, S14, S15, or all of these; S10 to S13, deep; "
                                                        "even2023, ..., or all neighbours",
                                                   autocompletion=_names)],
              out: Annotated[Path, typer.Option(help="folder for tables, figures and results")] = Path("reproduced"),
              replicas: Annotated[int, typer.Option(help="sample orders of each setting")] = 256,
              saved: Annotated[int, typer.Option(help="saved steps of each run")] = 250,
              seed: Annotated[int, typer.Option(help="key of all draws")] = 0,
              quick: Annotated[bool, typer.Option("--quick", help="16 sample orders, 60 saved steps")] = False,
              data: Annotated[Path | None, typer.Option(help="images of S10 to S13: a folder or .npz")] = None,
              style: Style = "page",
              seeds: Annotated[int | None, typer.Option(help="starts of each setting of S10 to S13")] = None
              ) -> None:
    """Reproduce a row of "SGD with Large Step Sizes Learns Sparse Features" over many sample orders, or a neighbour.

    Writes table, figure and results; "all" and "neighbours" also write index.txt, the verdicts on every claim.
    """
    from .. import reproduce as rows

    chosen = {"replicas": replicas, "saved": saved} if not quick else rows.QUICK
    options = rows.Options(**chosen, seed=seed, progress=True, data=data, seeds=seeds, style=style)

    finished: list[str] = []

    def tell(row: str, done: Any, seconds: float) -> None:
        finished.append(row)
        typer.echo(f"{done.text()}\n{row}: {seconds:.1f} s\n")

    try:
        if name in ("all", "neighbours"):
            names = None if name == "all" else tuple(rows.NEIGHBOURS)
            typer.echo(f"wrote {rows.reproduce_all(out, options, tell, names)}")
        else:
            done, paths = rows.reproduce(name, out, options)
            typer.echo(done.text())
            typer.echo("wrote " + ", ".join(map(str, paths)))
    except KeyboardInterrupt as stop:
        kept = f"{', '.join(finished)} are whole in {out}" if finished else "no row was finished"
        stop.__notes__ = [f"{kept}; rows begin anew, `fastsgd reproduce ROW` does one"]  # type: ignore[attr-defined]
        raise


