"""Owns what is traced of a run: graphs of a user's own model, loss, penalty or rule, their libraries, compared."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..errors import BackendUnavailable, FastsgdError
from ..losses import Function as FunctionLoss
from ..models.function import Function
from ..spec.kinds import kind_of
from ..trace import check, compiler, programs
from ..trace import rule as own_rules
from ..trace.graph import INPUT
from .own import labels, records

DTYPES = ("float32", "float64")
LOOKED_AT = 2  # networks at the start, and rows of the data, at which a graph is compared with torch


@dataclass(eq=False)
class Part:
    """A Program of a run, or why there is none; outcome: of comparing it with torch, None before that or without it."""

    program: object = None
    why: str | None = None
    outcome: object = None


_PARTS = {}  # {id of a model, loss, penalty or rule: (weak reference to it, {what it was traced for: Part})}


def parts(run):
    """{"model", "teacher", "loss", "penalty", "rule": Part} of what of a run is traced."""
    model = run.model
    trained = tuple(name for name in model.shapes() if model.trained(name))
    how = {"model": (None, _model), "teacher": (None, _model), "loss": ((model.outputs, labels(run)), _loss),
           "penalty": ((tuple(model.shapes().items()), trained), _penalty), "rule": (None, _rule)}
    return {what: _part(record, *how[what]) for what, record in records(run).items()}


def _part(record, key, make):
    number = id(record)
    if number not in _PARTS:
        _PARTS[number] = weakref.ref(record, lambda _: _PARTS.pop(number, None)), {}
    known = _PARTS[number][1]
    if key not in known:
        try:
            known[key] = Part(make(record, key))
        except programs.Untraceable as why:
            known[key] = Part(why=str(why))
    return known[key]


def _graph(record):
    """The graph that a record of ours has. Raises Untraceable where it has none."""
    if record.nodes() is None:
        raise programs.Untraceable(record.why_not())
    return record.nodes()


def _model(model, _):
    shapes = model.shapes()
    trained = [name for name in shapes if model.trained(name)]
    if kind_of(model) is Function:
        f = _graph(model)["f"]
    else:
        graph, _ = programs.model_graph(lambda params, x: model.forward(params, x[None])[0], shapes, model.d)
        f = graph["f"]
    return programs.model_program(f, shapes, trained, model.d)


def _loss(loss, key):
    outputs, label_shape = key
    own = {name: loss.shape(name) for name in loss.own()}

    def of(*numbers):
        return loss.having(dict(zip(own, numbers, strict=True)))

    graph = _graph(loss) if kind_of(loss) is FunctionLoss else programs.loss_graph(
        lambda f, y, *numbers: of(*numbers).value(f[None], y[None], outputs),
        lambda f, y, *numbers: of(*numbers).gap(f[None], y[None]), outputs, label_shape, own)
    return programs.loss_program(graph, outputs, label_shape, own)


def _penalty(penalty, key):
    shapes, trained = key
    return programs.penalty_program(_graph(penalty), dict(shapes), trained)


def _rule(rule, _):
    return programs.rule_program(_graph(rule), rule.leaves)


def _function(run, what):
    """The torch function {leaf: tensor} -> value that was traced, None where it is not here."""
    if what == "penalty":
        return run.rule.penalty.function
    if what == "rule":
        return run.rule.function and (lambda leaves: _several(run.rule, leaves))
    if what == "loss":
        loss, own = run.loss, run.loss.own()

        def having(leaves):
            return loss.having({name: leaves[name] for name in own})

        if kind_of(loss) is FunctionLoss:
            return loss.function and (lambda leaves: having(leaves)._one(leaves["f"], leaves["y"]))
        return lambda leaves: having(leaves).value(leaves["f"][None], leaves["y"][None], run.model.outputs)
    model = run.model if what == "model" else run.data.teacher
    shapes = model.shapes()
    if kind_of(model) is Function:
        return model.function and (lambda leaves: model._f({name: leaves[name] for name in shapes}, leaves[INPUT]))
    # at three inputs together, of which each must be on its own
    return lambda leaves: model.forward({name: leaves[name] for name in shapes}, _beside(leaves[INPUT]))[0]


def _several(rule, leaves):
    """What becomes of one parameter and its state [1 + states]; beside it the function has another."""
    import torch

    own = {name: torch.stack([a, 0.5 - a]) if own_rules.of_parameter(name) else a for name, a in leaves.items()}
    return torch.stack([part[0] for part in rule.called(own)])


def _beside(x):
    import torch

    return torch.stack([x, 0.5 - x, 2.0 * x + 1.0])


# ---- compiled and checked


def why_not(run, module):
    """None once everything that is traced is compiled and checked, else a sentence."""
    try:
        for what, part in parts(run).items():
            if part.why is not None:
                return f"it has no kernel for the {what} {_called(run, what)}: {part.why}"
            function = _function(run, what) if part.outcome is None else None
            if function is not None:
                part.outcome = check.against_torch(part.program, function, _points(run, what))
        libraries(run, module)
    except BackendUnavailable as error:
        return str(error)
    return None


def _called(run, what):
    """The class of what was to be traced."""
    made = {"model": run.model, "loss": run.loss, "penalty": run.rule, "rule": run.rule}
    return type(made.get(what, run.data)).__name__


def _points(run, what):
    """Points of a run at which a graph is compared with torch: the start, and rows of the data."""
    if what == "rule":
        return _moments(run.rule)
    if what not in ("model", "penalty"):
        return ()
    model, data = run.model, run.data
    try:
        if run.init is not None:
            first = {name: np.asarray(a[0] if a.ndim > len(model.shapes()[name]) else a, np.float64)
                     for name, a in run.init.items()}
            starts = [first]
        else:
            ids = np.arange(LOOKED_AT) if run.ids is None else np.asarray(run.ids[:LOOKED_AT])
            flat = model.start(run.seed, ids)
            starts = [model.unflatten(row) for row in np.asarray(flat, np.float64)]
    except (FastsgdError, IndexError, KeyError):  # the plan has more to say about these
        starts = []
    rows = [np.asarray(x, np.float64) for x in data.rows.X[:LOOKED_AT]] if data.n else [np.full(model.d, 0.3)]
    if what == "penalty":
        return starts
    return [start | {INPUT: row} for start in starts for row in rows]


def _moments(rule):
    """Points of a rule: its constants and its state's start, at the first steps and later."""
    numbers = {own_rules.CONSTANT: rule.constants, own_rules.STATE: rule.state}
    known = {f"{kind}{name}": np.float64(np.ravel(a)[0]) for kind, of in numbers.items() for name, a in of.items()}
    return [known | {own_rules.P: np.float64(0.3), own_rules.G: np.float64(g), own_rules.LR: np.float64(0.1),
                     own_rules.T: np.float64(t)} for g, t in ((0.7, 0), (-0.4, 1), (0.2, 1000))]


