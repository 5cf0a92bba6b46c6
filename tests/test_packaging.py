"""Packages: an sdist holds everything that a build needs, and the package data are declared."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("packaging")  # an sdist is made once
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Files of a fresh sdist, relative to its root; made in a copy, since setuptools leaves marks where it works."""
    out = tmp_path_factory.mktemp("sdist")
    tree = shutil.copytree(ROOT, out / "tree", symlinks=True, ignore=shutil.ignore_patterns(
        ".*", "build", "demo", "*.egg-info", "__pycache__"))
    command = [sys.executable, "setup.py", "-q", "egg_info", "-e", str(out), "sdist",
               "-d", str(out)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    with tarfile.open(next(out.glob("*.tar.gz"))) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.mark.parametrize("pattern", ["csrc/**/*.h", "csrc/**/*.cpp", "kernels/**/*.py", "fastsgd/**/*.py",
                                     "fastsgd/data/*.npz", "tests/*.py", "tests/fibers/*",
                                     "bench/*.py", "bench/*.cpp", "*.md", "docs/**/*.*",
                                     "LICENSE", "CITATION.cff", "fastsgd/py.typed", "Makefile", "pyproject.toml",
                                     "setup.py"])
def test_sdist_is_complete(names, pattern):
    wanted = {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern) if path.name != "__pycache__"}
    assert wanted and wanted <= names, wanted - names


def test_sdist_holds_nothing_built(names):
    assert not [name for name in names if name.endswith((".so", ".pyc", "_build_info.json"))]


def test_kernels_are_installed_as_a_part_of_fastsgd(tmp_path):
    """What `build_py` would install imports from elsewhere; so does the source tree, without an installation."""
    subprocess.run([sys.executable, "setup.py", "-q", "egg_info", "-e", str(tmp_path), "build_py", "--build-lib",
                    str(tmp_path / "lib")], cwd=ROOT, check=True, capture_output=True)
    wanted = {path.relative_to(ROOT) for path in (ROOT / "kernels").rglob("*.py")}
    assert wanted <= {path.relative_to(tmp_path / "lib" / "fastsgd") for path in (tmp_path / "lib").rglob("*.py")}
    for place in (tmp_path / "lib", ROOT):
        code = ("from fastsgd.portable import kernel; import sys; name = kernel('train').__file__; "
                "import fastsgd.kernels.train as again; print(name); assert again.__file__ == name")
        done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(place)}, cwd=tmp_path,
                              capture_output=True, text=True, check=True)
        assert Path(done.stdout.strip()).is_relative_to(place)
