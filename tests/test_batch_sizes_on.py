"""Batch sizes of each network: checkpoints, going on and forks, to the bits of runs of one size."""

import numpy as np
import pytest
from general_cases import NETWORKS, general
from test_batch_sizes import EVERY, NET, SIZES, same

import fastsgd as fs
from fastsgd import storage
from fastsgd.checkpoint import load

R = fs.rules
GROUPS, S = len(set(SIZES)), 4  # and saved steps
SAVE = fs.SaveAt(linear=S, params=True)
RUN = general({"model": NET, "rule": EVERY[1]}, steps=40, save=SAVE, step_size=np.linspace(0.01, 0.2, NETWORKS),
              metrics=[fs.metrics.TrainLoss(), fs.metrics.DistanceTravelled()])
STOPPED = RUN.replace(stop=[fs.stops.Below("train_loss", 0.6, every=4)], rule=EVERY[0], ids=[9, 0, 7, 3, 2, 1, 8])


class Cut(Exception):
    """Ends a run in the middle."""


def cut_after(calls):
    seen = []

    def progress(t, T, lost):
        seen.append((t, T))
        if len(seen) == calls:
            raise Cut
    return progress, seen


@pytest.mark.parametrize("run", [RUN, STOPPED, RUN.replace(metrics=(), save=fs.SaveAt(steps=[40]))],
                         ids=["all", "stops and ids", "nothing on the way"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_run_that_was_cut_goes_on_to_its_bits(run, share, tmp_path):
    whole, path, tuning = fs.train(run), tmp_path / "c", fs.Tuning(segment=3)
    _, seen = cut_after(None)
    progress, every = cut_after(None)
    fs.train(run, progress=progress, tuning=tuning)
    assert every[-1] == (run.steps, run.steps) and [t for t, _ in every] == sorted(t for t, _ in every)
    progress, seen = cut_after(max(1, int(share * len(every))))
    with pytest.raises(Cut) as error:
        fs.train(run, checkpoint=fs.Checkpoint(path, every=0), progress=progress, tuning=tuning)
    assert f"holds step {seen[-1][0]} of {run.steps}" in error.value.__notes__[0]
    held, at = load(path)
    assert at.t == seen[-1][0] and held.rule.batch_size.tolist() == run.rule.batch_size.tolist()
    with pytest.warns(UserWarning, match=f"holds this run; it goes on at step {at.t}"):
        again = fs.train(run, checkpoint=path)
    same_all(again, whole)
    same_all(fs.resume(path), whole)  # of a run that has ended it is the result
    with pytest.warns(UserWarning, match="its result is taken from there"):
        same_all(fs.plan(run).train(checkpoint=path), whole)


def same_all(got, want, at=slice(None)):
    assert got.lost.tolist() == want.lost[at].tolist() and got.weights.tobytes() == want.weights[at].tobytes()
    assert got.stopped.tolist() == want.stopped[at].tolist() and got.stopped_by.tolist() == want.stopped_by[at].tolist()
    assert (got.saved_weights is None) == (want.saved_weights is None)
    if got.saved_weights is not None:
        same(got, want, at)


def test_resume_goes_on_elsewhere_and_a_file_of_another_run_is_refused(tmp_path):
    whole, path = fs.train(RUN), tmp_path / "c"
    with pytest.raises(Cut):
        fs.train(RUN, checkpoint=path, progress=cut_after(5)[0], tuning=fs.Tuning(segment=3))
    same(fs.resume(path, checkpoint=tmp_path / "d"), whole)
    same(fs.resume(tmp_path / "d"), whole)
    others = [RUN.replace(rule=EVERY[1].of_batch(1)), RUN.replace(seed=99), RUN.replace(ids=[0, 1, 2]),
              RUN.replace(rule=R.Adam(batch_size=SIZES[::-1].copy(), beta1=RUN.rule.beta1, average=0.5))]
    for other in others:
        with pytest.raises(fs.SpecError, match="belongs to another run"):
            fs.train(other, checkpoint=path)


def test_a_damaged_file_gives_way_to_the_one_before(tmp_path):
    path = tmp_path / "c"
    with pytest.raises(Cut):
        fs.train(RUN, checkpoint=fs.Checkpoint(path, every=0), progress=cut_after(9)[0], tuning=fs.Tuning(segment=3))
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.warns(UserWarning, match="the one before it is taken"):
        same(fs.resume(path), fs.train(RUN))


def forged(path, header=None, **arrays):
    """The checkpoint at `path` with other parts, whole as a file."""
    head, parts = storage.read(path, "checkpoint")
    storage.write(path, head | (header or {}), parts | arrays)


@pytest.mark.parametrize(("header", "words"), [
    ({"t": [40] * (GROUPS - 1), "taken": [S] * (GROUPS - 1)}, "not those of its groups"),
    ({"t": 40}, "not those of its groups"), ({"taken": S}, "not those of its groups"),
    ({"t": [41] * GROUPS, "taken": [S] * GROUPS}, "holds step 41"),
    ({"t": ["40"] * GROUPS, "taken": [S] * GROUPS}, "holds step '40'"),
    ({"t": [0] * GROUPS, "taken": [S] * GROUPS}, "which the run cannot have"),
    ({"t": 40, "taken": S}, "not those of its groups")])
def test_files_that_no_run_wrote_are_refused(header, words, tmp_path):
    path = tmp_path / "c"
    fs.train(RUN, checkpoint=path)
    forged(path, header)
    with pytest.raises(fs.SpecError, match=words):
        fs.resume(path)


def test_a_run_of_one_size_has_no_groups(tmp_path):
    path = tmp_path / "c"
    fs.train(RUN.replace(rule=EVERY[1].of_batch(2)), checkpoint=path)
    forged(path, {"t": [40], "taken": [S]})
    with pytest.raises(fs.SpecError, match="not those of its groups"):
        fs.resume(path)


@pytest.mark.parametrize("run", [RUN, STOPPED], ids=["all", "stops and ids"])
def test_extend_has_the_bits_of_one_longer_run(run, tmp_path):
    short = fs.train(run)
    longer = fs.extend(short, steps=70)
    want = fs.train(longer.run)
    assert want.run.steps == 70 and longer.run.rule.batch_size.tolist() == run.rule.batch_size.tolist()
    same_all(longer, want)
    short.save(tmp_path / "r.npz")
    same_all(fs.extend(fs.Result.load(tmp_path / "r.npz"), steps=70), want)


def test_extend_refuses_before_anything_runs():
    short = fs.train(RUN.replace(step_size=fs.StepSize(0.1, decay_at=0.5, decay_by=2)))
    seen = []
    with pytest.raises(fs.PlanError, match="step_size: is another one on steps 0"):
        fs.extend(short, steps=50, progress=lambda *given: seen.append(given))
    assert not seen


@pytest.mark.parametrize("at", [10, 23, 40])
def test_a_fork_that_changes_nothing_has_the_bits_of_the_result(at):
    whole = fs.train(RUN.replace(steps=60, save=fs.SaveAt(steps=[10, 23, 40, 60], params=True)))
    got = fs.fork(fs.train(RUN.replace(save=fs.SaveAt(steps=[10, 40]))), at=at, steps=60,
                  save=fs.SaveAt(steps=[at, 60], params=True))
    assert got.weights.tobytes() == whole.weights.tobytes() and got.lost.tolist() == whole.lost.tolist()
    assert got.provenance["forked"] == [{"at": at, "seed": RUN.seed, "copies": 1}]
    for k, size in enumerate(SIZES[:4]):
        alone = fs.train(RUN.replace(rule=EVERY[1].of_batch(int(size)), ids=[k]))
        one = fs.fork(alone, at=at, steps=60, seed=7)
        assert one.weights.tobytes() == fs.fork(fs.train(RUN), at=at, steps=60, seed=7).weights[[k]].tobytes()


def test_forks_of_several_copies_are_numbered_through():
    result = fs.train(RUN.replace(ids=[7, 0, 3]))
    got = fs.fork(result, steps=60, copies=3)
    assert got.run.rule.batch_size.tolist() == np.repeat(SIZES[[7, 0, 3]], 3).tolist() and len(got.ids) == 9
    for k, network in enumerate((7, 0, 3)):
        of_its_size = fs.train(result.run.replace(rule=EVERY[1].of_batch(int(SIZES[network]))))
        want, at = fs.fork(of_its_size, steps=60, copies=3), slice(3 * k, 3 * k + 3)
        assert got.weights[at].tobytes() == want.weights[at].tobytes()
        assert len({w.tobytes() for w in got.weights[at]}) == 3


def test_forks_come_and_go_between_sizes():
    plain, each = fs.train(RUN.replace(rule=EVERY[1].of_batch(2))), fs.train(RUN)
    two = R.SGD(batch_size=2, average=0.5)
    got = fs.fork(each, steps=60, rule=two)
    for k in (0, 2, 6):  # the state of its own size, then two samples a step
        alone = fs.train(RUN.replace(rule=EVERY[1].of_batch(int(SIZES[k])), ids=[k]))
        assert fs.fork(alone, steps=60, rule=two).weights.tobytes() == got.weights[[k]].tobytes()
    got = fs.fork(plain, steps=60, rule=EVERY[1])
    for k in (0, 2, 6):
        assert fs.fork(plain, steps=60, rule=EVERY[1].of_batch(int(SIZES[k]))).weights[k].tobytes() == (
            got.weights[k].tobytes())
    with pytest.raises(fs.PlanError, match=r"rule\.batch_size has 11"):
        fs.fork(plain, steps=60, copies=2, rule=EVERY[0])


def test_the_header_says_where_each_group_is(tmp_path):
    path = tmp_path / "c"
    fs.train(RUN, checkpoint=path)
    header, _ = storage.read(path, "checkpoint")
    assert header["t"] == [40] * GROUPS and header["taken"] == [S] * GROUPS
