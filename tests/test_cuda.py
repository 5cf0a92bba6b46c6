"""CUDA kernels run as fibers: the bits of the CPU backend at every team size, chunks, cards, what is lost, refusals."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import fibers
import numpy as np
import pytest
from cases import DTYPES, MODELS, bits, request
from general_cases import CASES, FAMILIES, RELU, TAUGHT, TEACHER, D, general
from tiers import some

import fastsgd as fs
from fastsgd.backends.cuda import layout
from fastsgd.backends.cuda.backend import USABLE
from fastsgd.cuda import card as cards
from fastsgd.lowering.work import Work
from fastsgd.measure.cards import budget

pytestmark = pytest.mark.usefixtures("a_card")
REAL = cards.why_none() is None  # the same tests, on this machine's card


def teams(model):
    """Legal teams of a family of MODELS."""
    record = MODELS[model]
    items = record.d if isinstance(record, fs.models.DiagonalLinear) else record.width
    return (1, 2, 4, 8) if items <= 64 else (1, 2, 4, 8, 16, 32)


FUSED = [(model, rule, dtype, team) for number, model in enumerate(MODELS) for k, team in enumerate(teams(model))
         for rule, dtype in (("sgd", "float32"), (("minibatch", "float32"), ("gd", "float64"))[(number + k) % 2])]
FUSED += [(model, "sgd", "float64", teams(model)[-1]) for model in MODELS]
CARRIED = {name for name in CASES if layout.in_fused_loop(Work(general(name)))}  # lanes of a warp, not a block
BLOCKS = {name: None if Work(general(name)).fused else 8 if name in CARRIED else (32, 64)[k // 2 % 2]
          for k, name in enumerate(CASES)} | {"own_rule": 1}  # what is traced has a thread a network
ALONE = ("everything", "sam_each", "adamw", "gradient_signs", "one_label", "reshuffle", "fresh", "cross", "auto")
GENERAL = [(name, DTYPES[(k + 1) % 2], team) for k, (name, team) in enumerate(BLOCKS.items())]  # a block a network
GENERAL += [(name, DTYPES[k % 2], 1) for k, (name, team) in enumerate(BLOCKS.items())
            if team and team > 1 and (name in FAMILIES or name.startswith(ALONE))]  # a thread: nearer to the CPU's text


def everything(result):
    kept = None if result.saved_weights is None else result.saved_weights.tobytes()
    return bits(result), kept


@pytest.mark.parametrize(("model", "rule", "dtype", "team"), some(FUSED, 5))
def test_fused_loop_has_the_bits_of_the_cpu(model, rule, dtype, team):
    run = request(model, rule, dtype)
    want = fs.train(run.replace(backend="cpu"))
    assert everything(fs.train(run.replace(backend="cuda"), tuning=fs.Tuning(team=team))) == everything(want)


@pytest.mark.parametrize(("name", "dtype", "team"), some(GENERAL, 5, 4))  # of rules and losses the text is the CPU's
def test_general_loop_has_the_bits_of_the_cpu(name, dtype, team):
    want = everything(fs.train(general(name, dtype, backend="cpu")))
    assert everything(fs.train(general(name, dtype, backend="cuda"), tuning=fs.Tuning(team=team))) == want


def at_once(monkeypatch, networks):
    """Let only so many networks run at a time."""
    choose = layout.choose
    monkeypatch.setattr(layout, "choose", lambda *given: replace(choose(*given), at_once=networks))


@pytest.mark.parametrize(("name", "team"), [("normalised_relu2", 1), ("reshuffle_net", 1), ("sam_two_outputs", 64)])
def test_who_is_done_with_a_network_takes_another(monkeypatch, name, team):
    run = general(name, "float32", networks=70, step_size=0.05)
    want = everything(fs.train(run.replace(backend="cpu")))
    at_once(monkeypatch, 32 if team == 1 else 3)
    assert everything(fs.train(run.replace(backend="cuda"), tuning=fs.Tuning(team=team))) == want


class Hopper:
    """What the choice of a program asks of a card."""

    name, arch, processors, shared = "Hopper", "sm_90", 132, 227 << 10

    @staticmethod
    def free():
        return 70 << 30


@pytest.mark.parametrize(("model", "threads", "blocks", "word"), [
    (fs.models.DiagonalLinear(5), 1, 12, "12 block(s) a multiprocessor"),
    (fs.models.DiagonalLinear(30), 1, 2, "2 block(s) a multiprocessor"),
    (fs.models.ReLU2(2, 20), 1, 1, "1 block(s) a multiprocessor"),
    (fs.models.MLP(2, (20, 20)), 32, None, "more than the first-level cache"),
    (fs.models.ReLU2(10, 100), 128, None, "more than the first-level cache")])
def test_rows_of_threads_fit_the_first_cache(model, threads, blocks, word):
    data = fs.Dataset(np.ones((9, model.d), np.float32), np.ones(9, np.float32))
    rule = fs.rules.SGD(momentum=0.5, batch_size=2, clip_norm=9.0)
    run = fs.Run(model, data, rule, 0.1, 10, networks=10**6)
    chosen = layout.choose(Work(run), 10**6, Hopper, fs.Tuning())
    assert word in chosen.why and chosen.lanes == threads, chosen.why
    assert chosen.threads(10**6) == (132 * blocks * 128 if blocks else 10**6 * threads)
    assert chosen.threads(100) == 100 * threads


@pytest.mark.skipif(REAL, reason="threads of a card go in no order")
@pytest.mark.parametrize(("name", "team"), some([
    ("everything_relu2", 64), ("sam_each_relu2", 32), ("fresh_sparse", 64),
    ("mlp_two_outputs", 32), ("product_3", 32), ("power_3", 64), ("gradient_signs_relu2", 64),
    ("everything_diagonal", 32), ("muon_net", 32), ("muon_relu2", 64), ("each_relu2", 32), ("near_point_relu2", 64),
    ("ragged_sam", 32), ("clip_relu2", 32)]))
def test_no_barrier_is_missing(fiber_card, monkeypatch, name, team):
    """Fibers run as far ahead as they can, first to last and last to first: a missing barrier shows in one of them.

    Two blocks take one network after another.
    """
    at_once(monkeypatch, 2)
    want = everything(fs.train(general(name, "float32", backend="cpu")))
    for backwards in (False, True):
        with fibers.in_place(fibers.FiberCard(fiber_card.folder, backwards=backwards)):
            got = fs.train(general(name, "float32", backend="cuda"), tuning=fs.Tuning(team=team, segment=4))
        assert everything(got) == want, backwards


def wide(n=7, d=3, model=None, **fields):
    rng = np.random.default_rng(2)
    data = fs.Dataset(rng.standard_normal((n, d)).astype("f4"), rng.standard_normal(n).astype("f4"))
    return fs.Run(model or fs.models.ReLU2(d, 5), data, **({"rule": fs.rules.SGD(), "step_size": 0.01 / d, "steps": 6,
                                                           "networks": 3, "seed": 5} | fields))


@pytest.mark.parametrize(("run", "word"), [
    (wide(d=9000, model=fs.models.DiagonalLinear(9000)), "local memory"),
    (wide(d=20, model=fs.models.ReLU2(20, 1500), rule=fs.rules.SGD(batch_size=2)), "local memory"),
    (wide(d=20, model=fs.models.ReLU2(20, 1500), rule=fs.rules.SGD(momentum=0.5, batch_size=2)), "local memory"),
    (wide(d=70, model=fs.models.ReLU2(70, 40)), "staged"), (wide(n=6000), "through the caches"),
    (wide(n=6000, rule=fs.rules.SGD(momentum=0.5, clip_norm=9.0)), "through the caches"),
    (wide(rule=fs.rules.SGD(label_noise=0.1)).replace(
        data=fs.data.Fresh(D, TEACHER, TAUGHT).astype("float32"), model=RELU), "on the way")],
    ids=["rolled", "rolled batches", "rolled rule", "inputs not held", "data not staged", "general not staged",
         "fresh"])
def test_shapes_that_do_not_fit_have_the_same_bits(run, word):
    plan = fs.plan(run.replace(backend="cuda"))
    assert word in plan.explain()
    assert everything(fs.train(plan)) == everything(fs.train(run.replace(backend="cpu")))


def test_segments_and_members_have_the_same_bits():
    for run in (request("diagonal_13", "sgd", "float32", 301), general("everything_relu2", "float32")):
        whole = fs.train(run.replace(backend="cuda"))
        for segment in (1, 7):
            assert everything(fs.train(run.replace(backend="cuda"), tuning=fs.Tuning(segment=segment))) == everything(
                whole)
        part = fs.train(run.replace(backend="cuda", ids=[4, 1]))
        assert part.weights.tobytes() == whole.weights[[4, 1]].tobytes()


@pytest.mark.skipif(REAL, reason="needs cards of chosen memory")
@pytest.mark.parametrize("name", ["everything_relu2", "reshuffle_net", "stream", "replay_net", "adam_diagonal"])
def test_waves_and_several_cards_have_the_same_bits(fiber_card, name):
    run, tuning = general(name, "float32"), fs.Tuning(team=1)
    want = everything(fs.train(run.replace(backend="cpu")))
    need = layout.choose(Work(run), 1, fiber_card, tuning)

    def small(cards):
        """A card with budget for three networks, where so many cards share them."""
        card, share = fibers.FiberCard(fiber_card.folder, 0), -(-len(want[0][1]) // 8 // cards)
        for _ in range(9):  # what metrics take depends on the card's memory
            metrics = budget(Work(run), share, card)
            fixed = need.data_bytes + max(need.local, metrics.local) + metrics.reserved.total
            card.memory = (fixed + 3 * need.network_bytes) / USABLE + 10
        return card

    for here, chunks in (([small(1)], 4), ([small(2), small(2)], 2), ([fiber_card, small(2)], 2)):
        with fibers.in_place(*here):
            plan = fs.plan(run.replace(backend="cuda", device="cuda:0,1" if len(here) > 1 else None), tuning)
            assert f"in {chunks} chunk(s)" in plan.explain(), plan.explain()
            assert everything(fs.train(plan)) == want
            assert all(one.launches for one in here)
    with fibers.in_place(fibers.FiberCard(fiber_card.folder, 100)), pytest.raises(fs.PlanError, match="a network"):
        fs.plan(run.replace(backend="cuda"))


class Counting(fibers.FiberCard):
    """A card that knows how many bytes its arrays take, and what they took at most."""

    held = most = 0

    def counted(self, array):
        size = int(np.prod(array.shape)) * array.dtype.itemsize
        self.held += size
        self.most = max(self.most, self.held)
        weakref.finalize(array, self.released, size)
        return array

    def released(self, size):
        self.held -= size

    def put(self, array):
        return self.counted(super().put(array))

    def empty(self, shape, dtype):
        return self.counted(super().empty(shape, dtype))


@pytest.mark.skipif(REAL, reason="needs cards of chosen memory")
@pytest.mark.parametrize(("name", "memory", "local"), [
    ("relu2_2_20_plain", 24 << 10, False), ("relu2_2_20_plain", 1 << 20, False), ("diagonal_13", 64 << 20, True)])
def test_what_a_plan_foresees_is_what_a_run_takes(fiber_card, name, memory, local):
    """Networks, data, metrics and the local memory of threads together stay below the card's memory."""
    metrics = [fs.metrics.TrainLoss(), fs.metrics.JacobianRank(points=np.eye(MODELS[name].d))]
    run = request(name, "sgd", "float32", 20, N=70, metrics=metrics)
    card = Counting(fiber_card.folder, memory)
    with fibers.in_place(card):
        plan = fs.plan(run.replace(backend="cuda"))
        text = plan.explain()
        assert text.count("on the card: ") == 2 and ("local memory" in text) == local, text
        got = fs.train(plan)
    foreseen = budget(Work(run), 70, card)
    assert everything(got) == everything(fs.train(run.replace(backend="cpu")))
    assert (foreseen.local > 0) == local and 0 < foreseen.at_once <= memory / 4
    assert card.most + foreseen.local <= memory and card.most > 0.1 * min(memory, 1 << 17)


