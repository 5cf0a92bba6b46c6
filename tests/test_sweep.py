"""What a sweep computes: each cell's own run, with draws of its own whatever else the sweep holds."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import DATA, RUN, SIZES, small, sums

import fastsgd as fs
from fastsgd.native import ISAS, NEEDS, cpu_flags, native
from fastsgd.spec import codec
from fastsgd.sweep import Random, layout
from fastsgd.sweep.axes import put

REDUCED = fs.Keep(weights=True)


def needs_zarr():
    pytest.importorskip("zarr")
    return pytest.importorskip("xarray")


def by_hand(changes, replicas, base=RUN):
    run = base
    for name, value in changes.items():
        run = put(run, name, value)
    return fs.train(run.replace(keys=np.arange(replicas)))


@pytest.mark.parametrize("grid", [
    {"step_size": SIZES, "rule.momentum": [0, 0.9]},
    {"steps": [60, 30], "model": [fs.models.DiagonalLinear(6), fs.models.ReLU2(6, 3)], "seed": [1, 2]},
    {"rule.batch_size": [1, 3], "rule.weight_decay": [0.1, 0], "order": [None, fs.orders.Reshuffle()]},
    {"rule": [fs.rules.SGD(), fs.rules.SGD(label_noise=0.1), fs.rules.GD()], "step_size.base": [0.01, 0.02]},
], ids=lambda grid: "+".join(grid))
def test_every_cell_has_the_bits_of_its_own_run(tmp_path, grid):
    needs_zarr()
    sweep = fs.Sweep(RUN, grid=grid, replicas=3)
    ds = sweep.run(tmp_path / "s", size=6).open()
    for index in itertools.product(*map(range, sweep.shape[:-1])):
        changes = {name: values[k] for (name, values), k in zip(grid.items(), index, strict=True)}
        alone = by_hand(changes, 3)
        cell = ds.isel(dict(zip([axis.dim for axis in sweep.axes], index, strict=True)))
        assert np.array_equal(cell["test_loss"].values, alone.numpy("test_loss"), equal_nan=True)
        assert np.array_equal(cell["lost"].values, alone.lost)


def test_what_a_field_follows_from_another_follows_in_a_sweep():
    for model, name, value in ((fs.models.MLP(6, (4,)), "model.widths", (9, 9)),
                               (fs.models.MLP(6, 4), "model.bias", False),
                               (fs.models.MLP(6, 4, bias=(True, False)), "model.outputs", 2)):
        run = put(RUN.replace(model=model), name, value)
        wanted = {"d": 6, "widths": 4} | ({"bias": (True, False)} if "outputs" in name else {})
        wanted |= {name.partition(".")[2]: value}
        assert repr(run.model) == repr(fs.models.MLP(**wanted))
        assert np.array_equal(run.model.start(0, [0]), fs.models.MLP(**wanted).start(0, [0]))


def test_records_come_out_of_a_pickle_as_they_went_in():
    run = pickle.loads(pickle.dumps(RUN.replace(init={"u": np.ones(6), "v": np.ones(6)}, keys=[1])))
    for array in (run.data.X, run.init["u"], run.keys, run.model.u0):
        assert not array.flags.writeable
    assert codec.fingerprint(pickle.loads(pickle.dumps(small()))) == codec.fingerprint(small())


def test_fields_that_need_each_other_stay():
    decays = RUN.replace(step_size=fs.StepSize(0.1, decay_at=0.5, decay_by=4.0, warmup=fs.Warmup(3.0, until=0.2)))
    for name, value in (("step_size", 0.2), ("step_size.decay_at", 0.3), ("step_size.warmup.factor", 2.0)):
        step = put(decays, name, value).step_size
        assert (step.decay_by, step.warmup.until) == (4.0, 0.2)
        assert (step.base, step.decay_at, step.warmup.factor)[("0.2", "0.3", "2.0").index(str(value))] == value


def test_groups_are_what_one_kernel_runs():
    sweep = small()
    assert sweep.shape == (3, 2, 4, 10) and len(sweep.groups) == 2  # a momentum of zero is no momentum
    assert {group.vector for group in sweep.groups} == {("step_size", "rule.momentum", "model.u0")}
    assert len(fs.Sweep(RUN, grid={"steps": [5, 6], "dtype": ["float64"], "rule.batch_size": [1, 2, 3]}).groups) == 6
    many = fs.Sweep(RUN, cases=[{"step_size": s, "model.u0": u} for s in np.linspace(0.1, 1, 50) for u in (0.1, 0.2)])
    assert many.shape == (100, 1) and len(many.groups) == 1


@pytest.mark.parametrize("draws", ["common", "own"])
def test_a_cell_has_its_draws_whatever_else_the_sweep_holds(tmp_path, draws):
    needs_zarr()
    one = small(draws=draws).run(tmp_path / "a", size=40).open()
    other = fs.Sweep(RUN, grid={"step_size": [0.4, 9.0], "rule.momentum": [0.9], "model.u0": [0.4]}, replicas=4,
                     draws=draws).run(tmp_path / "b").open()
    at = {"step_size": 0.4, "momentum": 0.9, "u0": 0.4}
    assert np.array_equal(one["train_loss"].sel(at)[:4].values, other["train_loss"].sel(at).values, equal_nan=True)
    both = [one["train_loss"].sel(step_size=0.05, momentum=0.0, u0=u).values for u in (0.1, 0.2)]
    keys = small(draws=draws).keys(np.array([[0, 0, 0], [0, 0, 1]]), [0, 1])
    assert (keys[0] == keys[1]).all() == (draws == "common") and not np.array_equal(*both)


def test_growing_keeps_what_is_done(tmp_path):
    needs_zarr()
    first = small(grid={"step_size": SIZES[1:], "rule.momentum": [0], "model.u0": [0.1, 0.2]}, replicas=4,
                  reduce=small().reductions)
    store = first.run(tmp_path / "a", size=20)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").glob("g*/*/c.*")}
    assert first.store(tmp_path / "a").names == store.names  # nothing is missing, nothing changes
    grown = small().run(tmp_path / "a")
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert len(grown.names) > len(store.names) and grown.sweep.networks == small().networks
    whole = small().run(tmp_path / "b", size=20)
    one, other = grown.open().sortby("step_size"), whole.open().sortby("step_size")
    one.load().drop_attrs().equals(other.load().drop_attrs()) or pytest.fail("other numbers")
    a, b = grown.reduced().sortby("step_size"), whole.reduced().sortby("step_size")
    assert np.array_equal(a["test_loss_quantiles"], b["test_loss_quantiles"], equal_nan=True)
    assert np.array_equal(a["lost_share"], b["lost_share"]) and (a["networks"] == 10).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=4), st.integers(1, 7), st.integers(1, 3))
def test_blocks_hold_every_network_once(steps, size, stride):
    one, shape = layout.Layout("g", size, stride, []), np.ones(3, int)
    for more in steps:
        shape = shape + more
        one.grow(shape)
    index = np.stack(np.unravel_index(np.arange(shape.prod()), shape), axis=-1)
    rows, seen = one.rows(index), []
    assert (rows >= 0).all() and len(set(rows.tolist())) == len(rows)
    for k in range(one.ranges):
        range_ = one.range(k)
        assert range_.networks <= size or len(range_.cells) == 1
        for cell in range_.cells:
            seen += [(*cell, r) for r in range(*range_.replicas)]
        place = one.rows(np.array([(*cell, r) for cell in range_.cells for r in range(*range_.replicas)]))
        assert place.tolist() == list(range(k * size, k * size + range_.networks))
    assert sorted(seen) == sorted(map(tuple, index.tolist()))
    with pytest.raises(fs.SpecError, match="shrink"):
        one.grow(shape - [1, 0, 0])


def test_points_drawn_at_random_stay_when_more_are_drawn():
    fields = {"step_size": ("log", 0.01, 1.0), "rule.momentum": ("linear", 0.1, 0.9)}
    few, many = (Random(fields, n, seed=4).columns() for n in (5, 50))
    for name, (_, low, high) in fields.items():
        assert np.array_equal(few[name], many[name][:5]) and low <= many[name].min() < many[name].max() <= high
    assert abs(np.corrcoef(*many.values())[0, 1]) < 0.4
    assert fs.Sweep(RUN, random=Random(fields, 5)).shape == (5, 1)


def test_zip_and_cases_are_one_axis():
    sweep = fs.Sweep(RUN, zip={"step_size": [0.1, 0.2], "steps": [5, 6]}, cases=[{"model.u0": 0.1, "seed": 3}])
    assert [axis.dim for axis in sweep.axes] == ["point", "case"] and sweep.shape == (2, 1, 1)
    assert [group.run.steps for group in sweep.groups] == [5, 6]


@pytest.mark.parametrize(("fields", "words"), [
    ({"grid": {"rule.momentun": [0]}}, "momentun.*did you mean 'momentum'"),
    ({"grid": {"rul.momentum": [0]}}, "did you mean 'rule'"),
    ({"grid": {"rule.momentum": [0, 1.5]}}, "rule.momentum: 1.5 is outside"),
    ({"grid": {"rule.momentum": []}}, "no values"), ({"grid": {"rule.momentum": 0.5}}, "expected a list"),
    ({"grid": {"rule.momentum": "0.5"}}, "expected a list"), ({"grid": {"steps": [10, 0]}}, "steps"),
    ({"grid": {"ids": [1]}}, "not for a sweep"), ({"grid": {"metrics": [1]}}, "not for a sweep"),
    ({"grid": {"rule.batch_size.x": [1]}}, "leads into"), ({"grid": [1]}, "sweep.grid"),
    ({"zip": {"step_size": [1, 2], "steps": [3]}}, "lengths differ"), ({"cases": [{"steps": 1}, {"seed": 1}]}, "cases"),
    ({"cases": []}, "cases"), ({"random": 3}, "sweep.random"), ({"replicas": 0}, "replicas"), ({"keep": 3}, "keep"),
    ({"reduce": [1]}, "reduce"), ({"draws": "mine"}, "draws"), ({"reduce": [fs.reduce.Moments()] * 2}, "reduce"),
    ({"grid": {"step_size": [0.1]}, "zip": {"step_size": [1]}}, "given twice"),
    ({"grid": {"step_size": [0.1]}, "zip": {"step_size.base": [1]}}, "step_size, step_size.base given twice"),
    ({"grid": {"rule.momentum": [0, 0.0]}}, "0.0 given twice"),
    ({"grid": {"step_size": np.ones(2)}}, "1.0 given twice"),
    ({"grid": {"rule": [fs.rules.SGD(), fs.rules.SGD()]}}, "SGD.* given twice"),
    ({"grid": {"step_size.": [1]}}, "dotted"),
    ({"grid": {"stop": [None, ()]}}, "given twice"), ({"grid": {"step_size": [np.nan]}}, "step_size: is nan"),
    ({"grid": {"rule.momentum": [True, False]}}, "bool"),
    ({"grid": {"step_size": [None, 1]}}, r"step_size: holds object \(None\), expected real numbers"),
    ({"cases": 5}, "cases"), ({"cases": [None]}, "cases"), ({"grid": {"seed": [-1]}}, "seed"),
])
def test_bad_sweeps_are_refused(fields, words, nothing_runs):
    with pytest.raises(fs.SpecError, match=words):
        fs.Sweep(RUN, **fields)


def test_two_values_of_one_run_are_refused(tmp_path, nothing_runs):
    needs_zarr()
    with pytest.raises(fs.SpecError, match="order: two values make one run"):
        fs.Sweep(RUN, grid={"order": [None, fs.orders.PerNetwork()]}).run(tmp_path / "a")


@pytest.mark.parametrize(("grid", "base"), [
    ({"step_size": [np.float32(0.1), np.float32(0.2)]}, RUN), ({"step_size": np.array([0.1, 0.2], np.float16)}, RUN),
    ({"seed": [3, 2**64 - 1]}, RUN), ({"seed": np.array([3, 2**64 - 1], np.uint64)}, RUN),
    ({"steps": range(10, 30, 10)}, RUN), ({"dtype": [np.float64]}, RUN),
    ({"init": [{"u": [1.0] * 6, "v": [1.0] * 6}]}, RUN),
    ({"model.widths": [[3], (3, 4), 5]}, RUN.replace(model=fs.models.MLP(6, 4))),
    ({"model.widths": [3, 5], "model": [fs.models.MLP(6, 9, activation="tanh"), fs.models.MLP(6, 9)]},
     RUN.replace(model=fs.models.MLP(6, 4))),
    ({"stop": [[fs.stops.Below("train_loss", 0.1)], []]}, RUN),
    ({"rule.nesterov": [False, True]}, RUN.replace(rule=fs.rules.SGD(momentum=0.5)))], ids=str)
def test_odd_values_come_out_of_a_file_as_they_went_in(tmp_path, grid, base):
    needs_zarr()
    sweep = fs.Sweep(base, grid=grid, replicas=2)
    store = sweep.run(tmp_path / "a")
    read = fs.sweep.open(tmp_path / "a")
    assert sweep.store(tmp_path / "a").names == store.names == read.names
    assert codec.fingerprint(read.sweep.grid) == codec.fingerprint(sweep.grid)
    ds = read.open()
    for cell in np.ndindex(sweep.shape[:-1]):
        at = {axis.dim: ds[axis.dim].values[k] for axis, k in zip(sweep.axes, cell, strict=True)}
        one = read.replay(replica=1, save=fs.SaveAt(linear=4), **at)
        assert np.array_equal(one.numpy("test_loss")[0], ds["test_loss"].values[(*cell, 1)], equal_nan=True)
    if len(grid) > 1:
        assert {group.run.model.widths for group in sweep.groups} == {(3,), (5,)}  # whatever was named first


def test_cases_may_be_there_twice_also_when_they_grow(tmp_path):
    needs_zarr()
    cases = [{"step_size": 0.1}, {"step_size": 0.1}, {"step_size": 0.2}, {"step_size": 0.1}]
    for n in (1, 2, 4):
        ds = fs.Sweep(RUN, cases=cases[:n], replicas=2).run(tmp_path / "a").open()
        assert ds["step_size"].values.tolist() == [case["step_size"] for case in cases[:n]]


@pytest.mark.parametrize("change", [{"step_size": [0.1, 0.2]}, {"ids": [0]}, {"networks": 3}, {"keys": [1, 2]},
                                    {"save": fs.SaveAt(linear=2, params=True)}, {"metrics": [by_hand]}])
def test_a_base_of_more_than_one_network_is_refused(change, nothing_runs):
    with pytest.raises(fs.SpecError, match=r"sweep\.base"):
        fs.Sweep(RUN.replace(**change))


@pytest.mark.parametrize(("fields", "words"), [
    ({"fields": {}, "points": 2}, "fields"), ({"fields": {"a": ("log", 0, 1)}, "points": 2}, "low < high"),
    ({"fields": {"a": ("linear", 2, 1)}, "points": 2}, "low < high"),
    ({"fields": {"a": ("x", 1, 2)}, "points": 2}, "one of"),
    ({"fields": {"a": 3}, "points": 2}, "expected"), ({"fields": {"a": ("log", 1, 2)}, "points": 0}, "points"),
])
def test_bad_random_points_are_refused(fields, words):
    with pytest.raises(fs.SpecError, match=words):
        Random(**fields)


def test_replay_is_one_network_with_all_its_steps(tmp_path):
    needs_zarr()
    store = small(keep=fs.Keep(networks=48, weights=True)).run(tmp_path / "a", size=30)
    ds = store.open()
    assert 48 <= ds.sizes["network"] < 120 and "u0_of" in ds.coords
    for k in (0, 7, ds.sizes["network"] - 1):
        at = {name: ds[f"{name}_of"].values[k] for name in ("step_size", "momentum", "u0")}
        replica = int(ds["replica_of"].values[k])
        one = store.replay(replica=replica, **at)
        assert len(one.steps) == 61
        assert np.array_equal(one.numpy("test_loss")[0, [0, 20, 40, 60]], ds["test_loss"].values[k], equal_nan=True)
        there = ds.sel(at).isel(replica=replica)
        assert one.lost[0] == there["lost"] and np.array_equal(one.weights[0], there["weights"])
    assert store.replay(step_size=0.4, momentum=0, **{"model.u0": 0.1}, save=fs.SaveAt(linear=1)).steps.tolist() == [60]
    for wrong, words in (({"step_size": 0.3}, "0 values"), ({"momentum": 0}, "of step_size fit"),
                         ({"x": 1}, "the sweep has"), ({"replica": 10}, "replica")):
        with pytest.raises(fs.SpecError, match=words):
            store.replay(**{"u0": 0.1} | wrong)


LAYOUTS = [{"isa": isa} | layout for isa in ISAS if set(NEEDS[isa]) <= cpu_flags() for layout in (
    {"lanes": native(isa).lanes["float64"], "team": 1}, {"lanes": 1, "team": native(isa).team["float64"]},
    {"lanes": 1, "team": 1}, {"segment": 7, "threads": 3}, {"compiled": False})]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    needs_zarr()
    return small(keep=fs.Keep(weights=True)).run(tmp_path_factory.mktemp("sweep") / "kept")


@pytest.mark.parametrize(("momentum", "backend", "layout"), [
    (momentum, *given) for momentum in (0, 0.9) for given in (*(("cpu", layout) for layout in LAYOUTS), ("cuda", {}))
    if not momentum or given[1].get("team", 1) == 1], ids=str)  # the general loop has no teams
def test_replay_has_the_bits_of_the_sweep_on_every_machine(kept, momentum, backend, layout):
    """Also of networks that were lost; momentum 0 is the fused loop, 0.9 the general one."""
    ds = kept.open()
    for step_size, replica in ((0.05, 9), (3.0, 4)):
        at = {"step_size": step_size, "momentum": momentum, "u0": 0.3}
        there = ds.sel(at).isel(replica=replica)
        one = kept.replay(replica=replica, backend=backend, tuning=fs.Tuning(**layout), **at)
        assert one.provenance["backend"].startswith(backend)
        assert one.weights[0].tobytes() == there["weights"].values.tobytes()
        assert one.lost[0] == there["lost"] and (one.lost[0] >= 0) == (step_size == 3.0)
        for name in ("train_loss", "test_loss"):
            assert np.array_equal(one.numpy(name)[0, [0, 20, 40, 60]], there[name].values, equal_nan=True)


def test_user_models_need_their_classes(tmp_path):
    needs_zarr()
    from test_keys import Arrays

    sweep = fs.Sweep(RUN.replace(model=Arrays(6)), grid={"step_size": [0.1, 0.2]}, replicas=2)
    with pytest.raises(fs.SpecError, match="classes"):
        sweep.run(tmp_path / "a")
    store = sweep.run(tmp_path / "a", classes=[Arrays])
    with pytest.raises(fs.SpecError, match="classes"):
        fs.sweep.open(tmp_path / "a")
    assert sums(fs.sweep.open(tmp_path / "a", classes=[Arrays])) == sums(store)


def test_replay_takes_the_nearest_value_and_the_labels_of_results(tmp_path):
    needs_zarr()
    near = fs.Sweep(RUN, grid={"step_size": [0.1, 0.1 + 1e-12]}).run(tmp_path / "a")
    assert [near.replay(step_size=s).run.step_size.base[0] for s in (0.1, 0.1 + 1e-12)] == [0.1, 0.1 + 1e-12]
    with pytest.raises(fs.SpecError, match="2 values"):
        near.replay(step_size=0.1 + 5e-13)
    other = fs.data.sparse_regression(n=12, d=6, nonzero=2, n_test=8, seed=2)  # which looks like DATA
    two = fs.Sweep(RUN, grid={"data": [DATA, other]}).run(tmp_path / "b")
    assert [two.replay(data=label).run.data.X[0, 0] for label in two.open()["data"].values] == [
        DATA.X[0, 0], other.X[0, 0]]


def test_data_are_an_axis_too(tmp_path):
    needs_zarr()
    other = fs.data.sparse_regression(n=9, d=6, nonzero=2, n_test=8, seed=2)
    ds = fs.Sweep(RUN, grid={"data": [DATA, other], "loss.factor": [0.5, 1.0]}, replicas=2).run(tmp_path / "a").open()
    alone = by_hand({"data": other, "loss.factor": 1.0}, 2)
    assert np.array_equal(ds["test_loss"].values[1, 1], alone.numpy("test_loss"))
