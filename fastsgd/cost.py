"""Owns what a run is expected to take: its work, counted, times the nanoseconds of a calibrated table.

A table is one JSON file: where it was measured, and for every kernel the nanoseconds of each unit of its work. The one
of the package says on which machine it was measured; `fastsgd bench --calibrate` measures this machine and keeps the
outcome in the user's cache, which then comes first. Estimates are for survivors: lost runs take less.
"""

import json
from functools import cache
from pathlib import Path

from . import metrics as m
from .backends import general, jacobians, linear
from .backends.cpu import fused, permuted, shape_of
from .files import cache_folder, keep
from .models import DiagonalLinear
from .native import cpu_name
from .orders import Common
from .spec.kinds import kind_of
from .spec.problem import Fresh, Stream

VERSION = 1
SHIPPED = Path(__file__).with_name("data") / "cost.json"


def expected(run, backend, N, saves, tuning, table=None):
    """({what: seconds}, in words what they rest on, names of metrics without an estimate) of executing a run.

    table: as `read` gives it; by default the user's own, else the package's
    Seconds are {} where nothing is known of the backend.
    """
    table = read() if table is None else table
    if backend != "cpu":
        return {}, f"the backend {backend!r} has no table", ()
    unit = table["ns"].get(kernel(run, tuning))
    if unit is None:
        return {}, f"the table has nothing for {kernel(run, tuning)}", ()
    vectors = -(-N // tuning.lanes)  # of networks, or networks that have one to themselves
    threads = min(tuning.threads, vectors)
    each = -(-vectors // threads)  # vectors of the thread that has most
    step = max(total(unit["alone"], step_work(run, tuning)), each * total(unit["many"], step_work(run, tuning)))
    across = table["ns"]["threads"]["each"] if threads > 1 else 1.0
    outside = total(table["ns"]["outside"], outside_work(run, N))
    seconds = {"fixed": 1e-9 * table["ns"]["fixed"]["call"],
               "training": 1e-9 * run.steps * (step * across + outside / (threads if outside else 1))}
    unknown = []
    for metric in run.metrics:
        name, work = metric_work(metric, run, -(-N // min(tuning.threads, N)))  # of one thread
        if name not in table["ns"]:
            unknown.append(metric.name)
            continue
        seconds[metric.name] = 1e-9 * len(saves) * (table["ns"]["fixed"]["metric"] + total(table["ns"][name], work))
    return seconds, table["from"], tuple(unknown)


def total(ns, work):
    """Nanoseconds of {unit: how many}; units that the table does not know cost nothing."""
    return sum(ns.get(name, 0.0) * count for name, count in work.items())


def kernel(run, tuning):
    """Which line of the table is about this run's training loop."""
    layout = "lanes" if tuning.lanes > 1 else "team" if tuning.team > 1 else "scalar"
    if not fused(run):
        return f"general.{layout}.{run.dtype}"
    samples = "sample" if run.rule.batch(run.data.n) == 1 else "batch"
    return f"{shape_of(run.model)[0]}.{samples}.{layout}.{run.dtype}"


def step_work(run, tuning):
    """{unit: how many} of one step of one vector of networks."""
    batch = run.rule.batch(run.data.n)
    return _fused_work(run, tuning, batch) if fused(run) else _general_work(run, batch)


def _fused_work(run, tuning, batch):
    family, d, h, hidden_bias, _ = shape_of(run.model)
    spread = -(-(d if family == "diagonal" else h) // tuning.team)  # vectors of the spread axis
    items = spread if family == "diagonal" else spread * (d + hidden_bias + 1)
    one_row = tuning.lanes == 1 or run.rule.full or isinstance(run.order, Common) or _one_table(run.order)
    work = {"step": 1, "sample": batch, "item": batch * items, "gathered": 0 if one_row else batch * d}
    return work if batch == 1 else work | {"moved": items, "drawn": 0 if run.rule.full else batch}


def _general_work(run, batch):
    model, rule = run.model, run.rule
    traits, noises = rule.traits(), rule.noises()
    passes = {"none": 1, "batch": 2, "sample": 2}[traits["perturb"]] * batch
    moved = 0 if rule.plain() and batch == 1 else model.P * (1 + len(rule.buffers()))
    hidden = sum(getattr(model, "sizes", (0, 0))[1:-1])
    smooth = getattr(model, "activation", "relu") in ("tanh", "erf", "sigmoid", "softplus")
    drawn = sum(model.P if name == "gradient_noise" else batch for name in noises)
    family = general.family(model) or {"family": "dense"}  # what is traced takes no longer
    kind = f"{family['family']}{' deep' if family.get('depth', 0) > 2 else ''}"  # of two factors: a loop of its own
    return {"step": 1, "pass": passes, kind: passes * model.P, "moved": moved,
            "adam": model.P if traits["adam"] else 0, "smooth": passes * hidden if smooth else 0,
            "noise": drawn, "gathered": batch * run.data.d,
            "fresh": batch * run.data.d if isinstance(run.data, Fresh) else 0}


def outside_work(run, N):
    """{unit: how many} of what a step of all networks takes outside the loop."""
    batch = run.rule.batch(run.data.n)
    if isinstance(run.data, Stream):
        return {"streamed": N * batch * run.data.d}
    return {"permuted": N * batch} if permuted(run) and not run.rule.full else {}


def _one_table(order):
    return len(getattr(order, "table", ())) == 1


def metric_work(metric, run, N):
    """(line of the table, {unit: how many} of a call for N networks); the table may lack the line: no estimate."""
    name, work = _metric_work(metric, run)
    return name, {"call": 1, "network": N} | {unit: N * count for unit, count in work.items()}


def _metric_work(metric, run):
    model, data = run.model, run.data
    if kind_of(metric) in (m.TrainLoss, m.TestLoss):
        n = len(data.X_test) if kind_of(metric) is m.TestLoss else data.n
        if linear.is_linear(model) and run.loss.name == "squared":
            return "metric.linear_loss", {"item": min(n, model.d) * model.d, "parameter": model.P}
        return f"metric.loss.{'fused' if shape_of(model) else 'general'}", {"item": n * model.P}
    if kind_of(metric) in (m.ParameterNorm, m.Balancedness, m.L0) and kind_of(model) is DiagonalLinear:
        return "metric.norm", {"parameter": model.P}
    if kind_of(metric) is m.FeatureSparsity:
        units = max((shape[0] for name, shape in model.shapes().items() if name.startswith("W")), default=0)
        return "metric.sparsity", {"item": data.n * units * units, "feature": data.n * units * model.d}
    if kind_of(metric) in (m.JacobianRank, m.JacobianSpectrum):
        points = len(metric.where(model, data))
        method, _ = jacobians.choose(metric, model, points)
        rows, units = points * model.outputs, sum(getattr(model, "sizes", (0, getattr(model, "width", 0), 0))[1:-1])
        short = min(rows, model.d if linear.is_linear(model) else model.P)
        if method == "count" and points < model.d:  # no certificate saves the elimination
            method = "count.short"
        narrow = min(rows, units * (model.d + 1))  # columns of the factor that two-layer networks are counted from
        if method == "gram" and shape_of(model):
            method = "gram.two_layer"
        if method == "jacobi" and linear.is_linear(model):
            method = "jacobi.linear"
        work = {"count": {"input": model.d, "square": model.d**2},
                "gram.two_layer": {"item": rows * units, "square": rows * narrow, "cube": rows * narrow**2},
                "count.short": {"item": model.d * rows, "square": model.d**2, "cube": model.d**2 * rows},
                "gram": {"row": rows, "item": rows * rows * units, "cube": rows**3},
                "jacobi": {"row": rows, "item": rows * model.P, "turned": rows * short * short},
                "jacobi.linear": {"input": model.d, "square": short * short, "turned": short**3}}
        return f"metric.{method}", work.get(method, {})
    return f"metric {metric.name}", {}


def kept():
    """Where this user's table for this machine is kept."""
    return cache_folder() / "cost.json"


def read():
    """The table in force: {"from": where it was measured, in words, "ns": {line: {unit: nanoseconds}}}."""
    path = kept()
    try:
        return _parsed(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError):  # none, an older version's, or another processor's
        return _parsed(SHIPPED, 0)


@cache
def _parsed(path, changed):
    table = json.loads(path.read_text())
    if table["version"] != VERSION:
        raise ValueError(f"{path} is a table of version {table['version']}")
    own = path != SHIPPED
    if own and table["machine"] != cpu_name():
        raise ValueError(f"{path} was measured on {table['machine']}")
    whose = "the table of this machine" if own else "the package's table"
    return {"from": f"{whose}, measured on {table['machine']} ({table['isa']})", "ns": table["ns"]}


def write(table, path=None):
    """Keep a table, whole or not at all; returns the path."""
    path = kept() if path is None else Path(path)
    keep(path, (json.dumps({"version": VERSION, **table}, indent=1, sort_keys=True) + "\n").encode())
    return path
