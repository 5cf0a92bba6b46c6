"""Owns the opponents on a card: JAX's jit(vmap(scan)), and batched torch, eager, compiled and in CUDA graphs.

Each begins with the weights that fastsgd begins with and must come near the CPU's answer before it is timed. Samples
lie on the card before the clock starts, and every call is warm and waited for. `warm` only fills compilers' caches.
"""

import os
import sys
import time

import numpy as np

import fastsgd as fs
from bench.cases import Case
from bench.harness import Gap, WrongAnswer, error_of
from bench.torch_opponents import TorchBatched

from . import CHECKED, REHEARSAL, begin, run_of, sized, start_of, systems
from .rows import attempt, keep
from .speed import STEPS, seconds_of

NEAR = 1e-2  # of a displacement: what other arithmetic in float32 may differ by
CALL = 32  # steps of a call of torch, and of its CUDA graph


def sizes():
    return sized((100_000, 1_000_000), (CHECKED,))


def near(answer, system, what):
    """Raise WrongAnswer unless CHECKED networks are after CHECKED steps where the CPU has them."""
    model, few = system[0], start_of(system, CHECKED)
    truth = fs.train(run_of(system, CHECKED, CHECKED, backend="cpu")).weights
    error = error_of(answer, truth, model.flatten(few, CHECKED))
    if error > NEAR:
        raise WrongAnswer(f"{what}: relative error {error:.1e} of the displacement, at most {NEAR:.0e} is legal")
    return error


def checked_order(system):
    """Samples [CHECKED networks, CHECKED steps] that fastsgd draws."""
    return fs.orders.PerNetwork().indices(0, np.arange(CHECKED), 0, CHECKED, system[1].n, 1)[..., 0].astype(np.int32)


# ---- JAX


def jax_scan(name, system, N, unroll, T):
    """jit(vmap(scan)) of a step differentiated by jax.grad, compiled before."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else it takes most of the card for itself
    import jax

    if not REHEARSAL and jax.default_backend() == "cpu":
        raise Gap("JAX sees no card")
    jax.config.update("jax_default_matmul_precision", "highest")  # float32, as asked
    jnp = jax.numpy
    model, data, step_size = system
    X, y = jnp.asarray(data.X), jnp.asarray(data.y)

    def loss(w, i):
        out = (w["u"] * w["v"]) @ X[i] if "u" in w else (w["W2"] @ jax.nn.relu(w["W1"] @ X[i]))[0]
        return 0.5 * (out - y[i]) ** 2

    def step(w, i):
        return jax.tree.map(lambda a, g: a - step_size * g, w, jax.grad(loss)(w, i)), None

    many = jax.jit(jax.vmap(lambda w, order: jax.lax.scan(step, w, order, unroll=unroll)[0]))

    def device(start):
        return {name: jnp.asarray(a) for name, a in start.items()}

    answer = many(device(start_of(system, CHECKED)), jnp.asarray(checked_order(system)))
    error = near(model.flatten({name: np.asarray(a) for name, a in answer.items()}, CHECKED), system, "JAX")
    start, order = device(start_of(system, N)), jax.random.randint(jax.random.key(0), (N, T), 0, data.n)

    def seconds():
        began = time.perf_counter()
        jax.block_until_ready(many(start, order))
        return time.perf_counter() - began

    seconds()
    keep(name, f"JAX jit(vmap(scan)), unrolled {unroll}", STEPS, [N * T / seconds() for _ in range(sized(4, 1))], N, T,
         f"error {error:.0e}")


def jax():
    for N in sizes():
        for name, system in systems().items():
            for unroll in (1, 8):
                attempt(jax_scan, name, system, N, unroll, sized(128, 16))


# ---- torch


class OnCard(TorchBatched):
    """The batched steps of bench/torch_opponents.py on tensors of the card."""

    device = "cpu" if REHEARSAL else "cuda"

    def __init__(self, name):
        model, data, step_size = systems()[name]
        self.case = Case(name, name, model, data, step_size, tolerance=NEAR)

    def begin(self, N, columns):
        """Parameters {name: tensor} of N networks, the networks first or, in columns, last."""
        import torch

        flat = {name: torch.from_numpy(a).to(self.device) for name, a in start_of(systems()[self.case.name], N).items()}
        return {k: (a.movedim(0, -1) if columns else a).contiguous().clone() for k, a in flat.items()}


def torch_batched(name, N, kind, how):
    """how: eager, graph, compiled, or compiled graph."""
    import torch

    made, columns, system = OnCard(name), kind == "columns", systems()[name]
    step = made.step(made.case, kind)
    if "compiled" in how:
        step = torch.compile(step, dynamic=False)
    X, y = (torch.from_numpy(np.array(a)).to(made.device) for a in (made.case.data.X, made.case.data.y))
    if columns:
        X = X.T.contiguous()

    def many(params, order):
        for i in order:
            params = step(X, y, i, params) or params
        return params

    with torch.inference_mode():
        few = torch.from_numpy(checked_order(system).T.astype(np.int64).copy()).to(made.device)
        params = many(made.begin(CHECKED, columns), few if columns else few[..., None])
        rows = [params[k].movedim(-1, 0) if columns else params[k] for k in system[0].shapes()]
        error = near(torch.cat([a.reshape(CHECKED, -1) for a in rows], 1).cpu().numpy(), system, f"torch, {kind}")
        order = torch.randint(made.case.data.n, (CALL, N) if columns else (CALL, N, 1), device=made.device)
        params = made.begin(N, columns)
        params = many(params, order[:2])  # compiles for this many networks
        if "graph" in how:
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for k, a in many(params, order).items():
                    if a is not params[k]:
                        params[k].copy_(a)
            call = graph.replay
        else:
            holder = [params]

            def call():
                holder[0] = many(holder[0], order)

        keep(name, f"torch batched by hand, {kind}, {how}", STEPS, [N * CALL / spent for spent in seconds_of(call)], N,
             CALL, f"error {error:.0e}")


def torch():
    ways = sized((("columns", "eager"), ("columns", "graph"), ("plain", "compiled graph"), ("rows", "graph")),
                 (("rows", "eager"), ("columns", "eager")))
    for N in sizes():
        for name in systems():
            for kind, how in ways:
                attempt(torch_batched, name, N, kind, how)


def warm():
    """Compile what `torch` will time; rows of this part mean nothing, for others use the card meanwhile."""
    for N in sizes():
        for name in systems():
            attempt(torch_batched, name, N, "plain", "compiled")


if __name__ == "__main__":
    begin()
    {"jax": jax, "torch": torch, "warm": warm}[sys.argv[1]]()
