"""Learning rates of torch optimizers are fastsgd's own step sizes to the bit, and the paper's for deep networks."""

import io
import warnings

import numpy as np
import pytest
import torch

import fastsgd as fs
from fastsgd.lr_schedulers import DeepNetLR, FromStepSize

T = 200


def optimizer(groups=1, lr=0.5):
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(2))]} for _ in range(groups)], lr=lr)


def rates(scheduler, steps, start=0):
    """Learning rates [steps, groups] that updates start .. start + steps - 1 take."""
    out = []
    for _ in range(steps):
        out.append([float(group["lr"]) for group in scheduler.optimizer.param_groups])
        assert out[-1] == scheduler.get_last_lr()
        scheduler.optimizer.step()
        scheduler.step()
    return np.array(out)


SCHEDULES = [
    fs.StepSize(0.3), fs.StepSize(0.282, decay_at=0.3, decay_by=3.4, decay_timing="after"),
    fs.StepSize(0.455, decay_at=0.1, decay_by=2), fs.StepSize(0.1, decay_at=1.0, decay_by=3.0),
    fs.StepSize(0.04, decay_at=0.5, decay_by=5, warmup=fs.Warmup(6, power=0.5)),
    fs.StepSize(0.1, decay_at=[[0.25, 0.75]], decay_by=10, warmup=fs.Warmup(3.0, until=0.1)),
    fs.StepSize([0.1, 0.2, 0.3], decay_at=[0.1, 0.3, 0.5], decay_by=[2, 4, 5]),
    fs.StepTable(np.linspace(1, 0, T)), fs.StepTable(np.random.default_rng(0).random((3, T)))]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=range(len(SCHEDULES)))
def test_rates_are_those_that_fastsgd_trains_with(schedule):
    """A run of 3 networks and an optimizer of 3 groups walk through the same numbers."""
    base, row, table = schedule.compile(3, T)
    want = (base[:, None] * table(0, T)[row]).T
    got = rates(FromStepSize(optimizer(3), schedule, T), T)
    assert np.array_equal(got, want)


def test_weights_equal_a_fastsgd_run():
    """Full-batch GD of a diagonal network in float64, once by fastsgd and once by a torch optimizer."""
    data = fs.data.sparse_regression(n=12, d=6, nonzero=2, seed=0)
    size = fs.StepSize(0.05, decay_at=0.5, decay_by=4, decay_timing="after", warmup=fs.Warmup(3.0))
    run = fs.train(fs.models.DiagonalLinear(6), data, rule=fs.rules.GD(), step_size=size, steps=T, dtype="float64",
                   init={"u": np.full(6, 0.5), "v": np.full(6, 0.1)}, backend="reference")
    u, v = (torch.nn.Parameter(torch.full((6,), c, dtype=torch.float64)) for c in (0.5, 0.1))
    sgd = torch.optim.SGD([u, v], lr=1)
    scheduler = FromStepSize(sgd, size, T)
    X, y = torch.from_numpy(np.array(data.X)), torch.from_numpy(np.array(data.y))
    for _ in range(T):
        sgd.zero_grad()
        (0.5 * (X @ (u * v) - y).square().mean()).backward()
        sgd.step()
        scheduler.step()
    for name, w in (("u", u), ("v", v)):
        np.testing.assert_allclose(np.asarray(run.params[name]).reshape(6), w.detach().numpy(), rtol=1e-12)


def test_decay_timings():
    before, after = (rates(FromStepSize(optimizer(), fs.StepSize(1.0, 0.5, 2.0, timing), 10), 10)[:, 0]
                     for timing in ("before", "after"))
    assert before.tolist() == [1.0] * 5 + [0.5] * 5
    assert after.tolist() == [1.0] * 6 + [0.5] * 4


def deep(t, f, a=1.0, F=1.0, T=T):
    """The authors' rule, branch by branch, with eta_0 = 1."""
    s = (t + 1) / T
    if a > 1:
        return a**(s * 100) if s < f else a**(f * 100) / 10 if s < 0.9 else a**(f * 100) / 100
    if a < 1:
        return 1 + (s * 100)**a if s < f else (1 + (f * 100)**a) / (10 if s < 0.9 else 100)
    return np.interp(s, [0, 0.5], [1, F]) if s < f else f / 0.5 * F / (10 if s < 0.9 else 100)


