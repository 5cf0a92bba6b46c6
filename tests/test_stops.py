"""Stopping: where a plain loop stops, the same bits however a run is cut, frozen afterwards, and room given back."""

from dataclasses import dataclass

import numpy as np
import pytest
from cases import problem
from general_cases import general

import fastsgd as fs
from fastsgd import config
from fastsgd.execute import execute
from fastsgd.running import Running

Below, Above = fs.stops.Below, fs.stops.Above
N, T, D = 19, 230, 5
RATES = np.linspace(0.003, 0.1, N)
NO_SAVE = fs.SaveAt(steps=[0, 55, 120, T], params=True)


def run(**fields):
    """Diagonal networks of which some reach a small loss, some a large norm, and some neither."""
    given = {"model": fs.models.DiagonalLinear(D, u0=np.linspace(0.2, 0.5, N), v0=0.3), "data": DATA,
             "rule": fs.rules.SGD(), "step_size": RATES, "steps": T, "dtype": "float64", "seed": 3, "save": NO_SAVE,
             "metrics": [fs.metrics.TrainLoss(), fs.metrics.ParameterNorm()],
             "stop": [Below("train_loss", LEVELS, every=30), Above("norm", 1.25, every=20)]}
    return fs.Run(**(given | fields))


DATA = problem(D)
LEVELS = np.where(np.arange(N) % 3 == 0, 0.1, np.linspace(0.36, 0.25, N))


def known(result):
    """All that a result says, as bytes."""
    out = {name: getattr(result, name).tobytes() for name in ("weights", "lost", "stopped", "stopped_by")}
    out |= {name: a.tobytes() for name, a in result.records.items()}
    return out | {"saved": None if result.saved_weights is None else result.saved_weights.tobytes()}


def by_numpy():
    """(stopped, stopped_by) of `run()`, by plain loops over networks and steps."""
    order = fs.orders.PerNetwork().indices(3, np.arange(N), 0, T, DATA.n, 1)
    stopped, by = np.full(N, -1), np.full(N, -1)
    for k in range(N):
        u, v = np.full(D, np.linspace(0.2, 0.5, N)[k]), np.full(D, 0.3)
        for t in range(T + 1):
            loss = 0.5 * np.mean((DATA.X @ (u * v) - DATA.y) ** 2)
            hits = [loss < LEVELS[k] and (t % 30 == 0 or t == T),
                    np.sqrt(u @ u + v @ v) > 1.25 and (t % 20 == 0 or t == T)]
            if any(hits):
                stopped[k], by[k] = t, hits.index(True)
                break
            if t < T:
                x, y = DATA.X[order[k, t, 0]], DATA.y[order[k, t, 0]]
                g = RATES[k] * (x @ (u * v) - y) * x
                u, v = u - g * v, v - g * u
    return stopped, by


@pytest.mark.parametrize("backend", ["cpu", "cuda", "triton", "reference"])
def test_networks_stop_where_plain_loops_do(backend):
    if backend == "triton":
        pytest.importorskip("triton")
    result = fs.train(run(backend=backend))
    stopped, by = by_numpy()
    assert result.stopped.tolist() == stopped.tolist() and result.stopped_by.tolist() == by.tolist()
    assert {-1, 0, 1} == set(by) and (stopped == T).any() and 0 in stopped
    assert result.provenance["network_steps"] == np.where(stopped < 0, T, stopped).sum()


def test_what_has_stopped_stays_as_it_was():
    """At later saved steps and at the end it is what a run without stops had at that step, and so are its records."""
    result = fs.train(run())
    there = result.stopped >= 0
    at = np.unique(result.stopped[there])
    free = fs.train(run(stop=(), save=fs.SaveAt(steps=np.union1d(at, NO_SAVE.steps), params=True)))
    column = np.searchsorted(free.steps, np.where(there, result.stopped, T))
    assert result.weights.tobytes() == free.saved_weights[np.arange(N), column].tobytes()
    for s, step in enumerate(result.steps):
        column = np.searchsorted(free.steps, np.where(there, np.minimum(result.stopped, step), step))
        assert result.saved_weights[:, s].tobytes() == free.saved_weights[np.arange(N), column].tobytes()
        for name in result.records:
            assert result.numpy(name)[:, s].tobytes() == free.numpy(name)[np.arange(N), column].tobytes()
    assert result.survived.all() and (free.stopped == -1).all() and (free.stopped_by == -1).all()


