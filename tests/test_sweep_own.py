"""What a user made himself in a sweep: functions, traced or not, stops, parts of rules; workers know none of them."""

import multiprocessing
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from sweeps import DATA, ONE, RUN, shards, some_work, sums

import fastsgd as fs

pytest.importorskip("zarr")
pytest.importorskip("xarray")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["fastsgd.sweep.work", "numcodecs", "google_crc32c", "sweeps", "numpy"])
M, R, L = fs.models, fs.rules, fs.losses


def net(p, x):
    return p["beta"] * (p["a"] @ torch.tanh(p["W"] @ x))


def heavy(p, g, state, lr, b):
    m = b * state["m"] + g
    return p - lr * m, {"m": m}


def stream(ids, t0, t1, batch):
    X = np.ones((len(ids), t1 - t0, batch, 6))
    return X, X[..., 0]


OWN = M.Function(net, d=6, shapes={"W": (3, 6), "a": 3}, start={"W": (0, 1), "a": (0, 0.5)}, constants={"beta": [1.0]})
MODULE = M.from_module(torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)), d=6)
LOSS = L.Function(lambda h, y, c: c * (h - y) ** 2, constants={"c": 0.5})
RULE = R.Function(heavy, state={"m": 0.0}, constants={"b": 0.5})
SHRUNK = R.SGD(penalty=lambda p: 1e-2 * sum((a**2).sum() for a in p.values()))
LOW = fs.stops.Below("train_loss", 0.1, every=10)
UNTRACED = M.Function(lambda p, x: p["a"] @ torch.linalg.pinv(x[None])[:, 0] if x[0] > 0 else p["a"] @ x, d=6,
                      shapes={"a": 6})
STEPS = {"step_size": [0.01, 0.1]}
CASES = {
    "model": (RUN.replace(model=OWN), {"grid": STEPS | {"model.constants.beta": [0.5, 1.0]}}, 1),
    "starts": (RUN.replace(model=OWN), {"grid": {"model.start.W": [(0, 0.5), (0, 1.0)]}}, 2),
    "models": (RUN, {"grid": STEPS | {"model": [OWN, MODULE, M.DiagonalLinear(6)]}}, 3),
    "loss": (RUN.replace(loss=LOSS), {"grid": STEPS | {"loss.constants.c": [0.5, 1.0]}}, 2),
    "losses": (RUN, {"grid": {"loss": [LOSS, L.Squared.full()], "model": [OWN, M.DiagonalLinear(6)]}}, 4),
    "rule": (RUN.replace(rule=RULE), {"grid": STEPS | {"rule.constants.b": [0.0, 0.5, 0.9]}}, 1),
    "rules": (RUN.replace(model=OWN), {"grid": STEPS | {"rule": [RULE, SHRUNK, R.SGD()]}}, 3),
    "penalties": (RUN, {"grid": {"rule.penalty": [lambda p: (p["u"] ** 2).sum(), lambda p: (p["v"] ** 2).sum()]}}, 2),
    "a penalty of several models": (RUN, {"zip": {"model": [OWN, M.MLP(6, 4)], "rule": [SHRUNK, SHRUNK]}}, 2),
    "batches": (RUN.replace(rule=R.Adam()), {"grid": STEPS | {"rule.batch_size": [1, 3, None]}}, 3),
    "levels": (RUN.replace(stop=LOW), {"grid": STEPS | {"stop.level": [0.1, 0.5]}}, 1),
    "stops": (RUN, {"grid": STEPS | {"stop": [None, LOW, fs.stops.Above("test_loss", 5.0)]}}, 3),
    "groups": (RUN, {"grid": STEPS | {"rule.weight_decay": [{"u": 0.1}, {"u": 0.1, "v": 0.2}]}}, 2),
}