@pytest.mark.parametrize("f", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("warmup", [{}, {"warmup_base": 1.05}, {"warmup_base": 0.5}, {"warmup_factor": 5.0}])
def test_deep_net_schedules(f, warmup):
    got = rates(DeepNetLR(optimizer(2, lr=0.75), T, f, **warmup), T)
    want = 0.75 * np.array([deep(t, f, warmup.get("warmup_base", 1), warmup.get("warmup_factor", 1)) for t in range(T)])
    np.testing.assert_allclose(got, np.stack([want, want], axis=1), rtol=1e-14)


def test_state_of_the_art_branch_in_numbers():
    """eta_0 = 0.05 over 100 updates: 0.05, then eta_0/50, 0.06 eta_0, eta_0/10, a tenth of it from 90 % on."""
    for f, after in ((0.1, 1 / 50), (0.3, 0.06), (0.5, 0.1)):
        got = rates(DeepNetLR(optimizer(lr=0.05), 100, f), 100)[:, 0]
        first = int(100 * f) - 1  # s = f there
        np.testing.assert_allclose(got[[0, first - 1, first, 88, 89, 99]] / 0.05,
                                   [1, 1, after, after, after / 10, after / 10], rtol=1e-14)


MAKERS = {
    "step size": lambda o: FromStepSize(o, fs.StepSize([0.1, 0.7], 0.6, 5.0, "after", fs.Warmup(4.0)), T),
    "table": lambda o: FromStepSize(o, fs.StepTable(np.linspace(1, 0.1, T))),
    "deep": lambda o: DeepNetLR(o, T, 0.3, warmup_base=1.05)}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_resume_from_saved_states(make):
    whole = rates(make(optimizer(2)), T)
    scheduler = make(optimizer(2))
    first = rates(scheduler, 77)
    file = io.BytesIO()
    torch.save({"optimizer": scheduler.optimizer.state_dict(), "scheduler": scheduler.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    again = make(optimizer(2))
    again.optimizer.load_state_dict(state["optimizer"])
    again.load_state_dict(state["scheduler"])
    assert again.last_epoch == 77
    assert np.array_equal(np.concatenate([first, rates(again, T - 77)]), whole)


def test_resume_by_last_epoch():
    whole = rates(DeepNetLR(optimizer(), T, 0.3), T)
    other = optimizer()
    other.param_groups[0]["initial_lr"] = 0.5
    assert np.array_equal(rates(DeepNetLR(other, T, 0.3, last_epoch=49), T - 50), whole[50:])


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_past_the_end_the_last_value_stays_and_nothing_warns(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = rates(make(optimizer(2)), T + 20)
    assert (got[T:] == got[T - 1]).all()


def test_tensor_learning_rates_are_filled_in_place():
    lr = torch.tensor(0.5, dtype=torch.float64)
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=lr)
    scheduler = FromStepSize(other, fs.StepSize(0.3, 0.5, 3.0), 4)
    for _ in range(3):
        other.step()
        scheduler.step()
    assert other.param_groups[0]["lr"] is lr and float(lr) == 0.3 / 3.0


def test_refusals():
    for make, field in ((lambda: FromStepSize(optimizer(), fs.StepSize(0.1)), "steps"),
                        (lambda: FromStepSize(optimizer(), -0.1, T), "step_size"),
                        (lambda: FromStepSize(optimizer(), 0.1, 0), "steps"),
                        (lambda: DeepNetLR(optimizer(), 0, 0.5), "steps"),
                        (lambda: DeepNetLR(optimizer(), T, 0.0), "decay_at"),
                        (lambda: DeepNetLR(optimizer(), T, 50), "decay_at"),
                        (lambda: DeepNetLR(optimizer(), T, 0.5, warmup_base=0), "warmup_base"),
                        (lambda: DeepNetLR(optimizer(), T, 0.5, warmup_factor=float("inf")), "warmup_factor"),
                        (lambda: DeepNetLR(optimizer(), T, 0.5, 1.05, 2.0), "warmup_factor")):
        with pytest.raises(fs.SpecError, match=field):
            make()
    with pytest.raises(fs.PlanError, match="given for 3, the optimizer has 2 parameter groups"):
        FromStepSize(optimizer(2), fs.StepSize([0.1, 0.2, 0.3]), T)
    with pytest.raises(fs.PlanError, match="table of 200"):
        FromStepSize(optimizer(), fs.StepTable(np.ones(T)), T + 1)
    with pytest.raises(fs.PlanError, match="100 steps, this one has 200"):
        DeepNetLR(optimizer(), T, 0.5).load_state_dict(DeepNetLR(optimizer(), 100, 0.5).state_dict())


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("order", [
    "schedule last", "optimizer last", "optimizer before the schedule", "schedule alone"])
@pytest.mark.parametrize("lr", [0.5, 3.0])
def test_resume_in_any_order_and_from_any_learning_rate(make, order, lr):
    """The state carries base rates, and loading it sets the optimizer's learning rates."""
    whole = rates(make(optimizer(2)), T)
    scheduler = make(optimizer(2))
    rates(scheduler, 120)
    saved, state = scheduler.optimizer.state_dict(), scheduler.state_dict()
    other = optimizer(2, lr)
    if order == "optimizer before the schedule":
        other.load_state_dict(saved)
    again = make(other)
    if order == "schedule last":
        other.load_state_dict(saved)
    again.load_state_dict(state)
    if order == "optimizer last":
        other.load_state_dict(saved)
    assert np.array_equal(rates(again, T - 120), whole[120:])


@pytest.mark.parametrize(("saved", "made", "message"), [
    (lambda o: DeepNetLR(o, T, 0.5), lambda o: DeepNetLR(o, T, 0.1), "decay_at 0.5, this one has decay_at 0.1"),
    (lambda o: DeepNetLR(o, T, 0.5), lambda o: DeepNetLR(o, T, 0.5, 1.05), "warmup_base 1.0, this one"),
    (lambda o: DeepNetLR(o, T, 0.5), lambda o: DeepNetLR(o, T, 0.5, 1, 2.0), "warmup_factor 1.0, this one"),
    (lambda o: DeepNetLR(o, T, 0.5), lambda o: FromStepSize(o, 0.1, T), "kind DeepNetLR, this one has kind FromSt"),
    (lambda o: FromStepSize(o, 0.1, T), lambda o: FromStepSize(o, 0.2, T), "rates .* this one has rates"),
    (lambda o: FromStepSize(o, fs.StepSize(0.1, 0.5, 2.0), T),
     lambda o: FromStepSize(o, fs.StepSize(0.1, 0.5, 2.0, "after"), T), "rates .* this one has rates"),
    (lambda o: FromStepSize(o, fs.StepTable(np.ones(T))), lambda o: FromStepSize(o, fs.StepTable(np.ones(T) * 2)),
     "rates"),
    (lambda o: torch.optim.lr_scheduler.StepLR(o, 3), lambda o: DeepNetLR(o, T, 0.5), "kind None")])
def test_a_state_of_another_schedule_is_refused(saved, made, message):
    scheduler = made(optimizer(2))
    with pytest.raises(fs.PlanError, match=message):
        scheduler.load_state_dict(saved(optimizer(2)).state_dict())
    assert np.array_equal(rates(scheduler, T), rates(made(optimizer(2)), T)), "a refusal changes nothing"
    with pytest.raises(fs.PlanError, match="2 parameter groups, this one has 3 parameter groups"):
        DeepNetLR(optimizer(3), T, 0.5).load_state_dict(DeepNetLR(optimizer(2), T, 0.5).state_dict())


def test_another_schedule_on_one_optimizer_starts_from_its_learning_rates_of_then():
    other = optimizer(lr=1.0)
    rates(DeepNetLR(other, 20, 0.5), 20)
    other.param_groups[0]["lr"] = 2.0
    assert rates(DeepNetLR(other, 20, 0.5), 1)[0, 0] == 2.0
    for before in (lambda o: DeepNetLR(o, 20, 0.5, 1.05), lambda o: FromStepSize(o, 0.3, 20)):
        fresh = optimizer(lr=1.0)
        before(fresh)
        fresh.param_groups[0]["lr"] = 2.0  # by hand, before any update
        assert DeepNetLR(fresh, 20, 0.5).get_last_lr() == [2.0]
    fresh = optimizer(lr=1.0)
    for _ in range(3):  # made again and again: what a schedule wrote itself is no new start
        scheduler = DeepNetLR(fresh, 20, 0.5, warmup_base=1.05)
    assert scheduler.base_lrs == [1.0]
    loaded = optimizer(lr=5.0)  # a checkpoint's optimizer gets a new phase
    loaded.load_state_dict(other.state_dict())
    loaded.param_groups[0]["lr"] = 4.0
    assert DeepNetLR(loaded, 20, 0.5).get_last_lr() == [4.0]


def test_schedules_of_torch_before_after_and_on_top():
    chain, exponential, linear, sequential = (getattr(torch.optim.lr_scheduler, name) for name in (
        "ChainedScheduler", "ExponentialLR", "LinearLR", "SequentialLR"))

    def walk(scheduler, other, steps):
        out = []
        for _ in range(steps):
            out.append(other.param_groups[0]["lr"])
            other.step()
            scheduler.step()
        return out

    alone = rates(DeepNetLR(optimizer(lr=1.0), T, 0.5, 1.05), T)[:, 0]
    for ours_first in (True, False):
        other = optimizer(lr=1.0)
        makers = [lambda: DeepNetLR(other, T, 0.5, 1.05), lambda: exponential(other, 0.9)]  # noqa: B023
        both = [make() for make in (makers if ours_first else makers[::-1])]
        got = walk(chain(both), other, T)
        np.testing.assert_allclose(got, alone * 0.9 ** np.arange(T), rtol=1e-12)
    other = optimizer(lr=1.0)
    warm = linear(other, 0.1, total_iters=5)
    got = walk(sequential(other, [warm, DeepNetLR(other, T, 0.5)], [5]), other, 150)
    np.testing.assert_allclose(got[:6], [0.1, 0.28, 0.46, 0.64, 0.82, 1.0], rtol=1e-12)
    assert got[5:] == rates(DeepNetLR(optimizer(lr=1.0), T, 0.5), 145)[:, 0].tolist()
    other = optimizer(lr=1.0)
    first = DeepNetLR(other, T, 0.5, 1.05)
    assert walk(sequential(other, [first, exponential(other, 0.9)], [50]), other, 50) == alone[:50].tolist()
    other = optimizer(lr=1.0)
    scheduler = DeepNetLR(other, T, 0.5)
    rates(scheduler, 3)
    other.param_groups[0]["lr"] *= 0.25  # by hand: stays as a factor
    other.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.25]
    again = DeepNetLR(optimizer(lr=1.0), T, 0.5)
    again.load_state_dict(scheduler.state_dict())
    assert again.get_last_lr() == [0.25]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_step_an_epoch_is_caught(make):
    """The schedule's steps are updates: its large step would never end, and nobody would notice."""
    scheduler = make(optimizer(2))
    for _ in range(2):
        scheduler.optimizer.step()
    with pytest.raises(fs.PlanError, match=r"made 2 updates since the last step.*len\(loader\)"):
        scheduler.step()
    other = optimizer(2)
    make(other)  # made and forgotten: it counts no more
    scheduler = make(other)
    rates(scheduler, 3)
    for _ in range(3):
        scheduler.step()  # a GradScaler skips updates
    rates(scheduler, 3)
    assert len(other._optimizer_step_post_hooks) == 1


def test_groups_of_one_schedule_share_its_memory():
    scheduler = FromStepSize(optimizer(62), fs.StepSize(np.linspace(0.1, 1, 62), 0.5, 2.0), 10_000)
    arrays = [value for value in vars(scheduler).values() if isinstance(value, np.ndarray)]
    held = sum(value.nbytes for value in arrays if value.base is None)
    assert held < 2 * 8 * 10_000, "one row of the table, not 62"
    assert FromStepSize(optimizer(2), fs.StepTable(np.ones((2, 50))))._rates.shape == (2, 50)
