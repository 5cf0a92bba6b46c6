"""What kernels are told is told once: words are fresh, kinds are asked for in one place, growth touches few files."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import toys

from fastsgd.lowering import words

ROOT = Path(__file__).parent.parent
ASKS = {"spec/kinds.py", "models/base.py", "lowering/work.py", "lowering/own.py", "lowering/traced.py",
        "measure/registry.py", "trial.py"}  # trial: whether something is a user's own
SHELVES = ("models/", "rules/", "metrics/", "spec/", "measure/", "losses.py", "orders.py")
DOORS = ("functional/", "sklearn.py")  # which take records that need no run


@pytest.mark.parametrize("name", words.FILES)
def test_the_words_of_kernels_are_fresh(name):
    assert (ROOT / name).read_text() == words.FILES[name](), "make contract writes it"


def named(node):
    """Names and attributes that a piece of Python mentions."""
    return {part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", None) for part in ast.walk(node)}


def test_kinds_are_asked_for_in_one_place():
    """No `kind_of`, no `type(x) is` and no isinstance of a model, rule, loss, order or kind of data elsewhere."""
    kinds = {name for shelf in ("models", "rules", "losses", "orders", "metrics")
             for name in __import__(f"fastsgd.{shelf}", fromlist=["__all__"]).__all__} | {"Dataset", "Fresh", "Stream"}
    kinds -= {"Model", "Rule", "Loss", "Custom", "Function"}  # one at all, or a user's own: that may be asked
    found = []
    for path in sorted((ROOT / "fastsgd").rglob("*.py")):
        name = str(path.relative_to(ROOT / "fastsgd"))
        if name.startswith(("reproduce/", "report/", "modules/", "sweep/presets", "kernels", "csrc")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and name not in ASKS:
                found += [f"{name}:{node.lineno}" for part in (node.left, *node.comparators)
                          if isinstance(part, ast.Call) and named(part.func) == {"type"}
                          and named(part) & {"model", "rule", "loss", "order", "data", "metric"}]
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
            if called == "kind_of" and name not in ASKS and not name.startswith(SHELVES):
                found.append(f"{name}:{node.lineno}")
            if called == "isinstance" and not name.startswith((*SHELVES, *DOORS, *ASKS)):
                found += [f"{name}:{node.lineno}"] * bool(named(node.args[1]) & kinds)
    assert not found, found


@pytest.mark.parametrize("kind", toys.TOYS)
def test_growth_touches_few_files(kind):
    files = list(toys.TOYS[kind])
    assert len(files) <= toys.MOST[kind], files


def test_toys_run_by_the_documented_places_alone(tmp_path):
    """In a copy with a toy of every kind: on cards (fibers), in Triton (interpreted), in the reference; its CPU loop
    compiles.
    """
    root = tmp_path / "copy"
    for folder in ("fastsgd", "csrc", "kernels"):
        shutil.copytree(ROOT / folder, root / folder, symlinks=True, ignore=lambda at, names: {
            name for name in names if name == "__pycache__" or name.endswith(".so") or (
                at == str(ROOT / "fastsgd") and name in ("csrc", "kernels"))})
    for module in (ROOT / "fastsgd").glob("*.so"):
        (root / "fastsgd" / module.name).symlink_to(module)
    (root / "fastsgd" / "kernels").symlink_to(root / "kernels")  # before those that are installed
    toys.put_into(root)
    environment = os.environ | {"PYTHONPATH": f"{root}:{ROOT / 'tests'}", "TRITON_INTERPRET": "1",
                                "PYTHONDONTWRITEBYTECODE": "1"}
    write = "from fastsgd.lowering import words; words.write(); print(words.ROOT)"
    done = subprocess.run([sys.executable, "-c", write], env=environment, capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == str(root), done.stderr
    assert "SOFTSIGN" in (root / "csrc/core/contract.h").read_text()
    done = subprocess.run([sys.executable, ROOT / "tests" / "toy_runs.py", tmp_path], env=environment,
                          capture_output=True, text=True, cwd=root)
    assert done.stdout.splitlines()[-1:] == ["right"], done.stderr[-3000:]
    subprocess.run(["g++", "-fsyntax-only", "-std=c++17", "-march=x86-64-v3", "-Wall", "-Werror", "-x", "c++",
                    "-include", root / "csrc/cpu/family.h", "/dev/null"], check=True)
