"""A plan serves many calls: other step sizes, seeds and starts have the bits, and the refusals, of a new run."""

import numpy as np
import pytest

import fastsgd as fs
from fastsgd import replan

DATA = fs.data.sparse_regression(n=8, d=3, nonzero=2, n_test=5, seed=0)
NET, N, T = fs.models.ReLU2(d=3, width=4), 5, 12
GRID = np.geomspace(0.01, 0.1, N)
RUN = fs.Run(NET, DATA, fs.rules.SGD(), 0.05, T, networks=N, dtype="float64", backend="cpu",
             metrics=[fs.metrics.TrainLoss()], save=fs.SaveAt(linear=3))
INIT = {"W1": np.full((4, 3), 0.2), "b1": np.zeros(4), "W2": np.linspace(-1, 1, 4)[None], "b2": np.zeros((N, 1))}
RUNS = {
    "plain": RUN,
    "bare": RUN.replace(metrics=(), save=None),
    "momentum": RUN.replace(rule=fs.rules.SGD(momentum=GRID, average=0.5)),
    "noise": RUN.replace(rule=fs.rules.SGD(label_noise=0.1)),
    "an SDE, whose noise looks at the step size": RUN.replace(rule=fs.rules.SDE(sgd_step=0.1, loss_level=0.5)),
    "members": RUN.replace(networks=None, ids=[3, 1], step_size=GRID),
    "keys": RUN.replace(keys=[4, 4, 0, 9, 9]),
    "sets": RUN.replace(data=fs.Dataset(np.stack([DATA.X, DATA.X[::-1]]), np.stack([DATA.y, DATA.y]),
                                        which=[0, 1, 0, 1, 1])),
    "stop": RUN.replace(stop=fs.stops.Below("train_loss", 0.6)),
    "reference": RUN.replace(backend="reference", networks=None, ids=[1, 0], step_size=GRID, steps=4),
    "the movement from the start": RUN.replace(metrics=[fs.metrics.DistanceTravelled()], save=fs.SaveAt(linear=2)),
}
CHANGES = [{"step_size": 0.03}, {"step_size": 1}, {"step_size": GRID[::-1]}, {"seed": 9}, {"init": INIT},
           {"step_size": fs.StepSize(GRID, decay_at=0.5, decay_by=np.arange(1.0, N + 1))},
           {"step_size": np.tile(np.linspace(0.1, 0.01, T), (N, 1)), "seed": 2**64 - 1, "init": INIT}]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setenv("FASTSGD_THREADS", "1")  # a second thread costs more than these runs


def same(got, want):
    assert got.weights.tobytes() == want.weights.tobytes() and got.lost.tolist() == want.lost.tolist()
    assert got.base.tobytes() == want.base.tobytes() and got.ids.tolist() == want.ids.tolist()
    assert list(got) == list(want) and all(got.numpy(name).tobytes() == want.numpy(name).tobytes() for name in got)
    assert (got.stopped.tolist(), got.stopped_by.tolist()) == (want.stopped.tolist(), want.stopped_by.tolist())


@pytest.mark.parametrize("name", RUNS)
def test_other_values_have_the_bits_of_a_new_run(name):
    run = RUNS[name]
    plan = fs.plan(run)
    for changes in CHANGES[:6] if name == "reference" else CHANGES:
        same(plan.train(**changes), fs.train(run.replace(**changes)))
    same(plan.train(), fs.train(run))  # what came between has left no trace
    same(fs.train(run), fs.train(fs.plan(run)))


def test_what_comes_of_it_is_the_result_of_its_own_run(tmp_path):
    result = fs.plan(RUN).train(step_size=GRID, seed=3)
    assert result.run.seed == 3 and result.run.step_size.base.tolist() == GRID.tolist()
    result.save(tmp_path / "run.npz")
    same(fs.train(fs.Result.load(tmp_path / "run.npz").run), result)
    longer = fs.train(RUN.replace(step_size=GRID, seed=3, steps=2 * T))
    assert fs.extend(result, steps=2 * T).weights.tobytes() == longer.weights.tobytes()


def test_checkpoints_and_bars_are_those_of_train(tmp_path):
    seen, plan = [], fs.plan(RUN)
    result = plan.train(seed=4, checkpoint=tmp_path / "run.ckpt", progress=lambda t, T, lost: seen.append(t))
    assert seen[-1] == T
    same(fs.resume(tmp_path / "run.ckpt"), result)


