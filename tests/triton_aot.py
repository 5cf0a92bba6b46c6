"""Owns ahead-of-time compiles of the Triton kernels, without a GPU: a program that prints what each one's code uses.

Run without TRITON_INTERPRET: python tests/triton_aot.py prints {case: {target: {counts}}} as JSON, of all cases or of
arguments like "diagonal 30 for sm_90".
"""

import json
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np

import fastsgd as fs
from bench import sass
from fastsgd.backends.triton import launches
from fastsgd.lowering.work import Work
from fastsgd.measure import losses, sparsity
from fastsgd.portable import kernel

TARGETS = {"sm_80": ("cuda", 80, 32), "sm_90": ("cuda", 90, 32), "sm_100": ("cuda", 100, 32),
           "gfx942": ("hip", "gfx942", 64)}
M, R, L = fs.models, fs.rules, fs.losses
TRAINED = {  # {case: (model, other fields)}: the paper's systems, then wide networks
    "diagonal 30": (M.DiagonalLinear(30), {}),
    "diagonal 100": (M.DiagonalLinear(100), {}),
    "diagonal 200": (M.DiagonalLinear(200), {}),
    "diagonal 200 double": (M.DiagonalLinear(200), {"dtype": "float64"}),
    "diagonal 100 gd": (M.DiagonalLinear(100), {"rule": R.GD()}),
    "diagonal 30 noise": (M.DiagonalLinear(30), {"rule": R.SGD(label_noise=0.1)}),
    "relu2 2-20-1": (M.ReLU2(2, 20, hidden_bias=False, output_bias=False), {}),
    "relu2 2-20-1 double": (M.ReLU2(2, 20, hidden_bias=False, output_bias=False), {"dtype": "float64"}),
    "relu2 2-20-1 batch noise": (M.ReLU2(2, 20), {"rule": R.SGD(batch_size=4, label_noise=0.1)}),
    "relu2 1-100-1": (M.ReLU2(1, 100, output_bias=False), {}),
    "dense 5-10-10-1": (M.MLP(5, (10, 10)), {}),
    "dense 5-10-10-1 gd": (M.MLP(5, (10, 10)), {"rule": R.GD()}),
    "diagonal 30 one label": (M.DiagonalLinear(30), {"rule": R.GD(label_noise=fs.LabelNoise(0.1, on="one"))}),
    "diagonal 100 momentum": (M.DiagonalLinear(100), {"rule": R.SGD(momentum=0.9, weight_decay=0.1, average=0.9)}),
    "dense 5-10-10-1 adam": (M.MLP(5, (10, 10)), {"rule": R.Adam(batch_size=8, weight_decay=0.1, decoupled=True)}),
    "relu2 1-100-1 sam": (M.ReLU2(1, 100, output_bias=False), {"rule": R.SAM(rho=0.1, batch_size=4)}),
    "relu2 2-20-1 gradient noise": (M.ReLU2(2, 20), {"rule": R.SGD(gradient_noise=0.1, normalised=True)}),
    "relu2 2-20-1 groups": (M.ReLU2(2, 20, hidden_bias=False, output_bias=False), {"rule": R.SGD(
        momentum=0.9, dampening=0.1, clip_value=1.0, clip_norm=1.0, weight_decay={"W1": 0.1}, step_scale={"W2": 0.5},
        localisation=R.Localisation(0.5), gradient_noise=fs.GradientNoise(0.1, "stable", alpha=1.5), average=0.9)}),
    "dense 2-20-10 classes": (M.MLP(2, 20, outputs=10), {"loss": L.CrossEntropy()}),
    "dense 2-5-2 noise": (M.MLP(2, 5, outputs=2), {"rule": R.SGD(label_noise=0.1)}),
    "dense 2-5-2 batch noise": (M.MLP(2, 5, outputs=2), {"rule": R.SGD(batch_size=4, label_noise=0.1)}),
    "dense 2-20-16 sam": (M.MLP(2, 20, outputs=16), {"rule": R.SAM(rho=0.1, batch_size=4, label_noise=0.1),
                                                     "loss": L.Squared(weights=np.ones(16))}),
    "power 30": (M.DiagonalPower(30, 3), {}),
    "relu2 10-128-1": (M.ReLU2(10, 128), {}),
    "relu2 10-512-1": (M.ReLU2(10, 512), {}),
    "dense 10-128-128-1": (M.MLP(10, (128, 128)), {}),
}
# For sm_90 and for AMD, which has its own compiler; for every target where registers are short; others: sm_90 alone.
TWICE = ("diagonal 30", "diagonal 200", "relu2 2-20-1", "relu2 1-100-1", "dense 5-10-10-1", "diagonal 100 gd",
         "dense 2-20-10 classes", "dense 10-128-128-1", "dense 5-10-10-1 adam")
