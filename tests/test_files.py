"""Files: results and checkpoints come back to the bit, are written whole or not at all, and survive a kill."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cases import bits, request

import fastsgd as fs
from fastsgd import checkpoint, files, storage
from fastsgd.report import look
from fastsgd.spec import codec

# A run long enough to be interrupted in the middle.
SCRIPT = """
import signal, sys; sys.path.insert(0, {tests!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
from cases import request
import fastsgd as fs
run = request("relu2_3_21", steps={steps}, save=fs.SaveAt(linear=9, params=True), N=64)
print("ready", flush=True)
fs.train(run, checkpoint=fs.Checkpoint({path!r}, every=1e9), progress=lambda t, T, lost: print(t, flush=True))
"""
TESTS = os.path.dirname(__file__)


def test_result_round_trip(tmp_path):
    run = request("relu2_3_21", save=fs.SaveAt(linear=4, params=True), order=fs.orders.Replay([3] * 50))
    result = fs.train(run)
    result.save(tmp_path / "r.npz")
    back = fs.Result.load(tmp_path / "r.npz")
    assert bits(back) == bits(result) and back.provenance == result.provenance
    assert back.saved_weights.tobytes() == result.saved_weights.tobytes()
    assert codec.fingerprint(back.run) == codec.fingerprint(run)
    assert bits(fs.train(back.run)) == bits(result)
    assert repr(back) == repr(result)


def test_result_as_tensors_and_labels():
    result = fs.train(request("diagonal_13", save=fs.SaveAt(linear=4, params=True)))
    assert result["train_loss"].shape == (19, 4) and result.params["u"].shape == (19, 13)
    assert result.saved_params["v"].shape == (19, 4, 13)
    assert (result.saved_params["v"][:, -1] == result.params["v"]).all()
    with pytest.raises(fs.SpecError, match="rank"):
        result["rank"]
    xarray = pytest.importorskip("xarray")
    labelled = result.to_xarray()
    assert isinstance(labelled, xarray.Dataset) and labelled["train_loss"].dims == ("net", "step")
    assert labelled["step"].values.tolist() == result.steps.tolist()
    np.testing.assert_array_equal(labelled.sel(net=5)["train_loss"], result.numpy("train_loss")[5])


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    storage.write(path, {"kind": "result"}, {"a": np.arange(3)})

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        storage.write(path, {"kind": "result"}, {"a": np.arange(9)})
    assert storage.read(path, "result")[1]["a"].size == 3 and os.listdir(tmp_path) == ["x.npz"]


def test_wrong_files(tmp_path):
    text, empty, other = tmp_path / "t.npz", tmp_path / "e.npz", tmp_path / "o.npz"
    text.write_text("no")
    empty.write_bytes(b"")
    np.savez(other, a=np.arange(3))
    storage.write(tmp_path / "c.npz", {"kind": "checkpoint"}, {})
    for path in (text, empty, other, tmp_path / "c.npz", tmp_path / "missing.npz"):
        with pytest.raises(fs.SpecError, match="path"):
            fs.Result.load(path)
    with pytest.raises(fs.SpecError, match="path"):
        fs.resume(text)


def test_a_file_cannot_name_other_code():
    with pytest.raises(fs.SpecError, match="no part of fastsgd"):
        codec.decode('{"record": "os:system", "fields": {}}', {})


def test_interrupt_stops_within_seconds_and_leaves_a_checkpoint(tmp_path):
    steps, path = 50_000_000, str(tmp_path / "run.ckpt")
    child = subprocess.Popen([sys.executable, "-c", SCRIPT.format(tests=TESTS, steps=steps, path=path)],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(4):  # ready, step 0, two launches
        child.stdout.readline()
    child.send_signal(signal.SIGINT)
    began = time.time()
    _, error = child.communicate(timeout=30)
    assert time.time() - began < 5 and "KeyboardInterrupt" in error
    _, progress = checkpoint.load(path)
    assert 0 < progress.t < steps and np.isfinite(progress.weights).all()


def test_progress_is_reported():
    seen = []
    fs.train(request("diagonal_13", steps=500), progress=lambda t, T, lost: seen.append((t, T, lost)),
             tuning=fs.Tuning(segment=100))
    assert [t for t, _, _ in seen] == sorted(t for t, _, _ in seen) and seen[-1] == (500, 500, 0)


def test_another_runs_checkpoint_is_refused(tmp_path):
    path = str(tmp_path / "c")
    fs.train(request("diagonal_13"), checkpoint=fs.Checkpoint(path, every=0))
    saved, _ = checkpoint.load(path)
    checkpoint.require_same(saved, request("diagonal_13"))
    with pytest.raises(fs.SpecError, match="another run"):
        checkpoint.require_same(saved, request("diagonal_13", seed=8))


@pytest.fixture(params=("nameless", "named", "no exchange", "named, no exchange"))
def system(request, monkeypatch):
    """File systems: with files that have no name, and without; with an exchange of two names, and without."""
    if "named" in request.param.split(", "):
        monkeypatch.setattr(files.os, "O_TMPFILE", os.O_WRONLY | os.O_DIRECTORY | os.O_CREAT)  # refused everywhere
    if "no exchange" in request.param:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)


def put(path, text, previous=None):
    with files.whole(path, previous) as file:
        file.write(text.encode())


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_modes_and_links_stay(tmp_path, system):
    new, old, link = tmp_path / "new", tmp_path / "old", tmp_path / "link"
    before = os.umask(0o027)
    try:
        put(new, "1")
    finally:
        os.umask(before)
    assert mode(new) == 0o640
    for bits_of_it in (0o600, 0o444 if os.geteuid() == 0 else 0o644, 0o777):
        old.write_text("old")
        old.chmod(bits_of_it)
        put(old, "2")
        assert mode(old) == bits_of_it and old.read_text() == "2"
    os.symlink("old", link)
    put(link, "3", "old.previous")
    assert link.is_symlink() and old.read_text() == "3" and (tmp_path / "old.previous").read_text() == "2"
    os.symlink(tmp_path / "later", tmp_path / "dangling")
    put(tmp_path / "dangling", "4")
    assert (tmp_path / "dangling").is_symlink() and (tmp_path / "later").read_text() == "4"
    assert set(os.listdir(tmp_path)) == {"new", "old", "link", "old.previous", "dangling", "later"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_and_attributes_stay(tmp_path, system):
    path = tmp_path / "x"
    path.write_text("old")
    os.chown(path, 1234, 4321)
    path.chmod(0o640)
    try:
        os.setxattr(path, "user.note", b"mine")
    except OSError:
        pytest.skip("this file system has no attributes")
    put(path, "new")
    there = os.stat(path)
    assert (there.st_uid, there.st_gid, mode(path), os.getxattr(path, "user.note")) == (1234, 4321, 0o640, b"mine")


def test_the_file_before_is_kept_under_its_name(tmp_path, system):
    path, previous = tmp_path / "c", tmp_path / "c.previous"
    for k in range(4):
        put(path, str(k), "c.previous")
        assert path.read_text() == str(k)
        assert previous.read_text() == str(k - 1) if k else not previous.exists()
    assert set(os.listdir(tmp_path)) == {"c", "c.previous"}


def test_a_failing_block_leaves_what_was_there(tmp_path, system):
    path = tmp_path / "x"
    for there in (False, True):
        with pytest.raises(ZeroDivisionError), files.whole(path, "x.previous") as file:
            file.write(b"half")
            raise ZeroDivisionError
        assert os.listdir(tmp_path) == ["x"] * there and (not there or path.read_text() == "whole")
        put(path, "whole")


def test_what_a_killed_writer_left_is_taken_away(tmp_path, monkeypatch):
    """On file systems that know no nameless files a kill leaves one; the next write to the same target removes it."""
    monkeypatch.setattr(files.os, "O_TMPFILE", os.O_WRONLY | os.O_DIRECTORY | os.O_CREAT)
    path = tmp_path / "x"
    child = os.fork()
    if not child:
        with files.whole(path) as file:
            file.write(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(os.listdir(tmp_path)) == 1 and not path.exists()
    put(path, "whole")
    assert os.listdir(tmp_path) == ["x"] and path.read_text() == "whole"


def test_two_writers_of_one_file(tmp_path, system):
    """Each writes a file of one letter: whatever comes first, no reader sees two letters, nothing is left over."""
    path = tmp_path / "x"
    put(path, "-" * 50_000)

    def many(letter):
        for _ in range(15):
            put(path, letter * 50_000, "x.previous")

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(many, letter) for letter in "abcd"]
        while not all(one.done() for one in done):
            assert len(set(_text(path))) == 1
    for one in done:
        one.result()
    assert set(os.listdir(tmp_path)) == {"x", "x.previous"}
    assert len(set(path.read_text())) == len(set((tmp_path / "x.previous").read_text())) == 1


def _text(path):
    try:
        return path.read_text()
    except FileNotFoundError:  # between two names, where there is no exchange
        return "-"


def test_the_umask_of_the_process_is_never_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("another thread's files would have any mode"))
    put(tmp_path / "x", "1")
    put(tmp_path / "x", "2")


def special(tmp_path, what):
    """A path that no file may be written to."""
    path = tmp_path / "s"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif what == "folder":
        path.mkdir()
    elif what == "loop":
        os.symlink(path, path)
    elif what == "link to a device":
        os.symlink("/dev/null", path)
    elif what == "link to a pipe":
        os.mkfifo(tmp_path / "p")
        os.symlink("p", path)
    elif what == "link to nowhere":
        os.symlink("no/such/folder/x", path)
    else:
        return {"device": "/dev/null", "long": tmp_path / ("x" * 300), "nul": f"{tmp_path}/a\0b", "empty": "",
                "below a file": f"{__file__}/x", "surrogate": f"{tmp_path}/\ud800", "bytes": os.fsencode(path)}[what]
    return path


SPECIAL = ("pipe", "socket", "folder", "loop", "link to a device", "link to a pipe", "link to nowhere", "device",
           "long", "nul", "empty", "below a file", "surrogate", "bytes")


@pytest.mark.parametrize("what", SPECIAL)
def test_what_is_no_file_is_never_replaced(tmp_path, what):
    path = special(tmp_path, what)
    before = os.listdir(tmp_path)
    kind = None if what in ("nul", "surrogate") else os.path.lexists(path) and os.lstat(path).st_mode
    result = fs.train(request("diagonal_1"))
    for write in (result.save, lambda path: fs.Checkpoint(path), lambda path: put(path, "x"),
                  lambda path: look.write(None, path)):
        with pytest.raises(fs.SpecError, match="path"):
            write(path)
    if what not in ("bytes", "surrogate"):
        with pytest.raises(OSError):  # what callers of the cache expect
            files.keep(Path(path), b"")
    assert os.listdir(tmp_path) == before
    assert kind is None or kind == (os.path.lexists(path) and os.lstat(path).st_mode)


@pytest.mark.parametrize("what", SPECIAL)
def test_what_is_no_file_is_not_read_and_not_waited_for(tmp_path, what):
    path = special(tmp_path, what)
    for read in (fs.Result.load, fs.resume):
        with pytest.raises(fs.SpecError, match="path"):
            read(path)


def test_names_as_long_as_the_system_takes(tmp_path):
    put(tmp_path / ("x" * 255), "1")
    put(tmp_path / ("x" * 255), "2")
    assert os.listdir(tmp_path) == ["x" * 255]


@dataclass(frozen=True, eq=False)
class OwnLoss(fs.losses.Loss):
    """A loss that files bring back where it is named."""

    factor: float = 0.5
    name = "own"

    def value(self, f, y, outputs=1):
        return self.factor * (f - y) ** 2

    def refuse(self, outputs, y):
        return None


@dataclass(frozen=True, eq=False)
class OwnMetric(fs.metrics.Metric):
    """A metric likewise."""

    power: float = 2.0
    name = "own_metric"

    def compute(self, model, params, data, loss):
        return (abs(params["u"]) ** self.power).sum(-1)


class OwnRule(fs.rules.SGD):
    """A rule likewise."""


class OwnModel(fs.models.DiagonalLinear):
    """A family likewise."""


class Plain(fs.metrics.Metric):
    """No dataclass: no file could make it again."""

    name = "plain"

    def compute(self, model, params, data, loss):
        return params["u"][:, 0]


@dataclass(frozen=True, eq=False)
class Counting(OwnMetric):
    """A record that its fields do not give back."""

    def __post_init__(self):
        object.__setattr__(self, "power", self.power + 1)


@dataclass(frozen=True, eq=False)
class Holding(OwnMetric):
    """A record that holds a function."""

    function: object = max


OWN = {"loss": OwnLoss(), "rule": OwnRule(), "model": OwnModel(1, u0=0.5, v0=0.4), "metrics": OwnMetric(3.0)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("field", OWN)
def test_records_of_ones_own_come_back_where_they_are_named(tmp_path, field):
    kind, path = type(OWN[field]), tmp_path / "r"
    result = fs.train(request("diagonal_1", steps=5, N=3).replace(**{field: OWN[field]}))
    with pytest.raises(fs.SpecError, match=rf"classes=\[{kind.__name__}\]"):
        result.save(path)
    assert not path.exists()
    result.save(path, classes=[kind])
    with pytest.raises(fs.SpecError, match=rf"classes=\[{kind.__name__}\]"):
        fs.Result.load(path)
    back = fs.Result.load(path, classes=[kind])
    assert bits(back) == bits(result) and codec.fingerprint(back.run) == codec.fingerprint(result.run)
    for classes in ([int], kind(**{}) if field != "model" else 5, "OwnLoss", [type(kind.__name__, (kind,), {}), kind]):
        with pytest.raises(fs.SpecError, match="classes"):
            fs.Result.load(path, classes=classes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("metric", (Plain(), Counting(), Holding()))
def test_records_that_no_file_brings_back_are_refused_up_front(tmp_path, metric, monkeypatch):
    run = request("diagonal_1", steps=5, N=3, metrics=(metric,))
    result, classes = fs.train(run), () if isinstance(metric, Plain) else (type(metric),)
    with pytest.raises(fs.SpecError, match=r"file"):
        result.save(tmp_path / "r", classes)
    monkeypatch.setattr(checkpoint, "execute", lambda *_: pytest.fail("something ran"))
    with pytest.raises(fs.SpecError, match=r"file"):
        fs.train(run, checkpoint=fs.Checkpoint(tmp_path / "c", classes=classes))
    assert os.listdir(tmp_path) == []
