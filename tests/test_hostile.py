"""Owns the attacks on the front door: hostile arrays, counts and combinations are refused by name, or mean the same."""

import os

import numpy as np
import pytest
import torch

import fastsgd as fs

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((7, 3)), RNG.standard_normal(7)
XT, YT = RNG.standard_normal((4, 3)), RNG.standard_normal(4)
DATA = fs.Dataset(X, Y, XT, YT)
SGD, GD = fs.rules.SGD(), fs.rules.GD()
DIAGONAL, RELU = fs.models.DiagonalLinear(3), fs.models.ReLU2(3, 4)
T = 10


def request(**fields):
    """A legal Run of T steps with some fields changed."""
    legal = {"model": DIAGONAL, "data": DATA, "rule": SGD, "step_size": 0.1, "steps": T, "dtype": "float64"}
    return fs.Run(**(legal | fields))


def train(**fields):
    """fs.train of `request`, through its own signature."""
    legal = {"model": DIAGONAL, "data": DATA, "rule": SGD, "step_size": 0.1, "steps": T, "dtype": "float64"}
    fields = legal | fields
    return fs.train(fields.pop("model"), fields.pop("data"), **fields)


def refuses(error, words, make):
    """`make()` raises exactly `error`, with all of `words` in one line of message."""
    with pytest.raises(fs.FastsgdError) as caught:
        make()
    assert type(caught.value) is error, f"{type(caught.value).__name__}: {caught.value}"
    text = str(caught.value)
    for word in [words] if isinstance(words, str) else words:
        assert word in text, text
    assert "\n" not in text


def test_the_legal_request_runs():
    assert train().survived.all()


def test_a_backend_that_explodes_is_noticed(nothing_runs):
    with pytest.raises(AssertionError, match="something ran"):
        train()


class Unreadable:
    """Offers DLPack and fails."""

    def __dlpack__(self, **kwargs):
        raise BufferError("not exportable")

    def __dlpack_device__(self):
        return (1, 0)


