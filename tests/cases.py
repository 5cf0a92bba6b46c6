"""Owns the small problems that several test files share."""

import numpy as np

import fastsgd as fs
from fastsgd.native import ISAS, NEEDS, cpu_flags, native

USABLE = [isa for isa in ISAS if all(flag in cpu_flags() for flag in NEEDS[isa])]  # instruction sets of this machine
LANES = native().lanes  # {dtype: networks side by side in one vector}
MODELS = {
    "diagonal_1": fs.models.DiagonalLinear(1, u0=0.5, v0=0.4),
    "diagonal_13": fs.models.DiagonalLinear(13, u0=0.3, v0=0.1),
    "diagonal_30": fs.models.DiagonalLinear(30, u0=0.3, v0=0.1),
    "diagonal_70": fs.models.DiagonalLinear(70),
    "relu2_1_1": fs.models.ReLU2(1, 1, output_bias=False, W1_scale=0.5),
    "relu2_3_21": fs.models.ReLU2(3, 21, W1_scale=0.7, b1_scale=0.1, b2_scale=0.1),
    "relu2_2_20_plain": fs.models.ReLU2(2, 20, hidden_bias=False, output_bias=False),
    "relu2_10_7": fs.models.ReLU2(10, 7, hidden_bias=True, output_bias=False),
    "relu2_7_70": fs.models.ReLU2(7, 70, hidden_bias=False, output_bias=True),
}
RULES = {
    "sgd": (fs.rules.SGD(), None),
    "sgd_common": (fs.rules.SGD(), fs.orders.Common(3)),
    "minibatch": (fs.rules.SGD(batch_size=3), None),
    "minibatch_common": (fs.rules.SGD(batch_size=3), fs.orders.Common()),
    "gd": (fs.rules.GD(), None),
}
DTYPES = ("float32", "float64")
BACKENDS = ("cpu", "cuda", "reference")  # conftest.py sees to it that there is a card


class Elsewhere:
    """An array of another library that speaks DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **kwargs):
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def problem(d, n=11, seed=0):
    """A Dataset of n standard normal points and labels, with 9 test points."""
    rng = np.random.default_rng(seed)
    return fs.Dataset(rng.standard_normal((n, d)), rng.standard_normal(n), rng.standard_normal((9, d)),
                      rng.standard_normal(9))


def request(model, rule="sgd", dtype="float64", steps=50, N=19, **fields):
    """A Run of N networks of MODELS[model] under RULES[rule], each with a step size and a decay time of its own."""
    record = MODELS[model]
    update, order = RULES[rule]
    step_size = fs.StepSize(np.linspace(0.01, 0.05, N) / max(1, record.d / 10), np.linspace(0.3, 0.9, N), 3.0)
    defaults = {"step_size": step_size, "order": order, "dtype": dtype, "seed": 7, "save": fs.SaveAt(linear=3),
                "metrics": (fs.metrics.TrainLoss(), fs.metrics.TestLoss(), fs.metrics.ParameterNorm())}
    return fs.Run(record, problem(record.d).astype(dtype), update, steps=steps, **(defaults | fields))


def bits(result):
    """Everything a result computed, as bytes: equal if and only if every bit is."""
    return (result.weights.tobytes(), result.lost.tobytes(),
            {name: a.tobytes() for name, a in sorted(result.records.items())})
