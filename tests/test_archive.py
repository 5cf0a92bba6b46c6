"""Files are believed only when all of it fits: whatever is changed, one loads as it was, or SpecError says why not."""

import io
import json
import random
import struct
import zipfile

import numpy as np
import pytest
from cases import bits, request
from general_cases import general

import fastsgd as fs
from fastsgd import checkpoint, storage
from fastsgd.spec import codec


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """{kind: (path, bytes, load)} of small files with all that files may hold."""
    folder = tmp_path_factory.mktemp("files")
    run = request("diagonal_1", N=3, steps=20, save=fs.SaveAt(linear=3, params=True), ids=[2, 0, 1])
    fs.train(run).save(folder / "result")

    def stop(t, T, lost):
        if t:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fs.train(run.replace(rule=fs.rules.SGD(average=0.5, momentum=0.3)), checkpoint=folder / "checkpoint",
                 progress=stop, tuning=fs.Tuning(segment=8))
    return {"result": (folder / "result", fs.Result.load), "checkpoint": (folder / "checkpoint", _checkpoint)}


def _checkpoint(path):
    return checkpoint._read(path, ())


def everything(loaded):
    """All that came from a file, as text and bytes."""
    if isinstance(loaded, fs.Result):
        return (bits(loaded), loaded.saved_weights.tobytes(), loaded.steps.tobytes(), loaded.ids.tobytes(),
                loaded.base.tobytes(), loaded.provenance, codec.fingerprint(loaded.run))
    done = loaded.progress
    return (done.t, done.taken, done.weights.tobytes(), done.lost.tobytes(), done.buffers.tobytes(), done.seconds,
            {name: a.tobytes() for name, a in done.records.items()}, done.saved_weights.tobytes(),
            codec.fingerprint(loaded.run))


def tried(path, load, data, want):
    """Whether changed bytes were refused; if they load, they are what they were."""
    path.write_bytes(data)
    try:
        loaded = load(path)
    except fs.SpecError as error:
        assert len(str(error)) < 2000
        return True
    assert everything(loaded) == want
    return False


@pytest.mark.filterwarnings("ignore:.*was written by")
@pytest.mark.parametrize("kind", ("result", "checkpoint"))
def test_bytes_that_are_changed(originals, kind, tmp_path):
    path, load = originals[kind]
    data, want, rng, refused = path.read_bytes(), everything(load(path)), random.Random(0), 0
    for _ in range(1000):
        new = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 9))):
            at, size = rng.randrange(len(new)), rng.choice((1, 1, 4, 60))
            change = rng.randrange(5)
            if change == 0:
                new[at:at + size] = rng.randbytes(size)
            elif change == 1:
                new[at] ^= 1 << rng.randrange(8)
            elif change == 2:
                del new[at:at + size]
            elif change == 3:
                new[at:at] = new[:size]
            else:
                new[at:at + 4] = struct.pack("<I", rng.choice((0, 1, 2**16, 2**31, 2**32 - 1)))
        refused += tried(tmp_path / "x", load, bytes(new), want)
    assert refused > 700


def opened(path):
    """({name: array}, header dict) of a file, without a check."""
    with zipfile.ZipFile(path) as file:
        arrays = {name[:-4]: np.load(io.BytesIO(file.read(name))) for name in file.namelist()}
    return arrays, json.loads(str(arrays.pop("header")))


def forged(path, arrays, header, checksum=True):
    """Write a file with a right checksum, whatever it says."""
    arrays = {name: a for name, a in arrays.items() if name != "checksum"}
    text = json.dumps(header)
    if checksum:
        arrays = arrays | {"checksum": np.array(codec.digest(text, arrays))}
    np.savez(path.open("wb"), header=np.array(text), **arrays)


ODD = (None, True, -1, 0, 1, 2, 3, 10**400, 2**63, 1e300, float("nan"), float("inf"), "", "run", "1", [], {}, [1],
       {"a": 1}, {"array": "run.data.X"}, {"tuple": []}, {"dict": {}},
       {"record": "fastsgd.__main__:main", "fields": {}},
       {"record": "fastsgd.spec.save:SaveAt", "fields": {"linear": 2}},
       {"record": "fastsgd.spec.run:Run", "fields": {}})


