"""Checks the benchmark's protocol: a wrong answer is refused, a missing provider is named, tables follow the rows."""

import numpy as np
import pytest

import fastsgd as fs
from bench import cases, harness, report, rows, suite
from bench.worker import Worker

N = 16


class InProcess:
    """A process that is none: requests go straight to a worker; `spoil` changes its answers."""

    def __init__(self, provider="fastsgd", spoil=None):
        self.worker, self.spoil, self.asked = Worker(provider), spoil, []

    def ask(self, verb, *arguments):
        self.asked.append(verb)
        out = getattr(self.worker, verb)(*arguments)
        return self.spoil(out) if self.spoil and verb == "answer" else out


def admitted(process, case):
    side = harness.Side("fastsgd", process, case, N)
    return harness.admit([side], case.truth(N), target=0.002)


def one_step_further(case):
    """An answer in which one network saw one other sample at one step."""
    order = case.order(N, cases.CHECK_STEPS)
    order[3, 20] = (order[3, 20] + 1) % case.data.n
    return fs.train(case.run(N, cases.CHECK_STEPS, order=fs.orders.Replay(order))).weights


@pytest.mark.parametrize("name", cases.CASES)
def test_wrong_answers_are_refused_and_not_timed(name):
    case = cases.CASES[name]

    def bump(w):
        w = w.copy()
        w[5] += 0.01 * (w[5] - case.start(N)[5])
        return w

    spoils = {"1 % of one network": bump, "not finite": lambda w: w * np.nan, "nothing done": lambda w: case.start(N),
              "one draw": lambda w: one_step_further(case), "a network short": lambda w: w[1:]}
    for what, spoil in spoils.items():
        process = InProcess(spoil=spoil)
        ready, gaps = admitted(process, case)
        assert not ready and "WrongAnswer" in gaps["fastsgd"], what
        assert "fit" not in process.asked and "measure" not in process.asked, what


@pytest.mark.parametrize("name", cases.CASES)
def test_right_answer_is_timed(name):
    process = InProcess()
    ready, gaps = admitted(process, cases.CASES[name])
    assert not gaps and ready[0].error < cases.CASES[name].tolerance / 5
    harness.interleave(ready, rounds=2, best_of=1)
    assert len(ready[0].rates) == 2 and min(ready[0].rates) > 0


def test_order_of_sides_alternates():
    calls = []

    class Stub:
        def __init__(self, name):
            self.measure = lambda best_of: calls.append(name)

    harness.interleave([Stub("a"), Stub("b")], rounds=2, best_of=1, pause=0)
    assert calls == ["a", "b", "b", "a"]
    with pytest.raises(ValueError, match="even"):
        harness.interleave([], rounds=3, best_of=1)


def test_flops_count_the_algorithm():
    assert cases.CASES["diagonal"].flops == 240 and cases.CASES["relu2"].flops == 4600


def test_smoke_of_a_whole_measurement(tmp_path):
    """fastsgd, PyTorch batched and the ceilings through real processes, rows and tables; a provider that is none."""
    settings = suite.Settings(N=N, rounds=2, best_of=1, target=0.002, opponents=("torch-batched", "no-such-thing"))
    said, made = [], []
    with suite.ExitStack() as stack:
        start = suite.Starter(1, stack)
        made += suite.against_opponents(cases.CASES["relu2"], start, settings, said.append)
        made += suite.lost_runs(cases.CASES["diagonal"], start, settings, said.append)
    shared = rows.conditions()
    rows.append([shared | row for row in made], tmp_path / "rows.csv")
    back = rows.read(tmp_path / "rows.csv")
    assert len(back) == len(made) and list(back[0]) == list(rows.COLUMNS)
    metrics = {(row["provider"], row["metric"]) for row in back}
    assert {("fastsgd", "rate"), ("torch-batched", "speed ratio"), ("no-such-thing", "gap"),
            ("team", "half lost / none lost")} <= metrics
    text = report.tables(report.newest(back))
    assert "no-such-thing" in text and "PyTorch batched" in text and shared["machine"] in text


def test_report_takes_the_newest_rows_and_keeps_the_rest_of_the_page(tmp_path):
    case, shared = "diagonal", rows.conditions()
    bands = {"2020-01-01T00:00Z": harness.Band(7.0, 6.0, 8.0), "2021-01-01T00:00Z": harness.Band(11.0, 10.5, 12.0)}
    for date, band in bands.items():
        line = rows.row(1, case, "jax", "speed ratio", "x", band, 8, 8, error=1e-6, versions={"possible": 16.0})
        rows.append([shared | {"date": date} | line], tmp_path / "rows.csv")
    page = tmp_path / "README.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    unmarked = tmp_path / "OTHER.md"
    unmarked.write_text("untouched\n")
    newest = rows.read(tmp_path / "rows.csv")
    assert report.rewrite(newest, [page, unmarked, tmp_path / "absent.md"]) == [page]
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "11 (10.5 .. 12) | 10 | yes | 16" in text and "2020" not in text
    assert report.rewrite(newest, [page]) == [] and unmarked.read_text() == "untouched\n"


def test_claim_needs_its_whole_band():
    line = rows.row(1, "diagonal", "jax", "speed ratio", "x", harness.Band(15.0, 9.9, 20.0), 8, 8)
    assert "| no |" in report.tables([rows.conditions() | line])
