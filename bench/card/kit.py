"""Owns what travels to a machine with a card: `python -m bench.card.kit FOLDER [--python PYTHON]`.

FOLDER/cuda: machine code for sm_90 of every program that `bits` and `speed` ask for, compiled by NVRTC without a card;
FOLDER/*.so: the CPU modules for the CPython that the machine has, with --python a path of that version here;
FOLDER/commit: the commit. What is there already is not made again. Nothing on the machine waits for a compiler then.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import every_kernel
import fibers
import numpy as np

import fastsgd as fs
from bench.rows import conditions
from fastsgd.backends.cuda import layout
from fastsgd.cuda import compiler
from fastsgd.lowering.work import Work
from fastsgd.measure.programs import jacobians

from . import BATCHED, NOISY, portable, run_of, systems, with_momentum
from .bits import others
from .speed import all_shapes, random_system, ranked

ROOT = Path(__file__).parents[2]
ARCH = "sm_90"


class Recorder(fibers.FiberCard):
    """A card that notes which programs it is asked for, and does nothing."""

    name, arch, processors, index = "a recorder", ARCH, 132, 0

    def __init__(self):
        super().__init__(ROOT / "build" / "fibers", memory=78 << 30)
        self.programs = {}

    def empty(self, shape, dtype):
        return self.put(np.zeros(shape, dtype))  # what nothing is written to is an answer all the same

    def prepare(self, program, shared):
        self.programs[program.key] = program

    def launch(self, program, count, shared, job):
        self.prepare(program, shared)


def programs():
    """The programs that an H100 or H200 is asked for by the parts of this package."""
    one = Recorder()
    with fibers.in_place(one):
        for run, team in every_kernel.runs():
            fs.train(run.replace(backend="cuda", metrics=()), tuning=fs.Tuning(team=team, segment=4))
        for run, rows, shared in every_kernel.measured():
            before = jacobians.REGISTER_ROWS, one.shared
            jacobians.REGISTER_ROWS, one.shared = rows, shared or one.shared
            fs.train(run.replace(backend="cuda"))
            jacobians.REGISTER_ROWS, one.shared = before
        fs.train(ranked(9))
        for run, N, team in _large():
            chosen = layout.choose(Work(run), N, one, fs.Tuning(team=team))
            one.prepare(chosen.program, chosen.shared)
    return list(one.programs.values())


def _large():
    """(run, N, team) of what is timed and compared at size."""
    for system in systems().values():
        run = run_of(system, 1, 8)
        yield from ((run, N, None) for N in (10**6, 3 * 10**5, 10**5, 10**4, 10**3))
        yield from ((run, 10**5, team) for team in (1, 2, 4, 8))
        yield from ((with_momentum(run), N, team) for N in (10**6, 10**5, 64) for team in (None, 1, 2, 4, 8))
        yield from ((run.replace(rule=fs.rules.Adam()), N, team) for N in (10**5, 64) for team in (None, 1, 2, 4, 8))
        yield from ((run.replace(rule=BATCHED), N, team) for N in (10**5, 64) for team in (None, 1, 2, 4, 8))
        yield from ((run.replace(rule=NOISY), 10**5, team) for team in (1, 32))
    for given in all_shapes().values():
        run = run_of(random_system(*given), 1, 8)
        yield from ((run, N, None) for N in (300_000, 50_000))
    yield from ((run, run.networks, None) for run in others())
    yield from ((portable.request(system, "cuda", 10**5, 64, "float32"), 10**5, None) for system in portable.SYSTEMS)


def compiled(program, folder):
    """(bytes of a program's machine code, or a sentence; seconds), which is kept in the folder."""
    os.environ["FASTSGD_CACHE"] = str(folder)
    began = time.time()
    try:
        return len(compiler.compiled(program, ARCH)), time.time() - began
    except Exception as error:
        return f"{program.name}: {error}", time.time() - began


def modules(python, folder):
    """Build the CPU modules of every instruction set for another CPython, in a copy of this tree."""
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place)
        for name in ("csrc", "kernels", "fastsgd"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy2(ROOT / name, tree)
        subprocess.run([python, "-m", "venv", tree / "env"], check=True)
        subprocess.run([tree / "env/bin/pip", "install", "-q", "setuptools>=77", "pybind11>=2.13"], check=True)
        subprocess.run([tree / "env/bin/python", "setup.py", "-q", "build_ext", "--inplace"], cwd=tree, check=True,
                       env=os.environ | {"FASTSGD_CUDA": "off", "FASTSGD_ISAS": "all"})
        for module in (tree / "fastsgd").glob("*.so"):
            shutil.copy2(module, folder)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m bench.card.kit", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", help="the CPython of the machine's version, e.g. python3.12")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "commit").write_text(conditions()["commit"] + "\n")
    wanted = programs()
    keys = {program.key for program in wanted}
    for old in (folder / "cuda").glob("*.cubin"):  # of other headers
        if old.name.partition(".")[0] not in keys:
            old.unlink()
    with ProcessPoolExecutor() as pool:
        done = list(pool.map(compiled, wanted, [folder] * len(wanted)))
    wrong = [size for size, _ in done if isinstance(size, str)]
    size = sum(size for size, _ in done if not isinstance(size, str))
    print(f"{len(done) - len(wrong)} programs for {ARCH}, {size / 2**20:.1f} MiB, "
          f"{sum(seconds for _, seconds in done):.0f} s", *wrong, sep="\n")
    if options.python and not list(folder.glob("*.so")):
        modules(options.python, folder)
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
