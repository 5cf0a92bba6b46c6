"""Whatever is given, only fastsgd's own errors leave: numbers and views without end, objects without a text."""

import numpy as np
import pytest
from cases import problem

import fastsgd as fs


class Evil:
    """What has no text."""

    def __repr__(self):
        raise RuntimeError("no text")


M, R = fs.models, fs.rules
GOOD = {"model": M.DiagonalLinear(3), "data": problem(3), "rule": R.SGD(), "step_size": 0.1, "steps": 2,
        "dtype": "float64"}
ODD = [10**400, -10**400, 10**5000, Evil(), np.timedelta64(1), np.broadcast_to(0.5, (2**40,)),
       np.broadcast_to(0.5, (2**20, 2**20)), np.broadcast_to(np.float32(1), (2**42,))]
FIELDS = {
    "model.d": lambda v: M.MLP(v, 3), "model.width": lambda v: M.ReLU2(3, v),
    "model.depth": lambda v: M.DiagonalProduct(3, v),
    "model.activation": lambda v: M.MLP(3, 3, activation=v), "model.bias": lambda v: M.MLP(3, 3, bias=v),
    "model.scaling": lambda v: M.MLP(3, 3, scaling=(v, 1.0)), "model.W_scale": lambda v: M.MLP(3, 3, W_scale=v),
    "model.slope": lambda v: M.MLP(3, 3, slope=v), "rule.lost_above": lambda v: R.SGD(lost_above=v),
    "rule.weight_decay": lambda v: R.SGD(weight_decay=v), "rule.batch_size": lambda v: R.SGD(batch_size=v),
    "label_noise": lambda v: R.SGD(label_noise=v), "loss.factor": fs.losses.Logistic, "order": fs.orders.Replay,
    "step_size": fs.StepSize, "tuning.threads": lambda v: fs.Tuning(threads=v),
    "save.steps": lambda v: fs.SaveAt(steps=v),
    "X": lambda v: fs.Dataset(v, np.ones(3)), "y": lambda v: fs.Dataset(np.ones((3, 2)), v),
    **{name: lambda v, name=name: fs.Run(**(GOOD | {name: v})) for name in (
        "steps", "networks", "seed", "ids", "dtype", "backend", "device", "metrics", "init", "save", "loss")},
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_what_nobody_expects_is_refused_by_name(field, value):
    if field == "step_size" and isinstance(value, int) and abs(value) < 1e300:
        return
    with pytest.raises(fs.SpecError, match=field.split(".")[-1]) as caught:
        FIELDS[field](value)
    assert len(str(caught.value)) < 2000


def test_step_sizes_that_may_have_been_meant_as_a_table_are_said():
    run = fs.Run(**(GOOD | {"steps": 5, "step_size": np.full(5, 0.1)}))
    assert "5 were given, one for each network, as many as there are steps" in fs.plan(run).explain()
    for other in (run.replace(steps=6), run.replace(step_size=0.1), run.replace(step_size=np.full((5, 5), 0.1))):
        assert "were given" not in fs.plan(other).explain()
