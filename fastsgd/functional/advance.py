"""Owns steps without a plan: networks in a user's array are moved in place."""

from dataclasses import field
from typing import Any

import numpy as np

from .. import backends
from ..errors import SpecError
from ..models.base import family
from ..native import native
from ..orders import Common, PerNetwork, Replay, Reshuffle
from ..plan import filled
from ..plan import one as make_plan
from ..rules import GD, SGD, Rule
from ..settle import settle
from ..spec.check import as_array, per_network, what_is, whole
from ..spec.loss import Squared
from ..spec.planned import Plan, Segment, Tuning
from ..spec.problem import Dataset
from ..spec.record import like, record
from ..spec.run import Run
from ..spec.schedule import Constant, Schedule
from .arrays import NAMES, alike, in_place, plain

MOST = 64  # plans that are kept
_SQUARED, _SGD, _OWN = Squared(), {}, PerNetwork()


def advance_(model: Any, params: Any, X: Any, y: Any, order: Any = None, step_size: Any = None, *,
             steps: int | None = None, rule: Any = None, loss: Any = None, seed: int = 0, t0: int = 0, keys: Any = None,
             lost: Any = None, buffers: Any = None, threads: int | None = None) -> np.ndarray:
    """Move networks by T steps, in place: params[k] <- what `fs.train` would make of it, bit for bit.

    model: from fs.models; one that the CPU backend has a kernel for, or traces
    params [N, P]: weights, float32 or float64, C-contiguous, to be written to; NumPy, torch on the CPU, or DLPack.
        JAX takes its arrays for constant: give one that nothing else was made of, e.g. jnp.array(w, copy=True)
    X [n, d], y [n] or [n, o]: samples in the dtype of params, or whole numbers; a network that meets a number that
        is not finite is lost
    order: indices of samples [T], [N, T] or [N, T, B] (also [1, T, B]), each in [0, n); or fs.orders.PerNetwork() (the
        default), Common(), Reshuffle(), with `steps`; None for rules that take all samples
    step_size: a number, [N], or a table [1, T] or [N, T]
    steps: T >= 1, where `order` is no array
    rule: SGD (the default, with the batch of `order`), GD, or any other of fs.rules that needs to know nothing of the
        whole run; noises have one amplitude for all steps
    loss: from fs.losses, by default Squared() with factor 1/2
    seed, keys [N]: of the draws, as in fs.Run; t0: number of the first step, so that calls one after the other have the
        draws of one long run
    lost [N] int64: flags from the call before, which are gone on with: -1, or the step at which a network was lost
    buffers [N, K, P]: what the rule carries from step to step, also changed in place; `fresh_buffers` makes them
    threads: 1 .. 4096
    Returns lost [N] int64. Keep `model`, `rule` and `loss` from call to call: a call with new ones plans anew, which
    takes a millisecond. After Ctrl-C in the middle params are worth nothing.
    Raises SpecError, PlanError or BackendUnavailable before anything is moved.
    """
    W = in_place(params, "params", (None, None))
    (N, P), dtype = W.shape, NAMES[W.dtype]
    X, y = plain(X, "X", dtype, (2,)), plain(y, "y", dtype, (1, 2))
    if not len(X):
        raise SpecError(f"X: has shape {X.shape}, expected at least one point")
    indices, order, T = _order(order, steps, N, len(X))
    base, multiplier = _step_size(step_size, N, T, dtype)
    t0 = t0 if type(t0) is int and 0 <= t0 < 2**34 else whole(t0, "t0", 0, 2**34 - 1)
    if rule is None:
        rule = _sgd(1 if indices is None else indices.shape[2])
    made = _template(model, rule, _SQUARED if loss is None else loss, order, X, y, indices, W, dtype, t0 + T, seed,
                     threads)
    run = made.plan.run
    why = run.loss.refuse(run.model.outputs, y)
    if why or len(X) != len(y):
        raise SpecError(f"y: {why or f'has {len(y)} labels, X has n={len(X)} points'}")
    lost = filled(-1, N, np.int64) if lost is None else in_place(lost, "lost", (N,), ("int64",))
    if made.carried and buffers is None:
        raise SpecError(f"buffers: missing; {type(rule).__name__} carries {', '.join(made.carried)} from step to step; "
                        "make them once with fs.functional.fresh_buffers(rule, params), and give them at every call")
    if buffers is not None and not made.carried and np.size(buffers):
        raise SpecError(f"buffers: given, but {type(run.rule).__name__} carries nothing from step to step; leave them "
                        "out")
    buffers = made.none if buffers is None else in_place(buffers, "buffers", (N, len(made.carried), P), (dtype,))
    keys = made.plan.ids if keys is None else _keys(keys, N)
    row = made.plan.row if len(multiplier) == 1 else np.arange(N, dtype=np.int32)
    state = made.state(like(made.plan, base=base, row=row, keys=keys), W, lost, buffers, X, y)
    for begin in range(0, T, made.stretch):
        end = min(T, begin + made.stretch)
        noise = {name: np.ascontiguousarray(table(0, end - begin), dtype)
                 for name, (_, _, table) in made.plan.noises.items()}
        segment = Segment(t0 + begin, t0 + end, multiplier, indices, noise)
        if end - begin < T:
            segment = Segment(t0, t0 + T, multiplier, indices, noise).part(t0 + begin, t0 + end)
        if indices is None and made.plan.work.ragged:
            segment = like(segment, counts=made.plan.counts(t0 + begin, t0 + end))
        made.backend.advance(state, segment)
        settle(made.backend, state, segment)
    made.states.append(state)
    return lost