EVERYWHERE = ("relu2 10-512-1",)
ORDERS = {"count": "i32", "steps": "i32", "batch": "i32", "n": "u32", "first": "u32", "skip": "i32", "seed": "u64",
          "table": "*i32", "order_ids": "*i64", "a": "u32", "s": "u32", "t0": "i64",
          "epoch": "i64"}
TILES = {"M": sparsity.TILE, "DEPTH": sparsity.DEPTH}
F64 = dict.fromkeys(("K", "A", "D", "scales", "phi", "mean", "deviation", "tau", "out", "X", "y", "numbers"), "*fp64")
INTS = dict.fromkeys(("positive", "nonzero", "alive", "merged"), "*i32") | dict.fromkeys("mnhpqN", "i32")
OTHERS = {  # {case: (module, function, types of arguments, constexpr arguments, warps)}
    "orders drawn": ("orders", "drawn", ORDERS, {"BLOCK": launches.BLOCK}, launches.WARPS),
    "orders distinct": ("orders", "distinct", ORDERS, {"EPOCHS": True, "ROUNDS": 24, "BLOCK": launches.BLOCK},
                        launches.WARPS),
    "gram": ("metrics.gram", "add_layer", F64 | INTS | {"a_stride": "i64"}, TILES, sparsity.WARPS),
    "sparsity columns": ("metrics.sparsity", "columns", F64 | INTS, TILES, sparsity.WARPS),
    "sparsity merges": ("metrics.sparsity", "merges", F64 | INTS, TILES, sparsity.WARPS),
}
LOSSES = {"losses diagonal 200": "diagonal 200", "losses 5-10-10-1": "dense 5-10-10-1",
          "losses 2-20-10 classes": "dense 2-20-10 classes"}


def request(name):
    """The Run of a case of TRAINED."""
    model, fields = TRAINED[name]
    dtype = fields.get("dtype", "float32")
    each = model.outputs > 1 and fields.get("loss", L.Squared()).name == "squared"
    data = fs.Dataset(np.zeros((20, model.d)), np.zeros((20, model.outputs) if each else 20)).astype(dtype)
    return fs.Run(model, data, **({"rule": R.SGD(), "step_size": 0.1, "steps": 100, "dtype": dtype} | fields))


def case(name):
    """(function, types of arguments, constexpr arguments, warps) of any case, as the backend launches it."""
    if name in OTHERS:
        module, function, types, fixed, warps = OTHERS[name]
        return getattr(kernel(module), function), types, fixed, warps
    run = request(LOSSES.get(name, name))
    networks, warps = launches.rule_of_thumb(Work(run))
    function, fixed = launches.constants(Work(run), fs.Tuning(networks=networks, warps=warps), run.rule.full)
    word = {"float32": "*fp32", "float64": "*fp64"}[run.dtype]
    if name in LOSSES:
        kept = {key: fixed[key] for key in losses.OF_A_FAMILY}
        return kernel("metrics.losses").sums, F64 | INTS | {"W": word}, kept | {"BN": networks, "CHUNKS": 32}, warps
    types = dict.fromkeys(function.arg_names, word) | dict.fromkeys(("lost", "ids", "order_ids"), "*i64")
    types |= dict.fromkeys(("row", "sigma_row", "gradient_noise_row", "indices"), "*i32")
    types |= {"seed": "u64", "first": "u32", "n": "u32"}
    return function, types | dict.fromkeys(("N", "skip", "steps", "batch"), "i32"), fixed, warps


