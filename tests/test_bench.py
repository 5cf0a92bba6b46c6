"""Checks the benchmark's protocol: a wrong answer is refused, a missing provider is named, tables follow the rows."""

from contextlib import ExitStack
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from tiers import some

import fastsgd as fs
from bench import cases, energy, flows, harness, load, own, plots, report, rows, suite
from bench.__main__ import measure
from bench.peak import Absent
from bench.worker import Worker

N = 16
CASES = ("diagonal", "relu2-batch", "S2", "S9")  # batch 1, minibatch, full batch in float64, two hidden layers


class InProcess:
    """A process that is none: requests go straight to a worker; `spoil` changes its answers."""

    def __init__(self, provider="fastsgd", spoil=None):
        self.worker, self.spoil, self.asked = Worker(provider), spoil, []

    def ask(self, verb, *arguments):
        self.asked.append(verb)
        out = getattr(self.worker, verb)(*arguments)
        return self.spoil(out) if self.spoil and verb == "answer" else out


@cache
def truth(key, n):
    """The answer of a case, made once."""
    return cases.CASES[key].truth(n)


def admitted(process, case):
    side = harness.Side("fastsgd", process, case, N)
    return harness.admit([side], truth(case.key, N), target=0.002)


def one_step_further(case):
    """An answer in which one network saw one other sample at one step, or of full batches took one step too many."""
    if case.batch is None:
        return fs.train(case.run(N, cases.CHECK_STEPS + 1)).weights
    order = case.order(N, cases.CHECK_STEPS)
    order[3, 20] = (order[3, 20] + 1) % case.data.n
    return fs.train(case.run(N, cases.CHECK_STEPS, order=fs.orders.Replay(order))).weights


@pytest.mark.parametrize("name", CASES)
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


PROVIDERS = ("steps", "numpy-loop", "torch-naive", "torch-batched", "torch-vmap", "modelbatch", "jax", "numba")


@pytest.mark.parametrize(("name", "provider"), [
    case for provider in PROVIDERS
    for case in some([(name, provider) for name in CASES], 3 if provider == "jax" else 1)])
def test_opponents_are_given_the_same_draws_and_have_the_same_answer(name, provider):
    """Every variant of every opponent that is installed here; what is missing is a gap with a reason."""
    case = cases.CASES[name]
    try:
        process = InProcess(provider)
    except (Absent, ImportError) as reason:
        pytest.skip(str(reason))
    side = harness.Side(provider, process, case, 4)
    facts = process.ask("hello")
    assert facts["checked"] and facts["versions"]
    want, who = truth(name, 4), case.checked(4)
    n = min(4, facts["most_networks"] or 4)
    for variant in process.ask("variants", side.case.key):
        answer = process.ask("answer", case.key, n, variant, {})
        assert harness.error_of(answer, want[:n], case.start(4)[who][:n]) < case.tolerance


@pytest.mark.parametrize("name", ("own-sine", "own-focal"))
def test_own_networks_and_losses_have_their_opponents_answer(name):
    case = own.CASES[name]
    want = case.truth(4)
    for provider in ("fastsgd", "torch-vmap"):
        process = InProcess(provider)
        answer = process.ask("answer", case.key, 4, process.ask("variants", case.key)[0], {})
        assert harness.error_of(answer, want, case.start(4)) < case.tolerance


def test_own_networks_are_held_against_their_twins(monkeypatch):
    class Started(dict):
        cores = 1

        def __missing__(self, provider):
            self[provider] = InProcess(provider)
            return self[provider]

    monkeypatch.setitem(own.CASES, "own-2-20-1", replace(own.CASES["own-2-20-1"], N=8,
                                                         twin=replace(own.CASES["own-2-20-1"].twin, N=8)))
    settings = suite.Settings(rounds=2, best_of=1, target=0.002, opponents=("torch-vmap",))
    said = []
    made = list(own.against_torch("own-2-20-1", Started(), settings, said.append))
    assert [row["provider"] for row in made if row["metric"] == "own ratio"] == ["torch-vmap", "built in"]
    assert all(row["metric"] != "gap" for row in made) and any("goal 0.9" in text for text in said)
    assert "2-20-1, traced | 8 |" in report.traced(made)


