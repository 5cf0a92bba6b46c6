"""Owns the command `info`."""

from .app import Json, app, examples, say


@app.command(epilog=examples("fastsgd info", "fastsgd info --json"))
def info(as_json: Json = False) -> None:
    """Say what was built, what this machine can run, and what is missing."""
    from ..report import machine

    say(machine.text(), machine.data(), as_json)
