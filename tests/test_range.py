"""Squares and exponentials that leave the range of numbers although the answer lies in it, in every backend."""

import mpmath
import numpy as np
import pytest
import torch
from cases import BACKENDS, DTYPES
from general_cases import general
from tolerances import VALUE

import fastsgd as fs
from fastsgd.portable import interpreted

M, R, L = fs.models, fs.rules, fs.losses
TRITON = pytest.param("triton", marks=pytest.mark.skipif(not (interpreted() or torch.cuda.is_available()),
                                                         reason="no GPU, not interpreted"))
EVERY = (*BACKENDS, TRITON)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # Triton's interpreter, on what overflows
NEAR = {"float32": 1e-6, "float64": 1e-14}
ONE = fs.Tuning(threads=1)


def classes(f, y, dtype, backend, **fields):
    """A run of networks that are their own outputs f [N, o], at label y, by one step of size 1 of cross-entropy."""
    f = np.asarray(f, dtype)
    model = M.MLP(1, (), outputs=f.shape[1], bias=False)
    data = fs.Dataset(np.ones((1, 1), dtype), np.array([y]))
    return fs.Run(**({"model": model, "data": data, "rule": R.SGD(), "step_size": 1.0, "steps": 1, "dtype": dtype,
                      "loss": L.CrossEntropy(), "init": {"W1": f[:, :, None]}, "backend": backend} | fields))


def probabilities(f):
    """softmax of each row of f [N, o], and what is missing to 1, all digits of both."""
    out = []
    with mpmath.workdps(60):
        for row in np.asarray(f, np.float64):
            e = [mpmath.exp(mpmath.mpf(x) - mpmath.mpf(max(row))) for x in row]
            out.append([(float(e[k] / sum(e)), float(sum(e[:k] + e[k + 1:]) / sum(e))) for k in range(len(e))])
    return np.moveaxis(np.array(out), 2, 0)


