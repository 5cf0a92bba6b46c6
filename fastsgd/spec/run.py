"""Owns the request: everything that decides what a run computes, in one frozen record."""

import re
from dataclasses import field, fields
from typing import Any

import numpy as np

from ..errors import SpecError
from .check import FAMILY, as_array, dtype_name, finite, frozen, needs, one_of, shown, what_is, whole
from .loss import Loss, Squared
from .metric import Custom, Metric
from .order import Common, PerNetwork, Replay, Reshuffle
from .problem import Data
from .record import Record, record
from .save import SaveAt
from .schedule import Schedule, StepSize, StepTable

DTYPES = ("float32", "float64")
BACKENDS = ("auto", "cuda", "triton", "cpu", "reference")
DEVICE = re.compile(r"cpu|cuda(:\d+(,\d+)*)?")


@record()
class Run(Record):
    """One request: N networks of one family, each trained by its own trajectory on one data set.

    model: a family record from fs.models, e.g. DiagonalLinear(d=200)
    data: fs.Dataset, fs.data.Fresh, Population or Stream
    rule: an update rule from fs.rules, e.g. SGD(batch_size=1)
    step_size: number, [N] array, fs.StepSize, or an explicit table [T] or [N, T] given as fs.StepTable or a 2-D array
    steps: T >= 1, number of updates; 1e6 is as good as 1_000_000
    networks: N, the size of the population; by default the common length of the per-network fields, or 1
    init: starting weights {name: [...] or [N, ...]}; by default drawn from the family's scales. A run begins
        at step 0: with init=result.params and that result's seed it sees the same draws again, where fs.extend and
        fs.fork go on
    order: fs.orders.PerNetwork() (default), Common(), Reshuffle() or Replay(indices)
    save: fs.SaveAt; by default the last step alone
    metrics: sequence of metrics from fs.metrics, or functions of (params, data), evaluated at the saved steps
    loss: a loss from fs.losses; by default Squared() with factor 1/2
    dtype: "float32" or "float64" (also np.float64, torch.float64), of weights and arithmetic; arrays of another dtype
        are refused, not cast. Hyper-parameters are float64, and rounded to it once; arrays of fewer digits are refused
    backend: "cuda", "triton", "cpu", "reference", or "auto": the first of these that can. Where that is the reference,
        some thousand times slower, it says so as an fs.SlowBackendWarning
    device: "cpu", "cuda" (the current card), "cuda:1", "cuda:0,1" (networks shared out in ranges), or None (the
        backend's own)
    seed: 0 <= seed < 2**64, key of every draw
    ids: which members of the population to run, [M] distinct, default all; member k has the same bits in any company
    keys [N]: whose draws each network of the population has, 0 <= key < 2**32, repeats allowed; by default its own
        number k. Networks of one key see one sample order, start and noise, whatever else they differ in
    stop: fs.stops.Below(metric, level), fs.stops.Above(metric, level) or a list of these, the first in the list first:
        a network stops at the first look that finds one of them true, stays as it is there, and takes no more time
    Raises SpecError if a field is illegal by itself; the plan checks fields against each other.
    """

    model: Any
    data: Any
    rule: Any
    step_size: Any
    steps: int | float
    networks: int | None = None
    init: dict | None = None
    order: Any = field(default_factory=PerNetwork)
    save: SaveAt | None = None
    metrics: Any = ()
    loss: Loss | None = field(default_factory=Squared)
    dtype: Any = "float32"
    backend: str = "auto"
    device: Any = None
    seed: int = 0
    ids: Any = None
    keys: Any = None
    stop: Any = ()

    def __post_init__(self):
        put = object.__setattr__
        needs(self.model, "model", FAMILY, "a model from fs.models, e.g. ReLU2(d=3, width=10)")
        if not isinstance(self.data, Data):
            raise SpecError(f"data: {what_is(self.data)} given, expected fs.Dataset(X, y), "
                            "fs.data.Fresh(...), Population(...) or Stream(...)")
        needs(self.rule, "rule", ("batch",), "an update rule from fs.rules")
        put(self, "steps", whole(self.steps, "steps", 1, 2**34, floats=True))
        put(self, "step_size", schedule_of(self.step_size))
        if self.networks is not None:
            put(self, "networks", whole(self.networks, "networks", 1, 2**32))
        if self.init is not None:
            put(self, "init", initial(self.init))
        if self.order is None:
            put(self, "order", PerNetwork())
        elif not isinstance(self.order, (PerNetwork, Common, Reshuffle, Replay)):
            raise SpecError(f"order: {what_is(self.order)} given, expected fs.orders.PerNetwork(), Common(), "
                            "Reshuffle() or Replay(indices)")
        if self.save is None:
            put(self, "save", SaveAt(linear=1))  # the last step, whatever T becomes in `replace`
        elif not isinstance(self.save, SaveAt):
            raise SpecError(f"save: {what_is(self.save)} given, expected fs.SaveAt(...)")
        put(self, "metrics", _metrics(self.metrics))
        if self.loss is None:
            put(self, "loss", Squared())
        elif not isinstance(self.loss, Loss):
            raise SpecError(f"loss: {what_is(self.loss)} given, expected a loss from fs.losses, e.g. Squared()")
        put(self, "dtype", dtype_name(self.dtype, "dtype", DTYPES))
        one_of(self.backend, "backend", BACKENDS)
        if self.device is not None:
            put(self, "device", _device(self.device))
        put(self, "seed", whole(self.seed, "seed", 0, 2**64 - 1))
        if self.ids is not None:
            put(self, "ids", _ids(self.ids))
        if self.keys is not None:
            put(self, "keys", _numbers(self.keys, "keys"))
        put(self, "stop", () if isinstance(self.stop, tuple) and not self.stop else _stops(self.stop))

    def replace(self, **changes: Any) -> "Run":
        """A copy of this run with some fields changed."""
        return Run(**({f.name: getattr(self, f.name) for f in fields(self)} | changes))


