"""Owns checkpoints: a run and its progress in one file, written between launches, resumed to the bit."""

import os
import signal
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

from . import archive
from .errors import SpecError
from .execute import execute
from .files import writable
from .plan import plan as make_plan
from .progress import Progress, Together, begun, fresh
from .result import STOPS, Result
from .spec import codec
from .spec.check import real
from .spec.fields import by_batch_size
from .spec.metric import Custom
from .spec.planned import Tuning
from .spec.record import record
from .storage import Damaged, require_ours
from .watch import watcher

LIVE = ("weights", "lost", "buffers")  # the arrays of a Progress that a launch changes
CHEAP, SELDOM = 0.01, 50  # seconds; dearer copies are made so seldom that they take a fiftieth of the time
SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # end a run as Ctrl-C does; the exit status is 128 and the signal's number


@record(eq=True)
class Checkpoint:
    """Where and how often to write a run's progress.

    path: file. If it holds this very run, the run goes on from there, and a warning says from which step; any other
        file is refused. The one before stays beside it as PATH.previous, and is taken where the newest is damaged
    every: seconds between writes, >= 0; one is also written when the run ends, fails or is stopped by Ctrl-C, SIGTERM
        or SIGHUP
    classes: dataclasses of your own that the run holds (a model, a rule, a loss, a metric), which files do not bring
        back by themselves
    A write that the system refuses (a full disk, say) is a warning, and training goes on.
    """

    path: str
    every: float = 60.0
    classes: tuple = ()

    def __post_init__(self):
        writable(self.path, "checkpoint.path")
        object.__setattr__(self, "path", str(Path(self.path)))
        writable(self.previous, "checkpoint.path.previous")
        object.__setattr__(self, "every", real(self.every, "checkpoint.every", 0))

    @property
    def previous(self) -> str:
        """Where the checkpoint before the newest is."""
        return f"{os.path.realpath(self.path)}.previous"


class Stopped(SystemExit):
    """A signal ended the run after its progress was written; the process exits with 128 and the signal's number."""


class Writer:
    """Writes checkpoints of one run as `execute` goes along.

    saved: steps that the file holds, None if there is no file of this run
    rotates: whether what is there is good enough to stay as the previous checkpoint
    """

    def __init__(self, run, checkpoint, saved=None, rotates=True):
        self.run, self.checkpoint, self.last = run, checkpoint, time.monotonic()
        self.saved, self.rotates = saved, rotates
        self.live = self.latest = self.written = None
        self.copied, self.cost = self.last, 0.0

    def __call__(self, done):
        # a copy: an interrupt may find the live state in the middle of a launch
        self.live, now = done, time.monotonic()
        due = now - self.last >= self.checkpoint.every
        first = self.latest is None or self.latest.t == 0 < done.t  # what holds no step is worth no waiting
        if due or first or self.cost < CHEAP or now - self.copied >= SELDOM * self.cost:
            self.latest = done.copy()
            self.copied = time.monotonic()
            self.cost = self.copied - now
        if due:
            self.write()

    def write(self):
        """Write the latest progress now, if it is not there. A system that refuses is warned of."""
        done, path = self.latest, self.checkpoint.path
        if done is None or done.reached == self.written:
            return
        header = {"kind": "checkpoint", **done.reached, "seconds": done.seconds}
        previous = os.path.basename(self.checkpoint.previous) if self.rotates else None
        try:
            names = (*LIVE, *STOPS) if self.run.stop else LIVE
            archive.write(path, header, self.run, {name: getattr(done, name) for name in names}, done.records,
                          done.saved_weights, previous)
            self.saved, self.written, self.rotates = done.t, done.reached, True
        except (OSError, SpecError) as error:
            if isinstance(error.__context__, (KeyboardInterrupt, SystemExit)):
                raise error.__context__ from None  # it came in the middle of a write that then failed as well
            warnings.warn(f"checkpoint: {path!r} could not be written ({getattr(error, 'strerror', None) or error}); "
                          "what was there stays, and training goes on", stacklevel=2)
        finally:
            self.last = time.monotonic()

    def end(self):
        """Write the end of the run, if it moved at all."""
        if self.live is not None:
            self.latest = self.live
            self.write()

    def note(self):
        """Where the run stopped and how to go on, in a sentence."""
        path, T = self.checkpoint.path, self.run.steps
        if self.saved is None:
            return f"checkpoint: the run stopped before anything was kept in {path!r}"
        return (f"checkpoint: {path!r} holds step {self.saved} of {T}; the same call, or fs.resume({path!r}), goes on "
                "from there")


