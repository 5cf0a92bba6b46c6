"""Owns what of a run is a user's own: its model, loss, penalty, rule or teacher, which traced.py makes kernels of."""

from dataclasses import replace

from ..models.base import Model
from ..spec import loss as losses
from ..spec.kinds import kind_of
from ..spec.record import like


def labels(run):
    """Shape of one sample's labels."""
    y = run.data.rows.y
    if y is not None:
        return tuple(y.shape[1:])
    return () if run.model.outputs == 1 else (run.model.outputs,)


def bound(run):
    """The run with graphs for its loss and penalty, so that files have them."""
    changes = {}
    if hasattr(run.loss, "graph"):
        changes["loss"] = run.loss.bound_to(run.model.outputs, labels(run))
    penalty = getattr(run.rule, "penalty", None)
    if penalty is not None:
        made = penalty.bound_to(run.model.shapes())
        if made is not penalty:
            changes["rule"] = replace(run.rule, penalty=made)
    changes = {name: made for name, made in changes.items() if made is not getattr(run, name)}
    return like(run, **changes) if changes else run


def own_model(model):
    """Whether a model has no kernel of ours, but may be traced."""
    kind = kind_of(model)
    return kind is None or kind.form is Model.form


def own_loss(loss):
    """Whether a loss has no kernel of ours, but may be traced."""
    return kind_of(loss) not in losses.KINDS


def records(run):
    """{"model", "teacher", "loss", "penalty", "rule": record} of what of a run is traced."""
    teacher, penalty = getattr(run.data, "teacher", None), getattr(run.rule, "penalty", None)
    rule = kind_of(run.rule)
    own = {"model": own_model(run.model), "teacher": teacher is not None and own_model(teacher),
           "loss": own_loss(run.loss), "penalty": penalty is not None,
           "rule": rule is not None and "function" in rule.flags}
    made = {"model": run.model, "teacher": teacher, "loss": run.loss, "penalty": penalty, "rule": run.rule}
    return {what: made[what] for what, so in own.items() if so}


def parts(run):
    """{"model", "loss", "penalty", "rule", "teacher": traced.Part} of what of a run is traced."""
    return _traced().parts(run) if records(run) else {}


def why_not(run, module):
    """None once everything that is traced is compiled and checked, else a sentence."""
    return _traced().why_not(run, module) if records(run) else None


def libraries(run, module):
    """{(what, dtype): (Program, Library)}, compiled where they are not, and checked."""
    return _traced().libraries(run, module) if records(run) else {}


def explain(run, module):
    """Sentences about what was traced, compiled and checked, and in how many seconds."""
    return _traced().explain(run, module) if records(run) else ()


def shape(run, module, what, dtype):
    """A traced model as the general loop knows it."""
    program, library = libraries(run, module)[what, dtype]
    d, o = program.sizes
    return {"form": "traced", "P": program.layout.P, "inputs": d, "outputs": o, "residuals": program.rows,
            **library.entries}


def _traced():
    from . import traced  # and with it the tracer and what compiles, which a plain run does not need

    return traced
