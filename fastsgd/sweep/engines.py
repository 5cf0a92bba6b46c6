"""Owns who does a sweep's ranges: this process, processes of its own, executors, Dask, submitit, Ray."""

import os
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from pathlib import Path
from typing import Any

from ..errors import FastsgdError, SpecError
from ..limits import processors
from ..spec.check import whole
from ..spec.planned import Tuning
from . import work
from .claims import STALE

AHEAD = 256  # ranges that an executor has been given and has not done
TRIES = 3  # rounds in which nothing was done before a run gives up


def run(store: Any, engine: object = None, workers: int | None = None, tuning: Tuning | None = None,
        progress: object = None, stale: float = STALE) -> Any:
    """Do what is missing in a store; see `Sweep.run` for engines and workers."""
    workers = None if workers is None else whole(workers, "workers", 1, 2**16)
    if engine is None:
        return work.work(store, tuning=tuning, progress=progress, stale=stale)
    if engine == "local":
        return _local(store, workers or processors(), tuning, progress, stale)
    for fits, adapter in ADAPTERS:
        if fits(engine):
            return adapter(store, engine, workers, tuning, progress)
    raise SpecError(f"engine: {engine!r:.200} given, expected None, 'local', a concurrent.futures executor, a "
                    "dask.distributed.Client, a submitit executor, or the module ray")


def _local(store, workers, tuning, progress, stale):
    """Processes of this machine, each a worker of its own; the range of one that is killed is done by the others."""
    if store.classes:
        raise SpecError("engine: 'local' starts processes that do not know classes of your own; take None, or a "
                        "concurrent.futures.ProcessPoolExecutor")
    threads = max(1, processors() // workers) if tuning is None or tuning.threads is None else tuning.threads
    tries, left, reported = 0, store.missing(), set(store.done())
    while left:
        code = f"from fastsgd.sweep.engines import worker; worker({str(store.path.resolve())!r}, {threads}, {stale})"
        team = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL)
                for _ in range(min(workers, len(left)))]
        try:
            while any(one.poll() is None for one in team):
                time.sleep(0.1)
                _report(store, reported, progress)
        finally:
            for one in team:
                one.terminate()
            codes = [one.wait() for one in team]
        now = store.missing()
        _report(store, reported, progress)
        tries = tries + 1 if len(now) == len(left) else 0
        if now and (tries >= TRIES or any(code > 0 for code in codes)):
            raise SpecError(f"sweep: workers failed (exit codes {codes}, messages above); {len(now)} of "
                            f"{len(store.names)} ranges are missing, the same call goes on from there")
        left = now


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


def _report(store, reported, progress):
    """Tell of ranges that were done since the last time."""
    if progress is None or progress is False:
        return
    for name in sorted(store.done() - reported):
        reported.add(name)
        (work._tell if progress is True else progress)(store, name)


def _executor(store, executor, workers, tuning, progress):
    """Any executor of concurrent.futures: a task a range, some ahead; tasks of a lost worker are given out again."""
    tries, left = 0, store.missing()
    while left:
        waiting, at, failure = set(), iter(left), None
        for name in at:
            try:
                waiting.add(executor.submit(work.assigned, str(store.path), name, tuning, store.classes))
            except RuntimeError as error:  # the pool is broken or closed
                failure = error
                break
            if len(waiting) >= AHEAD:
                failure = _some(store, waiting, progress) or failure
        while waiting:
            failure = _some(store, waiting, progress) or failure
        now = store.missing()
        if now and isinstance(failure, SpecError):
            raise failure
        tries = tries + 1 if len(now) == len(left) else 0
        if now and (tries >= TRIES or (failure is not None and "pool" in str(failure).lower())):
            raise SpecError(f"sweep: the executor failed ({type(failure).__name__}: {failure}); {len(now)} of "
                            f"{len(store.names)} ranges are missing, the same call with another goes on") from failure
        left = now


def _some(store, waiting, progress):
    """Wait for a task of those waiting; returns what the done ones raised, or None."""
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    waiting -= done
    failure = None
    for task in done:
        error = task.exception() if not task.cancelled() else None
        if error is not None:
            failure = error
        elif progress is not None and progress is not False:
            (work._tell if progress is True else progress)(store, task.result())
    return failure


def _dask(store, client, workers, tuning, progress):
    """A Dask cluster; every worker must see the store's folder."""
    with client.get_executor(pure=False) as executor:
        _executor(store, executor, workers, tuning, progress)


def _submitit(store, executor, workers, tuning, progress):
    """A job array of workers, which share the ranges by claims; returns when all jobs have ended."""
    count = min(workers or 1, len(store.missing()))
    jobs = executor.map_array(_job, [str(Path(store.path).resolve())] * count, [tuning] * count) if count else []
    for job in jobs:
        job.result()


def _job(path, tuning):
    return work.work(path, tuning=tuning)


def _ray(store, ray, workers, tuning, progress):
    """Ray: a task a range."""
    task = ray.remote(work.assigned)
    ray.get([task.remote(str(Path(store.path).resolve()), name, tuning, store.classes) for name in store.missing()])


ADAPTERS = (
    (lambda engine: hasattr(engine, "get_executor"), _dask),
    (lambda engine: hasattr(engine, "map_array"), _submitit),
    (lambda engine: isinstance(engine, Executor), _executor),
    (lambda engine: hasattr(engine, "remote") and hasattr(engine, "get"), _ray),
)
