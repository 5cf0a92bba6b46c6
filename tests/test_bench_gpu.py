"""The benchmark of a card, run with fibers: every side does what it says, a wrong answer is not timed."""

import csv

import fibers
import numpy as np
import pytest

import fastsgd as fs
from bench import gpu
from bench.harness import WrongAnswer
from fastsgd.cuda import card as cards

pytestmark = pytest.mark.skipif(cards.why_none() is None, reason="this machine has a card: `python -m bench.gpu`")


@pytest.fixture(autouse=True)
def in_place(fiber_card):
    with fibers.in_place(fiber_card):
        yield fiber_card


def test_a_launch_a_step_does_the_same_steps(fiber_card, monkeypatch):
    system, states = gpu.systems()["ReLU 2-20-1"], []
    cuda = gpu.backends.by_name("cuda")
    load = type(cuda).load
    monkeypatch.setattr(type(cuda), "load", lambda *given: states.append(load(*given)) or states[-1])
    before = len(fiber_card.launches)
    assert gpu.one_step_a_launch(system, 5, 13) > 0 and len(fiber_card.launches) == before + 13
    want = fs.train(gpu.run_of(system, 5, 13, backend="cpu")).weights
    assert cuda.read(states[0])[0].tobytes() == want.tobytes()


def test_rows_are_written_with_the_card_and_gaps_are_named(tmp_path, capsys):
    gpu.main(["--networks", "3", "--target", "0.001", "--rounds", "2", "--large", "4", "50", "--rows",
              str(tmp_path / "gpu.csv")])
    with (tmp_path / "gpu.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["card"] for row in rows} == {"fibers"} and all(float(row["median"]) > 0 for row in rows)
    sides = {row["side"] for row in rows}
    assert {"fastsgd, one launch", "fastsgd, a launch a step", "fastsgd, one run"} <= sides
    assert "JAX jit(vmap(scan))" in sides or "JAX jit(vmap(scan)) is a gap" in capsys.readouterr().out


def test_a_wrong_answer_is_not_timed(monkeypatch):
    train = fs.train

    def wrong(run, **fields):
        result = train(run, **fields)
        if run.backend == "cuda":
            result.weights[3] = np.nextafter(result.weights[3], 1)
        return result

    monkeypatch.setattr(gpu.fs, "train", wrong)
    with pytest.raises(WrongAnswer, match="1 of 64"):
        list(gpu.throughput("diagonal d=30", gpu.systems()["diagonal d=30"], 3, 0.001, 2, print))
