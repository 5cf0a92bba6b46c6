"""A data set for each network: the bits of runs on one set each, in every loop, metrics, files, shards, sweeps."""

import numpy as np
import pytest
from cases import DTYPES, LANES
from general_cases import general
from tiers import turns

import fastsgd as fs

M, R = fs.models, fs.rules
D, POINTS, STEPS = 5, 7, 23


def sets(K, n=POINTS, d=D, o=None, dtype="float64", seed=0, tests=4):
    rng = np.random.default_rng(seed)
    more = () if o is None else (o,)
    X, X_test = (rng.standard_normal((K, m, d)).astype(dtype) for m in (n, tests))
    y, y_test = (rng.standard_normal((K, m, *more)).astype(dtype) for m in (n, tests))
    return fs.Dataset(X, y, X_test, y_test)


def known(result, k=slice(None)):
    """Everything a result computed, or of its network k, as bytes."""
    arrays = {"weights": result.weights, "lost": result.lost, "stopped": result.stopped, **result.records}
    return {name: a[k].tobytes() for name, a in arrays.items()}


def run(N, model=None, which=None, dtype="float64", data=None, **fields):
    data = sets(N, dtype=dtype) if data is None else data
    if which is not None:
        data = fs.Dataset(data.X, data.y, data.X_test, data.y_test, which)
    given = {"model": model or M.DiagonalLinear(D, u0=0.4, v0=0.3), "data": data, "rule": R.SGD(),
             "step_size": np.linspace(0.01, 0.05, N), "steps": STEPS, "dtype": dtype, "seed": 3,
             "save": fs.SaveAt(steps=[0, 9, STEPS]), "metrics": [fs.metrics.TrainLoss(), fs.metrics.TestLoss()]}
    return fs.Run(**(given | fields))


def one_by_one(whole):
    """The result of each network alone, on its own set as one that is shared; same keys."""
    N = len(whole.step_size.base) if np.ndim(whole.step_size.base) else whole.networks
    return [fs.train(whole.replace(data=whole.data.of(int(whole.data.numbers[k])), ids=[k])) for k in range(N)]


def same(result, parts):
    for k, part in enumerate(parts):
        assert known(result, k) == known(part), k


LOOPS = {  # {name: (model, rule, order)}: every loop of the CPU, whatever the layout
    "joined": (M.DiagonalLinear(D, u0=0.4), R.SGD(), None),
    "joined_common": (M.DiagonalLinear(D, u0=0.4), R.SGD(), fs.orders.Common()),
    "joined_batch": (M.DiagonalLinear(D, u0=0.4), R.SGD(batch_size=3), None),
    "joined_full": (M.DiagonalLinear(D, u0=0.4), R.GD(), None),
    "one_input": (M.DiagonalLinear(1, u0=0.4), R.SGD(batch_size=2), None),
    "wide_team": (M.DiagonalLinear(70, u0=0.4), R.SGD(), None),
    "wide_full": (M.DiagonalLinear(70, u0=0.4), R.GD(), None),
    "quads": (M.ReLU2(2, 6), R.SGD(), None),
    "quads_batch": (M.ReLU2(2, 6), R.SGD(batch_size=3), None),
    "columns": (M.ReLU2(D, 6), R.SGD(), None),
    "columns_common": (M.ReLU2(D, 6), R.SGD(batch_size=2), fs.orders.Common(1)),
    "columns_full": (M.ReLU2(D, 6), R.GD(), None),
    "epochs": (M.ReLU2(D, 6), R.SGD(batch_size=2), fs.orders.Reshuffle()),
    "distinct": (M.DiagonalLinear(D, u0=0.4), R.SGD(batch_size=3), fs.orders.PerNetwork(replace=False)),
    "replay": (M.DiagonalLinear(D, u0=0.4), R.SGD(), fs.orders.Replay(np.arange(STEPS) % POINTS)),
    "general": (M.MLP(D, (6, 4)), R.SGD(momentum=0.5), None),
    "general_full": (M.MLP(D, (6, 4)), R.GD(momentum=0.5), None),
    "general_epochs": (M.MLP(D, 4), R.SGD(batch_size=2, average=0.5), fs.orders.Common(2, replace=False)),
    "ragged": (M.ReLU2(D, 6), R.SGD(batch_size=3, weight_decay={"W1": 0.2}), fs.orders.Reshuffle(drop_last=False)),
    "one_label": (M.ReLU2(D, 6), R.GD(label_noise=fs.LabelNoise(0.3, on="one")), None),
    "sam": (M.ReLU2(D, 6), R.SAM(rho=0.1, batch_size=2), None),
    "adam": (M.ReLU2(D, 6), R.Adam(batch_size=3), None),
}