def compiled(name, target):
    """({what: count}, machine code) of a case; the code of NVIDIA's is yet to be looked at."""
    import triton
    from triton.backends.compiler import GPUTarget

    function, types, fixed, warps = case(name)
    signature = {a: "constexpr" if a in fixed else types[a] for a in function.arg_names}
    aligned = {(k,): [["tt.divisibility", 16]] for k, a in enumerate(function.arg_names) if signature[a][0] == "*"}
    source = triton.compiler.ASTSource(fn=function, signature=signature, constexprs=fixed, attrs=aligned)
    crowded = name in TRAINED and launches.crowded(Work(request(name)), fixed["BN"], warps)
    options = launches.options(warps, TARGETS[target][0], crowded)
    made = triton.compile(source, target=GPUTarget(*TARGETS[target]), options=options)
    counts = {"warps": warps, "fusion": made.metadata.enable_fp_fusion}
    if target == "gfx942":
        return counts | of_amd(made.asm["amdgcn"]), None
    return counts, made.asm["cubin"]


def of_amd(text):
    number = {key: int(re.search(rf"\.{key}:\s+(\d+)", text)[1])
              for key in ("vgpr_count", "vgpr_spill_count", "private_segment_fixed_size")}
    return {"registers": number["vgpr_count"], "spilt": number["vgpr_spill_count"],
            "stack": number["private_segment_fixed_size"], "barriers": len(re.findall(r"\bs_barrier\b", text))}


def of_nvidia(cubin, instructions):
    code = [(at, *re.match(r"([A-Z][A-Z0-9_.]*)(.*)", words).groups()) for at, words in instructions]
    loops = [(int(to[1], 16), at) for at, op, rest in code
             if op.startswith("BRA") and (to := re.search(r"0x([0-9a-f]+)", rest)) and int(to[1], 16) < at]
    first, last = max(loops, key=lambda loop: loop[1] - loop[0], default=(0, 0))
    inside = [op for at, op, _ in code if first <= at <= last]
    everywhere = [op for _, op, _ in code]
    registers, stack = sass.resources(cubin)
    return {"registers": registers, "stack": stack,
            "spilt": sum(op.startswith(("LDL", "STL")) for op in everywhere), "loop": len(inside),
            "shuffles": sum(op.startswith("SHFL") for op in inside),
            "barriers": sum(op.startswith("BAR") for op in inside)}


def targets(name):
    """The targets that a case is compiled for."""
    if name in EVERYWHERE:
        return tuple(TARGETS)
    return ("sm_90",) if name in TRAINED and name not in TWICE else ("sm_90", "gfx942")


def one(job):
    return job, compiled(*job)


if __name__ == "__main__":
    jobs = [tuple(words.split(" for ")) for words in sys.argv[1:]]
    jobs = jobs or [(name, target) for name in (*TRAINED, *OTHERS, *LOSSES) for target in targets(name)]
    jobs.sort(key=lambda job: -[*OTHERS, *LOSSES, *TRAINED].index(job[0]))  # wide networks, the long ones, first
    made = dict([one(jobs.pop())])  # what Triton imports and hashes for it, the children of the pool have from here
    with ProcessPoolExecutor(min(4, os.cpu_count())) as pool:
        made |= dict(pool.map(one, jobs))
    for target in ("sm_80", "sm_90", "sm_100"):
        cubins = {job: code for job, (_, code) in made.items() if code and job[1] == target}
        listings = sass.instructions(cubins.values(), target) if cubins else ()
        for (job, code), listing in zip(cubins.items(), listings, strict=True):
            made[job][0].update(of_nvidia(code, listing))
    out = {}
    for (name, target), (counts, _) in made.items():
        out.setdefault(name, {})[target] = counts
    print(json.dumps(out))
