"""The contract on bits in the general loop: equal for any N, shard, thread count, lanes, segment, instruction set."""

import numpy as np
import pytest
from cases import BACKENDS, DTYPES, bits
from general_cases import CASES, EACH, FAMILIES, NET, NETWORKS, RELU, TAUGHT, TEACHER, D, general
from test_bits import layouts
from tiers import turns

import fastsgd as fs
from fastsgd import checkpoint, storage
from fastsgd.execute import execute
from fastsgd.native import native

SCALARS = {  # rules of one number for all networks, so that populations of any size can be made
    "noise": {"model": RELU, "rule": fs.rules.SGD(label_noise=0.2, gradient_noise=0.1, momentum=0.3)},
    "sam": {"model": RELU, "rule": fs.rules.SAM(rho=0.1, per_sample=True, batch_size=2)},
    "fresh": {"model": RELU, "data": fs.data.Fresh(D, TEACHER, TAUGHT)},
    "reshuffle": {"model": RELU, "rule": fs.rules.SGD(batch_size=3, average=0.5), "order": fs.orders.Reshuffle()},
    "common": {"model": RELU, "rule": fs.rules.SGD(label_noise=0.2), "order": fs.orders.Common(2)},
    "adam": {"model": RELU, "rule": fs.rules.Adam(batch_size=2)},
}
THREADED = ("mlp_tanh", "everything_relu2", "sam_each_relu2", "adamw_relu2", "reshuffle_net", "fresh_batch", "stream")


def everything(result):
    return bits(result), result.saved_weights.tobytes()


@pytest.mark.parametrize(("name", "dtype"), turns(CASES, DTYPES))
def test_no_choice_moves_a_bit(name, dtype):
    run = general(name, dtype)
    want = everything(fs.train(run, tuning=fs.Tuning(threads=1)))
    for layout in layouts(dtype):
        if layout["team"] == 1:
            assert everything(fs.train(run, tuning=fs.Tuning(threads=1, **layout))) == want, layout
    for segment in (1, 5):
        assert everything(fs.train(run, tuning=fs.Tuning(threads=1, segment=segment))) == want, segment
    if name in THREADED:
        assert everything(fs.train(run, tuning=fs.Tuning(threads=3, lanes=1))) == want


@pytest.mark.parametrize(("name", "dtype"), turns(CASES, DTYPES))
def test_members_alone_and_in_shards(name, dtype):
    run = general(name, dtype)
    whole = fs.train(run, tuning=fs.Tuning(threads=1))
    for ids in ([0], [7, 3], list(range(5, NETWORKS))):
        part = fs.train(run.replace(ids=ids), tuning=fs.Tuning(threads=1))
        assert part.saved_weights.tobytes() == whole.saved_weights[ids].tobytes()
        for record in whole.records:
            assert part.numpy(record).tobytes() == whole.numpy(record)[ids].tobytes()


R = fs.rules
AT_ONCE = {  # rules that vectors of networks apply as derivatives come, single networks from a gradient in memory
    "decay": R.SGD(weight_decay=EACH), "momentum": R.SGD(momentum=EACH), "adam": R.Adam(beta1=EACH, beta2=0.9),
    "nesterov": R.SGD(momentum=EACH, nesterov=True), "adam_decay": R.Adam(weight_decay=EACH),
    "momentum_decay": R.SGD(momentum=EACH, weight_decay=0.3),
    "nesterov_decay": R.SGD(momentum=0.5, weight_decay=EACH, nesterov=True),
    "adamw": R.Adam(weight_decay=EACH, decoupled=True),
}


@pytest.mark.parametrize("rule", AT_ONCE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rules_applied_as_derivatives_come(rule, dtype):
    names = ("mlp_fixed", "mlp_deep", "mlp_linear", "mlp_two_outputs", "product_3", "power_3", "autoencoder")
    models = [NET, RELU, *(FAMILIES[name]["model"] for name in names)]
    for model in models:
        run = general({"model": model, "rule": AT_ONCE[rule]}, dtype)
        alone = everything(fs.train(run, tuning=fs.Tuning(threads=1, lanes=1)))
        assert everything(fs.train(run, tuning=fs.Tuning(threads=1, lanes=native().lanes[dtype]))) == alone, model


@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_larger_population_begins_with_the_smaller_one(name, dtype):
    run = general(SCALARS[name], dtype, step_size=0.03, networks=3)
    small, large = fs.train(run), fs.train(run.replace(networks=70))
    assert large.weights[:3].tobytes() == small.weights.tobytes()
    assert len(np.unique(large.weights[:, 0])) == 70
    far = fs.train(run.replace(networks=None, ids=[4_000_000_000, 2]))
    assert far.weights[1].tobytes() == small.weights[2].tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["everything_relu2", "adamw_relu2", "average_saved", "fresh_batch", "reshuffle_net",
                                  "sde_schedule_relu2", "one_sign_relu2", "floor"])
def test_every_checkpoint_resumes_to_the_same_bits(name, backend, tmp_path, monkeypatch):
    kept, write, run = [], storage.write, general(name, "float32", backend=backend)

    def keep(path, header, arrays, previous):
        kept.append(tmp_path / f"{len(kept)}")
        write(kept[-1], header, arrays)

    monkeypatch.setattr(storage, "write", keep)
    tuning = fs.Tuning(segment=5, threads=1)
    want = fs.train(run, checkpoint=fs.Checkpoint(tmp_path / "c", every=0), tuning=tuning)
    monkeypatch.undo()
    middle = [path for path in kept if 0 < checkpoint.load(path)[1].t < run.steps]
    assert middle and everything(want) == everything(fs.train(run, tuning=fs.Tuning(threads=1)))
    for path in middle:
        assert everything(fs.resume(path, tuning=tuning, checkpoint=tmp_path / "d")) == everything(want)


def test_what_is_carried_begins_at_the_start_and_is_carried():
    """Buffers of a rule in order: momentum or Adam's two moments, then the average, which begins at the weights."""
    plan, seen = fs.plan(general("adamw_relu2")), []
    np.testing.assert_array_equal(plan.fresh_buffers()[:, 2], plan.start)
    assert not plan.fresh_buffers()[:, :2].any()
    execute(plan, on_launch=lambda done: seen.append(done.buffers.copy()))
    assert np.abs(seen[-1]).max(axis=(0, 2)).min() > 0
