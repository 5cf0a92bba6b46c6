"""Owns what a run is expected to take: its work, counted, times the nanoseconds of a calibrated table.

A table is one JSON file: where it was measured, and for every kernel the nanoseconds of each unit of its work; lines
that were measured elsewhere say so. The one of the package says on which machine it was measured; `fastsgd bench
--calibrate` measures this machine and keeps the outcome in the user's cache, which then comes first. Estimates are for
survivors: lost runs take less. Of gradient flow the table knows what a step of the pair takes; how many a tolerance
wants is counted on a few networks, see probe.py.
"""

import json
from functools import cache
from pathlib import Path

from .files import cache_folder, keep
from .measure.registry import kernels_of
from .native import cpu_name
from .probe import counted

VERSION = 1
STAGES = 6  # gradients that a step of the pair takes
ROWS = 27  # and how often it reads or writes a parameter between them
SHIPPED = Path(__file__).with_name("data") / "cost.json"


def expected(work, backend, N, saves, tuning, plan=None, table=None):
    """({what: seconds}, in words what they rest on, names of metrics without an estimate) of executing a run.

    plan: with its start, of which networks of a flow may be sent ahead; without it a flow's seconds are the least
    table: as `read` gives it; by default the user's own, else the package's
    Seconds are {} where nothing is known of the backend.
    """
    table = read() if table is None else table
    if backend != "cpu":
        return {}, f"the backend {backend!r} has no table", ()
    unit = table["ns"].get(kernel(work, tuning))
    if unit is None:
        return {}, f"the table has nothing for {kernel(work, tuning)}", ()
    vectors = -(-N // tuning.lanes)  # of networks, or networks that have one to themselves
    threads = min(tuning.threads, vectors)
    each = -(-vectors // threads)  # vectors of the thread that has most
    mean, most, words = work.run.steps, work.run.steps, ""
    if work.flows and plan is not None and plan.start is not None:
        ahead = counted(plan)
        mean, most, words = ahead.mean, ahead.most, ahead.words
    elif work.flows:
        words = "; for one step of the pair in each stretch, the least that a flow takes"
    steps = max(most * total(unit["alone"], step_work(work, tuning)),
                mean * each * total(unit["many"], step_work(work, tuning)))
    across = table["ns"]["threads"]["each"] if threads > 1 else 1.0
    outside = total(table["ns"]["outside"], outside_work(work, N))
    seconds = {"fixed": 1e-9 * table["ns"]["fixed"]["call"],
               "training": 1e-9 * (steps * across + work.run.steps * outside / (threads if outside else 1))}
    unknown = []
    looks = [(metric, work.run.steps // stop.every + 1) for stop, metric in work.stops]
    for metric, times in [*((metric, len(saves)) for metric in work.run.metrics), *looks]:
        name, units = metric_work(metric, work, -(-N // min(tuning.threads, N)))  # of one thread
        if name not in table["ns"]:
            unknown.append(metric.name)
            continue
        spent = 1e-9 * times * (table["ns"]["fixed"]["metric"] + total(table["ns"][name], units))
        seconds[metric.name] = seconds.get(metric.name, 0.0) + spent
    measured = table.get("lines", {}).get(kernel(work, tuning).partition(".")[0], table["from"])
    return seconds, measured + words, tuple(unknown)


def total(ns, work):
    """Nanoseconds of {unit: how many}; units that the table does not know cost nothing."""
    return sum(ns.get(name, 0.0) * count for name, count in work.items())


def kernel(work, tuning):
    """Which line of the table is about this run's training loop."""
    layout = "lanes" if tuning.lanes > 1 else "team" if tuning.team > 1 else "scalar"
    if work.flows:
        return f"flow.{layout}.{work.dtype}"
    if not work.fused:
        return f"general.{layout}.{work.dtype}"
    return f"{work.form.fused[0]}.{'sample' if work.batch == 1 else 'batch'}.{layout}.{work.dtype}"


def step_work(work, tuning):
    """{unit: how many} of one step of one vector of networks."""
    return _fused_work(work, tuning) if work.fused else _general_work(work)


def _fused_work(work, tuning):
    family, d, h, hidden_bias, _ = work.form.fused
    spread = -(-(d if family == "diagonal" else h) // tuning.team)  # vectors of the spread axis
    items = spread if family == "diagonal" else spread * (d + hidden_bias + 1)
    batch, one_row = work.batch, tuning.lanes == 1 or work.one_row
    units = {"step": 1, "sample": batch, "item": batch * items, "gathered": 0 if one_row else batch * d}
    return units if batch == 1 else units | {"moved": items, "drawn": 0 if work.full else batch}


def _general_work(work):
    passes = work.batch * (STAGES if work.flows else 1 if work.traits["perturb"] == "none" else 2)
    drawn = sum(work.P if name == "gradient_noise" else work.batch for name in work.noises)
    form = work.form
    units, smooth = (0, False) if form is None else (form.units, form.smooth)
    kind = "dense" if form is None else form.name  # what is traced takes no longer than a dense network
    if getattr(form, "depth", 0) > 2:  # products of two factors have a loop of their own
        kind = f"{kind} deep"
    items, moved = work.P, 0 if work.plain and work.batch == 1 else work.P * (1 + len(work.buffers))
    if form is not None and form.costs is not None:
        kind, items = form.costs
    return {"step": 1, "pass": passes, kind: passes * items, "moved": ROWS * work.P if work.flows else moved,
            "adam": work.P if work.traits["adam"] else 0, "smooth": passes * units if smooth else 0,
            "noise": drawn, "gathered": work.batch * work.d, "fresh": work.batch * work.d if work.fresh else 0}


def outside_work(work, N):
    """{unit: how many} of what a step of all networks takes outside the loop."""
    if work.streamed:
        return {"streamed": N * work.batch * work.d}
    return {"permuted": N * work.batch} if work.permuted and not work.full else {}


def metric_work(metric, work, N):
    """(line of the table, {unit: how many} of a call for N networks); the table may lack the line: no estimate."""
    name, units = kernels_of(metric).units(metric, work) or (f"metric {metric.name}", {})
    return name, {"call": 1, "network": N} | {unit: N * count for unit, count in units.items()}


def kept():
    """Where this user's table for this machine is kept."""
    return cache_folder() / "cost.json"


def read():
    """The table in force: {"from": where it was measured, in words, "ns": {line: {unit: nanoseconds}}}.

    "lines" {first word of lines: where these were measured}, of those that were not
    """
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
    lines = {word: f"{whose}, measured on {where}" for word, where in table.get("elsewhere", {}).items()}
    return {"from": f"{whose}, measured on {table['machine']} ({table['isa']})", "ns": table["ns"], "lines": lines}


def write(table, path=None):
    """Keep a table, whole or not at all; returns the path."""
    path = kept() if path is None else Path(path)
    keep(path, (json.dumps({"version": VERSION, **table}, indent=1, sort_keys=True) + "\n").encode())
    return path
