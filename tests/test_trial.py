"""A user's own model, loss, rule or order is tried once before a run: what it gives is right, or refused."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from cases import problem

import fastsgd as fs

pytestmark = pytest.mark.filterwarnings("ignore::fastsgd.SlowBackendWarning")


@dataclass(frozen=True, eq=False)
class Sine(fs.models.Model):
    """h(x) = W2 sin(W1 x); `spoil` is done to the predictions."""

    d: int = 3
    outputs: int = 1
    spoil: object = None

    def shapes(self):
        return {"W1": (4, self.d), "W2": (self.outputs, 4)}

    def scales(self):
        return {"W1": (0.0, 1.0), "W2": (0.0, 1.0)}

    def forward(self, params, X):
        z = X @ params["W1"].swapaxes(-1, -2)
        f = (torch.sin(z) if isinstance(z, torch.Tensor) else np.sin(z)) @ params["W2"].swapaxes(-1, -2)
        f = f[..., 0] if self.outputs == 1 else f
        return f if self.spoil is None else self.spoil(f)


def numpy_only(spoil):
    """A change of predictions in NumPy alone."""
    return lambda f: f if isinstance(f, torch.Tensor) else spoil(f)


def fails(f):
    raise KeyError("no such weight")


def planned(model=None, **fields):
    """The plan of a small run."""
    data = problem(3)
    if model is not None and model.outputs > 1:
        data = fs.Dataset(data.X, np.random.default_rng(0).standard_normal((data.n, model.outputs)))
    return fs.plan(fs.Run(model or fs.models.MLP(3, 4), data, **({
        "rule": fs.rules.SGD(batch_size=3), "step_size": 0.05, "steps": 4, "dtype": "float64"} | fields)))


LOSSES = [fs.metrics.TrainLoss()]
FORWARDS = [  # (what is done to predictions, outputs, metrics, the error's words)
    (lambda f: f[..., None], 1, (), r"model.forward: returned shape \[2, 1\] for 2 points in torch, expected \[2\]"),
    (lambda f: f[..., None], 2, (), r"returned shape \[2, 2, 1\]"),
    (lambda f: f.sum(), 1, (), r"returned shape \[\]"),
    (lambda f: f.sum(-1), 3, (), r"returned shape \[2\] .* expected \[2, 3\]"),
    (lambda f: f.T, 3, (), r"returned shape \[3, 2\]"),
    (lambda f: f.float(), 1, (), "returned torch.float32 for float64 parameters"),
    (lambda f: f > 0, 1, (), "returned torch.bool"),
    (lambda f: f.tolist(), 1, (), "returned list for torch tensors, expected a tensor"),
    (lambda f: None, 1, (), "returned NoneType"),
    (fails, 1, (), "raised KeyError: 'no such weight'"),
    (lambda f: f if f.sum() > 0 else -f, 1, (), "differentiated by torch.autograd"),
    (lambda f: torch.from_numpy(f.detach().numpy()), 1, (), "model.forward.*raised RuntimeError"),
    (numpy_only(lambda f: f[..., None]), 1, LOSSES, r"returned shape \[2, 1\] for 2 points in NumPy"),
    (numpy_only(lambda f: 2 * f), 1, LOSSES, "in torch and .* in NumPy of the same numbers"),
    (numpy_only(fails), 1, LOSSES, r"in NumPy, for metrics\): raised KeyError"),
]


@pytest.mark.parametrize(("spoil", "outputs", "metrics", "words"), FORWARDS, ids=range(len(FORWARDS)))
def test_a_forward_of_another_shape_dtype_or_value_is_refused(spoil, outputs, metrics, words, nothing_runs):
    with pytest.raises(fs.PlanError, match=words):
        planned(Sine(outputs=outputs, spoil=spoil), metrics=metrics)


@pytest.mark.parametrize("outputs", (1, 2))
@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_a_right_forward_is_taken(outputs, dtype):
    model = Sine(outputs=outputs)
    data = fs.Dataset(np.ones((5, 3), dtype), np.ones((5, outputs) if outputs > 1 else 5, dtype))
    result = fs.train(model, data, rule=fs.rules.SGD(), step_size=0.01, steps=3, dtype=dtype, metrics=LOSSES)
    assert np.isfinite(result.numpy("train_loss")).all()


def test_numpy_is_not_asked_where_nothing_needs_it():
    model = Sine(spoil=numpy_only(fails))
    assert planned(model).backend == "cpu"
    assert planned(model, metrics=[fs.metrics.JacobianRank(), fs.metrics.ParameterNorm()]).backend == "cpu"


def test_one_point_and_samples_made_on_the_way_are_tried_too(nothing_runs):
    column, one = Sine(spoil=lambda f: f[..., None]), fs.Dataset(np.ones((1, 3)), np.ones(1))
    stream = fs.data.Stream(3, lambda ids, t0, t1, batch: pytest.fail("called"))
    for data in (one, stream):
        with pytest.raises(fs.PlanError, match=r"returned shape \[2, 1\]"):
            fs.plan(fs.Run(column, data, fs.rules.SGD(), 0.1, 3, dtype="float64"))
    teacher = fs.data.Fresh(3, column, {"W1": np.ones((4, 3)), "W2": np.ones((1, 4))})
    with pytest.raises(fs.PlanError, match=r"data.teacher.forward: returned shape \[2, 1\]"):
        fs.plan(fs.Run(fs.models.MLP(3, 2), teacher, fs.rules.SGD(), 0.1, 3, dtype="float64"))


@pytest.mark.parametrize("shapes", ({}, {"W": 3}, {"W": (3, 0)}, {"W": (2.0,)}, {3: (2,)}, None, [("W", (2,))]))
def test_shapes_that_are_none(shapes, nothing_runs):
    model = type("Odd", (Sine,), {"shapes": lambda self: shapes})()
    with pytest.raises(fs.PlanError, match=r"model.shapes: returned"):
        planned(model)


class Mine(fs.losses.Squared):
    """A squared loss whose value and gap are changed by `spoil`."""

    spoil = staticmethod(lambda value: value)
    other = staticmethod(lambda gap: gap)

    def value(self, f, y, outputs=1):
        return self.spoil(super().value(f, y, outputs))

    def gap(self, f, y):
        return self.other(super().gap(f, y))


LOSS = [({"spoil": lambda v: v.mean()}, r"loss.value: returned shape \[\]"),
        ({"spoil": lambda v: v[..., None]}, r"loss.value: returned shape \[2, 1\]"),
        ({"spoil": lambda v: v.float()}, "loss.value: returned torch.float32"),
        ({"spoil": lambda v: 1.0}, "loss.value: returned float"),
        ({"spoil": fails}, "loss.value: raised KeyError"),
        ({"spoil": numpy_only(lambda v: 2 * v)}, "loss.value: gives .* in NumPy"),
        ({"other": lambda g: g.max()}, "loss.gap"), ({"other": fails}, "loss.gap: raised KeyError"),
        ({"bound": lambda self, lost_above, dtype: None}, "loss.bound: returned None"),
        ({"bound": lambda self, lost_above, dtype: float("nan")}, "loss.bound: returned nan")]


@pytest.mark.parametrize(("changes", "words"), LOSS, ids=[words for _, words in LOSS])
def test_own_losses(changes, words, nothing_runs):
    changes = {name: staticmethod(value) if name != "bound" else value for name, value in changes.items()}
    with pytest.raises(fs.PlanError, match=words):
        planned(loss=type("Spoilt", (Mine,), changes)(), metrics=LOSSES)


def test_a_right_loss_is_taken():
    assert planned(loss=Mine(), metrics=LOSSES).backend == "cpu"


RULES = [({"batch": lambda self, n: 2.5}, "rule.batch: returned 2.5"),
         ({"batch": lambda self, n: 0}, "rule.batch: returned 0"),
         ({"batch": lambda self, n: fails(n)}, "rule.batch: raised KeyError"),
         ({"numbers": lambda self: {"decay": np.ones(1)}}, r"rule.numbers: names \['decay'\]"),
         ({"buffers": lambda self: ("velocity",)}, r"rule.buffers: names \['velocity'\]"),
         ({"traits": lambda self: {"adams": True}}, "rule.traits: returned"),
         ({"traits": lambda self: {"perturb": "all"}}, "rule.traits: returned .*, legal are")]


@pytest.mark.parametrize(("changes", "words"), RULES, ids=[words for _, words in RULES])
def test_own_rules(changes, words, nothing_runs):
    with pytest.raises(fs.PlanError, match=words):
        planned(rule=type("Spoilt", (fs.rules.SGD,), changes)())


ORDERS = [(lambda *a: np.zeros((1, 1), int), "order.indices: returned shape"),
          (lambda *a: np.zeros((1, 1, 3)), "whole numbers"), (lambda *a: np.full((1, 1, 3), 11), "legal are 0 .. 10"),
          (lambda *a: np.full((1, 1, 3), -1), "order.indices"), (lambda *a: fails(0), "raised KeyError")]


@pytest.mark.parametrize(("indices", "words"), ORDERS, ids=[words for _, words in ORDERS])
def test_own_orders(indices, words, nothing_runs):
    with pytest.raises(fs.PlanError, match=words):
        planned(order=type("Spoilt", (fs.orders.PerNetwork,), {"indices": indices})())


def test_what_the_plan_refuses_is_said_first():
    with pytest.raises(fs.PlanError, match=r"model.d: is 4"):
        planned(Sine(d=4))
    with pytest.raises(fs.PlanError, match="y has shape"):
        fs.plan(fs.Run(Sine(outputs=2), problem(3), fs.rules.SGD(), 0.1, 3, dtype="float64"))
