"""Owns the attacks on the machine's side: layouts, instruction sets, environment variables, the compiled module."""

import os
import subprocess
import sys

import numpy as np
import pytest
from cases import USABLE
from test_hostile import T, X, Y, refuses, request, train

import fastsgd as fs
from fastsgd import native


@pytest.mark.parametrize("layout", ({"team": 3}, {"lanes": 5}, {"lanes": 8, "team": 8}, {"team": 10**9}))
def test_layouts_that_no_kernel_has(layout, nothing_runs):
    tuning = fs.Tuning(**layout)
    refuses(fs.PlanError, ("tuning", "lanes", "team", "legal"), lambda: train(backend="cpu", tuning=tuning))


def test_instruction_sets(nothing_runs):
    for bad in (3, ["v3"], ("v3",), True, b"v3"):
        refuses(fs.SpecError, "tuning.isa", lambda bad=bad: fs.Tuning(isa=bad))
    for bad in ("v9", "V3", "avx2"):
        refuses(fs.PlanError, (bad, "v3"), lambda bad=bad: train(backend="cpu", tuning=fs.Tuning(isa=bad)))


def test_a_named_backend_that_cannot_run_says_why(nothing_runs, monkeypatch):
    class Other(fs.models.DiagonalLinear):
        """A family without a kernel: to sort has none."""

        def forward(self, params, X):
            return X @ params["u"].sort().values

    refuses(fs.BackendUnavailable, ("cpu", "Other"), lambda: train(model=Other(3), backend="cpu"))
    with pytest.warns(fs.SlowBackendWarning, match="not cpu: it has no kernel for the model Other"):
        plan = fs.plan(request(model=Other(3)))
    assert plan.backend == "reference" and "Other" in plan.explain()
    monkeypatch.setattr(native, "cpu_flags", lambda: frozenset())
    native.native.cache_clear()
    try:
        refuses(fs.BackendUnavailable, ("cpu", "avx2", "reference"), lambda: train(backend="cpu"))
        with pytest.warns(fs.SlowBackendWarning, match="no CPU kernels for this machine"):
            assert fs.plan(request()).backend == "reference"
    finally:
        native.native.cache_clear()


REPORT = """
import json, numpy as np, fastsgd as fs
data = fs.Dataset(np.arange(6.0).reshape(3, 2) / 6, np.arange(3.0))
run = fs.Run(fs.models.DiagonalLinear(2), data, fs.rules.SGD(), [0.1, 0.2], 9, dtype="float64", backend="cpu")
try:
    plan = fs.plan(run)
    print(plan.tuning.isa, plan.tuning.threads, fs.train(plan).weights.tobytes().hex())
except fs.FastsgdError as error:
    print(type(error).__name__, error)
"""


