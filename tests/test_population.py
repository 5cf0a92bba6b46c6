"""Training on the exact loss over Gaussian inputs: against quadrature, torch, the limit of online learning, itself."""

import numpy as np
import pytest
import torch
from cases import DTYPES
from general_cases import NETWORKS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from tolerances import WEIGHTS

import fastsgd as fs
from fastsgd import config
from fastsgd.models import gaussian
from fastsgd.models.exact import exact
from fastsgd.reproduce.neighbours import saad1995

M, R, L = fs.models, fs.rules, fs.losses
Population = fs.data.Population
ONE = fs.Tuning(threads=1)
RADIAL = {"square": 8.0}  # E r^4 of inputs in the plane, 2 = E r^2 for what is linear in r


def net(activation, width, outputs=1, d=2, **fields):
    return M.MLP(d, width, outputs=outputs, activation=activation, bias=False, slope=0.3, **fields)


def named(model, seed=1, size=1.0):
    """Random parameters {name: array} of a network."""
    rng = np.random.default_rng(seed)
    return {name: size * rng.standard_normal(shape) for name, shape in model.shapes().items()}


def quadrature(activation, *units):
    """(points [m, 2], weights [m]) by which means over N(0, I_2) of two activations of `units` [.., 2] are exact."""
    if activation == "erf":
        z = np.arange(-9, 9, 0.1)  # trapezia of an entire function
        w, X = np.exp(-z**2 / 2), np.stack(np.meshgrid(z, z), axis=-1).reshape(-1, 2)
        return X, np.outer(w, w).ravel() / w.sum() ** 2
    # homogeneous: the length is integrated by itself, the angle from kink to kink
    w = np.concatenate(units)
    kinks = (np.arctan2(w[:, 1], w[:, 0])[:, None] + np.array([0.5, 1.5]) * np.pi).ravel() % (2 * np.pi)
    edges = np.sort(np.concatenate([[0, np.pi, 2 * np.pi], kinks]))
    z, weights = np.polynomial.legendre.leggauss(20)
    half = np.diff(edges)[:, None] / 2
    angle = (edges[:-1, None] + half * (1 + z)).ravel()
    return (np.stack([np.cos(angle), np.sin(angle)], axis=-1),
            RADIAL.get(activation, 2.0) / (2 * np.pi) * (half * weights).ravel())


def by_quadrature(run, params):
    """(loss, gradient [P]) of one network."""
    data, model = run.data, run.model
    X, weights = (torch.tensor(a) for a in quadrature(model.activation, params["W1"], data.weights["W1"]))
    flat = torch.tensor(model.flatten(params, 1)[0], requires_grad=True)
    off = model.forward(model.unflatten(flat), X) - torch.tensor(data.teacher.forward(data.weights, X.numpy()))
    loss = run.loss.factor * (weights * (off**2 if model.outputs == 1 else (off**2).sum(1))).sum()
    return loss.item(), torch.autograd.grad(loss, flat)[0].numpy()


def step(run, params):
    """(loss, gradient [P]) of one network by one step of gradient descent."""
    one = run.replace(rule=R.GD(), step_size=1.0, steps=1, init=params, metrics=fs.metrics.TrainLoss(),
                      save=fs.SaveAt(steps=[0, 1], params=True), networks=1)
    done = fs.train(one, tuning=ONE)
    return done.numpy("train_loss")[0, 0], done.saved_weights[0, 0] - done.saved_weights[0, 1]


def problem(activation, outputs=1, width=3, units=2, d=2, **fields):
    student = net(activation, width, outputs, d, scaling=(0.7, 1.3), **fields)
    teacher = net(activation, units, outputs, d, scaling=(0.9, 0.8))
    return fs.Run(student, Population(d, teacher, named(teacher)), R.GD(), 0.01, 10, loss=L.Squared(0.7),
                  dtype="float64", backend="cpu")


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("activation", gaussian.KNOWN)
def test_loss_and_gradient_are_those_of_quadrature(activation, outputs):
    run = problem(activation, outputs)
    for seed in (2, 3):
        params = named(run.model, seed)
        value, slope = by_quadrature(run, params)
        for backend in ("cpu", "reference"):
            loss, gradient = step(run.replace(backend=backend), params)
            np.testing.assert_allclose(loss, value, rtol=1e-12)
            np.testing.assert_allclose(gradient, slope, rtol=1e-11, atol=1e-12 * np.abs(slope).max())


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(gaussian.KNOWN), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3),
       st.floats(-6, 1.5), st.integers(0, 999), st.sampled_from(DTYPES))
