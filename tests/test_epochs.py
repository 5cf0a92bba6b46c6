"""Epochs with a short last batch or without it, ragged replays, and torch's own loader, index for index."""

import numpy as np
import pytest
import torch
from general_cases import POINTS, D, general
from hypothesis import given, settings
from hypothesis import strategies as st

import fastsgd as fs

M, R, orders = fs.models, fs.rules, fs.orders
NET = M.MLP(D, 4, activation="tanh", b_scale=0.3)
quick = settings(max_examples=25, deadline=None, derandomize=True)


def batches(n, batch, drop, steps, seed=0):
    """The batches that torch's loader gives over epochs."""
    loader = torch.utils.data.DataLoader(range(n), batch, shuffle=True, drop_last=drop,
                                         generator=torch.Generator().manual_seed(seed))
    out = []
    while len(out) < steps:
        out += [batch.tolist() for batch in loader]
    return out[:steps]


@quick
@given(st.integers(1, 30), st.integers(1, 35), st.booleans(), st.integers(0, 60), st.integers(0, 5))
def test_epochs_have_the_shape_of_torchs(n, batch, drop, t0, key):
    if drop and batch > n:
        return
    steps, order = t0 + 20, orders.Reshuffle(drop_last=drop)
    counts = order.counts(t0, steps, n, batch)
    counts = np.full((1, 20), batch) if counts is None else counts
    assert counts[0].tolist() == [len(one) for one in batches(n, batch, drop, steps)[t0:]]
    index = order.indices(5, [key], 0, steps, n, batch)[0]
    every = order.counts(0, steps, n, batch)
    every = np.full(steps, batch) if every is None else every[0]
    a_epoch = n // batch if drop else -(-n // batch)
    for first in range(0, steps - a_epoch + 1, a_epoch):
        seen = np.concatenate([index[t, :every[t]] for t in range(first, first + a_epoch)])
        assert len(set(seen)) == len(seen) == (a_epoch * batch if drop else n)
    assert np.array_equal(order.indices(5, [key], t0, steps, n, batch)[0], index[t0:])


@pytest.mark.parametrize("drop", [None, False, True])
@pytest.mark.parametrize("batch", [1, 3, 7, 9])
@pytest.mark.parametrize("network", [None, 3])
def test_kernels_draw_the_stated_epochs(drop, batch, network):
    if drop and batch > POINTS:
        return
    order = orders.Reshuffle(network, drop)
    run = general({"model": NET, "rule": R.SGD(batch_size=batch), "order": order})
    T, N = run.steps, 11
    index = np.broadcast_to(order.indices(run.seed, np.arange(N), 0, T, POINTS, batch), (N, T, batch)).copy()
    counts = order.counts(0, T, POINTS, batch)
    if counts is not None:
        index[np.arange(batch) >= np.broadcast_to(counts, (N, T))[..., None]] = -1
    replay = fs.train(run.replace(order=orders.Replay(index)))
    assert fs.train(run).weights.tobytes() == replay.weights.tobytes()
    for segment in (1, 5):
        cut = fs.train(run, tuning=fs.Tuning(segment=segment))
        assert cut.weights.tobytes() == replay.weights.tobytes()


@quick
@given(st.integers(1, 5), st.booleans(), st.integers(0, 99), st.sampled_from(["sgd", "momentum", "sam"]))
def test_a_loader_of_torch_step_for_step(batch, drop, seed, kind):
    """Batches of torch's loader, gradients of torch, steps of torch.optim; short batches are means over themselves."""
    rule = R.SGD(batch_size=batch, momentum=0.5 if kind == "momentum" else 0.0)
    if kind == "sam":
        rule = R.SAM(rho=0.0, batch_size=batch)
    T = 12
    run = general({"model": NET, "rule": rule}, steps=T, networks=1, step_size=0.05,
                  save=fs.SaveAt(linear=T + 1, params=True))
    X, y = torch.tensor(run.data.X), torch.tensor(run.data.y)
    data = torch.utils.data.TensorDataset(X, y)
    loader = torch.utils.data.DataLoader(data, batch, shuffle=True, drop_last=drop,
                                         generator=torch.Generator().manual_seed(seed))
    got = fs.train(run.replace(order=orders.loader(loader, T))).saved_weights[0]
    p = {name: torch.tensor(a.copy(), requires_grad=True) for name, a in NET.unflatten(got[0]).items()}
    optim, t = torch.optim.SGD(p.values(), 0.05, momentum=0.5 if kind == "momentum" else 0.0), 0
    while t < T:
        for x, label in loader:
            optim.zero_grad()
            run.loss.value(NET.forward(p, x), label).mean().backward()
            optim.step()
            t += 1
            want = np.concatenate([a.detach().numpy().ravel() for a in p.values()])
            np.testing.assert_allclose(got[t], want, rtol=1e-12, atol=1e-13)
            if t == T:
                break


