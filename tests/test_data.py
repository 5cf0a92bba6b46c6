"""Checks the data shelf: generated problems, and the paper's systems against facts known independently of the code."""

import hashlib

import numpy as np
import pytest

from fastsgd.data import paper, sparse_regression, teacher_student
from fastsgd.errors import SpecError

NAMES = ("S1", "S2", "S3", "S4", "S5", "S7", "S9")
SHAPES = {  # n, d, test points, parameters, T, evaluations, last evaluation, runs
    "S1": (80, 200, 1000, 400, 100_001, 348, 99_599, 4),
    "S2": (40, 100, 1000, 200, 100_001, 348, 99_599, 5),
    "S3": (20, 30, 1000, 60, 10_001, 566, 10_001, 3),
    "S4": (12, 1, 0, 300, 31_623, 249, 31_412, 2),
    "S5": (12, 1, 0, 300, 31_623, 249, 31_412, 2),
    "S7": (15, 2, 1000, 60, 14_126, 248, 14_032, 4),
    "S9": (50, 5, 1000, 181, 10_001, 248, 9_934, 4),
}


def diagonal_losses(system, run):
    """Train and test loss [2] of a diagonal net after `system.printed_at` updates, by the definition."""
    data, order, eta = system.data, system.order(), run.step_sizes(system.steps)
    u, v = system.init["u"], system.init["v"]
    for t in range(system.printed_at):
        if run.rule == "sgd":
            x = data.X[order[t]]
            g = (x @ (u * v) - data.y[order[t]]) * x
        else:
            g = data.X.T @ (data.X @ (u * v) - data.y) / data.n
        u, v = u - eta[t] * g * v, v - eta[t] * g * u
    return [system.loss_factor * np.mean((X @ (u * v) - y) ** 2)
            for X, y in ((data.X, data.y), (data.X_test, data.y_test))]


def relu_losses(system, run):
    """Train and test loss [2] of a two-layer net without biases after `system.printed_at` updates."""
    data, order, eta = system.data, system.order(), run.step_sizes(system.steps)
    W, a = system.init["W1"].copy(), system.init["W2"][0].copy()
    for t in range(system.printed_at):
        x = data.X[order[t]]
        z = W @ x
        slope = 2 * system.loss_factor * (a @ np.maximum(z, 0) - data.y[order[t]])
        W, a = W - eta[t] * slope * np.outer(a * (z > 0), x), a - eta[t] * slope * np.maximum(z, 0)
    return [system.loss_factor * np.mean((np.maximum(X @ W.T, 0) @ a - y) ** 2)
            for X, y in ((data.X, data.y), (data.X_test, data.y_test))]


@pytest.mark.parametrize("name", NAMES)
def test_system_shapes(name):
    system, (n, d, n_test, P, T, S, last, runs) = paper(name), SHAPES[name]
    data = system.data
    assert data.X.shape == (n, d) and data.y.shape == (n,) and data.X.dtype == data.y.dtype == np.float64
    assert (0 if data.X_test is None else len(data.X_test)) == n_test
    assert sum(value.size for value in system.init.values()) == P
    assert all(value.dtype == np.float64 for value in system.init.values())
    assert system.steps == T and len(system.evaluations) == S and system.printed_at == last
    assert np.all(np.diff(system.evaluations) > 0) and system.evaluations[-1] <= T
    assert len(system.runs) == runs and len({run.label for run in system.runs}) == runs
    for run in system.runs:
        assert all(isinstance(value, float) for value in run.printed.values())
        assert set(run.from_plot) <= set(run.printed)
        assert run.rule in ("sgd", "gd") and run.decay_timing == ("before" if system.loss_factor == 1.0 else "after")


@pytest.mark.parametrize("name", NAMES)
def test_order_is_the_legacy_generators_draw_for_draw(name):
    system = paper(name)
    n, generator = system.data.n, np.random.RandomState(system.order_seed)
    draw = {"randint": lambda: generator.randint(n), "choice": lambda: generator.choice(n, size=1, replace=False)[0]}
    order = system.order()
    assert order.shape == (system.steps,) and order.dtype == np.int64 and order.min() == 0 and order.max() == n - 1
    assert np.array_equal(order[:500], [draw[system.order_law]() for _ in range(500)])
    assert np.array_equal(order, paper(name).order())


def test_s1_sums():
    data = paper("S1").data
    beta = np.linalg.lstsq(data.X_test, data.y_test, rcond=None)[0]
    assert data.X.sum() == pytest.approx(-149.00895852, abs=1e-8)
    assert data.X_test.sum() == pytest.approx(834.8023999, abs=1e-7)
    assert beta.sum() == pytest.approx(3.2256236428, abs=1e-9)
    assert beta[:3] == pytest.approx([0.1918374595, 0.0675362057, 0.1818076256], abs=1e-9)
    assert np.abs(beta[20:]).max() < 1e-12 and np.linalg.norm(beta) == pytest.approx(1, abs=1e-12)