def run_with(plan, checkpoint, progress=None):
    """Execute a plan and report as `progress` asks, see watch.py; returns a Result.

    checkpoint: path or Checkpoint to write; a run that it holds goes on from there
    """
    checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    saved = _claimed(checkpoint, plan.run)  # refused before there is anything to see
    with watcher(plan, progress) as watch:
        return _run(plan, checkpoint, saved, watch)


def _run(plan, checkpoint, saved, watch):
    """Execute a plan from `saved`, a Saved or None, with checkpoints."""
    progress, writer = None, Writer(plan.run, checkpoint)
    if saved is not None:
        progress, writer.saved, writer.rotates = saved.progress, saved.progress.t, saved.newest
        if len(progress.lost) != plan.N:
            raise SpecError(f"checkpoint: {checkpoint.path!r} has {len(progress.lost)} networks, the run has {plan.N}")
    else:
        progress = fresh(plan)
        writer.latest = progress.copy()  # an interrupt may come in the first launch

    def on_launch(done):
        writer(done)
        if watch:
            watch(done)

    with stoppable():
        try:
            result = execute(plan, progress, on_launch)
            writer.end()
            return result
        except BaseException as error:
            writer.write()
            error.__notes__ = [*getattr(error, "__notes__", ()), writer.note()]
            raise


@contextmanager
def stoppable():
    """Within the block a signal to end the process raises Stopped, unless the user has a handler for it."""
    mine = []

    def stop(number, frame):
        for each in mine:
            signal.signal(each, signal.SIG_IGN)  # a second one must not cut the writing short
        raise Stopped(128 + number)

    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is signal.SIG_DFL:
                    mine.append(number)
                    signal.signal(number, stop)
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


@record()
class Saved:
    """What the file of a checkpoint holds: a Run and its Progress; newest: whether it is not the previous file's."""

    run: object
    progress: Progress | Together
    newest: bool = True


def load(path, classes=()):
    """(Run, Progress) of a checkpoint file, of the one before it where the newest is damaged. Raises SpecError."""
    saved = _newest(Checkpoint(path, classes=classes))
    if saved is None:
        raise SpecError(f"path: there is no file {str(path)!r}")
    return saved.run, saved.progress


def _newest(checkpoint):
    """The Saved of a checkpoint's file, None if there is none. Raises SpecError if it is no checkpoint."""
    path, previous = checkpoint.path, checkpoint.previous
    there, before = os.path.lexists(path), os.path.lexists(previous)
    why = "is missing"
    if there:
        try:
            if before:
                require_ours(previous)
            return _read(path, checkpoint.classes)
        except Damaged as error:
            if not before:
                raise
            why = f"cannot be read ({error})"
    elif not before:
        return None
    saved = replace(_read(previous, checkpoint.classes), newest=False)
    warnings.warn(f"checkpoint: {path!r} {why}; the one before it is taken", stacklevel=2)
    return saved