def test_opponents_that_cannot_run_here_say_why():
    with pytest.raises(Absent, match="CUDA"):
        Worker("fastsgd-cuda")
    with pytest.raises(Absent, match="CUDA"):
        Worker("torch-graphs")


def test_what_time_does_not_allow_is_a_gap():
    settings = suite.Settings(budget=-1.0, opponents=())
    made = list(suite.whole(settings, lambda text: None, ("speed", "rank", "systems", "curves")))
    assert made and {row["metric"] for row in made} == {"gap"} and "budget" in made[0]["unit"]
    assert {row["case"] for row in made} >= {*cases.CASES, "N", "width"}


def test_what_matters_first_comes_first():
    settings = suite.Settings(budget=-1.0, opponents=())
    made = list(suite.whole(settings, lambda text: None))
    assert [row["provider"] for row in made][:len(settings.cases)] == ["speed"] * len(settings.cases)


def measured(monkeypatch, capsys, made):
    """(exit status, what was printed) of a measurement that makes these rows."""
    monkeypatch.setattr(suite, "whole", lambda *_: iter(made))
    monkeypatch.setattr(load, "before", lambda: "before: idle")
    return measure(quick=True), capsys.readouterr().out


def test_gaps_are_listed_at_the_end_and_told_by_the_exit_status(monkeypatch, capsys):
    done = rows.row(2, "diagonal", "fastsgd", "rate", "1/s", harness.Band.of([1.0]), 1, 1)
    late = rows.gap(2, "relu2", "speed", "the budget of 85 s was used up")
    chosen = rows.gap(2, "relu2", "jax", "Gap: Absent: no jax", expected=True)
    status, text = measured(monkeypatch, capsys, [done, late, chosen])
    assert status == 1 and "Not measured (1 of these" in text and "1 MISSING" in text
    assert text.index("the budget of 85 s") > text.index("before: idle") and "no jax" in text
    status, text = measured(monkeypatch, capsys, [done, chosen])
    assert status == 0 and "no jax" in text and "MISSING" not in text
    status, text = measured(monkeypatch, capsys, [done])
    assert status == 0 and "Not measured" not in text


def test_unknown_parts_are_refused_with_the_legal_names(nothing_runs):
    with pytest.raises(fs.SpecError, match=r"'nonsense' given, legal are speed, rank, sparsity"):
        measure(quick=True, only=["speed", "nonsense"])


def test_a_busy_machine_is_called_busy():
    assert "BUSY" in load.sentence(0.5, "before") and "50 %" in load.sentence(0.5, "before")
    assert "BUSY" not in load.sentence(0.01, "before") and "does not say" in load.sentence(None, "before")
    others = load.Others()
    sum(range(10**6))
    assert others.share() is None or 0 <= others.share() <= 1


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
    flops = {name: case.flops for name, case in cases.CASES.items()}
    assert flops["diagonal"] == 240 and flops["relu2"] == 4600 and flops["diagonal-batch"] == 8 * 240
    assert flops["S2"] == 40 * 800 and flops["S7"] == 4 * 60 + 20
    assert flops["S9"] == 4 * (50 + 100 + 10) + 200 + 10 + 20


def test_smoke_of_a_whole_measurement(tmp_path):
    """fastsgd and the ceilings through real processes, PyTorch batched; rows and tables; a provider that is none."""
    settings = suite.Settings(rounds=2, best_of=1, target=0.002, opponents=("torch-batched", "no-such-thing"))
    case = replace(cases.CASES["relu2"], N=N)
    made = []
    with ExitStack() as stack:
        start = harness.Starter(1, stack)
        start.running["torch-batched"] = InProcess("torch-batched")  # a process would import torch again
        made += suite.against_opponents(case, start, settings, lambda text: None)
        made += suite.lost_runs(case, start, settings, lambda text: None)
    shared = rows.conditions()
    rows.append([shared | row for row in made], tmp_path / "rows.csv")
    back = rows.read(tmp_path / "rows.csv")
    assert len(back) == len(made) and list(back[0]) == list(rows.COLUMNS)
    metrics = {(row["provider"], row["metric"]) for row in back}
    assert {("fastsgd", "rate"), ("torch-batched", "speed ratio"), ("no-such-thing", "gap"),
            ("fma-peak", "share of peak"), ("fastsgd", "expected / measured"),
            ("team", "half lost / none lost")} <= metrics
    text = report.whole(report.newest(back))
    for part in ("no-such-thing", "torch batched", shared["machine"], "### Where we are slower" if any(
            row["metric"] == "speed ratio" and float(row["high"]) < 1 for row in back) else "### Goals"):
        assert part in text


