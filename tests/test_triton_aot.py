"""Without a GPU: every Triton kernel compiles for NVIDIA and AMD, spills nothing, keeps to its ceilings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import asked
import pytest
from tiers import long

triton_aot = pytest.importorskip("triton_aot")  # needs triton to be worth importing
pytest.importorskip("triton")

pytestmark = pytest.mark.xdist_group("triton_aot")  # compiled once, in one process
HERE = Path(__file__).parent
CEILINGS = {  # {case: (registers a lane, shuffles in the loop)} on NVIDIA; a loop of `alone` is four steps
    "diagonal 30": (64, 12), "diagonal 100": (64, 20), "diagonal 200": (72, 20), "diagonal 200 double": (112, 40),
    "diagonal 100 gd": (64, 40), "diagonal 30 noise": (80, 16), "relu2 2-20-1": (64, 20),
    "relu2 2-20-1 double": (72, 40), "relu2 2-20-1 batch noise": (72, 5), "relu2 1-100-1": (64, 20),
    "dense 5-10-10-1": (80, 124), "dense 5-10-10-1 gd": (96, 31), "power 30": (64, 12),
    "diagonal 100 momentum": (64, 5), "dense 5-10-10-1 adam": (255, 31), "relu2 1-100-1 sam": (88, 40),
    "relu2 2-20-1 gradient noise": (72, 70), "diagonal 30 one label": (72, 52), "relu2 10-128-1": (160, 20),
    "relu2 10-512-1": (240, 28), "dense 10-128-128-1": (255, 428), "orders drawn": (176, 0),
    "orders distinct": (255, 2), "gram": (144, 0), "sparsity columns": (56, 8), "sparsity merges": (136, 16),
    "relu2 2-20-1 groups": (128, 60),
    "dense 2-20-10 classes": (88, 128), "dense 2-5-2 noise": (96, 32), "dense 2-5-2 batch noise": (64, 8),
    "dense 2-20-16 sam": (192, 232),
    "losses diagonal 200": (64, 10), "losses 5-10-10-1": (80, 16), "losses 2-20-10 classes": (112, 40),
}

# Every kernel once, both compilers, one outputs' case: what takes few seconds. relu2 has a kernel of diagonal 30, which
# AMD's compiler is given.
MADE = ("diagonal 30", "relu2 2-20-1", "relu2 2-20-1 batch noise", "power 30", "diagonal 100 momentum", "orders drawn",
        "gram", "sparsity columns", "sparsity merges", "dense 2-5-2 batch noise", "losses diagonal 200")
JOBS = [job if name in MADE and job != ("relu2 2-20-1", "gfx942") else long(job)
        for name in CEILINGS for job in ((name, target) for target in triton_aot.targets(name))]


def printed(program, *arguments):
    """What a program of this folder prints, from a process of its own: here Triton may be set to interpret."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(HERE / program), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def code(request):
    """{case: {target: {what: count}}} of the jobs that are asked for."""
    jobs = sorted((given["case"], given["target"]) for given in asked.parameters(request))
    return printed("triton_aot.py", *(f"{name} for {target}" for name, target in jobs))


@pytest.mark.parametrize(("case", "target"), JOBS)
def test_no_spill_no_barrier_and_ceilings(code, case, target):
    (registers, shuffles), counts = CEILINGS[case], code[case][target]
    assert counts["stack"] == counts["spilt"] == 0
    assert counts["fusion"] is False, "fused multiply-adds are those that are written"
    if counts["warps"] == 1 and case in triton_aot.TRAINED:
        assert counts["barriers"] == 0
    if target != "gfx942":
        assert counts["registers"] <= registers and counts["shuffles"] <= shuffles


def test_every_kernel_is_among_them():
    assert {*triton_aot.TRAINED, *triton_aot.OTHERS, *triton_aot.LOSSES} == set(CEILINGS)
    found = {f"{module}.{function}" for module, function, *_ in triton_aot.OTHERS.values()}
    assert found | {"metrics.losses.sums", "train.one_sample", "train.batches"} == launched()


def test_launches_bind_the_types_that_are_compiled_here():
    """Everything Triton does for a launch but the launch itself, for every kernel, by the backend's own code."""
    ours = {"orders.drawn": "orders drawn", "orders.distinct": "orders distinct", "metrics.gram.add_layer": "gram",
            "metrics.sparsity.columns": "sparsity columns", "metrics.sparsity.merges": "sparsity merges",
            "metrics.losses.sums": "losses diagonal 200", "train.one_sample": "diagonal 30",
            "train.batches": "diagonal 100 gd"}
    seen = printed("triton_launches.py")
    assert {name for name, _, _ in seen} == launched() == set(ours)
    for name, warps, types in seen:
        _, want, fixed, _ = triton_aot.case(ours[name])
        assert warps in (1, triton_aot.launches.WARPS)
        for argument, kind in types.items():
            if argument not in fixed and argument != "indices":  # what is not read there may be of another type
                assert kind == want[argument], (name, argument)


def launched():
    """The kernels that the package launches: those whose integers Triton must not specialise on."""
    out = set()
    for path in (HERE.parent / "kernels").rglob("*.py"):
        lines = path.read_text().splitlines()
        module = str(path.relative_to(HERE.parent / "kernels").with_suffix("")).replace(os.sep, ".")
        for k, line in enumerate(lines):
            if line.startswith("@triton.jit("):
                out.add(f"{module}.{lines[k + 1].split('def ')[1].split('(')[0]}")
    return out
