"""How many steps a launch has: as time allows, as many as tables fit, and enough to be worth it."""

import numpy as np
import pytest

import fastsgd as fs
from fastsgd import backends
from fastsgd.execute import _Pace, execute
from fastsgd.spec.planned import TABLES

N = 10**6
DATA = fs.Dataset(np.eye(3, dtype="float32"), np.arange(3, dtype="float32"))
MODEL = fs.models.DiagonalLinear(3)


def paced(networks=N, steps=1000, **fields):
    """(plan, its pace) of many networks."""
    defaults = {"rule": fs.rules.SGD(), "step_size": 0.1, "backend": "cpu"}
    plan = fs.plan(fs.Run(MODEL, DATA, steps=steps, networks=networks, **(defaults | fields)))
    return plan, _Pace(plan, backends.by_name(plan.backend))


def test_a_million_networks_are_worth_many_steps_a_launch():
    """The kernels draw the default order, so that no table limits it, and slow launches do not shrink it to a step."""
    plan, pace = paced()
    assert pace.most > plan.run.steps
    for _ in range(20):
        pace.learn(pace.steps, 10.0)
        assert pace.steps >= 200


def test_launches_of_few_networks_take_a_part_of_a_second():
    _, pace = paced(networks=10, steps=10**9)
    for _ in range(30):
        pace.learn(pace.steps, 1e-7 * pace.steps)
    assert pace.steps == pytest.approx(0.25e7, rel=0.01)


@pytest.mark.parametrize("fields", [
    {"order": fs.orders.PerNetwork(replace=False)}, {"order": fs.orders.Reshuffle()},
    {"order": fs.orders.Replay(np.zeros((1, 1000), int))}, {"step_size": np.linspace(0.1, 0.2, N)},
    {"step_size": fs.StepSize(0.1, decay_at=np.linspace(0.1, 0.9, 1000).repeat(1000), decay_by=2.0)},
    {"rule": fs.rules.SGD(label_noise=0.1), "order": fs.orders.Common(replace=False)},
    {"rule": fs.rules.SGD(batch_size=3), "order": fs.orders.PerNetwork(replace=False)},
    {"data": fs.data.Stream(3, lambda ids, t0, t1, batch: (np.zeros((len(ids), t1 - t0, batch, 3), "float32"),
                                                           np.zeros((len(ids), t1 - t0, batch), "float32")))},
], ids=["distinct", "reshuffle", "replay", "each", "schedules", "common", "batch", "stream"])
def test_tables_of_a_launch_fit_what_they_may_take(fields):
    """What a backend says of a step's tables is what a Segment and its own tables hold."""
    networks = 3000 if "data" in fields else N
    data = fields.pop("data", DATA)
    plan = fs.plan(fs.Run(MODEL, data, **({"rule": fs.rules.SGD(), "step_size": 0.1, "steps": 1000, "backend": "cpu",
                                           "networks": networks} | fields)))
    backend = backends.by_name("cpu")
    segment = plan.segment(0, 4)
    held = [segment.multiplier, segment.indices, *segment.noise.values(), *(segment.samples or ())]
    if plan.tuning.isa and segment.indices is None:
        X, y, order = backend.load(plan, plan.start, np.full(plan.N, -1), plan.fresh_buffers()).samples(segment)
        held += [order] + ([X, y] if segment.samples else [])
    assert sum(a.nbytes for a in held if a is not None) == 4 * backend.table_bytes(plan)
    assert _Pace(plan, backend).most * backend.table_bytes(plan) <= max(TABLES, plan.start.nbytes)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_progress_is_told_between_launches(backend):
    seen = []
    plan = fs.plan(fs.Run(MODEL, DATA, fs.rules.SGD(), 0.1, 40, networks=9, backend=backend), fs.Tuning(segment=7))
    execute(plan, on_launch=lambda done: seen.append(done.t))
    assert seen[:6] == [7, 14, 21, 28, 35, 40]


@pytest.mark.parametrize("scale", [0.0, np.linspace(0, 1, 5000)], ids=["constant", "each"])
def test_starting_weights_do_not_depend_on_threads(scale, monkeypatch):
    model, ids = fs.models.ReLU2(3, 5, W1_scale=scale, b2_scale=0.5), np.arange(5000)
    starts = []
    for threads in "1", "3":
        monkeypatch.setenv("FASTSGD_THREADS", threads)
        starts.append(model.start(7, ids))
    assert starts[0].tobytes() == starts[1].tobytes()
    assert starts[0][17:18].tobytes() == model.start(7, [17]).tobytes()
