"""The report of a sweep's store: what it says is what the records say."""

import csv
import json

import numpy as np
import pytest
from sweeps import RUN, SIZES, small
from test_sweep_cli import fastsgd  # noqa: F401  a fixture

import fastsgd as fs

pytest.importorskip("zarr")
pytest.importorskip("xarray")
pages = pytest.importorskip("fastsgd.report.store")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return small().run(tmp_path_factory.mktemp("sweep") / "whole.zarr", size=40)


def test_a_page_figures_a_table_and_numbers(whole, tmp_path, fastsgd):  # noqa: F811
    pytest.importorskip("matplotlib")
    status, out, _ = fastsgd("report", whole.path, "--out", tmp_path / "r", "--over", "u0,step_size", "--by",
                             "momentum", "--metric", "test_loss", "--svg")
    assert status == 0 and "240 of 240 done" in out and "lost by step_size: 0.05: 0%" in out
    assert {path.name for path in (tmp_path / "r").iterdir()} == {
        f"{name}.{kind}" for name in ("maps", "curves", "survival") for kind in ("png", "svg")} | {
        "index.html", "cells.csv", "summary.json"}
    page = (tmp_path / "r" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "http" not in page and page.count("<tr>") == 25
    ds, numbers = whole.open(), json.loads((tmp_path / "r" / "summary.json").read_text())
    assert numbers["progress"]["lost"] == int((ds["lost"] >= 0).sum())
    rows = list(csv.DictReader((tmp_path / "r" / "cells.csv").open()))
    assert len(rows) == 24
    for row in rows:
        cell = ds.sel({name: float(row[name]) for name in ("step_size", "momentum", "u0")})
        assert float(row["lost_share"]) == float((cell["lost"] >= 0).mean())
        alive = cell["test_loss"].values[:, -1]
        alive = alive[~np.isnan(alive)]
        assert (row["test_loss_50"] == "") == (len(alive) == 0)
        if len(alive):
            np.testing.assert_allclose(float(row["test_loss_90"]), np.quantile(alive, 0.9), rtol=1e-12)


def test_cells_without_reductions_are_read(whole, tmp_path):
    few = fs.Sweep(RUN, grid=small().grid, replicas=10, reduce=[]).run(tmp_path / "a", size=40)
    one, other = pages.cells(few), pages.cells(whole)
    assert "lost_share" not in one
    for name in ("test_loss_band", "train_loss_band"):
        assert np.array_equal(one[name].turned(*other[name].dims).values, other[name].values, equal_nan=True)
    assert [path.name for path in pages.write(few, tmp_path / "r")][-1] == "index.html"


def test_a_store_that_is_being_written_has_a_report(tmp_path):
    pytest.importorskip("matplotlib")
    store = small().store(tmp_path / "a", size=40)
    assert "0 of 6 done" in pages.text(store)
    fs.sweep.work(store, shard=(1, 2))
    assert "3 of 6 done" in pages.text(store) and "left" in pages.text(store)
    assert pages.write(store, tmp_path / "r")


def test_steps_that_differ_and_one_axis(tmp_path):
    pytest.importorskip("matplotlib")
    store = fs.Sweep(RUN, grid={"steps": [30, 60]}, replicas=8).run(tmp_path / "a")
    assert pages.write(store, tmp_path / "r") and not (tmp_path / "r" / "maps.png").exists()
    alone = fs.Sweep(RUN, replicas=8).run(tmp_path / "b")
    assert pages.write(alone, tmp_path / "q") and "8 of 8" in pages.text(alone)


def test_bad_names_are_refused(whole, tmp_path, fastsgd):  # noqa: F811
    for more in (("--over", "u0,x"), ("--by", "x"), ("--metric", "x"), ("--over", "u0,u0")):
        status, _, err = fastsgd("report", whole.path, "--out", tmp_path / "r", *more)
        assert status == 2 and ("there is no" in err or "two axes" in err)
    path = tmp_path / "r.npz"
    fs.train(RUN.replace(step_size=SIZES)).save(path)
    assert fastsgd("report", path, "--by", "x")[0] == 2 and fastsgd("report", path)[0] == 0