def fresh_buffers(rule: Any, params: Any) -> Any:
    """Buffers [N, K, P] of a rule before its first step, for networks params [N, P]; of the kind of params.

    The average of the weights and the point of a localisation begin at the weights, everything else at 0. K is 0 where
    the rule carries nothing.
    """
    if not isinstance(rule, Rule):
        raise SpecError(f"rule: {what_is(rule)} given, expected a rule of fs.rules, e.g. SGD(momentum=0.9)")
    W = as_array(params, "params", ndim=2, kinds="f")
    return alike(params, rule.begin(np.zeros((len(W), len(rule.buffers()), W.shape[1]), W.dtype), W))


def start(model: Any, networks: int, *, seed: int = 0, keys: Any = None, dtype: str = "float32") -> np.ndarray:
    """Starting weights [N, P] that `fs.train` gives to networks 0 .. N - 1, as NumPy.

    networks: N >= 1; seed: 0 <= seed < 2**64; keys [N]: whose draws they have, by default their own
    dtype: "float32" or "float64"
    """
    N, d = whole(networks, "networks", 1, 2**32), family(model).d
    data = Dataset(np.zeros((1, d), np.int64), np.zeros((1, model.outputs)[:1 + (model.outputs > 1)], np.int64))
    return make_plan(Run(model, data, GD(), 1.0, 1, networks=N, seed=seed, dtype=dtype, backend="reference",
                         keys=keys)).start


# ---- the parts of a call


@record()
class _Made:
    """A plan that stands for all calls of its kind.

    carried: names of the rule's buffers; none [N, K, P]: in the place of buffers where K is 0
    stretch: most steps of a launch; given: what the plan was made of, which must not go away meanwhile
    states: of the backend, not in use; a call takes one for itself
    """

    plan: Plan
    backend: object
    carried: tuple
    none: np.ndarray
    stretch: int
    given: tuple
    states: list = field(default_factory=list)

    def state(self, plan, weights, lost, buffers, X, y):
        """A state of the backend on these very arrays, with a copy of the samples."""
        try:
            state = self.states.pop()
        except IndexError:
            state = self.backend.load(plan, weights[:0], lost[:0], buffers[:0]).own()
        state.plan, state.weights, state.lost, state.buffers = plan, weights, lost, buffers
        state.give(X, y)
        return state


_templates = {}


def _template(model, rule, loss, order, X, y, indices, W, dtype, until, seed, threads):
    """The _Made of a call, from the last one of its kind if there was one."""
    bits = (until - 1).bit_length()
    key = (id(model), id(rule), id(loss), order, None if indices is None else indices.shape[::2], W.shape, dtype,
           X.shape, y.shape[1:], bits, seed, threads)
    made = _templates.get(key)
    if made is None:
        in_place(W, "params", (None, family(model).P))  # a length that is legal is asked for once
        made = _make(model, rule, loss, order, X, y, indices, len(W), dtype, 1 << bits, seed, threads)
        if len(_templates) >= MOST:
            _templates.clear()
        _templates[key] = made
    return made


