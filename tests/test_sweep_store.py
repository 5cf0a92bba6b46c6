"""The store of a sweep: its bytes are zarr's, damage is refused or done anew, another sweep's store is refused."""

import errno
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from sweeps import RUN, SIZES, shards, small, sums

import fastsgd as fs
from fastsgd import storage
from fastsgd.spec import codec
from fastsgd.sweep import claims, request, store
from fastsgd.sweep import shards as files

zarr = pytest.importorskip("zarr")
pytest.importorskip("xarray")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished sweep; tests work on copies."""
    return small().run(tmp_path_factory.mktemp("sweep") / "whole.zarr", size=50)


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole.path, tmp_path / "copy.zarr")
    return fs.sweep.open(tmp_path / "copy.zarr")


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
@pytest.mark.parametrize(("n", "rows", "chunk"), [(12, 12, 4), (9, 12, 4), (4, 12, 4), (1, 6, 6)])
def test_shards_are_zarrs(tmp_path, dtype, n, rows, chunk):
    values = (np.random.default_rng(0).normal(0, 100, (n, 3)) + 1).astype(dtype)
    path = tmp_path / "a"
    path.mkdir()
    (path / "zarr.json").write_bytes(files.array((2 * rows, 3), rows, chunk, dtype, ("network", "step")))
    array = zarr.open_array(path, mode="r+")
    fill = -2 if dtype == "int64" else np.nan
    whole = np.concatenate([values, np.full((rows - n, 3), fill, dtype)])
    array[rows:] = whole
    theirs = (path / files.key(1, 2)).read_bytes()
    ours = files.encoded(values, rows, chunk)
    for data in (ours, theirs):
        assert np.array_equal(files.decoded(data, rows, chunk, (3,), dtype), whole, equal_nan=dtype != "int64")
    (path / files.key(1, 2)).write_bytes(ours)
    assert np.array_equal(zarr.open_array(path, mode="r")[rows:], whole, equal_nan=dtype != "int64")
    assert (array[:rows] == fill).all() or np.isnan(array[:rows]).all()
    for bad in (ours[:-1], ours[1:], b"", ours[:7] + bytes([ours[7] ^ 1]) + ours[8:], ours[:-9] + b"x" + ours[-8:]):
        with pytest.raises(ValueError, match=r"damaged|size"):
            files.decoded(bad, rows, chunk, (3,), dtype)


def test_other_tools_read_the_store(whole):
    name = next(iter(whole.layouts))
    one, group = whole.layouts[name], zarr.open_group(whole.path / name, mode="r")
    assert group["test_loss"].shape == (one.ranges * one.size, 4) and group["lost"].metadata.dimension_names == (
        "network",)
    assert zarr.open_group(whole.path, mode="r").attrs["fastsgd_sweep"]["type"] == "Run"


DAMAGE = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 3), "empty": lambda path: os.truncate(path, 0),
    "gone": lambda path: path.unlink(), "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "flipped": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 64]) + path.read_bytes()[1:]),
}


@pytest.mark.parametrize("what", ["test_loss", "lost", "parts", "done"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_and_its_range_done_anew(whole, copy, damage, what):
    name = copy.names[1]
    path = {"parts": copy.path / "parts" / f"{name}.npz", "done": copy.path / "done" / f"{name}.json"}.get(
        what) or next((copy.path / name.partition(".")[0] / what).glob("c.1*"))
    DAMAGE[damage](path)
    if (damage, what) == ("gone", "done"):
        assert copy.missing() == [name]
    elif damage == "flipped" and what != "done":
        assert copy.check() == [] and copy.check(thorough=True) == [name]
        with pytest.raises((fs.SpecError, ValueError, RuntimeError)):
            copy.reduced() if what == "parts" else copy.open()[what].load()
    else:
        assert copy.check() == [name]
        with pytest.raises(fs.SpecError, match=r"damaged.*sweep work"):
            copy.open()
    assert fs.sweep.work(copy, thorough=True) == 1
    assert sums(copy) == sums(whole) and shards(copy) == shards(whole)


def test_what_is_missing_reads_as_not_done(whole, copy):
    for name in (copy.names[0], copy.names[-1]):
        (copy.path / "done" / f"{name}.json").unlink()
        for path in copy.path.glob(f"{name.partition('.')[0]}/*/c.{int(name.partition('.')[2])}*"):
            path.unlink()
    with pytest.raises(fs.SpecError, match=r"2 of \d+ ranges are missing"):
        copy.open()
    with pytest.raises(fs.SpecError, match="missing"):
        copy.reduced()
    ds, there = copy.open(allow_incomplete=True), whole.open()
    gone = ds["lost"].values == -2
    assert 0 < gone.sum() < gone.size and np.isnan(ds["test_loss"].values[gone]).all()
    assert np.array_equal(ds["test_loss"].values[~gone], there["test_loss"].values[~gone], equal_nan=True)
    part = copy.reduced(allow_incomplete=True)
    assert 0 < (part["networks"] == 0).sum() + np.isnan(part["networks"]).sum() < part["networks"].size
    progress = copy.progress()
    assert progress.done == len(copy.names) - 2 and progress.networks_done == (~gone).sum() and progress.left > 0
    assert "done" in str(progress)


def test_a_marker_of_another_store_does_not_count(copy, tmp_path):
    other = fs.Sweep(RUN.replace(seed=5), grid=small().grid, replicas=10)
    foreign = other.run(tmp_path / "other", size=50)
    name = copy.names[0]
    path, theirs = (one.path / "done" / f"{one.names[0]}.json" for one in (copy, foreign))
    record = json.loads(theirs.read_text())
    path.write_text(json.dumps(record | {"range": name}))
    assert copy.check() == [name]


def test_a_range_of_lost_networks_alone_is_done(tmp_path):
    sweep = fs.Sweep(RUN, grid={"step_size": [1e6]}, replicas=8)
    store_ = sweep.run(tmp_path / "a", size=4)
    assert not store_.missing() and not store_.check(thorough=True)
    ds = store_.open()
    assert (ds["lost"] >= 0).all() and np.isnan(ds["test_loss"].isel(step=slice(1, None))).all()
    assert (store_.reduced()["lost_share"] == 1).all() and np.isnan(store_.reduced()["test_loss_mean"][:, 1:]).all()


@pytest.mark.parametrize("change", [{"base": RUN.replace(steps=61)}, {"keep": fs.Keep(weights=True)}, {"draws": "own"},
                                    {"reduce": fs.reduce.Moments()}, {"grid": {"step_size": SIZES}},
                                    {"base": RUN.replace(data=fs.data.sparse_regression(n=12, d=6, nonzero=2, seed=3),
                                                         metrics=fs.metrics.TrainLoss())}])
def test_another_sweeps_store_is_refused(whole, change, nothing_runs):
    given = {"grid": small().grid, "replicas": 10} | change
    base = given.pop("base", RUN)
    with pytest.raises(fs.SpecError, match="another sweep"):
        fs.Sweep(base, **given).run(whole.path)


def test_a_store_outlives_the_fields_of_its_records(copy, monkeypatch):
    one = codec.encode  # as if records had a field more than when the store was made
    monkeypatch.setattr(request, "codec", SimpleNamespace(encode=lambda r: (one(r)[0] + "more", one(r)[1]),
                                                          digest=codec.digest))
    assert {group.name for group in small().groups}.isdisjoint(copy.layouts)
    again = fs.sweep.open(copy.path)
    assert again.names == copy.names and not again.missing() and not again.check(thorough=True)
    grown = small(replicas=12).run(copy.path)
    assert set(copy.names) < set(grown.names) and set(grown.layouts) == set(copy.layouts) and not grown.missing()


def test_a_store_grows_but_does_not_shrink_in_silence(copy):
    assert small(replicas=3).store(copy.path).sweep.replicas == 10  # nothing of it is missing


def test_what_is_no_store_is_refused(copy, tmp_path, nothing_runs):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    for path in ("file", "full"):
        with pytest.raises(fs.SpecError, match="no sweep's store"):
            small().store(tmp_path / path)
        with pytest.raises(fs.SpecError, match=r"no store|no sweep's store"):
            fs.sweep.open(tmp_path / path)
    manifest = copy.path / store.MANIFEST
    header, arrays = storage.read(manifest, "sweep")
    for change, words in (({"store_format": 2}, "newer"), ({"store": 0}, "do not fit"),
                          ({"layouts": []}, "do not fit"), ({"sweep": "{"}, "cannot be read"),
                          ({"layouts": [{}]}, "cannot be read")):
        storage.write(manifest, header | change, arrays)
        with pytest.raises(fs.SpecError, match=words):
            fs.sweep.open(copy.path)
    os.truncate(manifest, 100)
    with pytest.raises(fs.SpecError, match="damaged"):
        fs.sweep.open(copy.path)
    shutil.copy(copy.path / "parts" / f"{copy.names[0]}.npz", manifest)
    with pytest.raises(fs.SpecError, match="part of a sweep"):
        fs.sweep.open(copy.path)


@pytest.mark.parametrize("what", ["write", "storage"])
def test_a_full_disk_keeps_the_last_good_state(whole, tmp_path, monkeypatch, what):
    one, room = small().store(tmp_path / "a", size=50), iter([None] * 9 * (what == "write"))
    module = files if what == "write" else storage
    real = module.write

    def refuse(*given):
        if next(room, errno.ENOSPC):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*given)

    monkeypatch.setattr(module, "write", refuse)
    with pytest.raises(fs.SpecError, match=r"range .* could not be written .*No space left.* what is done stays"):
        fs.sweep.work(one)
    done = len(one.done())
    assert done < len(one.names) and (done > 0) == (what == "write")
    monkeypatch.undo()
    assert not one.check(thorough=True)
    fs.sweep.work(one, stale=0.1)
    assert sums(one) == sums(whole)


def test_a_folder_that_may_not_be_written_is_said_so(copy, monkeypatch):
    (copy.path / "done" / f"{copy.names[0]}.json").unlink()

    def refuse(*given, **more):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(claims.os, "link", refuse)
    with pytest.raises(fs.SpecError, match="Read-only"):
        fs.sweep.work(copy)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(fs.SpecError, match="may not be written"):
        fs.sweep.work(copy)
    assert copy.open(allow_incomplete=True)["lost"].shape == copy.sweep.shape


def test_a_shard_of_the_ranges_and_a_limit_of_time(copy, tmp_path):
    one = small().store(tmp_path / "a", size=50)
    assert one.work(seconds=0) == 0
    assert fs.sweep.work(one, shard=(2, 3)) == len(one.names[1::3]) and set(one.names) - set(one.missing()) == set(
        one.names[1::3])
    other = small().store(tmp_path / "b", size=50)
    for k in (1, 3):
        other.work(shard=(k, 3))
    shutil.copytree(other.path, one.path, dirs_exist_ok=True)  # parts of one sweep that were made apart
    assert sums(one) == sums(copy) and shards(one) == shards(copy)
    for shard in ((0, 3), (4, 3)):
        with pytest.raises(fs.SpecError, match="shard"):
            fs.sweep.work(one, shard=shard)


def test_a_cell_of_more_networks_than_a_range(tmp_path):
    sweep = fs.Sweep(RUN, grid={"step_size": SIZES}, replicas=50)
    cut, one = sweep.run(tmp_path / "a", size=20), sweep.run(tmp_path / "b", size=150)
    assert len(cut.names) == 9 and len(one.names) == 1
    assert cut.open().load().drop_attrs().equals(one.open().load().drop_attrs())
    a, b = cut.reduced(), one.reduced()
    for name in b:
        np.testing.assert_allclose(a[name], b[name], rtol=0 if "quantiles" in name else 1e-12, err_msg=name)
    (cut.path / "done" / f"{cut.names[1]}.json").unlink()
    next(cut.path.glob("g*/lost/c.1")).unlink()
    assert np.isnan(cut.reduced(allow_incomplete=True)["test_loss_quantiles"][0]).all()


def test_a_range_has_no_more_rows_than_there_are_networks(tmp_path):
    store = small().run(tmp_path / "a", size=2**31)  # whose shards would not fit in memory
    assert {one.size for one in store.layouts.values()} == {120} and len(store.names) == 2


def test_records_of_different_lengths_are_said_so(tmp_path):
    store = fs.Sweep(RUN, grid={"steps": [60, 2]}, replicas=8).run(tmp_path / "a")
    for read in (store.open, store.reduced):
        with pytest.raises(fs.SpecError, match="other shapes"):
            read()


@pytest.mark.parametrize("path", [None, 3, b"a", "", "s3://bucket/a", "a\0b", "a" * 300])
def test_what_is_no_path_is_refused(path, nothing_runs):
    for use in (small().run, small().store, fs.sweep.open):
        with pytest.raises(fs.SpecError, match=r"^path: "):
            use(path)


@pytest.mark.parametrize("name", ["a b", "it's \"q\"", "äß☃", "link", "a\nb"])
def test_paths_may_be_odd(tmp_path, name):
    if name == "link":
        (tmp_path / "there").mkdir()
        (tmp_path / name).symlink_to("there")
    sweep = fs.Sweep(RUN, grid={"step_size": SIZES}, replicas=2)
    store = sweep.run(tmp_path / name, "local" if name.startswith("it") else None, workers=1)
    assert store.open()["lost"].shape == (3, 2) and sums(fs.sweep.open(tmp_path / name))


@pytest.mark.parametrize(("given", "words"), [
    ({"progress": "bar"}, "progress"), ({"tuning": 3}, "tuning"), ({"stale": 0}, "stale"), ({"workers": 0}, "workers")])
def test_odd_arguments_of_a_run_are_refused(tmp_path, given, words, nothing_runs):
    for engine in (None, "local"):
        with pytest.raises(fs.SpecError, match=f"^{words}: "):
            small().run(tmp_path / "a", engine, **given)


@pytest.mark.parametrize(("given", "words"), [
    ({"shard": 3}, "shard"), ({"shard": (1, 2, 3)}, "shard"), ({"shard": (2, 1)}, "shard"),
    ({"seconds": "a"}, "seconds"),
    ({"seconds": -1}, "seconds"), ({"progress": 3}, "progress")])
def test_odd_arguments_of_a_worker_are_refused(copy, given, words, nothing_runs):
    with pytest.raises(fs.SpecError, match=words):
        copy.work(**given)
    for name in ("x", f"{copy.names[0][:-6]}000099"):
        with pytest.raises(fs.SpecError, match="range: "):
            copy.range(name)


@pytest.mark.parametrize("own", ["loss", "penalty", "values"])
def test_stores_have_the_graphs_of_functions(tmp_path, own):
    base, grid = small().base, {"step_size": [0.1, 0.2]}
    loss = fs.losses.Function(lambda h, y, c: c * (h - y) ** 2, constants={"c": 0.5})
    if own == "penalty":
        base = base.replace(rule=fs.rules.SGD(penalty=lambda p: sum((a**2).sum() for a in p.values())))
    elif own == "loss":
        base = base.replace(loss=loss)
    else:
        grid["loss"] = [loss, fs.losses.Squared.full()]
    store = fs.Sweep(base, grid=grid).run(tmp_path / "s")
    assert fs.sweep.open(tmp_path / "s").sweep.fingerprint() == store.sweep.fingerprint()
    assert fs.Sweep(base, grid=grid | {"step_size": [0.1, 0.2, 0.3]}).run(tmp_path / "s").open().sizes["step_size"] == 3
