"""Files: results and checkpoints come back to the bit, are written whole or not at all, and survive a kill."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cases import bits, request

import fastsgd as fs
from fastsgd import checkpoint, storage
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
