"""Empty subclasses keep their parent's kernels and bits; subclasses that compute something else go to the reference."""

import warnings
from dataclasses import dataclass, field

import numpy as np
import pytest
from cases import bits, problem
from general_cases import CASES, general

import fastsgd as fs
from fastsgd import orders
from fastsgd.spec.kinds import kind_of

M, R, L, Q = fs.models, fs.rules, fs.losses, fs.metrics
SHELVES = {"model": M, "rule": R, "loss": L, "order": orders, "data": fs.data}


def emptied(record):
    """The same record as an instance of an empty subclass of its class."""
    made = object.__new__(type(f"Empty{type(record).__name__}", (type(record),), {}))
    made.__dict__.update(vars(record))
    return made


def subclassed(run):
    """The same Run of empty subclasses everywhere."""
    parts = {name: emptied(getattr(run, name)) for name in ("model", "rule", "loss", "order", "data", "save")}
    return run.replace(**parts, metrics=[emptied(metric) for metric in run.metrics])


def same(run, **fields):
    """Whether empty subclasses have the backend, the plan's text and the bits of their parents."""
    ours, theirs = fs.plan(run, **fields), fs.plan(subclassed(run), **fields)
    names = {type(part).__name__ for part in (run.model, run.rule, run.loss, run.order, run.data)}
    text = theirs.explain()
    for name in names:
        text = text.replace(f"Empty{name}", name)
    assert text == ours.explain()
    assert bits(fs.train(theirs)) == bits(fs.train(ours))
    return theirs.backend