def _read(path, classes):
    """The Saved of one file."""
    header, run, live, records, saved_weights = archive.read(path, "checkpoint", LIVE, classes, STOPS)
    seconds = header.get("seconds")
    if not (isinstance(seconds, dict) and {"training", "metrics"} <= set(seconds)
            and all(type(s) in (int, float) and 0 <= s < float("inf") for s in seconds.values())):
        raise SpecError(f"path: {str(path)!r} does not say how long its run took")
    archive.validate(run, records=records, saved_weights=saved_weights, t=header.get("t"), taken=header.get("taken"),
                     **live)
    _say_version(path, header.get("version"))
    sizes = by_batch_size(run)
    return Saved(run, begun(sizes and [at for _, at in sizes], header["t"], header["taken"], records=records,
                           saved_weights=saved_weights, seconds=seconds, **live))


def _say_version(path, version):
    from . import __version__

    if version != __version__:
        other = f"fastsgd {version}" if isinstance(version, str) else "a fastsgd that did not say its version"
        warnings.warn(f"checkpoint: {str(path)!r} was written by {other:.50}, this is {__version__}; the steps from "
                      "here on need not have that one's bits", stacklevel=2)


def _claimed(checkpoint, run):
    """The Saved of a checkpoint's file to go on with, None if there is none. Raises SpecError if it is not `run`'s."""
    codec.require_readable(run, checkpoint.classes)
    saved = _newest(checkpoint)
    if saved is not None:
        require_same(saved.run, run, checkpoint.path)
        t, T = saved.progress.t, run.steps
        what = f"it goes on at step {t} of {T}" if t < T else "its result is taken from there"
        warnings.warn(f"checkpoint: {checkpoint.path!r} holds this run; {what}", stacklevel=2)
    return saved


def require_same(saved, run, path="the file"):
    """Raise SpecError unless a checkpoint's run asks for the same computation as `run`."""
    if codec.fingerprint(saved) != codec.fingerprint(run):
        other = [f.name for f in fields(run)
                 if codec.fingerprint(getattr(saved, f.name)) != codec.fingerprint(getattr(run, f.name))]
        raise SpecError(f"checkpoint: {path!r} belongs to another run (of another {', '.join(other)}); remove it, or "
                        "name another file")


def _with(metrics, functions):
    """Metrics with the functions that a file does not keep put back."""
    own = {metric.name for metric in metrics if isinstance(metric, Custom)}
    if set(functions) - own:
        raise SpecError(f"functions: {sorted(set(functions) - own)} given, the run's own metrics are {sorted(own)}")
    return [replace(metric, function=functions[metric.name]) if metric.name in functions else metric
            for metric in metrics]


def resume(path: str | Path, *, backend: str | None = None, tuning: Tuning | None = None, progress: object = None,
           checkpoint: object = None, functions: dict | None = None, classes: Sequence[type] = ()) -> Result:
    """Go on with a run where its checkpoint left it; the result has the bits of an uninterrupted run.

    path: file written by `train(..., checkpoint=...)`; of a run that has ended it gives the result
    backend: another backend than the run asked for
    progress, checkpoint: as in `fs.train`; by default checkpoints go on into the same file
    functions: {name: function} of the run's metrics that are functions, which files do not keep
    classes: dataclasses of your own that the run holds
    Raises SpecError if the file is no checkpoint; where it is damaged, a warning says so and the previous is taken.
    """
    source = Checkpoint(path, classes=classes)
    saved = _newest(source)
    if saved is None:
        raise SpecError(f"path: there is no file {str(path)!r}")
    run = saved.run
    if functions:
        run = run.replace(metrics=_with(run.metrics, functions))
    if backend is not None:
        run = run.replace(backend=backend)
    plan = make_plan(run, tuning)
    if checkpoint is None:
        checkpoint = source
    else:
        checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint, classes=classes)
        codec.require_readable(run, checkpoint.classes)
        into = _newest(checkpoint) if os.path.realpath(checkpoint.path) != os.path.realpath(path) else None
        if into is not None:
            require_same(into.run, run, checkpoint.path)
    with watcher(plan, progress) as watch:
        return _run(plan, checkpoint, saved, watch)
