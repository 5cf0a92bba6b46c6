"""Owns checkpoints: a run and its progress in one file, written between launches, resumed to the bit."""

import time
from dataclasses import dataclass, replace

from . import storage
from .errors import SpecError
from .execute import Progress, execute
from .plan import plan as make_plan
from .result import pack, unpack
from .spec import codec
from .spec.check import real
from .spec.metric import Custom
from .watch import watcher

LIVE = ("weights", "lost", "buffers")  # the arrays of a Progress that a launch changes
CHEAP, SELDOM = 0.01, 50  # seconds; dearer copies are made so seldom that they take a fiftieth of the time


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often to write a run's progress.

    path: file; it is replaced whole, and removed by nobody
    every: seconds between writes, >= 0; one is also written when the run is interrupted
    """

    path: str
    every: float = 60.0

    def __post_init__(self):
        object.__setattr__(self, "path", str(storage.writable(self.path, "checkpoint.path")))
        object.__setattr__(self, "every", real(self.every, "checkpoint.every", 0))


class Writer:
    """Writes checkpoints of one run as `execute` goes along."""

    def __init__(self, run, checkpoint):
        codec.require_own(run)
        self.run, self.checkpoint, self.last = run, checkpoint, time.monotonic()
        self.latest, self.copied, self.cost = None, self.last, 0.0

    def __call__(self, done):
        # a copy: an interrupt may find the live state in the middle of a launch
        now, due = time.monotonic(), time.monotonic() - self.last >= self.checkpoint.every
        if due or self.cost < CHEAP or now - self.copied >= SELDOM * self.cost:
            self.latest = done.copy()
            self.copied = time.monotonic()
            self.cost = self.copied - now
        if due:
            self.write()

    def write(self):
        """Write the latest progress now."""
        done = self.latest
        if done is None:
            return
        text, arrays = codec.encode(self.run)
        arrays |= {name: getattr(done, name) for name in LIVE} | pack(done.records, done.saved_weights)
        header = {"kind": "checkpoint", "run": text, "t": done.t, "taken": done.taken, "seconds": done.seconds}
        storage.write(self.checkpoint.path, header, arrays)
        self.last = time.monotonic()


def run_with(plan, checkpoint=None, progress=None, watch=None):
    """Execute a plan, writing checkpoints if asked to and calling `watch(done)` after each launch; returns a Result."""
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint(checkpoint)
    writer = None
    if checkpoint is not None:
        writer, progress = Writer(plan.run, checkpoint), progress or Progress.fresh(plan)
        writer.latest = progress.copy()  # an interrupt may come in the first launch
    listeners = [f for f in (writer, watch) if f is not None]

    def on_launch(done):
        for listener in listeners:
            listener(done)

    try:
        return execute(plan, progress, on_launch if listeners else None)
    except KeyboardInterrupt:
        if writer is not None:
            writer.write()
        raise


def load(path):
    """(Run, Progress) of a checkpoint file. Raises SpecError if it is none."""
    header, arrays = storage.read(path, "checkpoint")
    missing = [name for name in LIVE if name not in arrays]
    if missing:
        raise SpecError(f"checkpoint: {str(path)!r} lacks {', '.join(missing)}; it was written by another version")
    live = (arrays[name] for name in LIVE)
    progress = Progress(header["t"], header["taken"], *live, *unpack(arrays), header["seconds"])
    return codec.decode(header["run"], arrays), progress


def require_same(saved, run):
    """Raise SpecError unless a checkpoint's run asks for the same computation as `run`."""
    if codec.fingerprint(saved) != codec.fingerprint(run):
        raise SpecError("checkpoint: the file belongs to another run; remove it, or name another file")


def _with(metrics, functions):
    """Metrics with the functions that a file does not keep put back."""
    own = {metric.name for metric in metrics if isinstance(metric, Custom)}
    if set(functions) - own:
        raise SpecError(f"functions: {sorted(set(functions) - own)} given, the run's own metrics are {sorted(own)}")
    return [replace(metric, function=functions[metric.name]) if metric.name in functions else metric
            for metric in metrics]


def resume(path, *, backend=None, tuning=None, progress=None, checkpoint=None, functions=None):
    """Go on with a run where its checkpoint left it; the result has the bits of an uninterrupted run.

    path: file written by `train(..., checkpoint=...)`
    backend: another backend than the run asked for
    progress, checkpoint: as in `fs.train`; by default checkpoints go on into the same file
    functions: {name: function} of the run's metrics that are functions, which files do not keep
    """
    run, done = load(path)
    if functions:
        run = run.replace(metrics=_with(run.metrics, functions))
    if backend is not None:
        run = run.replace(backend=backend)
    plan = make_plan(run, tuning)
    with watcher(plan, progress) as watch:
        return run_with(plan, checkpoint or Checkpoint(str(path)), done, watch)