def nodes(tree, path=()):
    """Paths to everything inside a JSON tree."""
    yield path
    for key in (tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()):
        yield from nodes(tree[key], (*path, key))


def replaced(tree, path, value):
    if not path:
        return value
    copy = tree.copy()
    copy[path[0]] = replaced(tree[path[0]], path[1:], value)
    return copy


@pytest.mark.filterwarnings("ignore:.*was written by")
@pytest.mark.parametrize("kind", ("result", "checkpoint"))
def test_headers_that_are_changed_and_signed_again(originals, kind, tmp_path):
    """Whoever can compute the checksum gets a record that this request could have led to, or SpecError."""
    path, load = originals[kind]
    arrays, header = opened(path)
    run, rng = json.loads(header["run"]), random.Random(1)
    own = {name: a for name, a in arrays.items() if name.startswith("run.")}
    del arrays["checksum"]
    np.savez((tmp_path / "arrays").open("wb"), **arrays)
    given = tmp_path / "x", load, (tmp_path / "arrays").read_bytes(), arrays
    assert loads(*given, header)
    for where in list(nodes(run)):
        for value in rng.sample(ODD, 3):
            changed = json.dumps(replaced(run, where, value))
            print_of_it = codec.digest(changed, own)[:16]
            loads(*given, header | {"run": changed, "fingerprint": print_of_it})
    for name in header:
        for value in ODD:
            loads(*given, header | {name: value})
        loads(*given, {key: value for key, value in header.items() if key != name})


def loads(path, load, packed, arrays, header):
    """Whether arrays, which are an archive already, load with a header and its right checksum."""
    path.write_bytes(packed)
    text = json.dumps(header)
    with zipfile.ZipFile(path, "a") as file:
        for name, value in (("header", text), ("checksum", codec.digest(text, arrays))):
            with file.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.array(value))
    try:
        found = load(path)
    except fs.SpecError:
        return False
    assert isinstance(found.run, fs.Run)
    return True


CHANGES = {
    "gone": lambda a: None, "longer": lambda a: np.concatenate([np.atleast_1d(a), np.atleast_1d(a)]),
    "shorter": lambda a: np.atleast_1d(a)[:-1], "empty": lambda a: a[..., :0] if a.ndim else np.zeros(0, a.dtype),
    "another axis": lambda a: a[None], "int32": lambda a: np.ones_like(a, np.int32),
    "float16": lambda a: a.astype("f2"), "complex": lambda a: a.astype(complex), "text": lambda a: a.astype(str),
    "swapped": lambda a: a.astype(a.dtype.newbyteorder()), "flags": lambda a: a.astype(bool),
    "objects": lambda a: a.astype(object),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ("result", "checkpoint"))
def test_arrays_that_are_changed_and_signed_again(originals, kind, change, tmp_path):
    path, load = originals[kind]
    arrays, header = opened(path)
    for name in arrays.keys() - {"checksum"}:
        new = CHANGES[change](arrays[name])
        if new is not None and new.dtype == object:
            np.savez(tmp_path / "x", header=np.array(json.dumps(header)), **(arrays | {name: new}), allow_pickle=True)
            (tmp_path / "x.npz").rename(tmp_path / "x")
        else:
            forged(tmp_path / "x", {key: a for key, a in (arrays | {name: new}).items() if a is not None}, header)
        with pytest.raises(fs.SpecError):
            load(tmp_path / "x")


@pytest.mark.parametrize("kind", ("result", "checkpoint"))
def test_arrays_that_are_too_many_or_of_another_name(originals, kind, tmp_path):
    path, load = originals[kind]
    arrays, header = opened(path)
    for name in ("extra", "record.extra", "run.extra", "record.", "run", "weights2", ""):
        forged(tmp_path / "x", arrays | {name: np.zeros(3)}, header)
        with pytest.raises(fs.SpecError):
            load(tmp_path / "x")
    for old, new in (("weights", "lost"), ("record.norm", "record.train_loss"), ("lost", "weights")):
        forged(tmp_path / "x", arrays | {old: arrays[new]}, header)
        if old != "record.norm":
            with pytest.raises(fs.SpecError):
                load(tmp_path / "x")


