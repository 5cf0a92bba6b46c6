"""Instructions a network-step of the inner loops, counted by callgrind: a gate that no busy machine can move.

Counted is the AVX2 module as it was built, as the difference of two lengths of a run, so that all that happens once
cancels. A ceiling is what this version takes; a change that needs more must say so here.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from instructions import N, steps
from tolerances import INSTRUCTIONS

pytestmark = pytest.mark.xdist_group("instructions")  # counted once, in one process
GCC = "12"  # the compiler whose counts these are
CEILINGS = {  # instructions of one step of one network
    "diagonal.team.float32": 70, "diagonal.team.float64": 114,
    "diagonal.lanes.float32": 113, "diagonal.lanes.float64": 184,
    "diagonal.full.float32": 552, "diagonal.full.float64": 1095,
    "diagonal.batch.float32": 390, "diagonal.batch.float64": 542,
    "relu2.lanes.float32": 122, "relu2.lanes.float64": 234,
    "relu2.team.float32": 193, "relu2.team.float64": 268,
    "relu2.batch.float32": 814, "relu2.batch.float64": 1576,
    "general.momentum.float32": 730, "general.momentum.float64": 1427,
    "general.adam.float32": 996, "general.adam.float64": 1954,
    "general.scalar.float32": 90566, "general.scalar.float64": 95204,
}
COST, PLACE = tuple("-+*0123456789"), re.compile(r"(c?)(ob|fn)=\((\d+)\)(?: (.*))?$")  # lines of a dump
LIBRARY = """
#include <valgrind/callgrind.h>
void start(void) { CALLGRIND_START_INSTRUMENTATION; }
void forget(void) { CALLGRIND_ZERO_STATS; }
void dump(const char* name) { CALLGRIND_DUMP_STATS_AT(name); }
"""


def why_not():
    """None, or what this machine lacks to count."""
    for program in ("valgrind", "gcc", "g++"):
        if shutil.which(program) is None:
            return f"no {program} found"
    if not Path("/usr/include/valgrind/callgrind.h").exists():
        return "no headers of valgrind found"
    version = subprocess.run(["g++", "-dumpversion"], capture_output=True, text=True).stdout.strip()
    if version.split(".")[0] != GCC:
        return f"the ceilings are of GCC {GCC}, this is {version}"
    return None


def of_kernels(dump):
    """Instructions of our module, and of the C library's memset, in a dump of callgrind.

    Python's own would blur them: it rewrites its byte code as it goes, some ten thousand instructions now and then.
    """
    total, names, at, called, ours = 0, {}, {}, False, False
    for line in dump.splitlines():
        if line[:1] in COST:
            if ours and not called:
                total += int(line.split()[1])
            called = False
        elif line.startswith("calls="):
            called = True  # the next line has what the called function took
        elif place := PLACE.match(line):
            caller, kind, number, name = place.groups()
            names.setdefault((kind, number), name)
            if not caller:
                at[kind] = names[kind, number]
                ours = "_cpu_v3" in at["ob"] or at.get("fn", "").startswith("__memset")
    return total


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """{kernel: instructions a network-step}."""
    if why_not():
        pytest.skip(why_not())
    folder = tmp_path_factory.mktemp("callgrind")
    (folder / "mark.c").write_text(LIBRARY)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "mark.so", folder / "mark.c"], check=True)
    script = Path(__file__).with_name("instructions.py")
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out",
               sys.executable, str(script), str(folder / "mark.so")]
    done = subprocess.run(command, cwd=script.parents[1], capture_output=True, text=True,
                          env=os.environ | {"FASTSGD_ISA": "v3", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"})
    assert done.returncode == 0, done.stderr[-2000:]
    totals = {}
    for path in folder.glob("out.*"):
        text = path.read_text()
        name = re.search(r"Client Request: (\S+) (\d+)$", text, re.M)
        if name:
            totals.setdefault(name[1], {})[int(name[2])] = of_kernels(text)
    out = {}
    for name, both in totals.items():
        few, many = steps(name)
        out[name] = (both[many] - both[few]) / (N * (many - few))
    return out


def test_every_kernel_is_counted(counted):
    assert counted.keys() == CEILINGS.keys()


@pytest.mark.parametrize("name", CEILINGS)
def test_inner_loops_take_no_more_instructions(name, counted):
    assert counted[name] <= CEILINGS[name] * (1 + INSTRUCTIONS), f"{name}: {counted[name]:.1f}"


@pytest.mark.parametrize("name", CEILINGS)
def test_ceilings_are_tight(name, counted):
    """A loop that has become faster gets a lower ceiling, or the gate no longer guards it."""
    assert counted[name] >= CEILINGS[name] * (1 - 5 * INSTRUCTIONS), f"{name}: {counted[name]:.1f}"
