"""Owns metrics of networks in an array: what `fs.train` would record of them, as a function."""

from dataclasses import fields as dataclass_fields
from typing import Any

import numpy as np

from ..errors import BackendUnavailable, SpecError
from ..execute import execute
from ..losses import CrossEntropy
from ..metrics import FeatureSparsity, JacobianRank, JacobianSpectrum, TrainAccuracy, TrainLoss
from ..models.base import as_rows, family
from ..plan import one as make_plan
from ..rules import GD, SGD
from ..spec.check import what_is
from ..spec.loss import Loss
from ..spec.metric import Custom, Metric
from ..spec.population import Population
from ..spec.problem import Data, Dataset
from ..spec.run import Run
from ..spec.save import SaveAt
from .arrays import alike, same_dtype


def measure(metric: Any, model: Any, params: Any, data: Any, *, loss: Any = None) -> Any:
    """Values [...] of a metric of networks with parameters [..., P], as `fs.train` records them, in float64.

    metric: from fs.metrics, or a function of (params, data); not one that compares with a run's start
    params: {name: [..., *shape]} or flat [..., P], float32 or float64; networks that are not finite get NaN
    data: fs.Dataset or fs.data.Population; of one with K sets or teachers each network has its own, networks in the
        order of the flat leading axes
    loss: from fs.losses, by default Squared() with factor 1/2
    Returns float64 [...] (and the metric's own axes), of the kind of params. Raises SpecError or PlanError.
    """
    family(model)
    if loss is not None and not isinstance(loss, Loss):
        raise SpecError(f"loss: {what_is(loss)} given, expected a loss from fs.losses, e.g. Squared()")
    if callable(metric) and not isinstance(metric, (type, Metric)):
        metric = Custom(metric)
    if getattr(metric, "needs_start", False):
        raise SpecError(f"metric: {metric.name} compares with the start of a run, which arrays have none of; let "
                        "fs.train record it")
    if getattr(metric, "needs_carried", ()):
        raise SpecError(f"metric: {metric.name} is of what a rule carries, which weights alone do not have; let "
                        "fs.train record it")
    rows, lead = as_rows(model, params)
    for name in ("X", "y", "X_test", "y_test"):
        if isinstance(array := getattr(data, name, None), np.ndarray):
            same_dtype(array, name, rows.dtype)
    good = np.isfinite(rows).all(axis=1)
    if isinstance(data, Data) and data.sets and len(data.numbers) == len(rows):
        data = data.chosen(data.numbers[good]) if good.any() else data
    if loss is not None and len(rows) in loss.lengths().values():
        loss = loss.picked(np.flatnonzero(good))
    out = _measured(metric, model, rows[good], data, loss) if good.any() else np.empty((0,))
    values = np.full((len(rows), *out.shape[1:]), np.nan)
    values[good] = out
    return alike(params, values.reshape((*lead, *values.shape[1:])))


def _measured(metric: Any, model: Any, rows: np.ndarray, data: Any, loss: Any) -> np.ndarray:
    """Values [M, ...] of finite networks [M, P]: the record of step 0 of a run that begins there."""
    rule = GD() if isinstance(data, Population) else SGD()  # which takes no step
    run = Run(model, data, rule, 1e-3, 1, networks=len(rows), init=model.unflatten(rows), save=SaveAt(steps=[0]),
              metrics=[metric], loss=loss, dtype=str(rows.dtype), backend="cpu", device="cpu")
    try:
        plan = make_plan(run)
    except BackendUnavailable:  # no kernel, or no module: the definition
        plan = make_plan(run.replace(backend="reference"))
    return execute(plan).records[run.metrics[0].name][:, 0]


def predict(model: Any, params: Any, X: Any) -> Any:
    """Predictions h(x_1..n) [..., n], or [..., n, o] of o > 1 outputs, in float64: `model.predict`.

    params: {name: [..., *shape]} or flat [..., P]; X [n, d]
    """
    return family(model).predict(params, X)


def loss(model: Any, params: Any, X: Any, y: Any, loss: Any = None) -> Any:
    """Mean loss (1/n) sum_i loss(h(x_i), y_i) [...] of networks; see `measure` and fs.metrics.TrainLoss.

    X [n, d], y [n] or [n, o]; loss: from fs.losses, by default Squared() with factor 1/2
    """
    return measure(TrainLoss(), model, params, _data(model, X, y), loss=loss)


def accuracy(model: Any, params: Any, X: Any, y: Any) -> Any:
    """Share of points in the right class [...]; labels as in fs.metrics.TrainAccuracy."""
    classes = family(model).outputs > 1 and np.ndim(y) == 1
    return measure(TrainAccuracy(), model, params, _data(model, X, y), loss=CrossEntropy() if classes else None)


def jacobian_rank(model: Any, params: Any, X: Any, rtol: float = 1e-4, method: str = "auto") -> Any:
    """Rank #{sigma > rtol sigma_max} [...] of the Jacobian of predictions at X [n, d]; see fs.metrics.JacobianRank."""
    return measure(JacobianRank(rtol=rtol, points=X, method=method), model, params, _data(model, X))


def jacobian_spectrum(model: Any, params: Any, X: Any, method: str = "auto") -> Any:
    """Singular values [..., k], falling, of the Jacobian at X [n, d]; see fs.metrics.JacobianSpectrum."""
    return measure(JacobianSpectrum(points=X, method=method), model, params, _data(model, X))


def feature_sparsity(model: Any, params: Any, X: Any, **fields: Any) -> Any:
    """Feature sparsity coefficient [...] of hidden layers at X [n, d]; `fields` as in fs.metrics.FeatureSparsity."""
    legal = [f.name for f in dataclass_fields(FeatureSparsity)]
    if set(fields) - set(legal):
        raise SpecError(f"feature_sparsity: takes no {sorted(set(fields) - set(legal))}, legal are {legal}")
    return measure(FeatureSparsity(**fields), model, params, _data(model, X))


def _data(model: Any, X: Any, y: Any = None) -> Dataset:
    """A Dataset; labels that no metric looks at are 0."""
    family(model)
    if y is None:
        y = np.zeros((np.shape(X)[0] if np.ndim(X) else 0, model.outputs)[:1 + (model.outputs > 1)], np.int64)
    return Dataset(X, y)
