"""Owns the surroundings of the suite: waiting threads sleep, Triton is interpreted, what must not run explodes."""

import gc
import importlib.util
import os
import shutil
from functools import cache
from pathlib import Path

import pytest
import tiers

# The suite's workers take all processors; threads of tiny problems wait for each other. Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read once, when the first compiled module is loaded

import torch

from fastsgd.cuda import card as cards

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read once, when triton is first imported
gc.disable()  # while test files are imported, which leave no garbage


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="what `make test` leaves out, too: see tests/tiers.py")


def pytest_configure(config):
    """`make test` compiles what runs need without optimization, in child processes too: in a fifth of the time."""
    if not config.getoption("--long"):
        os.environ.setdefault("FASTSGD_CXX", str(Path(__file__).with_name("quick_g++")))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Groups as xdist has them, but for those that are done: after every test it goes through all that it keeps."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class Forgetting(LoadGroupScheduling):
        def mark_test_complete(self, node, item_index, duration=0):
            super().mark_test_complete(node, item_index, duration)
            groups, group = self.assigned_work[node], self._split_scope(self.registered_collections[node][item_index])
            if all(groups[group].values()):
                del groups[group]

    return Forgetting(config, log)


def whole(config):
    """Whether everything runs that was asked for: with --long, or where tests are named one by one."""
    return config.getoption("--long") or any("::" in name for name in config.args)


def pytest_collection_modifyitems(config, items):
    """Otherwise the tests of `make test`."""
    if not whole(config):
        items[:], left_out = tiers.of_make_test(items)
        config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish():
    """Modules and collected tests stay to the end: nobody has to look through them again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def the_interpreter_does_what_is_needed():
    if os.environ.get("TRITON_INTERPRET") != "1" or importlib.util.find_spec("triton") is None:
        yield
        return
    import interpreter

    with interpreter.once():
        yield


@pytest.fixture
def nothing_runs(monkeypatch):
    """Every backend explodes as soon as anything is loaded or advanced."""

    def explode(*args, **kwargs):
        raise AssertionError("something ran")

    from fastsgd import backends, measure  # after the environment is set

    for backend in map(backends.by_name, backends.KINDS):
        for verb in ("load", "advance"):
            monkeypatch.setattr(type(backend), verb, explode)
    monkeypatch.setattr(measure.Place, "begin", explode)


@pytest.fixture
def optimized(monkeypatch):
    """What runs need is compiled as users have it compiled."""
    from fastsgd.trace import compiler

    monkeypatch.delenv("FASTSGD_CXX", raising=False)
    monkeypatch.setattr(compiler, "compiler", cache(compiler.compiler.__wrapped__))


@pytest.fixture(scope="session")
def fiber_card():
    """A card made of fibers; what it compiles is kept in the build folder."""
    from fibers import FiberCard

    return FiberCard(Path(__file__).parents[1] / "build" / "fibers")


@pytest.fixture
def a_card(fiber_card):
    """This machine's card, or one made of fibers that stands in its place."""
    if cards.why_none() is None:
        yield cards.cards(None)[0]
        return
    from fibers import in_place

    with in_place(fiber_card):
        yield fiber_card


@pytest.fixture(autouse=True)
def card_for_cuda(request):
    """Tests with the parameter backend="cuda" have a card: this machine's, or one made of fibers."""
    given = getattr(request.node, "callspec", None)
    if given is None or given.params.get("backend") != "cuda" or cards.why_none() is None:
        yield
        return
    from fibers import in_place

    with in_place(request.getfixturevalue("fiber_card")):
        yield


def pytest_terminal_summary(terminalreporter):
    """At its end the suite says what this machine could not test."""
    from fastsgd.native import ISAS, NEEDS, cpu_flags

    lacks = {"CUDA kernels on a card (they ran as fibers)": cards.why_none() is not None,
             "Triton's kernels on a card (they were interpreted)": not torch.cuda.is_available(),
             "programs of nvcc": shutil.which("nvcc") is None,
             "instruction counts": shutil.which("valgrind") is None}
    lacks |= {f"x86-64-{isa}": not set(NEEDS[isa]) <= cpu_flags() for isa in ISAS}
    lacks |= {f"what needs {name}": importlib.util.find_spec(name) is None
              for name in ("jax", "numba", "modelbatch", "sklearn", "xarray", "matplotlib", "triton", "zarr", "mkdocs",
                           "distributed", "submitit", "ray")}
    if not whole(terminalreporter.config):
        terminalreporter.write_line("left out: seven in eight cases on slow backends, and what is marked long "
                                    "(`make test-all`)")
    terminalreporter.write_line("not tested on this machine: "
                                + (", ".join(what for what, so in lacks.items() if so) or "nothing"))
