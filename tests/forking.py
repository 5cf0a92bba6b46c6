"""Owns what test_forks.py runs: `python tests/forking.py WAY` computes here on two threads, and again in children."""

import concurrent.futures
import multiprocessing
import os
import pickle
import sys
import threading
import traceback

import numpy as np

import fastsgd as fs


def computed(_=None):
    """What training, a metric kernel and fs.linalg make of one problem on two threads, as bytes."""
    g = np.random.default_rng(0)
    X = g.standard_normal((20, 5))
    run = fs.Run(fs.models.MLP(5, (4, 3)), fs.Dataset(X, X[:, 0].copy()), fs.rules.SGD(momentum=0.5), 0.01, 50,
                 networks=64, dtype="float64", metrics=[fs.metrics.JacobianRank(rtol=1e-4, points=X)])
    result = fs.train(run, tuning=fs.Tuning(threads=2))
    plain = fs.train(run.replace(model=fs.models.DiagonalLinear(5), rule=fs.rules.SGD()), tuning=fs.Tuning(threads=2))
    stack = g.standard_normal((16, 9, 7))
    values = fs.linalg.singular_values(stack, threads=2), fs.linalg.rank(stack, 1e-4, threads=2)
    return (result.weights.tobytes(), result.records["rank"].tobytes(), plain.weights.tobytes(),
            *(np.asarray(a).tobytes() for a in values))


def forked(function=computed):
    """What a function returns in a child made by os.fork alone."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        try:
            with os.fdopen(write, "wb") as out:
                pickle.dump(function(), out)
        except BaseException:
            traceback.print_exc()
        os._exit(0)  # whatever happened: nothing else of the parent is to run twice
    os.close(write)
    with os.fdopen(read, "rb") as back:
        answer = pickle.load(back)
    assert os.waitpid(pid, 0)[1] == 0
    return answer


def in_process(kind):
    with multiprocessing.get_context(kind).Pool(2) as pool:
        return pool.map(computed, range(3))


def in_futures(kind):
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(kind)) as pool:
        return list(pool.map(computed, range(3)))


def in_joblib(backend):
    import joblib

    return joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(computed)() for _ in range(3))


def beside_a_run():
    """Children forked from one thread while another is in a kernel; that one goes on undisturbed."""
    kept, end = [], threading.Event()

    def work():
        while not end.is_set():
            kept.append(computed())

    worker = threading.Thread(target=work)
    worker.start()
    try:
        answers = [forked() for _ in range(5)]
    finally:
        end.set()
        worker.join()
    return answers + kept


WAYS = {
    "fork": lambda: [forked(), forked(), computed()],
    "grandchild": lambda: [forked(forked), forked(lambda: computed() and forked())],
    "pool_fork": lambda: in_process("fork"), "pool_spawn": lambda: in_process("spawn"),
    "pool_forkserver": lambda: in_process("forkserver"),
    "futures_fork": lambda: in_futures("fork"), "futures_spawn": lambda: in_futures("spawn"),
    "joblib_loky": lambda: in_joblib("loky"), "joblib_multiprocessing": lambda: in_joblib("multiprocessing"),
    "thread": beside_a_run,
}

if __name__ == "__main__":
    here = computed()
    assert all(answer == here for answer in WAYS[sys.argv[1]]())
    assert computed() == here
    print("the same bits")