@pytest.mark.parametrize(("name", "dtype"), turns(LOOPS, DTYPES))
def test_bits_are_those_of_runs_on_one_set_each(name, dtype):
    """For 1 to 2 W + 1 networks, so that lanes and teams are full or not; and by the reference to rounding."""
    model, rule, order = LOOPS[name]
    W = LANES[dtype]
    data = sets(2 * W + 1, d=model.d, dtype=dtype)
    rates = np.linspace(0.01, 0.05, 2 * W + 1)
    whole = run(2 * W + 1, model, data=data, rule=rule, order=order, dtype=dtype, step_size=rates)
    parts = one_by_one(whole)
    for N in range(1, 2 * W + 2):
        got = fs.train(whole.replace(data=data.chosen(np.arange(N)), step_size=rates[:N]))
        same(got, parts[:N])
    if dtype == "float64":
        want = fs.train(whole.replace(backend="reference"))
        np.testing.assert_allclose(got.weights, want.weights, rtol=0, atol=1e-12)
        np.testing.assert_allclose(got.numpy("test_loss"), want.numpy("test_loss"), rtol=1e-10)


@pytest.mark.parametrize("layout", [(1, 1), "team", "lanes"])
@pytest.mark.parametrize("name", ["joined", "joined_batch", "joined_full", "wide_full", "quads", "columns_full",
                                  "epochs"])
def test_bits_do_not_depend_on_the_layout(name, layout):
    from fastsgd.native import native

    model, rule, order = LOOPS[name]
    N = 13
    whole = run(N, model, data=sets(N, d=model.d), rule=rule, order=order)
    lanes, team = {"team": (1, native().team["float64"]), "lanes": (native().lanes["float64"], 1)}.get(layout, layout)
    want = fs.train(whole)
    for tuning in (fs.Tuning(lanes=lanes, team=team), fs.Tuning(lanes=lanes, team=team, segment=5, threads=1)):
        assert known(fs.train(whole, tuning=tuning)) == known(want)


@pytest.mark.parametrize("name", ["quads", "general"])
def test_compiled_loops_have_the_same_bits(name):
    model, rule, order = LOOPS[name]
    whole = run(13, model, data=sets(13, d=model.d), rule=rule, order=order)
    plan = fs.plan(whole, fs.Tuning(compiled=True, lanes=LANES["float64"], team=1))
    assert plan.tuning.compiled
    assert known(fs.train(plan)) == known(fs.train(whole, tuning=fs.Tuning(compiled=False)))


@pytest.mark.parametrize("which", [[0, 1, 2, 3, 4], [2, 2, 0, 1, 2], [0, 0, 0, 0, 0], [2, 1, 0]])
def test_which_says_whose_set(which):
    N = len(which)
    whole = run(N, M.ReLU2(D, 6), which=which, data=sets(5))
    got = fs.train(whole)
    same(got, one_by_one(whole))
    for ids in ([0], [N - 1, 0], list(range(N - 1))):
        assert known(fs.train(whole.replace(ids=ids))) == known(got.select(np.array(ids)))
    if set(which) == {0}:
        assert known(got) == known(fs.train(whole.replace(data=whole.data.of(0))))


@pytest.mark.parametrize("name", ["mlp_relu", "mlp_two_outputs", "product_3", "autoencoder"])
def test_families(name):
    given = general(name)
    N = len(given.step_size.base)
    o = None if given.model.outputs == 1 else given.model.outputs
    whole = given.replace(data=sets(N, o=o))
    same(fs.train(whole), one_by_one(whole))


def test_metrics_are_of_each_networks_own_set():
    def spread(params, data):
        return np.full(len(params["W1"]), data.X.sum())

    N = 6
    metrics = [fs.metrics.TrainLoss(), fs.metrics.TestLoss(), fs.metrics.JacobianRank(), fs.metrics.FeatureSparsity(),
               fs.metrics.Predictions(), fs.metrics.GradientNorm(), fs.metrics.Sharpness(), fs.metrics.ParameterNorm(),
               fs.metrics.DistanceTravelled(), spread]
    whole = run(N, M.ReLU2(D, 6), which=[0, 3, 1, 1, 2, 0], data=sets(4), metrics=metrics)
    got = fs.train(whole)
    same(got, one_by_one(whole))
    sums = whole.data.X.sum(axis=(1, 2))[whole.data.which]
    np.testing.assert_allclose(got.numpy("spread")[:, -1], sums, rtol=1e-13)
    floor = whole.replace(save=fs.SaveAt(linear=2, floor=fs.Floor(10, 0.01)), metrics=metrics[:1])
    same(fs.train(floor), one_by_one(floor))


