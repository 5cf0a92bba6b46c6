"""Owns the calibration of the cost model: small runs of every kernel, and the nanoseconds a unit that explain them.

A kernel's times are a sum of its units of work (see cost.py) times unknown numbers >= 0, which are fitted to the
measured seconds by least squares of relative errors.
"""

import time
from functools import partial

import numpy as np

from . import cost
from . import metrics as m
from .data import Fresh, Stream
from .execute import execute
from .lowering.work import Work
from .measure import place
from .models import MLP, DiagonalLinear, DiagonalPower, DiagonalProduct, ReLU2, TiedAutoencoder
from .native import cpu_name, default_threads, native
from .orders import PerNetwork, Reshuffle
from .plan import plan
from .rules import GD, SAM, SGD, Adam, Flow
from .spec.planned import Tuning
from .spec.problem import Dataset
from .spec.run import Run
from .spec.save import SaveAt

TARGET = 0.01  # seconds of one timed run: long beside the fixed part of a call, short in all
REPEATS = 3


def calibrate(say=None):
    """Measure this machine; returns a table as `cost.write` keeps it. Takes about a minute.

    say: called with a line of text now and then
    """
    say = say or (lambda text: None)
    fixed = {"call": _fixed(), "metric": _fixed_metric()}
    say(f"a call costs {fixed['call'] / 1e3:.0f} us, a metric {fixed['metric'] / 1e3:.0f} us")
    ns, off = {"fixed": fixed}, []
    for name, runs in _kernels():
        ns[name] = {}
        for crowd, count in (("alone", 1), ("many", 16)):
            rows = [(cost.step_work(Work(run), tuning), _step(run, tuning, count, fixed["call"]))
                    for run, tuning in runs]
            ns[name][crowd], errors = fit(rows)
            off += errors
            say(f"{name}, {crowd}: {_short(ns[name][crowd])}; {len(rows)} runs {_within(errors)}")
    for name, rows in _metrics():
        ns[name], errors = fit(rows)
        off += errors
        say(f"{name}: {_short(ns[name])}; {len(rows)} calls {_within(errors)}")
    ns["outside"] = _outside()
    ns["threads"] = {"each": _threads(fixed["call"])}
    say(f"all fits {_within(off)}")
    return {"machine": cpu_name(), "isa": f"x86-64-{native().isa}", "ns": ns}


def fit(rows):
    """({unit: ns >= 0}, log errors) of rows of ({unit: how many}, ns): least squares of relative errors.

    Units whose number would come out negative are left out, the most negative first.
    """
    names = sorted({name for work, _ in rows for name, count in work.items() if count})
    measured = np.array([spent for _, spent in rows])
    A = np.array([[work.get(name, 0) for name in names] for work, _ in rows], dtype=float) / measured[:, None]
    while True:
        scale = np.linalg.norm(A, axis=0)
        x = np.linalg.lstsq(A / scale, np.ones(len(A)), rcond=None)[0] / scale
        if (x >= 0).all() or len(names) == 1:
            break
        worst = int(np.argmin(x * scale))
        names.pop(worst)
        A = np.delete(A, worst, axis=1)
    return {name: float(f"{max(value, 0):.4g}") for name, value in zip(names, x, strict=True)}, list(np.log(A @ x))


def _within(errors):
    """How far a fit is from what it was made of."""
    off = np.abs(errors)
    return f"within {np.exp(off.max()):.2f} times, half of them within {np.exp(np.median(off)):.2f}"


def _short(ns):
    return ", ".join(f"{name} {value:.3g}" for name, value in ns.items())


def _best(function):
    """Nanoseconds of a call, the best of a few: of the processor, which neighbours cannot lengthen by taking turns."""
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return 1e9 * min(times)


def _points(model, n, dtype):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, model.d)) / np.sqrt(model.d)
    y = X if model.outputs > 1 else X[:, 0].copy()
    return Dataset(X.astype(dtype), y.astype(dtype), X.astype(dtype), y.astype(dtype))


def _run(model, rule, dtype, n=40, **more):
    return Run(model, more.pop("data", None) or _points(model, n, dtype), rule, 1e-3, 1, dtype=dtype, backend="cpu",
               **more)