def worker(path, seconds):
    process = FORKS.Process(target=some_work, args=(str(path), seconds))
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("name", CASES)
def test_workers_that_know_no_functions_give_the_same_bytes(tmp_path, name):
    base, axes, groups = CASES[name]
    sweep = fs.Sweep(base, **axes, replicas=2)
    whole = sweep.run(tmp_path / "whole", size=2, tuning=ONE)
    store = sweep.store(tmp_path / "a", size=2)
    assert len(sweep.groups) == groups and store.work(shard=(1, 2), tuning=ONE)
    assert worker(store.path, 0.05) in (0, -signal.SIGKILL) and worker(store.path, 600) == 0
    assert sums(store) == sums(whole) and shards(store) == shards(whole)
    assert sweep.store(store.path).names == store.names  # the same call finds what it made
    read, cells = fs.sweep.open(store.path), np.argwhere(np.ones(sweep.shape[:-1]))
    assert np.array_equal(*(replace(one, draws="own").keys(cells, [0]) for one in (sweep, read.sweep)))
    ds = read.open()
    for cell in np.ndindex(sweep.shape[:-1]):
        there = ds.isel(dict(zip([axis.dim for axis in sweep.axes], cell, strict=True)))
        at = {axis.dim: k if len(axis.columns) > 1 else ds[axis.dim].values[k]
              for axis, k in zip(sweep.axes, cell, strict=True)}
        one = read.replay(replica=1, save=fs.SaveAt(linear=4), **at)
        for metric in one.records:
            assert np.array_equal(one.numpy(metric)[0], there[metric].values[1], equal_nan=True)
        assert one.lost[0] == there["lost"][1] and ("stopped" not in ds or one.stopped[0] == there["stopped"][1])
    if "stopped" in ds:
        assert (ds["stopped"] >= 0).any() and (read.reduced()["stopped_share"] > 0).any()


@pytest.mark.parametrize(("base", "axes", "words"), [
    (RUN.replace(data=fs.data.Stream(6, stream), metrics=()), {}, r"sweep\.base: a Stream .*Fresh.*fs\.train"),
    (RUN.replace(metrics=()), {"grid": {"data": [DATA, fs.data.Stream(6, stream)]}}, "data: a Stream given"),
    (RUN.replace(model=M.MLP(6, 4), rule=SHRUNK), {"grid": {"model.widths": [3, 5]}},
     r"rule\.penalty is a function.*zip=\{'model\.widths': .*'rule': "),
    (RUN, {"grid": {"model": [OWN, M.DiagonalLinear(6)], "rule": [SHRUNK]}}, "which model changes"),
    (RUN.replace(model=M.MLP(6, 4), loss=LOSS), {"grid": {"model.outputs": [1, 2]}}, "loss is a function"),
    (RUN, {"grid": {"step_size": [np.ones(60)]}}, r"60 networks.*StepTable"),
    (RUN, {"grid": {"rule": [R.SGD(momentum=[0, 0.5])]}}, r"gives rule\.momentum for 2 networks"),
    (RUN, {"cases": [{"init": {"u": np.ones((2, 6)), "v": np.ones(6)}}]}, r"gives init\.u for 2 networks"),
    (RUN.replace(model=UNTRACED), {}, "model is a function that could not be traced"),
    (RUN, {"grid": {"loss": [L.Function(lambda h, y: (h - y) ** 2 if h > 0 else h)]}}, "loss is a function that could"),
    (RUN.replace(step_size=[0.1]), {}, r"sweep\.base: step_size given as arrays"),
    (RUN, {"grid": {"rule": [R.SGD(momentum=[0.5])]}}, r"rule\.momentum for 1 network as an array"),
    (RUN.replace(stop=LOW), {"grid": {"stop.1.level": [0.1]}}, "entry 1 of 1"),
    (RUN.replace(model=OWN), {"grid": {"model.scale.W": [(0, 1)]}}, "no such field; legal are function, d, shapes"),
])
def test_what_cannot_be_swept_is_refused_first(base, axes, words, nothing_runs):
    with pytest.raises(fs.SpecError, match=words):
        fs.Sweep(base, **axes)


def test_values_that_cannot_run_do_not_grow_a_store(tmp_path):
    store = fs.Sweep(RUN, grid={"order": [None]}).run(tmp_path / "a")
    with pytest.raises(fs.PlanError, match="order"):
        fs.Sweep(RUN, grid={"order": [None, fs.orders.Replay([0] * 9)]}).store(tmp_path / "a")
    assert fs.sweep.open(tmp_path / "a").names == store.names
