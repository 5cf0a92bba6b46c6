"""Owns the providers: fastsgd and its opponents, each given the same data, start and draws outside the timed region.

A provider has `variants`, all of which are checked and tried and the fastest kept; `prepare` returns the function that
is timed, which starts from the same weights at every call; `answer` turns what it returned into weights [N, P].
Opponents that import much have files of their own, imported by the one process that plays them.
"""

from importlib import import_module

import numpy as np

from .peak import Absent, Copy, Peak


class Provider:
    """What the opponents share. cases(case): None, or why it does not play that one; work: network-steps of one call.

    answer(out, case): weights [N, P] in the order of the model's parameters
    """

    name, unit, first_T, most_networks = None, "network-steps/s", 64, None
    variants = ("",)

    def __init__(self, cores):
        self.cores = cores

    def versions(self):
        return {}

    def variants_for(self, case):
        return self.variants

    def work(self, N, T, out):
        return N * T


class Fastsgd(Provider):
    """One whole call of fs.train: planning, drawing and all."""

    name = "fastsgd"

    def versions(self):
        import fastsgd

        return {"fastsgd": fastsgd.__version__, "numpy": np.__version__}

    def plan(self, case, N, T, options):
        import fastsgd as fs

        run = case.run(N, T, options.get("lost", "none"), backend="cpu")
        compiled = case.compiled if N >= 64 else None  # fewer do not fill the vectors of a compiled loop
        return run, fs.Tuning(threads=self.cores, compiled=compiled, **layout(case, options))

    def prepare(self, case, N, T, variant, options):
        import fastsgd as fs

        run, tuning = self.plan(case, N, T, options)
        return lambda: fs.train(run, tuning=tuning)

    def answer(self, out, case):
        return out.weights

    def expected(self, case, N, T):
        """Seconds that the plan expects of a call, and by which table."""
        import fastsgd as fs

        seconds, words, _ = fs.plan(*self.plan(case, N, T, {})).cost()
        return sum(seconds.values()), words


class Steps(Fastsgd):
    """The same kernels advanced one step a call, the state going through memory: what fusing the time loop is worth.

    The architecture's control. What a call costs besides its step, in Python and on the way to the kernel, is measured
    by the same call on networks that are all lost, and taken off.
    """

    name = "steps"

    def prepare(self, case, N, T, variant, options):
        import time

        import fastsgd as fs
        from fastsgd import backends

        plan = fs.plan(*self.plan(case, N, T, options))
        backend = backends.by_name(plan.backend)
        segments = [plan.segment(t, t + 1) for t in range(T)]
        state = backend.load(plan, plan.start, np.full(N, -1, np.int64), plan.fresh_buffers())
        idle = backend.load(plan, plan.start, np.zeros(N, np.int64), plan.fresh_buffers())

        def spent(which):
            began = time.perf_counter()
            for segment in segments:
                backend.advance(which, segment)
            return time.perf_counter() - began

        def run():
            state.weights[:], state.lost[:] = plan.start, -1
            whole = spent(state)
            return state.weights, whole - min(spent(idle), 0.9 * whole)

        return run

    def answer(self, out, case):
        return out[0]

    def seconds(self, out, wall):
        """What counts of a call: its steps without the cost of calling."""
        return out[1]

    def expected(self, case, N, T):
        return None, ""


class FastsgdCuda(Fastsgd):
    """fastsgd on a CUDA device."""

    name = "fastsgd-cuda"

    def __init__(self, cores):
        super().__init__(cores)
        import torch

        if not torch.cuda.is_available():
            raise Absent("no CUDA device")

    def plan(self, case, N, T, options):
        import fastsgd as fs

        return case.run(N, T, options.get("lost", "none"), backend="cuda"), fs.Tuning()

    def expected(self, case, N, T):
        return None, ""


def layout(case, options):
    """fs.Tuning fields of a layout: "lanes" (one network a lane), "team" (one network a vector), None (the plan's)."""
    from fastsgd.native import native

    module, kind = native(), options.get("layout")
    return {None: {}, "lanes": {"lanes": module.lanes[case.dtype]}, "team": {"team": module.team[case.dtype]}}[kind]


class NumpyLoop(Provider):
    """The plain loop of a paper's code: one network in NumPy, gradients by hand."""

    name, most_networks = "numpy-loop", 1

    def versions(self):
        return {"numpy": np.__version__}

    def prepare(self, case, N, T, variant, options):
        X, y, eta = case.data.X, case.data.y, case.data.X.dtype.type(2 * case.factor * case.step_size)
        start = {name: a[0] for name, a in case.model.unflatten(case.start(1)).items()}
        order = case.order(1, T)[0].squeeze(-1).tolist() if case.batch == 1 else case.order(1, T)[0]
        if case.batch is None:
            order = [slice(None)] * T
        step = self.diagonal if case.kind == "diagonal" else self.dense
        layers, samples = case.layers if case.kind == "dense" else (), case.samples

        def run():
            params = {name: a.copy() for name, a in start.items()}
            for i in order:
                step(params, X[i], y[i], eta / samples, layers)
            return params

        return run

    @staticmethod
    def diagonal(p, x, y, eta, layers):
        u, v = p["u"], p["v"]
        g = x.T @ (eta * (x @ (u * v) - y)) if x.ndim > 1 else eta * (x @ (u * v) - y) * x
        p["u"], p["v"] = u - g * v, v - g * u

    @staticmethod
    def dense(p, x, y, eta, layers):
        a = [np.atleast_2d(x)]
        for W, b in layers:
            z = a[-1] @ p[W].T + (p[b] if b else 0)
            a.append(np.maximum(z, 0) if W != layers[-1][0] else z)
        delta = eta * (a[-1] - np.reshape(y, (-1, 1)))
        for (W, b), below in zip(reversed(layers), reversed(a[:-1]), strict=True):
            back = (delta @ p[W]) * (below > 0)
            p[W] = p[W] - delta.T @ below
            if b:
                p[b] = p[b] - delta.sum(axis=0)
            delta = back

    def answer(self, out, case):
        return np.concatenate([out[name].reshape(-1) for name in case.model.shapes()])[None]


HOMES = {"torch-naive": "torch_opponents", "torch-batched": "torch_opponents", "torch-compiled": "torch_opponents",
         "torch-vmap": "torch_opponents", "torch-vmap-compiled": "torch_opponents", "modelbatch": "torch_opponents",
         "torch-graphs": "torch_opponents", "jax": "array_opponents", "numba": "array_opponents"}
HERE = {p.name: p for p in (Fastsgd, Steps, FastsgdCuda, NumpyLoop, Peak, Copy)}


def provider(name):
    """The class that plays `name`; of "my_module:Class" that very one."""
    if ":" in name:
        module, _, kind = name.partition(":")
        return getattr(import_module(module), kind)
    if name in HERE:
        return HERE[name]
    return import_module(f".{HOMES[name]}", __package__).PROVIDERS[name]
