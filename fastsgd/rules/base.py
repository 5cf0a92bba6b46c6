"""Owns what every update rule shares: when a run counts as lost, penalties, noises, averaging."""

from abc import ABC, abstractmethod
from dataclasses import fields, replace
from functools import reduce
from typing import Any

import numpy as np

from ..errors import PlanError, SpecError
from ..spec.check import BELOW_ONE, Array, flag, per_network, per_parameter, real_or_each, shown, used, whole_or_each
from ..spec.noise import GradientNoise, LabelNoise, lengths, noise
from ..spec.record import Record, record
from .localisation import Localisation

PERTURBS = ("none", "batch", "sample")  # SAM: no perturbation, one a step, one a sample


def largest(value):
    """The largest [] or [N] of numbers that may differ between parameters."""
    return reduce(np.maximum, value.values()) if isinstance(value, dict) else value


def _of(value, name):
    return value.get(name, 0.0) if isinstance(value, dict) else value


@record(kw_only=True)
class Rule(Record, ABC):
    """An update rule. With g the gradient of the mean loss over the step's samples, in this order:

    g <- g + sigma_t z                                        gradient_noise
    g <- g + d penalty(p) / dp                                of a function of your own
    g <- min(max(g, -clip_value), clip_value)                 in every parameter
    g <- g min(1, clip_norm / (||g|| + 1e-6))                 the norm is over all parameters
    g <- g + gamma (w - w*)                                   localisation
    g <- g + weight_decay w                                   the gradient of (weight_decay / 2) ||w||^2
    g <- g + balance_penalty (u (u^2 - v^2), -v (u^2 - v^2))  that of (balance_penalty / 4) sum_j (u_j^2 - v_j^2)^2
    g <- g / ||g||                                            normalised
    w <- w - eta_t step_scale g                               or as the rule says
    a <- average a + (1 - average) w                          weight averaging, from a = w at the start

    lost_above [] or [N]: a run is lost at the first step on which the loss of one of its samples is not finite in the
        run's dtype, or |h(x) - y| (of losses that are not squared: |h(x)|) exceeds this number > 0, or whose update
        would make a weight or a buffer infinite or NaN; it keeps the weights and buffers from before that step
    weight_decay: >= 0, [] or [N], or {name of a parameter: [] or [N]}, 0 for those that are not named
    decoupled: weight decay as in AdamW, w <- (1 - eta_t weight_decay) w before the step, and not in the gradient
    step_scale {name of a parameter: [] or [N]}: by what its step size is multiplied, >= 0, 1 for those that are not
        named; also the step size of its decoupled decay, as `lr` of a parameter group of torch.optim
    localisation: a fs.rules.Localisation, or its gamma
    balance_penalty [] or [N]: >= 0, needs parameters u and v
    clip_value, clip_norm [] or [N]: > 0, or None for no clipping; `torch.nn.utils.clip_grad_value_` and
        `clip_grad_norm_` between `backward` and the optimizer's step, which adds its weight decay after them
    normalised: whether the gradient is scaled to length 1 (a zero gradient stays zero)
    label_noise: fs.LabelNoise or its sigma, noise on the labels of the step's samples
    gradient_noise: fs.GradientNoise or its sigma
    penalty: a torch function of one network's parameters {name: tensor} -> [], or a fs.rules.Penalty
    average [] or [N]: in [0, 1), or None for no averaging; `SaveAt(of="average")` measures the average
    """

    # The words of `numbers`, `buffers` and `traits` that a class adds; lowering/words.py numbers them.
    hypers = ("weight_decay", "balance_penalty", "average", "clip_value", "clip_norm", "localisation", "label_alpha",
              "gradient_alpha")
    carries, flags = ("point", "average"), ("normalised", "decoupled", "grouped")

    lost_above: float | Array = float("inf")
    weight_decay: Any = 0.0
    balance_penalty: float | Array = 0.0
    normalised: bool = False
    label_noise: object = None
    gradient_noise: object = None
    average: float | Array | None = None
    penalty: object = None
    decoupled: bool = False
    clip_value: float | Array | None = None
    clip_norm: float | Array | None = None
    step_scale: dict | None = None
    localisation: Any = None

    def __post_init__(self):
        put = object.__setattr__
        put(self, "lost_above", real_or_each(self.lost_above, "rule.lost_above", 0, low_open=True))
        put(self, "weight_decay", per_parameter(self.weight_decay, "rule.weight_decay", 0))
        put(self, "balance_penalty", per_network(self.balance_penalty, "rule.balance_penalty", 0))
        if self.step_scale is not None:
            if not isinstance(self.step_scale, dict):
                raise SpecError(f"rule.step_scale: {shown(self.step_scale)} given, expected {{name of a parameter: "
                                "number or [N]}; one for all is a step size")
            put(self, "step_scale", per_parameter(self.step_scale, "rule.step_scale", 0))
        if self.localisation is not None and not isinstance(self.localisation, Localisation):
            put(self, "localisation", Localisation(self.localisation))
        for name in ("normalised", "decoupled"):
            put(self, name, flag(getattr(self, name), f"rule.{name}"))
        for name in ("clip_value", "clip_norm"):
            if getattr(self, name) is not None:
                put(self, name, per_network(getattr(self, name), f"rule.{name}", 0, low_open=True))
        put(self, "label_noise", noise(self.label_noise, "rule.label_noise", LabelNoise))
        put(self, "gradient_noise", noise(self.gradient_noise, "rule.gradient_noise", GradientNoise))
        if self.penalty is not None:
            from .penalty import Penalty  # with the tracer

            put(self, "penalty", self.penalty if isinstance(self.penalty, Penalty) else Penalty(self.penalty))
        if self.average is not None:
            put(self, "average", per_network(self.average, "rule.average", 0, high=BELOW_ONE))

    @abstractmethod
    def batch(self, n: int) -> int:
        """Number of samples in one step, of n."""

    @property
    def batches(self) -> np.ndarray | None:
        """[N] samples a step where networks have numbers of their own; None where they share one."""
        sizes = getattr(self, "batch_size", None)
        return sizes if np.ndim(sizes) else None

    def of_batch(self, size: int) -> Any:
        """The same rule with so many samples a step."""
        return replace(self, batch_size=size)

    def _one_size(self):
        """The one number of samples a step. Raises PlanError where networks have numbers of their own."""
        if self.batches is not None:
            raise PlanError("rule.batch_size: one of each network given, which fs.train, fs.plan, fs.extend and "
                            "fs.fork take, networks of a size together; here it is one number: take the networks of "
                            "one size at a time, with ids= and their batch_size")
        return self.batch_size

    whole_run = False  # whether its noise can only be made of the whole run
    full = False  # whether a step takes every sample once
    matrices = False  # whether it looks at matrices of parameters as such
    flows = False  # whether a step is a stretch of gradient flow

    def numbers(self) -> dict:
        """{name: [] or [N]} of the hyper-parameters in use: one that is 0 for all networks of the run is not.

        Of what differs between parameters it has the largest; `each` has all of them.
        """
        given = {"weight_decay": self.weight_decay, "balance_penalty": self.balance_penalty}
        if self.localisation is not None:
            given["localisation"] = self.localisation.gamma
        out = {name: largest(value) for name, value in given.items() if used(largest(value))}
        chosen = ("average", "clip_value", "clip_norm")
        out |= {name: getattr(self, name) for name in chosen if getattr(self, name) is not None}
        return out | {name.replace("noise", "alpha"): record.alpha for name, record in self.noises().items()
                      if record.alpha is not None}

    @property
    def grouped(self) -> bool:
        """Whether parameters have numbers of their own that make a difference for some network."""
        gamma = None if self.localisation is None else self.localisation.gamma
        own = [one for value in (self.weight_decay, gamma) if isinstance(value, dict) for one in value.values()]
        return any(map(used, own)) or any(used(scale - 1) for scale in (self.step_scale or {}).values())

    def each(self, names: Any) -> dict:
        """{parameter: (step scale, weight decay, localisation), [] or [N] each} of the parameters `names`."""
        gamma = 0.0 if self.localisation is None else self.localisation.gamma
        scales = {} if self.step_scale is None else self.step_scale
        return {name: (scales.get(name, 1.0), _of(self.weight_decay, name), _of(gamma, name)) for name in names}

    def buffers(self) -> tuple:
        """Names of the arrays [P] that a network carries from step to step besides its weights."""
        point = ("point",) if self.localisation is not None and used(largest(self.localisation.gamma)) else ()
        return point if self.average is None else (*point, "average")

    def begin(self, buffers: np.ndarray, start: np.ndarray, shapes: dict | None = None,
              ids: Any = None) -> np.ndarray:
        """Put what does not begin at 0 into zeros [N, K, P]: the average, at the start [N, P], and the point.

        ids [N]: which networks of the run these are, by default all
        """
        names, point = self.buffers(), None
        if "point" in names:
            if self.localisation.at is not None and shapes is None:
                raise SpecError("rule.localisation.at: given, but names of parameters are not known here; use fs.train")
            point = self.localisation.point(shapes)
            buffers[:, names.index("point")] = start if point is None else point
        if "average" in names:
            buffers[:, names.index("average")] = start
        return buffers

    def starts(self) -> dict:
        """{buffer: number [] or [N]} of those that begin at a number that the user gives."""
        return {}

    def traits(self) -> dict:
        """{flag: whether the rule is so}, of its `flags`; and "perturb", one of PERTURBS, where it is not "none"."""
        return {"normalised": self.normalised, "decoupled": self.decoupled and used(largest(self.weight_decay)),
                "grouped": self.grouped}

    def move(self, g: Any, w: Any, carried: dict, number: dict, t: int) -> Any:
        """What a step goes along, w <- w - eta move, of the gradient g after all that is added to it.

        g, w: tensors [N, P]; carried {buffer: [N, P]}, which changes with the step; number {hyper-parameter: [N, 1]}
        t: steps done before this one
        """
        return g

    def step(self, w: Any, g: Any, rate: Any, carried: dict, number: dict, t: int, shapes: dict) -> Any:
        """The weights [N, P] after a step of size rate [N, 1] or [N, P] along g; the rest as in `move` and `finish`."""
        return w - rate * self.finish(self.move(g, w, carried, number, t), shapes)

    def finish(self, move: Any, shapes: dict) -> Any:
        """What becomes of `move` [N, P] where a rule looks at matrices; shapes {name: shape} of the parameters."""
        return move

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
        given = {f"rule.{field.name}": getattr(self, field.name) for field in fields(self)}
        if self.localisation is not None:
            given["rule.localisation.gamma"] = self.localisation.gamma
        given |= {f"{name}.{key}": a for name, value in given.items() if isinstance(value, dict)
                  for key, a in value.items()}
        long = {name: len(a) for name, a in given.items() if isinstance(a, np.ndarray) and a.ndim}
        for name, one in self.noises().items():
            long |= lengths(one.sigma, f"{name}.sigma")
            if np.ndim(one.alpha):
                long[f"{name}.alpha"] = len(one.alpha)
        return long

    def refuse(self, run: Any) -> str | None:
        """None, or a sentence saying why this run cannot have this rule."""
        shapes = run.model.shapes()
        gamma = None if self.localisation is None else self.localisation.gamma
        for name, value in (("weight_decay", self.weight_decay), ("step_scale", self.step_scale),
                            ("localisation.gamma", gamma)):
            unknown = sorted(set(value) - set(shapes)) if isinstance(value, dict) else ()
            if unknown:
                return f"{name} names {', '.join(unknown)}; the parameters of this model are {', '.join(shapes)}"
        if self.localisation is not None and (why := self.localisation.refuse(shapes)):
            return why
        if used(self.balance_penalty) and set(run.model.shapes()) != {"u", "v"}:
            return f"balance_penalty needs parameters u and v, {type(run.model).__name__} has none"
        if self.label_noise is not None:
            if not hasattr(run.loss, "noisy"):
                return f"label_noise is for squared losses; the labels of {type(run.loss).__name__} are classes"
            if self.label_noise.on == "one" and not self.full:
                return "label_noise on='one' adds to a full-batch gradient; use fs.rules.GD, or on='batch'"
        for name, one in self.noises().items():
            steps = getattr(one.sigma, "steps", run.steps)
            if steps != run.steps:
                return f"the table of {name} has {steps} steps, the run has T={run.steps}"
        return None


