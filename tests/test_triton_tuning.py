"""How many networks and warps a program takes: rules without a card, measured and kept with one, named by the plan."""

import json

import numpy as np
import pytest
from general_cases import D, general

import fastsgd as fs
from fastsgd.backends.triton import backend as triton
from fastsgd.backends.triton import launches, tuned
from fastsgd.lowering.work import Work

pytest.importorskip("triton")
M, R = fs.models, fs.rules
CARD = "A card of the test"


@pytest.fixture
def clock(monkeypatch, tmp_path):
    """A card that is not there, with a clock of its own: {choice: seconds} of launches, and the launches asked for."""
    monkeypatch.setenv("FASTSGD_CACHE", str(tmp_path))
    monkeypatch.delenv("FASTSGD_TRITON_TUNE", raising=False)
    monkeypatch.setattr(tuned, "name_of_card", lambda device: CARD)
    monkeypatch.setattr(launches, "interpreted", lambda: False)
    monkeypatch.setattr(triton, "interpreted", lambda: True)
    asked = []

    def seconds(run, N, choice, launch):
        asked.append(choice)
        return 1.0 if choice == (8, 2) else 2.0 + len(asked)

    monkeypatch.setattr(tuned, "seconds", seconds)
    return asked


def long(model=None, **fields):
    return general({"model": model or M.DiagonalLinear(30)} | fields, "float32", steps=10**9, networks=1000, metrics=(),
                   step_size=0.1, save=fs.SaveAt(steps=[1]), backend="triton")


def test_the_fastest_is_taken_kept_and_named(clock, tmp_path):
    plan = fs.plan(long())
    assert (plan.tuning.networks, plan.tuning.warps) == (8, 2)
    assert clock[0] == launches.rule_of_thumb(plan.work) == (4, 1) and len(set(clock)) == len(clock) > 4
    text = plan.explain()
    assert f"8 network(s) a program, 2 warp(s) a program: the fastest of {len(clock)} measured on {CARD}" in text
    (kept,) = tmp_path.rglob("*.json")
    assert json.loads(kept.read_text())["card"] == CARD
    clock.clear()
    again = fs.plan(long())
    assert (again.tuning.networks, again.tuning.warps) == (8, 2) and not clock
    assert f"measured before on {CARD}, kept in {kept}" in again.explain()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"networks": 3, "warps": 1}', '{"networks": "8", "warps": 2}'])
def test_a_broken_file_is_measured_anew(clock, tmp_path, text):
    fs.plan(long())
    (kept,) = tmp_path.rglob("*.json")
    kept.write_text(text)
    clock.clear()
    assert fs.plan(long()).tuning.networks == 8 and clock
    assert json.loads(kept.read_text())["warps"] == 2


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(clock, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTSGD_CACHE", str(tmp_path / "file"))
    assert fs.plan(long()).tuning.networks == 8


def test_nothing_is_measured_where_it_is_not_wanted(clock, monkeypatch, tmp_path):
    short = fs.plan(long().replace(steps=3))
    assert short.tuning.networks == 4 and any("too short to be worth measuring" in why for why in short.reasons)
    asked = fs.plan(long(), fs.Tuning(networks=16))
    assert (asked.tuning.networks, asked.tuning.warps) == (16, 1)
    assert any("as asked for" in why for why in asked.reasons)
    monkeypatch.setenv("FASTSGD_TRITON_TUNE", "off")
    off = fs.plan(long())
    assert off.tuning.networks == 4 and any("by rule, not measured" in why for why in off.reasons)
    assert not clock and not list(tmp_path.rglob("*.json"))


def test_what_changes_the_work_has_a_choice_of_its_own(clock, monkeypatch):
    rules = [R.GD(), R.SGD(batch_size=9), R.SGD(label_noise=0.1), R.SGD(momentum=0.1), R.SGD(gradient_noise=0.1),
             R.SGD(momentum=0.1, nesterov=True), R.SAM(rho=0.1), R.Adam()]
    runs = [long(), long(M.DiagonalLinear(31)), long(M.ReLU2(D, 6)), *(long(rule=rule) for rule in rules),
            long(order=fs.orders.Common()), long(order=fs.orders.Reshuffle())]
    keys = [tuned.key(Work(run), 1000, CARD) for run in runs]
    double = runs[0].replace(dtype="float64", data=runs[0].data.astype("float64"))
    keys += [tuned.key(Work(runs[0]), 5000, CARD), tuned.key(Work(runs[0]), 1000, "another"),
             tuned.key(Work(double), 1000, CARD)]
    monkeypatch.setattr(tuned, "source_hash", lambda: "another text")
    keys.append(tuned.key(Work(runs[0]), 1000, CARD))
    assert len(set(keys)) == len(keys) - 1  # 30 and 31 inputs are padded alike


def test_candidates_are_legal_and_hold_the_rule():
    for run in (long(), long(M.ReLU2(D, 512)), long(M.MLP(D, (64, 64)), rule=R.GD()),
                long(M.ReLU2(D, 256), rule=R.Adam(average=0.9))):
        rule = launches.rule_of_thumb(Work(run))
        choices = tuned.candidates(rule, lambda n, w, run=run: launches.fits(Work(run), n, w))
        assert choices[0] == rule and launches.fits(Work(run), *rule)
        for networks, warps in choices:
            assert networks & (networks - 1) == 0 < networks and warps in (1, 2, 4, 8)


@pytest.mark.parametrize("fields", [{}, {"rule": R.GD()}, {"rule": R.SGD(batch_size=2, label_noise=0.1)},
                                    {"rule": R.Adam(average=0.5, gradient_noise=0.1, beta1=np.linspace(0, 0.9, 5))},
                                    {"order": fs.orders.Replay(np.zeros(13, int))}], ids=str)
def test_what_is_timed_is_the_real_launch(fields, monkeypatch):
    """One timing of each kind of run, through the very loop, and no network is lost in it."""
    monkeypatch.setattr(tuned, "STEPS", 3)
    seen = []

    def launch(plan, segment):
        state = triton.Triton().load(plan, plan.start, np.full(plan.N, -1), plan.fresh_buffers())
        triton.Triton().advance(state, segment)
        seen.append((triton.Triton().lost(state) < 0).all())

    run = general({"model": M.DiagonalLinear(D)} | fields, backend="triton")
    assert 0 < tuned.seconds(Work(run), 5, (4, 1), launch) < 60
    assert seen == [True] * (1 + tuned.REPEATS)
