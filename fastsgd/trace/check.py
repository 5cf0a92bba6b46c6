"""Owns the checks before a traced program is used: graph against torch.autograd, compiled code against the graph."""

import ctypes
from dataclasses import dataclass

import numpy as np

from ..errors import BackendUnavailable
from .graph import INPUT

AGREED = 1e-8  # of the largest entry, float64
AGREED_SINGLE = 5e-3  # of the largest entry, float32 against float64
NUDGE = 1e-5  # a point on a kink is moved by so much, relatively, before it is judged
POINTS = 3
SPARED = 8  # one lane in so many may lie on a kink where float32 decides another way


@dataclass(frozen=True)
class Outcome:
    """points: how many were compared; worst: the largest difference, of the largest entry."""

    points: int
    worst: float


def _points(leaves, rng, count, positive=False):
    """{leaf: [count, *shape]} at random."""
    made = {name: rng.standard_normal((count, *shape)) * 0.7 for name, shape in leaves.items()}
    return {name: np.abs(a) + 0.1 for name, a in made.items()} if positive else made


def _difference(got, want):
    """(largest |got - want| over the largest |want|, at least 1e-3; flat position of it)."""
    with np.errstate(all="ignore"):
        gap = np.abs(got - want)
        size = max(float(np.abs(want).max(initial=0.0)), 1e-3)
    return (float(gap.max(initial=0.0)) / size, int(np.argmax(gap)) if gap.size else 0)


def against_torch(program, function, points=(), count=POINTS):
    """The Outcome of comparing a program's graph with a torch function, in value and every derivative.

    function: {leaf: float64 tensor} -> value, differentiated by torch.autograd.grad
    points: {leaf: array} each, besides `count` at random and as many positive ones
    Raises BackendUnavailable with both numbers and the name of what differs.
    """
    rng, worst, compared = np.random.default_rng(7), 0.0, 0
    given = [dict(point) for point in points]
    for positive in (False, True):
        more = _points(program.leaves, rng, count, positive)
        given += [{name: a[k] for name, a in more.items()} for k in range(count)]
    for point in given:
        found = _judged(program, function, point, rng)
        if found is not None and any(gap > AGREED for _, gap, _, _ in found):
            moved = {name: a * (1 + NUDGE * rng.standard_normal(np.shape(a))) + NUDGE * rng.standard_normal(np.shape(a))
                     for name, a in point.items()}  # off a kink
            found = _judged(program, function, moved, rng)
        if found is None:
            continue
        compared += 1
        for name, gap, got, want in found:
            if gap > AGREED:
                what = "its value" if name == "value" else f"the derivative with respect to {name!r}"
                raise BackendUnavailable(
                    f"{program.kind.lower()}: {what} is {want:.10g} by torch.autograd and {got:.10g} by what was "
                    "traced; detach(), a function with a backward of its own and whatever else torch differentiates by "
                    "another rule than its value's have no kernel. backend='reference' runs it as torch does")
            worst = max(worst, gap)
    if not compared:
        raise BackendUnavailable(f"{program.kind.lower()}: was finite at none of {len(given)} points, so that nothing "
                                 "could be compared with torch.autograd")
    return Outcome(compared, worst)


