"""Losses with numbers of each network: factor, weights, bounds, constants of one's own; each as the run of it alone."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from general_cases import NETWORKS, D, general, labelled

import fastsgd as fs

M, R, L = fs.models, fs.rules, fs.losses
EACH = np.linspace(0.2, 1.5, NETWORKS)
WEIGHTS = np.random.default_rng(0).uniform(0.2, 2, (NETWORKS, 2))
NET, TWO = M.MLP(D, 4, activation="tanh"), M.MLP(D, 4, outputs=2, activation="tanh")
Q = fs.metrics
MEASURED = [Q.TrainLoss(), Q.TestLoss(), Q.GradientNorm(), Q.Sharpness()]


def huber(h, y, delta):
    r = (h - y).abs()
    return torch.where(r < delta, 0.5 * r * r, delta * (r - 0.5 * delta))


@dataclass(frozen=True, eq=False)
class Quartic(L.Loss):
    """A loss of one's own, which is traced."""

    factor: object = 1.0
    name = "quartic"
    noisy = True

    def value(self, f, y, outputs=1):
        return self.factor * (f - y) ** 4

    def refuse(self, outputs, y):
        return None


CASES = {  # name: (fields, {the loss's fields of network k})
    "factor": ({"model": NET, "loss": L.Squared(EACH)}, lambda k: L.Squared(EACH[k])),
    "diagonal": ({"model": M.DiagonalLinear(D, u0=0.5, v0=0.2), "loss": L.Squared(EACH), "rule": R.GD()},
                 lambda k: L.Squared(EACH[k])),
    "weights": ({"model": TWO, "loss": L.Squared(EACH, WEIGHTS), "rule": R.SGD(batch_size=2, label_noise=0.1)},
                lambda k: L.Squared(EACH[k], WEIGHTS[k])),
    "weights_alone": ({"model": TWO, "loss": L.Squared(0.7, WEIGHTS)}, lambda k: L.Squared(0.7, WEIGHTS[k])),
    "weights_shared": ({"model": TWO, "loss": L.Squared(EACH, [2.0, 0.5]), "rule": R.SAM(rho=0.1)},
                       lambda k: L.Squared(EACH[k], [2.0, 0.5])),
    "logistic": ({"model": NET, "loss": L.Logistic(EACH), "rule": R.Adam(batch_size=2)}, lambda k: L.Logistic(EACH[k])),
    "hinge": ({"model": NET, "loss": L.Hinge(EACH), "rule": R.SAM(rho=0.1, batch_size=2, per_sample=True)},
              lambda k: L.Hinge(EACH[k])),
    "cross_entropy": ({"model": M.MLP(D, 4, outputs=3), "loss": L.CrossEntropy(EACH)},
                      lambda k: L.CrossEntropy(EACH[k])),
    "one_label": ({"model": NET, "loss": L.Squared(EACH), "rule": R.GD(label_noise=fs.LabelNoise(0.5, on="one"))},
                  lambda k: L.Squared(EACH[k])),
    "huber": ({"model": NET, "loss": L.Function(huber, EACH, constants={"delta": 0.5 * EACH})},
              lambda k: L.Function(huber, EACH[k], constants={"delta": 0.5 * EACH[k]})),
    "delta": ({"model": NET, "loss": L.Function(huber, constants={"delta": 0.3})},
              lambda k: L.Function(lambda h, y: huber(h, y, 0.3))),
    "quartic": ({"model": NET, "loss": Quartic(EACH)}, lambda k: Quartic(float(EACH[k]))),
    "flow": ({"model": NET, "loss": L.Squared(EACH), "rule": R.Flow(rtol=1e-6)}, lambda k: L.Squared(EACH[k])),
    "sde": ({"model": NET, "loss": L.Squared(EACH), "rule": R.SDE(sgd_step=0.1, loss_level=0.5)},
            lambda k: L.Squared(EACH[k])),
}
SOME = (0, 7)


def run_of(name, dtype="float64", **changes):
    fields = CASES[name][0]
    data = labelled(fields["model"], fields["loss"]).astype(dtype)
    metrics = MEASURED if name == "weights" else MEASURED[:1 + (name == "huber")]
    return general(fields | {"data": data}, dtype, **({"metrics": metrics} | changes))