@record(kw_only=True)
class Descent(Rule):
    """A rule whose step may have momentum: m <- momentum m + (1 - dampening) g,  w <- w - eta_t m.

    This is the heavy ball as `torch.optim.SGD` writes it, in which eta_t multiplies all of m. With a constant step size
    it is Polyak's w_{t+1} = w_t - eta g + momentum (w_t - w_{t-1}).

    momentum [] or [N]: in [0, 1)
    dampening [] or [N]: in [0, 1]; the first step has none, m = g, as in `torch.optim.SGD`. Needs a momentum
    nesterov: w <- w - eta_t (g + momentum m) instead, `torch.optim.SGD`'s form of Nesterov's method; needs a momentum,
        and no dampening
    """

    momentum: float | Array = 0.0
    nesterov: bool = False
    dampening: float | Array = 0.0
    hypers, carries, flags = ("momentum", "dampening"), ("momentum",), ("nesterov",)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "momentum", per_network(self.momentum, "rule.momentum", 0, high=BELOW_ONE))
        object.__setattr__(self, "nesterov", flag(self.nesterov, "rule.nesterov"))
        object.__setattr__(self, "dampening", per_network(self.dampening, "rule.dampening", 0, high=1))

    def numbers(self) -> dict:
        return super().numbers() | {name: getattr(self, name) for name in ("momentum", "dampening")
                                    if used(getattr(self, name))}

    def buffers(self) -> tuple:
        return (("momentum",) if used(self.momentum) else ()) + super().buffers()

    def traits(self) -> dict:
        return super().traits() | {"nesterov": self.nesterov}

    def move(self, g: Any, w: Any, carried: dict, number: dict, t: int) -> Any:
        if "momentum" not in number:
            return g
        share = 1 - number["dampening"] if "dampening" in number and t else 1
        carried["momentum"] = m = number["momentum"] * carried["momentum"] + share * g
        return g + number["momentum"] * m if self.nesterov else m

    def refuse(self, run: Any) -> str | None:
        for name in ("nesterov", "dampening"):
            if used(getattr(self, name)) and not used(self.momentum):
                return f"{name} needs a momentum > 0"
        if self.nesterov and used(self.dampening):
            return "nesterov needs dampening 0, as in torch.optim.SGD"
        return super().refuse(run)


@record(kw_only=True)
class Batched(Rule):
    """A rule whose step takes some samples or all of them.

    batch_size [] or [N]: samples a step, 1 <= B < 2**32, or None for all n of them. With [N], networks of a size are
        one run, whose results are put together
    """

    batch_size: int | Array | None = 1

    def __post_init__(self):
        super().__post_init__()
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", whole_or_each(self.batch_size, "rule.batch_size", 1, 2**32 - 1))

    @property
    def full(self) -> bool:
        """Whether a step takes every sample once."""
        return self.batch_size is None

    def batch(self, n: int) -> int:
        return n if self.full else self._one_size()
