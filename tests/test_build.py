"""The build: what is compiled, what is kept, and how it says what did not work; by a compiler that only makes files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPILER = r"""#!/bin/sh
echo "$@" >> "$SAID"
if [ -n "$FAIL" ]; then case "$*" in *"$FAIL"*) echo "no such luck" >&2; exit 1;; esac; fi
while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done
echo made > "$out"
case "$out" in *.o) echo "$out: setup.py" > "${out%.o}.d";; esac
"""


@pytest.fixture
def build(tmp_path):
    """A function that builds a copy of the tree: (outcome by module, commands given to the compiler)."""
    tree = shutil.copytree(ROOT, tmp_path / "tree", ignore=shutil.ignore_patterns(
        ".*", "build", "demo", "*.egg-info", "__pycache__", "*.so", "tests", "bench", "docs"))
    (compiler := tmp_path / "compiler").write_text(COMPILER)
    compiler.chmod(0o755)

    def run(fail="", **given):
        (said := tmp_path / "said").write_text("")
        done = subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree, text=True,
                              capture_output=True, env=os.environ | {"CXX": str(compiler), "SAID": str(said),
                                                                     "FAIL": fail, "FASTSGD_CUDA": "off"} | given)
        if done.returncode:
            return done.stderr, said.read_text().splitlines()
        return json.loads((tree / "fastsgd" / "_build_info.json").read_text()), said.read_text().splitlines()

    return run


def test_what_is_built_is_kept(build):
    units = len(list((ROOT / "csrc" / "cpu").glob("*.cpp")))
    outcome, commands = build(FASTSGD_ISAS="all")
    assert outcome["v3"] == outcome["v4"] == "built" and len(commands) == 2 * units + 2
    assert build(FASTSGD_ISAS="all") == (outcome, [])


@pytest.mark.parametrize("fail", ["metrics.cpp", "-shared"])
def test_what_cannot_be_built_is_named(build, fail):
    assert "no such luck" in build(fail, FASTSGD_ISAS="v3")[0]["v3"]
    assert "no such luck" in build(fail, FASTSGD_ISAS="v3", FASTSGD_CPU="on")[0]
    assert build(FASTSGD_ISAS="v3")[0]["v3"] == "built"


def test_cuda_programs_are_for_cards(build):
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has a card")
    assert "no card here" in build(FASTSGD_ISAS="v3", FASTSGD_CUDA="auto")[0]["cuda"]


def test_instruction_sets_that_there_are_not(build):
    assert "FASTSGD_ISAS" in build(FASTSGD_ISAS="v9")[0]
