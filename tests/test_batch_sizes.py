"""Batch sizes of each network: networks of a size are one run, and each has the bits of a run of its size alone."""

import json

import numpy as np
import pytest
from general_cases import NETWORKS, D, general
from test_cli import fastsgd

import fastsgd as fs

M, R = fs.models, fs.rules
SIZES = np.array([1, 3, 2, 3, 1, 1, 2, 7, 3, 1, 2])
NET = M.MLP(D, 4, activation="tanh")
EVERY = [R.SGD(batch_size=SIZES), R.Adam(batch_size=SIZES, beta1=np.linspace(0.1, 0.9, NETWORKS), average=0.5),
         R.SAM(rho=0.1, batch_size=SIZES, momentum=0.5, label_noise=0.1)]


def same(got, want, at=slice(None)):
    assert got.weights.tobytes() == want.weights[at].tobytes() and got.lost.tolist() == want.lost[at].tolist()
    assert got.saved_weights.tobytes() == want.saved_weights[at].tobytes()
    assert (got.buffers is None) == (want.buffers is None)
    if got.buffers is not None:
        assert got.buffers.tobytes() == want.buffers[at].tobytes()
    for name in want.records:
        assert got.numpy(name).tobytes() == want.numpy(name)[at].tobytes()


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: type(rule).__name__)
def test_each_network_has_the_bits_of_a_run_of_its_size(rule):
    run = general({"model": NET, "rule": rule})
    whole = fs.train(run)
    assert whole.run is run and whole.ids.tolist() == list(range(NETWORKS)) and whole.survived.all()
    for k, size in enumerate(SIZES):
        same(fs.train(run.replace(rule=rule.of_batch(int(size)), ids=[k])), whole, [k])
    ids = [7, 0, 3]
    part = fs.train(run.replace(ids=ids))
    assert part.ids.tolist() == ids
    same(part, whole, ids)


def test_data_sets_keys_stops_and_orders_go_with_it():
    rng = np.random.default_rng(0)
    data = fs.Dataset(rng.standard_normal((NETWORKS, 9, D)), rng.standard_normal((NETWORKS, 9)))
    run = general({"model": NET, "rule": R.SGD(batch_size=SIZES), "data": data}, metrics=[fs.metrics.TrainLoss()],
                  keys=np.arange(NETWORKS)[::-1] + 5, order=fs.orders.Reshuffle(drop_last=False),
                  stop=[fs.stops.Below("train_loss", 0.8, every=4)])
    whole = fs.train(run)
    assert len(set(whole.stopped)) > 1
    for k in (0, 1, 7):
        alone = fs.train(run.replace(rule=R.SGD(batch_size=int(SIZES[k])), ids=[k]))
        same(alone, whole, [k])
        assert alone.stopped[0] == whole.stopped[k]


def test_the_plan_says_the_groups():
    plan = fs.plan(general({"model": NET, "rule": EVERY[0]}))
    text = plan.explain()
    assert f"{NETWORKS} networks in 4 groups" in text and "4 with 1 a step, 3 with 2 a step" in text
    assert text.count("backend: cpu") == 4 and plan.N == NETWORKS
    for name in ("memory", "expected"):
        whole, parts = getattr(plan, name), [getattr(one, name) for one in plan.plans]
        assert whole == {what: pytest.approx(sum(part[what] for part in parts)) for what in parts[0]}
    same(fs.train(plan), fs.train(plan.run))


def test_the_plan_trains_with_other_numbers():
    run = general({"model": NET, "rule": EVERY[0]})
    plan = fs.plan(run)
    for changes in ({}, {"step_size": 0.01, "seed": 9}, {"step_size": np.linspace(0.01, 0.1, NETWORKS)},
                    {"init": {name: a[::-1] for name, a in NET.unflatten(fs.train(run).weights).items()}}):
        got = plan.train(**changes)
        same(got, fs.train(run.replace(**changes)))
        assert got.run.seed == changes.get("seed", run.seed) and got.ids.tolist() == list(range(NETWORKS))
    with pytest.raises(fs.PlanError, match="step_size has 2"):
        plan.train(step_size=[0.1, 0.2])


