"""The low level: arrays moved where they lie have the bits of `fs.train`, and measures its records."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch
from cases import Elsewhere

import fastsgd as fs

F = fs.functional
N, n, T, SEED = 9, 11, 40, 5
MODELS = {"diagonal": fs.models.DiagonalLinear(6), "relu2": fs.models.ReLU2(3, 5), "mlp": fs.models.MLP(3, (4, 3))}
RULES = {"sgd": fs.rules.SGD(), "batch": fs.rules.SGD(batch_size=3), "gd": fs.rules.GD(),
         "noise": fs.rules.SGD(label_noise=0.1, gradient_noise=0.01),
         "carried": fs.rules.SGD(momentum=0.9, average=0.5), "adam": fs.rules.Adam(batch_size=2),
         "sam": fs.rules.SAM(rho=0.1)}


def samples(d, dtype="float64", seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)).astype(dtype), rng.standard_normal(n).astype(dtype)


def trained(model, X, y, **fields):
    given = {"rule": fs.rules.SGD(), "step_size": 0.02, "steps": T, "networks": N, "dtype": str(X.dtype), "seed": SEED,
             "backend": "cpu"}
    return fs.train(model, fs.Dataset(X, y), **given | fields)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", MODELS)
def test_calls_one_after_the_other_are_one_run(model, rule, dtype):
    model, rule = MODELS[model], RULES[rule]
    X, y = samples(model.d, dtype)
    want, W = trained(model, X, y, rule=rule), F.start(model, N, seed=SEED, dtype=dtype)
    buffers, lost = F.fresh_buffers(rule, W), None
    for t0, steps in ((0, 1), (1, 25), (26, 14)):
        lost = F.advance_(model, W, X, y, step_size=0.02, steps=steps, rule=rule, seed=SEED, t0=t0, lost=lost,
                          buffers=buffers)
    assert W.tobytes() == want.weights.tobytes()
    np.testing.assert_array_equal(lost, want.lost)


@pytest.mark.parametrize("order", (fs.orders.PerNetwork(replace=False), fs.orders.Common(2), fs.orders.Reshuffle()))
def test_orders_that_are_drawn(order):
    model, rule = MODELS["relu2"], RULES["batch"]
    X, y = samples(3)
    W = F.start(model, N, seed=SEED, dtype="float64")
    for t0 in (0, 20):
        F.advance_(model, W, X, y, order, 0.02, steps=20, rule=rule, seed=SEED, t0=t0)
    assert W.tobytes() == trained(model, X, y, rule=rule, order=order).weights.tobytes()


@pytest.mark.parametrize("shape", ((T,), (1, T), (N, T), (1, T, 2), (N, T, 2)))
@pytest.mark.parametrize("step", (0.02, np.full(N, 0.02), np.full((1, T), 0.02),
                                  np.geomspace(0.01, 0.03, N * T).reshape(N, T)))
@pytest.mark.parametrize("model", MODELS)
def test_orders_and_step_sizes_that_are_given(model, shape, step):
    model = MODELS[model]
    X, y = samples(model.d)
    order = np.random.default_rng(0).integers(0, n, shape)
    W = F.start(model, N, seed=SEED, dtype="float64")
    F.advance_(model, W, X, y, order, step)
    table = step[0] if np.shape(step)[:1] == (1,) else step
    want = trained(model, X, y, order=fs.orders.Replay(order), rule=fs.rules.SGD(batch_size=(*shape, 1)[2] if
                   len(shape) == 3 else 1), step_size=fs.StepTable(table) if np.ndim(step) == 2 else step)
    assert W.tobytes() == want.weights.tobytes()


def test_samples_may_change_between_calls_in_place_or_not():
    model, W = MODELS["relu2"], F.start(MODELS["relu2"], N, dtype="float64")
    again, order = W.copy(), np.arange(n)
    X, y = samples(3)
    F.advance_(model, W, X, y, order, 0.02)
    X[:], y[:] = samples(3, seed=2)
    F.advance_(model, W, X, y, order, 0.02)
    for seed in (1, 2):
        F.advance_(model, again, *samples(3, seed=seed), order, 0.02)
    assert W.tobytes() == again.tobytes()


def test_keys_say_whose_draws_a_network_has():
    model, keys = MODELS["diagonal"], np.array([7, 7, 2])
    X, y = samples(6)
    W = F.start(model, 3, seed=SEED, keys=keys, dtype="float64")
    F.advance_(model, W, X, y, step_size=0.02, steps=T, seed=SEED, keys=keys)
    assert W.tobytes() == trained(model, X, y, networks=3, keys=keys).weights.tobytes()
    assert W[0].tobytes() == W[1].tobytes() != W[2].tobytes()


@pytest.mark.parametrize("model", MODELS)
def test_lost_networks_stay_lost_and_their_neighbours_do_not_notice(model):
    model = MODELS[model]
    X, y = samples(model.d)
    step = np.array([0.01] * (N - 3) + [1e6] * 3)
    want, W, lost = trained(model, X, y, step_size=step), F.start(model, N, seed=SEED, dtype="float64"), None
    for t0 in range(0, T, 10):
        lost = F.advance_(model, W, X, y, step_size=step, steps=10, seed=SEED, t0=t0, lost=lost)
    np.testing.assert_array_equal(lost, want.lost)
    assert W.tobytes() == want.weights.tobytes() and (lost >= 0).any() and (lost < 0).any()


def test_tables_that_do_not_fit_are_made_in_stretches(monkeypatch):
    from fastsgd.spec import planned

    monkeypatch.setattr(planned, "TABLES", 1)
    model, order = fs.models.DiagonalLinear(2), fs.orders.Reshuffle()
    X, y = samples(2)
    W = F.start(model, 3, seed=SEED, dtype="float64")
    F.advance_(model, W, X, y, order, np.geomspace(0.01, 0.1, 3 * T).reshape(3, T), steps=T, seed=SEED)
    want = trained(model, X, y, networks=3, order=order, step_size=np.geomspace(0.01, 0.1, 3 * T).reshape(3, T))
    assert W.tobytes() == want.weights.tobytes()


def test_torch_tensors_are_moved_where_they_lie():
    model = MODELS["mlp"]
    X, y = samples(3, "float32")
    W = torch.from_numpy(F.start(model, N, seed=SEED))
    address = W.data_ptr()
    F.advance_(model, W, torch.from_numpy(X), torch.from_numpy(y), step_size=0.02, steps=T, seed=SEED)
    assert W.data_ptr() == address and W.numpy().tobytes() == trained(model, X, y).weights.tobytes()


def test_dlpack_arrays_are_moved_where_they_lie():
    model = MODELS["relu2"]
    X, y = samples(3)
    W = F.start(model, N, seed=SEED, dtype="float64")
    F.advance_(model, Elsewhere(W), Elsewhere(X), Elsewhere(y), step_size=0.02, steps=T, seed=SEED)
    assert W.tobytes() == trained(model, X, y).weights.tobytes()


JAX = """
import jax, numpy as np, fastsgd as fs
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)
F, model, rng = fs.functional, fs.models.ReLU2(3, 5), np.random.default_rng(0)
X, y = rng.standard_normal((11, 3)), rng.standard_normal(11)
W = F.start(model, 9, dtype="float64")
J = jnp.array(W, copy=True)
address = J.unsafe_buffer_pointer()
F.advance_(model, J, jnp.asarray(X), jnp.asarray(y), jnp.arange(11), 0.02)
F.advance_(model, W, X, y, np.arange(11), 0.02)
assert J.unsafe_buffer_pointer() == address and np.asarray(J).tobytes() == W.tobytes()
assert float(jnp.abs(J - W).max()) == 0
loss = F.loss(model, J, X, y)
assert isinstance(loss, jax.Array) and np.array_equal(loss, F.loss(model, W, X, y))
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")
def test_jax_arrays_are_moved_where_they_lie():
    done = subprocess.run([sys.executable, "-c", JAX], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_models_of_your_own():
    def net(p, x):
        return p["a"] @ torch.sin(p["W"] @ x)

    model = fs.models.Function(net, d=3, shapes={"W": (4, 3), "a": 4}, start={"W": (0, 1), "a": (0, 1)})
    X, y = samples(3)
    W = F.start(model, N, seed=SEED, dtype="float64")
    F.advance_(model, W, X, y, step_size=0.02, steps=T, seed=SEED)
    assert W.tobytes() == trained(model, X, y).weights.tobytes()


def good(**changes):
    model = fs.models.ReLU2(3, 5)
    X, y = samples(3)
    return {"model": model, "params": F.start(model, 4, dtype="float64"), "X": X, "y": y, "order": np.arange(5),
            "step_size": 0.1} | changes


W64 = F.start(MODELS["relu2"], 4, dtype="float64")
READ_ONLY = W64.copy()
READ_ONLY.setflags(write=False)
BAD = {
    "params": [W64.tolist(), W64[:, :-1], W64[0], W64.astype("float16"), W64[::2], np.asfortranarray(W64), READ_ONLY,
               torch.from_numpy(W64).to("meta"), None],
    "X": [np.zeros((11, 2)), np.zeros((11, 3), "float32"), np.zeros(11), np.full((11, 3), "a"), None],
    "y": [np.zeros(10), np.zeros((11, 2)), np.zeros(11, "float32"), None],
    "order": [np.array([11]), np.array([-1]), np.array([0.5]), np.zeros((3, 5), int), np.zeros((4, 5, 2, 1), int),
              np.zeros(0, int), "shuffled"],
    "step_size": [None, 0.0, -1.0, np.nan, np.inf, [0.1, 0.2], np.ones((2, 5)), -np.ones((1, 5)), "big"],
    "steps": [0, 6, 2.5], "t0": [-1, 2**40, 1.5], "keys": [[1, 2], [-1, 0, 0, 0], [2**32] * 4], "seed": [-1, 0.5],
    "lost": [np.zeros(3, np.int64), np.zeros(4), [0, 0, 0, 0]], "threads": [0, 1.5],
    "rule": [fs.rules.SGD(batch_size=2), fs.rules.GD(), fs.rules.SGD(momentum=0.9), 3,
             fs.rules.SGD(label_noise=fs.StepSize(0.1, 0.5, 2.0)), fs.rules.SDE(sgd_step=0.1, loss_level=0.1)],
    "loss": [fs.losses.Logistic(), fs.losses.CrossEntropy(), 3],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in BAD.items() for value in values])
