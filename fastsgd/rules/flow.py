"""Owns gradient flow: steps that are stretches of time, integrated to a tolerance."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..spec.check import Array, per_network, whole
from ..spec.record import record
from .base import Rule

# The pair of Dormand and Prince: stage s is at w - h sum_j A[s][j] k_j, the last is the step of order 5, from which
# that of order 4 differs by h sum_j E[j] k_j. csrc/core/flow.h has the same.
A = ((), (1 / 5,), (3 / 40, 9 / 40), (44 / 45, -56 / 15, 32 / 9),
     (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
     (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
     (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84))
E = (-71 / 57600, 0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40)
SAFETY, LEAST, MOST, POWER = 0.9, 0.2, 10.0, -0.2  # of a factor between the sizes of steps


@record(kw_only=True)
class Flow(Rule):
    """Gradient flow: a step moves a network along dw/dt = -grad L(w) for a time eta_t, L the mean loss of all samples.

    The run's `step_size` is that length of time. Within it the pair of Dormand and Prince, orders 5 and 4, goes in
    steps of its own, whose size each network chooses for itself and carries on: the error e between the two orders must
    have sqrt(mean_p (e_p / (atol + rtol max |w_p|))^2) < 1. Its steps end where a step of the run ends.

    rtol [] or [N]: > 0, of float32 at least 1e-6; atol [] or [N]: > 0
    most: steps of the pair in a step of the run, >= 1, beyond which a network is lost: a stiff one, or one of ReLU
        units that slides along a kink, where steps become as short as the tolerance
    weight_decay, lost_above, penalty: as for every rule, of the flow of L + (weight_decay / 2) ||w||^2 + penalty.
        Noise, averages, normalisation, clipping and other numbers for each parameter are refused
    A network is lost at the step of the run in which its flow leaves every bound. Source: Dormand and Prince 1980;
    Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, section II.4
    """

    rtol: float | Array = 1e-6
    atol: float | Array = 1e-9
    most: int = 100_000
    full = flows = True
    hypers = carries = flags = ()

    def __post_init__(self):
        super().__post_init__()
        for name in ("rtol", "atol"):
            object.__setattr__(self, name, per_network(getattr(self, name), f"rule.{name}", 0, low_open=True))
        object.__setattr__(self, "most", whole(self.most, "rule.most", 1, 2**53))

    def batch(self, n: int) -> int:
        return n

    def numbers(self) -> dict:
        return super().numbers() | {"rtol": self.rtol, "atol": self.atol}

    def buffers(self) -> tuple:
        """Of each the first number alone is used: size of the pair's next step, and how many were taken and refused."""
        return ("pace", "taken", "refused", *super().buffers())

    def refuse(self, run: Any) -> str | None:
        absent = ("label_noise", "gradient_noise", "average", "clip_value", "clip_norm", "step_scale", "localisation")
        given = [name for name in absent if getattr(self, name) is not None]
        given += [name for name in ("balance_penalty", "normalised", "decoupled") if np.any(getattr(self, name))]
        if isinstance(self.weight_decay, dict):
            return "Flow has one weight decay for all parameters, not one for each; a penalty may be any function"
        if given:
            return f"Flow has no {given[0]}; it follows the gradient of the mean loss itself"
        if run.dtype == "float32" and self.rtol.min() < 1e-6:
            return f"rtol={self.rtol.min():g} is less than float32 can tell; use dtype='float64', or at least 1e-6"
        return super().refuse(run)

    def stretch(self, gradient: Callable, w: Any, carried: dict, number: dict, time: Any) -> tuple:
        """(weights [N, P], lost [N]) after `time` [N, 1] of flow from w [N, P]; the definition, in torch.

        gradient: w -> (gradient [N, P], bad [N]); carried {buffer: [N, P]}, which changes; number {name: [N, 1]}
        """
        import torch

        pace, taken, refused = (carried[name][:, :1].clone() for name in ("pace", "taken", "refused"))
        start, tries, since = w, torch.zeros_like(time), torch.zeros_like(time)
        k0, lost = gradient(w)
        pace = torch.where(pace == 0, _first(gradient, w, k0, number, time), pace)
        again, busy = torch.zeros_like(lost), (time[:, 0] > 0) & ~lost
        lost = lost & (time[:, 0] > 0)
        while busy.any():
            left = time - since
            h = torch.where(pace < left, pace, left)
            stages = [k0]
            for row in A[1:]:
                to = w - h * sum(a * k for a, k in zip(row, stages, strict=True))
                k, bad = gradient(to)
                stages.append(k)
            off = h * sum(e * k for e, k in zip(E, stages, strict=True)) + 0 * to
            norm = _norm(off, torch.maximum(w.abs(), to.abs()), number)
            factor = SAFETY * norm**POWER
            good = busy & (norm < 1)[:, 0] & ~bad
            last, yes = h == left, good[:, None]
            grown = h * factor.clamp(max=MOST).masked_fill(norm == 0, MOST).where(
                ~again[:, None], factor.clamp(max=1))
            shrunk = h * factor.masked_fill(bad[:, None] | norm.isnan(), LEAST).clamp(min=LEAST)
            kept = torch.where(last, torch.maximum(pace, grown), grown)
            pace = torch.where(busy[:, None], torch.where(yes, kept, shrunk), pace)
            taken, refused = taken + yes, refused + (busy & ~good)[:, None]
            w, k0 = torch.where(yes, to, w), torch.where(yes, stages[-1], k0)
            since, tries, again = since + h * yes, tries + 1, torch.where(busy, ~good, again)
            busy = busy & ~(good & last[:, 0])
            stuck = busy & (~(since + pace > since) | (tries >= self.most))[:, 0]
            lost, busy = lost | stuck, busy & ~stuck
        w = torch.where(lost[:, None], start, w)
        for name, value in (("pace", pace), ("taken", taken), ("refused", refused)):
            now = torch.zeros_like(carried[name])
            now[:, :1] = value
            carried[name] = torch.where(lost[:, None], carried[name], now)
        return w, lost


def _norm(e, size, number):
    """Root mean square [N, 1] of e [N, P] over what is tolerated at parameters of that size."""
    return (e / (number["atol"] + number["rtol"] * size)).square().mean(dim=1, keepdim=True).sqrt()


def _first(gradient, w, k0, number, time):
    """Size [N, 1] of the first step: Hairer, Norsett and Wanner, II.4."""
    import torch

    d0, d1 = _norm(w, w.abs(), number), _norm(k0, w.abs(), number)
    h = torch.where((d0 < 1e-5) | (d1 < 1e-5), torch.full_like(d0, 1e-6), 0.01 * d0 / d1)
    h = torch.where(h < time, h, time)
    k1, off = gradient(w - h * k0)
    d2 = _norm(k1 - k0, w.abs(), number) / h
    pace = torch.where((d1 <= 1e-15) & (d2 <= 1e-15), (h * 1e-3).clamp(min=1e-6),
                       (torch.where(d1 > d2, d1, d2) / 0.01)**POWER)
    pace = torch.where(pace < 100 * h, pace, 100 * h)
    pace = torch.where(off[:, None] | ~(d2 < float("inf")), h, pace)
    return torch.where(pace < time, pace, time)
