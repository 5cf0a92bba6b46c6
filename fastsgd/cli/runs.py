"""Owns the commands of one run: `run` and `plan`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import SpecError
from .app import Backend, Config, Json, Seed, Set, apart, app, changed, examples, free, say


@app.command(epilog=examples(
    "fastsgd run run.toml --out run.npz",
    "fastsgd run run.toml --set rule.momentum=0.9 --set networks=4096 --seed 7",
    "fastsgd run run.toml --checkpoint run.ckpt      # Ctrl-C, then the same again: it goes on",
    "fastsgd run run.toml --ids 0:512 --out part0.npz"))
def run(config: Config,
        out: Annotated[Path, typer.Option(help="file for the labelled result")] = Path("result.npz"),
        checkpoint: Annotated[Path | None, typer.Option(help="file for the progress; one that holds this run is gone "
                                                             "on with, any other is refused")] = None,
        changes: Set = None, seed: Seed = None, backend: Backend = None,
        ids: Annotated[str | None, typer.Option(help="networks of the population to run: 0:1000, or 3,5,8")] = None,
        force: Annotated[bool, typer.Option("--force", help="Overwrite OUT if it exists.")] = False,
        as_json: Json = False) -> None:
    """Train what CONFIG describes and write the result."""
    from .. import config as configs
    from ..checkpoint import Stopped, stoppable
    from ..files import writable
    from ..report import summary
    from ..train import train

    apart(config=config, out=out, checkpoint=checkpoint)
    free(out, "out", force)
    writable(out, "out")
    request = configs.read(config, changed(changes, seed, backend))
    if ids is not None:
        request = request.replace(ids=numbers(ids))
    try:
        with stoppable():
            result = train(request, progress=config.stem, checkpoint=checkpoint)
            _save(result, out, checkpoint)
    except (KeyboardInterrupt, Stopped) as stop:
        kept = "; ".join(getattr(stop, "__notes__", ())) or "nothing is kept; --checkpoint FILE keeps the progress"
        typer.echo(f"stopped: {kept}" + ("; so does the same command" if checkpoint else ""), err=True)
        raise typer.Exit(int(stop.code or 0) if isinstance(stop, Stopped) else 130) from None
    say(f"{summary.text(result)}\nwrote {out}", summary.data(result) | {"out": str(out)}, as_json)


def numbers(text: str) -> Any:
    """Numbers of networks that a text such as 0:1000 or 3,5,8 names."""
    import numpy as np

    try:
        parts = [[int(word) for word in part.split(":")] for part in text.split(",")]
        if any(len(part) > 2 or (len(part) == 2 and not 0 <= part[0] < part[1] <= 2**32) for part in parts):
            raise ValueError
        return np.concatenate([np.arange(*part) if len(part) == 2 else part for part in parts])
    except ValueError:
        raise SpecError(f"--ids: {text!r} given, expected e.g. 0:1000 or 3,5,8") from None


def _save(result: Any, out: Path, checkpoint: Path | None) -> None:
    """Write the result, or say what is left of it."""
    try:
        result.save(out)
    except OSError as error:
        left = f"{checkpoint} has the end of the run, the same command writes it in a moment" if checkpoint else (
            "nothing is kept of the run; --checkpoint FILE would have kept its end")
        typer.echo(f"out: {str(out)!r} could not be written ({error.strerror or error}); {left}", err=True)
        raise typer.Exit(2) from None


@app.command(epilog=examples("fastsgd plan run.toml", "fastsgd plan run.toml --backend cpu --set networks=1000000",
                             "fastsgd plan run.toml --json"))
def plan(config: Config, changes: Set = None, seed: Seed = None, backend: Backend = None,
         as_json: Json = False) -> None:
    """Say how CONFIG would be run, and why, without running it."""
    from .. import config as configs
    from ..plan import plan as make_plan

    made = make_plan(configs.read(config, changed(changes, seed, backend)))
    say(made.explain(), _planned(made) if made.where is None else {
        "networks": made.N, "groups": [{"batch_size": one.batch} | _planned(one) for one in made.plans]}, as_json)


def _planned(made: Any) -> dict:
    """What JSON has of a Plan."""
    tuning = {name: value for name, value in vars(made.tuning).items() if value is not None}
    return {"backend": made.backend, "reasons": made.reasons, "networks": made.N, "steps": made.run.steps,
            "parameters": made.run.model.P, "dtype": made.run.dtype, "saves": len(made.saves),
            "tuning": tuning, "memory": made.memory, "seconds": made.expected}
