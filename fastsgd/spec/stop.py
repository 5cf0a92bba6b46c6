"""Owns when a network stops before the last step: a metric, a level, and the steps at which it is looked at."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from ..errors import SpecError
from .check import Array, per_network, shown, whole
from .metric import Custom, Metric
from .record import Record, record


@record()
class Stop(Record, ABC):
    """A level of a metric at which a network stops. It stays as it was at the first look that found it there.

    A look is taken after 0, every, 2 every, ... steps and after the last step of the run, at the weights themselves,
    whatever `save` measures. Looks are a grid in time, so that a run has the same bits however it is cut.

    metric: the name of one of the run's metrics, or of one in fs.metrics with its defaults, such as "train_loss" or
        "norm"; or such a metric itself. It is one number for each network. A function goes into the run's `metrics`,
        and its name here
    level [] or [N]: a finite number
    every: steps between looks, 1 <= every <= 2**34. A look takes as long as measuring the metric once
    """

    metric: Any
    level: float | Array
    every: int = 100
    sign = None  # between metric and level, for people

    def __post_init__(self):
        put = object.__setattr__
        if isinstance(self.metric, Custom) or (callable(self.metric) and not isinstance(self.metric, type)):
            raise SpecError("stop.metric: a function given; put it into the run's metrics=[...], and give its name "
                            "here")
        if not isinstance(self.metric, (str, Metric)) or not self.metric:
            raise SpecError(f"stop.metric: {shown(self.metric)} given, expected the name of a metric or one from "
                            "fs.metrics, e.g. 'train_loss'")
        put(self, "level", per_network(self.level, "stop.level"))
        put(self, "every", whole(self.every, "stop.every", 1, 2**34))

    @abstractmethod
    def reached(self, values: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Whether networks with these values [M] of the metric and levels [] or [M] stop; NaN never stops one."""

    def lengths(self) -> dict[str, int]:
        """{field: number of networks it was given for}."""
        return {"level": len(self.level)} if self.level.ndim else {}

    def due(self, t: Any, T: int) -> Any:
        """Whether a look is taken after t steps of T; t: a number or [M]."""
        return (t % self.every == 0) | (t == T)

    @property
    def named(self) -> str:
        """The name of the metric."""
        return self.metric if isinstance(self.metric, str) else self.metric.name


@record()
class Below(Stop):
    """A network stops at the first look that finds its metric < level."""

    sign = "<"

    def reached(self, values: np.ndarray, level: np.ndarray) -> np.ndarray:
        return values < level


@record()
class Above(Stop):
    """A network stops at the first look that finds its metric > level."""

    sign = ">"

    def reached(self, values: np.ndarray, level: np.ndarray) -> np.ndarray:
        return values > level


def stops(given):
    """A tuple of the Stops of a run's field: of None, one, or several."""
    made = () if given is None else tuple(given) if isinstance(given, (tuple, list)) else (given,)
    for stop in made:
        if not isinstance(stop, Stop):
            raise SpecError(f"stop: {shown(stop)} given, expected fs.stops.Below(metric, level), "
                            "fs.stops.Above(metric, level) or a list of these")
    return made
