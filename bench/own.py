"""Owns the part about networks and losses of a user's own: what is traced, and what it is held against.

Opponents are `torch.func`'s vmap(grad), and the same under torch.compile; a network that has a twin among our families
is held against that, too.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

import fastsgd as fs

from . import rows
from .cases import SEED, Case
from .harness import Band, Side, admit, interleave, ratio

GOALS = {"torch-vmap": 100, "torch-vmap-compiled": 10}  # smallest ratio that meets the claim
TWINS = {"own-2-20-1": 0.9, "own-d30": 0.7, "own-10-100-1": 0.9, "own-5-10-10-1": 1.5, "own-5-10-10-1 tanh": 1.5}


@dataclass(frozen=True, eq=False)
class Own(Case):
    """A case whose network, or loss, is a torch function.

    function: (params {name: tensor}, x [d]) -> []; value: (f, y) -> [] the loss, None for factor (f - y)^2
    twin: the same network of one of our families
    """

    function: object = None
    value: object = None
    twin: object = None

    @property
    def kind(self):
        return "own"

    @property
    def key(self):
        return self.name

    @property
    def layers(self):
        return []

    def run(self, N, T, lost="none", **fields):
        made = {} if self.value is None else {"loss": fs.losses.Function(self.value)}
        return super().run(N, T, lost, **(made | fields))

    def loss(self, f, y):
        """Mean over a batch."""
        return super().loss(f, y) if self.value is None else torch.func.vmap(self.value)(f, y).mean()


def _relu2(p, x):
    return p["W2"] @ torch.relu(p["W1"] @ x)


def _diagonal(p, x):
    return (p["u"] * p["v"] * x).sum()


def _biased(p, x):
    return p["W2"] @ torch.relu(p["W1"] @ x + p["b1"]) + p["b2"]


def _deep(p, x, act=torch.relu):
    return p["W3"] @ act(p["W2"] @ act(p["W1"] @ x + p["b1"]) + p["b2"]) + p["b3"]


def _deep_tanh(p, x):
    return _deep(p, x, torch.tanh)


def _sine(p, x):
    return p["W2"] @ torch.sin(p["W1"] @ x + p["b1"])


def _gated(p, x):
    return p["a"] @ ((p["W"] @ x) * torch.sigmoid(p["V"] @ x))


def _linear_attention(p, x):
    tokens = x.reshape(4, 3)
    return ((tokens @ p["Q"]) @ ((tokens @ p["K"]).T @ tokens) / 4)[-1] @ p["o"]


def _softmax_attention(p, x):
    tokens = x.reshape(4, 3)
    q, k, v = tokens @ p["Q"], tokens @ p["K"], tokens @ p["V"]
    return (torch.softmax(q @ k.T / 3**0.5, -1) @ v).sum(0) @ p["o"]


def _conv1d(p, x):
    h = torch.relu(F.conv1d(x.reshape(1, 2, 6), p["K"], p["c"], padding=1))
    return h.flatten() @ p["o"]


def _hermite(p, x):
    z = p["W"] @ x
    return p["a"] @ (z**3 - 3 * z) / 6**0.5


def _polynomial(p, x):
    z = p["W"] @ x
    return p["a"] @ (z + 0.5 * z**2 + 0.1 * z**3)


def _layer_norm(p, x):
    return p["a"] @ torch.relu(F.layer_norm(p["W"] @ x, (8,), p["g"], p["c"]))


def _huber(f, y):
    return F.huber_loss(f, y, delta=0.5)


def _focal(f, y):
    return (1 - torch.sigmoid(y * f))**2 * F.softplus(-y * f)


def _own(name, function, d, shapes, *, n=40, step_size=0.01, value=None, twin=None, labels="teacher", N=1024):
    start = {key: (0, 0.7 / shape[-1]**0.5 if shape and isinstance(shape, tuple) else 0.5)
             for key, shape in shapes.items()}
    if "g" in shapes:
        start |= {"g": (1, 0.1)}
    data = fs.data.teacher_student(n=n, d=d, teacher_width=5, seed=SEED).astype("float32")
    if labels == "signs":
        data = fs.Dataset(data.X, np.where(data.y > np.median(data.y), 1, -1).astype("float32"))
    model = fs.models.Function(function, d=d, shapes=shapes, start=start)
    if twin is not None:
        twin = Case(name, f"{name}, built in", twin, data, step_size, N=N)
    return Own(name, f"{name.removeprefix('own-')}, traced", model, data, step_size, N=N, function=function,
               value=value, twin=twin, compiled=True)


def goal(name, side):
    """The smallest ratio to a side that meets the claim."""
    return TWINS[name] if side == "built in" else GOALS[side]


_M = fs.models
CASES = {case.name: case for case in (
    _own("own-2-20-1", _relu2, 2, {"W1": (20, 2), "W2": 20}, n=15, twin=_M.ReLU2(2, 20, False, False)),
    _own("own-d30", _diagonal, 30, {"u": 30, "v": 30}, twin=_M.DiagonalLinear(30)),
    _own("own-10-100-1", _biased, 10, {"W1": (100, 10), "b1": 100, "W2": 100, "b2": ()}, twin=_M.ReLU2(10, 100)),
    _own("own-5-10-10-1", _deep, 5, {"W1": (10, 5), "b1": 10, "W2": (10, 10), "b2": 10, "W3": 10, "b3": ()}, n=50,
         twin=_M.MLP(5, (10, 10))),
    _own("own-5-10-10-1 tanh", _deep_tanh, 5, {"W1": (10, 5), "b1": 10, "W2": (10, 10), "b2": 10, "W3": 10, "b3": ()},
         n=50, twin=_M.MLP(5, (10, 10), activation="tanh")),
    _own("own-sine", _sine, 2, {"W1": (20, 2), "b1": 20, "W2": 20}),
    _own("own-gated", _gated, 5, {"W": (8, 5), "V": (8, 5), "a": 8}),
    _own("own-linear-attention", _linear_attention, 12, {"Q": (3, 3), "K": (3, 3), "o": 3}),
    _own("own-conv1d", _conv1d, 12, {"K": (3, 2, 3), "c": 3, "o": 18}),
    _own("own-hermite", _hermite, 4, {"W": (6, 4), "a": 6}, step_size=2e-3),
    _own("own-polynomial", _polynomial, 4, {"W": (6, 4), "a": 6}, step_size=2e-3),
    _own("own-layer-norm", _layer_norm, 4, {"W": (8, 4), "g": 8, "c": 8, "a": 8}, step_size=2e-3),
    _own("own-softmax-attention", _softmax_attention, 12, {"Q": (3, 3), "K": (3, 3), "V": (3, 3), "o": 3}),
    _own("own-huber", _sine, 2, {"W1": (20, 2), "b1": 20, "W2": 20}, value=_huber),
    _own("own-focal", _relu2, 5, {"W1": (20, 5), "W2": 20}, value=_focal, labels="signs"),
)}


def against_torch(name, start, settings, say):
    """Rates of a traced network and of torch.func, and the ratios; of its twin, where it has one."""
    case, cores = CASES[name], start.cores
    say(f"\n{case.title}: N={case.N}, {case.dtype}, {cores} core(s)")
    sides = [Side("fastsgd", start["fastsgd"], case, case.N)]
    sides += [Side(opponent, start[opponent], case, case.N) for opponent in GOALS if opponent in settings.opponents]
    ready, gaps = admit(sides, case.truth(case.N), settings.target)
    if case.twin is not None:
        twins, more = admit([Side("built in", start["fastsgd"], case.twin, case.N)], case.twin.truth(case.N),
                            settings.target)
        ready, gaps = ready + twins, gaps | more
    interleave(ready, settings.rounds, settings.best_of)
    for side, reason in gaps.items():
        say(f"  {side}: not timed. {reason}")
        yield rows.gap(cores, name, side, reason, case.N, case.dtype, "Absent:" in reason)
    known = {side.name: side for side in ready}
    for side in ready:
        band = Band.of(side.rates)
        say(f"  {side.name:22s} {band.median:10.3g} {side.unit} [{band.low:.3g} .. {band.high:.3g}]  error "
            f"{side.error:.0e}, first call +{side.first_call:.1f} s")
        yield rows.row(cores, name, side.name, "own rate", side.unit, band, side.N, side.T, case.dtype, side.error,
                       side.versions | {"variant": side.variant, "first_call_s": round(side.first_call, 2)})
    ours = known.get("fastsgd")
    for side in (*GOALS, "built in"):
        if ours is None or side not in known:
            continue
        band, least = ratio(ours, known[side]), goal(name, side)
        say(f"  speed ratio, {side}: {band.median:.4g} [{band.low:.4g} .. {band.high:.4g}], goal {least:g}: "
            f"{'met' if band.low >= least else 'not met'}")
        yield rows.row(cores, name, side, "own ratio", "x", band, ours.N, ours.T, case.dtype, error=ours.error,
                       versions=known[side].versions | ours.versions)