def test_bad_input_is_refused_before_anything_moves(field, value):
    given = good(**{field: value})
    before = np.array(given["params"], copy=True) if isinstance(given["params"], np.ndarray) else None
    with pytest.raises((fs.SpecError, fs.PlanError)):
        F.advance_(**given)
    assert before is None or given["params"].tobytes() == before.tobytes()


def test_classes_are_checked_at_every_call():
    model, loss = fs.models.MLP(3, 4, outputs=2), fs.losses.CrossEntropy()
    X, _ = samples(3)
    W = F.start(model, 2, dtype="float64")
    F.advance_(model, W, X, np.arange(n) % 2, np.arange(5), 0.1, loss=loss)
    with pytest.raises(fs.SpecError, match="classes"):
        F.advance_(model, W, X, np.arange(n), np.arange(5), 0.1, loss=loss)


def test_measures_are_the_records_of_a_run():
    model = MODELS["relu2"]
    X, y = samples(3)
    points = np.random.default_rng(3).standard_normal((7, 3))
    want = trained(model, X, y, metrics=[fs.metrics.TrainLoss(), fs.metrics.JacobianRank(points=points),
                                         fs.metrics.JacobianSpectrum(points=points), fs.metrics.FeatureSparsity(),
                                         fs.metrics.Predictions()])
    for params in (want.weights, model.unflatten(want.weights)):
        for name, got in (("train_loss", F.loss(model, params, X, y)), ("rank", F.jacobian_rank(model, params, points)),
                          ("spectrum", F.jacobian_spectrum(model, params, points)),
                          ("feature_sparsity", F.feature_sparsity(model, params, X)),
                          ("predictions", F.predict(model, params, X))):
            assert isinstance(got, np.ndarray)
            np.testing.assert_array_equal(got, want.numpy(name)[:, -1], err_msg=name)
    assert isinstance(F.loss(model, want.params, X, y), torch.Tensor)


