"""Checkpoints: a call goes on from its own file and refuses others; signals, full disks and kills lose nothing."""

import errno
import os
import random
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
from cases import bits, request
from general_cases import general
from kills import Killer

import fastsgd as fs
from fastsgd import checkpoint, files

T = 400
KINDS = {"plain": lambda: request("diagonal_13", steps=6000, save=fs.SaveAt(linear=9, params=True)),
         "everything": lambda: general("everything_relu2", steps=6000),
         "adamw": lambda: general("adamw_relu2", steps=6000),
         "reshuffle": lambda: general("common_reshuffle_net", "float32", steps=6000)}


def killed(kind):
    """The run of a kind, for kills.py."""
    return KINDS[kind]()


@pytest.fixture(scope="module")
def killer():
    with Killer() as one:
        yield one


@pytest.mark.xdist_group("kills")  # one killer, whose imports take seconds
@pytest.mark.parametrize("kind", KINDS)
def test_kills_at_random_moments_lose_no_bit_and_leave_no_litter(kind, killer, tmp_path):
    got, met = killer.until_done(__name__, "killed", kind, tmp_path, 300, random.Random(kind), most=4)
    want = fs.train(killed(kind))
    assert bits(got) == bits(want) and got.saved_weights.tobytes() == want.saved_weights.tobytes()
    assert met, "no kill came in the middle"


def run(**fields):
    return request("diagonal_13", steps=T, save=fs.SaveAt(linear=5, params=True), **fields)


def stopped_at(t, path, **more):
    """Leave a checkpoint of `run()` that was interrupted at step t."""
    def stop(now, T, lost):
        if now >= t:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt) as error:
        fs.train(run(), checkpoint=path, progress=stop, tuning=fs.Tuning(segment=50), **more)
    return error.value


def steps_of(call):
    """(result, steps that were reported) of a call that takes `progress`."""
    seen = []
    return call(lambda t, T, lost: seen.append(t)), seen


def test_the_same_call_goes_on_and_says_so(tmp_path):
    path = tmp_path / "c"
    note = stopped_at(200, path).__notes__[0]
    assert "step 200 of 400" in note and f"fs.resume({str(path)!r})" in note
    with pytest.warns(UserWarning, match="holds this run; it goes on at step 200 of 400"):
        got, seen = steps_of(lambda say: fs.train(run(), checkpoint=path, progress=say, tuning=fs.Tuning(segment=50)))
    assert seen[0] in (200, 250) and bits(got) == bits(fs.train(run()))


@pytest.mark.parametrize("again", ("train", "resume"))
def test_a_run_that_has_ended_gives_its_result(tmp_path, again, nothing_advances):
    path = tmp_path / "c"
    want = fs.train(run(), checkpoint=path)
    before = path.read_bytes()
    nothing_advances()
    if again == "train":
        with pytest.warns(UserWarning, match="its result is taken from there"):
            got = fs.train(run(), checkpoint=path)
    else:
        got = fs.resume(path)
    assert bits(got) == bits(want) and got.saved_weights.tobytes() == want.saved_weights.tobytes()
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["c"]


@pytest.fixture
def nothing_advances(monkeypatch):
    from fastsgd.backends.cpu import CPU

    def explode(*_):
        raise AssertionError("something ran")

    return lambda: monkeypatch.setattr(CPU, "advance", explode)


FOREIGN = {
    "text": lambda path: path.write_text("important"), "three bytes": lambda path: path.write_text("abc"),
    "archive": lambda path: np.savez(path.open("wb"), X=np.ones(3)),
    "result": lambda path: fs.train(run()).save(path),
    "another run": lambda path: fs.train(run(seed=8), checkpoint=path),
    "another length": lambda path: fs.train(run().replace(steps=T + 1), checkpoint=path),
    "torn": lambda path: (fs.train(run(), checkpoint=path), path.write_bytes(path.read_bytes()[:-30])),
}


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize("where", ("c", "c.previous"))
def test_any_other_file_is_refused_and_stays(tmp_path, what, where, nothing_runs_later):
    path = tmp_path / where
    FOREIGN[what](path)
    before = path.read_bytes()
    nothing_runs_later()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(fs.SpecError, match=r"no fastsgd file|expected a checkpoint|another run|damaged"):
            fs.train(run(), checkpoint=tmp_path / "c")
    assert path.read_bytes() == before and os.listdir(tmp_path) == [where]