def test_relu_data():
    assert paper("S7").data.y[:5] == pytest.approx([0.9664, -0.5862, 0.4440, 0.9520, 0.8456], abs=5e-5)
    assert paper("S9").data.y[:4] == pytest.approx([-0.6163, 0.9799, 0.3886, 0.1911], abs=5e-5)
    assert np.linalg.norm(paper("S7").data.X, axis=1) == pytest.approx(np.ones(15), abs=1e-6)
    line = paper("S4").data
    assert line.X[:, 0] == pytest.approx((np.arange(12) - 5.5) / 4 + 0.07, abs=1e-6)
    assert line.y == pytest.approx(0.345 + np.array([-2, 1.5, 0, 0, 2, 1, 0, -1, 0, 1, 2, -1]), abs=1e-6)
    assert set(np.abs(paper("S4").init["W1"]).ravel()) == {2.5} and not paper("S7").init["W2"].any()


def test_stored_start_is_unchanged():
    digest = hashlib.sha256()
    for name in ("S4", "S7", "S9"):
        system = paper(name)
        for value in (system.data.X, system.data.y, *system.init.values()):
            digest.update(np.ascontiguousarray(value).tobytes())
    assert digest.hexdigest()[:16] == "dbed1ad0ca6f844f"


def test_rank_points():
    for name, P in (("S1", 400), ("S7", 60), ("S9", 181)):
        system = paper(name)
        assert np.array_equal(system.rank_points, system.data.X_test[:P])
    assert paper("S4").rank_points.shape == (300, 1) and paper("S3").rank_points is None


def test_step_sizes_peaks_and_decay_timing():
    def eta(name, run):
        system = paper(name)
        return system.runs[run].step_sizes(system.steps)

    after = eta("S1", 1)
    assert after[10_000] == 0.282 and after[10_001] == after[-1] == 0.282 / 4.8
    before = eta("S7", 1)
    assert before[1_411] == 0.455 and before[1_412] == before[-1] == 0.455 / 2
    for name, peaks in (("S4", (2.28e-4, 2.01e-2)), ("S5", (2.36e-4, 2.51e-2)), ("S9", (0.011, 0.103, 0.150, 0.181))):
        for run, peak in enumerate(peaks):
            assert eta(name, run).max() == pytest.approx(peak, rel=5e-3)


@pytest.mark.parametrize("name, run, follow, digits", [
    ("S3", 0, diagonal_losses, 1e-9), ("S3", 2, diagonal_losses, 1e-6), ("S7", 0, relu_losses, 1e-5)])
def test_printed_losses_come_out(name, run, follow, digits):
    system = paper(name)
    printed = system.runs[run].printed
    assert follow(system, system.runs[run]) == pytest.approx([printed["train"], printed["test"]], rel=digits)


def test_sparse_regression():
    data = sparse_regression(30, 12, 4, n_test=50, seed=3)
    beta = np.linalg.lstsq(data.X, data.y, rcond=None)[0]
    assert data.X_test.shape == (50, 12) and data.X_test @ beta == pytest.approx(data.y_test)
    assert np.linalg.norm(beta) == pytest.approx(1) and np.all(beta[:4] > 0) and np.abs(beta[4:]).max() < 1e-12
    alone = sparse_regression(30, 12, 4, seed=3)
    assert alone.X_test is None and np.array_equal(alone.X, data.X) and np.array_equal(alone.y, data.y)
    assert not np.array_equal(alone.X, sparse_regression(30, 12, 4, seed=4).X)


def test_teacher_student():
    data = teacher_student(40, 3, 5, n_test=20, seed=1)
    assert data.X.shape == (40, 3) and data.y_test.shape == (20,) and data.X.dtype == np.float64
    assert np.linalg.norm(data.X, axis=1) == pytest.approx(np.ones(40))
    assert np.abs(data.y).max() <= 5 and data.y.std() > 0
    alone = teacher_student(40, 3, 5, seed=1)
    assert alone.X_test is None and np.array_equal(alone.X, data.X) and np.array_equal(alone.y, data.y)


@pytest.mark.parametrize("call, field", [
    (lambda: sparse_regression(0, 5, 2), "n"), (lambda: sparse_regression(5, 5, 6), "nonzero"),
    (lambda: sparse_regression(5, 5, 0), "nonzero"), (lambda: sparse_regression(5, 2.5, 1), "d"),
    (lambda: sparse_regression(5, 5, 2, n_test=-1), "n_test"), (lambda: sparse_regression(5, 5, 2, seed=-1), "seed"),
    (lambda: teacher_student(5, 2, 0), "teacher_width"), (lambda: teacher_student(True, 2, 3), "n"),
    (lambda: paper("S6"), "name"), (lambda: paper(7), "name")])
def test_refusals_name_field_and_legal_values(call, field):
    with pytest.raises(SpecError, match=rf"^{field}: .*expected"):
        call()