BAD_ARRAYS = {  # every array field refuses these, whatever its shape
    "none": None, "text": "0.1", "texts": ["a", "b"], "ragged": [[1.0, 2.0], [3.0]], "object": np.array([0.1, None]),
    "objects": np.array([0.1, 0.2], dtype=object), "complex": np.array([1j, 2.0]), "booleans": np.array([True, False]),
    "dates": np.array(["2020-01-01"], dtype="datetime64[D]"), "record": np.zeros(2, dtype=[("a", "f8")]),
    "mapping": {"a": 1}, "set": {1.0, 2.0}, "function": len, "huge": [10**400], "bfloat16": torch.ones(2).bfloat16(),
    "meta": torch.ones(2, device="meta"), "sparse": torch.eye(2).to_sparse(), "dlpack": Unreadable(),
    "masked": np.ma.masked_array([1.0, 2.0], [False, True]), "torch_complex": torch.ones(2, dtype=torch.complex64),
    "class": float, "bytes": b"12",
}
ARRAY_FIELDS = {
    "X": lambda a: fs.Dataset(a, Y), "y": lambda a: fs.Dataset(X, a),
    "X_test": lambda a: fs.Dataset(X, Y, a, YT),
    "y_test": lambda a: fs.Dataset(X, Y, XT, a),
    "step_size": fs.StepSize, "step_size.decay_by": lambda a: fs.StepSize(0.1, 0.5, a),
    "warmup.factor": fs.Warmup, "warmup.power": lambda a: fs.Warmup(2.0, a),
    "order": fs.orders.Replay, "init.u": lambda a: request(init={"u": a, "v": np.zeros(3)}),
    "model.u0": lambda a: fs.models.DiagonalLinear(3, a), "model.v0": lambda a: fs.models.DiagonalLinear(3, 0.1, a),
    "model.b1_scale": lambda a: fs.models.ReLU2(3, 4, b1_scale=a),
}
OPTIONAL_ARRAY_FIELDS = {  # here None means absent
    "step_size.decay_at": lambda a: fs.StepSize(0.1, a, 2.0), "warmup.until": lambda a: fs.Warmup(2.0, 1.0, a),
    "save.steps": lambda a: fs.SaveAt(steps=a), "ids": lambda a: request(ids=a),
    "model.W1_scale": lambda a: fs.models.ReLU2(3, 4, W1_scale=a),
    "model.W2_scale": lambda a: fs.models.ReLU2(3, 4, W2_scale=a),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
@pytest.mark.parametrize("field", [*ARRAY_FIELDS, *OPTIONAL_ARRAY_FIELDS, "step_size of Run"])
def test_what_is_no_array_of_numbers(field, kind):
    if field in OPTIONAL_ARRAY_FIELDS and kind == "none":
        return
    make = (ARRAY_FIELDS | OPTIONAL_ARRAY_FIELDS).get(field, lambda a: request(step_size=a))
    refuses(fs.SpecError, field.split(" ")[0], lambda: make(BAD_ARRAYS[kind]))


@pytest.mark.parametrize("bad", (np.nan, np.inf, -np.inf))
@pytest.mark.parametrize("field", [*ARRAY_FIELDS, *OPTIONAL_ARRAY_FIELDS])
def test_entries_that_are_not_finite(field, bad):
    good = {"X": X, "y": Y, "X_test": XT, "y_test": YT, "init.u": np.ones(3)}.get(field, np.full(4, 0.5))
    array = np.array(good)
    array[(-1,) * array.ndim] = bad
    make = (ARRAY_FIELDS | OPTIONAL_ARRAY_FIELDS)[field]
    given = f"{bad}" if field not in ("order", "save.steps", "ids") else "float64"
    refuses(fs.SpecError, (field, given), lambda: make(array))
    refuses(fs.SpecError, (field, given), lambda: make(torch.from_numpy(array)))


SHAPES = {
    "X": [(), (7,), (7, 3, 1), (0, 3), (7, 0)], "y": [(), (7, 1, 1), (6,), (8,), (0,), (7, 0)],
    "X_test": [(), (4,), (4, 2), (0, 3), (4, 3, 1)], "y_test": [(), (3,), (4, 1), (0,)],
    "step_size": [(0,), (2, 2, 2)], "step_size.decay_at": [(0,), (2, 0), (1, 1, 1)],
    "step_size.decay_by": [(0,), (1, 2), (3, 0)], "warmup.factor": [(0,), (2, 2)], "warmup.until": [(0,), (1, 1)],
    "model.u0": [(0,), (2, 2)], "model.W1_scale": [(0,), (4, 3)],
}


@pytest.mark.parametrize(("field", "shape"), [(field, shape) for field, shapes in SHAPES.items() for shape in shapes])
def test_shapes_of_single_fields(field, shape):
    make = (ARRAY_FIELDS | OPTIONAL_ARRAY_FIELDS)[field]
    refuses(fs.SpecError, field.split(".")[-1], lambda: make(np.full(shape, 0.5)))


@pytest.mark.parametrize("shape", [(), (0,), (1, 1, 1, 1)])
def test_shapes_of_whole_number_fields(shape):
    whole = np.ones(shape, int)
    refuses(fs.SpecError, "order", lambda: fs.orders.Replay(whole))
    refuses(fs.SpecError, "ids", lambda: request(ids=whole))
    if shape:
        refuses(fs.SpecError, "save.steps", lambda: fs.SaveAt(steps=whole))


@pytest.mark.parametrize("bad", (0, -1, -1e-300, -np.inf, np.inf, np.nan, True, "1", 1j, None))
@pytest.mark.parametrize("wrap", (lambda a: a, lambda a: [0.1, a], fs.StepSize), ids=("scalar", "N", "spec"))
def test_step_sizes(bad, wrap, nothing_runs):
    if bad is True and wrap is not fs.StepSize and wrap(bad) is not bad:
        return  # [0.1, True] is [0.1, 1.0] to NumPy
    refuses(fs.SpecError, "step_size", lambda: train(step_size=wrap(bad)))


@pytest.mark.parametrize("bad", (-1e-300, np.inf, np.nan))
@pytest.mark.parametrize("shape", [(T,), (1, T), (3, T)])
def test_step_tables(bad, shape, nothing_runs):
    table = np.full(shape, 0.1)
    table[(-1,) * len(shape)] = bad
    refuses(fs.SpecError, ("step_size", f"{bad:g}"), lambda: train(step_size=fs.StepTable(table)))
    if len(shape) == 2:
        refuses(fs.SpecError, "step_size", lambda: train(step_size=table))


def test_step_tables_of_the_wrong_length(nothing_runs):
    for steps in (T - 1, T + 1):
        refuses(fs.PlanError, ("step_size", f"{steps} steps", f"T={T}"), lambda steps=steps: train(
            step_size=fs.StepTable(np.full(steps, 0.1))))
    refuses(fs.PlanError, ("step_size", f"T={2**34}"), lambda: train(step_size=np.full((2, T), 0.1), steps=2**34))
    refuses(fs.SpecError, "steps", lambda: train(step_size=np.full((2, T), 0.1), steps=10**12))
    refuses(fs.SpecError, "step_size", lambda: fs.StepTable(np.empty((0, T))))
    refuses(fs.SpecError, "step_size", lambda: fs.StepTable(np.float64(0.1)))


def test_step_sizes_that_float32_cannot_hold(nothing_runs):
    data = DATA.astype("float32")
    for base, becomes in ((1e-60, "0"), (1e300, "inf")):
        refuses(fs.PlanError, ("step_size", becomes, "float32"),
                lambda base=base: train(data=data, dtype="float32", step_size=[0.1, base]))
        fs.plan(request(step_size=base))  # legal in float64


@pytest.mark.parametrize(("field", "name", "value", "becomes"), [
    ("loss.factor", "loss", lambda: fs.losses.Squared(1e39), "inf"),
    ("loss.factor", "loss", lambda: fs.losses.Squared(2e38), "inf"),  # its double is what kernels multiply with
    ("loss.factor", "loss", lambda: fs.losses.Squared(1e-60), "0"),
    ("loss.weights", "loss", lambda: fs.losses.Squared(weights=[1e39]), "inf"),
    ("rule.weight_decay", "rule", lambda: fs.rules.SGD(weight_decay=1e39), "inf"),
    ("rule.weight_decay", "rule", lambda: fs.rules.SGD(weight_decay=[0.0, 1e-60]), "0"),
    ("rule.epsilon", "rule", lambda: fs.rules.Adam(epsilon=1e-60), "0"),
    ("rule.rho", "rule", lambda: fs.rules.SAM(rho=1e39), "inf"),
    ("rule.gradient_noise", "rule", lambda: fs.rules.SGD(gradient_noise=1e39), "inf"),
    ("rule.label_noise", "rule", lambda: fs.rules.SGD(label_noise=[0.1, 1e-60]), "0"),
    ("model.scaling", "model", lambda: fs.models.MLP(DATA.d, 3, scaling=(1.0, 1e39)), "inf"),
    ("model.slope", "model", lambda: fs.models.MLP(DATA.d, 3, activation="leaky", slope=1e39), "inf")])
def test_numbers_that_float32_cannot_hold(nothing_runs, field, name, value, becomes):
    refuses(fs.PlanError, (field, f"becomes {becomes}", "float32", "float64"),
            lambda: train(data=DATA.astype("float32"), dtype="float32", **{name: value()}))
    fs.plan(request(**{name: value()}))  # legal in float64


def test_factors_that_float64_cannot_double(nothing_runs):
    refuses(fs.PlanError, ("loss.factor", "inf"), lambda: train(loss=fs.losses.Squared(1.2e308)))
    fs.plan(request(rule=fs.rules.SGD(lost_above=1e300)).replace(data=DATA.astype("float32"), dtype="float32"))


@pytest.mark.parametrize(("field", "make", "words"), [
    ("decay_at", lambda: fs.StepSize(0.1, -0.1, 2.0), "-0.1"),
    ("decay_at", lambda: fs.StepSize(0.1, [0.5, 1.1], 2.0), "1.1"),
    ("decay_by", lambda: fs.StepSize(0.1, 0.5, 0.0), "0.0"), ("decay_by", lambda: fs.StepSize(0.1, 0.5, [2, -2]), "-2"),
    ("decay_by", lambda: fs.StepSize(0.1, decay_by=2.0), "decay_at"),
    ("decay_by", lambda: fs.StepSize(0.1, [[0.5, 0.6]], [[2, 3, 4]]), "3"),
    ("decay_timing", lambda: fs.StepSize(0.1, 0.5, 2.0, "during"), "during"),
    ("decay_timing", lambda: fs.StepSize(0.1, 0.5, 2.0, ["after"]), "after"),
    ("decay_timing", lambda: fs.StepSize(0.1, 0.5, 2.0, None), "None"),
    ("warmup", lambda: fs.StepSize(0.1, warmup=2.0), "float"),
    ("warmup", lambda: fs.StepSize(0.1, warmup=fs.Warmup), "type"),
    ("warmup.factor", lambda: fs.Warmup(0.0), "0"), ("warmup.power", lambda: fs.Warmup(2.0, 0.0), "0"),
    ("warmup.until", lambda: fs.Warmup(2.0, 1.0, 1.5), "1.5"),
    ("step_size", lambda: request(step_size=fs.StepSize), "object"),
    ("step_size", lambda: request(step_size=fs.StepSize(fs.StepSize(0.1))), "object"),
])
def test_schedules(field, make, words):
    refuses(fs.SpecError, (field, words), make)


LONG = {  # per-network fields of length 3
    "step_size": {"step_size": [0.1] * 3}, "step_size.decay_at": {"step_size": fs.StepSize(0.1, [0.5] * 3, 2.0)},
    "step_size.decay_by": {"step_size": fs.StepSize(0.1, 0.5, [2.0] * 3)},
    "step_size.decay": {"step_size": fs.StepSize(0.1, np.full((3, 2), 0.5), 2.0)},
    "warmup.factor": {"step_size": fs.StepSize(0.1, warmup=fs.Warmup([2.0] * 3))},
    "warmup.power": {"step_size": fs.StepSize(0.1, warmup=fs.Warmup(2.0, [2.0] * 3))},
    "warmup.until": {"step_size": fs.StepSize(0.1, warmup=fs.Warmup(2.0, 1.0, [0.5] * 3))},
    "step_size table": {"step_size": np.full((3, T), 0.1)},
    "init.v": {"init": {"u": np.ones(3), "v": np.zeros((3, 3))}},
    "order": {"order": fs.orders.Replay(np.zeros((3, T), int))},
    "starting u": {"model": fs.models.DiagonalLinear(3, u0=[0.1] * 3)},
    "starting v": {"model": fs.models.DiagonalLinear(3, v0=[0.1] * 3)}, "networks": {"networks": 3},
}


@pytest.mark.parametrize("field", LONG)
def test_lengths_that_disagree(field, nothing_runs):
    fs.plan(request(**LONG[field]))
    word = field.split(" table")[0]
    other = {"networks": 5} if field != "networks" else {"step_size": [0.1] * 5}
    refuses(fs.PlanError, (word, "has 3", "has 5"), lambda: train(**(LONG[field] | other)))
    refuses(fs.PlanError, ("ids", "3"), lambda: train(**LONG[field], ids=[0, 3]))


def test_lengths_that_disagree_inside_a_schedule(nothing_runs):
    for step in (fs.StepSize([0.1] * 3, [0.5] * 4, 2.0), fs.StepSize([0.1] * 3, 0.5, [2.0] * 4),
                 fs.StepSize([0.1] * 3, warmup=fs.Warmup([2.0] * 4))):
        refuses(fs.PlanError, ("step_size", "has 3", "has 4"), lambda step=step: train(step_size=step))


WHOLE = {
    "steps": (lambda a: request(steps=a), 1), "networks": (lambda a: request(networks=a), 1),
    "seed": (lambda a: request(seed=a), 0), "rule.batch_size": (lambda a: fs.rules.SGD(batch_size=a), 1),
    "order.network": (fs.orders.Common, 0), "model.d": (fs.models.DiagonalLinear, 1),
    "model.width": (lambda a: fs.models.ReLU2(3, a), 1), "save.linear": (lambda a: fs.SaveAt(linear=a), 1),
    "save.log": (lambda a: fs.SaveAt(log=a), 1), "save.first": (lambda a: fs.SaveAt(linear=2, first=a), 0),
    "tuning.threads": (lambda a: fs.Tuning(threads=a), 1), "tuning.team": (lambda a: fs.Tuning(team=a), 1),
    "tuning.lanes": (lambda a: fs.Tuning(lanes=a), 1), "tuning.segment": (lambda a: fs.Tuning(segment=a), 1),
}
HUGE = {"steps": 10**12, "networks": 2**33, "seed": 2**64, "rule.batch_size": 10**18, "order.network": 2**32,
        "save.linear": 10**12, "save.log": 10**12, "save.first": 10**12, "tuning.threads": 10**6}


@pytest.mark.parametrize("field", WHOLE)
def test_counts(field):
    make, low = WHOLE[field]
    bad = [low - 1, -(10**30), 1.5, True, np.True_, "3", np.nan, np.inf, 2j]
    bad += [] if field == "rule.batch_size" else [[1], np.ones(2, int)]  # it may be [N]
    bad += [0.0, -1e30, np.float64(1e300)] if field == "steps" else [1.0, np.float64(2)]  # 1e6 steps are a million
    for value in bad + ([HUGE[field]] if field in HUGE else []):
        refuses(fs.SpecError, (field, "given"), lambda value=value: make(value))


@pytest.mark.parametrize("kind", (np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64))
def test_counts_may_be_numpy_integers_and_mean_the_same(kind):
    """100 in eight bits would overflow as soon as it is doubled."""
    rng = np.random.default_rng(1)
    data = fs.Dataset(rng.standard_normal((9, 100)), rng.standard_normal(9))

    def weights(n):
        run = request(model=fs.models.DiagonalLinear(n(100)), data=data, rule=fs.rules.SGD(batch_size=n(3)),
                      steps=n(100), networks=n(2), order=fs.orders.Common(n(5)), seed=n(7), step_size=1e-3,
                      save=fs.SaveAt(linear=n(3), log=n(2), first=n(1)), metrics=[fs.metrics.TrainLoss()])
        return fs.train(run, tuning=fs.Tuning(threads=n(1), segment=n(7)))

    ours, theirs = weights(kind), weights(int)
    assert ours.weights.tobytes() == theirs.weights.tobytes()
    assert ours.numpy("train_loss").tobytes() == theirs.numpy("train_loss").tobytes()


@pytest.mark.parametrize(("field", "value", "error"), [
    ("model", fs.models.DiagonalLinear, fs.SpecError), ("model", "diagonal", fs.SpecError),
    ("model", None, fs.SpecError),
    ("model", torch.nn.Linear(3, 1), fs.SpecError), ("model", fs.models.DiagonalLinear(4), fs.PlanError),
    ("data", (X, Y), fs.SpecError), ("data", X, fs.SpecError), ("data", fs.Dataset, fs.SpecError),
    ("rule", fs.rules.SGD, fs.SpecError), ("rule", "sgd", fs.SpecError), ("rule", 1, fs.SpecError),
    ("order", "common", fs.SpecError), ("order", fs.orders.Common, fs.SpecError), ("order", [0] * T, fs.SpecError),
    ("save", 5, fs.SpecError), ("save", [0, 5], fs.SpecError), ("save", fs.SaveAt, fs.SpecError),
    ("loss", "squared", fs.SpecError), ("loss", fs.losses.Squared, fs.SpecError), ("loss", 0.5, fs.SpecError),
    ("dtype", "float16", fs.SpecError), ("dtype", float, fs.SpecError), ("dtype", "f8", fs.SpecError),
    ("dtype", torch.bfloat16, fs.SpecError), ("dtype", ["float32"], fs.SpecError), ("dtype", None, fs.SpecError),
    ("backend", "gpu", fs.SpecError), ("backend", "", fs.SpecError), ("backend", None, fs.SpecError),
    ("backend", ["cpu"], fs.SpecError), ("backend", np.array(["cpu", "auto"]), fs.SpecError),
    ("device", "cuda:99", fs.BackendUnavailable), ("device", 0, fs.SpecError), ("device", "cuda:1,1", fs.SpecError),
    ("device", torch.device("mps"), fs.SpecError), ("device", "", fs.SpecError),
    ("init", 0.1, fs.SpecError), ("init", {}, fs.SpecError), ("init", [1, 2], fs.SpecError),
    ("metrics", "train_loss", fs.SpecError), ("metrics", ["train_loss"], fs.SpecError), ("metrics", None, fs.SpecError),
    ("metrics", fs.metrics.TrainLoss, fs.SpecError), ("metrics", [fs.metrics.TrainLoss], fs.SpecError),
    ("metrics", fs.metrics.Metric(), fs.SpecError), ("metrics", {fs.metrics.TrainLoss()}, fs.SpecError),
    ("metrics", [fs.metrics.TrainLoss(name=None)], fs.SpecError),
    ("metrics", [fs.metrics.TrainLoss(name=3)], fs.SpecError),
    ("metrics", [fs.metrics.TrainLoss(), fs.metrics.TrainLoss()], fs.SpecError),
    ("metrics", [fs.metrics.TrainLoss(), fs.metrics.TestLoss(name="train_loss")], fs.SpecError),
    ("metrics", [fs.metrics.TrainLoss(name="u")], fs.PlanError),
    ("metrics", [fs.metrics.TrainLoss(name="step")], fs.PlanError),
    ("metrics", [fs.metrics.FeatureSparsity()], fs.PlanError),
    ("metrics", [fs.metrics.JacobianRank(points=np.ones((2, 4)))], fs.PlanError),
    ("ids", [0, 0], fs.SpecError), ("ids", [], fs.SpecError), ("ids", [-1], fs.SpecError),
    ("ids", [2**32], fs.SpecError),
    ("ids", np.array([2**63], np.uint64), fs.SpecError), ("ids", [0.0], fs.SpecError), ("ids", 0, fs.SpecError),
    ("progress", 1, fs.SpecError), ("progress", ["bar"], fs.SpecError),
    ("checkpoint", 5, fs.SpecError), ("checkpoint", "/no/such/folder/c.npz", fs.SpecError),
    ("checkpoint", os.sep, fs.SpecError), ("checkpoint", fs.Checkpoint, fs.SpecError), ("tuning", 4, fs.SpecError),
    ("tuning", {"threads": 1}, fs.SpecError), ("tuning", fs.Tuning, fs.SpecError),
])
def test_fields_of_train(field, value, error, nothing_runs):
    refuses(error, field, lambda: train(**{field: value}))


def test_metrics_that_a_problem_cannot_have(nothing_runs):
    plain = fs.Dataset(X, Y)
    for metric, fields in ((fs.metrics.TestLoss(), {"data": plain}), (fs.metrics.JacobianRank(), {"data": plain}),
                           (fs.metrics.L0(), {"model": RELU}), (fs.metrics.Balancedness(), {"model": RELU})):
        refuses(fs.PlanError, ("metrics", metric.name), lambda m=metric, f=fields: train(metrics=[m], **f))


def test_missing_fields(nothing_runs):
    for field in ("data", "rule", "step_size", "steps"):
        refuses(fs.SpecError, f"{field}: missing", lambda field=field: train(**{field: None}))


@pytest.mark.parametrize("extra", ({"steps": 5}, {"dtype": "float64"}, {"seed": 3}, {"metrics": [1]}, {"ids": [0]},
                                   {"networks": 2}, {"backend": "cpu"}))
def test_a_run_takes_no_fields_beside_it(extra, nothing_runs):
    refuses(fs.SpecError, "train(run)", lambda: fs.train(request(), **extra))
    refuses(fs.SpecError, "train(run)", lambda: fs.train(fs.plan(request()), **extra))


def test_a_plan_takes_no_tuning_and_plan_takes_a_run(nothing_runs):
    refuses(fs.SpecError, "tuning", lambda: fs.train(fs.plan(request()), tuning=fs.Tuning(threads=1)))
    refuses(fs.SpecError, "run", lambda: fs.plan("S1"))
    refuses(fs.SpecError, "run", lambda: fs.plan(fs.Run))


def test_abstract_families_and_rules_cannot_be_made():
    for kind in (fs.models.Model, fs.rules.Rule):
        with pytest.raises(TypeError, match="abstract"):
            kind()


@pytest.mark.parametrize("bad", (0, -1.0, np.nan, np.inf, True, "1", None, 1j, [[1.0]]))
def test_the_loss_factor(bad):
    refuses(fs.SpecError, "loss.factor", lambda: fs.losses.Squared(bad))


@pytest.mark.parametrize("bad", (0, -1.0, np.nan, True, "inf", None, [[1.0]]))
def test_lost_above(bad):
    refuses(fs.SpecError, "rule.lost_above", lambda: fs.rules.SGD(lost_above=bad))
    refuses(fs.SpecError, "rule.lost_above", lambda: fs.rules.GD(lost_above=bad))


@pytest.mark.parametrize("bad", (None, 0, 1, "yes", np.ones(2)))
def test_flags(bad):
    refuses(fs.SpecError, "save.params", lambda: fs.SaveAt(linear=2, params=bad))
    refuses(fs.SpecError, "model.hidden_bias", lambda: fs.models.ReLU2(3, 4, hidden_bias=bad))
    refuses(fs.SpecError, "model.output_bias", lambda: fs.models.ReLU2(3, 4, output_bias=bad))


def test_saved_steps(nothing_runs):
    refuses(fs.SpecError, "save", fs.SaveAt)
    refuses(fs.SpecError, ("save.steps", "empty"), lambda: fs.SaveAt(steps=[]))
    refuses(fs.SpecError, ("save.steps", "-1"), lambda: fs.SaveAt(steps=[3, -1]))
    refuses(fs.SpecError, "save.steps", lambda: fs.SaveAt(steps=[1.0, 2.0]))
    refuses(fs.SpecError, "save.steps", lambda: fs.SaveAt(steps=np.array([2**64 - 1], np.uint64)))
    refuses(fs.PlanError, ("save.steps", f"{T + 1}", f"T={T}"), lambda: train(save=fs.SaveAt(steps=[0, T + 1])))


def test_saved_steps_are_sorted_and_count_once():
    plan = fs.plan(request(save=fs.SaveAt(steps=[T, 3, 3, 0, T], linear=2, first=2)))
    assert plan.saves.tolist() == [0, 1, 3, T]


def test_replayed_orders(nothing_runs):
    def replay(order, **fields):
        return lambda: train(order=fs.orders.Replay(order), **fields)

    good = np.zeros(T, int)
    bad_index, negative = good.copy(), good.copy()
    bad_index[-1], negative[3] = 7, -1
    refuses(fs.PlanError, ("order", "7", "0 .. 6"), replay(bad_index))
    refuses(fs.PlanError, ("order", str(2**63)), replay(np.full(T, 2**63, np.uint64)))
    refuses(fs.SpecError, ("order", "-1"), replay(negative))
    refuses(fs.SpecError, ("order", "float64"), replay(good.astype(float)))
    refuses(fs.PlanError, ("order", f"{T - 1} steps", f"T={T}"), replay(good[:-1]))
    refuses(fs.PlanError, ("order", f"{T + 1} steps"), replay(np.zeros(T + 1, int)))
    refuses(fs.PlanError, ("order", "1 samples", "takes 2"), replay(good, rule=fs.rules.SGD(batch_size=2)))
    refuses(fs.PlanError, ("order", "2 samples", "takes 1"), replay(np.zeros((1, T, 2), int)))
    refuses(fs.PlanError, ("order", "2", "3"), replay(np.zeros((2, T), int), networks=3))
    refuses(fs.PlanError, ("order", "GD"), replay(good, rule=GD))
    refuses(fs.PlanError, ("order", "GD"), replay(np.zeros((1, T, 7), int), rule=GD))


def test_starting_weights(nothing_runs):
    u, v = np.ones(3), np.zeros(3)

    def start(error, words, init, **fields):
        refuses(error, words, lambda: train(init=init, **fields))

    start(fs.PlanError, ("init", "['u', 'v']"), {"u": u})
    start(fs.PlanError, ("init", "'w'"), {"u": u, "v": v, "w": v})
    start(fs.PlanError, ("init", "W1"), {"W1": u, 3: v})
    start(fs.PlanError, ("init", "W1", "b2"), {"u": u, "v": v}, model=RELU)
    for shape in ((), (2,), (4,), (3, 1), (1, 3, 3), (2, 4), (0, 3)):
        start(fs.PlanError, ("init", "u"), {"u": np.ones(shape), "v": v}, networks=5)
    start(fs.PlanError, ("init.u", "float32", "float64"), {"u": u.astype("float32"), "v": v})
    start(fs.PlanError, ("init.v", "float64", "float32"), {"u": u.astype("float32"), "v": v}, dtype="float32",
          data=DATA.astype("float32"))
    start(fs.PlanError, ("init.u", "float16"), {"u": u.astype("float16"), "v": v})
    refuses(fs.PlanError, ("model", "overflow", "float32"), lambda: train(
        model=fs.models.DiagonalLinear(3, u0=1e300), dtype="float32", data=DATA.astype("float32")))


@pytest.mark.parametrize("convert", (np.asarray, torch.from_numpy, np.ndarray.tolist), ids=("numpy", "torch", "list"))
def test_nothing_is_cast_silently(convert, nothing_runs):
    arrays = [convert(a) for a in (X, Y, XT, YT)]

    def narrow(arrays):
        return lambda: train(data=fs.Dataset(*arrays), dtype="float32")

    refuses(fs.PlanError, ("X", "float64", "float32", "astype"), narrow(arrays))
    for k, name in enumerate(("X", "y", "X_test", "y_test")):
        mixed = [a.astype("float32") for a in (X, Y, XT, YT)]
        mixed[k] = arrays[k]
        refuses(fs.PlanError, f"{name}: holds float64", narrow(mixed))


@pytest.mark.parametrize("dtype", ("float16", "longdouble", ">f8", ">f4"))
def test_floats_that_no_run_can_use(dtype):
    refuses(fs.SpecError, ("X", "float32, float64"), lambda: fs.Dataset(X.astype(dtype), Y))
    refuses(fs.SpecError, ("y", "float32, float64"), lambda: fs.Dataset(X, Y.astype(dtype)))


def test_data_that_come_in_part_or_overflow():
    refuses(fs.SpecError, ("X_test", "y_test"), lambda: fs.Dataset(X, Y, XT))
    refuses(fs.SpecError, ("X_test", "y_test"), lambda: fs.Dataset(X, Y, y_test=YT))
    refuses(fs.SpecError, ("X", "inf"), lambda: fs.Dataset(X * 1e300, Y).astype("float32"))
    for dtype in ("float16", "bogus", None, float, torch.float32):
        refuses(fs.SpecError, "dtype", lambda dtype=dtype: DATA.astype(dtype))


def test_a_longer_copy_of_a_run_still_saves_its_last_step():
    assert fs.plan(request().replace(steps=2 * T)).saves.tolist() == [2 * T]
    assert fs.plan(request().replace(steps=3)).saves.tolist() == [3]


def test_populations_that_no_memory_holds_are_refused_before_they_are_allocated(nothing_runs):
    refuses(fs.PlanError, ("networks", f"N={2**32}", "GiB"), lambda: train(networks=2**32))
    refuses(fs.PlanError, ("networks", "GiB", "saved parameters"), lambda: train(
        networks=2**24, steps=2**18, save=fs.SaveAt(linear=2**18, params=True)))
    for backend in ("cpu", "reference"):
        refuses(fs.PlanError, ("networks", "GiB"), lambda backend=backend: train(
            rule=fs.rules.SGD(batch_size=2**32 - 1), networks=2**12, backend=backend))