def _device(value):
    name = shown(value, str)  # a torch.device says its name
    if not DEVICE.fullmatch(name):
        raise SpecError(f"device: {shown(value)} given, expected None, 'cpu', 'cuda', 'cuda:1' or 'cuda:0,1'")
    cards = name.partition(":")[2].split(",")
    if len(set(cards)) < len(cards):
        raise SpecError(f"device: {value!r} names a card twice")
    return name


def schedule_of(value):
    """The Schedule that step sizes given as numbers, [N] or a table stand for."""
    if isinstance(value, Schedule):
        return value
    if type(value) is float:
        return StepSize(value)
    return StepTable(value) if as_array(value, "step_size").ndim == 2 else StepSize(value)


def initial(init):
    """Starting weights {name: array}, finite and owned by nobody else."""
    if not isinstance(init, dict) or not init:
        raise SpecError(f"init: {what_is(init)} given, expected a dict of named arrays")
    arrays = {str(name): finite(as_array(a, f"init.{name}"), f"init.{name}") for name, a in init.items()}
    return {name: frozen(a) for name, a in arrays.items()}


def _metrics(metrics):
    metrics = tuple(metrics) if isinstance(metrics, (tuple, list)) else (metrics,)
    metrics = tuple(Custom(metric) if _is_function(metric) else metric for metric in metrics)
    for metric in metrics:
        if not (isinstance(metric, Metric) and isinstance(metric.name, str) and metric.name):
            raise SpecError(f"metrics: {shown(metric)} is unknown, expected metrics from fs.metrics, e.g. TrainLoss(), "
                            "or functions of (params, data)")
    names = [metric.name for metric in metrics]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(f"metrics: {twice} occur twice, give one of each pair another name=...")
    return metrics


def _is_function(metric):
    return callable(metric) and not isinstance(metric, (type, Metric))


def _stops(given):
    from .stop import stops  # of runs that have some

    return stops(given)


def _ids(ids):
    ids = _numbers(ids, "ids")
    if len(np.unique(ids)) != len(ids):
        raise SpecError("ids: a network occurs twice, expected distinct ids; for repeats of draws see keys")
    return ids


def _numbers(array, field):
    """Numbers of networks, [M] int64."""
    array = as_array(array, field, ndim=1, kinds="iu")
    if array.size == 0:
        raise SpecError(f"{field}: zero networks given, expected at least one")
    if array.min() < 0 or array.max() >= 2**32:
        raise SpecError(f"{field}: holds {array.min() if array.min() < 0 else array.max()}, expected numbers >= 0 "
                        "and < 2**32")
    return frozen(array.astype(np.int64))
