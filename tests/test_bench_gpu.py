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


def test_a_launch_a_step_does_the_same_steps(fiber_card):
    system = gpu.systems()["ReLU 2-20-1"]
    seconds, before = gpu.one_step_a_launch(system, 5, gpu.start_of(system, 5)), len(fiber_card.launches)
    assert seconds(13) > 0 and len(fiber_card.launches) == before + 13
    want = fs.train(gpu.run_of(system, 5, 13, backend="cpu")).weights
    assert gpu.backends.by_name("cuda").read(seconds.holds[0])[0].tobytes() == want.tobytes()


def test_training_is_timed_not_what_comes_before_it(monkeypatch):
    system, start = gpu.systems()["ReLU 2-20-1"], type(gpu.systems()["ReLU 2-20-1"][0]).start
    given = gpu.start_of(system, 5)
    monkeypatch.setattr(type(system[0]), "start", lambda *_: 1 / 0)
    assert gpu.fused(system, 5, given)(64) >= 0
    monkeypatch.setattr(type(system[0]), "start", start)
    calls = []
    assert gpu.fitted(lambda T: calls.append(T) or 1e-3 * T, 10**4, 1.0) == 1000 and calls == [64, 64, 1000]
    assert gpu.fitted(lambda T: 1e-6 * T, 200, 1.0) == 200


def test_rows_are_written_with_the_card_and_gaps_are_named(tmp_path, capsys):
    path = tmp_path / "new folder" / "gpu.csv"
    gpu.main(["--networks", "3", "--target", "0.001", "--rounds", "2", "--large", "4", "50", "--rows", str(path)])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["card"] for row in rows} == {"fibers"} and all(float(row["median"]) > 0 for row in rows)
    sides = {row["side"].removeprefix("fastsgd, ") for row in rows}
    assert {"one launch", "a launch a step", "one run", "one run, training", "as planned"} <= sides
    assert {"1 thread(s) a network", "32 thread(s) a network"} <= sides
    assert "JAX jit(vmap(scan))" in sides or "JAX jit(vmap(scan)) is a gap" in capsys.readouterr().out
    assert rows[0]["side"] == "fastsgd, one run" and rows[2]["what"] == "ranks/s"  # what matters most comes first


def test_what_is_kept_when_a_benchmark_is_cut(tmp_path, monkeypatch):
    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu, "throughput", cut)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(["--networks", "3", "--rounds", "2", "--large", "4", "50", "--rows", str(tmp_path / "gpu.csv")])
    with (tmp_path / "gpu.csv").open() as file:
        assert [row["what"] for row in csv.DictReader(file)] == ["seconds", "seconds", "ranks/s"]


def test_a_wrong_answer_is_not_timed(tmp_path, monkeypatch, capsys):
    train = fs.train

    def wrong(run, **fields):
        result = train(run, **fields)
        if run.backend == "cuda":
            result.weights[-1] = np.nextafter(result.weights[-1], 1)
        return result

    monkeypatch.setattr(gpu.fs, "train", wrong)
    with pytest.raises(WrongAnswer, match="1 of 64"):
        list(gpu.throughput("diagonal d=30", gpu.systems()["diagonal d=30"], 3, 0.001, 2, print))
    path = tmp_path / "gpu.csv"
    with pytest.raises(SystemExit, match=r"not measured: the large run, diagonal d=30 N=3, ReLU 2-20-1 N=3, diag.*mom"):
        gpu.main(["--networks", "3", "--rounds", "2", "--large", "4", "50", "--rows", str(path)])
    assert "1 of 64 networks differ" in capsys.readouterr().out and path.read_text().count("ranks/s") == 1