@pytest.mark.parametrize(("name", "values"), [
    ("t", (-1, 21, 1, 19, 2.0, "8", True, None, [8], 10**30)), ("taken", (-1, 4, 3, 0, 1.0, "1", False, None)),
    ("seconds", (None, 3, {}, {"training": 1}, {"training": "1", "metrics": 1}, {"training": -1, "metrics": 0},
                 {"training": float("nan"), "metrics": 0})),
    ("fingerprint", (None, "", "0" * 16, 5)), ("kind", ("result", None, 3)), ("format", (0, 3, "2", True, None, 2.5)),
    ("run", (None, "", "{}", "[]", "null", 5, "[" * 100_000, '{"tuple": ' * 100_000))])
def test_a_checkpoint_that_says_what_cannot_be(originals, tmp_path, name, values):
    path, load = originals["checkpoint"]
    arrays, header = opened(path)
    assert header["t"] == 8 and header["taken"] == 1
    for value in values:
        if (name, value) in (("t", 1), ("t", 2.0)):
            continue
        forged(tmp_path / "x", arrays, header | {name: value})
        with pytest.raises(fs.SpecError):
            load(tmp_path / "x")


def test_values_that_cannot_be(originals, tmp_path):
    for kind, name, value in (("result", "lost", 21), ("result", "lost", -2), ("result", "ids", 7),
                              ("result", "base", 0.5), ("result", "base", np.nan), ("result", "steps", 1),
                              ("checkpoint", "lost", 9), ("result", "weights", np.nan),
                              ("checkpoint", "weights", np.inf)):
        path, load = originals[kind]
        arrays, header = opened(path)
        changed = arrays[name].copy()
        changed[0] = value
        forged(tmp_path / "x", arrays | {name: changed}, header)
        with pytest.raises(fs.SpecError):
            load(tmp_path / "x")


def test_a_header_too_deep(tmp_path):
    for text in ("[" * 200_000, '{"a":' * 200_000, "1" * 5000, "\ud800"):
        np.savez((tmp_path / "x").open("wb"), header=np.array(text))
        with pytest.raises(fs.SpecError):
            fs.Result.load(tmp_path / "x")