def libraries(run, module):
    """{(what, dtype): (Program, Library)}, compiled where they are not, and checked."""
    wanted = [(what, part.program, dtype) for what, part in parts(run).items() for dtype in DTYPES
              if dtype == "float64" or run.dtype == dtype]

    def made(one):
        what, program, dtype = one
        width = module.lanes[dtype]
        library = compiler.library(program.text, program.kind, dtype, module.isa, width)
        return (what, dtype), (program, library)

    if not wanted:
        return {}
    with ThreadPoolExecutor(len(wanted)) as pool:
        out = dict(pool.map(made, wanted))
    for (_, dtype), (program, library) in out.items():
        if not library.checked:
            check.compiled(program, library, dtype, module.lanes[dtype])
            library.note_checked()
    return out


def explain(run, module):
    """Sentences about what was traced, compiled and checked, and in how many seconds."""
    known, out = parts(run), []
    for (what, dtype), (program, library) in libraries(run, module).items():
        if dtype != run.dtype:
            continue
        outcome = known[what].outcome
        torch = (f"equal to torch.autograd at {outcome.points} points (largest difference {outcome.worst:.0e})"
                 if outcome else "its function is not here, the graph counts")
        made = f"compiled in {library.seconds:.2f} s" if library.seconds else "compiled before"
        unused = f"; nothing depends on {', '.join(program.unused)}" if program.unused else ""
        out.append(f"{what} traced: {program.operations} operations, {torch}; {made}, checked against it{unused}")
    return tuple(out)
