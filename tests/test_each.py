"""Numbers of each parameter, and the point of a localisation, in files, members, joined results, labels and configs."""

import numpy as np
import pytest
from general_cases import D, general

import fastsgd as fs
from fastsgd import config

M, R = fs.models, fs.rules
N = D  # as many networks as inputs: arrays of the model's shape must not be taken for arrays of networks
MODEL = M.DiagonalLinear(D, u0=0.5, v0=0.2)
EACH = np.linspace(0.1, 0.5, N)
POINT = {"u": np.arange(D) / 10.0, "v": np.ones(D)}
RULE = R.SGD(weight_decay={"u": EACH}, step_scale={"v": EACH}, momentum=0.5, average=0.5, clip_norm=EACH,
             localisation=R.Localisation({"u": EACH, "v": 0.2}, POINT))


def run(**changes):
    return general({"model": MODEL, "rule": RULE}, networks=N, step_size=0.05, **changes)


def test_members_alone_are_members_of_all():
    whole = fs.train(run())
    for ids in ([3, 1], [0], [4, 3, 2, 1, 0]):
        part = fs.train(run(ids=ids))
        assert part.weights.tobytes() == whole.weights[ids].tobytes()
        assert part.buffers.tobytes() == whole.buffers[ids].tobytes()


def test_the_point_is_carried_and_stays_where_it_is():
    result = fs.train(run())
    names = RULE.buffers()
    assert names == ("momentum", "point", "average")
    point = np.concatenate([POINT["u"], POINT["v"]])
    np.testing.assert_array_equal(result.buffers[:, 1], np.broadcast_to(point, (N, 2 * D)))
    near = fs.train(run(rule=R.SGD(localisation=0.3)))
    np.testing.assert_array_equal(near.buffers[:, 0], fs.plan(run()).start)


def test_files_checkpoints_and_longer_runs(tmp_path):
    result = fs.train(run())
    result.save(tmp_path / "run.npz")
    again = fs.Result.load(tmp_path / "run.npz").run
    assert again.rule.localisation.at["u"].tolist() == POINT["u"].tolist()
    assert fs.train(again).weights.tobytes() == result.weights.tobytes()
    path = str(tmp_path / "run.ckpt")

    class Enough(Exception):
        pass

    def stop(t, *rest):
        if t >= 5:
            raise Enough

    with pytest.raises(Enough):
        fs.train(fs.plan(run(save=fs.SaveAt(linear=1)), fs.Tuning(segment=5)), checkpoint=fs.Checkpoint(path, every=0),
                 progress=stop)
    whole = fs.train(run(save=fs.SaveAt(linear=1)))
    with pytest.warns(UserWarning, match="it goes on"):
        rest = fs.train(run(save=fs.SaveAt(linear=1)), checkpoint=path)
    assert rest.weights.tobytes() == whole.weights.tobytes()
    longer = fs.extend(whole, 20)
    assert longer.weights.tobytes() == fs.train(run(save=fs.SaveAt(linear=1), steps=20)).weights.tobytes()


def test_results_are_joined_and_labelled():
    first, last = fs.train(run(ids=[0, 1])), fs.train(run(ids=[2, 3, 4]))
    whole = fs.concat([first, last])
    assert whole.weights.tobytes() == fs.train(run()).weights.tobytes()
    other = R.SGD(localisation=R.Localisation(0.2, {"u": np.zeros(D), "v": np.ones(D)}))
    pair = [fs.train(run(rule=R.SGD(localisation=R.Localisation(0.2, POINT)), ids=[0])),
            fs.train(run(rule=other, ids=[1]))]
    with pytest.raises(fs.PlanError, match=r"localisation\.at differs"):
        fs.concat(pair)
    xarray = pytest.importorskip("xarray")
    labelled = fs.train(run()).to_xarray()
    assert isinstance(labelled, xarray.Dataset)
    np.testing.assert_array_equal(labelled.coords["rule.weight_decay['u']"], EACH)
    assert not any("at[" in str(name) or ".at" in str(name) for name in labelled.coords)


def test_a_file_describes_it(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("""
steps = 5
dtype = "float64"
model = {type = "DiagonalLinear", d = 2}
data = {type = "sparse_regression", n = 5, d = 2, nonzero = 1, seed = 0}
step_size = 0.1
order = {type = "Reshuffle", drop_last = true}
[rule]
type = "SGD"
batch_size = 2
step_scale = {u = [0.5, 1.0]}
weight_decay = {v = 0.1}
clip_norm = 1.0
localisation = {gamma = 0.5, at = {u = [1, 2], v = [3, 4]}}
gradient_noise = {sigma = 0.1, kind = "stable", alpha = 1.5}
""")
    made = config.read(path)
    assert made.rule.step_scale["u"].tolist() == [0.5, 1.0] and made.rule.localisation.at["v"].tolist() == [3, 4]
    assert made.order.drop_last and fs.train(made).survived.all()
    path.write_text(path.read_text().replace("{gamma = 0.5, at = {u = [1, 2], v = [3, 4]}}", "{u = 0.5}"))
    assert config.read(path).rule.localisation.gamma["u"] == 0.5


def test_a_start_by_hand_needs_no_names():
    W = np.full((N, 2 * D), 0.3)
    near = R.SGD(localisation=EACH)
    buffers = fs.functional.fresh_buffers(near, W)
    np.testing.assert_array_equal(buffers[:, 0], W)
    with pytest.raises(fs.SpecError, match="names of parameters are not known"):
        fs.functional.fresh_buffers(RULE, W)
    X, y = np.eye(D), np.ones(D)
    fs.functional.advance_(MODEL, W, X, y, [0, 1, 2], 0.1, rule=near, buffers=buffers)
    assert (W != 0.3).any()