def test_stops_look_at_each_networks_own_set():
    N = 19
    whole = run(N, which=np.arange(N) % 5, data=sets(5), steps=400, step_size=np.linspace(0.01, 0.06, N),
                stop=fs.stops.Below("train_loss", 0.25, every=20))
    got = fs.train(whole)
    assert len(set(got.stopped)) > 3
    same(got, one_by_one(whole))


def test_files_shards_and_longer_runs(tmp_path):
    N = 7
    whole = run(N, which=[0, 3, 1, 1, 2, 0, 3], data=sets(4))
    got = fs.train(whole)
    got.save(tmp_path / "r.npz")
    loaded = fs.Result.load(tmp_path / "r.npz")
    assert known(loaded) == known(got) and loaded.run.data.which.tolist() == [0, 3, 1, 1, 2, 0, 3]
    part = fs.train(whole.replace(ids=[4, 1]))
    part.save(tmp_path / "part.npz")
    there = fs.Result.load(tmp_path / "part.npz").run
    assert there.data.sets == 2 and known(fs.train(there)) == known(part)
    joined = fs.concat([got.select(np.array([0, 1, 2])), got.select(np.array([3, 4, 5, 6]))])
    assert known(joined) == known(got) and known(fs.train(joined.run)) == known(got)
    assert got.to_xarray()["data.which"].values.tolist() == [0, 3, 1, 1, 2, 0, 3]
    short = fs.train(whole.replace(steps=9, save=fs.SaveAt(steps=[0, 9])))
    assert known(fs.extend(short, STEPS)) == known(fs.train(whole.replace(save=fs.SaveAt(steps=[0, 9]))))

    def stop(t, T, lost):
        if t >= 9:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        fs.train(whole, checkpoint=tmp_path / "c", progress=stop, tuning=fs.Tuning(segment=3))
    assert known(fs.resume(tmp_path / "c")) == known(got)
    with pytest.raises(fs.SpecError, match="of another data"):
        fs.train(whole.replace(data=fs.Dataset(whole.data.X, whole.data.y, whole.data.X_test, whole.data.y_test,
                                               [0, 3, 1, 1, 2, 0, 2])), checkpoint=tmp_path / "c")


def test_a_sweep_over_data_sets(tmp_path):
    pytest.importorskip("zarr")
    base = run(1, which=[0], data=sets(4), step_size=0.02)
    sweep = fs.Sweep(base, grid={"data.which": [0, 1, 2, 3], "step_size": [0.01, 0.03]}, replicas=2)
    assert len(sweep.groups) == 1
    opened = sweep.run(tmp_path / "s").open()
    want = fs.train(base.replace(data=base.data.of(2), step_size=0.03, networks=2))
    assert opened.train_loss.values[2, 1].tobytes() == want.numpy("train_loss").tobytes()


def test_a_plan_says_so_and_memory_counts_all_sets():
    whole = run(6, M.ReLU2(D, 6))
    plan = fs.plan(whole)
    assert "n=7 samples of a data set of their own, of 6" in plan.explain()
    assert plan.memory["data"] == 6 * fs.plan(whole.replace(data=whole.data.of(0))).memory["data"]
    pytest.importorskip("triton")
    with pytest.raises(fs.BackendUnavailable, match="one data set for all networks"):
        fs.plan(whole.replace(backend="triton"))


X, Y = np.ones((3, 4, 2)), np.ones((3, 4))


@pytest.mark.parametrize("make, why", [
    (lambda: fs.Dataset(X, np.ones((3, 5))), r"y: has shape \(3, 5\), X has shape .*K=3 sets of n=4 points"),
    (lambda: fs.Dataset(X, np.ones(4)), "y: has shape"), (lambda: fs.Dataset(X, np.ones((2, 4))), "y: has shape"),
    (lambda: fs.Dataset(X[None], Y), "X: has shape"), (lambda: fs.Dataset(np.ones((3, 0, 2)), np.ones((3, 0))), "X: "),
    (lambda: fs.Dataset(X, Y, np.ones((2, 4, 2)), np.ones((2, 4))), "X_test: has 2 test sets, X has K=3"),
    (lambda: fs.Dataset(X, Y, np.ones((4, 2)), np.ones(4)), "X_test: has shape"),
    (lambda: fs.Dataset(X[0], Y[0], X, Y), "X_test: has shape"),
    (lambda: fs.Dataset(X, Y, X[..., :1], Y), "X_test: has d=1"),
    (lambda: fs.Dataset(X, Y, which=[0, 3]), "which: holds 3, expected .* 0 .. 2"),
    (lambda: fs.Dataset(X, Y, which=[-1, 2]), "which: "), (lambda: fs.Dataset(X, Y, which=[]), "which: is empty"),
    (lambda: fs.Dataset(X, Y, which=[0.0]), "which: "), (lambda: fs.Dataset(X, Y, which=1), "which: has shape"),
    (lambda: fs.Dataset(X[0], Y[0], which=[0, 0]), "which: given, but X")])