def test_measures_keep_leading_axes_and_let_nan_be():
    model = fs.models.MLP(3, 4, outputs=2)
    X, y = samples(3)[0], np.arange(n) % 2
    W = F.start(model, 6, dtype="float64").reshape(2, 3, -1)
    W[1, 1, 0] = np.nan
    got = F.accuracy(model, W, X, y)
    assert got.shape == (2, 3) and np.isnan(got[1, 1]) and np.isfinite(got).sum() == 5
    assert F.loss(model, W, X, y, fs.losses.CrossEntropy()).shape == (2, 3)

    def total(params, data):
        return params["W1"].sum((-2, -1))

    loss = fs.losses.CrossEntropy()
    assert F.measure(total, model, W, fs.Dataset(X, y), loss=loss).shape == (2, 3)
    assert F.loss(model, W[0, 0], X, y, fs.losses.CrossEntropy()).shape == ()
    with pytest.raises(fs.SpecError, match="start"):
        F.measure(fs.metrics.DistanceTravelled(), model, W, fs.Dataset(X, y))


@pytest.mark.parametrize("model", [*MODELS.values(), fs.models.MLP(3, 4, outputs=2), fs.models.TiedAutoencoder(3, 2)])
def test_predict(model):
    X = samples(model.d)[0]
    W = F.start(model, 6, seed=1, dtype="float64")
    want = np.array([model.forward(model.unflatten(w), X) for w in W])
    for params in (W, model.unflatten(W), model.unflatten(W.reshape(2, 3, -1)), W[0]):
        lead = np.shape(params)[:-1] if isinstance(params, np.ndarray) else next(
            a.shape[:a.ndim - len(model.shapes()[name])] for name, a in params.items())
        got = model.predict(params, X)
        assert got.dtype == np.float64 and got.shape == (*lead, *want.shape[1:])
        np.testing.assert_array_equal(got.reshape(-1, *want.shape[1:]), want[:max(1, int(np.prod(lead)))])
    assert isinstance(model.predict(torch.from_numpy(W), torch.from_numpy(X)), torch.Tensor)
    for bad in (W[:, :-1], {"W9": W}, "w"):
        with pytest.raises(fs.SpecError, match="params"):
            model.predict(bad, X)
    with pytest.raises(fs.SpecError, match="X"):
        model.predict(W, X[:, :-1])