def _judged(program, function, point, rng):
    """None where a point is not finite, else [(what, difference, got, want)]; derivatives are of a random direction."""
    import torch

    names = list(program.wanted)
    fixed = {name: torch.from_numpy(np.array(a)) for name, a in point.items() if name not in program.wanted}

    def of(*tensors):
        return function(dict(zip(names, tensors, strict=True)) | fixed).reshape(program.value.shape)

    g = rng.standard_normal(program.value.shape) if program.value.shape else np.array(1.0)
    moving = [torch.tensor(point[name], dtype=torch.float64, requires_grad=True) for name in names]
    value = of(*moving)  # not by torch.func, which imports torch's compiler: seconds
    along = (value * torch.from_numpy(g)).sum()
    back = torch.autograd.grad(along, moving, allow_unused=True) if along.requires_grad else ()
    back = [torch.zeros_like(a) if d is None else d for a, d in zip(moving, back or [None] * len(moving), strict=True)]
    want = {"value": value.detach().numpy()} | {
        name: d.detach().numpy() for name, d in zip(names, back, strict=True)}
    got, grads = program.evaluate({name: np.asarray(a) for name, a in point.items()}, g)
    got = {"value": got} | grads
    if not all(np.isfinite(a).all() for a in want.values()):
        return None
    out = []
    for name, a in want.items():
        gap, at = _difference(got[name], a)
        out.append((name, gap if gap == gap else np.inf, np.reshape(got[name], -1)[at], a.reshape(-1)[at]))
    return out


# ---- compiled code


def _aligned(shape, dtype):
    """A zeroed array at a whole cache line."""
    count = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    raw = np.zeros(count + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start:start + count].view(dtype).reshape(shape)


def _rows(values, dtype):
    """[lanes, k] as k vectors of lanes."""
    out = _aligned((values.shape[1], values.shape[0]), dtype)
    out[...] = values.T
    return out


def _call(address, *arrays):
    kinds = [ctypes.c_void_p] * len(arrays)
    ctypes.CFUNCTYPE(None, *kinds)(address)(*(a.ctypes.data for a in arrays))


class Compiled:
    """A Library of a Program, called lane by lane as the general loop does."""

    def __init__(self, program, library, dtype, width):
        self.program, self.entries, self.dtype = program, library.entries, dtype
        self.width, self.number = width, int(width > 1)

    def flat(self, leaves):
        """Parameters [lanes, P] of {leaf: [lanes, *shape]}."""
        return np.concatenate([leaves[name].reshape(self.width, -1) for name in self.program.layout.shapes], axis=1)

    def __call__(self, leaves, g, to="zeros"):
        """(value [lanes, o] or None, derivatives [lanes, k]) at {leaf: [lanes, *shape]}; g [lanes, o].

        to: what derivatives are added to: "zeros", a "copy" of the parameters, or the parameters "themselves"
        """
        program, dtype = self.program, self.dtype
        kept = _aligned((program.rows + 1, self.width), dtype)
        if program.kind == "Loss":
            f, y = (_rows(leaves[name].reshape(self.width, -1), dtype) for name in ("f", "y"))
            to = _aligned(f.shape, dtype)
            kinds = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_float if dtype == "float32" else ctypes.c_double,
                     ctypes.c_void_p)
            own = [leaves[name].reshape(self.width, -1) for name in leaves if name not in ("f", "y")]
            if own:
                most = np.full((self.width, 1), np.finfo(dtype).max)
                _call(self.entries["own_dloss"][self.number], f, y, _rows(np.concatenate([most, *own], 1), dtype), to)
            else:
                ctypes.CFUNCTYPE(ctypes.c_uint, *kinds)(self.entries["dloss"][self.number])(
                    f.ctypes.data, y.ctypes.data, float(np.finfo(dtype).max), to.ctypes.data)
            return None, to.T.copy()
        if program.kind == "Rule":
            return self._moved(leaves)
        w = _rows(self.flat(leaves), dtype)
        to = {"zeros": _aligned(w.shape, dtype), "copy": _rows(self.flat(leaves), dtype), "themselves": w}[to]
        if program.kind == "Penalty":
            _call(self.entries["penalty"][self.number], w, kept, to)
            return None, to.T.copy()
        x, seeds = _rows(leaves[INPUT], dtype), _rows(g, dtype)
        out = _aligned((program.sizes[1], self.width), dtype)
        _call(self.entries["forward"][self.number], w, x, kept, out)
        _call(self.entries["vjp"][self.number], w, x, seeds, kept, to)
        return out.T.copy(), to.T.copy()

    def _moved(self, leaves):
        """What becomes of one parameter and its state [lanes, 1 + states], by a rule."""
        (p, g, *rest), (states, _) = [_rows(a[:, None], self.dtype) for a in leaves.values()], self.program.sizes
        state, numbers = (np.concatenate(part) if part else _aligned((0, self.width), self.dtype)
                          for part in (rest[:states], rest[states:]))
        state, numbers = (_rows(a.T, self.dtype) for a in (state, numbers))
        pointer = ctypes.c_void_p
        ctypes.CFUNCTYPE(None, *[ctypes.c_int] * 3, *[pointer] * 5)(self.entries["move"][self.number])(
            0, 1, 1, None, *(a.ctypes.data for a in (p, g, state, numbers)))
        return np.concatenate([p, state]).T.copy(), np.zeros((self.width, 0))