@pytest.mark.skipif(REAL, reason="needs cards of chosen memory")
def test_metrics_that_a_card_has_no_memory_for_are_left_to_the_host(fiber_card):
    """A count of a diagonal network keeps its vectors in local memory, for all threads that the card could run."""
    metrics = [fs.metrics.JacobianRank(1e-9, np.eye(13)), fs.metrics.ParameterNorm()]
    run = request("diagonal_13", "sgd", "float32", 20, metrics=metrics)
    with fibers.in_place(fibers.FiberCard(fiber_card.folder, 1 << 20)):
        plan = fs.plan(run.replace(backend="cuda"))
        assert "rank, on the host: it needs" in plan.explain() and "norm on the card" in plan.explain()
        assert everything(fs.train(plan)) == everything(fs.train(run.replace(backend="cpu")))


@pytest.mark.skipif(REAL, reason="needs cards of chosen memory")
def test_local_memory_that_does_not_fit(fiber_card):
    """Rows of all threads of a card: a block a network instead, or a refusal where a thread was asked for."""
    run = general({"model": RELU, "rule": fs.rules.SGD(momentum=0.5, clip_norm=9.0)}, backend="cuda")
    with fibers.in_place(fibers.FiberCard(fiber_card.folder, 1 << 20)):
        assert "32 thread(s) a network, local memory for all threads would be" in fs.plan(run).explain()
        assert everything(fs.train(run)) == everything(fs.train(run.replace(backend="cpu")))
        with pytest.raises(fs.PlanError, match="local memory"):
            fs.plan(run, fs.Tuning(team=1))


