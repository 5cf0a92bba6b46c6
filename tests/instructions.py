"""Owns what is counted under callgrind: `python tests/instructions.py LIBRARY` trains each kernel for two lengths.

The library has start(), forget(), and dump(name), which makes callgrind write down and forget what it has counted.
"""

import ctypes
import sys

import numpy as np

N = 16  # networks: whole vectors of both dtypes


def steps(name):
    """(few, many) steps of a run, whose difference leaves the loop alone; few where a step takes 10^5 instructions."""
    return (2, 6) if "scalar" in name else (64, 192)


def kernels():
    """(name, run of T steps, tuning) of the loops whose instructions are pinned; AVX2, one thread."""
    import fastsgd as fs

    rng = np.random.default_rng(0)
    diagonal, relu2, deep = fs.models.DiagonalLinear(30), fs.models.ReLU2(2, 20), fs.models.MLP(5, (10, 10))

    def run(model, rule, dtype, T):
        X = rng.standard_normal((20, model.d)).astype(dtype)
        return fs.Run(model, fs.Dataset(X, X[:, 0].copy()), rule, 1e-3, T, networks=N, dtype=dtype)

    one, layouts = fs.rules.SGD(), {"lanes": {"float32": 8, "float64": 4}, "team": {"float32": 8, "float64": 4}}
    listed = {"diagonal.team": (diagonal, one, "team"), "diagonal.lanes": (diagonal, one, "lanes"),
              "diagonal.full": (diagonal, fs.rules.GD(), "lanes"),
              "diagonal.batch": (diagonal, fs.rules.SGD(batch_size=8), "team"), "relu2.lanes": (relu2, one, "lanes"),
              "relu2.team": (relu2, one, "team"), "relu2.batch": (relu2, fs.rules.SGD(batch_size=4), "lanes"),
              "general.momentum": (deep, fs.rules.SGD(momentum=0.5), "lanes"),
              "general.adam": (deep, fs.rules.Adam(), "lanes"), "general.scalar": (deep, fs.rules.GD(), "scalar")}
    for name, (model, rule, layout) in listed.items():
        for dtype in ("float32", "float64"):
            wide = layouts.get(layout, {}).get(dtype)
            tuning = fs.Tuning(threads=1, segment=192, **({layout: wide} if wide else {"lanes": 1, "team": 1}))
            yield f"{name}.{dtype}", lambda T, m=model, r=rule, d=dtype: run(m, r, d, T), tuning


def main():
    library = ctypes.CDLL(sys.argv[1])
    import fastsgd as fs
    from fastsgd import backends
    from fastsgd.progress import unset

    launches, cpu = [], backends.by_name("cpu")
    for name, run, tuning in kernels():
        plan = fs.plan(run(max(steps(name))), tuning)
        for T in (1, *steps(name)):
            state = cpu.load(plan, plan.start, unset(N), plan.fresh_buffers())
            launches.append((f"{name} {T}", state, plan.segment(0, T)))
        cpu.advance(*launches.pop(-3)[1:])  # one step brings in what is loaded late
    library.start()
    for name, state, segment in launches:
        library.forget()
        cpu.advance(state, segment)
        library.dump(name.encode())


if __name__ == "__main__":
    main()
