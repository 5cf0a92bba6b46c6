"""Ranks and singular values of stacks: exact counts off the threshold, high relative accuracy of scaled columns."""

import numpy as np
import pytest
import torch
from cases import USABLE
from tiers import some

import fastsgd as fs
from fastsgd import linalg
from fastsgd.errors import BackendUnavailable
from fastsgd.native import native

KINDS = ["random", "graded rows", "graded values", "scaled columns", "deficient", "duplicated", "some zeros", "zero"]
SHAPES = [(1, 1), (1, 7), (9, 1), (5, 12), (33, 20), (60, 60), (100, 181), (300, 120)]


def stack(kind, m, n, rng, N=3):
    """Matrices [N, m, n] of one kind."""
    A = rng.standard_normal((N, m, n))
    if kind == "graded rows":
        A *= 10.0 ** -np.linspace(0, 12, m)[:, None]
    if kind == "graded values":
        k = min(m, n)
        left, right = np.linalg.qr(A)[0][..., :k], np.linalg.qr(rng.standard_normal((N, n, m)))[0][..., :k]
        A = (left * 10.0 ** -np.linspace(0, 300, k)) @ right.swapaxes(1, 2)
    if kind == "scaled columns":
        A *= 10.0 ** rng.uniform(-300, 0, n)
    if kind == "deficient":
        r = max(1, min(m, n) // 4)
        A = A[..., :r] @ rng.standard_normal((N, r, n))
    if kind == "duplicated":
        A[:, m // 2:] = A[:, :m - m // 2]
        A[..., n // 2:] = A[..., :n - n // 2]
    if kind == "some zeros":
        A *= (rng.random((N, m, 1)) > 0.4) * (rng.random((N, 1, n)) > 0.4)
    return A * 0 if kind == "zero" else A


def sure(sigma, rtol, factor):
    """[N] bool: no singular value lies within a relative `factor` of the threshold."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = sigma / (rtol * sigma[:, :1])
    return ~(np.abs(ratio - 1) <= factor).any(axis=1)


def counts(sigma, rtol):
    return (sigma > rtol * sigma[:, :1]).sum(axis=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_are_those_of_lapack(kind, shape):
    """Wherever no singular value lies within the stated factor; below 1e-10 LAPACK itself is not to be trusted."""
    A = stack(kind, *shape, np.random.default_rng([KINDS.index(kind), SHAPES.index(shape)]))
    sigma, checked = np.linalg.svd(A, compute_uv=False), 0
    for rtol in (0.3, 1e-2, 1e-4, 1e-5, 1e-6, 1e-9):
        for method in ("gram", "jacobi") if rtol >= 1e-6 else ("jacobi",):
            clear = sure(sigma, rtol, 1e-10 + 1e-14 / rtol**2 if method == "gram" else 1e-4)
            checked += clear.sum()
            got = linalg.rank(A, rtol, method)
            np.testing.assert_array_equal(got[clear], counts(sigma, rtol)[clear], f"{method}, {rtol}")
    assert checked > 20


@pytest.mark.parametrize("n", some([181, 300, 400], 3))
def test_large_matrices(n):
    rng = np.random.default_rng(n)
    for kind in ("random", "graded values", "deficient", "duplicated"):
        A = stack(kind, n, n, rng, N=2)
        sigma = np.linalg.svd(A, compute_uv=False)
        for rtol in (1e-2, 1e-4):
            clear = sure(sigma, rtol, 1e-6)
            np.testing.assert_array_equal(linalg.rank(A, rtol)[clear], counts(sigma, rtol)[clear], (kind, rtol))


@pytest.mark.parametrize("rtol", [1e-2, 1e-4, 1e-5])
@pytest.mark.parametrize("n", [12, 75])
def test_the_gram_count_is_sharp(n, rtol):
    """One singular value just above and just below the threshold, by 1.5 times the stated factor."""
    rng = np.random.default_rng(n)
    factor = 1.5 * (1e-10 + 1e-14 / rtol**2)
    for above in (True, False):
        sigma = np.concatenate([[1.0], 10 ** rng.uniform(np.log10(rtol) + 0.1, 0, n - 3), [rtol * (1 + factor)], [0.0]])
        sigma[-2] = rtol * (1 + factor) if above else rtol * (1 - factor)
        left, right = (np.linalg.qr(rng.standard_normal((40, n, n)))[0] for _ in range(2))
        A = (left * sigma) @ right
        np.testing.assert_array_equal(linalg.rank(A, rtol, "gram"), n - 1 if above else n - 2)


def test_a_pivot_next_to_zero():
    """The first row's length is the threshold: the first pivot of G - tau vanishes, and pivoting takes over."""
    rng = np.random.default_rng(0)
    for rtol in (1e-1, 1e-2):
        A = rng.standard_normal((50, 20, 20))
        for _ in range(3):
            sigma = np.linalg.svd(A, compute_uv=False)
            A[:, 0] *= (rtol * sigma[:, 0] / np.linalg.norm(A[:, 0], axis=1))[:, None]
        sigma = np.linalg.svd(A, compute_uv=False)
        np.testing.assert_array_equal(linalg.rank(A, rtol, "gram"), counts(sigma, rtol))


def exact(A, digits=700):
    """Singular values of A in so many digits."""
    mp = pytest.importorskip("mpmath")
    mp.mp.dps = digits
    M = mp.matrix(A.tolist())
    gram = M.T * M if A.shape[1] <= A.shape[0] else M * M.T
    return sorted((mp.sqrt(abs(e)) for e in mp.eigsy(gram, eigvals_only=True)), reverse=True)


@pytest.mark.parametrize(("m", "n"), [(9, 9), (12, 7), (7, 12)])
def test_scaled_columns_over_300_decades(m, n):
    """Every singular value to 1e-14, where LAPACK has no correct digit; ranks at any rtol follow."""
    rng = np.random.default_rng(m)
    A = rng.standard_normal((m, n)) * 10.0 ** rng.permutation(np.linspace(-290, 0, n))
    want = exact(A)
    off = [abs(float(got / w - 1)) for got, w in zip(linalg.singular_values(A), want, strict=True)]
    assert max(off) < 1e-14
    lapack = [abs(float(got / w - 1)) for got, w in zip(np.linalg.svd(A, compute_uv=False), want, strict=True)]
    assert max(lapack) > 0.5
    for rtol in (1e-15, 1e-60, 1e-200):
        assert linalg.rank(A, rtol) == sum(w > rtol * want[0] for w in want)


def test_lapack_miscounts_what_jacobi_counts():
    """Orthonormal columns times scales half of which lie just below 1e-15: rank 100; LAPACK counts some of them."""
    rng = np.random.default_rng(200)
    scales = np.where(np.arange(200) < 100, 0.95e-15, 1.0)
    A = np.linalg.qr(rng.standard_normal((400, 200)))[0] * scales
    assert linalg.rank(A, 1e-15) == 100
    assert linalg.rank(np.concatenate([A * 0.6, A * 0.8], axis=1), 1e-15, "lapack") > 100


@pytest.mark.parametrize("sizes", [[1e160, 1e-160], [1e308, 1.0, 1e-307], [1e-300, 1e300, 1e-5, 1e150, 1e-160]])
def test_values_more_than_308_decades_apart(sizes):
    """diag(s), and orthogonal columns times s: every value to 1e-14, whatever stands beside it."""
    s, n = np.array(sizes), len(sizes)
    A = np.stack([np.diag(s), np.linalg.qr(np.random.default_rng(n).standard_normal((n, n)))[0] * s])
    want = np.sort(s)[::-1]
    got = linalg.singular_values(A)
    np.testing.assert_allclose(got, np.stack([want, want]), rtol=1e-14)
    np.testing.assert_allclose(linalg.singular_values(torch.tensor(A)).numpy(), got, rtol=0)
    for rtol in (1e-15, 1e-100, 1e-155, 1e-300, 5e-324):
        count = (want > rtol * want[0]).sum() if rtol * want[0] > 1e-320 else n
        np.testing.assert_array_equal(linalg.rank(A, rtol, "jacobi"), count, rtol)


def test_three_hundred_decades_of_a_full_matrix():
    """Scaled columns whose singular values span 600 decades, against 1400 digits."""
    rng = np.random.default_rng(5)
    A = rng.standard_normal((6, 5)) * 10.0 ** np.array([290, -300, 0, -150, 120.0])
    want = exact(A, 1400)
    off = [abs(float(got / w - 1)) for got, w in zip(linalg.singular_values(A), want, strict=True)]
    assert max(off) < 1e-14


def test_rank_at_rtol_zero_is_exact():
    """Of the numbers as they are: zeros, copies and whole combinations of columns count for nothing."""
    rng = np.random.default_rng(6)
    for m, n, r in ((1, 1, 1), (8, 4, 3), (5, 9, 4), (30, 30, 17)):
        A = rng.integers(-9, 9, (6, m, r)) @ rng.integers(-9, 9, (6, r, n)).astype(float)  # exact in float64
        A[1] = 0
        A[2, :, -1] = A[2, :, 0]
        scales = 2.0 ** rng.integers(-400, 400, n)  # as are powers of two
        want = np.linalg.matrix_rank(A)
        for method in ("auto", "jacobi", "lapack", "gram"):
            np.testing.assert_array_equal(linalg.rank(A, 0, method), want)
            np.testing.assert_array_equal(linalg.rank(A * scales, 0, method), want)
        np.testing.assert_array_equal(linalg.rank((A * scales).swapaxes(1, 2), 0), want)
    A = np.array([[1, 1], [1, 1 + 2.0**-52]])
    assert linalg.rank(A, 0) == 2 and linalg.rank(A - 1, 0) == 1 and linalg.rank(np.ones((3, 2)), 0) == 1
    assert linalg.rank(np.diag([2.0**31 - 1, 2147483629.0, 5e-324, 1e308]), 0) == 4
    assert linalg.rank(torch.ones(2, 3, 3), 0).tolist() == [1, 1] and linalg.rank(A[None][:0], 0).shape == (0,)


@pytest.mark.parametrize("scale", [2.0**-900, 2.0**900])
def test_scales_do_not_matter(scale):
    A = stack("deficient", 20, 30, np.random.default_rng(1))
    np.testing.assert_array_equal(linalg.singular_values(A * scale), linalg.singular_values(A) * scale)
    for method in ("gram", "jacobi"):
        np.testing.assert_array_equal(linalg.rank(A * scale, 1e-4, method), 5)


def test_a_matrix_does_not_see_its_neighbours():
    rng = np.random.default_rng(2)
    A = np.concatenate([stack(kind, 24, 17, rng) for kind in KINDS])
    for f in (lambda A, **k: linalg.rank(A, 1e-4, **k), linalg.singular_values):
        whole = f(A)
        np.testing.assert_array_equal(whole, [f(one) for one in A])
        np.testing.assert_array_equal(whole[::-1], f(A[::-1], threads=3))


def test_kinds_and_shapes():
    A = np.random.default_rng(3).standard_normal((2, 3, 8, 5))
    sigma = linalg.singular_values(A)
    assert sigma.shape == (2, 3, 5) and sigma.dtype == np.float64
    np.testing.assert_allclose(sigma, np.linalg.svd(A, compute_uv=False), rtol=1e-13)
    single = linalg.singular_values(A.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, sigma, rtol=1e-5)
    tensor = linalg.singular_values(torch.tensor(A[0], dtype=torch.float32, requires_grad=True))
    assert isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32 and tensor.shape == (3, 5)
    ranks = linalg.rank(torch.tensor(A), 1e-3)
    assert isinstance(ranks, torch.Tensor) and ranks.dtype == torch.int64 and (ranks == 5).all()
    assert linalg.rank(A[0, 0], 1e-3) == 5 and linalg.rank(A[:0], 1e-3).shape == (0, 3)
    assert linalg.singular_values(A[0, 0].T).shape == (5,)


@pytest.mark.parametrize(("arguments", "words"), [
    ((np.zeros(3),), ("[..., m, n]", "(3,)")), ((np.zeros((2, 0)),), ("m, n >= 1",)),
    ((np.zeros((2, 2), int),), ("float32 or float64",)), ((np.full((2, 2), np.nan),), ("finite",)),
    ((np.eye(2), 1.0), ("rtol",)), ((np.eye(2), -1e-3), ("rtol",)), ((np.eye(2), 0.1, "svd"), ("method", "gram")),
    ((np.eye(2), 1e-7, "gram"), ("1e-06", "jacobi")), ((np.eye(2), 0.1, "gram", 0), ("threads",))])
def test_refusals(arguments, words):
    with pytest.raises(fs.SpecError) as error:
        linalg.rank(*arguments) if len(arguments) > 1 else linalg.singular_values(*arguments)
    assert all(word in str(error.value) for word in words), error.value


def test_without_a_compiled_module(monkeypatch):
    """"auto" falls back to LAPACK; a named method says what is missing."""
    def absent():
        raise BackendUnavailable("not built")

    A = stack("deficient", 9, 12, np.random.default_rng(4))
    want = linalg.rank(A, 1e-4)
    monkeypatch.setattr(linalg, "native", absent)
    np.testing.assert_array_equal(linalg.rank(A, 1e-4), want)
    np.testing.assert_array_equal(linalg.singular_values(A), np.linalg.svd(A, compute_uv=False))
    with pytest.raises(BackendUnavailable):
        linalg.rank(A, 1e-4, "gram")


@pytest.mark.parametrize("kind", KINDS)
def test_singular_values_have_the_same_bits_on_every_instruction_set(kind):
    for m, n in SHAPES[:-1]:
        A = np.ascontiguousarray(stack(kind, m, n, np.random.default_rng(m + n)))
        got = [native(isa).jacobi_values(A, 1) for isa in USABLE]
        for sigma, exponents in got[1:]:
            np.testing.assert_array_equal(sigma, got[0][0])
            np.testing.assert_array_equal(exponents, got[0][1])