def line(metric, provider, band, case="diagonal", T=8, cores=1, **facts):
    return rows.row(cores, case, provider, metric, "x", band, 8, T, error=1e-6, versions=facts)


def test_report_takes_the_newest_rows_and_keeps_the_rest_of_the_page(tmp_path):
    shared = rows.conditions()
    bands = {"2020-01-01T00:00Z": harness.Band(7.0, 6.0, 8.0), "2021-01-01T00:00Z": harness.Band(11.0, 10.5, 12.0)}
    for date, band in bands.items():
        made = [line("rate", "fastsgd", band), line("speed ratio", "jax", band, possible=16.0)]
        rows.append([shared | {"date": date} | row for row in made], tmp_path / "rows.csv")
    page = tmp_path / "README.md"
    page.write_text(f"before\n{report.BEGIN}\nformer text\n{report.END}\nafter\n")
    unmarked = tmp_path / "OTHER.md"
    unmarked.write_text("untouched\n")
    read = rows.read(tmp_path / "rows.csv")
    pages = [page, unmarked, tmp_path / "absent.md"]
    assert report.rewrite(read, pages, plots=False) == [page]
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "former text" not in text
    assert "11 (10.5 .. 12) | 10 | yes | 16" in text and "2020" not in text
    assert report.rewrite(read, pages, plots=False) == [] and unmarked.read_text() == "untouched\n"


def test_what_had_no_time_may_be_measured_apart():
    """Runs of one day on one machine are one: newer rows stand for older ones, and fill their gaps."""
    shared, band, day = rows.conditions(), harness.Band(7.0, 6.0, 8.0), "2020-01-02"
    first = [line("speed ratio", "jax", band), line("rate", "fastsgd", band), rows.gap(1, "relu", "own", "no time"),
             rows.gap(2, "relu", "own", "no time"), rows.gap(2, "N", "curves", "no time")]
    second = [line("speed ratio", "jax", band, T=16), line("own ratio", "built in", band, case="relu"),
              line("curve N", "jax", band, case="d=30, N=1", cores=2)]
    made = [shared | {"date": date} | row for date, part in ((day + "T01:00Z", first), (day + "T02:00Z", second))
            for row in part]
    found = report.newest([*made, shared | {"date": "2020-01-01T03:00Z"} | line("rate", "numba", band)])
    assert [(row["date"][11:13], row["metric"], row["cores"]) for row in found] == [
        ("01", "rate", 1), ("01", "gap", 2), ("02", "speed ratio", 1), ("02", "own ratio", 1), ("02", "curve N", 2)]


def test_the_rows_of_earlier_versions_can_be_read():
    assert report.whole(report.newest(rows.read())) and report.summary(report.newest(rows.read()))


def test_claim_needs_its_whole_band():
    shared = rows.conditions()
    assert "| no |" in report.claims([shared | line("speed ratio", "jax", harness.Band(15.0, 9.9, 20.0))])


def test_where_we_are_slower_the_table_says_so():
    shared = rows.conditions()
    made = [shared | line("rate", "fastsgd", harness.Band(1e6, 1e6, 1e6), case="S2"),
            shared | line("speed ratio", "jax", harness.Band(0.8, 0.7, 0.9), case="S2"),
            shared | line("speed ratio", "numba", harness.Band(1.1, 0.9, 1.2), case="S2"),
            shared | line("one network ratio", "numpy-loop", harness.Band(0.2, 0.1, 0.3), T=10),
            shared | line("curve N", "fastsgd", harness.Band(7.0, 6.0, 8.0)) | {"N": 1},
            shared | line("curve N", "numba", harness.Band(10.0, 9.0, 11.0)) | {"N": 1},
            shared | line("curve N", "jax", harness.Band(10.0, 7.0, 11.0)) | {"N": 1}]
    text = report.opponents(made)
    assert "| **0.8** |" in text and "≈ 1.1" in text
    slow = report.slower(made)
    assert slow.count("\n") == 4 and "JAX" in slow and "fixed part" in slow  # head, rule, three lines
    assert "0.7 (0.545 .. 0.889) | one network's steps wait" in slow


