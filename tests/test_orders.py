"""Orders: what a network saw, read back from one that counts; distinct samples, epochs, fairness of permutations."""

import numpy as np
import pytest
from cases import BACKENDS

import fastsgd as fs
from fastsgd import orders
from fastsgd.spec import draws

N = 9


def seen(order, batch, steps, n, **fields):
    """How often network k took point i in step t, [N, steps, n].

    One-hot inputs and the identity for a model: with labels so far away that no weight matters, a step of size eta
    moves weight i by eta y / B for each time that it saw point i.
    """
    model, far, eta = fs.models.DiagonalProduct(n, 1), 2.0**40, 2.0**-40
    run = fs.Run(model, fs.Dataset(np.eye(n), np.full(n, far)), fs.rules.SGD(batch_size=batch), eta, steps, networks=N,
                 order=order, dtype="float64", seed=4, save=fs.SaveAt(linear=steps + 1, params=True), **fields)
    moved = np.diff(fs.train(run, tuning=fs.Tuning(threads=1)).saved_weights, axis=1) * batch
    count = np.rint(moved)
    assert np.abs(moved - count).max() < 1e-6
    return count.astype(int)


SHARED = {orders.Common(3, replace=False), orders.Reshuffle(2)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", [orders.PerNetwork(replace=False), orders.Common(3, replace=False)])
@pytest.mark.parametrize("batch", (1, 4, 7))
def test_a_batch_without_replacement_holds_distinct_points(order, batch, backend):
    count = seen(order, batch, 6, 7, backend=backend)
    assert (count.sum(axis=2) == batch).all() and count.max() == 1
    assert (count == count[:1]).all() == (order in SHARED or batch == 7)
    assert batch == 7 or (count != count[:, :1]).any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", [orders.Reshuffle(), orders.Reshuffle(2)])
@pytest.mark.parametrize("batch", (1, 3, 5, 14))
def test_every_point_is_seen_once_an_epoch(order, batch, backend):
    """Five epochs of seven points, whatever the batch: one may end an epoch and begin the next."""
    n, steps = 7, -(-5 * 7 // batch)
    count = seen(order, batch, steps, n, backend=backend)
    total = count.cumsum(axis=1)
    done = np.arange(1, steps + 1) * batch  # after so many samples each point was seen floor or ceil of done / n times
    assert (total >= (done // n)[:, None]).all() and (total <= (-(-done // n))[:, None]).all()
    assert (count == count[:1]).all() == (order in SHARED or batch == 14)
    if batch == 1:
        epochs = count.reshape(N, 5, n, n)
        assert (epochs[:, 0] != epochs[:, 1]).any(axis=(1, 2)).all()


@pytest.mark.parametrize("order", [orders.PerNetwork(), orders.PerNetwork(replace=False), orders.Common(3),
                                   orders.Common(3, replace=False), orders.Reshuffle(), orders.Reshuffle(2)])
def test_a_window_of_steps_is_a_part_of_the_whole_and_of_the_rows_of_others(order):
    whole = np.broadcast_to(order.indices(8, np.arange(6), 0, 20, 11, 4), (6, 20, 4))
    for t0, t1 in ((0, 1), (3, 9), (19, 20)):
        part = np.broadcast_to(order.indices(8, np.array([4, 1]), t0, t1, 11, 4), (2, t1 - t0, 4))
        np.testing.assert_array_equal(part, whole[[4, 1], t0:t1])


def test_replace_changes_nothing_but_repetitions_of_orders_with_it():
    """A common order is that of its network, with or without replacement."""
    for replace in (True, False):
        own = orders.PerNetwork(replace).indices(1, np.array([5, 3]), 0, 9, 11, 4)
        np.testing.assert_array_equal(orders.Common(3, replace).indices(1, np.arange(2), 0, 9, 11, 4)[0], own[1])
    own = orders.Reshuffle().indices(1, np.array([5, 3]), 0, 9, 11, 4)
    np.testing.assert_array_equal(orders.Reshuffle(3).indices(1, np.arange(2), 0, 9, 11, 4)[0], own[1])


@pytest.mark.parametrize("order", [orders.PerNetwork(replace=False), orders.Reshuffle()])
def test_points_and_pairs_are_equally_likely(order):
    """First samples of 20000 networks: each point, and each ordered pair of points, with its chance."""
    n, many = 5, 20_000
    index = order.indices(2, np.arange(many), 0, 1, n, 2)[:, 0]
    pair = np.bincount(index[:, 0] * n + index[:, 1], minlength=n * n).reshape(n, n)
    assert not np.diag(pair).any()
    chance = 1 / (n * (n - 1))
    off = pair[~np.eye(n, dtype=bool)] / many
    assert np.abs(off - chance).max() < 5 * np.sqrt(chance / many)


@pytest.mark.parametrize("n", (1, 2, 3, 17, 64, 1000))
def test_permutations_permute(n):
    index = draws.permutation(3, np.arange(4), 7, n, np.arange(n))
    np.testing.assert_array_equal(np.sort(index, axis=1), np.tile(np.arange(n), (4, 1)))
