"""Owns how a torch function becomes a graph: it runs once on tensors without numbers, and what it does is noted.

Tensors on torch's "meta" device have a shape and a dtype but no numbers. A branch that depends on numbers, `.item()` or
`.numpy()` raises there, where on real tensors it would be baked into the graph unseen.
"""

import linecache
import sys
import warnings
from pathlib import Path

import numpy as np

from ..errors import FastsgdError
from . import graph
from .graph import const, leaf, view

OURS = str(Path(__file__).parents[1])
PAGE = "docs/own.md lists what is allowed; backend='reference' runs whatever torch.func.vmap takes"


class Untraceable(Exception):
    """A function has no graph: what it does, where, and why that has no kernel."""


def line_of(error):
    """The user's line at which an exception was raised."""
    return where(_traceback(error))


def where(frames):
    """The user's line, out of (file, line) pairs with the innermost last."""
    import torch

    for file, line in reversed(list(frames)):
        if not file.startswith((OURS, str(Path(torch.__file__).parent))) and not file.startswith("<frozen"):
            text = linecache.getline(file, line).strip()
            return f"{file}:{line}" + (f" ({text})" if text else "")
    return "an unknown line"


def _stack():
    frame, out = sys._getframe(1), []
    while frame is not None:
        out.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return reversed(out)


def _traceback(error):
    tb, out = error.__traceback__, []
    while tb is not None:
        out.append((tb.tb_frame.f_code.co_filename, tb.tb_lineno))
        tb = tb.tb_next
    return out


def here():
    """The user's line that runs."""
    return where(_stack())


def refuse(operator, why):
    """Raise Untraceable for an operator at the user's line."""
    raise Untraceable(f"{here()}: {operator.replace('torch._', 'torch.')}: {why}; {PAGE}")


def trace(function, leaves, watch=None):
    """What function(*tensors) returns, with a Node in the place of every tensor that depends on them or on nothing.

    leaves: {name: shape} in the order of the function's arguments
    watch: a function of (operator, node), called for every operator, which may raise an error of fastsgd
    Raises Untraceable.
    """
    import torch

    recorder = _recorder_class()(watch)
    tensors = []
    for name, shape in leaves.items():
        tensors.append(torch.empty(shape, dtype=torch.float64, device="meta"))
        recorder.put(tensors[-1], leaf(name, shape))
    try:
        with torch.no_grad(), recorder:
            made = function(*tensors)
    except (Untraceable, FastsgdError):
        raise
    except Exception as error:
        cause = error
        while cause is not None and not isinstance(cause, Untraceable):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise cause from None
        raise Untraceable(f"{where(_traceback(error))}: {type(error).__name__}: {error}; it runs on tensors without "
                          f"numbers, so that nothing may depend on one but by torch's operators; {PAGE}") from error

    def node(value):
        if isinstance(value, torch.Tensor):
            return recorder.node(value)
        if isinstance(value, dict):
            return {str(name): node(part) for name, part in value.items()}
        if isinstance(value, (tuple, list)):
            return tuple(node(part) for part in value)
        return const(value) if isinstance(value, (int, float)) else value

    return node(made)