def test_kernels_have_the_gradient_of_the_definition(activation, d, width, units, outputs, digits, seed, dtype):
    student, teacher = net(activation, width, outputs, d), net(activation, units, outputs, d)
    data = Population(d, teacher, named(teacher, seed)).astype(dtype)
    params = {name: a.astype(dtype) for name, a in named(student, seed + 1, 10.0**digits).items()}
    run = fs.Run(student, data, R.GD(), 1.0, 1, dtype=dtype, backend="cpu")
    (loss, got), (value, want) = step(run, params), step(run.replace(backend="reference"), params)
    weights = student.flatten(params, 1)[0]
    size = max(np.abs(want).max(), np.abs(weights).max())  # w - g is rounded
    np.testing.assert_allclose(got, want, rtol=0, atol=100 * WEIGHTS[dtype] * size)
    np.testing.assert_allclose(loss, value, rtol=1e-9, atol=1e-12)


def special():
    """{case: (student rows, teacher rows)} at which formulas divide zero by zero, or leave the arc sine's range."""
    e, f = np.eye(2)
    return {"the teacher": ([e, 2 * f], [e, 2 * f]), "parallel": ([e, 3 * e], [2 * e, f]),
            "opposite": ([e, -2 * e], [-e, f]), "zero": ([0 * e, f], [e, f]), "zero teacher": ([e, f], [0 * e, f]),
            "all zero": ([0 * e, 0 * e], [e, f]), "nearly": ([e, e + 1e-9 * f], [e + 3e-9 * f, f]),
            "large": ([1e6 * e, 1e6 * (e + 1e-3 * f)], [e, f])}


@pytest.mark.parametrize("case", special())
@pytest.mark.parametrize("activation", ["erf", "relu", "leaky", "abs", "identity", "square"])
def test_special_points_are_finite_and_right(activation, case):
    student, teacher = (np.array(rows, float) for rows in special()[case])
    model, ones = net(activation, 2), np.array([[1.0, 1.0]])
    run = fs.Run(model, Population(2, model, {"W1": teacher, "W2": ones}), R.GD(), 1.0, 1, dtype="float64",
                 backend="cpu")
    params = {"W1": student, "W2": ones}
    loss, gradient = step(run, params)
    _, other = step(run.replace(backend="reference"), params)
    scale = np.abs(student).max() ** (4 if activation == "square" else 2) + 1
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient, other, atol=1e-12 * scale)
    X, weights = quadrature(activation, student, teacher)
    if case == "large" and activation == "erf":  # nearly a sign, which no quadrature of products of points resolves
        return
    off = model.forward(params, X) - model.forward({"W1": teacher, "W2": ones}, X)
    np.testing.assert_allclose(loss, 0.5 * (weights * off**2).sum(), rtol=1e-10, atol=1e-14 * scale)
    if case == "the teacher":
        assert abs(loss) < 1e-15 and np.abs(gradient).max() < 1e-15


def test_units_that_are_zero_have_the_derivative_of_the_activation_there():
    """act'(0) of relu is 0, of leaky its slope: E slope x act(t . x) = slope (1 + slope) t / 2."""
    for activation, slope in (("relu", 0.0), ("leaky", 0.3), ("abs", 0.0)):
        model, t = net(activation, 1), np.array([[0.6, -0.8]])
        run = fs.Run(model, Population(2, model, {"W1": t, "W2": np.ones((1, 1))}), R.GD(), 1.0, 1, dtype="float64")
        for backend in ("cpu", "reference"):
            _, gradient = step(run.replace(backend=backend), {"W1": 0 * t, "W2": np.ones((1, 1))})
            np.testing.assert_allclose(gradient[:2], -slope * (1 + slope) / 2 * t[0], atol=1e-15)


