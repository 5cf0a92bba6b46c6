"""Owns the paper's step-size schedules for torch optimizers. Importing it imports torch."""

import hashlib
import weakref
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LRScheduler

from .errors import PlanError, SpecError
from .spec.check import real, whole
from .spec.schedule import StepSize, StepTable

__all__ = ["DeepNetLR", "FromStepSize"]

_WRITTEN = weakref.WeakKeyDictionary()  # optimizer -> learning rates that a schedule of ours wrote last


class _Scheduled(LRScheduler):
    """A schedule of T steps, one `step()` an update, that stays at its last value.

    Its state holds where it is, its base rates and which schedule it is. A learning rate that is changed between two
    steps, by a chained schedule or by hand, stays changed by that factor.
    """

    def __init__(self, optimizer: Any, steps: int, last_epoch: int) -> None:
        self.steps = steps
        self._updates = 0  # of the optimizer since the last step
        self._factors = [1.0] * len(optimizer.param_groups)  # put on the rates from outside
        if last_epoch == -1:
            _forget_earlier_schedules(optimizer)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = [float(base) for base in self.base_lrs]
        _count_updates(optimizer, self)

    @property
    def _t(self):
        return min(self.last_epoch, self.steps - 1)

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next update. Raises PlanError if the optimizer made several since the last call."""
        if self._updates > 1 and epoch is None:
            raise PlanError(
                f"{type(self).__name__}: the optimizer made {self._updates} updates since the last step() of its "
                "schedule, whose steps are updates, not epochs; call step() after each update (Lightning: interval="
                "'step'), and give steps = epochs * len(loader)")
        if self._step_count:
            self._take_over()
        super().step(epoch)
        _WRITTEN[self.optimizer] = self._last_lr

    def get_lr(self) -> list:
        """Learning rate of each parameter group at this update."""
        self._updates = 0
        return [rate * factor for rate, factor in zip(self._own_rates(), self._factors, strict=True)]

    def state_dict(self) -> dict:
        """Where the schedule is, its base rates and which schedule it is: plain numbers and text."""
        return {"kind": type(self).__name__, "schedule": self._schedule(), "base_lrs": list(self.base_lrs),
                "last_epoch": self.last_epoch, "_step_count": self._step_count, "factors": list(self._factors)}

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on at the saved step, with the saved base rates; the optimizer's learning rates are set to it.

        Raises PlanError for the state of another schedule, or of another number of parameter groups.
        """
        own = {"kind": type(self).__name__, **self._schedule(), "parameter groups": len(self.optimizer.param_groups)}
        given = {"kind": state_dict.get("kind"), **state_dict.get("schedule", {}),
                 "parameter groups": len(state_dict.get("base_lrs", ()))}
        for field, value in own.items():
            if given.get(field) != value:
                raise PlanError(
                    f"{own['kind']}: the state is of a schedule with {_said(field, given.get(field))}, this one has "
                    f"{_said(field, value)}; make the schedule that was saved, then load its state")
        self.base_lrs, self._factors = list(state_dict["base_lrs"]), list(state_dict["factors"])
        self.last_epoch, self._step_count = state_dict["last_epoch"], state_dict["_step_count"]
        for group, base, rate in zip(self.optimizer.param_groups, self.base_lrs, self.get_lr(), strict=True):
            group["initial_lr"] = base
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._last_lr = _WRITTEN[self.optimizer] = self._now()

    def _take_over(self):
        """Keep as a factor what was done to the learning rates since this schedule wrote them."""
        for k, (now, written) in enumerate(zip(self._now(), self._last_lr, strict=True)):
            on_card = isinstance(now, torch.Tensor) and now.device.type != "cpu"  # reading it would wait for the card
            if not on_card and float(now) != float(written) != 0:
                self._factors[k] *= float(now) / float(written)

    def _now(self):
        return [rate.clone() if isinstance(rate, torch.Tensor) else rate
                for rate in (group["lr"] for group in self.optimizer.param_groups)]


def _forget_earlier_schedules(optimizer):
    """Make the learning rates that the groups have now the ones that a new schedule starts from.

    torch keeps those of the first schedule. That stays so only while schedules are put together, as in SequentialLR:
    before any update, for a rate that a schedule wrote.
    """
    written = _WRITTEN.get(optimizer, ())
    waiting = hasattr(optimizer.step, "_wrapped_by_lr_sched") and not getattr(optimizer, "_opt_called", False)
    for k, group in enumerate(optimizer.param_groups):
        by_hand = k < len(written) and float(group["lr"]) != float(written[k])
        if by_hand or not waiting:
            group.pop("initial_lr", None)


def _count_updates(optimizer, schedule):
    """Let `schedule` know of each update, for as long as it lives."""
    owner = weakref.ref(schedule)

    def count(optimizer, args, kwargs):
        if (alive := owner()) is not None:
            alive._updates += 1

    weakref.finalize(schedule, optimizer.register_step_post_hook(count).remove)


def _said(field, value):
    return f"{value} {field}" if field in ("steps", "parameter groups") else f"{field} {value}"


