"""Owns who does a sweep's ranges: this process, processes of its own, executors, Dask, submitit, Ray."""

import os
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from typing import Any

from ..errors import FastsgdError, SpecError
from ..limits import processors
from ..spec.check import whole
from ..spec.planned import Tuning
from . import work
from .claims import STALE

AHEAD = 256  # ranges that an executor has been given and has not done
TRIES = 3  # rounds in which nothing was done before a run gives up
POLL = 5.0  # seconds at most between two looks at jobs of a cluster


def run(store: Any, engine: object = None, workers: int | None = None, tuning: Tuning | None = None,
        progress: object = None, stale: float = STALE) -> Any:
    """Do what is missing in a store; see `Sweep.run` for engines and workers."""
    workers, tell = None if workers is None else whole(workers, "workers", 1, 2**16), work.checked(
        tuning, progress, stale)
    if engine is None:
        return work.work(store, tuning=tuning, progress=progress, stale=stale)
    if engine == "local":
        return _local(store, workers or processors(), tuning, tell, stale)
    for fits, adapter in ADAPTERS:
        if fits(engine):
            return adapter(store, engine, workers, tuning, tell, stale)
    raise SpecError(f"engine: {engine!r:.200} given, expected None, 'local', a concurrent.futures executor, a "
                    "dask.distributed.Client, a submitit executor, or the module ray")


def _rounds(store, who, once):
    """Call `once` with the names of what is missing until nothing is.

    once: returns (what failed: an exception, words or None; whether another round would be of no use)
    """
    tries, left = 0, store.missing()
    while left:
        failure, hopeless = once(left)
        now = store.missing()
        tries = tries + 1 if len(now) == len(left) else 0
        if now and isinstance(failure, FastsgdError):
            raise failure
        if now and (hopeless or tries >= TRIES):
            why = f"{type(failure).__name__}: {failure}" if isinstance(failure, Exception) else failure
            raise SpecError(f"sweep: {who} failed ({why}); {len(now)} of {len(store.names)} ranges are missing, "
                            "the same call goes on from there")
        left = now


def _local(store, workers, tuning, tell, stale):
    """Processes of this machine, each a worker of its own; the range of one that is killed is done by the others."""
    if store.classes:
        raise SpecError("engine: 'local' starts processes that do not know classes of your own; take None, or a "
                        "concurrent.futures.ProcessPoolExecutor")
    threads = max(1, processors() // workers) if tuning is None or tuning.threads is None else tuning.threads
    code = f"from fastsgd.sweep.engines import worker; worker({_path(store)!r}, {threads}, {stale})"
    reported = set(store.done())

    def once(left):
        team = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL)
                for _ in range(min(workers, len(left)))]
        try:
            while any(one.poll() is None for one in team):
                time.sleep(0.1)
                _report(store, reported, tell)
        finally:
            for one in team:
                one.terminate()
            codes = [one.wait() for one in team]
        _report(store, reported, tell)
        return f"exit codes {codes}, messages above", any(code > 0 for code in codes)

    _rounds(store, "workers", once)


def _path(store):
    """Where workers find the store, whatever folder they start in."""
    return str(store.path.absolute())


def worker(path, threads, stale):
    """What a process of the local engine does: it ends when nothing is missing, or when its parent is gone."""
    parent = os.getppid()
    try:
        work.work(path, tuning=Tuning(threads=threads), stale=stale, until=lambda: os.getppid() != parent)
    except FastsgdError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _report(store, reported, tell):
    """Tell of ranges that were done since the last time."""
    for name in sorted(store.done() - reported):
        reported.add(name)
        tell(store, name)


def _executor(store, executor, workers, tuning, tell, stale):
    """Any executor of concurrent.futures: a task a range, some ahead; tasks of a lost worker are given out again."""

    def once(left):
        waiting, failure, closed = set(), None, False
        for name in left:
            try:
                waiting.add(executor.submit(work.assigned, _path(store), name, tuning, store.classes))
            except RuntimeError as error:  # the pool is broken or closed
                failure, closed = failure or error, True
                break
            if len(waiting) >= AHEAD:
                failure = _some(store, waiting, tell) or failure
        while waiting:
            failure = _some(store, waiting, tell) or failure
        return failure, closed

    _rounds(store, "the executor", once)


def _some(store, waiting, tell):
    """Wait for a task of those waiting; returns what the done ones raised, or None."""
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    waiting -= done
    failure = None
    for task in done:
        error = task.exception() if not task.cancelled() else None
        if error is not None:
            cause = getattr(error, "cause", None)  # Ray wraps what a task raised, with its traceback as the message
            failure = cause if isinstance(cause, FastsgdError) else error
        elif not task.cancelled():
            tell(store, task.result())
    return failure


def _dask(store, client, workers, tuning, tell, stale):
    """A Dask cluster; every worker must see the store's folder."""
    with client.get_executor(pure=False) as executor:
        _executor(store, executor, workers, tuning, tell, stale)


def _ray(store, ray, workers, tuning, tell, stale):
    """Ray: a task a range."""
    task = ray.remote(work.assigned)

    class Tasks:
        def submit(self, function, *given):
            return task.remote(*given).future()

    _executor(store, Tasks(), workers, tuning, tell, stale)


def _submitit(store, executor, workers, tuning, tell, stale):
    """Job arrays of workers, which share the ranges by claims; what a killed one was at is done by the others."""
    reported = set(store.done())

    def once(left):
        given = (_path(store), tuning, stale, store.classes)
        jobs, pause = executor.map_array(_job, *zip(*[given] * min(workers or 1, len(left)), strict=True)), 0.05
        while store.missing() and not all(job.done() for job in jobs):
            time.sleep(pause)
            pause = min(2 * pause, POLL)
            _report(store, reported, tell)
        _report(store, reported, tell)
        failures = [job.exception() or job.result() for job in jobs] if store.missing() else []
        return next((failure for failure in failures if isinstance(failure, Exception)), None), False

    _rounds(store, "jobs", once)


def _job(path, tuning, stale, classes):
    """What a job does; returns what we refused, which submitit would wrap."""
    try:
        return work.work(path, tuning=tuning, stale=stale, classes=classes)
    except FastsgdError as error:
        return error


ADAPTERS = (
    (lambda engine: hasattr(engine, "get_executor"), _dask),
    (lambda engine: hasattr(engine, "map_array"), _submitit),
    (lambda engine: isinstance(engine, Executor), _executor),
    (lambda engine: hasattr(engine, "remote") and hasattr(engine, "get"), _ray),
)
