"""The public names of stops; and which metric a stop looks at."""

from dataclasses import MISSING, fields
from functools import cache
from math import prod
from typing import Any

from . import metrics
from .errors import PlanError
from .spec.check import near_or_all
from .spec.stop import Above, Below, Stop

__all__ = ["Above", "Below", "Stop"]


def __dir__() -> list[str]:
    return __all__


def metric_of(stop: Stop, run: Any) -> Any:
    """The metric that a Stop of a run looks at. Raises PlanError for a name that means none, or more than a number."""
    where = f"stop: {stop.named!r}"
    own = {metric.name: metric for metric in run.metrics}
    if not isinstance(stop.metric, str):
        metric = stop.metric
    elif stop.metric in own:
        metric = own[stop.metric]
    elif stop.metric in _by_default():
        metric = _by_default()[stop.metric]()
    else:
        raise PlanError(f"{where} is no metric{near_or_all(stop.metric, [*own, *_by_default()])}")
    lacking = [name for name in metric.needs_carried if name not in run.rule.buffers()]
    why = metric.refuse(run.model, run.data.one) or (lacking and f"{type(run.rule).__name__} does not carry "
                                                     f"{', '.join(lacking)} from step to step")
    if why:
        raise PlanError(f"{where} is not possible here: {why}")
    axes = metric.axes(run.model, run.data.one)
    if axes and prod(map(len, axes.values())) > 1:
        raise PlanError(f"{where} is {' x '.join(str(len(labels)) for labels in axes.values())} numbers a network, "
                        "expected a metric of one number")
    return metric


@cache
def _by_default() -> dict[str, type]:
    """{name: class} of the metrics that need nothing to be made."""
    kinds = {}
    for kind in (getattr(metrics, word) for word in metrics.__all__):
        given = [field for field in fields(kind) if field.init] if hasattr(kind, "__dataclass_fields__") else []
        if given and all(field.default is not MISSING or field.default_factory is not MISSING for field in given):
            name = {field.name: field.default for field in given}.get("name")
            if isinstance(name, str):
                kinds[name] = kind
    return kinds