@pytest.mark.parametrize("model", ["diagonal_13", "relu2_7_70"])
def test_lost_networks_are_frozen_and_leave_the_next_launch(a_card, model):
    run = request(model, "sgd", "float32", 300, step_size=np.geomspace(0.01, 30.0, 19))
    want = fs.train(run.replace(backend="cpu"))
    assert 3 < (want.lost >= 0).sum() < 19
    for team in teams(model):
        tuning = fs.Tuning(segment=20, team=team)
        assert everything(fs.train(run.replace(backend="cuda"), tuning=tuning)) == everything(want)
        if not REAL:
            trained = [count for name, count in a_card.launches if name.startswith(("diagonal", "relu2"))]
            assert trained[-1] == want.survived.sum() * team


def test_every_checkpoint_resumes_to_the_same_bits(tmp_path):
    run, seen = request("diagonal_13", "minibatch", "float32", backend="cuda"), []
    want = everything(fs.train(run, tuning=fs.Tuning(segment=9)))

    def stop(t, T, lost):
        seen.append(t)
        if t > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fs.train(run, checkpoint=tmp_path / "c", progress=stop, tuning=fs.Tuning(segment=9))
    assert everything(fs.resume(tmp_path / "c")) == want
    assert everything(fs.resume(tmp_path / "c", backend="cpu")) == want, "and on another backend"