@pytest.mark.parametrize("name", CASES)
def test_each_network_is_trained_and_measured_as_alone(name):
    run = run_of(name)
    whole, records = fs.train(run), {}
    assert whole.provenance["backend"] == "cpu" and whole.survived.all()
    for k in SOME:
        alone = fs.train(run.replace(loss=CASES[name][1](k), ids=[k], networks=NETWORKS))
        np.testing.assert_allclose(whole.saved_weights[k], alone.saved_weights[0], rtol=1e-11, atol=1e-13)
        records |= {metric: (whole.numpy(metric)[k], alone.numpy(metric)[0]) for metric in whole.records}
        for got, want in records.values():
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    part = fs.train(run.replace(ids=list(SOME)))
    assert part.saved_weights.tobytes() == whole.saved_weights[list(SOME)].tobytes()
    for metric in whole.records:
        np.testing.assert_allclose(part.numpy(metric), whole.numpy(metric)[list(SOME)], rtol=1e-12, atol=1e-12)
    witness = fs.train(run.replace(backend="reference"))
    np.testing.assert_allclose(whole.saved_weights, witness.saved_weights, rtol=1e-9, atol=1e-12)
    for metric in whole.records:
        np.testing.assert_allclose(whole.numpy(metric), witness.numpy(metric), rtol=1e-7, atol=1e-9)


@pytest.mark.filterwarnings("error")
def test_numbers_of_float32_are_checked_without_a_warning():
    run = general({"model": TWO, "loss": L.Squared((EACH * 1e30).astype("float32"), WEIGHTS.astype("float32") * 1e25)},
                  "float32", metrics=())
    assert fs.plan(run).losses[:, 0].min() > 0


def test_one_loss_for_all_has_the_bits_of_that_for_each():
    run = run_of("factor", "float32", loss=L.Squared(0.7), metrics=())
    assert fs.train(run.replace(loss=L.Squared(np.full(NETWORKS, 0.7)))).weights.tobytes() == fs.train(
        run, tuning=fs.Tuning(compiled=False)).weights.tobytes()


@pytest.mark.parametrize("backend", ("cpu", "reference"))
def test_each_network_is_lost_above_its_own_bound(backend):
    bounds = np.where(np.arange(NETWORKS) % 2, 0.8, np.inf)
    for rule in (R.SGD(lost_above=bounds), R.SGD(lost_above=bounds, batch_size=2, momentum=0.1)):
        run = general({"model": NET, "rule": rule}, metrics=(), backend=backend, step_size=0.03)
        got = fs.train(run)
        want = [fs.train(run.replace(rule=replace(rule, lost_above=bound), networks=NETWORKS)).lost
                for bound in (np.inf, 0.8)]
        assert got.lost.tolist() == np.where(bounds == 0.8, want[1], want[0]).tolist()
        assert (got.lost >= 0).any() and (got.lost[::2] < 0).all()


def test_choices_files_and_going_on(tmp_path):
    run = run_of("huber", step_size=0.03, metrics=[Q.TrainLoss()])
    whole = fs.train(run, checkpoint=fs.Checkpoint(tmp_path / "c", every=0), tuning=fs.Tuning(segment=4))
    for tuning in (fs.Tuning(lanes=1, threads=2), fs.Tuning(segment=5)):
        assert fs.train(run, tuning=tuning).saved_weights.tobytes() == whole.saved_weights.tobytes()
    whole.save(tmp_path / "r.npz")
    back = fs.Result.load(tmp_path / "r.npz")
    assert back.run.loss.function is None and fs.resume(tmp_path / "c").weights.tobytes() == whole.weights.tobytes()
    assert fs.train(back.run).weights.tobytes() == whole.weights.tobytes()
    again = fs.train(back.run.replace(backend="reference"))
    np.testing.assert_allclose(again.numpy("train_loss"), whole.numpy("train_loss"), rtol=1e-9)
    picked = whole.select(np.arange(NETWORKS) > 4)
    assert fs.extend(picked, steps=20).weights.tobytes() == fs.train(run.replace(steps=20)).weights[5:].tobytes()
    both = fs.concat([whole.select([1, 2]), whole.select([7])])
    np.testing.assert_array_equal(both.run.loss.factor, EACH[[1, 2, 7]])
    forked = fs.fork(picked, copies=2, steps=20)
    np.testing.assert_array_equal(forked.run.loss.factor, EACH[5:].repeat(2))
    np.testing.assert_array_equal(forked.run.loss.constants["delta"], 0.5 * EACH[5:].repeat(2))


