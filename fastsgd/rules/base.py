"""Owns what every update rule shares: when a run counts as lost, penalties, noises, averaging."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..spec.check import BELOW_ONE, flag, per_network, real, whole
from ..spec.noise import GradientNoise, LabelNoise, lengths, noise
from ..spec.record import Record
from .penalty import Penalty

PERTURBS = ("none", "batch", "sample")  # SAM: no perturbation, one a step, one a sample


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule(Record, ABC):
    """An update rule. With g the gradient of the mean loss over the step's samples, in this order:

    g <- g + sigma_t z                                        gradient_noise
    g <- g + d penalty(p) / dp                                of a function of your own
    g <- g + weight_decay w                                   the gradient of (weight_decay / 2) ||w||^2
    g <- g + balance_penalty (u (u^2 - v^2), -v (u^2 - v^2))  that of (balance_penalty / 4) sum_j (u_j^2 - v_j^2)^2
    g <- g / ||g||                                            normalised
    w <- w - eta_t g                                          or as the rule says
    a <- average a + (1 - average) w                          weight averaging, from a = w at the start

    lost_above: a run is lost at the first step on which the loss of one of its samples is not finite in the run's
        dtype, or |h(x) - y| (of losses that are not squared: |h(x)|) exceeds this number > 0, or whose update
        would make a weight or a buffer infinite or NaN; it keeps the weights and buffers from before that step
    weight_decay, balance_penalty [] or [N]: >= 0; the latter needs parameters u and v
    normalised: whether the gradient is scaled to length 1 (a zero gradient stays zero)
    label_noise: fs.LabelNoise or its sigma, noise on the labels of the step's samples
    gradient_noise: fs.GradientNoise or its sigma
    penalty: a torch function of one network's parameters {name: tensor} -> [], or a fs.rules.Penalty
    average [] or [N]: in [0, 1), or None for no averaging; `SaveAt(of="average")` measures the average
    """

    # The words of `numbers`, `buffers` and `traits` that a class adds; lowering/contract.py numbers them.
    hypers, carries, flags = ("weight_decay", "balance_penalty", "average"), ("average",), ("normalised",)

    lost_above: float = float("inf")
    weight_decay: float | np.ndarray = 0.0
    balance_penalty: float | np.ndarray = 0.0
    normalised: bool = False
    label_noise: object = None
    gradient_noise: object = None
    average: float | np.ndarray | None = None
    penalty: object = None

    def __post_init__(self):
        put = object.__setattr__
        put(self, "lost_above", real(self.lost_above, "rule.lost_above", 0, low_open=True))
        for name in ("weight_decay", "balance_penalty"):
            put(self, name, per_network(getattr(self, name), f"rule.{name}", 0))
        put(self, "normalised", flag(self.normalised, "rule.normalised"))
        put(self, "label_noise", noise(self.label_noise, "rule.label_noise", LabelNoise))
        put(self, "gradient_noise", noise(self.gradient_noise, "rule.gradient_noise", GradientNoise))
        if self.penalty is not None and not isinstance(self.penalty, Penalty):
            put(self, "penalty", Penalty(self.penalty))
        if self.average is not None:
            put(self, "average", per_network(self.average, "rule.average", 0, high=BELOW_ONE))

    @abstractmethod
    def batch(self, n: int) -> int:
        """Number of samples in one step, of n."""

    whole_run = False  # whether its noise can only be made of the whole run
    full = False  # whether a step takes every sample once

    def numbers(self) -> dict:
        """{name: [] or [N]} of the hyper-parameters in use: one that is 0 for all networks is not."""
        out = {name: getattr(self, name) for name in ("weight_decay", "balance_penalty") if getattr(self, name).any()}
        return out if self.average is None else out | {"average": self.average}

    def buffers(self) -> tuple:
        """Names of the arrays [P] that a network carries from step to step besides its weights."""
        return () if self.average is None else ("average",)

    def traits(self) -> dict:
        """{flag: whether the rule is so}, of its `flags`; and "perturb", one of PERTURBS, where it is not "none"."""
        return {"normalised": self.normalised}

    def move(self, g: Any, w: Any, carried: dict, number: dict, t: int) -> Any:
        """What a step goes along, w <- w - eta move, of the gradient g after all that is added to it.

        g, w: tensors [N, P]; carried {buffer: [N, P]}, which changes with the step; number {hyper-parameter: [N, 1]}
        t: steps done before this one
        """
        return g

    def noises(self) -> dict:
        """{"label_noise" or "gradient_noise": record} of the noises in use."""
        named = {"label_noise": self.label_noise, "gradient_noise": self.gradient_noise}
        return {name: record for name, record in named.items() if record is not None}

    def noise_schedule(self, name: str, run: Any, population: int) -> tuple:
        """(base, row, table) of a noise's amplitude; see `StepSize.compile`."""
        return self.noises()[name].sigma.compile(population, run.steps)

    def plain(self) -> bool:
        """Whether a step is w - eta_t g with nothing added."""
        traits = self.traits()
        return not (self.numbers() or self.buffers() or self.noises() or self.penalty or any(
            value not in (False, "none") for value in traits.values()))

    def lengths(self) -> dict[str, int]:
        """{field: number of networks it was given for}."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        long = {f"rule.{name}": len(a) for name, a in given.items() if isinstance(a, np.ndarray) and a.ndim}
        for name, record in self.noises().items():
            long |= lengths(record.sigma, f"{name}.sigma")
        return long

    def refuse(self, run: Any) -> str | None:
        """None, or a sentence saying why this run cannot have this rule."""
        if np.any(self.balance_penalty) and set(run.model.shapes()) != {"u", "v"}:
            return f"balance_penalty needs parameters u and v, {type(run.model).__name__} has none"
        if self.label_noise is not None:
            if not hasattr(run.loss, "noisy"):
                return f"label_noise is for squared losses; the labels of {type(run.loss).__name__} are classes"
            if self.label_noise.on == "one" and not self.full:
                return "label_noise on='one' adds to a full-batch gradient; use fs.rules.GD, or on='batch'"
        for name, record in self.noises().items():
            steps = getattr(record.sigma, "steps", run.steps)
            if steps != run.steps:
                return f"the table of {name} has {steps} steps, the run has T={run.steps}"
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Descent(Rule):
    """A rule whose step may have momentum: m <- momentum m + g,  w <- w - eta_t m.

    momentum [] or [N]: in [0, 1)
    nesterov: w <- w - eta_t (g + momentum m) instead; needs a momentum
    """

    momentum: float | np.ndarray = 0.0
    nesterov: bool = False
    hypers, carries, flags = ("momentum",), ("momentum",), ("nesterov",)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "momentum", per_network(self.momentum, "rule.momentum", 0, high=BELOW_ONE))
        object.__setattr__(self, "nesterov", flag(self.nesterov, "rule.nesterov"))

    def numbers(self) -> dict:
        out = super().numbers()
        return out | {"momentum": self.momentum} if self.momentum.any() else out

    def buffers(self) -> tuple:
        return (("momentum",) if self.momentum.any() else ()) + super().buffers()

    def traits(self) -> dict:
        return super().traits() | {"nesterov": self.nesterov}

    def move(self, g: Any, w: Any, carried: dict, number: dict, t: int) -> Any:
        if "momentum" not in number:
            return g
        carried["momentum"] = m = number["momentum"] * carried["momentum"] + g
        return g + number["momentum"] * m if self.nesterov else m

    def refuse(self, run: Any) -> str | None:
        if self.nesterov and not np.any(self.momentum):
            return "nesterov needs a momentum > 0"
        return super().refuse(run)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batched(Rule):
    """A rule whose step takes some samples or all of them.

    batch_size: samples a step, 1 <= B < 2**32, or None for all n of them
    """

    batch_size: int | None = 1

    def __post_init__(self):
        super().__post_init__()
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", whole(self.batch_size, "rule.batch_size", 1, 2**32 - 1))

    @property
    def full(self) -> bool:
        """Whether a step takes every sample once."""
        return self.batch_size is None

    def batch(self, n: int) -> int:
        return n if self.full else self.batch_size