def test_bad_data_sets_are_refused(make, why):
    with pytest.raises(fs.SpecError, match=why):
        make()


@pytest.mark.parametrize("fields, why", [
    ({"networks": 4}, "data has 6, networks has 4"), ({"step_size": np.full(5, 0.1)}, "data has 6"),
    ({"data": fs.Dataset(np.ones((6, 4, D), "float32"), np.ones((6, 4), "float32"))}, "X: holds float32"),
    ({"loss": fs.losses.Logistic()}, "loss: "), ({"model": M.DiagonalLinear(3)}, "model.d")])
def test_plans_refuse_data_sets_that_do_not_fit(fields, why, nothing_runs):
    with pytest.raises(fs.PlanError, match=why):
        fs.plan(run(6, **fields))


def test_a_sweep_is_told_which_sets():
    with pytest.raises(fs.SpecError, match="data has 4 data sets; say which"):
        fs.Sweep(run(1, which=[0], data=sets(4), step_size=0.02), grid={"step_size": [0.01, 0.03]})


@pytest.mark.parametrize("backend", ["cuda"])
@pytest.mark.parametrize("name", ["joined", "joined_batch", "columns_full", "epochs", "replay", "general_full",
                                  "one_label"])
def test_cards_have_the_bits_of_the_cpu(name, backend):
    model, rule, order = LOOPS[name]
    whole = run(11, model, which=np.arange(11) % 4, data=sets(4), rule=rule, order=order)
    plan = fs.plan(whole.replace(backend=backend))
    assert "staged" not in plan.explain()
    assert known(fs.train(plan)) == known(fs.train(whole.replace(backend="cpu")))
    assert known(fs.train(whole.replace(backend=backend, ids=[9, 2]))) == known(
        fs.train(whole.replace(backend="cpu", ids=[9, 2])))


def test_gradient_flow_is_on_each_networks_set():
    data, model, times = sets(5), M.ReLU2(D, 6), [0.1, 0.4]
    got = fs.flow(model, data, times, metrics=[fs.metrics.TrainLoss()])
    for k in range(5):
        one = fs.flow(model, data.of(k), times, metrics=[fs.metrics.TrainLoss()], networks=5, ids=[k])
        assert known(got.select(np.array([k]))) == known(one)
    with pytest.raises(fs.SpecError, match="data: has 5 data sets, polish takes one"):
        fs.polish(got)


def test_forks_keep_their_sets():
    whole = run(5, which=[2, 0, 1, 1, 0], data=sets(3), save=fs.SaveAt(steps=[0, 9, STEPS], params=True))
    got = fs.train(whole)
    forked = fs.fork(got, at=9)
    assert forked.run.data.sets and known(fs.train(whole))["weights"] == forked.weights.tobytes()


def test_arrays_of_networks_are_measured_on_their_own_sets():
    """Also where some are not finite, and are left out."""
    rng, model = np.random.default_rng(3), fs.models.MLP(3, 4, activation="tanh")
    data = fs.Dataset(rng.standard_normal((2, 6, 3)), rng.standard_normal((2, 6)), which=[1, 0, 1, 1])
    w = rng.standard_normal((4, model.P))
    want = [fs.functional.measure(fs.metrics.TrainLoss(), model, w[k], data.of(data.which[k])) for k in range(4)]
    np.testing.assert_allclose(fs.functional.measure(fs.metrics.TrainLoss(), model, w, data), want, rtol=1e-14)
    w[1] = np.nan
    got = fs.functional.measure(fs.metrics.TrainLoss(), model, w, data)
    np.testing.assert_allclose(got, [want[0], np.nan, *want[2:]], rtol=1e-14)


def test_labels_of_another_shape_are_said_as_they_were_given():
    X = np.ones((3, 10, 5))
    for y, outputs, words in ((np.ones((3, 10, 1)), 1, r"y has shape \(3, 10, 1\), .* needs \(3, 10\)"),
                              (np.ones((3, 10)), 2, r"y has shape \(3, 10\), .* needs \(3, 10, 2\)")):
        with pytest.raises(fs.PlanError, match=words):
            fs.plan(fs.Run(fs.models.MLP(5, 4, outputs=outputs), fs.Dataset(X, y), fs.rules.SGD(), 0.1, 5,
                           dtype="float64"))