def test_metrics_of_arrays_and_stops_take_the_loss_of_each_network():
    run = run_of("factor", save=None, metrics=[Q.TrainLoss()])
    result = fs.train(run)
    loss = fs.functional.loss(NET, result.weights, run.data.X, run.data.y, loss=run.loss)
    np.testing.assert_allclose(loss, result.numpy("train_loss")[:, -1], rtol=1e-12)
    stopped = fs.train(run.replace(stop=[fs.stops.Below("train_loss", 0.5, every=4)]))
    assert len(set(stopped.stopped)) > 2 and (stopped.stopped[EACH < 0.3] == 0).all()
    with pytest.raises(fs.SpecError, match=r"polish takes one loss; .*loss.picked"):
        fs.polish(result)
    pytest.importorskip("xarray")
    np.testing.assert_array_equal(result.to_xarray()["loss.factor"], EACH)


def test_values_are_cells_of_sweeps_with_the_bits_of_their_own_runs(tmp_path):
    pytest.importorskip("xarray")
    run = run_of("factor", loss=L.Squared(0.5), step_size=0.03, save=None, metrics=[Q.TrainLoss()])
    grid = {"loss.factor": [0.5, 1.0], "rule.lost_above": [0.9, 5.0]}
    ds = fs.Sweep(run, grid=grid, replicas=2).run(tmp_path / "s").open()
    alone = fs.train(run.replace(loss=L.Squared(1.0), rule=R.SGD(lost_above=5.0), keys=np.arange(2)))
    assert np.array_equal(ds["train_loss"].values[1, 1], alone.numpy("train_loss"))


def test_a_card_has_the_same_bits(a_card):
    for name in ("weights", "huber"):
        run = run_of(name, "float32", metrics=[Q.TrainLoss()])
        here, there = fs.train(run), fs.train(run.replace(backend="cuda"))
        assert there.provenance["backend"] == "cuda" and there.saved_weights.tobytes() == here.saved_weights.tobytes()
        np.testing.assert_allclose(there.numpy("train_loss"), here.numpy("train_loss"), rtol=1e-12)


REFUSED = [
    (lambda: L.Squared([0.5, -1.0]), "loss.factor: -1.0 given, expected numbers > 0"),
    (lambda: L.Squared([]), "is empty"),
    (lambda: L.Squared([[0.5]]), "loss.factor: has shape"),
    (lambda: L.Squared(0.5, np.ones((2, 2, 2))), "loss.weights"),
    (lambda: R.SGD(lost_above=[1.0, 0.0]), "rule.lost_above: 0.0 given"),
    (lambda: L.Function(huber, constants={"h": 1.0}), "taken"),
    (lambda: L.Function(huber, constants=3), "loss.constants"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_number_of_each_network(make, words):
    with pytest.raises(fs.SpecError, match=words):
        make()


def test_lengths_and_kernels_are_checked_before_the_run():
    for changes, words in (({"loss": L.Squared([0.5, 1.0]), "step_size": EACH}, "loss.factor has 2"),
                           ({"rule": R.SGD(lost_above=[1.0, 2.0]), "step_size": EACH}, "rule.lost_above has 2"),
                           ({"loss": L.Squared(EACH * 1e-60)}, "loss.factor: twice itself")):
        run = general({"model": NET}, "float32", **changes)
        with pytest.raises(fs.PlanError, match=words):
            fs.plan(run)
    run = general({"model": TWO, "loss": L.Squared(weights=np.ones((NETWORKS, 3)))})
    with pytest.raises(fs.PlanError, match="3 entries, the model has 2"):
        fs.plan(run)
    for changes in ({"loss": L.Squared(EACH)}, {"rule": R.SGD(lost_above=EACH)}):
        with pytest.raises(fs.BackendUnavailable, match="one loss for all networks"):
            fs.plan(general({"model": M.ReLU2(D, 4)} | changes, "float32", backend="triton"))
