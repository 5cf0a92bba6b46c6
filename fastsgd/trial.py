"""Owns the trial of code that is not fastsgd's own: a user's model, loss, rule, order is called once before a run."""

from math import isnan

import numpy as np

from . import metrics
from .errors import FastsgdError, PlanError
from .gradients import of_each
from .lowering.contract import BUFFERS, FLAGS, HYPERS, PERTURBS
from .spec.kinds import kind_of

OF_LOSSES = ("TrainLoss", "TestLoss")
OF_PREDICTIONS = (*OF_LOSSES, "TrainAccuracy", "TestAccuracy", "Predictions", "FittedFunction")  # in NumPy
POINTS = 2
AGREED = 1e-6  # of the largest prediction; torch and NumPy round sums differently


def trial(run):
    """Call what is a user's own in a run on two points. Raises PlanError where a run could not use what it gives."""
    if run.model.d != run.data.d or _call("loss.refuse", run.loss.refuse, run.model.outputs, run.data.rows.y):
        return  # the plan has more to say about that
    if kind_of(run.model) is None:
        _model(run.model, run.dtype, _inputs(run), _measures(run, OF_PREDICTIONS))
        _gradient(run)
    if kind_of(run.loss) is None:
        _loss(run)
    if kind_of(run.rule) is None:
        _rule(run)
    if kind_of(run.order) is None:
        _order(run)
    teacher = getattr(run.data, "teacher", None)
    if teacher is not None and kind_of(teacher) is None:
        f = _call("data.teacher.forward", teacher.forward, run.data.one.weights, _inputs(run).astype(np.float64))
        _shape("data.teacher.forward", f, _predictions(teacher), "NumPy arrays")


def _call(what, function, *given):
    """function(*given), and a PlanError where it raises something else than fastsgd's own errors."""
    try:
        return function(*given)
    except FastsgdError:
        raise
    except Exception as error:
        raise PlanError(f"{what}: raised {type(error).__name__}: {error}") from error


def _shape(what, value, expected, given):
    if np.shape(value) != expected:
        column = np.shape(value) == (*expected, 1)
        raise PlanError(f"{what}: returned shape {list(np.shape(value))} for {POINTS} points in {given}, expected "
                        f"{list(expected)}" + ("; return f[..., 0] or f.squeeze(-1)" if column else ""))


def _predictions(model):
    return (POINTS,) if model.outputs == 1 else (POINTS, model.outputs)


def _pattern(*shape):
    """Numbers between 0.1 and 0.5 that follow no order."""
    return 0.3 + 0.2 * np.cos(np.arange(1, np.prod(shape) + 1, dtype=np.float64)**2).reshape(shape)


def _inputs(run):
    data = run.data.rows
    X = np.resize(data.X[:POINTS], (POINTS, data.d)) if data.n else _pattern(POINTS, data.d)
    return np.array(X, dtype=run.dtype)


def _labels(run):
    y = run.data.rows.y
    return np.resize(y[:POINTS], (POINTS, *y.shape[1:])) if run.data.n else _pattern(*_predictions(run.model))


def _measures(run, names):
    """Whether some of these metrics are among those of the saved steps, or of the run's stops."""
    from .stops import metric_of

    kinds = tuple(getattr(metrics, name) for name in names)
    return any(isinstance(metric, kinds) for metric in (*run.metrics, *(metric_of(stop, run) for stop in run.stop)))


def _model(model, dtype, X, numpy):
    """Check shapes, and predictions in torch and, if `numpy`, in NumPy."""
    import torch

    shapes = _call("model.shapes", model.shapes)
    legal = isinstance(shapes, dict) and shapes and all(
        isinstance(name, str) and isinstance(shape, tuple) and all(type(size) is int and size > 0 for size in shape)
        for name, shape in shapes.items())
    if not legal:
        raise PlanError(f"model.shapes: returned {shapes!r}, expected {{name: tuple of whole numbers >= 1}}")
    if type(model.outputs) is not int or model.outputs < 1:
        raise PlanError(f"model.outputs: is {model.outputs!r}, expected a whole number >= 1")
    params = model.unflatten(_pattern(model.P))

    def predicted(kind):
        tensors = {name: torch.tensor(a, dtype=kind) for name, a in params.items()}
        return _call("model.forward", model.forward, tensors, torch.tensor(X, dtype=kind))

    f, wanted = predicted(getattr(torch, dtype)), _predictions(model)
    if not isinstance(f, torch.Tensor):
        raise PlanError(f"model.forward: returned {type(f).__name__} for torch tensors, expected a tensor")
    _shape("model.forward", f, wanted, "torch")
    if str(f.dtype) != f"torch.{dtype}":
        raise PlanError(f"model.forward: returned {f.dtype} for {dtype} parameters and inputs, expected {dtype}")
    if numpy:
        _agree("model.forward", predicted(torch.float64), _call(
            "model.forward (in NumPy, for metrics)", model.forward, params, X.astype(np.float64)), wanted)