def in_a_fresh_process(**environment):
    """What REPORT prints under these environment variables."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FASTSGD_") and k != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", REPORT], env=clean | environment, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(maxsplit=2)


def test_environment_variables_are_obeyed_when_legal():
    said = {isa: in_a_fresh_process(FASTSGD_ISA=isa, FASTSGD_THREADS="3") for isa in native.ISAS}
    absent = {isa: said.pop(isa) for isa in native.ISAS if isa not in USABLE}
    assert all(s[0] == "BackendUnavailable" and "this machine has no" in " ".join(s) for s in absent.values())
    assert [s[:2] for s in said.values()] == [[isa, "3"] for isa in USABLE]
    assert len({s[2] for s in said.values()}) == 1, "instruction sets differ in bits"
    assert in_a_fresh_process(FASTSGD_THREADS="2", OMP_NUM_THREADS="5")[1] == "2"
    assert in_a_fresh_process(OMP_NUM_THREADS="5")[1] == "5"


@pytest.mark.parametrize(("name", "value", "error"), [
    ("FASTSGD_ISA", "v9", "PlanError"), ("FASTSGD_ISA", "V3 ", "PlanError"),
    ("FASTSGD_THREADS", "0", "PlanError"), ("FASTSGD_THREADS", "-1", "PlanError"),
    ("FASTSGD_THREADS", "many", "PlanError"), ("FASTSGD_THREADS", "1.5", "PlanError"),
])
def test_environment_variables_that_make_no_sense(name, value, error):
    said = in_a_fresh_process(**{name: value})
    assert said[0] == error and name in " ".join(said) and value.strip() in " ".join(said)


def advance(**changes):
    """Call the compiled module as the CPU backend does, for two diagonal networks, with some arguments changed."""
    padded = np.zeros((7, 16), "float32")
    padded[:, :3] = X
    given = {"shape": ("diagonal", 3, 0, 0, 0), "layout": (1, 1), "threads": 1, "ids": np.arange(2),
             "W": np.full((2, 6), 0.1, "float32"), "lost": np.full(2, -1), "base": np.full(2, 0.1, "float32"),
             "row": np.zeros(2, "int32"), "t0": 0, "t1": T, "multiplier": np.ones((1, T), "float32"), "X": padded,
             "y": Y.astype("float32"), "indices": None, "first": None, "points": 7, "batch": 1, "full": False,
             "common": -1, "seed": 0, "dloss": 1.0, "bound": np.inf}
    given |= changes
    native.native().advance_float32(**given)
    return given


def read_only(array):
    array.setflags(write=False)
    return array


def test_the_compiled_module_trains_in_place():
    assert not np.array_equal(advance()["W"], np.full((2, 6), 0.1, "float32"))


@pytest.mark.parametrize(("field", "value", "why"), [
    ("W", read_only(np.ones((2, 6), "float32")), "read-only"), ("lost", read_only(np.full(2, -1)), "read-only"),
    ("W", np.ones((6, 2), "float32").T, "contiguous"), ("W", np.ones((2, 12), "float32")[:, ::2], "contiguous"),
    ("W", np.ones((2, 6)), "float64"), ("W", np.ones((2, 6), ">f4"), "f4"), ("W", np.ones((2, 6), "int32"), "int32"),
    ("W", np.ones((2, 5), "float32"), "entries"), ("W", np.ones((3, 6), "float32"), "entries"),
    ("lost", np.full(2, -1, "int32"), "int32"), ("lost", np.full(3, -1), "entries"),
    ("lost", np.full(4, -1)[::2], "contiguous"),
    ("ids", np.arange(2, dtype="int32"), "int32"), ("ids", np.arange(4)[::2], "contiguous"),
    ("base", np.full(2, 0.1), "float64"), ("base", np.full(1, 0.1, "float32"), "entries"),
    ("row", np.zeros(2, "int64"), "int64"), ("row", np.zeros(3, "int32"), "entries"),
    ("row", np.ones(2, "int32"), "outside"), ("row", np.full(2, -1, "int32"), "outside"),
    ("multiplier", np.ones((1, T)), "float64"),
    ("multiplier", np.ones((T, 2), "float32").T, "contiguous"), ("multiplier", np.ones((1, T - 1), "float32"), ""),
    ("X", np.zeros((7, 16)), "float64"), ("X", np.zeros((16, 7), "float32").T, "contiguous"),
    ("X", np.zeros((7, 2), "float32"), "padded"), ("y", np.zeros(7), "float64"),
    ("y", np.zeros(6, "float32"), "entries"),
    ("indices", np.zeros((1, T, 1), "int64"), "int64"), ("indices", np.zeros((1, T - 1, 1), "uint32"), "entries"),
    ("indices", np.full((1, T, 1), 7, "uint32"), "outside"), ("indices", np.zeros((3, T, 1), "uint32"), "rows"),
])
def test_the_compiled_module_refuses_arrays_by_name(field, value, why):
    before = value.tobytes()
    with pytest.raises(ValueError, match=f"{field}.*{why}"):
        advance(**{field: value})
    assert value.tobytes() == before


@pytest.mark.parametrize("changes", [
    {"threads": 0}, {"t0": -1}, {"t0": T, "t1": 0}, {"batch": 0}, {"layout": (2, 2)}, {"layout": (0, 0)},
    {"shape": ("cubic", 3, 0, 0, 0)}, {"X": np.zeros(7, "float32")}])
def test_the_compiled_module_refuses_sizes_that_are_off(changes):
    with pytest.raises(ValueError):
        advance(**changes)
