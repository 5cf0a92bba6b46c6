"""Nothing is cast silently: every array that a run would take with other numbers is refused by its name."""

import numpy as np
import pytest
import torch
from cases import problem

import fastsgd as fs

M, R, T = fs.models, fs.rules, 6
OTHER = {"float32": "float64", "float64": "float32"}
NET = M.MLP(3, 4)
GOOD = {"model": NET, "data": problem(3), "rule": R.SGD(), "step_size": 0.01, "steps": T, "dtype": "float64"}
pytestmark = pytest.mark.usefixtures("nothing_runs")
PAIR = [0.1, 0.2]
HYPERS = {  # {dotted name: fields of a Run that hold the array `a`}
    "step_size.base": lambda a: {"step_size": a},
    "step_size.decay_at": lambda a: {"step_size": fs.StepSize(0.1, a, 2.0)},
    "step_size.decay_by": lambda a: {"step_size": fs.StepSize(0.1, 0.5, a)},
    "step_size.warmup.factor": lambda a: {"step_size": fs.StepSize(0.1, warmup=fs.Warmup(a))},
    "step_size.cosine.final": lambda a: {"step_size": fs.StepSize(0.1, cosine=fs.Cosine(a))},
    "step_size": lambda a: {"step_size": np.stack([a] * T, axis=1) if isinstance(a, np.ndarray) else a.expand(T, 2).T},
    "model.W_scale": lambda a: {"model": M.MLP(3, 4, W_scale=a)},
    r"model\.b_scale\.1": lambda a: {"model": M.MLP(3, 4, b_scale=(0.1, a))},
    "model.W1_scale": lambda a: {"model": M.ReLU2(3, 4, W1_scale=a)},
    "model.u0": lambda a: {"model": M.DiagonalLinear(3, u0=a)},
    r"model\.start_at\.0": lambda a: {"model": M.DiagonalProduct(3, 2, (a, 0.1))},
    "rule.weight_decay": lambda a: {"rule": R.SGD(weight_decay=a)},
    "rule.momentum": lambda a: {"rule": R.SGD(momentum=a)},
    "rule.average": lambda a: {"rule": R.GD(average=a)},
    "rule.rho": lambda a: {"rule": R.SAM(rho=a)},
    "rule.epsilon": lambda a: {"rule": R.Adam(epsilon=a)},
    "rule.label_noise.sigma": lambda a: {"rule": R.SGD(label_noise=a)},
    "rule.gradient_noise.sigma": lambda a: {"rule": R.SGD(gradient_noise=fs.GradientNoise(a))},
    "rule.sgd_step": lambda a: {"rule": R.SDE(sgd_step=a, loss_level=0.1)},
    "loss.weights": lambda a: {"loss": fs.losses.Squared(weights=a), "model": M.MLP(3, 4, outputs=2),
                               "data": fs.Dataset(np.ones((4, 3)), np.ones((4, 2)))},
}


def planned(dtype, **fields):
    fields = GOOD | {"dtype": dtype} | fields
    return fs.plan(fs.Run(**(fields | {"data": fields["data"].astype(dtype)})))


@pytest.mark.parametrize("kind", (np.array, torch.tensor), ids=("numpy", "torch"))
@pytest.mark.parametrize("name", HYPERS)
def test_hyper_parameters_of_fewer_digits_than_the_run_are_refused(name, kind):
    of = np if kind is np.array else torch
    single, double = kind(PAIR, dtype=of.float32), kind(PAIR, dtype=of.float64)
    with pytest.raises(fs.PlanError, match=rf"{name}: holds float32, but the run is float64.*astype"):
        planned("float64", **HYPERS[name](single))
    for dtype, array in (("float32", single), ("float64", double), ("float32", double)):  # hyper-parameters are float64
        planned(dtype, **HYPERS[name](array))


def test_numbers_and_lists_have_no_dtype():
    for value in (0.1, PAIR, tuple(PAIR), np.float64(0.1), 1, [1, 2], np.array([1, 2], np.uint8)):
        for dtype in OTHER:
            planned(dtype, step_size=value)
    with pytest.raises(fs.PlanError, match=r"step_size.base: holds float32"):
        planned("float64", step_size=np.float32(0.1))


@pytest.mark.parametrize("dtype", (np.float16, np.longdouble))
def test_floats_that_no_run_has_are_refused(dtype):
    for fields in HYPERS.values():
        with pytest.raises((fs.SpecError, fs.PlanError), match=f"holds {np.dtype(dtype)}"):
            planned("float64", **fields(np.array(PAIR, dtype)))


