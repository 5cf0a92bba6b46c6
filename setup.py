"""Builds one CPU module per instruction set with g++ and pybind11, and the common CUDA programs with nvcc if there is
one; what cannot be built is named, and `fastsgd info` says why."""

import ast
import hashlib
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
# Aligned, a loop's speed does not depend on what stands before its function: 5 to 10 % were seen. GCC 12 raises the two
# warnings in its own AVX-512 headers.
COMMON = ["-std=c++17", "-O3", "-falign-functions=64", "-ffp-contract=off", "-fopenmp", "-fPIC", "-fvisibility=hidden",
          "-Wall", "-Wextra", "-Wno-uninitialized", "-Wno-maybe-uninitialized",
          "--param", "ggc-min-heapsize=2000000"]  # kB: without collecting garbage GCC takes a tenth less time
MORE = shlex.split(os.environ.get("FASTSGD_CXXFLAGS", ""))  # e.g. of a sanitizer; names of functions are kept then
# Where nothing runs that is measured: what stands between Python and the kernels, and what tests alone call.
COLD = {"bind", "elementary", "scalar"}
# CPU seconds of a unit, so that the longest begin first; one that is not here is taken to be long.
SECONDS = {"threads": 1, "elementary": 1, "draws": 2, "sparsity": 2, "measure": 3, "metrics": 5, "scalar": 6,
           "jacobians": 8}
ISAS = {"v3": ["-march=x86-64-v3", "-DFS_VECTOR_BYTES=32"], "v4": ["-march=x86-64-v4", "-DFS_VECTOR_BYTES=64"]}


def wanted_isas():
    """The instruction sets to build: FASTSGD_ISAS is native (default, the best that this machine runs), all, or names.

    Where this machine runs none of them, as when a wheel is made elsewhere, all are built.
    """
    wanted = os.environ.get("FASTSGD_ISAS", "native")
    if wanted == "all":
        return list(ISAS)
    if wanted == "native":
        return [isa for isa in reversed(ISAS) if runs_here(isa)][:1] or list(ISAS)
    names = wanted.replace(",", ";").split(";")
    if not set(names) <= set(ISAS):
        raise RuntimeError(f"FASTSGD_ISAS: {wanted!r} given, expected native, all, or names out of {', '.join(ISAS)}")
    return names


def runs_here(isa):
    """Whether this machine has an instruction set, as fastsgd/native.py asks at import."""
    text = (ROOT / "fastsgd" / "native.py").read_text()
    needs = next(node for node in ast.parse(text).body
                 if isinstance(node, ast.Assign) and node.targets[0].id == "NEEDS")
    try:
        flags = set(re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)[1].split())
    except (OSError, TypeError):
        return False
    return set(ast.literal_eval(needs.value)[isa]) <= flags


def out_of_date(made):
    """Whether an object file is older than anything it was made from, as the compiler noted beside it."""
    noted = Path(made).with_suffix(".d")
    if not (Path(made).exists() and noted.exists()):
        return True
    sources = [ROOT / name for name in noted.read_text().replace("\\\n", " ").split()[1:]] + [Path(__file__)]
    return not all(source.exists() and source.stat().st_mtime < Path(made).stat().st_mtime for source in sources)


def flags(isa):
    """What all units of a module are compiled with."""
    return [*COMMON, *MORE, *ISAS[isa], f"-DFS_MODULE=_cpu_{isa}", "-isystem", sysconfig.get_paths()["include"],
            "-isystem", pybind11.get_include()]


class Unit:
    """A source to compile for an instruction set."""

    def __init__(self, source, isa, folder):
        self.source, self.isa, self.made = source, isa, folder / f"{Path(source).stem}.o"
        self.seconds = SECONDS.get(Path(source).stem, 20)

    def command(self, compiler):
        cold = ["-Og"] if Path(self.source).stem in COLD and not MORE else []
        self.made.parent.mkdir(parents=True, exist_ok=True)
        return [compiler, *flags(self.isa), *cold, "-MMD", "-c", self.source, "-o", str(self.made)]


