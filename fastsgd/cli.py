"""Owns the command line: builds a Run and hands it on, nothing more."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .errors import FastsgdError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
                  help="Train thousands to millions of small networks at once, each by its own SGD.")


@app.command()
def run(config: Annotated[Path, typer.Argument(help="TOML file that describes the run")],
        out: Annotated[Path, typer.Option(help="file for the labelled result")] = Path("result.npz"),
        checkpoint: Annotated[Path | None, typer.Option(help="checkpoint file; an existing one is resumed")] = None):
    """Train what CONFIG describes and write the result."""
    from . import checkpoint as checkpoints
    from . import config as configs
    from . import storage
    from .report import summary
    from .train import train

    storage.writable(out, "out")
    request = configs.read(config)
    if checkpoint is not None and checkpoint.exists():
        saved, _ = checkpoints.load(checkpoint)
        checkpoints.require_same(saved, request)
        result = checkpoints.resume(checkpoint, progress=True)
    else:
        result = train(request, progress=True, checkpoint=checkpoint)
    result.save(out)
    typer.echo(summary.text(result))
    typer.echo(f"wrote {out}")


@app.command()
def plan(config: Annotated[Path, typer.Argument(help="TOML file that describes the run")]):
    """Say how CONFIG would be run, and why, without running it."""
    from . import config as configs
    from .plan import plan as make_plan

    typer.echo(make_plan(configs.read(config)).explain())


@app.command()
def reproduce(name: Annotated[str, typer.Argument(help="system of the paper: S1, S2, S3, S4, S5, S7 or all")],
              out: Annotated[Path, typer.Option(help="folder for table, figure and results")] = Path("reproduced"),
              orders: Annotated[int, typer.Option(help="sample orders of each setting", min=1)] = 256,
              seed: Annotated[int, typer.Option(help="key of all draws", min=0)] = 0):
    """Reproduce a figure of "SGD with Large Step Sizes Learns Sparse Features" over many sample orders."""
    from .reproduce import NAMES
    from .reproduce import reproduce as make

    for one in NAMES if name == "all" else (name,):
        text, paths, seconds = make(one, out, orders, seed=seed, progress=True)
        typer.echo(text)
        typer.echo("seconds: " + ", ".join(f"{what} {value:.1f}" for what, value in seconds.items()))
        typer.echo("wrote " + ", ".join(map(str, paths)))


@app.command()
def report(result: Annotated[Path, typer.Argument(help="file written by `fastsgd run`")]):
    """Print a table of a RESULT: every record's median and quantiles over survivors, and what was lost."""
    from .report import summary
    from .result import Result

    typer.echo(summary.text(Result.load(result)))


@app.command()
def info():
    """Say what was built, what this machine can run, and what is missing."""
    from .report import machine

    typer.echo(machine.text())


def main():
    """Entry point: the library's errors become one line on stderr and exit status 2."""
    try:
        app()
    except FastsgdError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
