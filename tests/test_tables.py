"""Results as tables: selections and concatenations have their networks' bits, files of other tools the numbers."""

from math import prod

import numpy as np
import pytest
import torch
from test_keys import RUN, bits, population

import fastsgd as fs
from fastsgd import origin


@pytest.fixture(scope="module")
def result():
    return fs.train(population(12).replace(steps=20, save=fs.SaveAt(linear=3, params=True)))


def test_a_selection_has_its_networks_and_their_run(result):
    base = result.base
    for chosen, places in ((result.select(base > base[4]), range(5, 12)), (result.select([3, -1, 0]), [3, 11, 0]),
                           (result.select(momentum=base[[2, 7]]), [2, 7]), (result.select(net=5), [5]),
                           (result.select(result.survived, step_size=base[4]), [4])):
        assert chosen.ids.tolist() == list(places) and chosen.lost.tolist() == result.lost[list(places)].tolist()
        assert bits(chosen) == bits(fs.train(chosen.run)) and np.array_equal(chosen.saved_weights, result.saved_weights[
            list(places)])
        again = chosen.select([0])
        assert bits(again) == bits(result.select([places[0]])) and again.ids.tolist() == [places[0]]
    for given, words in (({"mask": [True]}, "mask"), ({"mask": [12]}, "mask"), ({"mask": [1, 1]}, "mask"),
                         ({"mask": [0.5]}, "mask"), ({"x": 1}, "labels are"), ({"net": 40}, "no network")):
        with pytest.raises(fs.SpecError, match=words):
            result.select(**given)


@pytest.mark.parametrize("more", [{}, {"keys": np.arange(12) % 5}])
def test_shards_put_together_are_the_whole(tmp_path, more):
    run = population(12).replace(**more)
    whole = fs.train(run)
    shards = [fs.train(run.replace(ids=ids)) for ids in ([0, 1, 2, 3, 4], [5], [6, 7, 8, 9, 10, 11])]
    shards[1].save(tmp_path / "a.npz")
    shards[1] = fs.Result.load(tmp_path / "a.npz")
    both = fs.concat(shards)
    assert bits(both) == bits(whole) == bits(fs.train(both.run)) and both.ids.tolist() == list(range(12))
    both.save(tmp_path / "b.npz")
    assert bits(fs.Result.load(tmp_path / "b.npz")) == bits(whole)
    assert bits(fs.concat([whole])) == bits(whole)


SHARED = {  # what all networks share may be as long as they are many
    "table": {"step_size": fs.StepTable(np.linspace(0.01, 0.1, 4)), "steps": 4},
    "init": {"init": {name: np.arange(prod(shape)).reshape(shape) / 10.0 - 0.3 for name, shape in
                      fs.models.ReLU2(6, 4).shapes().items()}},
    "order": {"order": fs.orders.Replay(np.arange(8).reshape(4, 2)[None] % 7), "steps": 4,
              "rule": fs.rules.SGD(batch_size=2)},
    "orders": {"order": fs.orders.Replay(np.arange(64).reshape(8, 4, 2) % 7), "steps": 4,
               "rule": fs.rules.SGD(batch_size=2)},
    "short": {"order": fs.orders.Replay(np.where(np.arange(64).reshape(8, 4, 2) % 3 < 2, 5, [5, -1])), "steps": 4,
              "rule": fs.rules.SGD(batch_size=2)},
    "function": {"model": fs.models.Function(lambda p, x: p["v"] @ torch.tanh(p["W"] @ x), 6, {"v": 4},
                                             at={"v": [0.1, 0.2, 0.3, 0.4]},
                                             constants={"W": np.arange(192.0).reshape(8, 4, 6) / 200})},
    "drawn": {"model": fs.models.Function(lambda p, x: p["v"] @ torch.tanh(p["W"] @ x), 6, {"W": (4, 6), "v": 4},
                                          start={"W": (0.0, 0.3)}, at={"v": [0.1, 0.2, 0.3, 0.4]})}}