class FromStepSize(_Scheduled):
    """The learning rates of a StepSize: group k of the optimizer has base[k] * multiplier[k, t] at update t.

    The very float64 numbers that fastsgd trains with, so constant steps, divisions under both timing conventions and
    warm-ups agree to the bit. The learning rates given to the optimizer are not used. From update `steps` on the last
    value stays.

    optimizer: a torch optimizer
    step_size: number, fs.StepSize, or fs.StepTable; fields of length N give one value to each of the N parameter groups
    steps: T >= 1, the number of updates that the schedule's fractions refer to; for a StepTable its own length
    last_epoch: updates done before, minus one; -1 for a new run
    Raises SpecError for a field outside its range, PlanError for lengths that do not fit the optimizer.
    """

    def __init__(self, optimizer: Any, step_size: Any, steps: int | None = None, last_epoch: int = -1) -> None:
        if not isinstance(step_size, (StepSize, StepTable)):
            step_size = StepSize(step_size)
        if isinstance(step_size, StepTable):
            if steps not in (None, step_size.steps):
                raise PlanError(f"FromStepSize: {steps} steps and a table of {step_size.steps}")
            steps = step_size.steps
        steps = whole(steps, "FromStepSize.steps", 1)
        groups = len(optimizer.param_groups)
        for field, length in step_size.lengths().items():
            if length not in (1, groups):
                raise PlanError(f"{field}: given for {length}, the optimizer has {groups} parameter groups")
        self._base, self._row, table = step_size.compile(groups, steps)
        self._rates = table(0, steps)  # [distinct schedules, T] over base; at once: numpy rounds a lone power otherwise
        super().__init__(optimizer, steps, last_epoch)

    def _own_rates(self):
        return (self._base * self._rates[self._row, self._t]).tolist()

    def _schedule(self):
        digest = hashlib.sha256(self._rates.tobytes())
        for part in (self._base.astype(float), self._row.astype(np.int64)):
            digest.update(part.tobytes())
        return {"steps": self.steps, "rates": digest.hexdigest()[:16]}


class DeepNetLR(_Scheduled):
    """The schedules of the paper's deep networks, as factors of the learning rates given to the optimizer.

    At update t, with s = (t + 1) / T the fraction of the run done after it, f = decay_at and a = warmup_base:
        a > 1:  a^(100 s) while s < f, then a^(100 f) / 10
        a < 1:  1 + (100 s)^a while s < f, then (1 + (100 f)^a) / 10
        a = 1:  1 + 2 (F - 1) min(s, 1/2) while s < f, then 2 f F / 10, so that the step after the decay grows with f
    and from s = 0.9 on a tenth of that, the last value for good. a = 1 and F = 1 are the "state of the art" runs.
    Source: the authors' code, tml-epfl/sgd-sparse-features, deep_nets/utils_train.py.

    optimizer: a torch optimizer; the learning rates that it has when the schedule is made are eta_0
    steps: T >= 1, number of updates (epochs times batches)
    decay_at: f in (0, 1]; the paper's are 0.1, 0.3 and 0.5. From f = 0.9 on the first division is by 100
    warmup_base: a > 0
    warmup_factor: F > 0, for a = 1 alone
    last_epoch: updates done before, minus one; -1 for a new run
    Raises SpecError for a field outside its range.
    """

    def __init__(self, optimizer: Any, steps: int, decay_at: float, warmup_base: float = 1.0,
                 warmup_factor: float = 1.0, last_epoch: int = -1) -> None:
        self.decay_at = real(decay_at, "DeepNetLR.decay_at", 0, low_open=True, high=1)
        self.warmup_base = real(warmup_base, "DeepNetLR.warmup_base", 0, low_open=True, high=np.finfo(float).max)
        self.warmup_factor = real(warmup_factor, "DeepNetLR.warmup_factor", 0, low_open=True, high=np.finfo(float).max)
        if self.warmup_factor != 1 and self.warmup_base != 1:
            raise SpecError("DeepNetLR.warmup_factor: belongs to warmup_base = 1, give one of the two")
        super().__init__(optimizer, whole(steps, "DeepNetLR.steps", 1), last_epoch)

    def factor(self, t: Any) -> float:
        """What the learning rates are multiplied by at update t, 0 <= t < T."""
        s, f, a, F = (t + 1) / self.steps, self.decay_at, self.warmup_base, self.warmup_factor

        def grown(s):
            if a == 1:
                return 1 + 2 * (F - 1) * min(s, 0.5)
            return a**(100 * s) if a > 1 else 1 + (100 * s)**a

        if s < f:
            return grown(s)
        return (2 * f * F if a == 1 else grown(f)) / (10 if s < 0.9 else 100)

    def _own_rates(self):
        return [float(base) * self.factor(self._t) for base in self.base_lrs]

    def _schedule(self):
        return {"steps": self.steps, "decay_at": self.decay_at, "warmup_base": self.warmup_base,
                "warmup_factor": self.warmup_factor}
