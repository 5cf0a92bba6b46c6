"""Numbers of each parameter, and the point of a localisation, in files, members, joined results, labels and configs."""

import numpy as np
import pytest
from general_cases import D, general

import fastsgd as fs
from fastsgd import config
from fastsgd.lowering.work import Work

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


@pytest.mark.parametrize("rule", [
    {"weight_decay": {"u": 0.0, "v": np.zeros(N)}}, {"step_scale": {"u": 1, "v": np.ones(N)}},
    {"localisation": {"u": 0}}, {"localisation": R.Localisation(0.0, POINT)},
    {"weight_decay": np.zeros(N), "decoupled": True}])
@pytest.mark.parametrize("model", [MODEL, M.DiagonalLinear(D, u0=0.5), M.MLP(D, 3)])
def test_what_changes_no_network_is_as_if_absent(rule, model):
    names = dict(zip(POINT, model.shapes(), strict=False))
    rule = {key: {names[name]: a for name, a in value.items()} if isinstance(value, dict) else value
            for key, value in rule.items()}
    if model is not MODEL and isinstance(rule.get("localisation"), R.Localisation):
        rule["localisation"] = 0.0
    given, plain = (run(model=model, rule=R.SGD(**more), dtype="float32", steps=40) for more in (rule, {}))
    assert Work(given).fused == Work(plain).fused and Work(given).plain and Work(given).stepwise == Work(plain).stepwise
    assert fs.train(given).weights.tobytes() == fs.train(plain).weights.tobytes()


SOME = np.where(np.arange(N) < 3, 0.0, EACH)


RULES = [
    R.SGD(momentum=SOME, average=0.5), R.SGD(weight_decay=SOME), R.SGD(weight_decay={"u": SOME}, decoupled=True),
    R.SGD(localisation=SOME), R.SGD(step_scale={"u": 1 + SOME}), R.SGD(momentum=0.5, dampening=SOME),
    R.SAM(rho=0.1, localisation=R.Localisation({"v": SOME}, POINT)), R.Adam(balance_penalty=SOME)]


@pytest.mark.parametrize(("backend", "rule"), [
    *(("cpu", rule) for rule in RULES), ("reference", RULES[0]), ("cuda", RULES[6])])
def test_what_is_0_for_some_networks_alone_is_in_use(backend, rule, tmp_path):
    """Networks of which a number is 0 have the bits that they have beside those of which it is not."""
    asked = run(rule=rule, backend=backend)
    whole = fs.train(asked)
    part, one = (fs.train(asked.replace(ids=ids)) for ids in ([1, 2], [0]))
    assert part.weights.tobytes() == whole.weights[[1, 2]].tobytes()
    assert one.weights.tobytes() == whole.weights[[0]].tobytes()
    if whole.buffers is not None:
        assert part.buffers.tobytes() == whole.buffers[[1, 2]].tobytes()
    if backend != "cpu":
        return
    for number, result in enumerate((part, whole.select([1, 2]))):
        result.save(tmp_path / f"{number}.npz")
        again = fs.Result.load(tmp_path / f"{number}.npz")
        assert fs.train(again.run).weights.tobytes() == part.weights.tobytes()
    assert fs.extend(again, 20).weights.tobytes() == fs.extend(whole, 20).weights[[1, 2]].tobytes()
    joined = fs.concat([fs.train(asked.replace(ids=[0, 1, 2])), fs.train(asked.replace(ids=[3, 4]))])
    assert joined.weights.tobytes() == whole.weights.tobytes() and joined.run.ids is None
    with pytest.raises(fs.SpecError, match="0 for these networks and not for all"):
        fs.fork(part, steps=20)


def test_a_cell_of_a_sweep_is_what_it_is_alone(tmp_path):
    pytest.importorskip("zarr")
    alone = run(rule=R.SGD(step_scale={"u": 1.0}), dtype="float32", steps=40).replace(networks=3)
    alone = alone.replace(save=fs.SaveAt(linear=3))
    sweep = fs.Sweep(alone.replace(networks=None), grid={"rule.step_scale.u": [1.0, 0.5]}, replicas=3)
    stored = sweep.run(tmp_path / "scales.zarr").open()
    np.testing.assert_array_equal(stored["train_loss"].values[0], fs.train(alone)["train_loss"].numpy())


def test_the_point_is_carried_and_stays_where_it_is():
    result = fs.train(run())
    names = RULE.buffers()
    assert names == ("momentum", "point", "average")
    point = np.concatenate([POINT["u"], POINT["v"]])
    np.testing.assert_array_equal(result.buffers[:, 1], np.broadcast_to(point, (N, 2 * D)))
    near = fs.train(run(rule=R.SGD(localisation=0.3)))
    np.testing.assert_array_equal(near.buffers[:, 0], fs.plan(run()).start)


def test_a_point_beyond_the_dtype_is_refused():
    far = R.SGD(localisation=R.Localisation(0.1, POINT | {"v": np.full(D, 1e39)}))
    with pytest.raises(fs.PlanError, match=r"localisation\.at\.v: 1e\+39 is too large for float32"):
        fs.plan(run(rule=far, dtype="float32"))
    fs.plan(run(rule=far))


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
    np.testing.assert_array_equal(labelled.coords["rule.weight_decay.u"], EACH)
    assert not any(".at" in str(name) for name in labelled.coords)


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