def test_what_explain_says():
    text = fs.plan(request("diagonal_30", "sgd", "float32", backend="cuda")).explain()
    for word in ("backend: cuda", "lane(s) a network", "registers a thread", "staged in", "128 threads a block",
                 "1 chunk(s)"):
        assert word in text, text
    text = fs.plan(general("momentum_relu2", "float32", backend="cuda")).explain()
    assert "lane(s) a network" in text and ", carries" in text
    text = fs.plan(general("clip_relu2", "float32", backend="cuda")).explain()
    assert "the general loop, 1 thread(s) a network" in text and "local memory" in text


@pytest.mark.parametrize(("tuning", "why"), [
    (fs.Tuning(lanes=8), "tuning.lanes"), (fs.Tuning(isa="v3"), "tuning.isa"), (fs.Tuning(team=3), "1, 2, 4, 8"),
    (fs.Tuning(team=16), "1, 2, 4, 8")])
def test_tuning_that_is_not_possible(tuning, why):
    with pytest.raises(fs.PlanError, match=why):
        fs.plan(request("diagonal_30", backend="cuda"), tuning)


def test_the_general_loop_has_a_thread_or_a_block_for_a_network():
    run = general({"model": RELU, "rule": fs.rules.SGD(momentum=0.5, clip_norm=9.0)}, backend="cuda")
    with pytest.raises(fs.PlanError, match="a thread a network"):
        fs.plan(run, fs.Tuning(team=2))
    large = general({"model": fs.models.MLP(D, (200, 200))}, backend="cuda")
    with pytest.raises(fs.PlanError, match="up to 64 KiB of rows, here 334"):
        fs.plan(large, fs.Tuning(team=1))


