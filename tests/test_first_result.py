"""What a first small run costs: torch stays outside until a tensor is asked for, a lone network takes no vector."""

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

import fastsgd as fs
from fastsgd.cuda import card
from fastsgd.native import native

CODE = """
import sys
import fastsgd as fs
m = fs.metrics
sparse = fs.data.sparse_regression(n=20, d=30, nonzero=3, n_test=50, seed=0)
taught = fs.data.teacher_student(n=15, d=2, teacher_width=3, n_test=50, seed=0)
for model, data, more in ((fs.models.DiagonalLinear(d=30), sparse, (m.JacobianRank(rtol=1e-15), m.ParameterNorm())),
                          (fs.models.ReLU2(d=2, width=20), taught, (m.JacobianRank(), m.FeatureSparsity())),
                          (fs.models.MLP(2, (5, 5)), taught, (m.JacobianRank(),))):
    for rule in (fs.rules.SGD(), fs.rules.GD(), fs.rules.SGD(momentum=0.5)):
        result = fs.train(model, data, rule=rule, step_size=0.01, steps=20, dtype="float64", backend="cpu",
                          metrics=(m.TrainLoss(), m.TestLoss(), *more))
        assert result.numpy("train_loss").shape == (1, 1) and result.provenance["backend"] == "cpu"
print(sorted({"torch", "scipy", "matplotlib", "xarray", "rich", "typer", "fastsgd.sweep"} & set(sys.modules)))


class Refused:  # torch, whose import takes seconds
    def find_spec(self, name, *_):
        if name == "torch":
            raise ImportError("torch is asked for")


sys.meta_path.insert(0, Refused())
try:
    result["train_loss"]
except ImportError as error:
    print(error)
"""


FIRST = """
import sys
import fastsgd as fs
data = fs.data.sparse_regression(n=20, d=30, nonzero=3, n_test=50, seed=0)
metrics = (fs.metrics.TrainLoss(), fs.metrics.TestLoss(), fs.metrics.JacobianRank(rtol=1e-15))
result = fs.train(fs.models.DiagonalLinear(d=30), data, rule=fs.rules.SGD(), step_size=0.01, steps=20, networks=2,
                  dtype="float64", metrics=metrics)
assert result.numpy("rank").shape == (2, 1) and result.provenance["backend"] == "cpu"
print(*sys.modules)
"""
# What a run on the CPU leaves to others: cards and Triton, other kinds of data, metrics and families, own functions,
# files, estimates and stops; and what of the standard library and NumPy these take.
NOT_OF_A_PLAIN_RUN = {
    "fastsgd.backends.cuda", "fastsgd.backends.triton", "fastsgd.backends.reference", "fastsgd.cuda.program",
    "fastsgd.cuda.compiler", "fastsgd.measure.cards", "fastsgd.measure.tiles", "fastsgd.measure.task",
    "fastsgd.measure.programs", "fastsgd.measure.norms", "fastsgd.measure.sparsity", "fastsgd.data.paper",
    "fastsgd.spec.population", "fastsgd.models.population", "fastsgd.models.dense", "fastsgd.metrics.feature_sparsity",
    "fastsgd.rules.gd", "fastsgd.losses", "fastsgd.stops", "fastsgd.spec.stop", "fastsgd.spec.codec", "fastsgd.archive",
    "fastsgd.files", "fastsgd.cost", "fastsgd.probe", "fastsgd.trace", "fastsgd.checkpoint", "fastsgd.sweep",
    "json", "glob", "pkgutil", "fcntl", "difflib", "subprocess", "numpy.ma", "torch",
}


def test_a_plain_run_needs_no_torch():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "torch is asked for"]


@pytest.mark.skipif(card.why_none() is None, reason="this machine has a card, and backend='auto' takes it")
def test_a_plain_run_imports_what_it_uses():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, check=True, env=environment)
    assert not NOT_OF_A_PLAIN_RUN & set(done.stdout.split())


def test_what_is_not_imported_exists():
    """Else a new name would pass the test above for ever."""
    assert all(find_spec(name) for name in NOT_OF_A_PLAIN_RUN)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("rule", (fs.rules.SGD(), fs.rules.GD(), fs.rules.SGD(momentum=0.5)),
                         ids=("sgd", "gd", "momentum"))
@pytest.mark.parametrize("model", (fs.models.DiagonalLinear(d=3), fs.models.ReLU2(d=3, width=20)), ids=("d3", "relu2"))
def test_a_lone_network_gets_no_vector_of_networks(model, rule, dtype):
    data = fs.Dataset(np.eye(3, dtype=dtype), np.ones(3, dtype=dtype))
    runs = {N: fs.Run(model, data, rule, 0.01, 50, networks=N, dtype=dtype, backend="cpu") for N in (1, 64)}
    alone, many = (fs.plan(run, fs.Tuning(threads=1)) for run in runs.values())
    assert alone.tuning.lanes == 1
    assert alone.tuning.team == (native().team[dtype] if rule.plain() else 1)
    assert many.tuning.lanes == native().lanes[dtype]
    assert fs.train(alone).weights.tobytes() == fs.train(many).weights[:1].tobytes()