def test_a_loader_is_left_as_it_was_and_takes_any_sampler():
    def loader(**given):
        return torch.utils.data.DataLoader(torch.arange(10.0), **given)

    generator = torch.Generator().manual_seed(4)
    shuffled = loader(batch_size=3, shuffle=True, generator=generator)
    before = generator.get_state()
    order = orders.loader(shuffled, 9)
    assert torch.equal(generator.get_state(), before) and order.order.shape == (1, 9, 3)
    told = [int(x) for batch in shuffled for x in batch]
    assert order.order[order.order >= 0][:10].tolist() == told
    torch.manual_seed(7)
    order = orders.loader(loader(batch_size=4, shuffle=True), 3)
    told = [[int(x) for x in batch] for batch in loader(batch_size=4, shuffle=True)]
    assert [[i for i in step if i >= 0] for step in order.order[0].tolist()] == told
    seeded = torch.Generator().manual_seed(1)
    weighted = torch.utils.data.WeightedRandomSampler([1.0] * 9 + [100.0], 10, generator=seeded)
    order = orders.loader(loader(batch_size=2, sampler=weighted, drop_last=True), 5)
    assert (order.order == 9).mean() > 0.5
    plain = orders.loader(loader(batch_size=5), 4)
    assert plain.order.tolist() == [[[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]] * 2]
    own = torch.utils.data.DataLoader(torch.arange(10.0), batch_sampler=[[1, 2, 3], [4]])
    assert orders.loader(own, 3).order.tolist() == [[[1, 2, 3], [4, -1, -1], [1, 2, 3]]]
    single = orders.loader(loader(batch_size=None), 4)
    assert single.order.tolist() == [[[0], [1], [2], [3]]]
    own = torch.utils.data.DataLoader(Unmeasured(), 2, sampler=[4, 1, 3])
    assert orders.loader(own, 2).order.tolist() == [[[4, 1], [3, -1]]]


@pytest.mark.parametrize("seed", [None, 3])
def test_a_loader_whose_workers_persist(seed):
    """Its iterator is made once, and draws a seed for its workers then; before and after that."""
    shared = None if seed is None else torch.Generator().manual_seed(seed)
    made = torch.utils.data.DataLoader(torch.arange(10), 4, shuffle=True, num_workers=1, persistent_workers=True,
                                       generator=shared)
    torch.manual_seed(5)
    for _ in range(2):
        order = orders.loader(made, 6)
        told = [batch.tolist() for _ in range(2) for batch in made]
        assert [[i for i in step if i >= 0] for step in order.order[0].tolist()] == told


def test_loaders_of_several_seeds():
    order = orders.loader(10, 9, batch_size=4, seeds=[0, 5], drop_last=True)
    for k, seed in enumerate((0, 5)):
        assert order.order[k].tolist() == batches(10, 4, True, 9, seed)
    one = orders.loader(10, 9, batch_size=4, seeds=3)
    assert one.order.shape == (1, 9, 4) and [[i for i in step if i >= 0] for step in one.order[0].tolist()] == batches(
        10, 4, False, 9, 3)
    straight = orders.loader(5, 3, batch_size=2, shuffle=False)
    assert straight.order.tolist() == [[[0, 1], [2, 3], [4, -1]]]


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(range(100))


class Unmeasured(torch.utils.data.Dataset):
    def __getitem__(self, index):
        return index


@pytest.mark.parametrize(("make", "word"), [
    (lambda: orders.loader(torch.utils.data.DataLoader(Endless(), 2), 3), "loader"),
    (lambda: orders.loader("loader", 3), "loader"), (lambda: orders.loader(10, 0, seeds=0), "steps"),
    (lambda: orders.loader(0, 3, seeds=0), "loader"),
    (lambda: orders.loader(10, 3, batch_size=0, seeds=0), "batch_size"),
    (lambda: orders.loader(10, 3), "seeds"), (lambda: orders.loader(10, 3, seeds=[0.5]), "seeds"),
    (lambda: orders.loader(10, 3, seeds=0, shuffle=1), "shuffle"),
    (lambda: orders.loader(10, 3, batch_size=11, seeds=0, drop_last=True), "no batch"),
    (lambda: orders.loader(torch.utils.data.DataLoader(range(4), 2), 3, batch_size=3), "batch_size"),
    (lambda: orders.loader(torch.utils.data.DataLoader(range(4), 5, drop_last=True), 3), "no batch"),
    (lambda: orders.loader(torch.utils.data.DataLoader(range(4), sampler=[1, -1]), 3), "its sampler gives"),
    (lambda: orders.loader(torch.utils.data.DataLoader({"a": 1}, sampler="a"), 3), "its sampler gives")])
