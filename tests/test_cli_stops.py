"""The command line when things go wrong: stops, full disks, names for two files, configurations of odd values."""

import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from test_cli import CONFIG, fastsgd

import fastsgd as fs
from fastsgd import checkpoint, cli, config, files

LONG = CONFIG.replace("steps = 200", "steps = 500000000").replace("save = {linear = 5}", "save = {steps = [500000000]}")


@pytest.fixture
def toml(tmp_path):
    """A configuration file."""
    path = tmp_path / "run.toml"
    path.write_text(CONFIG)
    return path


READY = """
import signal
from importlib import import_module
from fastsgd import cli
doors = [import_module(f"fastsgd.{name}") for name in ("train", "checkpoint")]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
execute = doors[0].execute
def said(*arguments):
    print("ready", flush=True)
    return execute(*arguments)
for door in doors:
    door.execute = said
cli.main()
"""


def stopped(number, *arguments):
    """(status, stderr) of `fastsgd run` that gets a signal when it trains."""
    command = [sys.executable, "-c", READY, "run", *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child.stdout.readline()
    time.sleep(0.5)
    child.send_signal(number)
    try:
        return child.wait(60), child.stderr.read()
    finally:
        child.kill()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_says_where_it_is_and_how_to_go_on(toml, tmp_path, number, status):
    toml.write_text(LONG)
    ckpt, out = tmp_path / "c.ckpt", tmp_path / "r.npz"

    def stop(t, T, lost):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fs.train(config.read(toml), checkpoint=ckpt, progress=stop)
    before = checkpoint.load(ckpt)[1].t
    seen, error = stopped(number, toml, "--out", out, "--checkpoint", ckpt)
    assert seen == status and not out.exists(), error
    t = checkpoint.load(ckpt)[1].t
    assert t >= before and f"holds step {t} of 500000000" in error and "the same command" in error
    assert "holds this run; it goes on at step" in error and "Traceback" not in error and "UserWarning" not in error
    assert set(os.listdir(tmp_path)) <= {"run.toml", "c.ckpt", "c.ckpt.previous"}


def test_a_stop_without_a_checkpoint_says_that_nothing_is_kept(toml, tmp_path):
    toml.write_text(LONG)
    status, error = stopped(signal.SIGTERM, toml, "--out", tmp_path / "r")
    assert status == 143 and "nothing is kept" in error and "--checkpoint FILE" in error and "Traceback" not in error


@pytest.mark.parametrize(("out", "ckpt"), [("c", "c"), ("run.toml", "c"), ("r", "run.toml"), ("r", "./r")])
def test_two_names_for_one_file_are_refused(toml, tmp_path, out, ckpt, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fastsgd", "run", str(toml), "--out", out, "--checkpoint", ckpt])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2 and "as well" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["run.toml"] and toml.read_text() == CONFIG


def test_a_full_disk_at_the_end_says_what_is_left(toml, tmp_path, monkeypatch, capsys):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    monkeypatch.setattr("sys.argv", ["fastsgd", "run", str(toml), "--out", str(tmp_path / "r")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and "No space left on device" in error and "--checkpoint FILE" in error
    assert os.listdir(tmp_path) == ["run.toml"]


@pytest.mark.parametrize("name", ("x" * 300, "no/such/file", "."))
def test_names_that_no_file_can_have(toml, tmp_path, name):
    for arguments in (("run", toml, "--out", tmp_path / name), ("run", toml, "--checkpoint", tmp_path / name),
                      ("run", tmp_path / name), ("report", tmp_path / name)):
        status, out, err = fastsgd(*arguments)
        assert status == 2 and not out and err.count("\n") == 1 and "Traceback" not in err, err


def test_a_folder_that_cannot_be_made(toml):
    status, _, err = fastsgd("reproduce", "S15", "--quick", "--out", toml / "x")
    assert status == 2 and "out:" in err and err.count("\n") == 1


TABLES = {
    "": {"steps": "20", "networks": "2", "dtype": '"float64"', "seed": "1", "ids": "[0]", "backend": '"auto"',
         "device": '"cpu"', "metrics": '[{type = "TrainLoss"}, {type = "JacobianRank", rtol = 1e-4}]'},
    "model": {"type": '"MLP"', "d": "3", "widths": "[4]", "activation": '"tanh"', "b_scale": "0.1", "outputs": "1",
              "bias": "true", "scaling": '"ntk"'},
    "rule": {"type": '"SGD"', "batch_size": "1", "momentum": "0.1", "weight_decay": "0.1", "average": "0.5",
             "normalised": "false", "label_noise": '{sigma = {base = 0.1}, kind = "gaussian"}',
             "gradient_noise": "0.1", "lost_above": "10.0"},
    "step_size": {"base": "0.1", "decay_at": "0.5", "decay_by": "2.0", "warmup": "{factor = 2.0}",
                  "cosine": "{final = 0.1}"},
    "save": {"linear": "3", "log": "2", "steps": "[1]", "floor": "{steps = 3, step_size = 0.1}", "of": '"weights"'},
    "order": {"type": '"PerNetwork"', "replace": "true"},
    "loss": {"type": '"Squared"', "factor": "0.5", "weights": "[1.0]"},
    "data": {"type": '"sparse_regression"', "n": "5", "d": "3", "nonzero": "1", "n_test": "3"},
}
ODD = ("nan", "inf", "-1", "0", "1e400", "1" * 400, "true", '"x"', '""', "[]", "{}", "[[]]", "[1]", "[1, 'a']",
       "[[1, 2], [3]]", "1979-05-27", "07:32:00", "{a = 1}", "[{}]", "9223372036854775808", "1e300", "5000000000000",
       '{type = "Loss"}', '{type = "Model"}', '{type = "Rule"}', '{type = "Metric"}', '{type = "Custom", name = "a"}',
       '{type = "Descent"}', '"Loss"', '"Rule"', '{type = ["x"]}', "[" * 3000 + "]" * 3000)


def text(tables):
    parts = (([f"[{name}]"] if name else []) + [f"{key} = {value}" for key, value in table.items()]
             for name, table in tables.items())
    return "\n".join(line for part in parts for line in part)


@pytest.mark.parametrize("name", TABLES)
def test_odd_values_end_in_one_of_our_errors(tmp_path, name):
    path = tmp_path / "c.toml"
    path.write_text(text(TABLES))
    fs.plan(config.read(path))
    for key in TABLES[name]:
        for value in ODD:
            path.write_text(text(TABLES | {name: TABLES[name] | {key: value}}))
            planned(path)
    if name:
        rest = {other: table for other, table in TABLES.items() if other != name}
        for value in ODD:
            path.write_text(text(rest | {"": rest[""] | {name: value}}))
            planned(path)


def planned(path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fs.plan(config.read(path))
    except (fs.SpecError, fs.PlanError, fs.BackendUnavailable) as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(("field", "kind"), [("model", "Model"), ("rule", "Rule"), ("rule", "Descent"),
                                             ("loss", "Loss"), ("metrics", "Metric"), ("metrics", "Custom"),
                                             ("metrics", "feature_sparsity")])
def test_base_classes_are_no_choices(tmp_path, field, kind):
    path, table = tmp_path / "c.toml", f'{{type = "{kind}"}}'
    tables = {name: fields for name, fields in TABLES.items() if name != field}
    path.write_text(text(tables | {"": tables[""] | {field: f"[{table}]" if field == "metrics" else table}}))
    with pytest.raises(fs.SpecError, match=rf"{field}\.type: '{kind}' given, expected one of") as error:
        config.read(path)
    assert kind not in str(error.value).partition("expected")[2].replace(",", " ").split()


def test_data_files_that_are_none(tmp_path):
    path = tmp_path / "c.toml"
    tables = {name: table for name, table in TABLES.items() if name != "data"}
    path.write_text(text(tables | {"data": {"file": '"d.npz"'}}))
    np.savez_compressed(tmp_path / "d.npz", X=np.ones((5, 3)), y=np.ones(5))
    assert config.read(path).data.n == 5
    for arrays in ({"X": np.array([object()]), "y": np.ones(5)}, {"X": np.ones((5, 3)), "y": np.array(["a"] * 5)},
                   {"X": np.zeros(3, [("a", "f8")]), "y": np.ones(3)}, {"X": np.ones((5, 3))}):
        np.savez(tmp_path / "d.npz", **arrays)
        with pytest.raises(fs.SpecError, match=r"data|^y: holds"):
            config.read(path)
    os.unlink(tmp_path / "d.npz")
    os.mkfifo(tmp_path / "d.npz")
    with pytest.raises(fs.SpecError, match=r"data\.file"):
        config.read(path)
