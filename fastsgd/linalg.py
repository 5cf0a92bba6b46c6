"""Owns singular values and ranks of stacks of small matrices: plain arrays in, plain arrays out."""

from typing import Any

import numpy as np

from .errors import BackendUnavailable, SpecError
from .native import default_threads, native
from .spec.check import as_array, finite, one_of, real, whole

LEAST_GRAM = 1e-6  # a Gram matrix squares the singular values; below, nothing of them is left
SAFE_GRAM = 1e-5
BELOW_ONE = 1 - 2.0**-53
PRIMES = 2147483629, 2147483587  # products of two residues fit in 63 bits

__all__ = ["rank", "singular_values"]


def __dir__():
    return __all__


def singular_values(A: Any, method: str = "auto", threads: int | None = None) -> Any:
    """Singular values of a stack of matrices, largest first.

    A [..., m, n]: NumPy array, torch tensor on the CPU or anything with DLPack; float32 or float64, finite, m, n >= 1
    method: "jacobi": QR with column pivoting, then one-sided Jacobi. For A = B diag(s) every value is right to a modest
        multiple of eps cond(B), whatever the scales s: each value has a power of two of its own on the way, so that
        entries, and values next to each other, may lie anywhere in the range of float64. "lapack": NumPy, right
        relative to sigma_1 only, and on most matrices several times faster. "auto": "jacobi", or "lapack" where no
        module is compiled
    threads: 1 .. 4096, by default as in training; matrices go side by side, each on one thread
    Returns [..., min(m, n)] of A's kind and dtype; the computation is in float64. A value that the dtype cannot hold is
    what it rounds to: infinity, a number of fewer digits or 0. Raises SpecError for A, and BackendUnavailable if
    "jacobi" is named and not compiled.
    Sources: Demmel and Veselic 1992; Drmac and Veselic 2008.
    """
    stack = _stack(A)
    if _method(method, ("jacobi", "lapack")) == "lapack":
        sigma = np.linalg.svd(stack, compute_uv=False)
    else:
        with np.errstate(over="ignore", under="ignore"):  # a norm above the largest number is inf
            sigma = np.ldexp(*native().jacobi_values(stack, _threads(threads)))
    return _like(A, sigma, as_array(A, "A").shape[:-2], None)


def rank(A: Any, rtol: float, method: str = "auto", threads: int | None = None) -> Any:
    """Numerical ranks #{k : sigma_k > rtol sigma_1} of a stack of matrices; a zero matrix has rank 0.

    A [..., m, n]: as for `singular_values`
    rtol: in [0, 1). 0 asks for the exact rank of the numbers as they are given, whatever `method` is: they are
        eliminated modulo large primes, not rounded. A product of thin matrices has had its entries rounded, and mostly
        has full rank then: give it an rtol
    method: "gram": inertia of the smaller of A^T A and A A^T, no singular value is computed; rtol >= 1e-6; right where
        no singular value lies within a relative 1e-10 + 1e-14 / rtol^2 of the threshold. "jacobi", "lapack": from
        `singular_values`. "auto": "gram" for rtol >= 1e-5, else "jacobi"; "lapack" where no module is compiled
    threads: 1 .. 4096
    Returns integers [...] of A's kind. Raises SpecError.
    """
    stack, rtol = _stack(A), real(rtol, "rtol", 0, high=BELOW_ONE)
    method = _method(method, ("gram", "jacobi", "lapack"), "gram" if rtol >= SAFE_GRAM else "jacobi")
    if rtol == 0:
        return _like(A, _exact_ranks(stack), as_array(A, "A").shape[:-2], np.int64)
    if method == "gram" and rtol < LEAST_GRAM:
        raise SpecError(f"rtol: {rtol:g} given, method='gram' needs {LEAST_GRAM:g} or more, for it squares the "
                        "singular values; method='jacobi' takes any")
    if method == "lapack":
        counts = count_above(np.linalg.svd(stack, compute_uv=False), rtol)
    elif method == "jacobi":
        sigma, exponents = native().jacobi_values(stack, _threads(threads))
        counts = count_above(sigma, rtol, exponents)
    else:
        counts = native().gram_ranks(stack, rtol, _threads(threads))
    return _like(A, counts, as_array(A, "A").shape[:-2], np.int64)