def nvcc():
    """The CUDA compiler: CUDACXX, CUDA_HOME, PATH, the usual folder, or pip's; None without one."""
    given = os.environ.get("CUDACXX")
    if given:
        return shutil.which(given)
    home = os.environ.get("CUDA_HOME")
    folders = [f"{home}/bin"] if home else []
    folders += [*os.get_exec_path(), "/usr/local/cuda/bin", f"{sysconfig.get_paths()['purelib']}/nvidia/cu13/bin"]
    return shutil.which("nvcc", path=os.pathsep.join(folders))


def card():
    """Whether this machine has an NVIDIA card, as far as its driver's files tell."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


class Progress:
    """One line on the screen while units are compiled: how many are done, how long the rest may take."""

    def __init__(self, count):
        self.count, self.done, self.begun, self.lock = count, 0, time.monotonic(), threading.Lock()
        self.show()

    def step(self):
        with self.lock:
            self.done += 1
            self.show()

    def show(self):
        spent, left, last = time.monotonic() - self.begun, self.count - self.done, self.done == self.count
        rest = f", about {spent / self.done * left:.0f} s left" if self.done and left else ""
        line = f"compiling: {self.done} of {self.count} units, {spent:.0f} s{rest}"
        if sys.stderr.isatty():
            print(f"\r{line:<70}", end="\n" * last, file=sys.stderr, flush=True)
        elif last or self.done % 4 == 0:
            print(line, file=sys.stderr, flush=True)


class Build(build_ext):
    """Compiles every (source, instruction set) and CUDA program side by side; stores what is there, or why not.

    Objects lie in build/ of the source tree, whoever asks for them: pip, an editable installation, setup.py.
    """

    def run(self):
        self.compiler_path = os.environ.get("CXX") or shutil.which("g++")
        more = hashlib.sha256(" ".join(MORE).encode()).hexdigest()[:8] if MORE else ""
        name = ("objects", sysconfig.get_platform(), sys.implementation.cache_tag, *filter(None, [more]))
        self.temporary = ROOT / "build" / "-".join(name)
        with ThreadPoolExecutor(os.cpu_count()) as self.pool:
            cuda = self.pool.submit(self.build_cuda)
            outcome = self.build_modules()
            outcome["cuda"] = cuda.result()
        target = Path(self.get_ext_fullpath("fastsgd._build_info")).with_name("_build_info.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(outcome, indent=1) + "\n")
        print("fastsgd CPU modules and CUDA programs:", outcome)

    def build_cuda(self):
        """Build the common programs for FASTSGD_CUDA_ARCHS (default "80;90", and PTX of the last for newer cards).

        FASTSGD_CUDA is auto (default: where there is a card), on (fail where it cannot be done) or off. Returns what
        was built, or why not.
        """
        wanted = os.environ.get("FASTSGD_CUDA", "auto")
        if wanted not in ("auto", "on", "off"):
            raise RuntimeError(f"FASTSGD_CUDA: {wanted!r} given, expected auto, on or off")
        if wanted == "off" or (wanted == "auto" and not card()):
            return "not built: " + ("FASTSGD_CUDA=off" if wanted == "off" else "no card here, FASTSGD_CUDA=on builds")
        compiler = nvcc()
        try:
            if compiler is None:
                raise RuntimeError("no nvcc found (set CUDA_HOME or CUDACXX, or pip install nvidia-cuda-nvcc)")
            archs = os.environ.get("FASTSGD_CUDA_ARCHS", "80;90").replace(",", ";").split(";")
            spec = importlib.util.spec_from_file_location("program", ROOT / "fastsgd" / "cuda" / "program.py")
            program = importlib.util.module_from_spec(spec)
            sys.modules["program"] = program  # dataclasses look their module up
            spec.loader.exec_module(program)
            folder = Path(self.get_ext_fullpath("fastsgd.cuda.built.x")).parent
            made = self.build_programs(compiler, archs, program, folder)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            why = (getattr(error, "stderr", None) or str(error)).strip()[-500:]
            if wanted == "on":
                raise RuntimeError(f"FASTSGD_CUDA=on, but CUDA programs cannot be built: {why}") from None
            return f"not built: {why}"
        return f"{made} programs for " + ", ".join(f"sm_{arch}" for arch in archs) + f" and PTX of {archs[-1]}"

    def build_programs(self, compiler, archs, program, folder):
        """Compile the common programs that are not there yet into fat binaries named by their keys; their number."""
        folder.mkdir(parents=True, exist_ok=True)
        targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
        targets.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
        temporary = self.temporary / "cuda"
        temporary.mkdir(parents=True, exist_ok=True)
        common = {f"{one.key}.{'_'.join(archs)}": one for one in program.common()}

        def build(name, one):
            made, source = folder / f"{one.key}.fatbin", temporary / f"{one.key}.cu"
            noted = temporary / name
            if made.exists() and noted.exists():
                return
            source.write_text(one.text)
            self.call([compiler, "-fatbin", *program.FLAGS, f"-I{program.source_folder()}", *targets, str(source), "-o",
                       f"{source}.fatbin"])
            os.replace(f"{source}.fatbin", made)
            noted.touch()

        for old in set(folder.glob("*.fatbin")) - {folder / f"{one.key}.fatbin" for one in common.values()}:
            old.unlink()
        with ThreadPoolExecutor(os.cpu_count()) as inner:
            list(inner.map(build, *zip(*common.items(), strict=True)))
        return len(common)

    def build_modules(self):
        """Compile what is out of date, the longest units first, and link: {instruction set: "built", or why not}."""
        isas = {e.name.rpartition("_")[2]: e for e in self.extensions}
        if platform.machine() not in ("x86_64", "AMD64"):
            return dict.fromkeys(isas, f"not built: made for x86-64, this is {platform.machine()}")
        if self.compiler_path is None:
            return dict.fromkeys(isas, "not built: no g++ found (set CXX, or install g++)")
        units = [Unit(source, isa, self.temporary / isa) for isa, e in isas.items() for source in e.sources]
        stale = sorted((unit for unit in units if out_of_date(unit.made)), key=lambda unit: -unit.seconds)
        progress = Progress(len(stale)) if stale else None
        errors = {}

        def build(unit):
            try:
                self.call(unit.command(self.compiler_path))
            except subprocess.CalledProcessError as error:
                errors[unit.isa] = error.stderr
            progress.step()

        list(self.pool.map(build, stale))
        outcome = {}
        for isa, e in isas.items():
            if isa not in errors:
                try:
                    self.link(e, [unit.made for unit in units if unit.isa == isa])
                except subprocess.CalledProcessError as error:
                    errors[isa] = error.stderr
            outcome[isa] = f"not built: {errors[isa].strip()[-500:]}" if isa in errors else "built"
        if errors and os.environ.get("FASTSGD_CPU", "auto") == "on":
            raise RuntimeError("".join(errors.values()))
        return outcome

    def link(self, extension, objects):
        """Make a module of its objects, unless it is newer than all of them."""
        module = Path(self.get_ext_fullpath(extension.name))
        if module.exists() and module.stat().st_mtime > max(made.stat().st_mtime for made in objects):
            return
        module.parent.mkdir(parents=True, exist_ok=True)
        self.call([self.compiler_path, "-shared", "-fopenmp", *(MORE or ["-s"]), *map(str, objects), "-o",
                   f"{module}.new"])
        os.replace(f"{module}.new", module)

    @staticmethod
    def call(command):
        """Run a compiler command; its warnings are shown."""
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        print(done.stderr, end="")


SOURCES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc" / "cpu").glob("*.cpp"))
# csrc/ is installed as fastsgd.csrc: programs are compiled from its headers; kernels/ as fastsgd.kernels
PACKAGES = [*find_packages(include=["fastsgd*"]), "fastsgd.csrc",
            *(f"fastsgd.{name}" for name in find_packages(include=["kernels*"]))]
setup(packages=PACKAGES, package_dir={"fastsgd.csrc": "csrc", "fastsgd.kernels": "kernels"},
      ext_modules=[Extension(f"fastsgd._cpu_{isa}", SOURCES) for isa in wanted_isas()], cmdclass={"build_ext": Build})
