"""Owns the library's own generated regression problems: sparse linear and teacher-student."""

import numpy as np

from ..spec.check import dtype_name, whole
from ..spec.problem import Dataset


def sparse_regression(n: int, d: int, nonzero: int, n_test: int = 0, seed: int = 0, dtype: str = "float64") -> Dataset:
    """Noiseless linear labels of a sparse positive vector on Gaussian inputs.

    y_i = <beta*, x_i>, x_i ~ N(0, I_d), beta*_j = |g_j| for j < nonzero and 0 after, g ~ N(0, I), ||beta*||_2 = 1

    n: int - training points, >= 1
    d: int - inputs, >= 1
    nonzero: int - coordinates of beta* that are not zero, 1 .. d
    n_test: int - test points, >= 0; 0 gives no test set
    seed: int - seed of `numpy.random.default_rng`, >= 0. beta* is drawn first, then X, then X_test, so beta* does
        not depend on n or n_test, and X does not depend on n_test
    dtype: "float32" or "float64" - the problem is drawn in float64 and rounded to it
    Returns a Dataset. Raises SpecError.
    Source: arXiv 2210.05337, section 4 (same law; `paper` rebuilds the authors' own draws).
    """
    n, d, n_test = whole(n, "n", 1), whole(d, "d", 1), whole(n_test, "n_test")
    nonzero = whole(nonzero, "nonzero", 1, high=d)
    rng = np.random.default_rng(whole(seed, "seed"))
    beta = np.zeros(d)  # [d]
    beta[:nonzero] = np.abs(rng.standard_normal(nonzero))
    beta /= np.linalg.norm(beta)
    return _labelled(lambda X: X @ beta, lambda k: rng.standard_normal((k, d)), n, n_test, dtype)


def teacher_student(n: int, d: int, teacher_width: int, n_test: int = 0, seed: int = 0,
                    dtype: str = "float64") -> Dataset:
    """Noiseless labels of a two-layer ReLU teacher on inputs of the unit sphere.

    y_i = sum_j a_j max(<w_j, x_i>, 0), x_i = g_i / ||g_i||, w_j = g'_j / ||g'_j||, a_j = -1 or +1 with equal chance

    n: int - training points, >= 1
    d: int - inputs, >= 1
    teacher_width: int - neurons of the teacher, >= 1
    n_test: int - test points, >= 0; 0 gives no test set
    seed: int - seed of `numpy.random.default_rng`, >= 0. The teacher is drawn first, then X, then X_test, so the
        teacher does not depend on n or n_test, and X does not depend on n_test
    dtype: "float32" or "float64" - the problem is drawn in float64 and rounded to it
    Returns a Dataset. Raises SpecError.
    Source: arXiv 2210.05337, section 5, after Chizat, Oyallon, Bach 2019.
    """
    n, d, n_test = whole(n, "n", 1), whole(d, "d", 1), whole(n_test, "n_test")
    h = whole(teacher_width, "teacher_width", 1)
    rng = np.random.default_rng(whole(seed, "seed"))

    def sphere(k):  # [k, d]
        g = rng.standard_normal((k, d))
        return g / np.linalg.norm(g, axis=1, keepdims=True)

    W, a = sphere(h), 2.0 * rng.integers(0, 2, size=h) - 1.0  # [h, d], [h]
    return _labelled(lambda X: np.maximum(X @ W.T, 0.0) @ a, sphere, n, n_test, dtype)


def _labelled(label, draw, n, n_test, dtype):
    """The Dataset of n training points and, unless n_test is 0, n_test test points drawn after them."""
    dtype = dtype_name(dtype)
    X = draw(n)
    if n_test == 0:
        return Dataset(X, label(X)).astype(dtype)
    X_test = draw(n_test)
    return Dataset(X, label(X), X_test, label(X_test)).astype(dtype)
