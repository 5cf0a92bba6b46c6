"""Builds one CPU module per instruction set from csrc/ with g++ and pybind11; what cannot be built is named."""

import json
import os
import platform
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
COMMON = ["-std=c++17", "-O3", "-ffp-contract=off", "-fopenmp", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra",
          "-Wno-uninitialized", "-Wno-maybe-uninitialized"]  # GCC 12 raises both in its own AVX-512 headers
ISAS = {"v3": ["-march=x86-64-v3", "-DFS_VECTOR_BYTES=32"], "v4": ["-march=x86-64-v4", "-DFS_VECTOR_BYTES=64"]}


def out_of_date(made):
    """Whether an object file is older than anything it was made from, as the compiler noted beside it."""
    noted = Path(made).with_suffix(".d")
    if not (Path(made).exists() and noted.exists()):
        return True
    sources = [ROOT / name for name in noted.read_text().replace("\\\n", " ").split()[1:]] + [Path(__file__)]
    return not all(source.exists() and source.stat().st_mtime < Path(made).stat().st_mtime for source in sources)


class BuildCPU(build_ext):
    """Compiles every (source, instruction set) side by side, and stores for each that it is there, or why not."""

    def run(self):
        self.compiler_path = os.environ.get("CXX") or shutil.which("g++")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outcome = dict(pool.map(lambda e: (e.name.rpartition("_")[2], self.build_one(e, pool)), self.extensions))
        target = Path(self.get_ext_fullpath("fastsgd._build_info")).with_name("_build_info.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(outcome, indent=1) + "\n")
        print("fastsgd CPU modules:", outcome)

    def build_one(self, extension, pool):
        """Build one module; return "built" or the reason why not."""
        if platform.machine() not in ("x86_64", "AMD64"):
            return f"not built: made for x86-64, this is {platform.machine()}"
        if self.compiler_path is None:
            return "not built: no g++ found (set CXX, or install g++)"
        isa = extension.name.rpartition("_")[2]
        module = Path(self.get_ext_fullpath(extension.name))
        objects = Path(self.build_temp) / isa
        objects.mkdir(parents=True, exist_ok=True)
        module.parent.mkdir(parents=True, exist_ok=True)
        flags = [*COMMON, *ISAS[isa], f"-DFS_MODULE=_cpu_{isa}", f"-I{sysconfig.get_paths()['include']}",
                 f"-I{pybind11.get_include()}"]
        made = {source: str(objects / f"{Path(source).stem}.o") for source in extension.sources}
        stale = [source for source in made if out_of_date(made[source])]
        newest = max((Path(out).stat().st_mtime for out in made.values() if Path(out).exists()), default=0)
        if not stale and module.exists() and module.stat().st_mtime > newest:
            return "built"
        try:
            with ThreadPoolExecutor(os.cpu_count()) as inner:
                list(inner.map(lambda source: self.call([self.compiler_path, *flags, "-MMD", "-c", source, "-o",
                                                         made[source]]), stale))
            self.call([self.compiler_path, "-shared", "-fopenmp", "-s", *made.values(), "-o", f"{module}.new"])
        except subprocess.CalledProcessError as error:
            if os.environ.get("FASTSGD_CPU", "auto") == "on":
                raise RuntimeError(error.stderr) from None
            return f"not built: {error.stderr.strip()[-500:]}"
        os.replace(f"{module}.new", module)
        return "built"

    @staticmethod
    def call(command):
        """Run a compiler command; its warnings are shown."""
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        print(done.stderr, end="")


SOURCES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc" / "cpu").glob("*.cpp"))
# kernels/ is installed as fastsgd.kernels
PACKAGES = [*find_packages(include=["fastsgd*"]), *(f"fastsgd.{name}" for name in find_packages(include=["kernels*"]))]
setup(packages=PACKAGES, package_dir={"fastsgd.kernels": "kernels"},
      ext_modules=[Extension(f"fastsgd._cpu_{isa}", SOURCES) for isa in ISAS], cmdclass={"build_ext": BuildCPU})
