"""The house: imports point downward, importing is free, headers stand alone, files stay small."""

import ast
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
from forking import forked

import fastsgd as fs
from fastsgd.measure import registry

ROOT = Path(__file__).parent.parent
LAYERS = [  # bottom to top; a module may import from layers below, and from its own shelf
    ["errors", "limits", "origin", "shelf"], ["files"], ["native", "spec", "cuda", "portable"], ["linalg", "trace"],
    ["data", "models", "losses", "orders", "modules", "lr_schedulers"], ["rules"], ["metrics"], ["stops"],
    ["lowering"], ["storage"], ["archive"], ["tables"], ["result"], ["backends"], ["measure"], ["probe"],
    ["cost"], ["trial"], ["plan"], ["replan"], ["settle"], ["running"], ["progress"], ["execute"], ["watch"],
    ["checkpoint"], ["train", "functional", "extend", "companions", "polish"], ["sweep", "sklearn", "flow"],
    ["calibrate"], ["report", "config"], ["reproduce"], ["cli"], ["__main__"],
]
LEVEL = {name: k for k, layer in enumerate(LAYERS) for name in layer}


def imports(path):
    """The fastsgd modules that a file imports, in functions too, as top-level names within the package."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[:len(package) - node.level + 1] + tuple(node.module.split(".") if node.module else ())
            for alias in node.names:
                inside = (*base, alias.name)[1:]
                if inside and inside[0] in LEVEL:
                    yield inside[0]
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any(name.split(".")[0] == "fastsgd" for name in names), f"{path}: imports are relative"


@pytest.mark.parametrize("path", sorted((ROOT / "fastsgd").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward(path):
    own = path.relative_to(ROOT / "fastsgd").with_suffix("").parts[0]
    if own == "__init__":
        return
    for name in imports(path):
        assert name == own or LEVEL[name] < LEVEL[own], f"{own} imports {name}"


# Who imports by name, or from a folder that it adds: compiled modules, Triton's kernels, what is imported lazily, and
# the command that runs bench/ of a checkout.
BY_NAME = {"__init__.py", "shelf.py", "native.py", "portable.py", "cli/bench.py"}


def test_no_arrow_is_hidden_in_a_name_or_a_path():
    found = set()
    for path in sorted((ROOT / "fastsgd").rglob("*.py")):
        text = path.read_text()
        hides = any(word in text for word in ("import_module", "__import__", "sys.path"))
        for node in ast.walk(ast.parse(text)) if hides else ():
            called = getattr(node, "func", None)
            word = getattr(called, "attr", getattr(called, "id", None))
            moved = word in ("insert", "append", "extend") and "sys.path" in ast.unparse(called)
            if word in ("import_module", "__import__") or moved:
                found.add(str(path.relative_to(ROOT / "fastsgd")))
    found = {name for name in found if not name.startswith(("kernels/", "csrc/"))}
    assert found == BY_NAME


@pytest.mark.parametrize("path", sorted((ROOT / "kernels").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_kernels_import_only_triton(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= {"triton", "triton.language"}
        elif isinstance(node, ast.ImportFrom):
            inside = len(path.relative_to(ROOT).parts) - 1
            assert 0 < node.level <= inside, f"{path} imports from outside of kernels/"


def test_importing_is_free():
    code = ("import sys, fastsgd; before = 'numpy' in sys.modules; fastsgd.train, fastsgd.sweep; "
            "heavy = {'torch', 'triton', 'matplotlib', 'rich', 'typer', 'xarray'} & set(sys.modules); "
            "native = [name for name in sys.modules if name.startswith('fastsgd._cpu')]; "
            "print(before, sorted(heavy), native)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False [] []"


def meanings(first):
    """What every name is, and whether one that there is not is missed, for who imports this before all else."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "fastsgd"]:
        del sys.modules[name]
    exec(first, {})
    fresh = import_module("fastsgd")
    return [type(getattr(fresh, name)).__name__ for name in fresh.__all__], hasattr(fresh, "no")


