"""Neighbouring simulations, made small: every known result is found again, and their closed forms are right."""

import numpy as np
import pytest
from scipy import integrate, optimize
from tiers import long

from fastsgd.reproduce.neighbours import NEIGHBOURS, lau2023, pillaud2022, saad1995
from fastsgd.reproduce.neighbours.page import band, columns
from fastsgd.reproduce.record import Reproduction

NOT_FOUND = {  # these small versions differ here, and docs/neighbours.md says so
    "teachers": {"the longer the large step, the sparser the features",
                 "networks of the longest large step generalise better than those of the small one"},
    "andriushchenko2023sam": {"SAM lowers the rank of relu features", "and so does a radius of 0.4"},
}

QUICK = ("even2023", "lewkowycz2020", "elhage2022", "pillaud2022", "teachers")  # two seconds at most


@pytest.mark.parametrize("name", [name if name in QUICK else long(name) for name in NEIGHBOURS])
def test_known_results_are_found_again(name, tmp_path):
    done = NEIGHBOURS[name].make(quick=True)
    assert isinstance(done, Reproduction) and (done.name, done.title) == (name, NEIGHBOURS[name].TITLE)
    not_found = {verdict.claim for verdict in done.verdicts if not verdict.holds}
    assert not_found <= NOT_FOUND.get(name, set()), done.text()
    assert done.results and done.table.startswith(done.title)
    done.draw(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_averages_of_the_committee_equations():
    """The closed forms of <g'(i) k g(m)> and <g'(i) g'(j) g(k) g(l)> against draws of the fields."""
    from math import erf

    rng = np.random.default_rng(0)
    A = rng.standard_normal((4, 4))
    C = A @ A.T / 4
    z = rng.multivariate_normal(np.zeros(4), C, 200_000)
    g, slope = np.vectorize(erf)(z / np.sqrt(2)), np.sqrt(2 / np.pi) * np.exp(-z**2 / 2)
    third, fourth = saad1995.three(C, np.diag(C)), saad1995.four(C, np.diag(C), 2)
    third_drawn = np.einsum("si,sk,sm->ikm", slope[:, :2], z, g, optimize=True) / len(z)
    fourth_drawn = np.einsum("si,sj,sk,sl->ijkl", slope[:, :2], slope[:, :2], g, g, optimize=True) / len(z)
    np.testing.assert_allclose(third[:2], third_drawn, atol=0.01)
    np.testing.assert_allclose(fourth, fourth_drawn, atol=0.01)


def test_equations_rest_where_the_student_is_the_teacher():
    error = saad1995.equations(np.eye(2), np.eye(2), 0.5, np.array([0.0, 50.0]))
    np.testing.assert_allclose(error, 0, atol=1e-15)


@pytest.mark.parametrize("penalty", [0.05, 0.4, 1.2])
def test_the_lasso_of_label_noise_is_the_lasso(penalty):
    """Against a quadratic program with bounds in the positive and negative parts, and its conditions of optimality."""
    data, d = pillaud2022.problem(), pillaud2022.D
    X, y, n = data.X, data.y, data.n

    def value(parts):
        r = X @ (parts[:d] - parts[d:]) - y
        slope = X.T @ r / n
        return r @ r / (2 * n) + penalty * parts.sum(), np.concatenate([slope, -slope]) + penalty

    parts = optimize.minimize(value, np.ones(2 * d), jac=True, bounds=[(0, None)] * (2 * d), method="L-BFGS-B",
                              options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000}).x
    beta = pillaud2022.lasso(X, y, penalty)
    np.testing.assert_allclose(beta, parts[:d] - parts[d:], atol=1e-5)
    slope = -X.T @ (X @ beta - y) / n
    np.testing.assert_allclose(slope[beta != 0], penalty * np.sign(beta[beta != 0]), rtol=1e-10)
    assert (np.abs(slope[beta == 0]) <= penalty).all()


def test_bands_and_columns_say_what_is_missing():
    low, middle, high = band(np.array([[1.0, np.nan], [3.0, np.nan], [np.inf, np.nan]]))
    assert (low[0], middle[0], high[0]) == pytest.approx((1.2, 2.0, 2.8))
    assert np.isnan([low[1], middle[1], high[1]]).all()
    lines = columns("T", ("a", "b"), [("x", float("nan")), ("y", 0.12345)], "note").splitlines()
    assert lines == ["T", "a      b", "--------", "x      -", "y  0.123", "--------", "note"]


def test_exact_local_energies():
    """The sums of the learning coefficients against scipy's integration, and against their limits."""
    for heat in (10.0, 300.0):
        for depth in (1, 2, 3):
            def weight(w, heat=heat, depth=depth):
                return np.exp(-heat * w ** (2 * depth) / 2 - w**2 / 2)

            def energy(w, heat=heat, depth=depth, weight=weight):
                return heat * w ** (2 * depth) / 2 * weight(w)

            whole, mean = (integrate.quad(f, 0, 9, limit=200)[0] for f in (weight, energy))
            np.testing.assert_allclose(lau2023.power(heat, depth), mean / whole, rtol=1e-6)

    def both(u, v):
        return np.exp(-5 * (u * v) ** 2 - (u**2 + v**2) / 2)

    whole, mean = (integrate.dblquad(f, 0, 9, 0, 9)[0] for f in (both, lambda u, v: 5 * (u * v) ** 2 * both(u, v)))
    np.testing.assert_allclose(lau2023.product(10.0, 2), mean / whole, rtol=1e-6)
    np.testing.assert_allclose([lau2023.power(1e8, depth) for depth in (1, 2)], [1 / 2, 1 / 4], rtol=1e-3)
    assert lau2023.product(1e4, 3) < lau2023.product(1e4, 2) < 0.5


def test_a_chain_is_the_langevin_equation():
    """w <- w - (epsilon / 2) grad (n beta L + (gamma / 2) |w - w*|^2) + sqrt(epsilon) z, with the stated draws."""
    from fastsgd import models
    from fastsgd.spec import draws

    n_beta, epsilon, T = np.array([20.0, 50.0]), np.array([0.01, 0.02]), 25
    result = lau2023.local_learning_coefficient(models.DiagonalLinear(1), lau2023.data(1), n_beta, epsilon, T, seed=5)
    w = np.zeros((2, 2))
    for t in range(T):
        z = draws.noise_vector(5, [0, 1], t, 2, "gaussian", "gradient_noise")
        u, v = w.T
        slope = n_beta[:, None] * np.stack([u * v**2, u**2 * v], axis=1) + lau2023.GAMMA * w
        w = w - epsilon[:, None] / 2 * slope - np.sqrt(epsilon)[:, None] * z
    np.testing.assert_allclose(result.weights, w, rtol=1e-10)