def test_metrics_of_the_loss_are_those_of_the_expectation():
    run = problem("erf", width=2)
    params = named(run.model, 5)
    loss, gradient = step(run, params)
    teacher = run.data.weights
    factor = 0.8 / 1.3  # the metric gives the teacher the student's scalings
    metrics = (fs.metrics.TrainLoss(), fs.metrics.GradientNorm(), fs.metrics.Sharpness(), fs.metrics.HessianTrace(),
               fs.metrics.GeneralisationError(0.9 / 0.7 * teacher["W1"], factor * teacher["W2"][0], factor=0.7),
               fs.metrics.Overlaps(), fs.metrics.ParameterNorm())
    found = fs.train(run.replace(init=params, steps=1, metrics=metrics, save=fs.SaveAt(steps=[0])))
    assert found.numpy("train_loss")[0, 0] == loss
    np.testing.assert_allclose(found.numpy("generalisation_error")[0, 0], loss, rtol=1e-12)
    np.testing.assert_allclose(found.numpy("gradient_norm")[0, 0], np.linalg.norm(gradient), rtol=1e-12)
    np.testing.assert_allclose(found.numpy("overlaps")[0, 0], params["W1"] @ params["W1"].T / 2, rtol=1e-12)
    P, h = run.model.P, 1e-5
    def slope(w):
        return step(run, run.model.unflatten(w))[1]
    w = run.model.flatten(params, 1)[0]
    hessian = np.array([slope(w + h * e) - slope(w - h * e) for e in np.eye(P)]) / (2 * h)
    np.testing.assert_allclose(found.numpy("hessian_trace")[0, 0], np.trace(hessian), rtol=1e-6)
    np.testing.assert_allclose(found.numpy("sharpness")[0, 0], np.linalg.eigvalsh(hessian)[-1], rtol=1e-6)


@pytest.mark.parametrize("activation", ["erf", "relu", "square"])
def test_hessians_are_right_where_units_are_parallel(activation):
    """A student that copies a teacher unit, up to rounding or not, against differences of the kernel's gradient."""
    model, teacher, h = net(activation, 2, d=3), net(activation, 3, d=3), 1e-5
    ones = {"W1": np.eye(3), "W2": np.ones((1, 3))}
    run = fs.Run(model, Population(3, teacher, ones), R.GD(), 1.0, 1, dtype="float64", backend="cpu")
    for off in (0.0, 1e-16, 3e-12):
        w = np.concatenate([np.array([[1, off, 0], [0.0, 0.6, 0.7]]).ravel(), [1.0, 1.3]])

        def slope(w):
            return step(run, model.unflatten(w))[1]

        want = np.array([slope(w + h * e) - slope(w - h * e) for e in np.eye(len(w))]) / (2 * h)
        got = fs.polish(model, run.data, model.unflatten(w), steps=0).eigenvalues[0]
        atol = 3e-5 if activation == "relu" else 1e-8  # whose third derivative jumps
        np.testing.assert_allclose(got, np.linalg.eigvalsh((want + want.T) / 2), atol=atol)


def test_flow_is_the_limit_of_online_learning():
    """Overlaps of a flow follow Saad and Solla's equations without their terms of second order in the step size."""
    d, K = 30, 2
    teacher, start = saad1995._weights(np.random.default_rng(3), d)
    start[:, :5] += 0.5
    model = M.MLP(d, K, activation="erf", bias=False, scaling=((2 * d) ** -0.5, 1.0), fixed="W2")
    ones, alpha = np.ones((1, K)), np.array([1.0, 5.0, 20.0])
    flow = fs.flow(model, Population(d, model, {"W1": teacher, "W2": ones}), alpha * d, rtol=1e-9, atol=1e-11,
                   init={"W1": start, "W2": ones}, metrics=[
                       fs.metrics.TrainLoss(), fs.metrics.TeacherOverlaps(teacher)])
    R0, tiny = start @ teacher.T / d, 1e-9
    state = np.block([[start @ start.T / d, R0], [R0.T, np.eye(K)]])
    by = solve_ivp(lambda t, y: saad1995._slope(y.reshape(2 * K, 2 * K), K, tiny).ravel() / tiny, (0, alpha[-1]),
                   state.ravel(), t_eval=alpha, rtol=1e-10, atol=1e-12).y.T.reshape(-1, 2 * K, 2 * K)
    np.testing.assert_allclose(flow.numpy("teacher_overlaps")[0, 1:], by[:, :K, K:], atol=1e-6)
    sign, lengths = np.array([1, 1, -1, -1]), [np.sqrt(1 + np.diag(C)) for C in by]
    error = [sign @ np.arcsin(C / np.outer(a, a)) @ sign / np.pi for C, a in zip(by, lengths, strict=True)]
    np.testing.assert_allclose(flow.numpy("train_loss")[0, 1:], error, atol=1e-7)


