"""The contract on bits: equal for any N, shard, thread count, layout, segment, instruction set, and for ids=[k]."""

import numpy as np
import pytest
from cases import DTYPES, MODELS, RULES, bits, request

import fastsgd as fs
from fastsgd.native import ISAS, NEEDS, cpu_flags, native

STEPS = 301  # not a multiple of four, of the chunk, or of any segment


def layouts(dtype):
    """Every (isa, lanes, team) that this machine can run."""
    for isa in ISAS:
        if all(flag in cpu_flags() for flag in NEEDS[isa]):
            module = native(isa)
            for lanes, team in ((1, module.team[dtype]), (module.lanes[dtype], 1), (1, 1)):
                yield {"isa": isa, "lanes": lanes, "team": team}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", MODELS)
def test_layout_and_instruction_set(model, rule, dtype):
    run = request(model, rule, dtype, STEPS)
    want = bits(fs.train(run))
    for layout in layouts(dtype):
        assert bits(fs.train(fs.plan(run, fs.Tuning(**layout)))) == want, layout


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", ["diagonal_30", "relu2_3_21"])
def test_threads_and_segments(model, dtype):
    run = request(model, "sgd", dtype, STEPS)
    want = bits(fs.train(run))
    for tuning in ({"threads": 1}, {"threads": 3}, {"segment": 1}, {"segment": 7}, {"segment": 64, "threads": 2}):
        assert bits(fs.train(fs.plan(run, fs.Tuning(**tuning)))) == want, tuning
    run = run.replace(metrics=())
    want = fs.train(run).weights.tobytes()
    for save in (fs.SaveAt(linear=40), fs.SaveAt(first=99, log=5)):
        assert fs.train(run.replace(save=save)).weights.tobytes() == want


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ["sgd", "minibatch", "gd"])
@pytest.mark.parametrize("model", ["diagonal_30", "relu2_3_21"])
def test_members_alone_and_in_shards(model, rule, dtype):
    run = request(model, rule, dtype, STEPS)
    whole = fs.train(run)
    for ids in ([0], [7], [18], [5, 3], list(range(9)), list(range(9, 19))):
        part = fs.train(run.replace(ids=ids))
        assert part.weights.tobytes() == whole.weights[ids].tobytes()
        assert part.numpy("train_loss").tobytes() == whole.numpy("train_loss")[ids].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", ["diagonal_30", "relu2_3_21"])
@pytest.mark.parametrize("factor", [0.5, 0.7, "each"])  # 0.5: a slope of 1, which a network alone does not multiply by
def test_members_alone_whatever_their_loss(model, factor, dtype):
    """Some of them lost, on the way or at once."""
    N, run = 10, request(model, "sgd", dtype, STEPS)
    factors = np.linspace(0.3, 0.7, N) if factor == "each" else np.full(N, factor)
    rates = np.geomspace(0.01, 30, N)

    def trained(k, **more):
        loss = fs.losses.Squared(factors[k] if factor == "each" else factor)
        return fs.train(run.replace(step_size=rates[k], loss=loss, metrics=(), networks=None, **more))

    whole = trained(slice(None))
    assert 0 < (whole.lost >= 0).sum() < N
    for k in range(N):
        alone = trained(slice(k, k + 1), keys=[k])
        assert alone.lost[0] == whole.lost[k] and alone.weights.tobytes() == whole.weights[k:k + 1].tobytes()


def test_a_larger_population_begins_with_the_smaller_one():
    run = request("relu2_3_21", step_size=0.02, networks=5)
    small, large = fs.train(run), fs.train(run.replace(networks=100))
    assert large.weights[:5].tobytes() == small.weights.tobytes()
    assert len(np.unique(large.weights[:, 0])) == 100
    far = fs.train(run.replace(networks=None, ids=[4, 4_000_000_000]))
    assert far.weights[0].tobytes() == small.weights[4].tobytes()


