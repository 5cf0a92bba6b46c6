"""Owns what the CPU kernels' general loop is told: any family, loss and rule as one dict of sizes, words and arrays."""

import numpy as np

from ..models import MLP, DiagonalLinear, DiagonalPower, DiagonalProduct, ReLU2, TiedAutoencoder
from ..orders import Common
from ..spec.kinds import kind_of, unknown
from ..spec.problem import Fresh
from . import traced


def family(model):
    """The model as the general loop knows it, None without a kernel. Two families are special cases of others."""
    kind = kind_of(model)
    if kind is MLP:
        names = [(f"W{k + 1}", f"b{k + 1}") for k in range(model.layers)]
        return {"family": "dense", "sizes": model.sizes, "bias": model.bias, "multipliers": model.multipliers,
                "weights_trained": tuple(model.trained(W) for W, _ in names),
                "biases_trained": tuple(model.trained(b) for _, b in names),
                "activation": model.activation, "slope": model.slope}
    if kind is ReLU2:
        return family(MLP(model.d, model.width, bias=(model.hidden_bias, model.output_bias)))
    if kind is DiagonalLinear:
        return {"family": "product", "d": model.d, "depth": 2, "h": 0, "on": 0}
    if kind is DiagonalProduct:
        return {"family": "product", "d": model.d, "depth": model.depth, "h": 0, "on": 0}
    if kind is DiagonalPower:
        return {"family": "power", "d": model.d, "depth": model.depth, "h": 0, "on": int(model.signed)}
    if kind is TiedAutoencoder:
        return {"family": "autoencoder", "d": model.d, "depth": 0, "h": model.width, "on": int(model.bias)}
    return None


def why_not(run, own=False):
    """None, or a sentence saying why the general loop cannot do this run.

    own: whether models, losses and penalties of a user's own count as known, since they are traced; see traced.py
    """
    if family(run.model) is None and not own:
        return f"it has no kernel for the family {type(run.model).__name__}"
    if isinstance(run.data, Fresh) and run.data.teacher is not None and not own and (
            family(run.data.teacher) is None):
        return f"it has no kernel for a teacher of the family {type(run.data.teacher).__name__}"
    if own:
        return unknown(rule=run.rule, order=run.order, data=run.data)
    if run.loss.name == "function":
        return "it has no kernel for a loss of your own"
    if run.rule.penalty is not None:
        return "it has no kernel for a penalty of your own"
    return unknown(rule=run.rule, loss=run.loss, order=run.order, data=run.data)


def block_bytes(module, run):
    """Scratch of one thread."""
    batch = 0 if run.rule.full or isinstance(run.data, Fresh) else run.rule.batch(run.data.n)
    penalty = _penalty(run, module)
    return getattr(module, f"general_bytes_{run.dtype}")(
        told(run, module), len(run.rule.buffers()), labels(run), batch, penalty["kept"] if penalty else 0)


def labels(run):
    """Numbers in a row of y."""
    return int(np.prod(traced.labels(run), dtype=int))


def told(run, module, dtype=None):
    """A run's model as the general loop is told of it: a family, or addresses of what was traced."""
    return family(run.model) or traced.shape(run, module, "model", dtype or run.dtype)


def _penalty(run, module):
    """A run's penalty as the general loop is told of it, None without one."""
    if run.rule.penalty is None:
        return None
    program, library = traced.libraries(run, module)["penalty", run.dtype]
    return {"kept": program.rows, **library.entries}


def _loss(run, module):
    """(the word for a run's loss, {its function where it was traced})."""
    if not traced.own_loss(run.loss):
        return run.loss.name, {}
    return "traced", traced.libraries(run, module)["loss", run.dtype][1].entries


def layout(N, threads, lanes):
    """(lanes, team) of N networks, and why. A vector's step takes three to four times as long as a number's."""
    if N <= 2 * threads:
        return (1, 1), f"{N} network(s) are sooner done one by one than as {lanes} lanes"
    return (lanes, 1), "the general loop, for any family, loss and rule, has one network a lane"


def advance(state, segment):
    """Move a CPU state over a Segment by the general loop."""
    plan, run = state.plan, state.plan.run
    dtype, rule, noises = run.dtype, run.rule, {}
    for name, record in rule.noises().items():
        base, row, _ = plan.noises[name]
        noises[name] = {"kind": record.kind, "one": getattr(record, "on", "") == "one",
                        "amplitude": (base.astype(dtype), row, segment.noise[name])}
    X, y, indices = state.samples(segment)
    loss, slope = _loss(run, state.module)
    weights = None if slope else getattr(run.loss, "weights", None)
    getattr(state.module, f"advance_general_{dtype}")({
        "shape": told(run, state.module), "lanes": plan.tuning.lanes, "threads": plan.tuning.threads,
        "t0": segment.t0, "t1": segment.t1, "ids": plan.keys, "W": state.weights, "buffers": state.buffers,
        "buffer_count": len(rule.buffers()), "lost": state.lost,
        "rate": (plan.base.astype(dtype), plan.row, segment.multiplier),
        **rule.traits(), "hyper": {name: a.astype(dtype) for name, a in plan.numbers.items()},
        "fixed": fixed(run.model),
        "label_noise": noises.get("label_noise"), "gradient_noise": noises.get("gradient_noise"),
        "loss": loss, **slope, "labels": labels(run), "penalty": _penalty(run, state.module),
        "factor": run.loss.factor, "bound": run.loss.bound(rule.lost_above, dtype),
        "loss_weights": None if weights is None else weights.astype(dtype),
        "fresh": _fresh(run, state.module) if isinstance(run.data, Fresh) else None, "X": X, "y": y, "indices": indices,
        "full": rule.full, "batch": 1 if rule.full else plan.batch,
        "common": run.order.network if isinstance(run.order, Common) else -1, "seed": run.seed})


def fixed(model):
    """[P] bool: parameters that stay as they are; None if there are none."""
    parts = [np.full(int(np.prod(shape)), not model.trained(name)) for name, shape in model.shapes().items()]
    fixed = np.concatenate(parts)
    return fixed if fixed.any() else None


def _fresh(run, module):
    data = run.data
    weights = None
    if data.teacher is not None:
        weights = data.teacher.flatten(data.weights, 1, "data.weights").astype(run.dtype)
    return {"inputs": data.inputs, "density": data.density, "weights": weights,
            "teacher": None if data.teacher is None else
            family(data.teacher) or traced.shape(run, module, "teacher", run.dtype)}