def test_stochastic_gradients_have_this_gradient_in_the_mean():
    """And parameters go from the one to the other as they are."""
    run = problem("relu", width=3, d=3)
    begun = fs.train(run.replace(steps=50, networks=2))
    _, gradient = step(run, {name: a[0] for name, a in begun.params.items()})
    fresh = fs.data.Fresh(3, run.data.teacher, run.data.weights)
    drawn = fs.train(run.replace(data=fresh, rule=R.SGD(batch_size=20_000), step_size=1.0, steps=1, networks=1,
                                 init={name: a[0] for name, a in begun.params.items()}))
    np.testing.assert_allclose(begun.weights[0] - drawn.weights[0], gradient, atol=0.1)


def teachers(activation="erf", N=NETWORKS, d=3, dtype="float64"):
    teacher = net(activation, 2, d=d)
    weights = teacher.unflatten(np.random.default_rng(8).standard_normal((N, teacher.P)))
    return Population(d, teacher, {name: a.copy() for name, a in weights.items()}).astype(dtype)


@pytest.mark.parametrize("rule", [R.GD(), R.Adam(batch_size=None), R.Flow(rtol=1e-6)], ids=["gd", "adam", "flow"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_teacher_for_each_network(rule, dtype):
    """Bits are those of each teacher alone, whatever the lanes, the company, the cut; stops and metrics are its own."""
    data = teachers("relu", dtype=dtype)
    run = fs.Run(net("relu", 3, d=3), data, rule, 0.05, 12, dtype=dtype, seed=4, backend="cpu",
                 metrics=fs.metrics.TrainLoss(), save=fs.SaveAt(linear=4),
                 stop=fs.stops.Below("train_loss", 0.3, every=3))
    whole = fs.train(run, tuning=fs.Tuning(threads=2))
    for k in (0, 4, NETWORKS - 1):
        alone = fs.train(run.replace(data=data.of(k), ids=[k]), tuning=fs.Tuning(lanes=1, threads=1, segment=5))
        assert alone.weights[0].tobytes() == whole.weights[k].tobytes() and alone.stopped[0] == whole.stopped[k]
        np.testing.assert_array_equal(alone.numpy("train_loss")[0], whole.numpy("train_loss")[k])
    part = fs.train(run.replace(ids=[7, 2]))
    assert part.weights.tobytes() == whole.weights[[7, 2]].tobytes()
    joined = fs.concat([whole.select([1, 5]), whole.select([7, 2])])
    assert fs.train(joined.run).weights.tobytes() == whole.weights[[1, 5, 7, 2]].tobytes()
    assert whole.to_xarray()["data.which"].values.tolist() == list(range(NETWORKS))


def test_files_forks_and_polish(tmp_path):
    run = problem("erf", width=2).replace(networks=3, steps=4000, step_size=0.3, metrics=fs.metrics.TrainLoss())
    result = fs.train(run)
    result.save(tmp_path / "run.npz")
    again = fs.Result.load(tmp_path / "run.npz")
    longer = fs.extend(again, steps=4010)
    assert longer.survived.all()
    assert longer.weights.tobytes() == fs.train(run.replace(steps=4010)).weights.tobytes()
    ends = fs.polish(longer)
    assert (ends.gradient_norm < 1e-12).all() and (ends.loss <= longer.numpy("train_loss")[:, -1] + 1e-15).all()
    per = fs.train(fs.Run(net("erf", 3, d=3), teachers(), R.GD(), 0.1, 9, dtype="float64"))
    assert fs.fork(per, steps=18, seed=5).weights.shape == per.weights.shape


def test_functions_and_files_of_words_take_populations(tmp_path):
    data = teachers()
    run = fs.Run(net("erf", 3, d=3), data, R.GD(), 0.1, 2, dtype="float64", metrics=fs.metrics.TrainLoss())
    result = fs.train(run)
    got = fs.functional.measure(fs.metrics.TrainLoss(), run.model, result.weights, data)
    np.testing.assert_array_equal(got, result.numpy("train_loss")[:, -1])
    (tmp_path / "run.toml").write_text("""
steps = 3
dtype = "float64"
step_size = 0.1
model = {type = "MLP", d = 2, widths = 3, bias = false, activation = "relu"}
rule = "GD"
[data]
type = "Population"
d = 2
teacher = {type = "MLP", d = 2, widths = 1, bias = false, activation = "relu"}
weights = {W1 = [[1.0, 0.5]], W2 = [[1.0]]}
""")
    assert fs.plan(config.read(tmp_path / "run.toml")).run.data.n == 1


def test_a_plan_says_so():
    text = fs.plan(problem("erf")).explain()
    assert "all Gaussian inputs at once" in text and "training" in text


TEACHER = net("erf", 2)
GIVEN = {"d": 2, "teacher": TEACHER, "weights": named(TEACHER)}


@pytest.mark.parametrize(("change", "why"), [
    ({"teacher": None}, "one is missing"), ({"weights": None}, "one is missing"), ({"d": 3}, "has d=2 inputs"),
    ({"teacher": "erf"}, "expected a model"), ({"weights": [1]}, "expected a dict"),
    ({"weights": {"W1": np.ones((2, 2))}}, "expected"),
    ({"weights": {"W1": np.ones((3, 2, 2)), "W2": np.ones((4, 1, 2))}}, "same number N"),
])
def test_bad_populations_are_refused(change, why):
    with pytest.raises(fs.SpecError, match=why):
        Population(**(GIVEN | change))


@pytest.mark.parametrize(("change", "why"), [
    ({"model": M.MLP(2, 3, activation="erf")}, "model: MLP given; .* without biases"),
    ({"model": M.MLP(2, (3, 3), activation="erf", bias=False)}, "two-layer networks"),
    ({"model": M.DiagonalLinear(2)}, "two-layer networks"), ({"model": net("tanh", 3)}, "no closed form .* 'tanh'"),
    ({"model": net("relu", 3)}, "two networks that have the same"), ({"model": net("erf", 3, outputs=2)}, "outputs?"),
    ({"model": net("erf", 3, d=3)}, "model.d: is 3"), ({"loss": L.Logistic()}, "loss: Logistic given"),
    ({"loss": L.Squared(weights=[2.0])}, "without weights"), ({"rule": R.SGD()}, "draws samples"),
    ({"rule": R.GD(label_noise=0.1)}, "no labels that are drawn"),
    ({"metrics": fs.metrics.TestLoss()}, "test_loss is not possible"),
    ({"metrics": fs.metrics.JacobianRank()}, "rank is not possible"),
    ({"backend": "triton"}, "cannot run this"),
    ({"networks": 3, "data": teachers(d=2)}, "data.weights has 11, networks has 3"),
    ({"dtype": "float32"}, "float64"),
])
def test_plans_refuse_what_has_no_exact_loss(change, why, nothing_runs):
    run = {"model": net("erf", 3), "data": Population(**GIVEN), "rule": R.GD(), "step_size": 0.1, "steps": 3,
           "dtype": "float64"}
    with pytest.raises(fs.errors.FastsgdError, match=why):
        fs.train(fs.Run(**(run | change)))


def test_a_subclass_that_computes_something_else_is_refused():
    class Other(M.MLP):
        def forward(self, params, X):
            return 2 * super().forward(params, X)

    with pytest.raises(fs.PlanError, match="Other given"):
        fs.plan(fs.Run(Other(2, 3, activation="erf", bias=False), Population(**GIVEN), R.GD(), 0.1, 3, dtype="float64"))


def test_rows_are_what_the_kernel_reads():
    run = problem("leaky")
    made, data, loss = exact(run.model, run.data, run.loss)
    assert made.d == data.d == 3 + 2 * 2 + 2 and data.n == 1 and loss.factor == 0.7
    assert made.shapes() == run.model.shapes() and data.X[0, 0] == 0.3