def compiled(program, library, dtype, width):
    """Compare a compiled program with its graph; the Outcome.

    Each lane has numbers of its own. In float64 every lane must agree, in float32 all but the few that lie on a kink. A
    lane of NaN must not be felt by its neighbours; parameters may be changed while they are read.
    Raises BackendUnavailable.
    """
    rng, worst, points = np.random.default_rng(11), 0.0, 0
    tolerance = AGREED if dtype == "float64" else AGREED_SINGLE
    spared = 0 if dtype == "float64" else max(1, 4 * width // SPARED)
    o = program.value.size
    for lanes in (1, width):
        call, off = Compiled(program, library, dtype, lanes), []
        for turn in range(4):
            leaves = {name: a.astype(dtype).astype(np.float64) for name, a in _points(
                program.leaves, rng, lanes, turn % 2 == 1).items()}
            g = rng.standard_normal((lanes, o)).astype(dtype).astype(np.float64) if program.kind == "Model" else (
                np.ones((lanes, o)))
            value, grads = call(leaves, g)
            want, parts = program.evaluate(leaves, g.reshape(lanes, *program.value.shape))
            named, pairs, at = program.layout.shapes if program.layout else program.wanted, [], 0
            for name, shape in named.items():
                part = np.reshape(parts.get(name, np.zeros((lanes, *shape))), (lanes, -1))
                pairs.append((grads[:, at:at + part.shape[1]], part))
                at += part.shape[1]
            if value is not None:
                pairs.append((value, want.reshape(lanes, -1)))
            for lane in range(lanes):
                if all(np.isfinite(a[lane]).all() for _, a in pairs):
                    gaps = [_difference(got[lane], a[lane])[0] for got, a in pairs]
                    gap = max(gap if gap == gap else np.inf for gap in gaps)
                    points += 1  # of finite ones
                    if gap > tolerance:
                        off.append(gap)
                    else:
                        worst = max(worst, gap)
            if lanes > 1 and turn == 0:
                _neighbours(program, call, leaves, g, value, grads)
            if program.kind == "Model" and (
                    call(leaves, g, "themselves")[1].tobytes() != call(leaves, g, "copy")[1].tobytes()):
                raise BackendUnavailable("model: a parameter is read after it was changed")
        if len(off) > spared:
            raise BackendUnavailable(f"{program.kind.lower()}: compiled code differs from what was traced by "
                                     f"{max(off):.2g} of the largest entry ({dtype}, {lanes} lane(s)); this is a fault "
                                     "of fastsgd or of the compiler. backend='reference' does without")
    return Outcome(points, worst)


def _neighbours(program, call, leaves, g, value, grads):
    """Raise BackendUnavailable if a lane of NaN is felt by another."""
    spoilt = {name: a.copy() for name, a in leaves.items()}
    for a in spoilt.values():
        a[1] = np.nan
    others = np.arange(call.width) != 1
    for got, had in zip(call(spoilt, g), (value, grads), strict=True):
        if had is not None and got[others].tobytes() != had[others].tobytes():
            raise BackendUnavailable(f"{program.kind.lower()}: a lane of NaN is felt by its neighbours")
