"""Owns what all commands share: the program, its errors, options that several have. It imports nothing heavy."""

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import FastsgdError, SpecError

BACKENDS = ("auto", "cuda", "triton", "cpu", "reference")

# No markup: what would draw the help in colours takes longer to import than all of the rest.
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
                  help="Train thousands to millions of small networks at once, each by its own SGD.")


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastsgd {__version__}")
        raise typer.Exit


@app.callback(epilog=examples("fastsgd plan run.toml", "fastsgd run run.toml --out run.npz --checkpoint run.ckpt",
                              "fastsgd sweep run phase.toml", "fastsgd reproduce S1",
                              "fastsgd COMMAND --help        has examples of each"))
def _program(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True,
                                                   help="Say the version and end.")] = False) -> None:
    pass


def _backends() -> list[str]:
    return list(BACKENDS)


Config = Annotated[Path, typer.Argument(help="TOML file that describes the run")]
SweepConfig = Annotated[Path, typer.Argument(help="TOML file with a table [sweep]")]
Folder = Annotated[Path, typer.Argument(help="folder of a store")]
Set = Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE, e.g. rule.momentum=0.5; stands above "
                                                            "CONFIG; may be repeated")]
Seed = Annotated[int | None, typer.Option(help="key of all draws; stands above CONFIG")]
Backend = Annotated[str | None, typer.Option(help=f"one of {', '.join(BACKENDS)}; stands above CONFIG",
                                             autocompletion=_backends)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text, for other programs.")]
Style = Annotated[str, typer.Option(help="of figures: page, or paper (its column's width, small fonts, no title)")]
Size = Annotated[int | None, typer.Option(help="networks of a range, by default about two seconds of work")]


def changed(changes: list[str] | None, seed: int | None = None, backend: str | None = None) -> list[str]:
    """What --set, --seed and --backend say, as texts of --set."""
    given = {"seed": seed, "backend": backend}
    return [*(changes or ()), *(f"{name}={value}" for name, value in given.items() if value is not None)]


def say(text: str, data: Any, as_json: bool) -> None:
    """Print a text, or what it says as JSON."""
    typer.echo(json.dumps(data, indent=2, default=_plain) if as_json else text)


def _plain(value: Any) -> Any:
    """Numbers and arrays of NumPy as Python's; paths as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


@contextmanager
def interruptible(left: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C ends the command with status 130 and says what is left of its work, and how to go on.

    It is answered here: what starts the commands would end the program without a word.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {left()}", err=True)
        raise typer.Exit(130) from None


def apart(**paths: Path | None) -> None:
    """Refuse two names for one file."""
    seen: dict[str, str] = {}
    for name, path in paths.items():
        there = path and os.path.realpath(path)
        if there and there in seen:
            raise SpecError(f"{name}: {str(path)!r} is the file of {seen[there]} as well; give another name")
        seen[there or ""] = name


def free(path: Path, name: str, force: bool) -> None:
    """Refuse a file that is there, unless it may be overwritten. Pipes and devices are written to."""
    if not force and os.path.isfile(path):
        raise SpecError(f"{name}: {str(path)!r} exists; --force overwrites it, or give another name")


def main() -> None:
    """Entry point: warnings and errors become one line on stderr, and errors exit status 2."""
    warnings.showwarning = lambda message, *_: typer.echo(f"{message}", err=True)
    try:
        app(prog_name="fastsgd")
    except FastsgdError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that may not be made
        typer.echo(f"{error.strerror or error}: {error.filename}" if error.filename else f"{error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:  # before a command began
        sys.exit(130)