@pytest.mark.parametrize("name", SHARED)
def test_parts_have_the_fields_of_their_networks(name):
    run = RUN.replace(**{"step_size": np.linspace(0.01, 0.1, 8), "networks": 8} | SHARED[name])
    whole = fs.train(run)
    for parts in ([[0, 1, 2, 3], [4, 5, 6, 7]], [[0], [1, 2, 3], [4, 5, 6, 7]]):
        both = fs.concat([fs.train(run.replace(ids=part)) for part in parts])
        assert bits(both) == bits(whole) == bits(fs.train(both.run))
    for places in ([3, 0, 2, 1], [5], [7, 0, 1, 2]):
        part = fs.train(run.replace(ids=[4, 3, 2, 1, 0, 7, 6, 5])).select(places)
        assert bits(part) == bits(fs.train(part.run))


def test_runs_that_differ_by_network_are_put_together():
    runs = [RUN.replace(step_size=0.01, keys=[0, 1]), RUN.replace(step_size=[0.02, 0.03, 0.04]),
            RUN.replace(step_size=0.05, networks=1)]
    parts = [fs.train(run) for run in runs]
    both = fs.concat(parts)
    assert both.base.tolist() == [0.01, 0.01, 0.02, 0.03, 0.04, 0.05] and both.ids.tolist() == list(range(6))
    assert bits(both) == bits(fs.train(both.run)) and len(both.provenance["parts"]) == 3
    for change in ({"steps": 41}, {"data": RUN.data.astype("float32").astype("float64")}, {"seed": 1},
                   {"rule": fs.rules.SGD(batch_size=3)}, {"model": fs.models.ReLU2(6, 5)}, {"save": None}):
        with pytest.raises(fs.PlanError, match="concat"):
            fs.concat([parts[0], fs.train(runs[0].replace(**change))])
    for bad in ([], [1], [parts[0], None]):
        with pytest.raises(fs.SpecError, match="concat"):
            fs.concat(bad)


def test_a_long_table_has_a_row_for_each_network_and_step(result):
    pytest.importorskip("pandas")
    table = result.to_pandas()
    assert len(table) == 36 and {"net", "step", "step_size", "lost", "rule.momentum", "train_loss"} <= set(table)
    row = table[(table["net"] == 7) & (table["step"] == 10)].iloc[0]
    assert row["train_loss"] == result.numpy("train_loss")[7, 1] and row["rule.momentum"] == result.base[7]


@pytest.mark.parametrize("name", ["a.zarr", "a.nc"])
def test_files_of_other_tools_have_the_numbers(result, tmp_path, name):
    xarray = pytest.importorskip("xarray")
    for module in ("zarr",) if name == "a.zarr" else ("h5netcdf",):
        pytest.importorskip(module)
    for _ in range(2):  # what is there is replaced
        result.save(tmp_path / name)
    read = xarray.open_zarr(tmp_path / name, consolidated=False) if name == "a.zarr" else xarray.open_dataset(
        tmp_path / name, engine="h5netcdf")
    with read as there:
        xarray.testing.assert_equal(there.load(), result.to_xarray())
        assert there.attrs["seed"] == "3" and there.attrs["host"] and "DiagonalLinear" not in there.attrs["request"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / "thesis.zarr").write_text("x")
    with pytest.raises(fs.SpecError, match="no zarr"):
        result.save(tmp_path / "thesis.zarr")


def test_a_result_says_where_it_comes_from(result, tmp_path):
    assert set(origin.here()) <= set(result.provenance) and result.provenance["date"].endswith("+00:00")
    git = tmp_path / ".git"
    assert origin.commit(git) is None
    git.mkdir()
    for name, head in (("a", "0" * 40), ("b", "ref: refs/heads/main")):
        (git / "HEAD").write_text(head + "\n")
        (git / "packed-refs").write_text(f"# packed\n{'1' * 40} refs/heads/main\n^{'2' * 40}\n")
        origin.commit.cache_clear()
        assert origin.commit(git) == ("0" if name == "a" else "1") * 40
