"""The cost model: work is counted, a fit finds the numbers it was made from, the user's own table comes first."""

import json

import numpy as np
import pytest

import fastsgd as fs
from fastsgd import calibrate, cost
from fastsgd.lowering.work import Work
from fastsgd.native import cpu_name

DATA = fs.data.sparse_regression(n=40, d=30, nonzero=3, n_test=100, seed=0)
MODEL = fs.models.DiagonalLinear(d=30)
METRICS = (fs.metrics.TrainLoss(), fs.metrics.JacobianRank(rtol=1e-15))
ONE = fs.Tuning(threads=1)


def plan(tuning=ONE, steps=10_000, networks=4096, rule=None, **fields):
    fields = {"dtype": "float64", "backend": "cpu", "rule": rule or fs.rules.SGD()} | fields
    return fs.plan(fs.Run(MODEL, DATA, step_size=0.01, steps=steps, networks=networks, **fields), tuning)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSGD_CACHE", str(tmp_path))
    return tmp_path


def test_the_packages_table_says_where_it_was_measured():
    text = plan(metrics=METRICS).explain().splitlines()[-1]
    machine = json.loads(cost.SHIPPED.read_text())["machine"]
    assert text.startswith("expected: ") and f"the package's table, measured on {machine}" in text
    assert "training" in text and "rank" in text and "no estimate" not in text


def test_lines_from_elsewhere_say_so():
    table = {"from": "here", "ns": cost.read()["ns"], "lines": {"diagonal": "there"}}
    for made, where in ((plan(), "there"), (plan(rule=fs.rules.SGD(momentum=0.5)), "here")):
        assert cost.expected(made.work, "cpu", 8, made.saves, made.tuning, table=table)[1] == where


def test_expected_seconds_follow_the_work():
    def training(*arguments, **fields):
        return plan(*arguments, **fields).expected["training"]

    one = training()
    assert one > 0
    assert training(steps=20_000) == pytest.approx(2 * one)
    assert training(networks=8192) == pytest.approx(2 * one)
    assert training(fs.Tuning(threads=2)) == pytest.approx(one / 2, rel=0.3)
    assert training(rule=fs.rules.SGD(batch_size=8)) > 4 * one
    assert training(rule=fs.rules.SGD(momentum=0.5)) > 1.5 * one
    few, many = (plan(metrics=METRICS, save=fs.SaveAt(linear=S)).expected for S in (2, 20))
    assert many["rank"] == pytest.approx(10 * few["rank"])
    assert many["training"] == few["training"]


def test_what_has_no_estimate_is_named():
    def mine(params, data):
        return params["u"].sum(axis=1)

    assert "no estimate for mine" in plan(metrics=mine).explain()
    reference = plan(fs.Tuning(), backend="reference")
    assert "expected: unknown, for the backend 'reference' has no table" in reference.explain()
    assert reference.expected == {}


def test_the_users_table_comes_first_unless_it_is_foreign(own_cache):
    shipped = plan().expected["training"]
    table = {"machine": cpu_name(), "isa": "x86-64-v3", "ns": json.loads(cost.SHIPPED.read_text())["ns"]}
    for line in table["ns"].values():
        for part in line.values():
            if isinstance(part, dict):
                part.update({unit: 3 * ns for unit, ns in part.items()})
    assert cost.write(table) == own_cache / "cost.json"
    assert [path.name for path in own_cache.iterdir()] == ["cost.json"]
    assert plan().expected["training"] == pytest.approx(3 * shipped)
    assert "the table of this machine" in plan().explain()
    for spoilt in ({**table, "machine": "another"}, {**table, "version": 0}):
        (own_cache / "cost.json").write_text(json.dumps({"version": cost.VERSION, **spoilt}))
        assert plan().expected["training"] == pytest.approx(shipped)
    (own_cache / "cost.json").write_text("half a tab")
    assert plan().expected["training"] == pytest.approx(shipped)


def test_a_fit_finds_the_numbers_it_was_made_from():
    rng = np.random.default_rng(0)
    true = {"step": 20.0, "item": 1.5, "gathered": 0.0}
    works = [{"step": 1, "item": int(rng.integers(1, 500)), "gathered": int(rng.integers(1, 50))} for _ in range(30)]
    found, errors = calibrate.fit([(work, cost.total(true, work)) for work in works])
    assert found["step"] == pytest.approx(20, rel=1e-3) and found["item"] == pytest.approx(1.5, rel=1e-3)
    assert np.abs(errors).max() < 1e-6
    negative, _ = calibrate.fit([(work, max(1.0, cost.total(true | {"gathered": -0.1}, work))) for work in works])
    assert min(negative.values()) >= 0 and "item" in negative


def test_every_kernel_of_the_table_can_be_calibrated():
    """One measured step of every line's first run: a line that cannot run would leave plans without an estimate."""
    shipped = json.loads(cost.SHIPPED.read_text())["ns"]
    lines = {}
    for name, runs in calibrate._kernels():
        lines[name] = runs
        run, tuning = runs[0]
        work = Work(run)
        assert cost.kernel(work, tuning) == name
        assert cost.total(shipped[name]["many"], cost.step_work(work, tuning)) > 0
    assert lines.keys() <= shipped.keys() and {"fixed", "threads", "outside", "metric.gram"} <= shipped.keys()
