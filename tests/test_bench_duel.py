"""Benchmarks for others: one case and one opponent, an opponent of one's own, two files of rows beside each other."""

import sys
from contextlib import ExitStack
from dataclasses import replace

import pytest

import fastsgd as fs
from bench import cases, compare, duel, harness, opponents, rows, suite
from bench.__main__ import meet
from bench.worker import Worker
from fastsgd import cli

OWN = '''
from bench.opponents import Fastsgd
from bench.peak import Absent

class Twin(Fastsgd):
    name = "twin"

class Wrong(Fastsgd):
    name = "wrong"
    def answer(self, out, case):
        return 1.01 * out.weights

class Silent:
    def __init__(self, cores):
        pass

class Lacking(Fastsgd):
    def __init__(self, cores):
        raise Absent("a licence is missing")
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module with opponents, beside the caller."""
    (tmp_path / "own_opponents.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_opponents", raising=False)
    return tmp_path


class Here(dict):
    """A Starter whose workers are in this process."""

    cores = 1

    def __missing__(self, name):
        worker = Worker(name)

        class Process:
            def ask(self, verb, *arguments):
                return getattr(worker, verb)(*arguments)

        self[name] = Process()
        return self[name]


def test_an_opponent_of_ones_own_is_checked_like_any_other(own, monkeypatch):
    names = ("own_opponents:Twin", "own_opponents:Wrong")
    settings = duel.chosen(["S7"], names, quick=True)
    assert settings.cases == ("S7",) and settings.opponents == names
    made = list(suite.against_opponents(replace(cases.CASES["S7"], N=16), Here(), suite.Settings(
        rounds=2, best_of=1, target=0.002, cases=("S7",), opponents=names), lambda text: None))
    kinds = {(row["provider"], row["metric"]): row for row in made}
    assert ("own_opponents:Twin", "speed ratio") in kinds and ("own_opponents:Wrong", "rate") not in kinds
    assert "WrongAnswer" in kinds["own_opponents:Wrong", "gap"]["unit"]


@pytest.mark.parametrize(("names", "against", "words"), [
    (["S77"], ["jax"], "case: 'S77' given"), (["S1"], ["jaxx"], "did you mean 'jax'"),
    (None, ["no_such_module:A"], "opponent: 'no_such_module:A' given"),
    (None, ["own_opponents:No"], "no attribute 'No'"),
    (None, ["own_opponents:Silent"], "no prepare and no answer"), (None, ["own_opponents:Lacking"], "licence")])
def test_names_that_there_are_not(own, names, against, words):
    with pytest.raises(fs.SpecError, match=words):
        duel.chosen(names, against)


def test_the_whole_way_with_processes(own, capsys):
    path = own / "rows.csv"
    assert meet(["S7"], ["own_opponents:Twin"], quick=True, path=path) == 0
    said = capsys.readouterr().out
    assert "speed ratio, own_opponents:Twin" in said and "other processes" in said.splitlines()[-2]
    assert {row["provider"] for row in rows.read(path)} >= {"fastsgd", "own_opponents:Twin"}
    table = compare.text(path, path)
    assert table.startswith("A: ") and "\nB: " in table and " 1 ~" in table


def test_two_files_beside_each_other(tmp_path):
    def file(name, rate, case="S1", date="2026-01-01T00:00Z"):
        band = harness.Band(rate, 0.99 * rate, 1.01 * rate)
        made = {"date": date, "commit": "c", "machine": f"machine {name}", "isa": "x86-64-v3"}
        rows.append([made | rows.row(2, case, "fastsgd", "rate", "network-steps/s", band, 4, 5),
                     made | rows.row(2, case, "jax", "gap", "absent", None)], tmp_path / name)

    file("a.csv", 1e6)
    file("a.csv", 9e9, date="2025-01-01T00:00Z")  # an older run of the same file
    file("b.csv", 2e6)
    file("b.csv", 3e6, case="S2")
    text = compare.text(tmp_path / "a.csv", tmp_path / "b.csv")
    assert "machine a.csv" in text and "machine b.csv" in text and "~" not in text
    assert next(line for line in text.splitlines() if line.startswith("S1")).split()[-3:] == ["1e+06", "2e+06", "2"]
    assert "in B alone: S2 fastsgd" in text
    for bad in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(fs.SpecError, match="compare"):
            compare.text(tmp_path / "a.csv", bad)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(fs.SpecError, match="no rows"):
        compare.text(tmp_path / "a.csv", tmp_path / "x.csv")


def test_the_command_hands_on_what_it_is_told(monkeypatch, tmp_path, capsys):
    from bench import __main__ as program

    asked = []
    monkeypatch.setattr(program, "meet", lambda *given: asked.append(given) or 0)
    monkeypatch.setattr(program, "compared", lambda *given: f"compared {given[0].name} {given[1].name}")
    monkeypatch.setattr(sys, "path", list(sys.path))
    for words in (["--case", "S1", "--against", "jax"], ["--compare", "a.csv", "b.csv"], ["--case", "S1"]):
        monkeypatch.setattr("sys.argv", ["fastsgd", "bench", *words])
        with pytest.raises(SystemExit) as status:
            cli.main()
            raise SystemExit(0)
        _, err = capsys.readouterr()
        assert (status.value.code or 0) == (2 if words == ["--case", "S1"] else 0), err
    assert asked == [(["S1"], ["jax"], False, None)] and "--against NAME" in err


def test_providers_by_the_name_of_their_class(own):
    assert opponents.provider("own_opponents:Twin").name == "twin"
    with ExitStack() as stack, pytest.raises(harness.Gap, match="no_such_module"):
        harness.Starter(1, stack)["no_such_module:A"].ask("hello")
