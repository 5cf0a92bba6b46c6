"""Owns the command line: builds a Run and hands it on, nothing more."""

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from .errors import FastsgdError, SpecError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
                  help="Train thousands to millions of small networks at once, each by its own SGD.")


sweeps = typer.Typer(no_args_is_help=True, help="Runs over any fields, on any number of machines, in a store that "
                                                "keeps what is done.")
app.add_typer(sweeps, name="sweep")
Set = Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE, e.g. rule.momentum=0.5; stands above "
                                                            "CONFIG; may be repeated")]


@app.command()
def run(config: Annotated[Path, typer.Argument(help="TOML file that describes the run")],
        out: Annotated[Path, typer.Option(help="file for the labelled result")] = Path("result.npz"),
        checkpoint: Annotated[Path | None, typer.Option(help="file for the progress; one that holds this run is gone "
                                                             "on with, any other is refused")] = None,
        changes: Set = None,
        ids: Annotated[str | None, typer.Option(help="networks of the population to run: 0:1000, or 3,5,8")] = None):
    """Train what CONFIG describes and write the result."""
    from . import config as configs
    from .checkpoint import Stopped, stoppable
    from .files import writable
    from .report import summary
    from .train import train

    _apart(config=config, out=out, checkpoint=checkpoint)
    writable(out, "out")
    request = configs.read(config, changes or ())
    if ids is not None:
        request = request.replace(ids=_ids(ids))
    try:
        with stoppable():
            result = train(request, progress=True, checkpoint=checkpoint)
            _save(result, out, checkpoint)
    except (KeyboardInterrupt, Stopped) as stop:
        kept = "; ".join(getattr(stop, "__notes__", ())) or "nothing is kept; --checkpoint FILE keeps the progress"
        typer.echo(f"stopped: {kept}" + ("; so does the same command" if checkpoint else ""), err=True)
        raise typer.Exit(stop.code if isinstance(stop, Stopped) else 130) from None
    typer.echo(summary.text(result))
    typer.echo(f"wrote {out}")


def _ids(text):
    """Numbers of networks that a text such as 0:1000 or 3,5,8 names."""
    import numpy as np

    try:
        parts = [[int(word) for word in part.split(":")] for part in text.split(",")]
        if any(len(part) > 2 or (len(part) == 2 and not 0 <= part[0] < part[1] <= 2**32) for part in parts):
            raise ValueError
        return np.concatenate([np.arange(*part) if len(part) == 2 else part for part in parts])
    except ValueError:
        raise SpecError(f"--ids: {text!r} given, expected e.g. 0:1000 or 3,5,8") from None


def _save(result, out, checkpoint):
    """Write the result, or say what is left of it."""
    try:
        result.save(out)
    except OSError as error:
        left = f"{checkpoint} has the end of the run, the same command writes it in a moment" if checkpoint else (
            "nothing is kept of the run; --checkpoint FILE would have kept its end")
        typer.echo(f"out: {str(out)!r} could not be written ({error.strerror or error}); {left}", err=True)
        raise typer.Exit(2) from None


def _apart(**paths):
    """Refuse two names for one file."""
    seen = {}
    for name, path in paths.items():
        there = path and os.path.realpath(path)
        if there in seen and there:
            raise SpecError(f"{name}: {str(path)!r} is the file of {seen[there]} as well; give another name")
        seen[there] = name


@app.command()
def plan(config: Annotated[Path, typer.Argument(help="TOML file that describes the run")], changes: Set = None):
    """Say how CONFIG would be run, and why, without running it."""
    from . import config as configs
    from .plan import plan as make_plan

    typer.echo(make_plan(configs.read(config, changes or ())).explain())


@sweeps.command("run")
def sweep_run(config: Annotated[Path, typer.Argument(help="TOML file with a table [sweep]")],
              out: Annotated[Path | None, typer.Option(help="folder of the store, by default CONFIG's name with "
                                                            ".zarr; one that holds this sweep is gone on with")] = None,
              workers: Annotated[int | None, typer.Option(help="processes; by default one, with all threads")] = None,
              changes: Set = None,
              size: Annotated[int | None, typer.Option(help="networks of a range, by default about two seconds of "
                                                            "work")] = None,
              dry_run: Annotated[bool, typer.Option("--dry-run", help="print cells, ranges, bytes and expected time, "
                                                                      "and do nothing")] = False):
    """Do what is missing of the sweep that CONFIG describes; any number may do so at a time."""
    from . import config as configs
    from .sweep import outline

    request = configs.read_sweep(config, changes or ())
    if dry_run:
        typer.echo(outline.text(request, size))
        return
    out = config.with_suffix(".zarr") if out is None else out
    store = request.run(out, None if workers is None else "local", workers=workers, size=size, progress=True)
    typer.echo(f"{store.progress()}\nwrote {out}")