@pytest.mark.parametrize("changes, error, words", [
    ({"step_size": -1.0}, fs.SpecError, "step_size"),
    ({"step_size": "a"}, fs.SpecError, "step_size"),
    ({"step_size": 1e-50}, fs.PlanError, "1e-50 becomes 0"),
    ({"step_size": [0.1] * 4}, fs.PlanError, "step_size"),
    ({"step_size": GRID.astype("float32")}, fs.PlanError, "step_size.base: holds float32"),
    ({"step_size": np.ones((N, T + 1))}, fs.PlanError, f"has {T + 1} steps"),
    ({"seed": True}, fs.SpecError, "seed"), ({"seed": -1}, fs.SpecError, "seed"),
    ({"seed": 2**64}, fs.SpecError, "seed"),
    ({"init": {}}, fs.SpecError, "init"),
    ({"init": INIT | {"b2": np.zeros((4, 1))}}, fs.PlanError, "init"),
    ({"init": {name: a.astype("float32") for name, a in INIT.items()}}, fs.PlanError, "holds float32"),
    ({"init": INIT | {"b1": np.full(4, np.nan)}}, fs.SpecError, "init"),
    ({"init": {"W1": INIT["W1"]}}, fs.PlanError, "init"),
])
def test_what_a_new_run_would_not_take_is_refused(changes, error, words):
    dtype = "float32" if "becomes" in words else "float64"
    with pytest.raises(error, match=words):
        fs.plan(RUN.replace(dtype=dtype, data=DATA.astype(dtype))).train(**changes)


def test_a_plan_is_for_as_many_networks_as_it_was_made_for():
    with pytest.raises(fs.PlanError, match="step_size: for N=1 network, the plan has N=5"):
        fs.plan(RUN.replace(networks=None, step_size=GRID)).train(step_size=0.1)


# ---- calls by fields, of which small ones keep their plans

FIELDS = {"rule": fs.rules.SGD(), "step_size": 0.05, "steps": T, "dtype": "float64", "backend": "cpu"}


def fields(run):
    return {name: getattr(run, name) for name in run.__dataclass_fields__ if name not in ("model", "data")}


@pytest.mark.parametrize("name", RUNS)
def test_a_second_call_has_the_bits_of_a_run(name):
    run = RUNS[name]
    for changes in ({}, {"seed": 9}, {"step_size": GRID[::-1]}, {"step_size": 0.03}, {"init": INIT}, {}):
        same(fs.train(run.model, run.data, **(fields(run) | changes)), fs.train(run.replace(**changes)))


def test_records_that_say_the_same_share_a_plan_and_no_others():
    replan._PLANS.clear()
    for k in range(3):
        fs.train(fs.models.ReLU2(d=3, width=4), DATA, **(FIELDS | {"rule": fs.rules.SGD(), "seed": k}))
    assert len(replan._PLANS) == 1
    others = [{"rule": fs.rules.SGD(momentum=0.5)}, {"steps": T + 1}, {"step_size": [0.1, 0.2]}, {"networks": 2},
              {"loss": fs.losses.Squared.full()}, {"order": fs.orders.Common()}, {"init": INIT | {"b2": [0.0]}},
              {"metrics": [fs.metrics.TestLoss()]}, {"save": fs.SaveAt([0])}, {"tuning": fs.Tuning(threads=1)}]
    for count, more in enumerate(others, 2):
        same(fs.train(NET, DATA, **(FIELDS | more)), fs.train(fs.plan(fs.Run(NET, DATA, **{
            name: value for name, value in (FIELDS | more).items() if name != "tuning"}))))
        assert len(replan._PLANS) == count


def test_fields_are_refused_as_a_run_refuses_them():
    fs.train(NET, DATA, **FIELDS, networks=1)
    for more, words in (({"networks": True}, "networks"), ({"networks": 1.0}, "networks"), ({"seed": None}, "seed"),
                        ({"steps": True}, "steps"), ({"seed": 1.5}, "seed"), ({"step_size": 0}, "step_size"),
                        ({"networks": 0}, "networks"), ({"order": [0]}, "order"), ({"device": []}, "device")):
        with pytest.raises(fs.SpecError, match=words):
            fs.train(NET, DATA, **(FIELDS | more))


def test_own_classes_and_other_threads_are_planned_anew(monkeypatch):
    class Mine(fs.models.ReLU2):
        def scales(self):
            return super().scales() | {"b1": (shift, 0.0)}

    for shift in (0.0, 1.0):  # a class may change what it says
        assert fs.train(Mine(3, 4), DATA, **FIELDS, save=fs.SaveAt([0], params=True)).saved_weights[0, 0, 12] == shift
    for threads in ("1", "2"):
        monkeypatch.setenv("FASTSGD_THREADS", threads)
        assert fs.train(NET, DATA, **FIELDS).provenance["tuning"]["threads"] == int(threads)


def test_what_is_kept_is_small():
    replan._PLANS.clear()
    large = fs.Dataset(np.zeros((replan.LARGEST // 16, 3)), np.zeros(replan.LARGEST // 16))
    fs.train(NET, large, **FIELDS)
    fs.train(NET, DATA, **(FIELDS | {"steps": 10**7, "stop": fs.stops.Below("train_loss", 1e9)}))
    assert not replan._PLANS
    for steps in range(1, 2 * replan.MOST):
        fs.train(NET, DATA, **(FIELDS | {"steps": steps}))
    assert 0 < len(replan._PLANS) <= replan.MOST