@pytest.mark.parametrize("name", CASES)
def test_empty_subclasses_have_their_parents_kernels(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error", fs.SlowBackendWarning)
        assert same(general(name)) == "cpu"


METRICS = [  # (model, metrics)
    (M.DiagonalLinear(3, u0=0.5), [Q.TrainLoss(), Q.TestLoss(), Q.JacobianRank(1e-15), Q.JacobianSpectrum(), Q.L0(),
                                   Q.ParameterNorm(), Q.Balancedness(), Q.LinearCoefficients(), Q.Gain()]),
    (M.ReLU2(3, 6), [Q.TrainLoss(), Q.JacobianRank(), Q.FeatureSparsity(), Q.DistinctUnits(), Q.ActivationDensity(),
                     Q.JacobianSpectrum(), Q.NTK()]),
    (M.MLP(3, (4, 5)), [Q.TrainLoss(), Q.JacobianRank(), Q.FeatureSparsity(), Q.JacobianRank(1e-9, name="fine")]),
    (M.DiagonalPower(3, 3), [Q.TrainLoss(), Q.JacobianRank(1e-12), Q.LinearCoefficients()]),
    (M.DiagonalProduct(3, 2), [Q.TestLoss(), Q.JacobianRank(1e-12), Q.Gain()])]


@pytest.mark.parametrize(("model", "metrics"), METRICS, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("backend", ("cpu", "cuda"))
def test_metrics_of_empty_subclasses_have_their_parents_kernels(model, metrics, backend):
    run = fs.Run(model, problem(3), R.SGD(), 0.05, 20, networks=5, metrics=metrics, save=fs.SaveAt(linear=3),
                 dtype="float64", backend=backend)
    same(run)


def test_the_rank_at_rtol_0_goes_by_what_a_model_computes():
    """It is for models that are linear in their inputs, as an empty subclass of one is; another forward may not be."""

    class Mine(M.DiagonalLinear):
        pass

    class Bent(M.DiagonalLinear):
        def forward(self, params, X):
            return abs(super().forward(params, X))

    fields = {"rule": R.SGD(), "step_size": 0.05, "steps": 20, "networks": 5, "dtype": "float64",
              "metrics": [Q.JacobianRank(0)]}
    want, got = (fs.train(model(3, u0=0.5), problem(3), **fields).numpy("rank") for model in (M.DiagonalLinear, Mine))
    np.testing.assert_array_equal(got, want)
    with pytest.raises(fs.PlanError, match="rtol is 0"):
        fs.plan(fs.Run(Bent(3, u0=0.5), problem(3), **fields))


@pytest.mark.parametrize("name", ("momentum_relu2", "distinct_net", "replay_relu2"))
def test_empty_subclasses_on_a_card_and_in_triton(name, a_card):
    same(general(name, backend="cuda"))
    pytest.importorskip("triton")
    same(general(name, dtype="float32", backend="triton", steps=13, save=None))


def test_fields_methods_and_starts_of_ones_own_are_no_other_mathematics():
    @dataclass(frozen=True, eq=False)
    class Tagged(M.MLP):
        activation: str = "tanh"
        tag: str = "mine"
        more: dict = field(default_factory=dict)

        def describe(self):
            return self.tag

    @dataclass(frozen=True, eq=False, slots=True)
    class Slotted(M.MLP):
        tag: int = 0

    class Small(M.MLP):
        def __init__(self, d):
            super().__init__(d, 3)

        def start(self, seed, ids):
            return np.zeros((len(ids), self.P))

    for model in (Tagged(3, 4), Slotted(3, 4), Small(3)):
        assert kind_of(model) is M.MLP
        assert fs.plan(fs.Run(model, problem(3), R.SGD(), 0.1, 3, dtype="float64")).backend == "cpu"
    assert not fs.plan(fs.Run(Small(3), problem(3), R.SGD(), 0.1, 3, dtype="float64", seed=5)).start.any()


class Twice:
    """A mixin that changes the forward pass."""

    def forward(self, params, X):
        return 2 * super().forward(params, X)


class Constant(M.DiagonalLinear):
    """A subclass whose change hides in a helper."""

    def shapes(self):
        return {"u": (self.d,), "v": (self.d,)}


class Steep(L.Squared):
    def value(self, f, y, outputs=1):
        return 3 * super().value(f, y, outputs)


class Half(R.SGD):
    def batch(self, n):
        return max(1, n // 2)


class First(orders.PerNetwork):
    def indices(self, run_seed, ids, t0, t1, n, batch):
        return np.zeros((len(ids), t1 - t0, batch), np.int64)


class Ones(fs.data.Fresh):
    def draw(self, seed, ids, t0, t1, batch):
        return np.ones((len(ids), t1 - t0, batch, self.d))


class Tripled(Q.TrainLoss):
    def compute(self, model, params, data, loss):
        return 3 * super().compute(model, params, data, loss)


def doubled(model):
    """An empty subclass with the mixin before its family."""
    return type("Doubled", (Twice, type(model)), {"__module__": __name__})(model.d)


class Sorted(M.DiagonalLinear):
    """A forward pass that has no kernel: nothing of torch's that sorts has one."""

    def forward(self, params, X):
        return super().forward(params, X.sort(dim=-1).values)


class Median(L.Squared):
    def value(self, f, y, outputs=1):
        return super().value(f, y, outputs) + 0 * f.median()


OTHERS = {"model": Sorted(3), "loss": Median(), "rule": Half(), "order": First(),
          "data": Ones(3, M.DiagonalLinear(3), {"u": np.ones(3), "v": np.ones(3)})}
TRACED = {"model": doubled(M.DiagonalLinear(3)), "shapes": Constant(3), "loss": Steep()}
FIELD = {"shapes": "model"}


def other_run(other, name):
    fields = {"model": M.DiagonalLinear(3, u0=0.5), "data": problem(3), "rule": R.SGD(), "step_size": 0.05, "steps": 6,
              "dtype": "float64"} | {name: other}
    assert kind_of(other) is None
    return fs.Run(**fields)


@pytest.mark.parametrize("what", TRACED)
def test_other_models_and_losses_are_traced_and_what_they_say_is_computed(what):
    run = other_run(TRACED[what], FIELD.get(what, what))
    plan = fs.plan(run)
    assert plan.backend == "cpu" and "traced: " in plan.explain()
    np.testing.assert_allclose(fs.train(plan).weights, fs.train(run.replace(backend="reference")).weights, rtol=1e-12)
    with pytest.raises(fs.BackendUnavailable, match="triton"):
        fs.plan(run.replace(backend="triton"))


@pytest.mark.parametrize("what", OTHERS)
def test_other_mathematics_go_to_the_reference_and_it_is_said(what):
    other = OTHERS[what]
    run = other_run(other, what)
    with pytest.warns(fs.SlowBackendWarning, match=f"thousand times.*{type(other).__name__}") as caught:
        plan = fs.plan(run)
    assert len(caught) == 1 and caught[0].filename == __file__ and plan.backend == "reference"
    for backend in ("cpu", "cuda", "triton"):
        with pytest.raises(fs.BackendUnavailable, match=backend):
            fs.plan(run.replace(backend=backend))
    with warnings.catch_warnings():
        warnings.simplefilter("error", fs.SlowBackendWarning)
        assert np.array_equal(fs.train(run.replace(backend="reference")).weights, fs.train(plan).weights)


def test_a_train_call_points_at_the_line_that_made_it():
    with pytest.warns(fs.SlowBackendWarning) as caught:
        fs.train(OTHERS["model"], problem(3), rule=R.SGD(), step_size=0.1, steps=2, dtype="float64")
    assert len(caught) == 1 and caught[0].filename == __file__


def test_the_reference_computes_what_the_subclass_says():
    data = problem(3)
    fields = {"rule": R.SGD(), "step_size": 0.05, "steps": 6, "dtype": "float64", "backend": "reference"}
    plain, steep = (fs.train(M.DiagonalLinear(3), data, loss=loss, **fields) for loss in (L.Squared(1.5), Steep()))
    np.testing.assert_allclose(steep.weights, plain.weights, rtol=1e-12)
    fixed = fs.train(M.DiagonalLinear(3), data, order=First(), **fields)
    replayed = fs.train(M.DiagonalLinear(3), data, order=orders.Replay(np.zeros(6, int)), **fields)
    np.testing.assert_array_equal(fixed.weights, replayed.weights)


def test_a_metric_with_a_computation_of_its_own_has_no_kernel():
    run = fs.Run(M.ReLU2(3, 4), problem(3), R.SGD(), 0.05, 6, dtype="float64", networks=3,
                 metrics=[Q.TrainLoss(), Tripled(name="tripled")])
    result = fs.train(run)
    assert fs.plan(run).backend == "cpu"
    np.testing.assert_allclose(result.numpy("tripled"), 3 * result.numpy("train_loss"), rtol=1e-14)


def test_metrics_of_a_family_refuse_a_family_that_computes_something_else():
    run = fs.Run(OTHERS["model"], problem(3), R.SGD(), 0.05, 6, dtype="float64", backend="reference",
                 metrics=[Q.LinearCoefficients()])
    with pytest.raises(fs.PlanError, match="no linear map"):
        fs.plan(run)


def test_what_is_put_on_a_record_is_seen():
    model = M.DiagonalLinear(3)
    object.__setattr__(model, "forward", lambda params, X: X[:, 0])
    assert kind_of(model) is None and kind_of(3) is None and kind_of(object()) is None


def test_a_start_of_another_shape_is_refused():
    class Short(M.MLP):
        def start(self, seed, ids):
            return np.zeros((len(ids), 3))

    with pytest.raises(fs.PlanError, match=r"model.start: Short returned shape \(2, 3\), expected \(2, 21\)"):
        fs.plan(fs.Run(Short(3, 4), problem(3), R.SGD(), [0.1, 0.2], 3, dtype="float64"))