def test_float32_numbers_keep_their_bits():
    steps = np.array(PAIR, np.float32)
    np.testing.assert_array_equal(planned("float32", step_size=steps).base, steps)
    schedule = fs.StepSize(steps, decay_at=np.array([0.3, 0.7], np.float32), decay_by=2.0)
    plan = planned("float32", step_size=schedule, steps=10**9)
    at = np.float64(np.float32(0.3)) * 10**9  # in float64, as ever
    assert plan.table(int(at) - 1, int(at) + 1)[plan.row[0]].tolist() == [1.0, 0.5]


@pytest.mark.parametrize("dtype", OTHER)
def test_data_made_on_the_way_are_refused_in_another_dtype(dtype):
    other, weights = OTHER[dtype], {name: np.ones(shape) for name, shape in NET.shapes().items()}
    fresh = fs.data.Fresh(3, NET, weights).astype(other)
    with pytest.raises(fs.PlanError, match=rf"data\.weights\.W1: holds {other}, but the run is {dtype}.*astype"):
        fs.plan(fs.Run(**(GOOD | {"data": fresh, "dtype": dtype})))
    assert planned(dtype, data=fresh).run.data.weights["b1"].dtype == dtype
    whole = fs.data.Fresh(3, NET, {name: np.ones(shape, int) for name, shape in NET.shapes().items()})
    fs.plan(fs.Run(**(GOOD | {"data": whole, "dtype": dtype})))
    with pytest.raises(fs.SpecError, match=r"data.weights.*holds float16"):
        fs.data.Fresh(3, NET, {name: a.astype("float16") for name, a in weights.items()})


@pytest.mark.parametrize("dtype", OTHER)
def test_a_stream_gives_the_runs_dtype_or_whole_numbers(dtype):
    def stream(x, y, value=1):
        return fs.data.Stream(3, lambda ids, t0, t1, B: (np.full((len(ids), t1 - t0, B, 3), value, x),
                                                         np.full((len(ids), t1 - t0, B), value, y)))

    def draw(*given):
        return stream(*given).draw(np.arange(2), 0, 4, 1, dtype)

    assert all(a.dtype == dtype for a in (*draw(dtype, dtype), *draw(int, "uint8")))
    for name, kinds in (("X", (OTHER[dtype], dtype)), ("y", (dtype, OTHER[dtype]))):
        with pytest.raises(fs.SpecError, match=f"data.function's {name}: holds {OTHER[dtype]}, but the run is {dtype}"):
            draw(*kinds)
    most = 24 if dtype == "float32" else 53
    assert draw(int, int, 2**most)[0].max() == 2**most
    with pytest.raises(fs.SpecError, match=rf"whole number beyond 2\*\*{most}"):
        draw(int, int, 2**most + 1)


@pytest.mark.parametrize("kind", (np.int64, np.uint32, np.uint64, np.int32))
@pytest.mark.parametrize("sign", (1, -1))
@pytest.mark.parametrize("field", ("init", "X", "y", "X_test", "y_test", "weights"))
def test_whole_numbers_that_float32_cannot_hold_are_refused(field, kind, sign):
    if sign < 0 and np.dtype(kind).kind == "u":
        return
    line = M.DiagonalLinear(2)

    def run(value, dtype):
        large = np.full(2, sign * value, kind)
        arrays = {"X": np.ones((2, 2), dtype), "y": np.ones(2, dtype), "X_test": np.ones((2, 2), dtype),
                  "y_test": np.ones(2, dtype)}
        fields = {"model": line, "rule": R.SGD(), "step_size": 0.1, "steps": 2, "dtype": dtype}
        if field == "weights":
            fields["data"] = fs.data.Fresh(2, line, {"u": large, "v": np.ones(2, dtype)})
        else:
            arrays |= {field: np.stack([large, large]) if field.startswith("X") else large} if field in arrays else {}
            fields["data"] = fs.Dataset(**arrays)
        if field == "init":
            fields["init"] = {"u": large, "v": np.ones(2, dtype)}
        return fs.plan(fs.Run(**fields))

    run(2**24, "float32"), run(2**24 + 1, "float64")
    with pytest.raises(fs.PlanError, match=rf"{field}.*: holds a whole number beyond 2\*\*24, which float32 cannot"):
        run(2**24 + 1, "float32")
    if np.dtype(kind).itemsize == 8:
        run(2**53, "float64")
        with pytest.raises((fs.PlanError, fs.SpecError), match=rf"{field}.*whole number beyond 2\*\*53"):
            run(2**53 + 1, "float64")