def _agree(what, torch_value, value, wanted):
    """Refuse a function that gives other values in NumPy than in torch."""
    _shape(what, value, wanted, "NumPy arrays")
    there, here = torch_value.detach().numpy(), np.asarray(value)
    known = there[np.isfinite(there)]
    if not np.allclose(there, here, rtol=0, atol=AGREED * float(np.abs(known).max(initial=0.0)), equal_nan=True):
        raise PlanError(f"{what}: gives {there.ravel()[:3]} in torch and {here.ravel()[:3]} in NumPy of the same "
                        "numbers; training takes the one, metrics the other")


def _gradient(run):
    """Check that the reference backend can differentiate the loss, as it does: by autograd, networks side by side."""
    import torch

    model, dtype, of = run.model, getattr(torch, run.dtype), run.loss.picked(0)
    X, y = torch.tensor(_inputs(run)), torch.tensor(np.asarray(_labels(run)), dtype=dtype)

    def loss(weights):
        return of.value(model.forward(model.unflatten(weights), X), y, model.outputs).mean()

    _call("model.forward (differentiated by torch.autograd, under torch.func.vmap)", of_each(loss),
          torch.tensor(_pattern(1, model.P), dtype=dtype))


def _loss(run):
    import torch

    loss, o, y = run.loss.picked(0), run.model.outputs, np.asarray(_labels(run))
    f = _pattern(*_predictions(run.model))

    def value(kind):
        return _call("loss.value", loss.value, torch.tensor(f, dtype=kind), torch.tensor(y, dtype=kind), o)

    given = value(getattr(torch, run.dtype))
    if not isinstance(given, torch.Tensor):
        raise PlanError(f"loss.value: returned {type(given).__name__} for torch tensors, expected a tensor")
    _shape("loss.value", given, (POINTS,), "torch, one loss a point")
    if str(given.dtype) != f"torch.{run.dtype}":
        raise PlanError(f"loss.value: returned {given.dtype} for {run.dtype} predictions, expected {run.dtype}")
    gap = _call("loss.gap", loss.gap, torch.tensor(f), torch.tensor(y, dtype=torch.float64))
    if not isinstance(gap, torch.Tensor) or gap.shape[:1] != (POINTS,):
        raise PlanError(f"loss.gap: returned shape {list(np.shape(gap))}, expected that of the predictions "
                        f"{list(f.shape)}")
    bound = _call("loss.bound", loss.bound, float(np.ravel(run.rule.lost_above)[0]), run.dtype)
    if not isinstance(bound, (int, float, np.number)) or isnan(bound):
        raise PlanError(f"loss.bound: returned {bound!r}, expected a number")
    if _measures(run, OF_LOSSES):
        _agree("loss.value", value(torch.float64), _call(
            "loss.value (in NumPy, for metrics)", loss.value, f, y.astype(np.float64), o), (POINTS,))


def _rule(run):
    rule = run.rule
    batch = _call("rule.batch", rule.batch, run.data.n)
    if not isinstance(batch, (int, np.integer)) or isinstance(batch, bool) or not 1 <= batch < 2**32:
        raise PlanError(f"rule.batch: returned {batch!r}, expected a whole number in [1, 2**32)")
    for what, given, legal in (("numbers", _call("rule.numbers", rule.numbers), HYPERS),
                               ("buffers", _call("rule.buffers", rule.buffers), BUFFERS)):
        unknown = sorted(set(given) - set(legal))
        if unknown:
            raise PlanError(f"rule.{what}: names {unknown}, which no equation of fastsgd has; legal are {legal}")
    traits, legal = _call("rule.traits", rule.traits), ("perturb", *FLAGS)
    if not set(traits) <= set(legal) or traits.get("perturb", "none") not in PERTURBS:
        raise PlanError(f"rule.traits: returned {traits!r}, legal are {legal}, of which perturb is one of {PERTURBS}")


def _order(run):
    n = run.data.n
    if not n or run.rule.full:
        return
    batch = run.rule.batch(n)
    given = _call("order.indices", run.order.indices, run.seed, np.zeros(1, np.int64), 0, 1, n, batch)
    if np.shape(given) != (1, 1, batch) or np.asarray(given).dtype.kind not in "iu":
        raise PlanError(f"order.indices: returned shape {np.shape(given)} for one network and step, expected whole "
                        f"numbers of shape {(1, 1, batch)}")
    if np.min(given) < 0 or np.max(given) >= n:
        raise PlanError(f"order.indices: returned {np.max(given)}, legal are 0 .. {n - 1}")

