"""Owns the commands of sweeps: `fastsgd sweep ...`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import SpecError
from .app import Backend, Folder, Json, Seed, Set, Size, SweepConfig, app, changed, examples, interruptible, say

sweeps = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                     help="Runs over any fields, on any number of machines, in a store that keeps what is done.")
app.add_typer(sweeps, name="sweep", epilog=examples(
    "fastsgd sweep run phase.toml", "fastsgd sweep create phase.toml phase.zarr",
    "fastsgd sweep work phase.zarr", "fastsgd sweep status phase.zarr", "fastsgd report phase.zarr --out pages"))


@sweeps.command("run", epilog=examples("fastsgd sweep run phase.toml", "fastsgd sweep run phase.toml --dry-run",
                                      "fastsgd sweep run phase.toml --workers 8",
                                      "fastsgd sweep run phase.toml --set sweep.replicas=64   # only what is new"))
def sweep_run(config: SweepConfig,
              out: Annotated[Path | None, typer.Option(help="folder of the store, by default CONFIG's name with "
                                                            ".zarr; one that holds this sweep is gone on with")] = None,
              workers: Annotated[int | None, typer.Option(help="processes; by default one, with all threads")] = None,
              changes: Set = None, seed: Seed = None, backend: Backend = None, size: Size = None,
              dry_run: Annotated[bool, typer.Option("--dry-run", help="print cells, ranges, bytes and expected time, "
                                                                      "and do nothing")] = False,
              as_json: Json = False) -> None:
    """Do what is missing of the sweep that CONFIG describes; any number may do so at a time."""
    from .. import config as configs
    from ..sweep import outline

    request = configs.read_sweep(config, changed(changes, seed, backend))
    if dry_run:
        say(outline.text(request, size), outline.data(request, size), as_json)
        return
    out = config.with_suffix(".zarr") if out is None else out
    with interruptible(lambda: _left(out, "the same command goes on")):
        store = request.run(out, None if workers is None else "local", workers=workers, size=size, progress=True)
    _say_progress(store, as_json, f"\nwrote {out}")


def _left(store: Path, how: str) -> str:
    """How far a store is, and how to go on."""
    from ..sweep import open as open_store

    try:
        far = open_store(store).progress()
    except SpecError:
        return f"nothing is kept in {store}"
    return f"{store} holds {far.done} of {far.ranges} ranges; {how}"


def _say_progress(store: Any, as_json: bool, more: str = "") -> None:
    far = store.progress()
    say(f"{far}{more}", vars(far) | {"path": str(store.path)}, as_json)


def _presets() -> list[str]:
    return ["phase", "grokking"]


@sweeps.command("preset", epilog=examples("fastsgd sweep preset phase --dry-run",
                                         "fastsgd sweep preset grokking --replicas 4"))
def sweep_preset(name: Annotated[str, typer.Argument(help="phase: step size x decay time x start scale of row S7; "
                                                          "grokking: weight decay x step size x width",
                                                   autocompletion=_presets)],
                 out: Annotated[Path | None, typer.Option(help="folder of the store, by default NAME.zarr; its report "
                                                               "is written beside it")] = None,
                 replicas: Annotated[int | None, typer.Option(help="networks of each cell")] = None,
                 dry_run: Annotated[bool, typer.Option("--dry-run", help="say what it would compute")] = False,
                 as_json: Json = False) -> None:
    """Do a sweep that comes with fastsgd, and write its report to OUT without its ending."""
    from ..report import store as pages
    from ..sweep import outline
    from ..sweep.presets import preset

    request = preset(name, replicas)
    if dry_run:
        say(outline.text(request), outline.data(request), as_json)
        return
    out = Path(f"{name}.zarr") if out is None else out
    with interruptible(lambda: _left(out, "the same command goes on")):
        store = request.run(out, progress=True)
    over = ["weight_decay", "step_size"] if name == "grokking" else None
    paths = pages.write(store, out.with_suffix(""), over, over and over[0])
    say(f"{pages.text(store)}\nwrote {out}, {paths[-1]}", vars(store.progress()) | {"path": str(out), "report": paths},
        as_json)


@sweeps.command("plan", epilog=examples("fastsgd sweep plan phase.toml"))
def sweep_plan(config: SweepConfig, changes: Set = None, seed: Seed = None, backend: Backend = None, size: Size = None,
               as_json: Json = False) -> None:
    """Say what the sweep of CONFIG would compute and write, as `sweep run --dry-run` does."""
    from .. import config as configs
    from ..sweep import outline

    request = configs.read_sweep(config, changed(changes, seed, backend))
    say(outline.text(request, size), outline.data(request, size), as_json)


@sweeps.command("create", epilog=examples("fastsgd sweep create phase.toml phase.zarr"))
def sweep_create(config: SweepConfig, out: Folder, changes: Set = None, seed: Seed = None, backend: Backend = None,
                 size: Size = None, as_json: Json = False) -> None:
    """Make the store of a sweep, or let one grow to what CONFIG says, and compute nothing: workers do."""
    from .. import config as configs

    store = configs.read_sweep(config, changed(changes, seed, backend)).store(out, size)
    missing = len(store.missing())
    say(f"{out}: {missing} of {len(store.names)} ranges are missing; `fastsgd sweep work {out}` does them",
        {"path": str(out), "ranges": len(store.names), "missing": missing}, as_json)


@sweeps.command("work", epilog=examples("fastsgd sweep work phase.zarr                    # on each machine",
                                       "fastsgd sweep work phase.zarr --shard $SLURM_ARRAY_TASK_ID/64"))
def sweep_work(store: Folder,
               threads: Annotated[int | None, typer.Option(help="of this worker, by default all")] = None,
               stale: Annotated[float, typer.Option(help="seconds without a sign of life after which a worker of "
                                                         "another machine counts as gone")] = 240.0,
               shard: Annotated[str | None, typer.Option(help="only part k of K of the ranges: 3/16")] = None,
               seconds: Annotated[float | None, typer.Option(help="begin nothing new after so long")] = None,
               check: Annotated[bool, typer.Option("--check", help="read all that is done and compare checksums "
                                                                   "first")] = False,
               as_json: Json = False) -> None:
    """Do ranges of a STORE until none is missing, beside any number of other workers, anywhere."""
    from ..spec.planned import Tuning
    from ..sweep import work

    tuning = None if threads is None else Tuning(threads=threads)
    with interruptible(lambda: _left(store, "the same command goes on, here or anywhere")):
        done = work(store, tuning=tuning, stale=stale, shard=_part(shard), seconds=seconds, thorough=check,
                    progress=True)
    say(f"{done} ranges done here", {"path": str(store), "done_here": done}, as_json)


def _part(text: str | None) -> tuple[int, int] | None:
    """(3, 16) of "3/16"."""
    if text is None:
        return None
    words = text.split("/")
    if len(words) != 2 or not all(word.isascii() and word.isdecimal() for word in words):
        raise SpecError(f"--shard: {text!r} given, expected k/K, e.g. 3/16")
    return int(words[0]), int(words[1])


@sweeps.command("status", epilog=examples("fastsgd sweep status phase.zarr --json"))
def sweep_status(store: Folder,
                 check: Annotated[bool, typer.Option("--check", help="read all that is done and compare "
                                                                     "checksums")] = False,
                 as_json: Json = False) -> None:
    """Say how far a STORE is, and which ranges are damaged."""
    from ..sweep import open as open_store

    opened = open_store(store)
    bad = opened.check(check)
    far = opened.progress()
    say(str(far), vars(far) | {"path": str(store), "damaged": bad}, as_json)
    if bad:
        typer.echo(f"damaged   {len(bad)} ranges: {', '.join(bad[:5])}; `fastsgd sweep work {store}` does them anew",
                   err=as_json)
        raise typer.Exit(1)


