"""The one command for a card, rehearsed with fibers: parts, boxes, rows; a wrong answer is told and not timed."""

import csv
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import fibers
import numpy as np
import pytest
from tiers import long

import fastsgd as fs
from bench import card
from bench.card import __main__ as command
from bench.card import bits, kit, speed
from fastsgd.cuda import card as cards

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(cards.why_none() is None, reason="this machine has a card: `make gpu`")


@pytest.fixture
def rehearsed(fiber_card, monkeypatch):
    """This process does what a rehearsal does."""
    for module in (card, speed):
        monkeypatch.setattr(module, "REHEARSAL", str(fiber_card.folder))
    with fibers.in_place(fiber_card):
        yield fiber_card


def rehearse(folder, tmp_path, *arguments, **surroundings):
    """(exit status, summary, rows) of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.card", "--logs", tmp_path / "logs", "--rows", tmp_path / "rows.csv", *arguments],
        cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "REHEARSAL": str(folder)} | surroundings)
    path = tmp_path / "rows.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    return done.returncode, (tmp_path / "logs" / "summary.txt").read_text(), rows


@pytest.mark.parametrize("parts", ["smoke,whole,ranks", long("smoke,kernels,whole,ranks,steps,torch")])
def test_a_rehearsal_does_its_parts_and_keeps_its_rows(parts, fiber_card, tmp_path):
    code, summary, rows = rehearse(fiber_card.folder, tmp_path, "--only", parts)
    assert code == 0 and "done; not right: nothing" in summary, summary
    assert [line.split("] ")[1].partition(":")[0] for line in summary.splitlines()[:-1]] == [
        "environment", *parts.split(",")]
    assert {row["card"] for row in rows} == {"a rehearsal with fibers"} and all(float(row["value"]) > 0 for row in rows)
    assert {row["case"].removesuffix(", momentum") for row in rows} == {
        "diagonal d=30", "ReLU 2-20-1, J 60x60", *["ReLU 2-20-1"] * ("kernels" in parts)}
    sides = {"whole": {"whole call"}, "ranks": {"metric"}, "kernels": {"kernel"}, "steps": {"a launch a step"},
             "torch": {"torch batched by hand"}}
    assert {row["side"].partition(",")[0] for row in rows} == set().union(
        *(sides.get(part, ()) for part in parts.split(",")))


def test_a_part_that_takes_too_long_is_ended_and_the_next_begins(tmp_path):
    options = Namespace(logs=tmp_path / "logs", rows=tmp_path / "rows.csv", kit=None, limit=60, only="")
    visit = command.Visit(options)
    slow = command.Job(visit, "slow", [sys.executable, "-c", "import time; time.sleep(99)"], 5)
    slow.box = 1
    wrong = command.Job(visit, "wrong", [sys.executable, "-c", "print('WRONG 7'); raise SystemExit(1)"], 30)
    visit.wait(slow, wrong)
    assert visit.failed == ["wrong", "slow"] and slow.child.returncode == -9
    assert "slow: its time was over" in visit.summary[1] and "WRONG 7" in visit.summary[0]


def test_wrong_bits_are_told_and_not_timed(rehearsed, monkeypatch, capsys, tmp_path):
    train = fs.train

    def wrong(run, **fields):
        result = train(run, **fields)
        if run.backend == "cuda":
            result.weights[-1] = np.nextafter(result.weights[-1], 1)
        return result

    monkeypatch.setattr(fs, "train", wrong)
    monkeypatch.setenv("CARD_ROWS", str(tmp_path / "rows.csv"))
    monkeypatch.setattr(bits, "_truth", {})
    with pytest.raises(SystemExit):
        bits.main("smoke")
    speed.attempt(speed.kernel, "d=30", card.run_of(card.systems()["diagonal d=30"], 64, 64))
    said = capsys.readouterr().out
    assert said.count("WRONG") == 3 and "1 of 64 networks differ, the first is 63" in said
    assert "GAP kernel(d=30" in said and not (tmp_path / "rows.csv").exists()


def test_rates_count_the_steps_that_were_done(rehearsed, monkeypatch, capsys, tmp_path):
    """Of 64 networks 32 are lost: the rate is that of the others."""
    monkeypatch.setenv("CARD_ROWS", str(tmp_path / "rows.csv"))
    monkeypatch.setattr(speed, "seconds_of", lambda held, repeats=5: held() or [2.0])
    system = card.systems()["diagonal d=30"]
    step = np.where(np.arange(64) % 2, 30.0, system[2])
    speed.kernel("half", card.run_of(system, 64, 64, step_size=step))
    (row,) = csv.DictReader((tmp_path / "rows.csv").open())
    assert float(row["value"]) == 32 * 64 / 2.0 and row["notes"].startswith("32 lost")


def test_a_kit_has_the_programs_that_the_parts_ask_for(rehearsed):
    known = {program.key for program in kit.programs()}
    for name, given in speed.all_shapes().items():
        run = card.run_of(card.random_system(*given), 1, 8)
        program = kit.layout.choose(kit.Work(run), 300_000, kit.Recorder(), fs.Tuning()).program
        assert program.key in known, name
    assert len(known) > 60