def test_what_cannot_be_replayed_is_refused(make, word):
    with pytest.raises(fs.SpecError, match=word):
        make()


def test_ragged_orders_are_lists_or_padded():
    steps = [[0, 1, 2], [3], [4, 5]]
    order = orders.Replay(steps)
    assert order.order.tolist() == [[[0, 1, 2], [3, -1, -1], [4, 5, -1]]]
    assert order.table.tolist() == [[[0, 1, 2], [3, 3, 3], [4, 5, 4]]]
    assert order.counts(0, 3, 7, 3).tolist() == [[3, 1, 2]]
    assert orders.Replay([np.arange(3), torch.tensor([3]), (4, 5)]).order.tolist() == order.order.tolist()
    assert orders.Replay([[0, 1], [2, 3]]).counts(0, 2, 7, 2) is None


@pytest.mark.parametrize("backend", ["cpu", "reference", "cuda"])
@pytest.mark.parametrize(("kind", "more"), [(R.SGD, {}), (R.SGD, {"momentum": 0.5}), (R.SAM, {"rho": 0.1}),
                                            (R.SAM, {"rho": 0.1, "per_sample": True})])
@pytest.mark.usefixtures("a_card")
def test_what_fills_a_short_step_up_is_not_looked_at(kind, more, backend):
    """A step of one sample among three places is that of a batch of one, and the noise of the others ends no run."""
    T = 13
    rule = {"label_noise": 1.0, "lost_above": 2.5} | more
    short = fs.train(general({"model": NET, "rule": kind(batch_size=3, **rule)}, order=orders.Replay(
        [[[4, -1, -1]] * T]), backend=backend))
    single = fs.train(general({"model": NET, "rule": kind(**rule)}, order=orders.Replay([4] * T), backend=backend))
    assert np.array_equal(short.lost, single.lost) and (single.lost >= 0).any() and (single.lost < 0).any()
    np.testing.assert_allclose(short.weights, single.weights, rtol=1e-11, atol=1e-13)


def test_extend_goes_on_with_epochs():
    for order in (orders.Reshuffle(drop_last=False), orders.Reshuffle(drop_last=True)):
        run = general({"model": NET, "rule": R.SGD(batch_size=3), "order": order}, step_size=0.05)
        whole = fs.train(run.replace(steps=20))
        assert fs.extend(fs.train(run), 20).weights.tobytes() == whole.weights.tobytes()


def test_files_keep_ragged_orders(tmp_path):
    run = general({"model": NET, "rule": R.SGD(batch_size=3),
                   "order": orders.Replay([[0, 1, 2], [3], *[[4, 5]] * 11])}, step_size=0.05)
    result = fs.train(run)
    result.save(tmp_path / "run.npz")
    again = fs.Result.load(tmp_path / "run.npz")
    assert fs.train(again.run).weights.tobytes() == result.weights.tobytes()
    fs.train(run, checkpoint=str(tmp_path / "run.ckpt"))
    with pytest.warns(UserWarning, match="its result is taken"):
        assert fs.train(run, checkpoint=str(tmp_path / "run.ckpt")).weights.tobytes() == result.weights.tobytes()


def test_triton_refuses_steps_of_different_numbers():
    pytest.importorskip("triton")
    from fastsgd.backends.triton.backend import _no_kernel
    from fastsgd.lowering.work import Work

    run = general({"model": NET, "rule": R.SGD(batch_size=3), "order": orders.Reshuffle(drop_last=False)})
    assert "different numbers of samples" in _no_kernel(Work(run))


def test_the_step_without_a_plan_takes_short_batches():
    order = orders.Reshuffle(drop_last=False)
    run = general({"model": NET, "rule": R.SGD(batch_size=3, momentum=0.5), "order": order}, step_size=0.05, steps=11)
    W = fs.plan(run.replace(networks=4)).start.copy()
    buffers = fs.functional.fresh_buffers(run.rule, W)
    for t0, steps in ((0, 5), (5, 6)):
        fs.functional.advance_(NET, W, run.data.X, run.data.y, order, 0.05, steps=steps, rule=run.rule, seed=run.seed,
                               t0=t0, buffers=buffers)
    assert W.tobytes() == fs.train(run.replace(networks=4)).weights.tobytes()


def test_extend_refuses_other_numbers_of_samples():
    run = general({"model": NET, "rule": R.SGD(batch_size=2)}, step_size=0.05, steps=2,
                  order=orders.Replay([[[4, -1], [1, 2]]]))
    with pytest.raises(fs.PlanError, match="order: is another one"):
        fs.extend(fs.train(run), 3, order=orders.Replay([[[4, 4], [1, 2], [3, 3]]]))
    assert fs.extend(fs.train(run), 3, order=orders.Replay([[[4, -1], [1, 2], [3, -1]]])).run.steps == 3