@pytest.fixture
def nothing_runs_later(monkeypatch):
    def explode(*_):
        raise AssertionError("something ran")

    return lambda: monkeypatch.setattr(checkpoint, "execute", explode)


def test_another_run_is_told_apart_by_its_fields(tmp_path):
    fs.train(run(), checkpoint=tmp_path / "c")
    with pytest.raises(fs.SpecError, match=r"another run \(of another steps, seed\)"):
        fs.train(run(seed=9).replace(steps=7), checkpoint=tmp_path / "c")


def test_resuming_into_another_runs_file_is_refused(tmp_path):
    stopped_at(200, tmp_path / "c")
    (tmp_path / "d").write_text("important")
    fs.train(run(seed=8), checkpoint=tmp_path / "e")
    for name in "de":
        before = (tmp_path / name).read_bytes()
        with pytest.raises(fs.SpecError, match=r"no fastsgd file|another run"):
            fs.resume(tmp_path / "c", checkpoint=tmp_path / name)
        assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("damage", ("torn", "empty", "zeros", "bit", "gone"))
def test_the_previous_checkpoint_is_taken_where_the_newest_is_damaged(tmp_path, damage):
    path = tmp_path / "c"
    stopped_at(200, fs.Checkpoint(path, every=0))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes({"torn": data[:-99], "empty": b"", "zeros": bytes(len(data)), "bit": data, "gone": b""}[damage])
    if damage == "gone":
        path.unlink()
    with pytest.warns(UserWarning, match="the one before it is taken"):
        _, done = checkpoint.load(path)
    assert 0 < done.t <= 200
    with pytest.warns(UserWarning):
        got, seen = steps_of(lambda say: fs.train(run(), progress=say, checkpoint=path, tuning=fs.Tuning(segment=50)))
    assert done.t <= seen[0] <= done.t + 50
    assert bits(got) == bits(fs.train(run()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoint.load(path)[1].t == T and checkpoint.load(f"{path}.previous")[1].t < T


def test_a_damaged_file_never_takes_the_place_of_the_one_before(tmp_path, monkeypatch):
    """A kill right after the first write must find two good files."""
    path = tmp_path / "c"
    stopped_at(200, fs.Checkpoint(path, every=0))
    good = (tmp_path / "c.previous").read_bytes()
    path.write_bytes(b"PK\3\4")
    with pytest.warns(UserWarning), pytest.raises(RuntimeError):
        fs.train(run(), checkpoint=fs.Checkpoint(path, every=1e9), progress=_fail)
    assert (tmp_path / "c.previous").read_bytes() == good
    assert checkpoint.load(path)[1].t > 0


def _fail(*_):
    raise RuntimeError("enough")


class OwnModel(fs.models.DiagonalLinear):
    """A family that files bring back where it is named."""


@pytest.mark.filterwarnings("ignore")
def test_classes_of_ones_own_are_named(tmp_path):
    own = run().replace(model=OwnModel(13, u0=0.3, v0=0.1), backend="reference", steps=20)
    where = fs.Checkpoint(tmp_path / "c", classes=[OwnModel])
    want = fs.train(own, checkpoint=where)
    with pytest.raises(fs.SpecError, match=r"OwnModel.*classes=\[OwnModel\]"):
        fs.resume(tmp_path / "c")
    for got in (fs.resume(tmp_path / "c", classes=[OwnModel]), fs.train(own, checkpoint=where)):
        assert type(got.run.model) is OwnModel and bits(got) == bits(want)


STOPPED = """
import signal, sys, warnings
import fastsgd as fs
for number in (signal.SIGTERM, signal.SIGHUP):  # who started this, nohup for one, may have had them ignored
    signal.signal(number, signal.SIG_DFL)
{before}
model, data = fs.models.ReLU2(3, 21), fs.data.teacher_student(n=9, d=3, teacher_width=2, n_test=2)
try:
    fs.train(model, data, rule=fs.rules.SGD(), step_size=0.001, steps=10**9, networks=64, dtype="float64",
             checkpoint=fs.Checkpoint({path!r}, every=1e9), progress=lambda t, T, lost: print(t, flush=True))
finally:
    print("handler", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
"""


def ended_by(path, *numbers, before=""):
    """(status, output) of a run in the middle of which signals came, each but the first after a line of output."""
    child = subprocess.Popen([sys.executable, "-c", STOPPED.format(path=str(path), before=before)], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out = ""
    for number in numbers:
        out += child.stdout.readline() + child.stdout.readline()
        child.send_signal(number)
    try:
        return child.wait(60), out + child.stdout.read()
    finally:
        child.kill()


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGHUP))
def test_signals_that_end_a_process_leave_a_checkpoint(tmp_path, number):
    status, out = ended_by(tmp_path / "c", number)
    assert status == 128 + number and "handler True" in out
    assert checkpoint.load(tmp_path / "c")[1].t > 0 and os.listdir(tmp_path) == ["c"]


def test_a_handler_of_the_users_is_respected(tmp_path):
    before = ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); "
              "signal.signal(signal.SIGHUP, lambda *_: print('hup'))")
    status, out = ended_by(tmp_path / "c", signal.SIGHUP, signal.SIGTERM, before=before)
    assert status == 7 and "hup" in out and "handler False" in out
    assert checkpoint.load(tmp_path / "c")[1].t > 0  # whatever ends a run, its progress stays


