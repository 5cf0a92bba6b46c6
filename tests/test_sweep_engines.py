"""Who does a sweep's ranges does not matter: processes, executors, clusters, workers that are killed."""

import multiprocessing
import os
import random
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from claims_simulated import World
from sweeps import ONE, shards, small, some_work, sums

import fastsgd as fs
from fastsgd.sweep import claims

pytest.importorskip("zarr")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["fastsgd.sweep.work", "numcodecs", "google_crc32c", "sweeps", "numpy"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return small().run(tmp_path_factory.mktemp("sweep") / "whole.zarr", size=20, tuning=ONE)


def same(store, whole):
    assert sums(store) == sums(whole) and shards(store) == shards(whole)
    assert set(os.listdir(store.path)) == set(os.listdir(whole.path))
    assert {name for name in os.listdir(store.path / "claims") if name.startswith(".")} == set()


def kill_a_worker(store):
    """Kill whoever holds the first claim of a store, once there is one; returns its number."""
    while True:
        for path in (store.path / "claims").glob("*.0"):
            pid = claims.json.loads(path.read_text())["pid"]
            os.kill(pid, signal.SIGKILL)
            return pid
        time.sleep(0.001)


@pytest.mark.parametrize("engine", ["threads", "processes"])
def test_every_executor_gives_the_same_bytes(whole, tmp_path, monkeypatch, engine):
    told = []
    given = {"size": 20, "tuning": ONE, "progress": lambda store, name: told.append(name)}
    with ThreadPoolExecutor(2) if engine == "threads" else ProcessPoolExecutor(2, mp_context=FORKS) as pool:
        pool.submit(os.getpid).result()  # its processes start here
        monkeypatch.chdir(tmp_path)
        store = small().run("a", pool, **given)  # a path that means something here alone
    same(store, whole)
    assert sorted(told) == sorted(store.names)


def test_an_array_of_submitit_one_job_killed(whole, tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    executor = submitit.AutoExecutor(tmp_path / "log", cluster="local")
    executor.update_parameters(timeout_min=5)
    store, told = small().store(tmp_path / "a", size=20), []
    with ThreadPoolExecutor(1) as thread:
        killed = thread.submit(kill_a_worker, store)
        fs.sweep.run(store, executor, workers=2, tuning=ONE, progress=lambda store, name: told.append(name))
    assert killed.result() != os.getpid()
    same(store, whole)
    assert sorted(told) == sorted(store.names)
    (store.path / "done" / f"{store.names[0]}.json").unlink()
    (store.path / "sweep.npz").write_bytes(b"")
    with pytest.raises(fs.SpecError, match="damaged"):  # as a job says it
        fs.sweep.run(store, executor)


def test_tasks_of_ray_a_worker_killed(whole, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")  # too large for the tests' requirements
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    store, told = small().store(tmp_path / "a", size=20), []
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with ThreadPoolExecutor(1) as thread:
            killed = thread.submit(kill_a_worker, store)
            fs.sweep.run(store, ray, tuning=ONE, progress=lambda store, name: told.append(name))
        assert killed.result() != os.getpid()
        same(store, whole)
        assert sorted(told) == sorted(store.names)
        (store.path / "done" / f"{store.names[0]}.json").unlink()
        (store.path / "sweep.npz").write_bytes(b"")
        with pytest.raises(fs.SpecError, match="damaged") as caught:  # as a task says it
            fs.sweep.run(store, ray)
        assert str(caught.value).count("\n") == 0
    finally:
        ray.shutdown()


def test_local_workers_one_of_them_killed(whole, tmp_path):
    store = small().store(tmp_path / "a", size=20)
    killed = []

    def kill(store, name):
        children = multiprocessing.active_children()  # of our own; the engine's are found by their parent
        mine = [int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and parent(int(pid)) == os.getpid()]
        mine = [pid for pid in mine if pid not in [child.pid for child in children] and b"engines" in command(pid)]
        if not killed and mine:
            os.kill(mine[0], signal.SIGKILL)
            killed.append(mine[0])

    fs.sweep.run(store, "local", workers=2, progress=kill, stale=600)
    assert killed
    same(store, whole)


def parent(pid):
    try:
        return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None


def command(pid):
    try:
        return open(f"/proc/{pid}/cmdline", "rb").read()
    except OSError:
        return b""


def test_an_unknown_engine_is_refused(tmp_path):
    for engine in ("slurm", 3, object()):
        with pytest.raises(fs.SpecError, match="engine"):
            small().run(tmp_path / "a", engine, size=20)


def test_a_broken_pool_is_said_so_and_nothing_is_lost(whole, tmp_path):
    store = small().store(tmp_path / "a", size=20)
    with ProcessPoolExecutor(1, mp_context=FORKS) as pool:
        pool.submit(os.getpid).result()
        next(iter(pool._processes.values())).kill()
        with pytest.raises(fs.SpecError, match=r"executor failed.*missing"):
            fs.sweep.run(store, pool)
    fs.sweep.work(store)
    same(store, whole)


def worker(*given):
    process = FORKS.Process(target=some_work, args=given)
    process.start()
    return process


@pytest.mark.parametrize("seed", range(int(os.environ.get("SOAK_SWEEPS", "1"))))
def test_workers_killed_at_random_moments_lose_nothing(whole, tmp_path, seed):
    rng = random.Random(seed)
    store, kills = small().store(tmp_path / "a", size=20), 0
    team = [worker(str(store.path), rng.uniform(0.01, 0.15)) for _ in range(2)]
    for _ in range(9):
        one = team.pop(0)
        one.join()
        kills += one.exitcode == -signal.SIGKILL
        store.open(allow_incomplete=True)  # at any moment it can be read
        team.append(worker(str(store.path), rng.uniform(0.01, 0.15)))
    for one in team:
        one.join()
    worker(str(store.path), 600).join()
    assert kills > 3
    same(store, whole)


def test_workers_started_at_different_times_share(whole, tmp_path):
    store = small().store(tmp_path / "a", size=20)
    first = worker(str(store.path), 600)
    while not store.done() and first.is_alive():
        time.sleep(0.005)
    second = worker(str(store.path), 600)
    for one in (first, second):
        one.join()
        assert one.exitcode == 0
    same(store, whole)


def test_dask_workers_one_of_them_killed(whole, tmp_path):
    distributed = pytest.importorskip("distributed")
    store, killed = small().store(tmp_path / "a", size=20), []
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
                                  host="127.0.0.1") as cluster, distributed.Client(cluster) as client:
        def kill(store, name):
            if not killed:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)

        fs.sweep.run(store, client, tuning=ONE, progress=kill)
    assert killed
    same(store, whole)


def test_claims_of_the_dead_are_taken_over_at_once_and_of_the_living_not(tmp_path):
    folder, clock = claims.Folder(tmp_path), [0.0]
    one, two = (claims.Claims(folder, stale=10, clock=lambda: clock[0], me=name, dead=lambda text: text == "dead")
                for name in ("dead", "b"))
    assert one.take(lambda: ["r"]) == ("r", 0)
    assert two.take(lambda: ["r"]) == ("r", 1)
    other = claims.Claims(folder, stale=10, clock=lambda: clock[0], me="c", dead=lambda text: text == "dead")
    for clock[0] in (0.0, 9.0):
        assert other.take(lambda: ["r"]) is None
    folder.touch("r.1")  # a sign of life
    os.utime(tmp_path / "r.1", ns=(1, 12345))  # by a clock that is wrong
    for clock[0] in (18.0, 27.0):
        assert other.take(lambda: ["r"]) is None
    clock[0] = 28.5
    assert other.take(lambda: ["r"]) == ("r", 2)
    assert other.force("r") == ("r", 3) and other.force("s") == ("s", 0)
    assert sorted(os.listdir(tmp_path)) == ["r.0", "r.1", "r.2", "r.3", "s.0"]


def test_many_workers_lose_nothing_and_do_little_twice():
    world = World(50, 500, seed=2).run()
    assert set(world.finished) == set(world.names)
    assert world.crashes > 1 and world.pauses > 0
    assert world.crashes <= world.taken  # whoever fell silent was relieved
    assert world.twice <= world.taken - world.crashes + world.pauses and world.twice <= 2 * world.pauses
    assert world.refused < 10 * len(world.names)


def test_owners_are_known_on_their_machine():
    assert not claims.gone(claims.owner())
    child = FORKS.Process(target=time.sleep, args=(0,))
    child.start()
    child.join()
    mine = claims.json.loads(claims.owner())
    assert claims.gone(claims.json.dumps(mine | {"pid": child.pid}))
    assert claims.gone(claims.json.dumps(mine | {"started": "1"}))  # its number is another process's now
    assert not claims.gone(claims.json.dumps(mine | {"machine": "another", "pid": child.pid}))
    assert not any(map(claims.gone, ("", "{}", "[]", "null", '{"machine": ""}')))
