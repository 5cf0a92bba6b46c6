"""Metrics of hidden units and spectra: small networks by hand, the authors' printed numbers, the sequential rule."""

import numpy as np
import pytest
from cases import problem
from tolerances import METRIC, PAPER_FLOAT32

import fastsgd as fs
from fastsgd.metrics.feature_sparsity import sparsity
from fastsgd.reproduce.study import request

M = fs.metrics
NET = fs.models.ReLU2(1, 4, output_bias=False)
DATA = fs.Dataset([[-1.0], [1.0], [2.0]], [0.0, 0.0, 0.0])


def hand(a=(1.0, 1.0, 1.0, 1.0), start=False):
    """One network with Phi = [[0, 1, 0, 0], [1, 0, 0, .04], [2, 0, 0, .08]]: on right, on left, dead, a small copy."""
    left = -1.0 if not start else 1.0
    return {"W1": np.array([[[1.0], [left], [-1.0], [0.04]]]), "b1": np.array([[0.0, 0.0, -3.0, 0.0]]),
            "W2": np.array([[a]])}


def of(metric, params=None, model=NET, data=DATA, **more):
    return metric.compute(model, hand() if params is None else params, data, fs.losses.Squared(), **more)[0]


def test_counts_of_a_network_by_hand():
    assert of(M.ActiveUnits()) == 3 and of(M.ActiveUnits(0.05)) == 3 and of(M.ActiveUnits(0.1)) == 2
    assert of(M.ActiveUnits(0.05, relative=True)) == 2  # 0.08 is below 5 % of 2
    assert of(M.ActivationDensity()) == 5 / 12
    assert of(M.DistinctUnits(threshold=0.0)) == 2  # the first unit is merged into its small copy
    assert of(M.DistinctUnits(threshold=0.1)) == 2  # the copy is not alive; the other two correlate at 0.87
    assert of(M.DistinctUnits(tau=0.85, threshold=0.1)) == 1
    assert of(M.PatternDistance(), start=hand(start=True)) == 3 / 12
    assert of(M.FeatureSparsity(normalise=False)) == 3 / 12


def test_spectra_of_a_network_by_hand():
    one, two = np.sqrt(5 * (1 + 0.04**2)), 1.0  # Phi has rank two, with orthogonal rows and columns
    assert of(M.NuclearNorm()) == pytest.approx(one + two, rel=1e-14)
    assert of(M.SchattenQuasiNorm(0.5)) == pytest.approx((np.sqrt(one) + 1) ** 2, rel=1e-14)
    assert of(M.SchattenQuasiNorm(1.0)) == pytest.approx(one + two, rel=1e-14)
    assert of(M.CountAbove(1.5)) == 1 and of(M.CountAbove()) == 2
    a = (2.0, -3.0, 7.0, 0.0)
    assert of(M.NuclearNorm("weighted"), hand(a)) == pytest.approx(2 * np.sqrt(5) + 3, rel=1e-14)
    assert of(M.NuclearNorm("neurons"), hand(a)) == pytest.approx(np.sqrt(2**2 + 3**2 + 7**2), rel=1e-14)
    share = one**2 / (one**2 + two**2)
    for metric, want in ((M.FeatureRank(share - 0.01, "none"), 1), (M.FeatureRank(share + 0.01, "none"), 2)):
        assert of(metric) == want
    p = np.array([np.sqrt(2), 1]) / (1 + np.sqrt(2))  # rows of unit length: sigma = sqrt 2 and 1
    points = DATA.X
    assert of(M.SpectrumEntropy(points=points)) == pytest.approx(-(p * np.log(p)).sum(), rel=1e-14)
    assert of(M.EffectiveRank(points=points)) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-14)


def test_feature_rank_counts_principal_components():
    rng = np.random.default_rng(0)
    model, data = fs.models.ReLU2(4, 30), problem(4, n=20)
    params = model.unflatten(rng.standard_normal((6, model.P)))
    for centre, axis in (("row", 1), ("column", 0)):
        for share in (0.5, 0.9, 0.9999):
            want = []
            for W, b in zip(params["W1"], params["b1"], strict=True):
                phi = np.maximum(data.X @ W.T + b, 0)
                phi = phi - phi.mean(axis=axis, keepdims=True)
                explained = np.linalg.eigvalsh(phi.T @ phi)[::-1].cumsum()
                want.append(np.searchsorted(explained / explained[-1], share, side="right") + 1)
            got = M.FeatureRank(share, centre).compute(model, params, data, None)
            np.testing.assert_array_equal(got, want)


