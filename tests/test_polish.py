"""The polish: critical points that are known, Hessians of an independent kind, what it does with what cannot be."""

from itertools import pairwise

import numpy as np
import pytest
from general_cases import labelled
from scipy.optimize import root

import fastsgd as fs

M, R, L = fs.models, fs.rules, fs.losses
MODEL = M.MLP(2, 3, activation="tanh")
RNG = np.random.default_rng(0)
DATA = fs.Dataset(RNG.standard_normal((40, 2)), RNG.standard_normal(40))


def central(f, w, h):
    """Jacobian of f at w by differences of fourth order."""
    def at(k, s):
        e = np.zeros(len(w))
        e[k] = s * h
        return f(w + e)

    return np.stack([(8 * (at(k, 1) - at(k, -1)) - (at(k, 2) - at(k, -2))) / (12 * h) for k in range(len(w))], axis=-1)


def by_hand(w, decay=0.0):
    """Gradient of the mean loss of MODEL, written out."""
    W1, b1, W2, b2 = w[:6].reshape(3, 2), w[6:9], w[9:12], w[12]
    h = np.tanh(DATA.X @ W1.T + b1)
    e = (h @ W2 + b2 - DATA.y) / len(DATA.y)
    d = (e[:, None] * W2) * (1 - h**2)
    return np.concatenate([(d.T @ DATA.X).ravel(), d.sum(0), h.T @ e, [e.sum()]]) + decay * w


DECAY = 0.02


def flowing(time, **fields):
    return fs.train(MODEL, DATA, rule=R.Flow(weight_decay=DECAY), step_size=time, steps=1, dtype="float64", **fields)


def test_flows_end_at_critical_points_that_another_solver_finds():
    near = flowing(300.0, networks=6)
    got = fs.polish(near)
    assert got.converged.all() and (got.gradient_norm <= 1e-12).all() and (got.steps > 0).all()
    for k in range(6):
        w = got.weights[k]
        assert np.linalg.norm(by_hand(w, DECAY)) < 1e-12
        H = central(lambda w: by_hand(w, DECAY), w, 1e-3)
        np.testing.assert_allclose(got.eigenvalues[k], np.linalg.eigvalsh((H + H.T) / 2), atol=1e-8)
        np.testing.assert_allclose(got.loss[k], ((MODEL.predict(w, DATA.X) - DATA.y)**2).mean() / 2
                                   + DECAY / 2 * (w**2).sum(), rtol=1e-12)
        np.testing.assert_allclose(got.moved[k], np.linalg.norm(w - near.weights[k]))
        other = root(lambda w: by_hand(w, DECAY), w + 1e-5, method="hybr", tol=1e-14)
        np.testing.assert_allclose(other.x, w, atol=1e-9 / np.abs(got.eigenvalues[k]).min())
    np.testing.assert_array_equal(got.params["W2"].reshape(6, 3), got.weights[:, 9:12])


def test_convergence_is_quadratic():
    near = flowing(300.0, networks=3)
    sizes = [fs.polish(near, steps=steps, tol=1e-300).gradient_norm for steps in range(12)]
    for k in range(3):
        end = np.array([size[k] for size in sizes])
        assert end[-1] < 1e-14 and (np.diff(end) <= 0).all()
        fast = [(a, b) for a, b in pairwise(end) if 1e-7 < a < 1e-3]
        assert fast and all(b < 1e3 * a**1.8 for a, b in fast)


def test_saddles_are_found_and_told():
    """u v of a diagonal network: the origin is a saddle of index d where X^T y has no zeros; minima lie on a curve."""
    X = RNG.standard_normal((8, 3))
    data = fs.Dataset(X, X @ np.array([1.0, -2.0, 0.5]))
    model = M.DiagonalLinear(3)
    saddle = fs.polish(model, data, {"u": np.full((2, 3), 1e-3), "v": np.array([[1e-3], [-2e-3]]) * np.ones((2, 3))})
    assert saddle.converged.all() and np.abs(saddle.weights).max() < 1e-9
    pull = np.abs(X.T @ data.y / 8)
    np.testing.assert_allclose(saddle.eigenvalues, np.tile(np.sort(np.concatenate([pull, -pull])), (2, 1)), atol=1e-9)
    assert saddle.index().tolist() == [3, 3]
    valley = fs.polish(fs.flow(model, data, [20.0], init={"u": np.full(3, 1.0), "v": np.full((2, 3), [[0.5], [0.3]])}))
    assert valley.converged.all() and (valley.loss < 1e-20).all() and valley.index().tolist() == [0, 0]
    assert (np.abs(valley.eigenvalues[:, :3]) < 1e-9).all() and (valley.eigenvalues[:, 3:] > 1e-2).all()


