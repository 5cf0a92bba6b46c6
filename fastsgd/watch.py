"""Owns the progress bar: what a user sees while a run goes on."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .errors import SpecError


@contextmanager
def watcher(plan: Any, progress: Any) -> Iterator[Callable[[Any], Any] | None]:
    """A function of an execution's Progress that reports it as `progress` asks, or None."""
    T = plan.run.steps
    if progress is None or progress is False:
        yield None
    elif callable(progress):
        yield lambda done: progress(done.t, T, done.gone)
    elif progress is True or isinstance(progress, str):
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        stopped = (TextColumn("{task.fields[stopped]} stopped"),) if plan.run.stop else ()
        with Bar(TextColumn(_named(plan, progress)), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
                 TextColumn("{task.fields[lost]} lost"), *stopped, console=Console(file=sys.stderr)) as bar:
            task = bar.add_task("", total=T, lost=0, stopped=0)
            yield lambda done: bar.update(task, completed=done.t, lost=done.gone, stopped=done.halted)
    else:
        raise SpecError(f"progress: {progress!r} given, expected None, True, a name, or a function "
                        "(t, T, lost)")


def _named(plan: Any, progress: Any) -> str:
    """What stands before a bar."""
    networks = f"{plan.N} network{'s' * (plan.N != 1)}"
    return networks if progress is True else f"{progress.replace('[', '(')}: {networks}"