def test_results_predict_and_so_does_the_module_they_came_from():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    X = samples(3)[0]
    result = fs.train(fs.models.from_module(module), fs.Dataset(X, X[:, :2].copy()), rule=fs.rules.SGD(),
                      step_size=[0.01, 0.1], steps=20, dtype="float64")
    got = result.predict(X)
    assert isinstance(got, torch.Tensor) and got.shape == (2, n, 2)
    for k in range(2):
        with torch.no_grad():
            want = result.to_module(k)(torch.from_numpy(X))
        torch.testing.assert_close(got[k], want, rtol=1e-13, atol=1e-14)


def test_a_subclass_with_a_predict_of_its_own_keeps_its_kernels():
    from fastsgd.spec.kinds import kind_of

    class Mine(fs.models.ReLU2):
        def predict(self, params, X):
            return "mine"

    assert kind_of(Mine(3, 5)) is fs.models.ReLU2


class Waves(fs.models.Model):
    """A model of one's own whose forward takes tensors alone."""

    d, outputs = 3, 1

    def shapes(self):
        return {"w": (3,)}

    def scales(self):
        return {"w": (0.0, 1.0)}

    def forward(self, params, X):
        return torch.sin(X @ params["w"])


def test_predict_of_a_forward_that_takes_tensors_alone():
    X, w = samples(3)[0], np.array([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(Waves().predict({"w": w}, X), np.sin(w @ X.T), rtol=1e-14)


def test_what_the_package_shows():
    assert set(dir(fs)) == set(fs.__all__) and fs.__version__.split(".")[0].isdigit()
    for module in (fs.functional, fs.data, fs.metrics, fs.models, fs.rules, fs.losses, fs.orders, fs.linalg, fs.sweep):
        assert set(dir(module)) == set(module.__all__), module.__name__


OF_MODELS = (lambda W, X, y, model: F.advance_(model, W, X, y, steps=1, step_size=0.1),
             lambda W, X, y, model: F.start(model, 2),
             lambda W, X, y, model: F.predict(model, W, X),
             lambda W, X, y, model: F.loss(model, W, X, y),
             lambda W, X, y, model: F.accuracy(model, W, X, y),
             lambda W, X, y, model: F.jacobian_rank(model, W, X),
             lambda W, X, y, model: F.jacobian_spectrum(model, W, X),
             lambda W, X, y, model: F.feature_sparsity(model, W, X),
             lambda W, X, y, model: F.measure(fs.metrics.TrainLoss(), model, W, fs.Dataset(X, y)))


@pytest.mark.parametrize("call", OF_MODELS)
@pytest.mark.parametrize("model", (None, "relu2", fs.models.ReLU2, 3, torch.nn.Linear(3, 1)))
def test_what_is_no_model_is_refused_everywhere(call, model):
    X, y = samples(3)
    with pytest.raises(fs.SpecError, match=r"^model: .* expected a model from fs.models"):
        call(np.zeros((2, 26)), X, y, model)


MODEL = MODELS["relu2"]


@pytest.mark.parametrize(("given", "message"), (
    ({"order": fs.orders.Replay(np.arange(5))}, "order: Replay given, expected indices"),
    ({"order": fs.orders.PerNetwork}, "order: the class PerNetwork given"),
    ({"order": 3}, r"order: has shape \(\), expected 1, 2 or 3 axes"),
    ({"order": np.ones(3, bool)}, "order: holds bool, expected integers; convert it"),
    ({"step_size": fs.StepSize(0.1, decay_at=0.5)}, "step_size: StepSize given, expected a number"),
    ({"step_size": lambda t: 0.1}, "step_size: function given"),
    ({"step_size": "x"}, "step_size: holds text"),
    ({"step_size": float("nan")}, "step_size: is nan, expected a finite number"),
    ({"step_size": 0}, r"step_size: 0.0 is outside \(0, inf\)"),
    ({"rule": fs.rules.SGD}, "rule: the class SGD given"),
    ({"rule": "sgd"}, "rule: str given"),
    ({"loss": fs.losses.Squared}, "loss: the class Squared given"),
    ({"buffers": np.zeros((N, 1, MODEL.P))}, "buffers: given, but SGD carries nothing"),
    ({"X": np.zeros((0, 3))}, r"X: has shape \(0, 3\), expected at least one point"),
    ({"X": np.zeros((n, 3), np.float32)}, "X: holds float32, params are float64"),
    ({"X": None}, r"X: holds object \(None\), expected real numbers"),
    ({"params": torch.zeros(N, MODEL.P).to_sparse()}, "params: cannot be read where it lies"),
))
def test_a_wrong_input_is_named_with_what_is_legal(given, message):
    X, y = samples(3)
    fields = {"params": F.start(MODEL, N, dtype="float64"), "X": X, "y": y, "order": np.arange(n), "step_size": 0.1}
    fields |= given
    with pytest.raises(fs.SpecError, match=message) as caught:
        F.advance_(MODEL, *(fields.pop(name) for name in ("params", "X", "y", "order", "step_size")), **fields)
    assert "dtype=" not in str(caught.value)  # there is no such argument here


@pytest.mark.parametrize(("call", "message"), (
    (lambda W, X, y: F.fresh_buffers("adam", W), "rule: str given"),
    (lambda W, X, y: F.fresh_buffers(fs.rules.Adam, W), "rule: the class Adam given"),
    (lambda W, X, y: F.fresh_buffers(fs.rules.Adam(), W.astype(int)), "params: holds int64, expected float32 or"),
    (lambda W, X, y: F.loss(MODEL, W, X, y, "huber"), "loss: str given"),
    (lambda W, X, y: F.loss(MODEL, W, X, y, fs.losses.Squared), "loss: the class Squared given"),
    (lambda W, X, y: F.loss(MODEL, W, X.astype("f"), y), "X: holds float32, params are float64"),
    (lambda W, X, y: F.jacobian_rank(MODEL, W, X, rtol=1.5), "rtol: 1.5 given, expected a number >= 0 and < 1"),
    (lambda W, X, y: F.feature_sparsity(MODEL, W, X, threshold=3), r"takes no \['threshold'\], legal are \['tau'"),
    (lambda W, X, y: F.predict(MODEL, W, np.nan * X), r"X: entry \(0, 0\) is nan"),
    (lambda W, X, y: F.predict(MODEL, W, X[:, 0]), r"X: has shape \(11,\), expected 2 axes"),
))
def test_measures_name_a_wrong_input(call, message):
    X, y = samples(3)
    with pytest.raises(fs.SpecError, match=message):
        call(F.start(MODEL, 2, dtype="float64"), X, y)
