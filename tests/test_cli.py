"""The command line: every command, and errors as one line and status 2."""

import contextlib
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastsgd as fs
from fastsgd import calibrate, cli, config
from fastsgd.spec import codec

CONFIG = """
steps = 200
networks = 12
dtype = "float64"
metrics = [{type = "TrainLoss"}, {type = "JacobianRank", rtol = 1e-4}, {type = "FeatureSparsity"}]
model = {type = "ReLU2", d = 2, width = 20, hidden_bias = false, output_bias = false}
data = {type = "teacher_student", n = 15, d = 2, teacher_width = 3, n_test = 100}
rule = {type = "SGD", batch_size = 1}
order = {type = "Common", network = 3}
step_size = {base = 0.1, decay_at = 0.5, decay_by = 4.0, warmup = {factor = 2.0}}
save = {linear = 5}
"""


def script(*arguments):
    """Run the console script in a process of its own; returns (status, stdout, stderr)."""
    path = Path(sys.executable).with_name("fastsgd")
    done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def fastsgd(*arguments):
    """Do what the console script does, in this process; returns (status, stdout, stderr)."""
    out, err, status, given = io.StringIO(), io.StringIO(), 0, sys.argv
    sys.argv = ["fastsgd", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("default")
            cli.main()
    except SystemExit as stop:
        status = stop.code or 0
    finally:
        sys.argv = given
    return status, out.getvalue(), err.getvalue()


@pytest.fixture
def toml(tmp_path):
    """A configuration file."""
    path = tmp_path / "run.toml"
    path.write_text(CONFIG)
    return path


def test_info():
    status, out, _ = script("info")
    assert status == 0 and "x86-64-v3: built" in out and "backend reference: ready" in out
    assert "backend triton: " in out


def test_plan_run_report(toml, tmp_path):
    status, out, _ = script("plan", toml)
    assert status == 0 and "N=12 networks" in out and "backend: cpu" in out
    result, ckpt = tmp_path / "r.npz", tmp_path / "c.ckpt"
    status, out, err = script("run", toml, "--out", result, "--checkpoint", ckpt)
    assert status == 0 and "train_loss" in out, err
    same = fs.train(config.read(toml))
    back = fs.Result.load(result)
    assert back.weights.tobytes() == same.weights.tobytes()
    status, report, _ = script("report", result)
    assert status == 0 and report.splitlines()[:2] == out.splitlines()[:2]


def test_reproduce(tmp_path):
    status, out, err = fastsgd("reproduce", "S7", "--replicas", 3, "--saved", 60, "--out", tmp_path)
    assert status == 0, err
    assert "of 3" in out and "1.354e-05" in out and "the small constant step fits" in out
    names = {path.name for path in tmp_path.iterdir()}
    runs = {f"S7_run{k}{orders}.npz" for k in (1, 2, 3, 4) for orders in ("", "_orders")}
    assert names == {"S7.txt", "S7.png"} | runs
    assert (tmp_path / "S7.png").stat().st_size > 20_000
    assert fs.Result.load(tmp_path / "S7_run2_orders.npz").numpy("rank").shape == (3, 64)


@pytest.mark.parametrize(("change", "field"), [
    (("steps = 200", "steps = -1"), "steps"), (("type = \"SGD\"", "type = \"SGDD\""), "rule.type"),
    (("base = 0.1", "bass = 0.1"), "step_size"), (("steps = 200", "stops = 200"), "stops"),
    (("d = 2, t", "d = 3, t"), "model.d"),
    (("[{type", "[{typo"), "metrics.type"), (("steps = 200", "steps == 200"), "no TOML"),
    (('type = "teacher_student", n', 'file = "none.npz", n'), "data.file")])
def test_errors_are_one_line_and_status_two(toml, change, field):
    toml.write_text(CONFIG.replace(*change))
    status, out, err = (script if field == "steps" else fastsgd)("plan", toml)
    assert status == 2 and field in err and err.count("\n") == 1 and not out


def test_data_from_a_file(toml, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", X=rng.standard_normal((9, 2)), y=rng.standard_normal(9))
    line = next(line for line in CONFIG.splitlines() if line.startswith("data"))
    rank = '{type = "JacobianRank", rtol = 1e-4}, '
    toml.write_text(CONFIG.replace(line, 'data = {file = "d.npz"}').replace(rank, ""))
    assert config.read(toml).data.n == 9 and fs.train(config.read(toml)).survived.all()


@pytest.mark.parametrize(("change", "line"), [
    (("steps = 200", "steps = -1"), 2), (("batch_size = 1", "batch_size = 0"), 8), (("base = 0.1", "base = -0.1"), 10),
    (("width = 20", "width = 0"), 6), (("linear = 5", "linear = -5"), 11), (("n = 15", "m = 15"), 7),
    (('type = "SGD"', 'type = "SDG"'), 8), (("steps = 200", "stpes = 200"), 2)])
def test_errors_name_the_line(toml, change, line):
    toml.write_text(CONFIG.replace(*change))
    with pytest.raises(fs.SpecError, match=rf"\(line {line} of '.*run.toml'\)$"):
        config.read(toml)


def test_a_result_that_is_there_stays_unless_forced(toml, tmp_path):
    out = tmp_path / "r.npz"
    out.write_text("mine")
    status, _, err = fastsgd("run", toml, "--out", out)
    assert status == 2 and "--force" in err and out.read_text() == "mine"
    status, _, err = fastsgd("run", toml, "--out", out, "--force", "--seed", 3, "--backend", "cpu")
    back = fs.Result.load(out)
    assert status == 0 and back.run.seed == 3 and back.run.backend == "cpu", err
    assert "run: 12 networks" in err


def test_commands_speak_json(toml, tmp_path):
    made = json.loads(fastsgd("plan", toml, "--json")[1])
    assert made["backend"] == "cpu" and made["networks"] == 12 and made["parameters"] == 60
    out = tmp_path / "r.npz"
    ran = json.loads(fastsgd("run", toml, "--out", out, "--json")[1])
    said = json.loads(fastsgd("report", out, "--json")[1])
    assert ran.pop("out") == str(out) and ran == said
    assert said["networks"] == 12 and set(said["records"]["train_loss"]) == {"10%", "50%", "90%"}
    assert json.loads(fastsgd("info", "--json")[1])["fastsgd"] == fs.__version__


def test_version_help_and_completion():
    assert script("--version")[1] == f"fastsgd {fs.__version__}\n"
    for command in ((), ("run",), ("plan",), ("report",), ("reproduce",), ("bench",), ("info",), ("sweep",),
                    ("sweep", "run"),
                    ("sweep", "work"), ("sweep", "plan"), ("sweep", "create"), ("sweep", "status"),
                    ("sweep", "preset")):
        status, out, _ = fastsgd(*command, "--help")
        lines = out.partition("Examples:\n")[2].strip().splitlines()
        assert status == 0 and lines, command
        for line in lines:
            assert line.strip().startswith("fastsgd "), f"{command}: {line!r} was wrapped"
    path = Path(sys.executable).with_name("fastsgd")
    done = subprocess.run([path], capture_output=True, text=True, env=os.environ | {
        "_FASTSGD_COMPLETE": "complete_bash", "COMP_WORDS": "fastsgd sw", "COMP_CWORD": "1"})
    assert done.stdout.split() == ["sweep"], done.stderr


def test_help_needs_nothing_heavy():
    code = ("import sys; from fastsgd import cli; "
            "print(sorted({'numpy', 'torch', 'rich', 'matplotlib', 'xarray'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_unknown_system():
    status, _, err = fastsgd("reproduce", "S99")
    assert status == 2 and "S99" in err and "S1" in err


def test_noises_schedules_teachers_and_floors_in_a_file(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("""
steps = 20
dtype = "float64"
[model]
type = "MLP"
d = 3
widths = [4]
[data]
type = "Fresh"
d = 3
teacher = {type = "MLP", d = 3, widths = [2], bias = false, activation = "erf"}
weights = {W1 = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], W2 = [[1.0, 1.0]]}
[rule]
type = "SGD"
average = 0.9
gradient_noise = 0.01
[rule.label_noise]
kind = "rademacher"
sigma = {base = 0.1, decay_at = 0.5, decay_by = 2.0, warmup = {factor = 3.0}}
[step_size]
base = [0.1, 0.2]
[save]
linear = 3
of = "average"
""")
    run = config.read(path)
    teacher = fs.models.MLP(3, 2, activation="erf", bias=False)
    same = fs.Run(fs.models.MLP(3, 4), fs.data.Fresh(3, teacher, {"W1": np.eye(3)[:2], "W2": np.ones((1, 2))}),
                  fs.rules.SGD(average=0.9, gradient_noise=0.01, label_noise=fs.LabelNoise(
                      fs.StepSize(0.1, 0.5, 2.0, warmup=fs.Warmup(3.0)), "rademacher")),
                  fs.StepSize([0.1, 0.2]), 20, dtype="float64", save=fs.SaveAt(linear=3, of="average"))
    assert codec.fingerprint(run) == codec.fingerprint(same)
    path.write_text(path.read_text().replace("base = 0.1", "bas = 0.1"))
    with pytest.raises(fs.SpecError, match=r"label_noise\.sigma"):
        config.read(path)


def test_bench_without_a_checkout_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(cli.bench, "__file__", str(tmp_path / "fastsgd" / "cli" / "bench.py"))
    with pytest.raises(fs.SpecError, match="checkout"):
        cli.bench.bench(quick=True)


def test_bench_calibrates_into_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTSGD_CACHE", str(tmp_path))
    monkeypatch.setattr(calibrate, "calibrate", lambda say: {"machine": "m", "isa": "i", "ns": {}})
    cli.bench.bench(calibrate=True)
    assert (tmp_path / "cost.json").exists()


def stop(*given, **more):
    raise KeyboardInterrupt


@pytest.mark.parametrize(("arguments", "words"), (
    (("sweep", "run", "s.toml", "--out", "s.zarr"), "s.zarr holds 0 of 1 ranges; the same command goes on"),
    (("sweep", "run", "s.toml", "--out", "new.zarr"), "nothing is kept in new.zarr"),
    (("sweep", "work", "s.zarr"), "s.zarr holds 0 of 1 ranges; the same command goes on, here or anywhere"),
    (("sweep", "preset", "grokking", "--out", "s.zarr"), "s.zarr holds 0 of 1 ranges; the same command goes on"),
    (("reproduce", "S15"), "no row was finished; the same command begins anew"),
    (("reproduce", "all", "--out", "r"), "whole in r: S1, S2; `fastsgd reproduce ROW --out r` does one of the others"),
    (("bench", "--quick"), "nothing is kept"),
    (("bench", "--only", "speed", "--rows", "mine.csv"), "what was measured is in mine.csv; --only PART does"),
    (("bench", "--case", "S1", "--against", "jax"), "nothing is kept")))
def test_an_interrupt_says_what_is_left_and_how_to_go_on(arguments, words, monkeypatch, tmp_path):
    """Where the program that the commands are made with would end without a word."""
    from bench import __main__ as program
    from fastsgd import reproduce, sweep

    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(CONFIG.replace("networks = 12\n", "") + "\n[sweep.grid]\nstep_size = [0.01, 0.02]\n")
    assert fastsgd("sweep", "create", "s.toml", "s.zarr")[0] == 0

    def some(out, options, tell, names):
        for name in ("S1", "S2"):
            tell(name, reproduce.Reproduction(name, "", "", (), {}, None), 1.0)
        stop()

    for holder, name, what in ((sweep.Sweep, "run", stop), (sweep, "work", stop), (reproduce, "reproduce", stop),
                               (reproduce, "reproduce_all", some), (program, "measure", stop), (program, "meet", stop)):
        monkeypatch.setattr(holder, name, what)
    status, _, err = fastsgd(*arguments)
    assert status == 130 and err.splitlines()[-1].startswith(f"interrupted; {words}"), err


@pytest.mark.parametrize(("given", "words"), (
    (("--set", "model.width=x"), "model.width: 'x' given"), (("--seed", -1), "seed: -1 given"),
    (("--set", "rule=sgd"), "did you mean 'SGD'"), (("--set", "rule.momentun=0.5"), "did you mean 'momentum'"),
    (("--backend", "CPU"), "did you mean 'cpu'"), (("--set", "step_size=-1"), "step_size: -1.0 is outside (0, inf)")))
def test_what_the_command_line_says_wrong_is_not_blamed_on_the_file(toml, given, words):
    status, _, err = fastsgd("plan", toml, *given)
    assert status == 2 and words in err and err.endswith("(given on the command line)\n"), err


@pytest.mark.parametrize(("arguments", "words"), (
    (("reproduce", "s7"), "did you mean 'S7'"), (("reproduce", "cohen"), "did you mean 'cohen2021'"),
    (("sweep", "preset", "phse"), "did you mean 'phase'"), (("bench", "--opponent", "jax"), "expected my_module:Class"),
    (("report", "r.npz", "--style", "poster"), "style: 'poster' given"),
    (("report", "r.npz", "--svg"), "stores of sweeps"), (("sweep", "run", "run.toml"), "has no table [sweep]")))
def test_words_that_there_are_not_have_near_ones(arguments, words, toml, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "report":
        assert fastsgd("run", toml, "--out", "r.npz")[0] == 0
    status, out, err = fastsgd(*arguments)
    assert status == 2 and words in err and not out, err


def test_every_command_that_says_something_speaks_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(CONFIG.replace("networks = 12\n", "") + "\n[sweep.grid]\nstep_size = [0.01, 0.02]\n")
    planned = json.loads(fastsgd("sweep", "plan", "s.toml", "--json")[1])
    assert planned == json.loads(fastsgd("sweep", "run", "s.toml", "--dry-run", "--json")[1])
    assert planned["networks"] == 2 and planned["ranges"] == 1
    assert json.loads(fastsgd("sweep", "create", "s.toml", "s.zarr", "--json")[1])["missing"] == 1
    assert json.loads(fastsgd("sweep", "work", "s.zarr", "--json")[1]) == {"path": "s.zarr", "done_here": 1}
    assert json.loads(fastsgd("sweep", "preset", "phase", "--dry-run", "--json")[1])["cells"] == 256
    done = json.loads(fastsgd("reproduce", "S15", "--quick", "--replicas", 2, "--out", "r", "--json")[1])
    assert done["verdicts"][0]["holds"] is True and "r/S15.png" in done["files"]
    for command in (("run",), ("plan",), ("report",), ("reproduce",), ("info",), ("sweep", "run"), ("sweep", "plan"),
                    ("sweep", "create"), ("sweep", "work"), ("sweep", "status"), ("sweep", "preset")):
        assert "--json" in fastsgd(*command, "--help")[1], command


def test_what_is_asked_beside_quick_is_done(tmp_path):
    assert fastsgd("reproduce", "S7", "--quick", "--replicas", 3, "--out", tmp_path)[0] == 0
    assert len(fs.Result.load(tmp_path / "S7_run2_orders.npz").ids) == 3