def test_weight_decay_fixed_parameters_and_other_losses():
    decay = np.array([0.01, 0.1])
    got = fs.polish(fs.train(MODEL, DATA, rule=R.Flow(weight_decay=decay), step_size=100.0, steps=1, dtype="float64"))
    for k in range(2):
        assert np.linalg.norm(by_hand(got.weights[k], decay[k])) < 1e-12
    fixed = M.MLP(2, 3, activation="tanh", fixed=("W2",))
    near = fs.train(fixed, DATA, rule=R.Flow(weight_decay=DECAY), step_size=300.0, steps=1, dtype="float64", networks=2)
    got = fs.polish(near)
    assert got.eigenvalues.shape == (2, fixed.P - 3) and got.converged.all()
    np.testing.assert_array_equal(got.weights[:, 9:12], near.weights[:, 9:12])
    model = M.MLP(5, 3, outputs=3, activation="tanh")
    data = labelled(model, L.CrossEntropy(), n=60)
    near = fs.train(model, data, rule=R.Flow(weight_decay=0.05), step_size=200.0, steps=1, loss=L.CrossEntropy(),
                    dtype="float64", networks=2)
    assert fs.polish(near).converged.all()
    with pytest.raises(fs.SpecError, match="decoupled weight decay"):
        fs.polish(fs.train(MODEL, DATA, rule=R.Adam(weight_decay=0.1, decoupled=True), step_size=0.01, steps=2,
                           dtype="float64"))


def test_members_have_their_own_weight_decay():
    """`ids` in any order, also of the whole population."""
    decay = np.array([0.0, 0.1, 0.2])
    run = fs.Run(MODEL, DATA, R.GD(weight_decay=decay), 0.05, 20, dtype="float64")
    for ids in ([2, 0, 1], [1], [0, 2]):
        result = fs.train(run.replace(ids=ids))
        got = fs.polish(result, steps=0)
        want = [fs.polish(MODEL, DATA, w, weight_decay=decay[k], steps=0).loss[0]
                for w, k in zip(result.weights, ids, strict=True)]
        np.testing.assert_allclose(got.loss, want, rtol=1e-12)


def test_what_is_no_number_is_nan_and_steps_may_be_none():
    w = np.random.default_rng(1).standard_normal((3, MODEL.P))
    w[1, 2] = np.inf
    got = fs.polish(MODEL, DATA, w, steps=0)
    assert np.isnan(got.gradient_norm[1]) and np.isnan(got.eigenvalues[1]).all() and not got.converged.any()
    assert got.index()[1] == -1 and (got.index()[[0, 2]] >= 0).all()
    np.testing.assert_array_equal(got.weights[[0, 2]], w[[0, 2]])
    np.testing.assert_allclose(got.gradient_norm[0], np.linalg.norm(by_hand(w[0])), rtol=1e-12)
    one = fs.polish(MODEL, DATA, MODEL.unflatten(w[0]), steps=0)
    assert one.weights.shape == (1, MODEL.P)


@pytest.mark.parametrize("given, message", (
    ((MODEL,), "data: missing"), ((MODEL, DATA), "params: missing"), ((MODEL, DATA, np.zeros((2, 3))), "params"),
    ((M.MLP(4, 3), DATA, np.zeros((1, 19))), "model.d"),
    ((MODEL, fs.data.Fresh(2, MODEL, MODEL.unflatten(np.zeros(MODEL.P))), np.zeros((1, MODEL.P))), "no training set"),
    ((M.MLP(2, 3, fixed=("W1", "b1", "W2", "b2")), DATA, np.zeros((1, MODEL.P))), "no parameter")))
def test_what_cannot_be_polished_is_refused(given, message):
    with pytest.raises(fs.SpecError, match=message):
        fs.polish(*given)
    for fields in ({"tol": 0}, {"steps": -1}, {"weight_decay": -1.0}):
        with pytest.raises(fs.SpecError, match=next(iter(fields))):
            fs.polish(MODEL, DATA, np.zeros((1, MODEL.P)), **fields)
