"""Builds one CPU module per instruction set with g++ and pybind11, and the common CUDA programs with nvcc if there is
one; what cannot be built is named, and `fastsgd info` says why."""

import ast
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
COMMON = ["-std=c++17", "-O3", "-ffp-contract=off", "-fopenmp", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra",
          "-Wno-uninitialized", "-Wno-maybe-uninitialized"]  # GCC 12 raises both in its own AVX-512 headers
MORE = shlex.split(os.environ.get("FASTSGD_CXXFLAGS", ""))  # e.g. of a sanitizer; names of functions are kept then
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


def nvcc():
    """The CUDA compiler: CUDACXX, CUDA_HOME, PATH, the usual folder, or pip's; None without one."""
    given = os.environ.get("CUDACXX")
    if given:
        return shutil.which(given)
    home = os.environ.get("CUDA_HOME")
    folders = [f"{home}/bin"] if home else []
    folders += [*os.get_exec_path(), "/usr/local/cuda/bin", f"{sysconfig.get_paths()['purelib']}/nvidia/cu13/bin"]
    return shutil.which("nvcc", path=os.pathsep.join(folders))


class Build(build_ext):
    """Compiles every (source, instruction set) and CUDA program side by side; stores what is there, or why not."""

    def run(self):
        self.compiler_path = os.environ.get("CXX") or shutil.which("g++")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            cuda = pool.submit(self.build_cuda)
            outcome = dict(pool.map(lambda e: (e.name.rpartition("_")[2], self.build_one(e)), self.extensions))
            outcome["cuda"] = cuda.result()
        target = Path(self.get_ext_fullpath("fastsgd._build_info")).with_name("_build_info.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(outcome, indent=1) + "\n")
        print("fastsgd CPU modules and CUDA programs:", outcome)

    def build_cuda(self):
        """Build the common programs for FASTSGD_CUDA_ARCHS (default "80;90", and PTX of the last for newer cards).

        FASTSGD_CUDA is auto (default), on (fail where it cannot be done) or off. Returns what was built, or why not.
        """
        wanted = os.environ.get("FASTSGD_CUDA", "auto")
        if wanted not in ("auto", "on", "off"):
            raise RuntimeError(f"FASTSGD_CUDA: {wanted!r} given, expected auto, on or off")
        if wanted == "off":
            return "not built: FASTSGD_CUDA=off"
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
        temporary = Path(self.build_temp) / "cuda"
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

    def build_one(self, extension):
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
        flags = [*COMMON, *MORE, *ISAS[isa], f"-DFS_MODULE=_cpu_{isa}", f"-I{sysconfig.get_paths()['include']}",
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
            self.call([self.compiler_path, "-shared", "-fopenmp", *(MORE or ["-s"]), *made.values(), "-o",
                       f"{module}.new"])
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
# csrc/ is installed as fastsgd.csrc: programs are compiled from its headers; kernels/ as fastsgd.kernels
PACKAGES = [*find_packages(include=["fastsgd*"]), "fastsgd.csrc",
            *(f"fastsgd.{name}" for name in find_packages(include=["kernels*"]))]
setup(packages=PACKAGES, package_dir={"fastsgd.csrc": "csrc", "fastsgd.kernels": "kernels"},
      ext_modules=[Extension(f"fastsgd._cpu_{isa}", SOURCES) for isa in wanted_isas()], cmdclass={"build_ext": Build})