def _step(run, tuning, vectors, fixed):
    """Nanoseconds of a step of one vector, of `vectors` of them on one thread."""
    N = vectors * tuning.lanes
    spent, T = 0.0, 16
    while True:
        made = plan(run.replace(networks=N, steps=T), tuning)
        spent = _best(partial(execute, made)) - fixed
        if spent > 1e9 * TARGET / 2 or T >= 2**22:
            return max(spent, 1.0) / (_pairs(execute(made), vectors) if run.rule.flows else T) / vectors
        T = int(min(2**22, T * min(64, max(2, 1e9 * TARGET / max(spent, 1e4)))))


def _pairs(result, vectors):
    """Steps of the pair that a lane took: where there is one vector it waits for its slowest network."""
    steps = result.buffers[:, 1:3, 0].sum(axis=1, dtype=np.float64)
    return float(steps.mean() if vectors > 1 else steps.max())


def _fixed():
    run = _run(DiagonalLinear(30), SGD(), "float64")
    return min(_best(partial(execute, plan(run, Tuning(threads=1)))) for _ in range(20))


def _fixed_metric():
    run = _run(DiagonalLinear(4), SGD(), "float64", metrics=(m.TrainLoss(),), save=SaveAt(steps=range(200)))
    made = plan(run.replace(steps=200), Tuning(threads=1))
    bare = plan(run.replace(steps=200, metrics=()), Tuning(threads=1))
    return max(0.0, _best(partial(execute, made)) - _best(partial(execute, bare))) / 200


def _kernels():
    """(line of the table, [(run, tuning)]) of every training loop."""
    module = native()
    for dtype in ("float32", "float64"):
        lanes, team = (Tuning(threads=1, lanes=module.lanes[dtype], team=1),
                       Tuning(threads=1, lanes=1, team=module.team[dtype]))
        scalar = Tuning(threads=1, lanes=1, team=1)
        fused = {"diagonal": [DiagonalLinear(d) for d in (3, 30, 100, 400)],
                 "relu2": [ReLU2(d, h) for d, h in ((2, 20), (10, 10), (1, 100), (10, 100), (30, 200))]}
        for family, models in fused.items():
            for tuning in (lanes, team):
                layout = "lanes" if tuning is lanes else "team"
                yield f"{family}.sample.{layout}.{dtype}", [(_run(model, SGD(), dtype), tuning) for model in models]
                rules = (SGD(batch_size=4), SGD(batch_size=16), GD())
                yield (f"{family}.batch.{layout}.{dtype}",
                       [(_run(model, rule, dtype), tuning) for model in models for rule in rules])
        for layout, tuning in (("lanes", lanes), ("scalar", scalar)):
            yield f"general.{layout}.{dtype}", [(run, tuning) for run in _general(dtype)]
            yield f"flow.{layout}.{dtype}", [(run, tuning) for run in _flows(dtype)]


def _general(dtype):
    models = (MLP(2, (20,)), MLP(5, (10, 10)), MLP(10, (100,)), DiagonalProduct(30, 2), DiagonalProduct(200, 2),
              DiagonalProduct(10, 3), DiagonalProduct(100, 3),
DiagonalPower(10, 2), DiagonalPower(100, 2), TiedAutoencoder(5, 2),
              TiedAutoencoder(10, 10))
    for model in models:
        yield from (_run(model, rule, dtype) for rule in (SGD(momentum=0.5), GD()))
    deep = models[1]
    rules = (SGD(), SGD(batch_size=8), SAM(rho=0.01), Adam(), SGD(gradient_noise=0.01), SGD(label_noise=0.01),
             SGD(average=0.5, momentum=0.5))
    yield from (_run(deep, rule, dtype) for rule in rules)
    for activation in ("tanh", "erf"):
        yield from (_run(MLP(5, (10, 10), activation=activation), rule, dtype) for rule in (SGD(batch_size=8), GD()))
    yield _run(TiedAutoencoder(5, 2), SGD(batch_size=4), dtype, data=Fresh(5))