def test_layers_are_measured_one_by_one():
    model, data = fs.models.MLP(3, (6, 5), activation="relu"), problem(3)
    params = model.unflatten(np.random.default_rng(0).standard_normal((4, model.P)))
    for kind in (M.ActiveUnits, M.ActivationDensity, M.DistinctUnits, M.FeatureRank, M.FeatureSparsity, M.NuclearNorm,
                 M.SchattenQuasiNorm, M.CountAbove):
        both = kind().compute(model, params, data, None)
        for k, layer in enumerate(("hidden1", "hidden2")):
            np.testing.assert_array_equal(kind(layer=layer).compute(model, params, data, None), both[:, k])
    first = fs.models.ReLU2(3, 6)
    alike = first.unflatten(np.zeros((4, first.P))) | {"W1": params["W1"], "b1": params["b1"]}
    one = M.FeatureSparsity(layer="hidden1").compute(model, params, data, None)
    np.testing.assert_array_equal(one, M.FeatureSparsity().compute(first, alike, data, None))


PRINTED = [("S4", "A", {"nuclear_features": M.NuclearNorm("weighted"), "active": M.ActivationDensity(),
                        "pattern_distance": M.PatternDistance()}),
           ("S7", "0.13", {"nuclear_neurons": M.NuclearNorm("neurons"), "pattern_distance": M.PatternDistance()})]


@pytest.mark.parametrize(("name", "label", "metrics"), PRINTED, ids=[f"{c[0]} {c[1]}" for c in PRINTED])
def test_the_authors_printed_digits(name, label, metrics):
    system = fs.data.paper(name)
    paper_run = next(run for run in system.runs if label in run.label)
    result = fs.train(request(system, [paper_run], fs.orders.Replay(system.order()),
                              fs.SaveAt(steps=[system.printed_at]), wanted=tuple(metrics.values())))
    for key, metric in metrics.items():
        np.testing.assert_allclose(result.numpy(metric.name)[0, 0], paper_run.printed[key], rtol=PAPER_FLOAT32)


def three_layers_by_hand(system, run):
    """Weights of S9 after its printed step: the backward pass written out, one sample at a time, in NumPy."""
    W1, b1, W2, b2, W3, b3 = (system.init[name].copy() for name in ("W1", "b1", "W2", "b2", "W3", "b3"))
    X, y, order, rate = system.data.X, system.data.y, system.order(), run.step_sizes(system.steps)
    for t in range(system.printed_at):
        x, eta = X[order[t]], rate[t]
        p = np.maximum(W1 @ x + b1, 0)
        q = np.maximum(W2 @ p + b2, 0)
        g = 2 * system.loss_factor * ((W3 @ q + b3)[0] - y[order[t]])
        dq = g * W3[0] * (q > 0)
        dp = (W2.T @ dq) * (p > 0)
        W3 -= eta * g * q
        b3 -= eta * g
        W2 -= eta * np.outer(dq, p)
        b2 -= eta * dq
        W1 -= eta * np.outer(dp, x)
        b1 -= eta * dp
    return dict(zip(system.init, (a[None] for a in (W1, b1, W2, b2, W3, b3)), strict=True))


def test_the_authors_three_layer_network():
    """Entropy of the spectrum as printed; sparsity of both layers as plotted, at the start and at the end."""
    system = fs.data.paper("S9")
    run, model = system.runs[0], fs.models.MLP(5, (10, 10))
    start = {name: a[None] for name, a in system.init.items()}
    end = three_layers_by_hand(system, run)
    printed = run.printed
    entropy = M.SpectrumEntropy(points=system.rank_points).compute(model, end, system.data, None)
    np.testing.assert_allclose(entropy, printed["entropy"], rtol=PAPER_FLOAT32)
    for when, params in (("start", start), ("end", end)):
        got = M.FeatureSparsity(system.sparsity_threshold).compute(model, params, system.data, None)
        np.testing.assert_allclose(got[0], [printed[f"sparsity1_{when}"], printed[f"sparsity2_{when}"]], rtol=METRIC)


@pytest.mark.parametrize("h", (3, 8, 21, 150))
def test_constant_units_are_no_copies_whatever_their_mean_rounds_to(h):
    """Six times 0.1 is no multiple of six: the mean of a constant column is not always the constant."""
    rng = np.random.default_rng(h)
    phi = np.repeat(rng.uniform(0.1, 1, (9, 1, h)), 7, axis=1)
    assert (np.abs(phi - phi.mean(axis=1, keepdims=True)).max(axis=1) > 0).any(), "some means are rounded"
    np.testing.assert_array_equal(sparsity(phi, 0.99, False), 1)
    np.testing.assert_array_equal(fs.metrics.feature_sparsity(phi, 0.99, normalise=False), 1)
    phi[:, 3, 0] = np.nextafter(phi[:, 3, 0], 2)  # one that moves by a unit in the last place still varies
    phi[:, :, -1] = phi[:, :, 0]
    np.testing.assert_allclose(fs.metrics.feature_sparsity(phi, 0.99, normalise=False), (h - 1) / h)
    np.testing.assert_allclose(sparsity(phi, 0.99, False), (h - 1) / h)
