"""Owns the proof that the counted Jacobian rank of diagonal networks is the rank: #{sigma_k > rtol sigma_1}."""

import numpy as np
import pytest

from fastsgd.native import native


def rank(X, s, rtol, threads=1):
    """Ranks [N] of diag(s) networks, s [N, d], on the points X [m, d]."""
    s = np.ascontiguousarray(np.atleast_2d(s))
    return native().diagonal_rank(native().DiagonalPoints(X.T @ X, len(X)), s[:, None], rtol, threads)


def points(kind, d, rng):
    """Evaluation points X [m, d] of one shape or defect."""
    m = {"square": d, "wide": 2 * d // 3}.get(kind, 2 * d)
    X = rng.normal(size=(m, d))
    if kind == "duplicated":
        X[:, 1] = X[:, 0]
        X[:, -1] = -2 * X[:, 2]
    if kind == "zero column":
        X[:, 3] = 0
    if kind == "unequal columns":
        X *= 10 ** rng.uniform(-3, 3, d)
    if kind == "offset":
        X += 5
    return X


def sizes(kind, d, rng):
    """s [d] = hypot(u, v) of one grading."""
    if kind == "early":
        return np.full(d, 0.1)
    if kind == "late":
        return np.concatenate([10 ** rng.uniform(-90, 0, d // 2), 10 ** rng.uniform(-2, 0, d - d // 2)])
    if kind == "tied":
        return 10.0 ** rng.integers(-20, 1, d)
    s = 10 ** rng.uniform({"graded 180": -180, "graded 30": -30, "with zeros": -30, "graded 16": -16}[kind], 0, d)
    return s * rng.integers(0, 2, d) if kind == "with zeros" else s


POINTS = ["tall", "square", "wide", "duplicated", "zero column", "unequal columns", "offset"]
SIZES = ["early", "late", "tied", "graded 180", "graded 30", "graded 16", "with zeros"]
RTOLS = [1e-15, 1e-10, 1e-4, 0.1]


def exact_singular_values(X, s):
    """Singular values of X diag(s), largest first, in enough digits for the grading of s."""
    mp = pytest.importorskip("mpmath")
    mp.mp.dps = int(60 - 2 * np.log10(s[s > 0].min(initial=1.0)))
    A = mp.matrix(X.tolist()) * mp.diag([mp.mpf(float(x)) for x in s])
    gram = A.T * A if len(s) <= len(X) else A * A.T
    return sorted((mp.sqrt(abs(e)) for e in mp.eigsy(gram, eigvals_only=True)), reverse=True)


@pytest.mark.parametrize("grading", SIZES)
@pytest.mark.parametrize("shape", POINTS)
def test_count_is_exact(shape, grading):
    """Equal to the count in hundreds of digits wherever no singular value is within 1e-9 of the threshold."""
    rng = np.random.default_rng([POINTS.index(shape), SIZES.index(grading)])
    X, s = points(shape, 9, rng), sizes(grading, 9, rng)
    sigma = exact_singular_values(X, s)
    for rtol in RTOLS:
        threshold = sigma[0] * rtol
        if min(abs(x / threshold - 1) for x in sigma) > 1e-9:
            assert rank(X, s, rtol)[0] == sum(x > threshold for x in sigma), rtol


@pytest.mark.parametrize("shape", ["tall", "square", "wide", "duplicated"])
def test_threshold_is_sharp(shape):
    """The count steps where a singular value crosses the threshold, within a factor 1 +- 1e-9, for all of them."""
    rng = np.random.default_rng(3)
    X, s = points(shape, 8, rng), sizes("graded 30", 8, rng)
    sigma = exact_singular_values(X, s)
    real = [x for x in sigma if x > 1e-6 * s.min()]
    for k in range(1, len(real)):
        at = float(real[k] / real[0])
        assert rank(X, s, at * (1 + 1e-9))[0] == k
        assert rank(X, s, at * (1 - 1e-9))[0] == k + 1


@pytest.mark.parametrize("d, m", [(50, 100), (100, 200), (140, 150), (60, 60), (60, 40), (140, 80)])
def test_agrees_with_lapack_where_lapack_is_accurate(d, m):
    """J = [X diag(u), X diag(v)] itself, at thresholds far above rounding."""
    rng = np.random.default_rng(d + m)
    X = rng.normal(size=(m, d))
    for low in (-12, -3, 0):
        u, v = 10 ** rng.uniform(low, 0, (2, 3, d)) * rng.choice([-1, 1], (2, 3, d))
        sigma = np.linalg.svd(np.concatenate([X * u[:, None], X * v[:, None]], 2), compute_uv=False)
        for rtol in (1e-8, 1e-4, 1e-2, 0.3):
            ratio = sigma / (rtol * sigma[:, :1])
            clear = np.abs(ratio - 1).min(1) > 1e-6
            np.testing.assert_array_equal(rank(X, np.hypot(u, v), rtol)[clear], (ratio > 1).sum(1)[clear])


@pytest.mark.parametrize("factor, expected", [(0.6, 100), (0.8, 100), (0.95, 100), (1.05, 200), (1.2, 200)])
def test_right_where_an_ordinary_svd_miscounts(factor, expected):
    """Orthonormal points have sigma = s; LAPACK's SVD of J counted 105, 122, 150, 179 and 200 here."""
    rng = np.random.default_rng(200)
    X = np.linalg.qr(rng.normal(size=(400, 200)))[0]
    s = np.where(np.arange(200) < 100, factor * 1e-15, 1.0)
    assert rank(X, s, 1e-15)[0] == expected


@pytest.mark.parametrize("m", [80, 40, 25])
def test_a_network_does_not_see_its_neighbours(m):
    """Same rank alone, in any batch, order or thread count; and on any scale of s."""
    rng = np.random.default_rng(m)
    X = rng.normal(size=(m, 40))
    s = np.stack([sizes(kind, 40, rng) for kind in SIZES * 5])
    batch = rank(X, s, 1e-10)
    order = rng.permutation(len(s))
    np.testing.assert_array_equal(batch, [rank(X, row, 1e-10)[0] for row in s])
    np.testing.assert_array_equal(batch[order], rank(X, s[order], 1e-10, threads=3))
    np.testing.assert_array_equal(batch, rank(X, s * 2.0**-300, 1e-10))
    assert batch.dtype == np.int64 and batch.shape == (len(s),)


def test_edges():
    """Nothing, one coordinate, extremes of the float64 range, more coordinates than points."""
    X = np.random.default_rng(0).normal(size=(40, 20))
    s = np.zeros((5, 20))
    s[1, 7] = 1e-180
    s[2] = 5e-324
    s[3] = 1e308
    s[4, :5] = 1.0
    s[4, 5:] = 1e-320
    np.testing.assert_array_equal(rank(X, s, 1e-15), [0, 1, 20, 20, 5])
    np.testing.assert_array_equal(rank(X[:12], s, 1e-15), [0, 1, 12, 12, 5])
    np.testing.assert_array_equal(rank(X[:, :1], s[:, 7:8], 1e-15), [0, 1, 1, 1, 1])


def test_sizes_that_are_not_finite_have_no_rank():
    """Lost networks are marked -1 and leave the others alone."""
    X = np.random.default_rng(0).normal(size=(40, 20))
    s = np.full((4, 20), 0.1)
    s[1, 3] = np.nan
    s[2, 5] = np.inf
    np.testing.assert_array_equal(rank(X, s, 1e-15), [20, -1, -1, 20])


@pytest.mark.parametrize("shape", POINTS)
def test_rtol_zero_counts_independent_columns_of_live_coordinates(shape):
    """The rank of the points' columns with s > 0, whatever s is: as LAPACK has it of columns of length one."""
    rng = np.random.default_rng(POINTS.index(shape))
    X = points(shape, 9, rng)
    s = 10.0 ** rng.uniform(-300, 300, (20, 9)) * rng.integers(0, 2, (20, 9))
    length = np.linalg.norm(X, axis=0)
    unit = X / np.where(length > 0, length, 1)
    want = [np.linalg.matrix_rank(unit * (row > 0)) for row in s]
    np.testing.assert_array_equal(rank(X, s, 0), want)


def test_large_sizes_on_small_columns_are_not_lost():
    """s and |x| graded in opposite directions, so that all products are one."""
    X = np.linalg.qr(np.random.default_rng(0).normal(size=(9, 4)))[0]
    scale = 2.0 ** np.array([0, -500, 300, -650])
    G = native().DiagonalPoints(X.T @ X, 9, scale)
    s = np.stack([1 / scale, np.ones(4)])
    np.testing.assert_array_equal(native().diagonal_rank(G, s[:, None], 1e-3, 1), [4, 1])
    np.testing.assert_array_equal(native().diagonal_rank(G, s[:, None], 2.0**-700, 1), [4, 2])