@sweeps.command("preset")
def sweep_preset(name: Annotated[str, typer.Argument(help="phase: step size x decay time x start scale of row S7; "
                                                          "grokking: weight decay x step size x width")],
                 out: Annotated[Path | None, typer.Option(help="folder of the store, by default NAME.zarr; its report "
                                                               "is written beside it")] = None,
                 replicas: Annotated[int | None, typer.Option(help="networks of each cell")] = None,
                 dry_run: Annotated[bool, typer.Option("--dry-run", help="say what it would compute")] = False):
    """Do a sweep that comes with fastsgd, and write its report to OUT without its ending."""
    from .report import store as pages
    from .sweep import outline
    from .sweep.presets import preset

    request = preset(name, replicas)
    if dry_run:
        typer.echo(outline.text(request))
        return
    out = Path(f"{name}.zarr") if out is None else out
    store = request.run(out, progress=True)
    over = ["weight_decay", "step_size"] if name == "grokking" else None
    paths = pages.write(store, out.with_suffix(""), over, over and over[0])
    typer.echo(f"{pages.text(store)}\nwrote {out}, {paths[-1]}")


@sweeps.command("plan")
def sweep_plan(config: Annotated[Path, typer.Argument(help="TOML file with a table [sweep]")], changes: Set = None,
               size: Annotated[int | None, typer.Option(help="networks of a range")] = None):
    """Say what the sweep of CONFIG would compute and write, as `sweep run --dry-run` does."""
    from . import config as configs
    from .sweep import outline

    typer.echo(outline.text(configs.read_sweep(config, changes or ()), size))


@sweeps.command("create")
def sweep_create(config: Annotated[Path, typer.Argument(help="TOML file with a table [sweep]")],
                 out: Annotated[Path, typer.Argument(help="folder of the store")], changes: Set = None,
                 size: Annotated[int | None, typer.Option(help="networks of a range")] = None):
    """Make the store of a sweep, or let one grow to what CONFIG says, and compute nothing: workers do."""
    from . import config as configs

    store = configs.read_sweep(config, changes or ()).store(out, size)
    typer.echo(f"{out}: {len(store.missing())} of {len(store.names)} ranges are missing; `fastsgd sweep work {out}`")


@sweeps.command("work")
def sweep_work(store: Annotated[Path, typer.Argument(help="folder of a store")],
               threads: Annotated[int | None, typer.Option(help="of this worker, by default all")] = None,
               stale: Annotated[float, typer.Option(help="seconds without a sign of life after which a worker of "
                                                         "another machine counts as gone")] = 240.0,
               shard: Annotated[str | None, typer.Option(help="only part k of K of the ranges: 3/16")] = None,
               seconds: Annotated[float | None, typer.Option(help="begin nothing new after so long")] = None,
               check: Annotated[bool, typer.Option("--check", help="read all that is done and compare checksums "
                                                                   "first")] = False):
    """Do ranges of a STORE until none is missing, beside any number of other workers, anywhere."""
    from .spec.planned import Tuning
    from .sweep import work

    tuning = None if threads is None else Tuning(threads=threads)
    done = work(store, tuning=tuning, stale=stale, shard=_part(shard), seconds=seconds, thorough=check, progress=True)
    typer.echo(f"{done} ranges done here")


def _part(text):
    """(3, 16) of "3/16"."""
    if text is None:
        return None
    words = text.split("/")
    if len(words) != 2 or not all(word.isascii() and word.isdecimal() for word in words):
        raise SpecError(f"--shard: {text!r} given, expected k/K, e.g. 3/16")
    return int(words[0]), int(words[1])


@sweeps.command("status")
def sweep_status(store: Annotated[Path, typer.Argument(help="folder of a store")],
                 check: Annotated[bool, typer.Option("--check", help="read all that is done and compare "
                                                                     "checksums")] = False):
    """Say how far a STORE is, and which ranges are damaged."""
    from .sweep import open as open_store

    opened = open_store(store)
    typer.echo(str(opened.progress()))
    bad = opened.check(check)
    if bad:
        typer.echo(f"damaged   {len(bad)} ranges: {', '.join(bad[:5])}; `fastsgd sweep work {store}` does them anew")
        raise typer.Exit(1)