def test_names_mean_the_same_whatever_was_imported_first():
    """In forks of this process, which has torch: importing it takes seconds."""
    orders = ("", "import fastsgd.plan, fastsgd.train", "from fastsgd.plan import plan",
              "from fastsgd import cli, models", "from fastsgd import *")
    said = [forked(partial(meanings, first)) for first in orders]
    assert said == said[:1] * len(orders) and not said[0][1]


def test_every_name_is_where_the_package_looks_for_it():
    tree = ast.parse((ROOT / "fastsgd" / "__init__.py").read_text())
    typed = next(node for node in tree.body if isinstance(node, ast.If))
    here = {alias.name: node.module for node in typed.body for alias in node.names}
    assert {name for name, module in here.items()} | {"__version__"} == set(fs.__all__)
    assert {name: module for name, module in here.items() if module} == fs._homes


@pytest.mark.parametrize("shelf", (fs.data, fs.metrics, fs.models, fs.rules), ids=lambda shelf: shelf.__name__)
def test_every_name_of_a_shelf_is_where_the_shelf_looks_for_it(shelf):
    tree = ast.parse(Path(shelf.__file__).read_text())
    typed = next(node for node in tree.body if isinstance(node, ast.If))
    now = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level == 1]
    assert {alias.name for node in (*typed.body, *now) for alias in node.names} == set(shelf.__all__)
    homes = next(node.value.args[1] for node in tree.body if isinstance(getattr(node, "value", None), ast.Call))
    for file, names in ast.literal_eval(homes).items():
        for name in names:
            thing = getattr(shelf, name)
            assert vars(import_module(f".{file}", shelf.__name__))[name] is thing
            assert {"." * (node.level - 1) + node.module for node in typed.body for alias in node.names
                    if alias.name == name} <= {file}


def test_kernels_are_those_of_metrics_that_there_are():
    assert set(registry.HOME) <= set(fs.metrics.__all__)
    assert all(isinstance(registry.kernels_of(getattr(fs.metrics, name)), registry.Kernels) for name in registry.HOME)


@pytest.mark.parametrize("path", sorted((ROOT / "csrc" / "core").rglob("*.h")), ids=lambda p: p.name)
def test_core_headers_stand_alone_and_need_no_library(path):
    subprocess.run(["g++", "-fsyntax-only", "-std=c++17", "-march=x86-64-v3", "-Wall", "-Werror", "-include", str(path),
                    "-x", "c++", "/dev/null"], check=True)
    for line in path.read_text().splitlines():
        if line.startswith("#include <"):
            assert line == "#include <stddef.h>", f"{path.name} is freestanding"


def test_public_names_are_documented():
    for module in (fs, fs.linalg, fs.models, fs.rules, fs.metrics, fs.orders, fs.losses, fs.data, fs.modules, fs.stops,
                   fs.lr_schedulers):
        for name in module.__all__:
            thing = getattr(module, name)
            assert getattr(thing, "__doc__", None), name
            if isinstance(thing, type):
                for method in (m for m in vars(thing) if not m.startswith("_")):
                    value = getattr(thing, method)
                    inherited = any(getattr(getattr(base, method, None), "__doc__", None) for base in thing.__mro__)
                    assert not callable(value) or inherited, f"{name}.{method}"


def test_files_are_small_and_open_with_what_they_own():
    sizes = []
    python = [path for room in ("fastsgd", "kernels") for path in (ROOT / room).rglob("*.py")]
    for path in [*python, *(ROOT / "csrc").rglob("*.*")]:
        lines = path.read_text().splitlines()
        sizes.append(len(lines))
        assert len(lines) <= 480, f"{path}: {len(lines)} lines"
        assert lines[0].startswith(('"""', "//")), f"{path} does not say what it owns"
        assert max(map(len, lines)) <= 120, path
    assert sorted(sizes)[len(sizes) // 2] < 150