LARGE = np.array([[-1e10, 200, 0], [200, -1e10, 0], [0, 200, -1e10], [1e30, -1e30, 1.0], [-1e30, 1e30, 1.0],
                  [-3e18, -2e18, -1e18], [3e7, 3e7, -3e7], [700, -700, 88.7], [-1e10, -1e10, -1e10]])


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_classes_of_any_size_in_any_order(dtype, backend):
    """The largest output is taken off exactly: no order of large outputs makes an exponential overflow."""
    f = LARGE.astype(dtype)
    p, _ = probabilities(f)
    for y in range(3):
        for rule in (R.SGD(), R.SGD(momentum=0.5), R.SAM(rho=1e-3), R.SGD(weight_decay=0.1)):
            result = fs.train(classes(f, y, dtype, backend, rule=rule), tuning=ONE)
            assert result.survived.all()
            if rule.plain():
                want = f - (p - (np.arange(3) == y)).astype(dtype)
                np.testing.assert_allclose(result.weights, want, rtol=NEAR[dtype], atol=NEAR[dtype])


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("rule", [R.SGD(), R.SGD(momentum=0.5), R.SGD(weight_decay=1e-3), R.SAM(rho=0.05)],
                         ids=["sgd", "momentum", "decay", "sam"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_network_is_lost_at_a_large_step(dtype, rule, backend):
    """The same runs in plain torch: outputs reach hundreds, and every number is finite."""
    g = np.random.default_rng(0)
    data = fs.Dataset(g.standard_normal((20, 5)), g.integers(0, 3, 20)).astype(dtype)
    result = fs.train(M.MLP(5, 20, outputs=3), data, rule=rule, step_size=3.0, steps=60, networks=16, dtype=dtype,
                      loss=L.CrossEntropy(), backend=backend)
    assert result.survived.all() and np.isfinite(result.weights).all()


MARGINS = np.array([0.0, 1e-9, 0.3, 3.0, 15.0, 30.0, 80.0])


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_slope_near_zero_has_all_its_digits(dtype, backend):
    """The derivative at the label is minus the others' probability, however small that is."""
    f = np.stack([0 * MARGINS, -MARGINS, -MARGINS - 1], axis=1).astype(dtype)
    _, missing = probabilities(f)
    got = fs.train(classes(f, 0, dtype, backend), tuning=ONE).weights[:, 0]
    np.testing.assert_allclose(got, missing[:, 0], rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_values_near_zero_have_all_their_digits(sign):
    """log(1 + sum of exp(f_k - f_y)), in NumPy and in torch; the logistic loss of the margin likewise."""
    margins = sign * np.array([0.0, 1e-9, 0.3, 3.0, 30.0, 37.0, 300.0, 700.0, 1e4, 1e15])
    f = np.stack([margins / 2, -margins / 2, -margins / 2], axis=1)
    with mpmath.workdps(40):
        want = [float(mpmath.log1p(2 * mpmath.exp(mpmath.mpf(b) - mpmath.mpf(a)))) for a, b, _ in f]
        one = [float(mpmath.log1p(mpmath.exp(-mpmath.mpf(m)))) for m in margins]
    y, o = np.zeros(len(f), int), 3
    np.testing.assert_allclose(L.CrossEntropy().value(f, y, o), want, rtol=VALUE)
    np.testing.assert_allclose(L.CrossEntropy().value(torch.tensor(f), torch.tensor(y), o), want, rtol=VALUE)
    np.testing.assert_allclose(L.Logistic().value(margins, np.ones(10)), one, rtol=VALUE)
    slopes = torch.func.vmap(torch.func.grad(lambda f, y: L.CrossEntropy().value(f, y, 3)))
    p, missing = probabilities(f)
    got = slopes(torch.tensor(f), torch.tensor(y)).numpy()
    np.testing.assert_allclose(got, np.stack([-missing[:, 0], p[:, 1], p[:, 2]], axis=1), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("backend", EVERY)
def test_recorded_losses_near_zero_have_all_their_digits(backend):
    f = np.stack([MARGINS, 0 * MARGINS], axis=1)
    want = np.array([float(mpmath.log1p(mpmath.exp(-mpmath.mpf(m)))) for m in MARGINS])
    metrics = {"metrics": (fs.metrics.TrainLoss(),), "save": fs.SaveAt(steps=[0]), "step_size": 1e-300}
    got = fs.train(classes(f, 0, "float64", backend, **metrics), tuning=ONE).numpy("train_loss")[:, 0]
    np.testing.assert_allclose(got, want, rtol=1e-12)
    run = fs.Run(M.MLP(1, (), bias=False), fs.Dataset(np.ones((1, 1)), np.ones(1)), R.SGD(), steps=1, dtype="float64",
                 loss=L.Logistic(), init={"W1": MARGINS[:, None, None]}, backend=backend, **metrics)
    np.testing.assert_allclose(fs.train(run, tuning=ONE).numpy("train_loss")[:, 0], want, rtol=1e-12)


@pytest.mark.parametrize("backend", EVERY)
def test_a_logistic_slope_where_its_exponential_overflows(backend):
    """exp(89) is infinite in float32, exp(-89) is a number."""
    margins = np.array([30.0, 80.0, 86.0, -30.0, -89.0, -1e10], np.float32)
    run = fs.Run(M.MLP(1, (), bias=False), fs.Dataset(np.ones((1, 1), "f4"), np.ones(1, "f4")), R.GD(momentum=0.5),
                 2.0**100, 1, loss=L.Logistic(), init={"W1": margins[:, None, None]}, backend=backend)
    got = fs.train(run, tuning=ONE)
    want = margins + 2.0**100 / (1 + np.exp(margins.astype(np.float64)))
    assert got.survived.all()
    np.testing.assert_allclose(got.weights[:, 0], want, rtol=1e-5)


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize(("activation", "z", "slope"), [
    ("tanh", 1e-3, None), ("tanh", -1e-6, None), ("tanh", 1e-20, 1.0), ("tanh", -30.0, 0.0), ("tanh", 0.3, None),
    ("sigmoid", -80.0, None), ("softplus", -15.0, None), ("softplus", -80.0, None), ("softplus", 1e10, 1.0),
    ("relu", -np.inf, 0.0), ("leaky", -1e38, 0.5)])
def test_activations_far_and_near_have_their_digits(activation, z, slope, backend):
    """Seen by the output weight, which moves by the activation, and by the bias, which moves by the derivative."""
    exact = {"tanh": (mpmath.tanh, lambda x: mpmath.sech(x)**2), "softplus": (
        lambda x: mpmath.log1p(mpmath.exp(x)), lambda x: 1 / (1 + mpmath.exp(-x))), "sigmoid": (
        lambda x: 1 / (1 + mpmath.exp(-x)), lambda x: mpmath.exp(x) / (1 + mpmath.exp(x))**2),
        "relu": (lambda x: mpmath.mpf(0), None), "leaky": (lambda x: x / 2, None)}[activation]
    dtype, big = "float32", 2.0**70 if z < -10 else 1.0
    model = M.MLP(1, 1, activation=activation, slope=0.5, bias=(False, False))
    x = np.array([[np.float32(z if np.isfinite(z) else -3e38)]])  # -3e38 times 2 is -inf
    run = fs.Run(model, fs.Dataset(x, -np.ones(1, "f4")), R.GD(momentum=0.5), big, 1, backend=backend, dtype=dtype,
                 init={"W1": np.full((1, 1), 1 if np.isfinite(z) else 2, "f4"), "W2": np.zeros((1, 1), "f4")})
    if abs(z) > 1e30:
        run = run.replace(step_size=1e-10)
    got = fs.train(run, tuning=ONE)
    want = -run.step_size.base * float(exact[0](mpmath.mpf(float(x[0, 0]))))
    assert got.survived.all()
    np.testing.assert_allclose(got.params["W2"].item(), want, rtol=2e-6)


def scaled(rule, scales, dtype, backend, d=3, **fields):
    """Diagonal networks u = 0, v = scale: the gradient with respect to u is -scale x, with respect to v it is 0."""
    x = np.linspace(1, 2, d).astype(dtype)
    ones = np.ones((len(scales), d), dtype)
    data = fs.Dataset(x[None], np.ones(1, dtype))
    return x, fs.Run(**({"model": M.DiagonalLinear(d), "data": data, "rule": rule, "step_size": 0.5, "steps": 1,
                         "init": {"u": 0 * ones, "v": ones * np.asarray(scales, dtype)[:, None]}, "dtype": dtype,
                         "backend": backend} | fields))


SCALES = {"float32": [1.0, 0.0, 1e-18, 1e-25, 1e-37, 1e-42, 1e10, 1e25, 1e37, 3.0, 1e-20],
          "float64": [1.0, 0.0, 1e-160, 1e-200, 1e-300, 1e-318, 1e100, 1e200, 1e300, 3.0, 1e-155]}


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("d", [3, 40])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_normalised_step_has_length_one_at_any_scale(dtype, d, backend):
    for rule in (R.SGD(normalised=True), R.SGD(normalised=True, momentum=0.5), R.GD(normalised=True, weight_decay=0.0)):
        x, run = scaled(rule, SCALES[dtype], dtype, backend, d)
        u = fs.train(run, tuning=ONE).params["u"].numpy()
        unit = 0.5 * x / np.linalg.norm(x.astype(np.float64))
        coarse = 1e-2 if dtype == "float32" else 1e-3  # a gradient of some units of the smallest number
        for k, scale in enumerate(SCALES[dtype]):
            tolerance = coarse if 0 < scale < np.finfo(dtype).tiny else 4 * np.finfo(dtype).eps
            np.testing.assert_allclose(u[k], unit if scale else 0 * unit, rtol=tolerance, err_msg=str(scale))


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sams_point_is_at_distance_rho_at_any_scale(dtype, each, backend):
    """At u = -rho x / |x| the gradient with respect to v, which is zero at u = 0, is rho x^2 / |x|."""
    scales, rho = [0.0, *SCALES[dtype][2:6], SCALES[dtype][-1]], 0.25
    x, run = scaled(R.SAM(rho=rho, per_sample=each), scales, dtype, backend)
    result = fs.train(run, tuning=ONE)
    moved = result.params["v"].numpy() - np.array(scales)[:, None]
    want = -0.5 * rho * x**2 / np.linalg.norm(x.astype(np.float64))
    tolerance = 1e-2 if dtype == "float32" else 1e-3
    np.testing.assert_allclose(moved[1:], np.tile(want, (len(scales) - 1, 1)), rtol=tolerance)
    assert not moved[0].any() and not result.weights[0].any()


@pytest.mark.parametrize("lanes", [None, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_neighbours_at_other_scales_change_no_bit(dtype, lanes):
    for rule in (R.SGD(normalised=True), R.SAM(rho=0.1, batch_size=1)):
        _, run = scaled(rule, SCALES[dtype], dtype, "cpu", 70, steps=3)
        together = fs.train(run, tuning=fs.Tuning(lanes=lanes, threads=1))
        for k in range(len(SCALES[dtype])):
            alone = fs.train(run.replace(ids=[k]), tuning=fs.Tuning(lanes=1, threads=1))
            assert alone.weights[0].tobytes() == together.weights[k].tobytes()


def test_a_lost_neighbour_changes_no_bit_of_a_normalised_run():
    run = general("normalised_relu2", "float32", steps=30, step_size=np.where(np.arange(11) % 2, 1e30, 0.01))
    result = fs.train(run)
    assert (result.lost >= 0).sum() == 5
    alone = fs.train(run.replace(ids=np.arange(0, 11, 2)))
    assert alone.weights.tobytes() == result.weights[::2].tobytes()