@pytest.mark.parametrize(("widths", "rule", "word"), [
    ((70, 60), fs.rules.SGD(momentum=0.5), "shared memory a block"),
    ((150, 90), fs.rules.GD(momentum=0.5), "too much to share")])
def test_wide_networks_have_a_block_each(widths, rule, word):
    run = general({"model": fs.models.MLP(D, widths, activation="tanh"), "rule": rule}, backend="cuda", networks=3,
                  step_size=0.01, steps=4)
    assert word in fs.plan(run).explain(), fs.plan(run).explain()
    assert everything(fs.train(run)) == everything(fs.train(run.replace(backend="cpu")))


def test_two_runs_at_once_do_not_see_each_other():
    asked = [request("relu2_3_21", "sgd", "float32", backend="cuda"),
             general("everything_relu2", "float32", backend="cuda")]
    alone = [everything(fs.train(run)) for run in asked]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda run: everything(fs.train(run, tuning=fs.Tuning(segment=3))), asked * 4))
    assert together == alone * 4


def test_results_say_which_device_computed_them():
    run = request("diagonal_13", backend="cuda")
    for device, first in ((None, "cuda"), ("cuda:0", "cuda:0")):
        result = fs.train(run.replace(device=device))
        assert result.provenance["device"] == first and result["train_loss"].device.type == ("cuda" if REAL else "cpu")
    assert fs.train(run.replace(backend="cpu")).provenance["device"] == "cpu"


@pytest.mark.parametrize(("change", "error"), [
    ({"device": "cpu"}, fs.PlanError), ({"dtype": "float32"}, fs.PlanError), ({"dtype": "bfloat16"}, fs.SpecError)])
def test_wrong_devices_and_dtypes_are_refused(change, error):
    with pytest.raises(error, match=next(iter(change)) if "device" in change else "dtype"):
        fs.plan(request("diagonal_13", backend="cuda").replace(**change))


def test_arrays_of_any_layout_are_copied_not_written_to():
    run = request("relu2_3_21", "sgd", "float32", backend="cuda")
    start = run.model.unflatten(fs.plan(run).start)
    view = {name: np.asfortranarray(a) for name, a in start.items()}
    view["W1"] = np.broadcast_to(view["W1"][:1], view["W1"].shape)  # every network's is the same memory
    kept = {name: a.copy() for name, a in view.items()}
    ours, theirs = (everything(fs.train(run.replace(init=view, backend=name))) for name in ("cuda", "cpu"))
    assert ours == theirs and all((view[name] == kept[name]).all() for name in view)


@pytest.mark.skipif(REAL, reason="a card of fibers counts what goes to and fro")
@pytest.mark.parametrize("name", ["diagonal_13", "relu2_7_70"])
def test_between_launches_the_host_touches_nothing_of_the_networks(fiber_card, monkeypatch, name):
    """Flags and who is left stay on the card, also where samples are out of bounds: a launch moves its tables alone."""
    moved, put, get, launch = [], fibers.FiberCard.put, fibers.Array.get, fibers.FiberCard.launch

    def noted(kind, call):
        def inner(self, *given):
            out = call(self, *given)
            moved.append((kind, 0 if out is None else out.nbytes if kind == "get" else out.array.nbytes))
            return out
        return inner

    monkeypatch.setattr(fibers.FiberCard, "put", noted("put", put))
    monkeypatch.setattr(fibers.Array, "get", noted("get", get))
    monkeypatch.setattr(fibers.FiberCard, "launch", noted("launch", launch))
    run = request(name, "sgd", "float32", 60, step_size=np.geomspace(0.01, 3.0, 300), metrics=(), backend="cuda")
    run = run.replace(rule=fs.rules.SGD(lost_above=1e3), save=fs.SaveAt(steps=[60]))
    result = fs.train(run, tuning=fs.Tuning(segment=10))
    assert 0 < (result.lost >= 0).sum() < 300
    launches = [k for k, (kind, _) in enumerate(moved) if kind == "launch"]
    between = [size for kind, size in moved[launches[0]:launches[-1]] if kind != "launch"]
    assert len(launches) >= 6 and max(between) <= 10 * 8, "as many bytes as a launch has steps"