def test_plots_have_a_point_for_every_row(tmp_path):
    pytest.importorskip("matplotlib")
    shared = rows.conditions()
    made = [shared | line("curve N", who, harness.Band(10.0 * at, 9.0 * at, 11.0 * at), at=at)
            for who in ("fastsgd", "jax") for at in (1, 10)]
    assert plots.draw(made, tmp_path) == [tmp_path / "bench_N.png"]
    assert (tmp_path / "bench_N.png").stat().st_size > 10_000


def test_energy_is_read_or_its_absence_named(tmp_path):
    meter = energy.Meter(tmp_path / "none")
    assert "no counter" in meter.why_not
    (tmp_path / "intel-rapl:0").mkdir()
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    counter.write_text("1000000")

    class Side:
        name, N, T = "fastsgd", 10, 5

        def measure(self, best_of):
            counter.write_text("3500000")

    meter = energy.Meter(tmp_path)
    meter.around(Side(), 2)
    assert meter.why_not is None and meter.of(Side()) == [(2.5, 100)]


def test_rows_have_a_commit_where_there_is_no_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("FASTSGD_COMMIT", raising=False)
    assert rows.conditions()["commit"] == "none"
    monkeypatch.setenv("FASTSGD_COMMIT", "abcdef1")
    assert rows.conditions()["commit"] == "abcdef1"


def test_gradient_flow_is_held_against_scipy(monkeypatch):
    """Answers are checked first; every side solves the same networks to the same tolerance."""
    monkeypatch.setattr(flows, "NETWORKS", 8)
    monkeypatch.setitem(flows.CASES, "flow-diagonal", replace(flows.CASES["flow-diagonal"], time=0.5))
    case = flows.CASES["flow-diagonal"]
    out = flows.flows("flow-diagonal", 2, 1e-4)
    assert list(out) == ["fastsgd", "solve_ivp DOP853", "solve_ivp RK45", "solve_ivp RK45, stacked"]
    assert all(seen["error"] < 1e-4 and len(seen["seconds"]) == 2 for seen in out.values())
    monkeypatch.setattr(suite, "fresh", lambda cores, function, *given: out)
    said = []
    made = list(suite.gradient_flow("flow-diagonal", 1, suite.QUICK, said.append))
    assert [row["metric"] for row in made] == ["flow rate"] + 3 * ["flow rate", "flow ratio"] + ["expected / measured"]
    assert any("flow ratio" in text for text in said)
    text = report.flow([row | {"cores": "1"} for row in made])
    assert case.title in text and "solve_ivp DOP853" in text and "rtol 1e-06" in text


@pytest.mark.parametrize("name", flows.CASES)
def test_gradients_for_scipy_are_those_of_the_mean_loss(name):
    case = flows.CASES[name]
    w = case.starts[:3] + 0.1
    want = []
    for one in w:
        params = {part: torch.tensor(a[0], requires_grad=True) for part, a in case.model.unflatten(one[None]).items()}
        h = case.model.forward(params, torch.tensor(case.data.X))
        (0.5 * (h - torch.tensor(case.data.y)) ** 2).mean().backward()
        want.append(np.concatenate([a.grad.numpy().ravel() for a in params.values()]))
    np.testing.assert_allclose(case.gradient(w), want, rtol=1e-10, atol=1e-12)


def test_wrong_flows_are_not_timed(monkeypatch):
    monkeypatch.setattr(flows, "NETWORKS", 8)
    case = replace(flows.CASES["flow-diagonal"], time=0.5)
    monkeypatch.setitem(flows.CASES, "flow-diagonal", case)
    right = flows.FlowCase.gradient
    monkeypatch.setattr(flows.FlowCase, "gradient", lambda self, w: 1.01 * right(self, w))
    with pytest.raises(harness.WrongAnswer, match="relative error"):
        flows.flows("flow-diagonal", 1, 1e-4)
