"""Owns the command `reproduce`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .app import Json, Style, app, examples, interruptible, say


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
              replicas: Annotated[int | None, typer.Option(help="sample orders of each setting of S1 to S15, by "
                                                                "default 256")] = None,
              saved: Annotated[int | None, typer.Option(help="saved steps of each run, by default 250")] = None,
              seed: Annotated[int, typer.Option(help="key of all draws")] = 0,
              quick: Annotated[bool, typer.Option("--quick", help="by default 16 sample orders and 60 saved steps; "
                                                            "short forms of neighbours")] = False,
              data: Annotated[Path | None, typer.Option(help="images of S10 to S13: a folder or .npz")] = None,
              style: Style = "page",
              seeds: Annotated[int | None, typer.Option(help="starts of each setting of S10 to S13")] = None,
              as_json: Json = False) -> None:
    """Reproduce a row of "SGD with Large Step Sizes Learns Sparse Features" over many sample orders, or a neighbour.

    Writes table, figure and results; "all" and "neighbours" also write index.txt, the verdicts on every claim.
    """
    from .. import reproduce as rows

    asked: dict[str, Any] = {"replicas": replicas, "saved": saved}
    asked = {name: value for name, value in asked.items() if value is not None}
    options = rows.Options(**(rows.QUICK if quick else {}) | asked, seed=seed, progress=True, data=data, seeds=seeds,
                           style=style)

    finished: dict[str, Any] = {}

    def tell(row: str, done: Any, seconds: float) -> None:
        finished[row] = done.data() | {"seconds": seconds}
        if not as_json:
            typer.echo(f"{done.text()}\n{row}: {seconds:.1f} s\n")

    def left() -> str:
        if not finished:
            return "no row was finished; the same command begins anew"
        return f"whole in {out}: {', '.join(finished)}; `fastsgd reproduce ROW --out {out}` does one of the others"

    with interruptible(left):
        if name in ("all", "neighbours"):
            names = None if name == "all" else tuple(rows.NEIGHBOURS)
            index = rows.reproduce_all(out, options, tell, names)
            say(f"wrote {index}", {"index": index, "rows": finished}, as_json)
        else:
            done, paths = rows.reproduce(name, out, options)
            say(f"{done.text()}\nwrote {', '.join(map(str, paths))}", done.data() | {"files": paths}, as_json)