def _recorder_class():
    """The class, made when torch is there."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_flatten, tree_map

    from .operators import RULES, moved, picks

    class Recorder(TorchDispatchMode):
        """Notes a node for each tensor that comes out of an operator; tensors are kept, so that an id means one."""

        def __init__(self, watch=None):
            super().__init__()
            self.nodes, self.kept, self.watch = {}, [], watch

        @classmethod
        def _should_skip_dynamo(cls):
            """No: to skip its compiler here torch would import it, which takes three seconds."""
            return False

        def put(self, tensor, made):
            if tuple(tensor.shape) != made.shape:
                raise AssertionError(f"shape {tuple(tensor.shape)} traced as {made.shape}")
            self.nodes[id(tensor)] = made
            self.kept.append(tensor)

        def node(self, value):
            """The node of a tensor, or of a number or a tensor that was there before: a constant."""
            if not isinstance(value, torch.Tensor):
                return const(float(value))
            if id(value) in self.nodes:
                return self.nodes[id(value)]
            if value.device.type == "meta":
                refuse("a tensor on the device 'meta'", "it was not made by an operator with a rule")
            if value.is_complex():
                refuse("a complex tensor", "kernels have real numbers")
            return const(value.detach().cpu().to(torch.float64).numpy())

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            name = func._schema.name.partition("::")[2]
            if torch.Tag.nondeterministic_seeded in func.tags:
                refuse(f"torch.{name}", "random numbers; noise is the rule's to add")
            flat, _ = tree_flatten((args, kwargs))
            traced = [a for a in flat if isinstance(a, torch.Tensor) and id(a) in self.nodes]
            if not traced:
                return self.made_beside(func, args, kwargs)
            if name in ("_local_scalar_dense", "is_nonzero", "equal"):
                refuse("a number out of a tensor (.item(), float(), if, while)", "a branch, a loop or a shape could "
                       "depend on it; say it with torch.where")
            if func._schema.is_mutable:
                refuse(f"torch.{name}", "it changes a tensor in place; say it without")
            dtypes = {kwargs.get("dtype")} | {a.dtype for a in traced if self.nodes[id(a)].op != "const"}
            if dtypes & {torch.float32, torch.float16, torch.bfloat16}:
                refuse(f"torch.{name}", "it asks for a precision; kernels compute in the run's dtype")
            rule, chosen = RULES.get(name), picks(self, name, args)
            with _quiet():
                out = self.shaped(func, args, kwargs) if rule or chosen or moved(name) else None
            if chosen:
                made = chosen(self, args, out)
            elif moved(name):
                made = _moved(self, func, name, args, kwargs)
            elif rule:
                made = rule(self, args, kwargs, out)
            else:
                return self.taken_apart(func, name, args, kwargs)
            pairs = zip(out, made, strict=True) if isinstance(out, (tuple, list)) else ((out, made),)
            for tensor, one in pairs:
                if one is not None:
                    self.put(tensor, one)
                    if self.watch:
                        self.watch(f"torch.{name.removeprefix('_')}", one)
            return out

        def shaped(self, func, args, kwargs):
            """What an operator makes of its arguments, without numbers: it is given zeros, and constants as they are.

            torch's own way on the device "meta" is written in Python, and imports the compiler at its first use.
            """
            def numbers(a):
                if not isinstance(a, torch.Tensor) or a.device.type != "meta":
                    return a
                if self.nodes[id(a)].op == "const":
                    return torch.tensor(self.nodes[id(a)].attr).to(a.dtype)
                length = sum(stride * (n - 1) for n, stride in zip(a.shape, a.stride(), strict=True)) + 1
                return torch.zeros(max(length, 0), dtype=a.dtype).as_strided(a.shape, a.stride())

            def empty(a):
                return torch.empty_strided(a.shape, a.stride(), dtype=a.dtype, device="meta")

            given = tree_map(numbers, (args, kwargs))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they are of how numbers would be computed
                out = func(*given[0], **given[1])
            return tree_map(lambda a: empty(a) if isinstance(a, torch.Tensor) else a, out)

        def made_beside(self, func, args, kwargs):
            """The result of an operator that no argument enters: it is computed, and is a constant of the graph."""
            if str(kwargs.get("device")) != "meta":
                return func(*args, **kwargs)
            with _quiet():
                real = func(*args, **(kwargs | {"device": "cpu"}))
                out = real.to("meta")
            self.put(out, self.node(real))
            return out

        def taken_apart(self, func, name, args, kwargs):
            """The result of an operator that torch writes in terms of others."""
            if name not in NEVER:
                with self:
                    out = func.decompose(*args, **kwargs)
                if out is not NotImplemented:
                    return out
            from torch._decomp import decomposition_table

            parts = decomposition_table.get(func)
            if parts is None or name in NEVER:
                refuse(f"torch.{name}", NEVER.get(name, "it has no rule"))
            with self:
                return parts(*args, **kwargs)

    return Recorder


NEVER = {"native_batch_norm": "batch norm couples samples and keeps running statistics",
         "_native_batch_norm_legit": "batch norm couples samples and keeps running statistics",
         "_native_batch_norm_legit_no_training": "batch norm keeps running statistics",
         "cudnn_batch_norm": "batch norm couples samples and keeps running statistics"}


def _quiet():
    from torch.utils._python_dispatch import _disable_current_modes

    return _disable_current_modes()


def _moved(recorder, func, name, args, kwargs):
    """Views of one tensor: what the operator does to its positions."""
    import torch

    from .operators import PADDED

    node = recorder.node(args[0])
    lift = int(name in PADDED)  # zero stands for what comes in
    index = torch.from_numpy(np.asarray(graph.positions(node) + lift))
    with _quiet():
        got = func(index, *args[1:], **kwargs)
    several = isinstance(got, (tuple, list))
    made = [view(node, part.numpy() - lift) for part in (got if several else [got])]
    return made if several else made[0]