def test_files_labels_and_parts(tmp_path):
    run = general({"model": NET, "rule": EVERY[0]})
    whole = fs.train(run)
    whole.save(tmp_path / "r.npz")
    back = fs.Result.load(tmp_path / "r.npz")
    same(back, whole)
    same(fs.train(back.run), whole)
    some = whole.select(batch_size=3)
    assert some.ids.tolist() == np.flatnonzero(SIZES == 3).tolist()
    same(fs.train(some.run), whole, some.ids)
    again = fs.concat([whole.select(np.arange(NETWORKS) < 4), whole.select(np.arange(NETWORKS) >= 4)])
    np.testing.assert_array_equal(again.run.rule.batch_size, SIZES)


def test_files_have_the_graphs_of_own_losses(tmp_path):
    loss = fs.losses.Function(lambda h, y, c: c * (h - y) ** 2, constants={"c": np.linspace(0.5, 1, NETWORKS)})
    whole = fs.train(general({"model": NET, "rule": EVERY[0], "loss": loss}))
    whole.save(tmp_path / "r.npz")
    same(fs.train(fs.Result.load(tmp_path / "r.npz").run), whole)


def test_one_network_and_values_of_sweeps(tmp_path):
    run = general({"model": NET, "rule": R.SGD(batch_size=[3])}, step_size=0.03)
    one = fs.train(run.replace(rule=R.SGD(batch_size=3)))
    assert fs.train(run).weights.tobytes() == one.weights.tobytes()


REFUSED = [(lambda: R.SGD(batch_size=[1, 0]), "rule.batch_size: 0 .. 1 given"), (lambda: R.Adam(batch_size=[]), "none"),
           (lambda: R.SGD(batch_size=[1.5, 2.0]), "rule.batch_size: holds float64, expected integers"),
           (lambda: R.SGD(batch_size=[[1]]), "rule.batch_size: has shape")]


@pytest.mark.parametrize(("make", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_batch_size_of_each_network(make, words):
    with pytest.raises(fs.SpecError, match=words):
        make()


def test_what_takes_one_batch_size_says_so(tmp_path):
    run = general({"model": NET, "rule": EVERY[0]}, step_size=0.03)
    result = fs.train(run)
    for go in (lambda: fs.companions([run, run.replace(seed=5)]),
               lambda: fs.functional.advance_(NET, result.weights.copy(), run.data.X, run.data.y, step_size=0.1,
                                              steps=3, order=fs.orders.PerNetwork(), rule=EVERY[0])):
        with pytest.raises(fs.PlanError, match=r"rule.batch_size: one of each network given"):
            go()
    with pytest.raises(fs.PlanError, match=r"rule.batch_size has 11"):
        fs.plan(run.replace(step_size=[0.1, 0.2]))
    with pytest.raises(fs.PlanError, match="7 samples a step without replacement, but X has n=5"):
        fs.plan(run.replace(order=fs.orders.PerNetwork(replace=False), data=fs.Dataset(run.data.X[:5], run.data.y[:5]),
                            metrics=()))


def test_the_command_line_plans_and_runs_them(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('steps = 5\nmodel = {type = "ReLU2", d = 2, width = 4}\ndtype = "float64"\nstep_size = 0.1\n'
                      'rule = {type = "SGD", batch_size = [1, 3, 1]}\n'
                      'data = {type = "teacher_student", n = 15, d = 2, teacher_width = 3}\n')
    status, out, err = fastsgd("plan", config, "--json")
    groups = json.loads(out)["groups"]
    assert not status and [(one["batch_size"], one["networks"]) for one in groups] == [(1, 2), (3, 1)], err
    status, out, err = fastsgd("run", config, "--out", tmp_path / "r.npz")
    assert not status and fs.Result.load(tmp_path / "r.npz").run.rule.batch_size.tolist() == [1, 3, 1], err
    status, _, err = fastsgd("run", config, "--out", tmp_path / "s.npz", "--checkpoint", tmp_path / "c")
    want = fs.Result.load(tmp_path / "s.npz")
    assert not status and fs.resume(tmp_path / "c").weights.tobytes() == want.weights.tobytes(), err
