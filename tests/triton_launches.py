"""Owns launches without a card: everything that Triton does for a launch but the launch itself, for an sm_90.

Run without TRITON_INTERPRET: prints [[kernel, warps, {argument: its type}], ...] as JSON, for every kernel.
"""

import json
from types import SimpleNamespace

import numpy as np
import torch
import triton
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime import driver
from triton.runtime.jit import JITFunction

import fastsgd as fs
from fastsgd import portable
from fastsgd.backends.triton import backend
from fastsgd.measure import place, tiles

M, R, F = fs.models, fs.rules, fs.metrics
SEEN = []


class Card:
    """What Triton asks of a driver before it launches."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=None):
        return 0


def only_first(src, target, options):
    """In the place of Triton's compile: its own code is made of the kernel; the rest is made in triton_aot.py."""
    backend, context = make_backend(target), ir.context()
    options = backend.parse_options(options | src.parse_options())
    ir.load_dialects(context)
    backend.load_dialects(context)
    src.make_ir(target, options, backend.get_codegen_implementation(options), backend.get_module_map(), context)
    return SimpleNamespace(src=src, metadata=options)


def only_compile(self, *args, grid, warmup, **options):
    """In the place of JITFunction.run: bind, specialise and compile."""
    made = RUN(self, *args, grid=grid, warmup=True, **options)
    assert made.metadata.enable_fp_fusion is False
    module = self.fn.__module__.removeprefix("fastsgd.kernels.")
    SEEN.append([f"{module}.{self.fn.__name__}", made.metadata.num_warps, dict(made.src.signature)])
    return made


RUN, JITFunction.run = JITFunction.run, only_compile
triton.compiler.compile = only_first


def go(model, rule=None, order=None, seed=2**64 - 5, metrics=()):
    """One step of three networks, and metrics, by the backend's own code on CPU tensors."""
    rng = np.random.default_rng(0)
    y = (model.outputs,) if model.outputs > 1 else ()
    shapes = (5, model.d), (5, *y), (4, model.d), (4, *y)
    data = fs.Dataset(*(rng.standard_normal(shape) for shape in shapes)).astype("float32")
    run = fs.Run(model, data, rule or R.SGD(), 0.1, 1, networks=3, order=order, seed=seed, backend="triton",
                 metrics=metrics)
    plan, one = fs.plan(run), backend.Triton()
    state = one.load(plan, plan.start, np.full(3, -1), plan.fresh_buffers())
    one.advance(state, plan.segment(0, 1))
    measured = place("triton", plan.work, plan.N).begin(plan)
    for metric in metrics:
        measured.measure(metric, plan.start)


if __name__ == "__main__":
    driver.set_active(Card())
    portable.why_none = backend._other_device = lambda *run: None
    backend.device_of = lambda run: torch.device("cpu")
    tiles.device_of = backend.device_of
    go(M.MLP(2, 5, outputs=2), R.SGD(label_noise=0.1))
    go(M.DiagonalLinear(3), order=fs.orders.Reshuffle(), seed=1)
    go(M.MLP(2, (20, 4)), R.SGD(batch_size=3), metrics=(F.TrainLoss(), F.NTK(), F.FeatureSparsity()))
    go(M.DiagonalLinear(3), R.SGD(momentum=0.5, gradient_noise=0.1))
    print(json.dumps(SEEN))
