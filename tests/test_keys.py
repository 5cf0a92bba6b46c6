"""Keys: whose draws a network has; files hold the values of their own networks alone."""

import dataclasses
import os

import numpy as np
import pytest

import fastsgd as fs

DATA = fs.data.sparse_regression(n=12, d=6, nonzero=2, n_test=5, seed=1)
STREAM = fs.data.Stream(6, lambda ids, t0, t1, batch: (
    np.sin(np.add.outer(7 * ids[:, None, None] + np.arange(t0, t1)[:, None] + np.arange(batch), np.arange(6.0))),
    np.cos(3 * ids[:, None, None] + np.arange(t0, t1)[:, None] + np.arange(batch)).astype(float)))
RUN = fs.Run(fs.models.ReLU2(6, 4), DATA, fs.rules.SGD(batch_size=2), 0.05, 40, metrics=[fs.metrics.TrainLoss()],
             save=fs.SaveAt(linear=4), dtype="float64", seed=3)
CASES = {
    "plain": {}, "epochs": {"order": fs.orders.Reshuffle()}, "permuted": {"order": fs.orders.PerNetwork(replace=False)},
    "noises": {"rule": fs.rules.SGD(label_noise=0.1, gradient_noise=0.1)},
    "one label": {"rule": fs.rules.GD(label_noise=fs.LabelNoise(0.1, on="one"))},
    "fresh": {"data": fs.data.Fresh(6, fs.models.DiagonalLinear(6), {"u": np.ones(6), "v": np.ones(6)}),
              "metrics": []},
    "stream": {"data": STREAM, "metrics": []},
}


def bits(result):
    return (result.weights.tobytes(), result.lost.tobytes(), *(a.tobytes() for a in result.records.values()))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("case", CASES)
def test_networks_of_one_key_have_the_draws_of_that_network(case, backend):
    keys = [9, 2, 9, 0]
    run = RUN.replace(backend=backend, **CASES[case])
    wide = fs.train(run.replace(networks=10, ids=[9, 2, 0]))
    keyed = fs.train(run.replace(keys=keys))
    assert np.array_equal(keyed.weights, wide.weights[[0, 1, 0, 2]])
    assert not np.array_equal(keyed.weights[0], keyed.weights[1])
    assert bits(fs.train(run.replace(keys=keys, ids=[3, 1]))) == bits(fs.train(run.replace(keys=[0, 2])))


def test_per_network_fields_are_those_of_the_network_not_of_its_key():
    given = {"model": fs.models.ReLU2(6, 4, W1_scale=np.array([0.1, 0.2, 0.3])), "step_size": [0.01, 0.02, 0.03],
             "rule": fs.rules.SGD(momentum=np.array([0.1, 0.2, 0.3]))}
    keyed = fs.train(RUN.replace(keys=[7, 7, 7], **given))
    for k in range(3):
        one = {"model": fs.models.ReLU2(6, 4, W1_scale=given["model"].W1_scale[k]), "step_size": given["step_size"][k],
               "rule": fs.rules.SGD(momentum=given["rule"].momentum[k])}
        assert np.array_equal(keyed.weights[k], fs.train(RUN.replace(networks=8, ids=[7], **one)).weights[0])


@pytest.mark.parametrize("keys", [[], [-1], [2**32], [0.5], [[1]], "a", [1, 2, 3]])
def test_bad_keys_are_refused(keys, nothing_runs):
    with pytest.raises((fs.SpecError, fs.PlanError), match="keys"):
        fs.train(RUN.replace(keys=keys, networks=2))


def test_a_start_of_its_own_must_take_keys(nothing_runs):
    class Old(fs.models.ReLU2):
        def start(self, seed, ids):
            return np.ones((len(ids), self.P))

    class New(fs.models.ReLU2):
        def start(self, seed, ids, keys=None):
            return np.ones((len(ids), self.P)) * np.asarray(ids if keys is None else keys)[:, None]

    with pytest.raises(fs.PlanError, match="keys: Old"):
        fs.plan(RUN.replace(model=Old(6, 4), keys=[1]))
    assert fs.plan(RUN.replace(model=New(6, 4), keys=[5, 5])).start[1, 0] == 5


def population(N):
    grid = np.linspace(0.01, 0.1, N)
    return RUN.replace(model=fs.models.ReLU2(6, 4, W1_scale=grid), step_size=fs.StepSize(grid, decay_at=grid),
                       rule=fs.rules.SGD(momentum=grid, label_noise=grid), steps=5)


INIT = {name: np.ones((1000,) * (name == "W1") + shape) for name, shape in RUN.model.shapes().items()}
ORDER = fs.orders.Replay(np.arange(10000).reshape(1000, 5, 2) % 12)


@pytest.mark.parametrize("more", [{}, {"keys": np.arange(1000) % 7}, {"init": INIT},
                                  {"rule": fs.rules.SGD(batch_size=2), "order": ORDER}])
def test_a_file_has_the_fields_of_its_own_networks_and_their_bits(tmp_path, more):
    ids = [5, 900, 3]
    result = fs.train(population(1000).replace(ids=ids, **more))
    result.save(tmp_path / "a.npz")
    assert os.path.getsize(tmp_path / "a.npz") < 26_000
    loaded = fs.Result.load(tmp_path / "a.npz")
    assert bits(loaded) == bits(result) == bits(fs.train(loaded.run))
    assert loaded.ids.tolist() == ids and loaded.run.ids is None
    keys = np.arange(1000) if "keys" not in more else more["keys"]
    assert loaded.run.keys.tolist() == keys[ids].tolist()
    assert loaded.run.step_size.base.tolist() == result.base.tolist()
    loaded.save(tmp_path / "b.npz")
    assert bits(fs.Result.load(tmp_path / "b.npz")) == bits(result)
    xarray = pytest.importorskip("xarray")
    xarray.testing.assert_identical(loaded.to_xarray().drop_attrs(), result.to_xarray().drop_attrs())


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays(fs.models.DiagonalLinear):
    """A model with an array that has nothing to do with networks, but their number."""

    more: object = None


def test_arrays_that_are_not_per_network_stay(tmp_path):
    model = Arrays(6, u0=np.linspace(0.1, 1, 4), more=np.arange(4.0))
    result = fs.train(RUN.replace(model=model, ids=[2, 0]))
    result.save(tmp_path / "a.npz", classes=[Arrays])
    again = fs.Result.load(tmp_path / "a.npz", classes=[Arrays])
    assert bits(again) == bits(result) == bits(fs.train(again.run))