def _flows(dtype):
    """Stretches of gradient flow in which the pair takes some steps: small networks and large, few points and many."""
    models = (DiagonalLinear(10), DiagonalLinear(100), ReLU2(2, 20), MLP(5, (10, 10), activation="tanh"),
              MLP(10, (60,), activation="erf"), DiagonalProduct(30, 3))
    for model in models:
        yield from (_run(model, Flow(rtol=1e-5, atol=1e-7), dtype, n=n).replace(step_size=0.5) for n in (10, 60))


def _metrics():
    """(line of the table, [({unit: how many}, ns)]) of calls of every metric with a kernel, on one thread."""
    linear = [DiagonalLinear(d) for d in (10, 30, 100, 200)]
    dense = [ReLU2(2, 20, False, False), MLP(5, (10, 10)), ReLU2(1, 100, True, False)]
    lists = ((linear, (m.TrainLoss(), m.ParameterNorm())), (dense, (m.TrainLoss(), m.FeatureSparsity())))
    found = {}
    for models, kinds in lists:
        for model in models:
            for kind in kinds:
                for n in (15, 60, 400):
                    _add(found, kind, model, n)
    for model in (*linear, *dense):
        rng = np.random.default_rng(1)
        for rows in (20, 60, 150, 300):
            points = rng.standard_normal((rows, model.d))
            tight = 1e-15 if model in linear else 1e-4
            _add(found, m.JacobianRank(rtol=tight, points=points), model, 40)
            if rows <= 60:
                _add(found, m.JacobianSpectrum(points=points), model, 40)
    return found.items()


def _add(found, metric, model, n):
    run = _run(model, SGD(), "float64", n=n, metrics=(metric,), networks=64)
    made = plan(run.replace(steps=30), Tuning(threads=1))  # off the start, which is special: all weights alike
    rng = np.random.default_rng(0)
    moved = made.start + 0.1 * rng.standard_normal(made.start.shape)
    if metric.name == "rank" and model.form().linear:
        moved *= 10 ** -rng.uniform(0, 20, moved.shape)  # as large steps leave them: few ranks are settled by a bound
    made = plan(run.replace(init=run.model.unflatten(moved), networks=None), Tuning(threads=1))
    measured = place(made.backend, made.work, made.N).begin(made)
    for count in (2, 64):
        weights = made.start[:count]
        measured.measure(metric, weights)
        name, units = cost.metric_work(metric, made.work, count)
        found.setdefault(name, []).append((units, _best(partial(measured.measure, metric, weights))))


def _outside():
    """Nanoseconds of an index of an order by permutations, and of a number made by a Stream in NumPy."""
    model, out = DiagonalLinear(8), {}
    for name, order in (("permuted", PerNetwork(replace=False)), ("permuted", Reshuffle())):
        pair = [_run(model, SGD(batch_size=4), "float32", networks=64, order=o) for o in (order, None)]
        spent = [_best(partial(execute, plan(run.replace(steps=500), Tuning(threads=1)))) for run in pair]
        out[name] = max(out.get(name, 0.0), (spent[0] - spent[1]) / (500 * 64 * 4))
    rng = np.random.default_rng(0)

    def draw(ids, t0, t1, batch):
        X = rng.standard_normal((len(ids), t1 - t0, batch, 8))
        return X, X[..., 0]

    run = _run(model, SGD(), "float64", data=Stream(8, draw), networks=64).replace(steps=200)
    out["streamed"] = _best(partial(execute, plan(run, Tuning(threads=1)))) / (200 * 64 * 8)
    return out


def _threads(fixed):
    """How much more of the processor a thread's share takes when all of them work."""
    threads, lanes = default_threads(), native().lanes["float32"]
    if threads == 1:
        return 1.0
    run = _run(MLP(5, (10, 10)), SGD(momentum=0.5), "float32").replace(steps=2000)
    alone, all_ = (_best(partial(execute, plan(run.replace(networks=count * 8 * lanes), Tuning(threads=count)))) - fixed
                   for count in (1, threads))
    return float(f"{max(1.0, all_ / alone / threads):.3g}")
