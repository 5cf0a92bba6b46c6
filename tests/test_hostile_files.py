"""Owns the attacks on files and the command line: interrupts at the worst moment, forged files, odd configurations."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cases import bits, request
from typer.testing import CliRunner

import fastsgd as fs
from fastsgd import checkpoint, cli, config, storage
from fastsgd.backends.cpu import CPU
from fastsgd.measure.host import Host
from fastsgd.spec import codec


def small(backend="cpu", **fields):
    """A run with saves, of which some networks are lost on the way."""
    return request("diagonal_13", steps=60, N=9, backend=backend, rule="minibatch",
                   save=fs.SaveAt(linear=4, params=True), step_size=np.geomspace(0.01, 3.0, 9), **fields)


def everything(result):
    return bits(result), result.saved_weights.tobytes(), result.steps.tolist(), result.ids.tolist()


@pytest.mark.parametrize("segment", (1, 7))
@pytest.mark.parametrize("launch", (2, 5))
def test_an_interrupt_right_after_a_launch_resumes_to_the_same_bits(tmp_path, monkeypatch, launch, segment):
    """The kernel has moved the weights and the loop does not know it yet: the moment in which Ctrl-C is delivered."""
    path, tuning, count, advance = tmp_path / "c", fs.Tuning(segment=segment), [0], CPU.advance

    def interrupted(self, state, part):
        advance(self, state, part)
        count[0] += 1
        if count[0] == launch:
            raise KeyboardInterrupt

    monkeypatch.setattr(CPU, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fs.train(small(), checkpoint=fs.Checkpoint(path, every=1e9), tuning=tuning)
    monkeypatch.undo()
    assert 0 < checkpoint.load(path)[1].t < launch * segment
    want = fs.train(small())
    assert 0 < want.survived.sum() < 9, "some are lost and some are not"
    assert everything(fs.resume(path)) == everything(want)


INTERRUPTED = """
import signal, sys; sys.path.insert(0, {tests!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
import fastsgd as fs
from test_hostile_files import large
fs.train(large(), checkpoint=fs.Checkpoint({path!r}, every=1e9), progress=lambda t, T, lost: print(t, flush=True))
"""


def large():
    """Many networks, so that one launch is long: seconds of training."""
    return request("relu2_3_21", steps=4000, N=20_000, metrics=(), save=fs.SaveAt(linear=3))


def test_a_signal_stops_many_networks_soon_and_they_resume_to_the_same_bits(tmp_path):
    path = tmp_path / "c"
    code = INTERRUPTED.format(tests=os.path.dirname(__file__), path=str(path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child.stdout.readline()
    child.stdout.readline()
    time.sleep(1)  # copies of this many weights are dear, and are made once in a while
    child.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, error = child.communicate(timeout=30)
    assert time.monotonic() - began < 3 and "KeyboardInterrupt" in error and child.returncode != 0
    assert 0 < checkpoint.load(path)[1].t < 4000
    assert os.listdir(tmp_path) == ["c"]
    got, some = fs.resume(path), np.arange(0, 20_000, 20)
    want = fs.train(large().replace(ids=some))
    assert got.weights[some].tobytes() == want.weights.tobytes() and (got.lost[some] == want.lost).all()


@pytest.mark.parametrize("call", (15, 40, 67))  # `where` is called some times a step, for weights and for buffers
def test_an_interrupt_inside_a_launch_of_the_reference(tmp_path, monkeypatch, call):
    """Networks lost in a launch that was cut short must not be frozen at the weights they had before it."""
    import torch

    run, path, count, where = small("reference"), tmp_path / "c", [0], torch.where

    def interrupted(*arguments):
        count[0] += 1
        if count[0] == call:
            raise KeyboardInterrupt
        return where(*arguments)

    monkeypatch.setattr(torch, "where", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fs.train(run, checkpoint=fs.Checkpoint(path, every=1e9), tuning=fs.Tuning(segment=2))
    monkeypatch.undo()
    assert 0 < checkpoint.load(path)[1].t < 60
    assert everything(fs.resume(path)) == everything(fs.train(run))


@pytest.mark.parametrize("name", ("train_loss", "norm"))
def test_an_interrupt_between_two_metrics(tmp_path, monkeypatch, name):
    """A column of records half filled is filled again."""
    path, count = tmp_path / "c", [0]
    metric = {"train_loss": fs.metrics.TrainLoss, "norm": fs.metrics.ParameterNorm}[name]
    measure = Host.measure

    def interrupted(self, what, weights):
        count[0] += isinstance(what, metric)
        if count[0] == 3:
            raise KeyboardInterrupt
        return measure(self, what, weights)

    monkeypatch.setattr(Host, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fs.train(small(), checkpoint=fs.Checkpoint(path, every=1e9))
    monkeypatch.undo()
    assert everything(fs.resume(path)) == everything(fs.train(small()))


def test_every_checkpoint_of_a_run_resumes_to_the_same_bits(tmp_path, monkeypatch):
    kept, write = [], storage.write

    def keep(path, header, arrays, previous):
        kept.append(tmp_path / f"{len(kept)}")
        write(kept[-1], header, arrays)

    monkeypatch.setattr(storage, "write", keep)
    run = small(ids=[8, 2, 5, 6])
    want = fs.train(run, checkpoint=fs.Checkpoint(tmp_path / "c", every=0), tuning=fs.Tuning(segment=9))
    monkeypatch.undo()
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in kept}
    assert len(kept) > 8
    for path in kept:
        assert everything(fs.resume(path, tuning=fs.Tuning(threads=1, lanes=1, team=1))) == everything(want)


def test_an_exception_in_the_callers_function_stops_the_run_and_leaves_no_temporary_file(tmp_path):
    def stop(t, T, lost):
        assert 0 <= t <= T == 60 and lost >= 0
        if t >= 20:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        fs.train(small(), progress=stop, checkpoint=fs.Checkpoint(tmp_path / "c", every=0), tuning=fs.Tuning(segment=5))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "c.previous"]
    assert everything(fs.resume(tmp_path / "c")) == everything(fs.train(small()))


@pytest.mark.parametrize("verb", ("link", "replace"))
def test_an_interrupt_right_after_a_file_got_its_name_keeps_it(tmp_path, monkeypatch, verb):
    do = getattr(os, verb)

    def interrupted(*arguments, **more):
        do(*arguments, **more)
        raise KeyboardInterrupt

    if verb == "replace":
        storage.write(tmp_path / "x", {"kind": "old"}, {})
    monkeypatch.setattr(os, verb, interrupted)
    with pytest.raises(KeyboardInterrupt):
        storage.write(tmp_path / "x", {"kind": "result"}, {})
    assert storage.read(tmp_path / "x", "result")[1] == {} and os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("path", ("no/such/folder/r.npz", ".", 5, None))
def test_results_go_to_files(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fs.SpecError, match="path"):
        fs.train(small()).save(path)
    assert os.listdir(tmp_path) == []


def test_results_keep_parameters_at_saved_steps_when_labelled():
    pytest.importorskip("xarray")
    result = fs.train(small())
    labelled = result.to_xarray()
    assert labelled["saved_u"].dims == ("net", "step", "u_0") and labelled["lost"].dims == ("net",)
    np.testing.assert_array_equal(labelled["saved_u"].values, result.saved_params["u"].cpu().numpy())
    np.testing.assert_array_equal(labelled["step_size"].values, result.base)


class Mine(fs.models.DiagonalLinear):
    """A family that no file can bring back."""


def test_a_checkpoint_that_could_not_be_resumed_is_refused_before_the_run(tmp_path):
    fields = {"model": Mine(13), "backend": "reference"}
    with pytest.raises(fs.SpecError, match=r"classes=\[Mine\]"):
        fs.train(request("diagonal_13").replace(**fields), checkpoint=tmp_path / "c")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", (
    "os:system", "builtins:print", "fastsgd.storage:write", "fastsgd.storage:Path", "fastsgd.cli:main",
    "fastsgd.checkpoint:resume", "fastsgd.no_such_module:X", "fastsgd.spec.run:NoSuch", "fastsgd:plan",
    "fastsgd.spec.run", "fastsgd.spec.run:Run.replace", "fastsgd.spec.run:Dataset", "fastsgd.errors:SpecError", "", ":",
    "os:path"))
def test_forged_records_are_not_made(kind, tmp_path):
    target = tmp_path / "target"
    fields = {"path": str(target), "header": {"dict": {}}, "arrays": {"dict": {}}}
    forged = json.dumps({"record": kind, "fields": fields})
    with pytest.raises(fs.SpecError, match="no part of fastsgd"):
        codec.decode(forged, {})
    assert not target.exists()


def test_objects_cannot_be_written():
    with pytest.raises(fs.SpecError, match="cannot be written"):
        codec.encode({"a": object()})


@pytest.mark.parametrize("content", (b"", b"PK\x03\x04 torn", b"\x80\x04pickle", b"\x93NUMPY", "array", "torn", "list"))
def test_files_that_are_none_of_ours(content, tmp_path):
    path = tmp_path / "f.npz"
    if content == "array":
        with open(path, "wb") as file:
            np.save(file, np.ones(3))
    elif content == "torn":
        fs.train(small()).save(path)
        path.write_bytes(path.read_bytes()[:-40])
    elif content == "list":
        np.savez(path, header=np.array("[1, 2]"))
    else:
        path.write_bytes(content)
    for load in (fs.Result.load, fs.resume, checkpoint.load):
        with pytest.raises(fs.SpecError, match="path"):
            load(path)
    with pytest.raises(fs.SpecError, match="path"):
        fs.Result.load(tmp_path)


GOOD = {
    "model": '{type = "DiagonalLinear", d = 2}', "rule": '{type = "SGD"}', "step_size": "0.1", "steps": "20",
    "data": '{type = "sparse_regression", n = 5, d = 2, nonzero = 1, n_test = 3}',
}


def write(tmp_path, **changes):
    """A configuration file with some lines changed; None leaves one out."""
    path = tmp_path / "run.toml"
    path.write_text("\n".join(f"{k} = {v}" for k, v in (GOOD | changes).items() if v is not None))
    return path


@pytest.mark.parametrize(("changes", "words"), [
    ({"model": None}, "model"), ({"steps": None}, "steps"), ({"data": None}, "data"), ({"model": "3"}, "model.type"),
    ({"model": '{type = "Model"}'}, "model"), ({"rule": '{type = "Rule"}'}, "rule"),
    ({"rule": '{type = ["SGD"]}'}, "rule"), ({"rule": '{type = "__doc__"}'}, "rule.type"),
    ({"model": '{type = "DiagonalLinear"}'}, "model"),
    ({"data": "5"}, "data"), ({"data": "[1, 2]"}, "data"), ({"data": '{type = "paper", name = "S1"}'}, "data.type"),
    ({"data": '{file = "text.npz"}'}, "data.file"), ({"data": '{file = "array.npy"}'}, "data.file"),
    ({"data": '{file = "empty.npz"}'}, "data.file"), ({"data": '{file = "torn.npz"}'}, "data.file"),
    ({"data": "{file = 5}"}, "data.file"), ({"data": '{file = "more.npz"}'}, "data"), ({"save": "5"}, "save"),
    ({"save": "{steps = [30]}"}, "save.steps"), ({"save": "{every = 3}"}, "save"),
    ({"metrics": '"TrainLoss"'}, "metrics"), ({"metrics": "{type = 3}"}, "metrics"),
    ({"metrics": "[3]"}, "metrics.type"), ({"metrics": '[{type = "Metric"}]'}, "metrics"),
    ({"metrics": '[{type = "TrainLoss", rtol = 1.0}]'}, "metrics"),
    ({"step_size": "{base = 0.1, warmup = 3}"}, "warmup"), ({"step_size": "true"}, "step_size"),
    ({"step_size": "{base = 0.1, warmup = {speed = 3}}"}, "warmup"), ({"step_size": "nan"}, "step_size"),
    ({"step_size": "[[0.1, 0.2], [0.3]]"}, "step_size"), ({"dtype": '"f4"'}, "dtype"), ({"dtype": "32"}, "dtype"),
    ({"init": "3"}, "init"), ({"init": '{u = "a", v = [0, 0]}'}, "init"), ({"seed": "-1"}, "seed"),
    ({"order": '{type = "Replay", order = [0, 9]}'}, "order"), ({"loss": '{type = "Cubic"}'}, "loss"),
    ({"wings": "2"}, "wings"), ({"backend": '"abacus"'}, "backend"), ({"ids": '["a"]'}, "ids"),
    ({"steps": "1979-05-27"}, "steps"),
])
def test_odd_configurations(tmp_path, changes, words, monkeypatch, capsys):
    (tmp_path / "text.npz").write_text("no")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04")
    np.save(tmp_path / "array.npy", np.ones(3))
    np.savez(tmp_path / "more.npz", X=np.ones((5, 2)), y=np.ones(5), Z=np.ones(5))
    monkeypatch.setattr("sys.argv", ["fastsgd", "plan", str(write(tmp_path, **changes))])
    with pytest.raises(SystemExit) as status:
        cli.main()
    out, err = capsys.readouterr()
    assert status.value.code == 2 and not out
    assert err.count("\n") == 1 and words in err, err


def test_numbers_in_a_configuration_have_the_runs_dtype(tmp_path):
    run = config.read(write(tmp_path, init="{u = [0.1, 0.2], v = [0, 1]}", dtype='"float32"'))
    assert run.init["u"].dtype == run.data.X.dtype == np.float32
    assert fs.train(run).survived.all()


@pytest.mark.parametrize("text", (b"\xff\xfe\x00", b"steps = = 3"))
def test_configurations_that_are_no_text(tmp_path, text):
    (tmp_path / "c.toml").write_bytes(text)
    with pytest.raises(fs.SpecError, match="TOML"):
        config.read(tmp_path / "c.toml")
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(fs.SpecError, match="cannot read"):
            config.read(path)


def test_a_result_that_could_not_be_written_is_refused_before_the_run(tmp_path, monkeypatch):
    def explode(*_):
        raise AssertionError("something ran")

    monkeypatch.setattr(CPU, "load", explode)
    done = CliRunner().invoke(cli.app, ["run", str(write(tmp_path)), "--out", str(tmp_path / "no" / "r.npz")])
    assert isinstance(done.exception, fs.SpecError) and "out" in str(done.exception)


def test_the_command_line_resumes_its_own_checkpoint_and_no_other(tmp_path):
    toml, path = write(tmp_path), tmp_path / "c"
    request = config.read(toml)
    fs.train(request, checkpoint=fs.Checkpoint(path, every=0), tuning=fs.Tuning(segment=3))
    arguments = ["run", str(toml), "--out", str(tmp_path / "r.npz"), "--checkpoint", str(path)]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert fs.Result.load(tmp_path / "r.npz").weights.tobytes() == fs.train(request).weights.tobytes()
    write(tmp_path, seed="1")
    done = CliRunner().invoke(cli.app, [*arguments, "--force"])
    assert isinstance(done.exception, fs.SpecError) and "another run" in str(done.exception)