@app.command()
def reproduce(name: Annotated[str, typer.Argument(help="S1 to S9, S14, S15, or all of these; S10 to S13, deep; "
                                                        "even2023, ..., or all neighbours")],
              out: Annotated[Path, typer.Option(help="folder for tables, figures and results")] = Path("reproduced"),
              replicas: Annotated[int, typer.Option(help="sample orders of each setting")] = 256,
              saved: Annotated[int, typer.Option(help="saved steps of each run")] = 250,
              seed: Annotated[int, typer.Option(help="key of all draws")] = 0,
              quick: Annotated[bool, typer.Option("--quick", help="16 sample orders, 60 saved steps")] = False,
              data: Annotated[Path | None, typer.Option(help="images of S10 to S13: a folder or .npz")] = None,
              seeds: Annotated[int | None, typer.Option(help="starts of each setting of S10 to S13")] = None):
    """Reproduce a row of "SGD with Large Step Sizes Learns Sparse Features" over many sample orders, or a neighbour.

    Writes table, figure and results; "all" and "neighbours" also write index.txt, the verdicts on every claim.
    """
    from . import reproduce as rows

    chosen = {"replicas": replicas, "saved": saved} if not quick else rows.QUICK
    options = rows.Options(**chosen, seed=seed, progress=True, data=data, seeds=seeds)

    def tell(row, done, seconds):
        typer.echo(f"{done.text()}\n{row}: {seconds:.1f} s\n")

    if name in ("all", "neighbours"):
        names = None if name == "all" else tuple(rows.NEIGHBOURS)
        typer.echo(f"wrote {rows.reproduce_all(out, options, tell, names)}")
    else:
        done, paths = rows.reproduce(name, out, options)
        typer.echo(done.text())
        typer.echo("wrote " + ", ".join(map(str, paths)))


@app.command()
def report(result: Annotated[Path, typer.Argument(help="file written by `fastsgd run`, or a sweep's store")],
           out: Annotated[Path | None, typer.Option(help="of a store: folder for a page, figures, CSV and "
                                                         "JSON")] = None,
           over: Annotated[str | None, typer.Option(help="of a store: two axes of heat maps, e.g. "
                                                         "step_size,momentum")] = None,
           by: Annotated[str | None, typer.Option(help="of a store: the axis whose values are curves")] = None,
           metric: Annotated[list[str] | None, typer.Option(help="of a store: only this one; may be repeated")] = None,
           svg: Annotated[bool, typer.Option("--svg", help="of a store: figures as SVG too")] = False):
    """Print a table of a RESULT; of a sweep's store, finished or not, how far it is, and write its figures to OUT."""
    if result.is_dir():
        from .report import store as pages
        from .sweep import open as open_store

        opened = open_store(result)
        typer.echo(pages.text(opened))
        if out is not None:
            pairs = [word.strip() for word in over.split(",")] if over else None
            typer.echo("wrote " + ", ".join(map(str, pages.write(opened, out, pairs, by, metric, svg))))
        return
    from .report import summary
    from .result import Result

    if out is not None or over is not None or by is not None or metric:
        raise SpecError(f"report: --out, --over, --by and --metric are for stores, which {str(result)!r} is not")
    typer.echo(summary.text(Result.load(result)))


@app.command()
def bench(quick: Annotated[bool, typer.Option("--quick", help="a look in two minutes; keeps no rows")] = False,
          calibrate: Annotated[bool, typer.Option("--calibrate", help="measure what plans expect of this machine, and "
                                                                      "nothing else")] = False,
          only: Annotated[list[str] | None, typer.Option(help="measure only this part; may be repeated")] = None,
          rows: Annotated[Path | None, typer.Option(help="CSV file to append to instead of the checkout's")] = None,
          report: Annotated[bool, typer.Option("--report", help="measure nothing, rewrite tables and plots")] = False):
    """Measure fastsgd against its opponents, and append the rows; or calibrate the cost model of plans."""
    if calibrate:
        from . import calibrate as calibration
        from . import cost

        typer.echo(f"wrote {cost.write(calibration.calibrate(typer.echo))}")
        return
    root = Path(__file__).parents[1]
    if not (root / "bench" / "__main__.py").exists():
        raise SpecError(f"bench: the benchmarks are part of the source tree, which {root} is not; get a checkout "
                        "and run `make bench` or, after `pip install -e '.[bench]'`, `fastsgd bench` in it "
                        "(--calibrate works here)")
    sys.path.insert(0, str(root))
    from importlib import import_module

    raise typer.Exit(import_module("bench.__main__").measure(quick, only, rows, report))


@app.command()
def info():
    """Say what was built, what this machine can run, and what is missing."""
    from .report import machine

    typer.echo(machine.text())


def main():
    """Entry point: warnings and errors become one line on stderr, and errors exit status 2."""
    warnings.showwarning = lambda message, *_: typer.echo(f"{message}", err=True)
    try:
        app()
    except FastsgdError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that may not be made
        typer.echo(f"{error.strerror or error}: {error.filename}" if error.filename else f"{error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