def _stack(A):
    """A as float64 [N, m, n]."""
    array = as_array(A, "A")
    if array.ndim < 2 or 0 in array.shape[-2:]:
        raise SpecError(f"A: has shape {array.shape}, expected [..., m, n] with m, n >= 1")
    if array.dtype not in (np.float32, np.float64):
        raise SpecError(f"A: holds {array.dtype}, expected float32 or float64")
    return np.ascontiguousarray(finite(array, "A").reshape(-1, *array.shape[-2:]), dtype=np.float64)


def _method(method, legal, best="jacobi"):
    one_of(method, "method", ("auto", *legal))
    if method != "auto":
        return method
    try:
        native()
    except BackendUnavailable:
        return "lapack"
    return best


def _threads(threads):
    return default_threads() if threads is None else whole(threads, "threads", 1, 4096)


def count_above(sigma, rtol, exponents=None):
    """#{k : sigma_k > rtol sigma_1} [N] of singular values [N, k], largest first, times 2^exponents [N, k] if given."""
    if exponents is None:
        return (sigma > rtol * sigma[:, :1]).sum(axis=1)
    fraction, own = np.frexp(rtol)
    with np.errstate(over="ignore", under="ignore"):  # of what is far from the threshold
        return (np.ldexp(sigma, exponents - exponents[:, :1] - own) > fraction * sigma[:, :1]).sum(axis=1)


def _exact_ranks(stack):
    """Exact ranks [N] of finite matrices [N, m, n]: the larger of those modulo two primes.

    Floating-point numbers are whole numbers times powers of two, and have a place modulo a prime. A rank there is at
    most the exact one, and less only where the prime divides every minor of that size.
    """
    return np.maximum(*(_ranks_modulo(stack, prime) for prime in PRIMES))


def _ranks_modulo(stack, prime):
    """Ranks [N] of matrices [N, m, n] modulo a prime below 2^31, by elimination, side by side."""
    fraction, exponent = np.frexp(stack if stack.shape[1] >= stack.shape[2] else stack.swapaxes(1, 2))
    high, low = np.divmod((fraction * 2.0**53).astype(np.int64), 1 << 30)
    first, last = exponent.min(initial=0), exponent.max(initial=0)
    powers = np.array([pow(2, int(e), prime) for e in range(first - 53, last - 52)])  # negative ones too
    a = (high % prime * (1 << 30) + low) % prime * powers[exponent - first] % prime
    each, rank, free = np.arange(len(a)), np.zeros(len(a), np.int64), np.ones(a.shape[:2], bool)
    for j in range(a.shape[2]):
        pivots = free & (a[:, :, j] != 0)
        at, found = pivots.argmax(axis=1), pivots.any(axis=1)
        row, inverse = a[each, at, j:], np.array([pow(int(x), -1, prime) if x else 0 for x in a[each, at, j] * found])
        free[each, at] &= ~found
        factor = a[:, :, j] * inverse[:, None] % prime * free
        a[:, :, j:] = (a[:, :, j:] - factor[:, :, None] * row[:, None, :]) % prime
        rank += found
    return rank


def _like(A, values, lead, dtype):
    """`values` [N, ...] as [*lead, ...] in A's kind: torch for torch, else NumPy; in A's dtype if none is given."""
    values = values.reshape((*lead, *values.shape[1:]))
    if hasattr(A, "detach"):
        import torch

        return torch.from_numpy(np.asarray(values)).to(A.dtype if dtype is None else torch.int64)
    return values.astype(as_array(A, "A").dtype if dtype is None else dtype)