def test_a_second_signal_does_not_cut_the_writing_short(tmp_path, monkeypatch):
    path, sync = tmp_path / "c", os.fsync

    def slow(fd):
        os.kill(os.getpid(), signal.SIGTERM)
        sync(fd)

    def first(t, T, lost):
        if t:
            monkeypatch.setattr(files.os, "fsync", slow)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stop:
        fs.train(run(), checkpoint=fs.Checkpoint(path, every=1e9), progress=first, tuning=fs.Tuning(segment=50))
    assert stop.value.code == 143 and checkpoint.load(path)[1].t > 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_other_threads_have_no_handlers(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(fs.train, run(), checkpoint=tmp_path / "c").result()
    assert bits(got) == bits(fs.train(run())) and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.filterwarnings("ignore:.*holds this run")
@pytest.mark.parametrize("number", (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO))
def test_a_system_that_refuses_is_a_warning_and_training_goes_on(tmp_path, monkeypatch, number):
    path = tmp_path / "c"
    stopped_at(100, path)
    before = path.read_bytes()

    def full(fd):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.warns(UserWarning, match=f"could not be written.*{os.strerror(number)}.*training goes on"):
        got = fs.train(run(), checkpoint=fs.Checkpoint(path, every=0))
    assert bits(got) == bits(fs.train(run()))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["c"]
    with pytest.raises(OSError, match=f"{os.strerror(number)}.*r.npz"):
        got.save(tmp_path / "r.npz")
    assert os.listdir(tmp_path) == ["c"]


def test_an_interrupt_in_the_middle_of_a_write_that_fails_is_not_swallowed(tmp_path, monkeypatch):
    def both(fd):
        try:
            raise KeyboardInterrupt
        finally:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", both)
    with pytest.raises(KeyboardInterrupt):
        fs.train(run(), checkpoint=fs.Checkpoint(tmp_path / "c", every=0))


def test_a_folder_that_is_removed_is_a_warning(tmp_path):
    (tmp_path / "f").mkdir()

    def gone(*_):
        if (tmp_path / "f").exists():
            for path in (tmp_path / "f").iterdir():
                path.unlink()
            (tmp_path / "f").rmdir()

    with pytest.warns(UserWarning, match="could not be written"):
        got = fs.train(run(), checkpoint=fs.Checkpoint(tmp_path / "f" / "c", every=0), progress=gone)
    assert bits(got) == bits(fs.train(run()))


@pytest.mark.parametrize("name", ("x" * 256, "x" * 250, "a\0b", "no/such/c"))
def test_names_that_no_checkpoint_can_have(tmp_path, name):
    with pytest.raises(fs.SpecError, match=r"checkpoint\.path"):
        fs.train(run(), checkpoint=tmp_path / name)


def test_a_checkpoint_of_another_version_says_so(tmp_path, monkeypatch):
    stopped_at(200, tmp_path / "c")
    monkeypatch.setattr(fs, "__version__", "9.9")
    with pytest.warns(UserWarning, match="written by fastsgd 0.1.0, this is 9.9"):
        fs.resume(tmp_path / "c")


def test_the_end_is_kept_though_no_launch_was_made(tmp_path):
    """All networks are lost at once: nothing advances any more, and the end is the result."""
    lost = run().replace(step_size=1e30)
    want = fs.train(lost, checkpoint=tmp_path / "c")
    assert not want.survived.any() and checkpoint.load(tmp_path / "c")[1].t == T
    assert bits(fs.resume(tmp_path / "c")) == bits(want)