def test_replay_in_shards():
    run = request("diagonal_13", order=fs.orders.Replay(np.random.default_rng(1).integers(0, 11, (19, 50))))
    whole, part = fs.train(run), fs.train(run.replace(ids=[11, 2]))
    assert part.weights.tobytes() == whole.weights[[11, 2]].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 8, 9, 23, 30, 40, 49, 64, 65])
def test_networks_that_are_stepped_together(d, dtype):
    """Teams whose sums are joined, each number of vectors, any number of networks; many are lost on the way."""
    rng, N = np.random.default_rng(d), 37
    replay = fs.orders.Replay(rng.integers(0, 20, (N, 210)))
    rate = np.where(rng.random(N) < 0.5, 0.01, rng.uniform(0.5, 30, N)) / d
    for n, order in ((20, None), (20, fs.orders.Common(2)), (20, replay), (4000, None)):
        X = rng.standard_normal((n, d)).astype(dtype)
        run = fs.Run(fs.models.DiagonalLinear(d, u0=0.3, v0=0.1), fs.Dataset(X, X[:, 0].copy()), fs.rules.SGD(), rate,
                     210, order=order, dtype=dtype)
        for ids in (np.arange(N), np.arange(N)[::2], np.arange(7), np.arange(4)):
            part = run.replace(ids=ids)
            want = fs.train(fs.plan(part, fs.Tuning(threads=1, lanes=native().lanes[dtype])))
            assert len(ids) < N or 2 < (want.lost > 0).sum() < N
            for segment in (None, 63, 100):
                got = fs.train(fs.plan(part, fs.Tuning(threads=1, team=native().team[dtype], segment=segment)))
                assert bits(got) == bits(want), (n, len(ids), segment)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 8, 9, 23, 30, 40, 49, 64, 65, 99])
def test_samples_that_are_summed_together(d, dtype):
    """Batches whose sums are joined or tiles, each number of vectors, any size of a batch; many are lost on the way."""
    rng, N = np.random.default_rng(d), 9
    rate, lost = np.where(np.arange(N) % 2, 0.01, 40 + 10 * np.arange(N)) / d, 0
    for n, batch in ((20, 2), (20, 8), (4000, 9), (20, 19), (20, None), (13, None)):
        X = rng.standard_normal((n, d)).astype(dtype)
        rule = fs.rules.SGD(batch_size=batch) if batch else fs.rules.GD()
        replay = None if batch is None else fs.orders.Replay(rng.integers(0, n, (N, 45, batch)))
        for order in dict.fromkeys((None, None if batch is None else fs.orders.Common(3), replay)):
            run = fs.Run(fs.models.DiagonalLinear(d, u0=0.3, v0=0.1), fs.Dataset(X, X[:, 0].copy()), rule, rate, 45,
                         order=order, dtype=dtype)
            want = fs.train(fs.plan(run, fs.Tuning(threads=1, lanes=1, team=1)))
            lost += (want.lost >= 0).sum()
            assert (want.lost < 0).any()
            for layout in ({"team": native().team[dtype]}, {"lanes": native().lanes[dtype]}):
                for segment in (None, 7):
                    got = fs.train(fs.plan(run, fs.Tuning(threads=1, segment=segment, **layout)))
                    assert bits(got) == bits(want), (n, batch, order, layout, segment)
    assert lost > 9


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("d", "bias"), [(1, False), (2, False), (3, False), (1, True), (2, True), (3, True)])
def test_samples_of_few_numbers(d, bias, dtype):
    """Inputs and label of a sample lie side by side where they are four at most."""
    model = fs.models.ReLU2(d, 9, hidden_bias=bias, output_bias=False, W1_scale=0.5)
    X = np.random.default_rng(d).standard_normal((17, d)).astype(dtype)
    for rule in (fs.rules.SGD(), fs.rules.SGD(batch_size=5)):
        run = fs.Run(model, fs.Dataset(X, X[:, 0].copy()), rule, 0.02, 99, networks=19, dtype=dtype)
        team = fs.train(fs.plan(run, fs.Tuning(threads=1, team=native().team[dtype])))
        assert bits(fs.train(fs.plan(run, fs.Tuning(threads=1, lanes=native().lanes[dtype])))) == bits(team)