def rewritten(path, out, compression=zipfile.ZIP_STORED, change=lambda name, data: data, twice=()):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            for _ in range(1 + (name in twice)):
                new.writestr(name, change(name, old.read(name)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_of_other_kinds(originals, tmp_path):
    path, load = originals["result"]
    rewritten(path, tmp_path / "same")
    assert everything(load(tmp_path / "same")) == everything(load(path))
    rewritten(path, tmp_path / "deflated", zipfile.ZIP_DEFLATED)
    rewritten(path, tmp_path / "twice", twice=("weights.npy",))
    rewritten(path, tmp_path / "long", change=lambda name, data: data + b"\0" * (name == "weights.npy"))
    rewritten(path, tmp_path / "short", change=lambda name, data: data[:-1] if name == "weights.npy" else data)
    data = bytearray(path.read_bytes())  # the flag of an encrypted member, in both of its headers
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + flags] |= 1
    (tmp_path / "encrypted").write_bytes(data)
    for name in ("deflated", "twice", "long", "short", "encrypted"):
        with pytest.raises(fs.SpecError, match="damaged"):
            load(tmp_path / name)


@pytest.mark.parametrize("shape", ((10**12,), (2**40, 2**40), (2**63,), (1,) * 70, (10**6, 10**6, 10**6)))
def test_sizes_are_checked_before_memory_is_asked_for(originals, tmp_path, shape):
    """A member that claims terabytes, and one that expands to gigabytes."""
    path, load = originals["result"]
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    npy = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text
    rewritten(path, tmp_path / "x", change=lambda name, data: npy + bytes(64) if name == "weights.npy" else data)
    with pytest.raises(fs.SpecError, match="another size"):
        load(tmp_path / "x")
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as file, file.open("X.npy", "w") as member:
        member.write(npy + bytes(1 << 20))
    with pytest.raises(fs.SpecError, match=r"another size|damaged"):
        storage.numbers(tmp_path / "bomb", "data.file")


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """Many members, one body: a small file of which each part is as large as the whole."""
    np.savez(tmp_path / "a.npz", a=np.zeros(50_000))
    data = (tmp_path / "a.npz").read_bytes()
    at = data.index(b"PK\1\2")
    entry, end = data[at:data.index(b"PK\5\6")], data[data.index(b"PK\5\6"):]
    entries = b"".join(entry.replace(b"a.npy", bytes([97 + k]) + b".npy") for k in range(20))
    end = end[:8] + struct.pack("<HHII", 20, 20, len(entries), at) + end[20:]
    (tmp_path / "b").write_bytes(data[:at] + entries + end)
    for read in (lambda: storage.numbers(tmp_path / "b", "f"), lambda: storage.read(tmp_path / "b", "result")):
        with pytest.raises(fs.SpecError):
            read()


def test_only_the_table_of_records_is_made(monkeypatch):
    import sys

    made = set(codec.KINDS.values())
    assert fs.Run in made and fs.models.MLP in made and fs.Result not in made and fs.models.Model not in made
    for module in ("fastsgd.__main__", "fastsgd.cli", "fastsgd.report.machine"):
        monkeypatch.delitem(sys.modules, module, raising=False)
        for name in ("main", "app", "Path"):
            with pytest.raises(fs.SpecError, match="no part of fastsgd"):
                codec.decode(json.dumps({"record": f"{module}:{name}", "fields": {}}), {})
        assert module not in sys.modules


def test_every_record_that_a_run_can_be_made_of_is_in_the_table():
    for name in ("everything_relu2", "label_schedule_relu2", "label_table_relu2", "one_sign_relu2",
                 "sde_schedule_relu2", "floor", "fresh_sparse", "fresh", "squared_weights", "cross_entropy",
                 "replay_net"):
        codec.require_readable(general(name))


def test_files_of_the_format_before_are_read(originals, tmp_path):
    """They have neither version nor checksum, and are held to the same rules."""
    path, load = originals["result"]
    arrays, header = opened(path)
    old = {name: value for name, value in header.items() if name not in ("version", "fingerprint")} | {"format": 1}
    forged(tmp_path / "x", arrays, old, checksum=False)
    assert everything(load(tmp_path / "x")) == everything(load(path))
    forged(tmp_path / "x", arrays, header | {"format": 1})  # a new file is not one by saying so
    with pytest.raises(fs.SpecError, match="checksum"):
        load(tmp_path / "x")
    forged(tmp_path / "x", arrays | {"lost": arrays["lost"] + 99}, old, checksum=False)
    with pytest.raises(fs.SpecError, match="lost"):
        load(tmp_path / "x")


def test_headers_say_version_and_fingerprint(originals):
    for path, _ in originals.values():
        _, header = opened(path)
        assert header["version"] == fs.__version__ and len(header["fingerprint"]) == 16


@pytest.mark.parametrize("change", ({"lost": np.zeros(3)}, {"records": {}}, {"steps": np.arange(3)},
                                    {"weights": np.zeros((3, 5))}, {"saved_weights": None},
                                    {"provenance": {"a": object()}}, {"provenance": {"device": "here"}},
                                    {"provenance": None}))
def test_a_result_that_could_not_be_loaded_is_not_saved(originals, tmp_path, change):
    from dataclasses import replace

    whole = fs.Result.load(originals["result"][0])
    with pytest.raises(fs.SpecError):
        replace(whole, **change).save(tmp_path / "x")
    assert not (tmp_path / "x").exists()
