"""The same numbers in another dress mean the same, and records do not change under the caller's feet."""

import numpy as np
import pytest
import torch
from cases import Elsewhere
from test_hostile import DIAGONAL, XT, YT, T, X, Y, request, train

import fastsgd as fs

SAME = {
    "torch": lambda a: torch.from_numpy(a.copy()).requires_grad_(), "dlpack": lambda a: Elsewhere(a.copy()),
    "negative strides": lambda a: np.ascontiguousarray(a[::-1])[::-1], "F order": np.asfortranarray,
    "every second": lambda a: np.repeat(a, 2, axis=0)[::2], "list": np.ndarray.tolist,
    "masked nowhere": np.ma.masked_array,
}


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize("backend", ("cpu", "reference"))
def test_the_same_numbers_in_another_dress_give_the_same_bits(kind, backend):
    change = SAME[kind]
    data = fs.Dataset(*map(change, (X, Y, XT, YT)))
    init = {"u": change(np.full(3, 0.3)), "v": change(np.arange(3.0))}
    metrics = [fs.metrics.TestLoss()]
    ours = train(data=data, init=init, backend=backend, metrics=metrics)
    theirs = train(init={"u": np.full(3, 0.3), "v": np.arange(3.0)}, backend=backend, metrics=metrics)
    assert ours.weights.tobytes() == theirs.weights.tobytes()
    assert ours.numpy("test_loss").tobytes() == theirs.numpy("test_loss").tobytes()


def test_foreign_byte_order_of_whole_numbers_and_step_sizes_is_read_right():
    order = np.arange(T) % 7
    big = train(order=fs.orders.Replay(order.astype(">i4")), step_size=np.array([0.1, 0.2], ">f8"))
    native = train(order=fs.orders.Replay(order), step_size=[0.1, 0.2])
    assert big.weights.tobytes() == native.weights.tobytes()


def test_records_do_not_change_under_the_callers_feet():
    arrays = [a.copy() for a in (X, Y, XT, YT)]
    tensor = torch.from_numpy(X.copy())
    order, table, ids = np.arange(T) % 7, np.full((2, T), 0.1), np.array([1, 0])
    init, base, saves = {"u": np.ones(3), "v": np.zeros((2, 3))}, np.array([0.1, 0.2]), np.array([3, T])
    data, of_tensor = fs.Dataset(*arrays), fs.Dataset(tensor, Y)

    def make(step):
        metrics = [fs.metrics.TestLoss(), fs.metrics.JacobianRank(points=arrays[2])]
        return request(data=data, order=fs.orders.Replay(order), step_size=step, ids=ids, init=init,
                       save=fs.SaveAt(steps=saves), metrics=metrics)

    runs = [make(fs.StepTable(table)), make(base), request(data=of_tensor)]
    before = [fs.train(run) for run in runs]
    for array in (*arrays, tensor, order, table, ids, *init.values(), base, saves):
        array[:] = 1
    init.clear()
    for run, was in zip(runs, before, strict=True):
        now = fs.train(run)
        assert now.weights.tobytes() == was.weights.tobytes()
        assert {name: a.tobytes() for name, a in now.records.items()} == {
            name: a.tobytes() for name, a in was.records.items()}
    for array in (data.X, runs[0].ids, runs[0].init["u"], runs[0].order.order, runs[1].step_size.base,
                  runs[0].save.steps, DIAGONAL.u0):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