def _make(model, rule, loss, order, X, y, indices, N, dtype, steps, seed, threads):
    if not isinstance(rule, Rule) or rule.whole_run:
        raise SpecError(f"rule: {what_is(rule)} given, expected a rule of fs.rules that needs to know nothing of "
                        "the whole run, e.g. SGD(), GD(), SAM() or Adam(); fs.train takes every rule")
    if any(not isinstance(noise.sigma, Constant) for noise in rule.noises().values()):
        raise SpecError("rule: a noise has a schedule, which needs to know the whole run; give one number, or [N]")
    given = (model, rule, loss)
    if indices is not None:
        if rule.full or indices.shape[2] != rule.batch(len(X)):
            raise SpecError(f"order: has {indices.shape[2]} samples a step, {type(rule).__name__} takes "
                            f"{'all; give steps=... alone' if rule.full else rule.batch(len(X))}")
        order = Common() if len(indices) == 1 else order  # one row for all networks, whatever it holds
    run = Run(model, Dataset(X, y), rule, 1.0, steps, networks=N, order=order, loss=loss, dtype=dtype, backend="cpu",
              seed=seed)
    plan = make_plan(run, Tuning(threads=threads, compiled=False))  # nobody knows how many steps will come
    backend = backends.by_name(plan.backend)
    each = backend.table_bytes(plan) if indices is None else 0
    object.__setattr__(plan, "start", None)
    none = np.empty((N, len(rule.buffers()), model.P), dtype)
    return _Made(plan, backend, tuple(rule.buffers()), none, plan.most_steps(each), given)


def _sgd(batch):
    """The plain SGD of a batch, always the same one."""
    if batch not in _SGD:
        _SGD[batch] = SGD(batch_size=batch)
    return _SGD[batch]


def _order(order, steps, N, n):
    """(indices [1 or N, T, B] uint32 or None, order record, T)."""
    if order is None or isinstance(order, (PerNetwork, Common, Reshuffle)):
        if steps is None:
            raise SpecError("steps: missing; give it, or indices [T], [N, T] or [N, T, B] as order")
        return None, _OWN if order is None else order, whole(steps, "steps", 1, 2**34)
    if type(order) is not np.ndarray and isinstance(order, (Replay, type)):
        raise SpecError(f"order: {what_is(order)} given, expected indices [T], [N, T] or [N, T, B] as an array, or "
                        "fs.orders.PerNetwork(), Common() or Reshuffle(), with steps")
    table = as_array(order, "order", ndim=(1, 2, 3), kinds="iu")
    table = table.reshape((1,) * (table.ndim == 1) + table.shape + (1,) * (table.ndim < 3))
    if len(table) not in (1, N) or not table.size:
        raise SpecError(f"order: has shape {np.shape(order)}, expected [T], [N, T] or [N, T, B] with N = {N}; "
                        "batches [T, B] that all networks share are order[None]")
    indices = native().indices(table, n)  # NumPy's least and largest take longer than a short call
    if indices is None:
        raise SpecError(f"order: holds {table.min() if table.min() < 0 else table.max()}, legal are 0 .. {n - 1} "
                        f"(n={n} points)")
    if steps not in (None, table.shape[1]):
        raise SpecError(f"steps: {steps} given, order has {table.shape[1]}; leave steps out")
    return indices, _OWN, table.shape[1]


def _step_size(value, N, T, dtype):
    """(base [N] float64, multiplier [1 or N, T] in dtype)."""
    if value is None:
        raise SpecError("step_size: missing, expected a number, [N], or a table [1, T] or [N, T]")
    always = np.empty((1, T), dtype)
    always.fill(1)
    if type(value) is float and 1e-30 < value < 1e30:
        return filled(value, N, np.float64), always
    if isinstance(value, Schedule) or callable(value):
        raise SpecError(f"step_size: {what_is(value)} given, expected a number, [N], or a table [1, T] or [N, T] of "
                        "its values at the steps; fs.train takes schedules")
    array = as_array(value, "step_size", ndim=(0, 1, 2))
    if array.ndim == 2:
        if array.shape not in ((1, T), (N, T)) or not (np.isfinite(array).all() and array.min() >= 0):
            raise SpecError(f"step_size: table of shape {array.shape}, expected {(1, T)} or {(N, T)} of finite numbers "
                            ">= 0")
        return np.ones(N), np.ascontiguousarray(array, dtype)
    base = per_network(array, "step_size", 0, low_open=True).astype(np.float64)
    if base.ndim and len(base) != N:
        raise SpecError(f"step_size: has length {len(base)}, params have N={N} networks; a table of steps is [1, T]")
    base = np.array(np.broadcast_to(base, (N,)))
    with np.errstate(over="ignore", under="ignore"):
        cast = base.astype(dtype)
    if not ((cast > 0) & (cast < np.inf)).all():
        raise SpecError(f"step_size: becomes 0 or infinite in {dtype}; rescale it, or take params of float64")
    return base, always


def _keys(keys, N):
    keys = as_array(keys, "keys", ndim=1, kinds="iu")
    if keys.shape != (N,) or keys.min() < 0 or keys.max() >= 2**32:
        raise SpecError(f"keys: expected {N} whole numbers >= 0 and < 2**32")
    return keys.astype(np.int64)
