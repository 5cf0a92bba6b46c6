"""Compiles for cards, without one, the programs that tests here ran as fibers: `python tests/ahead.py FOLDER [ARCH]`.

A machine that is given FOLDER as FASTSGD_CACHE has nothing left to compile but what the tests asked of no fibers. Needs
NVRTC; programs of other headers than today's are left out.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from fastsgd.cuda import compiler
from fastsgd.cuda.program import Program

FIBERS = Path(__file__).parents[1] / "build" / "fibers"


def programs(folder=FIBERS):
    """The programs whose texts tests/fibers left in a folder."""
    found = [(path.stem, Program(path.stem, path.read_text())) for path in sorted(folder.glob("*.cu"))]
    return [program for key, program in found if program.key == key and "fibers::" not in program.text]


def compiled(program, arch):
    """Bytes of a program's machine code, which is kept in the cache; a sentence where it does not compile."""
    try:
        return len(compiler.compiled(program, arch))
    except Exception as error:
        return str(error)


def main(folder, arch="sm_90"):
    os.environ["FASTSGD_CACHE"] = str(Path(folder).resolve())
    wanted = programs()
    with ProcessPoolExecutor() as pool:
        sizes = list(pool.map(compiled, wanted, [arch] * len(wanted)))
    wrong = [size for size in sizes if isinstance(size, str)]
    print(f"{len(sizes) - len(wrong)} programs for {arch} in {folder}, "
          f"{sum(size for size in sizes if size not in wrong) / 2**20:.1f} MiB", *wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