GENERAL = ("momentum_relu2", "everything_relu2", "average_saved", "common_reshuffle_net", "fresh_batch", "stream",
           "one_label_relu2", "sde_diagonal", "each_relu2", "each_fixed", "near_point_relu2", "stable_relu2",
           "clip_relu2", "ragged_epochs", "ragged_replay")


@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_bits_do_not_depend_on_how_a_run_is_cut(name, backend):
    given = general(name, backend=backend)
    start = fs.train(given.replace(save=fs.SaveAt(steps=[0]), metrics=fs.metrics.ParameterNorm())).numpy("norm")
    moved = fs.metrics.DistanceTravelled()
    far = np.median(fs.train(given.replace(metrics=moved)).numpy("distance_travelled")[:, -1])
    whole = given.replace(stop=[Above("distance_travelled", 0.9 * far, every=3),
                                Below("norm", 0.98 * np.median(start), every=2)])
    if name == "average_saved":
        assert whole.save.of == "average"  # a stop looks at the weights nevertheless
    want = fs.train(whole)
    assert (want.stopped >= 0).any() and len(set(want.stopped)) > 2
    for tuning in (fs.Tuning(segment=1), fs.Tuning(segment=4), fs.Tuning(threads=1)):
        assert known(fs.train(whole, tuning=tuning)) == known(want)
    for ids in ([3], [9, 1], list(range(4)), list(range(10))):
        part = fs.train(whole.replace(ids=ids))
        assert known(part) == known(want.select(np.array(ids)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", [(1, 1), "team", "lanes"])
def test_bits_do_not_depend_on_lanes(layout, dtype):
    data = DATA.astype(dtype)
    whole = run(dtype=dtype, data=data, model=fs.models.ReLU2(D, 6), stop=Below("train_loss", 0.1, every=10))
    want = fs.train(whole)
    assert 3 < (want.stopped >= 0).sum() < N
    from fastsgd.native import native
    wide = native().lanes[dtype], native().team[dtype]
    lanes, team = {"team": (1, wide[1]), "lanes": (wide[0], 1)}.get(layout, layout)
    assert known(fs.train(whole, tuning=fs.Tuning(lanes=lanes, team=team))) == known(want)


@pytest.mark.parametrize("rule", [fs.rules.SGD(), fs.rules.SGD(momentum=0.5, average=0.9)])
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, rule):
    given = run(rule=rule)
    want = fs.train(given)
    assert (want.stopped >= 0).any()
    for t in (1, 61, 125, 229):
        def stop(now, T, lost, t=t):
            if now >= t:
                raise KeyboardInterrupt
        path = tmp_path / f"{t}"
        with pytest.raises(KeyboardInterrupt):
            fs.train(given, checkpoint=fs.Checkpoint(path, every=0), progress=stop, tuning=fs.Tuning(segment=7))
        assert known(fs.resume(path)) == known(want)
    with pytest.raises(fs.SpecError, match="of another stop"):
        fs.train(run(rule=rule, stop=()), checkpoint=path)


@pytest.mark.parametrize("steps", [60, 80, 55, 112])
@pytest.mark.parametrize("rule", [fs.rules.SGD(), fs.rules.SGD(momentum=0.5)])
def test_extended_results_stop_where_longer_runs_do(steps, rule):
    """Also where the shorter run's last step was no step of the grid, and its look there no look of the longer run."""
    given = run(rule=rule, save=fs.SaveAt(steps=[0, 50], params=True), step_size=0.02,
                stop=[Above("distance_travelled", np.linspace(0.05, 0.7, N), 30), Below("train_loss", 0.255, 20)])
    short = fs.train(given.replace(steps=steps))
    assert (short.stopped == steps).any()
    got = fs.extend(short, T)
    assert known(got) == known(fs.train(given))
    assert (short.stopped == steps).any()  # which was not changed on the way


def test_files_tables_and_choices_have_what_stopped(tmp_path):
    result = fs.train(run())
    result.save(tmp_path / "r.npz")
    loaded = fs.Result.load(tmp_path / "r.npz")
    assert known(loaded) == known(result) and loaded.run.stop[0].level.tolist() == LEVELS.tolist()
    half = [result.select(np.arange(7)), result.select(np.arange(7, N))]
    assert known(fs.concat(half)) == known(result)
    assert known(fs.train(fs.concat(half).run)) == known(result)
    assert known(fs.train(half[1].run)) == known(half[1])
    stopped = result.select(stopped=int(result.stopped.max()))
    assert set(stopped.stopped) == {result.stopped.max()}
    labelled = result.to_xarray()
    assert labelled.stopped.values.tolist() == result.stopped.tolist()
    assert labelled["stop.0.level"].values.tolist() == LEVELS.tolist()
    assert labelled.stopped_by.dims == ("net",)
    table = result.to_pandas()
    assert table[table.step == T].stopped.tolist() == result.stopped.tolist()
    assert f"stopped={(result.stopped >= 0).sum()}" in repr(result)
    assert "stopped" not in repr(fs.train(run(stop=()))) and "stopped" not in fs.train(run(stop=())).to_xarray()


@pytest.mark.parametrize("field", ["stopped", "stopped_by"])
@pytest.mark.parametrize("value", [-2, 7, 60, 1000])
def test_files_with_other_stops_are_refused(tmp_path, field, value):
    from dataclasses import replace

    result = fs.train(run())
    k = int(np.flatnonzero(result.stopped == -1)[0])
    bad = getattr(result, field).copy()
    bad[k] = value
    with pytest.raises(fs.SpecError, match="stopped"):
        replace(result, **{field: bad}).save(tmp_path / "r.npz")


def test_what_is_lost_is_not_stopped_and_the_other_way_round():
    rates = np.where(np.arange(N) % 3 == 0, 30.0, RATES)
    result = fs.train(run(step_size=rates))
    assert (result.lost >= 0).any() and (result.stopped >= 0).any()
    assert not ((result.lost >= 0) & (result.stopped >= 0)).any()
    assert np.array_equal(np.isnan(result.numpy("norm")[:, -1]), result.lost >= 0)


def test_room_is_given_back(monkeypatch):
    """A launch is of the networks that still run: of less than twice as many, and of no more at the end."""
    sizes, moved = [], Running.advance

    def watched(self, t0, t1):
        sizes.append((len(self.held.keys), self.alive))
        return moved(self, t0, t1)

    monkeypatch.setattr(Running, "advance", watched)
    many = 256
    result = fs.train(fs.models.DiagonalLinear(D, u0=0.5, v0=0.5), DATA, rule=fs.rules.SGD(), step_size=0.01,
                      steps=2000, dtype="float64", stop=Above("distance_travelled", np.linspace(0.05, 0.6, many), 10))
    held, alive = np.array(sizes).T
    assert (held < 2 * alive).all() and len(set(held)) > 4
    assert result.provenance["network_steps"] == np.where(result.stopped < 0, 2000, result.stopped).sum()


def test_functions_and_metrics_of_ones_own():
    def first(params, data):
        return params["u"][:, 0]

    level = 0.32
    result = fs.train(run(metrics=[first], stop=[Below("first", level, every=10), Below(fs.metrics.L0(), 2.0)]))
    values = result.numpy("first")[:, -1]
    assert np.array_equal(result.stopped_by == 0, values < level) and (result.stopped_by == 0).any()
    with pytest.raises(fs.SpecError, match="expected a metric of one number"):
        fs.train(run(metrics=[fs.metrics.Custom(lambda params, data: params["u"], name="all")], stop=Below("all", 0.1)))


def test_a_stop_may_look_at_what_a_rule_carries():
    @dataclass(frozen=True)
    class Speed(fs.metrics.Metric):
        name: str = "speed"
        needs_carried = ("momentum",)

        def compute(self, model, params, data, loss, carried):
            return np.abs(carried["momentum"]).max(axis=1)

    with pytest.raises(fs.PlanError, match="'speed' is not possible here: SGD does not carry momentum"):
        fs.plan(run(stop=Below(Speed(), 0.1)))
    given = {"rule": fs.rules.SGD(momentum=0.5), "stop": Below(Speed(), 0.1, every=10)}
    got = fs.train(run(save=fs.SaveAt(steps=np.arange(0, T + 1, 10)), **given))
    speeds = fs.train(run(save=fs.SaveAt(steps=np.arange(0, T + 1, 10)), metrics=Speed(), rule=given["rule"], stop=()))
    below = speeds.numpy("speed") < 0.1
    np.testing.assert_array_equal(got.stopped, np.where(below.any(axis=1), 10 * below.argmax(axis=1), -1))


def test_progress_tells_what_is_lost_apart(capsys):
    seen = []
    fs.train(run(), progress=lambda t, T, lost: seen.append((t, lost)))
    assert {lost for _, lost in seen} == {0} and seen[-1][0] == T
    fs.train(run(), progress=True)
    assert "stopped" in capsys.readouterr().err


def test_the_floor_and_step_0():
    result = fs.train(run(save=fs.SaveAt(steps=[0, 100, T], floor=fs.Floor(20, 0.01))))
    assert (result.numpy("train_loss")[:, -1] <= fs.train(run()).numpy("train_loss")[:, -1]).all()
    still = fs.train(run(stop=Above("norm", 0.0)))
    assert (still.stopped == 0).all() and still.weights.tobytes() == fs.plan(run()).start.tobytes()
    assert still.provenance["network_steps"] == 0 and np.isfinite(still.numpy("norm")).all()


def test_a_plan_says_when_networks_stop():
    said = fs.plan(run()).explain()
    assert "stop: where train_loss < 0.1 .. 0.353889, looked at every 30 steps" in said
    assert "stop: where norm > 1.25, looked at every 20 steps" in said
    assert fs.plan(run(stop=Below(fs.metrics.JacobianRank(), 3))).memory["those that still run"] > 0


@pytest.mark.parametrize("make, why", [
    (lambda: Below("train_loss", np.nan), "stop.level"), (lambda: Below("train_loss", []), "stop.level"),
    (lambda: Below("train_loss", "x"), "stop.level"), (lambda: Below("train_loss", np.ones((2, 2))), "stop.level"),
    (lambda: Below("train_loss", 1, every=0), "stop.every"), (lambda: Below("train_loss", 1, every=2.5), "stop.every"),
    (lambda: Below("train_loss", 1, every=True), "stop.every"), (lambda: Below("", 1), "stop.metric"),
    (lambda: Below(3, 1), "stop.metric"), (lambda: Below(lambda p, d: 0, 1), "metrics=.* name here"),
    (lambda: Below(fs.metrics.Custom(lambda p, d: 0, name="f"), 1), "metrics=.* name here"),
    (lambda: Below(fs.metrics.TrainLoss, 1), "stop.metric"),
    (lambda: run(stop="train_loss"), "stop: "), (lambda: run(stop=[Below("norm", 1), 2]), "stop: 2 given")])
def test_bad_stops_are_refused(make, why):
    with pytest.raises(fs.SpecError, match=why):
        make()


@pytest.mark.parametrize("stop, why", [
    (Below("trian_loss", 1), "'trian_loss' is no metric; did you mean 'train_loss'"),
    (Below("zzz", 1), "'zzz' is no metric; legal are train_loss, norm"),
    (Below("spectrum", 1), "'spectrum' is .* numbers a network, expected a metric of one number"),
    (Below("beta", 1), "numbers a network"), (Below(fs.metrics.Predictions(), 1), "numbers a network"),
    (Below("neuron_balance", 1), "'neuron_balance' is not possible here"),
    (Below("norm", [1.0, 2.0]), r"stop\.0\.level has 2"), (Below("norm", np.ones(N, "float32")), "stop.level: holds"),
    (Below(fs.metrics.JacobianRank(method="gram", rtol=1e-9), 1), "method")])
def test_plans_refuse_stops_that_are_not_possible(stop, why, nothing_runs):
    with pytest.raises((fs.PlanError, fs.SpecError), match=why):
        fs.plan(run(stop=stop))


def test_a_text_has_stops(tmp_path):
    np.savez(tmp_path / "data.npz", X=DATA.X, y=DATA.y)
    (tmp_path / "run.toml").write_text(f"""
        steps = {T}
        dtype = "float64"
        step_size = 0.02
        networks = 3
        model = {{type = "DiagonalLinear", d = {D}, u0 = 0.4, v0 = 0.3}}
        rule = {{type = "SGD"}}
        data = {{file = "data.npz"}}
        [[stop]]
        type = "Below"
        metric = "train_loss"
        level = 0.3
        every = 10
        [[stop]]
        type = "Above"
        metric = {{type = "DistanceTravelled", relative = true}}
        level = 0.9
    """)
    got = config.read(tmp_path / "run.toml")
    below, above = got.stop
    assert (below.metric, float(below.level), below.every) == ("train_loss", 0.3, 10)
    assert above.metric.relative and above.every == 100
    want = fs.train(fs.models.DiagonalLinear(D, u0=0.4, v0=0.3), DATA, rule=fs.rules.SGD(), step_size=0.02, steps=T,
                    networks=3, dtype="float64", stop=[Below("train_loss", 0.3, 10), Above(above.metric, 0.9)])
    assert known(fs.train(got)) == known(want) and (want.stopped > 0).all()
    for bad in ('type = "Beneath"', 'type = "Below"\nlevl = 1'):
        (tmp_path / "bad.toml").write_text((tmp_path / "run.toml").read_text().replace('type = "Below"', bad))
        with pytest.raises(fs.SpecError, match="stop"):
            config.read(tmp_path / "bad.toml")


def test_sweeps_keep_what_stopped(tmp_path):
    pytest.importorskip("zarr")
    base = run(step_size=0.02, model=fs.models.DiagonalLinear(D, u0=0.4, v0=0.3), save=fs.SaveAt(linear=3),
               stop=Below("train_loss", 0.4, every=10))
    levels = [0.25, 0.26, 0.42]
    sweep = fs.Sweep(base, grid={"step_size": [0.01, 0.03], "stop.0.level": levels}, replicas=9)
    assert len(sweep.groups) == 1
    store = sweep.run(tmp_path / "s")
    opened, cells = store.open(), store.reduced()
    for i, rate in enumerate((0.01, 0.03)):
        for j, level in enumerate(levels):
            want = fs.train(base.replace(step_size=rate, stop=Below("train_loss", level, every=10), networks=9))
            assert opened.stopped.values[i, j].tolist() == want.stopped.tolist()
            assert opened.stopped_by.values[i, j].tolist() == want.stopped_by.tolist()
            steps = want.stopped[want.stopped >= 0]
            assert cells.stopped_share.values[i, j] == len(steps) / 9
            if len(steps) > 1:
                np.testing.assert_allclose(cells.stopped_mean.values[i, j], steps.mean(), rtol=1e-13)
                np.testing.assert_allclose(cells.stopped_std.values[i, j], steps.std(ddof=1), rtol=1e-12, atol=1e-12)
    assert store.replay(2, step_size=0.03, level=levels[1]).stopped[0] == opened.stopped.values[1, 1, 2]
    assert (opened.stopped.values >= 0).any() and (opened.stopped.values == -1).any()


def test_first_passages_of_parts_are_those_of_the_whole():
    from fastsgd.sweep.reduce import Part

    rng, one = np.random.default_rng(0), fs.reduce.FirstPassage()
    stopped = np.where(rng.random((4, 40)) < 0.6, rng.integers(0, 9000, (4, 40)), -1)
    stopped[3] = -1

    def of(a):
        return one.of(Part({}, np.full(a.shape, -1), np.array([0]), a))

    whole, parts = one.finish(of(stopped)), one.finish(one.join([of(stopped[:, :13]), of(stopped[:, 13:])]))
    for name in whole:
        np.testing.assert_allclose(parts[name][1], whole[name][1], rtol=1e-12)
    assert np.isnan(whole["stopped_mean"][1][3]) and whole["stopped_share"][1][3] == 0


def test_a_run_that_has_no_stop_looks_at_nothing(monkeypatch):
    monkeypatch.setattr(Running, "_numbers", None)
    assert (execute(fs.plan(run(stop=()))).stopped == -1).all()
