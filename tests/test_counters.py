"""Every stream of draws at the edge of its counters: the last legal step runs, the next is refused, by every field."""

import re
from pathlib import Path

import numpy as np
import pytest
from cases import problem

import fastsgd as fs
from fastsgd.execute import execute
from fastsgd.native import native
from fastsgd.progress import fresh
from fastsgd.spec import draws

M, R, ORDERS = fs.models, fs.rules, fs.orders
ROOT, N = Path(__file__).parent.parent, 11
PERMUTATIONS = 2**32 // 6
TEACHER = (M.DiagonalLinear(3), {"u": np.ones(3), "v": np.ones(3)})
CASES = {  # {name: (fields, most steps)}
    "order": ({}, 2**34),
    "order_batch": ({"rule": R.SGD(batch_size=3)}, 2**34),
    "order_common": ({"order": ORDERS.Common(2**32 - 1)}, 2**34),
    "distinct": ({"order": ORDERS.PerNetwork(replace=False), "rule": R.SGD(batch_size=3)}, PERMUTATIONS),
    "distinct_common": ({"order": ORDERS.Common(5, replace=False)}, PERMUTATIONS),
    "distinct_many": ({"order": ORDERS.PerNetwork(replace=False), "data": problem(3, n=70)}, PERMUTATIONS),
    "epochs": ({"order": ORDERS.Reshuffle(), "rule": R.SGD(batch_size=8)}, PERMUTATIONS * N // 8),
    "epochs_common": ({"order": ORDERS.Reshuffle(3), "rule": R.SGD(batch_size=9, momentum=0.5)}, PERMUTATIONS * N // 9),
    "one_label": ({"order": ORDERS.PerNetwork(replace=False), "rule": R.GD(label_noise=fs.LabelNoise(0.1, on="one"))},
                  PERMUTATIONS),
    "one_label_epochs": ({"order": ORDERS.Reshuffle(), "rule": R.GD(label_noise=fs.LabelNoise(0.1, on="one"))},
                         PERMUTATIONS * N),
    "label_noise": ({"rule": R.SGD(label_noise=0.1)}, 2**33),
    "label_signs": ({"rule": R.SGD(label_noise=fs.LabelNoise(0.1, "rademacher"))}, 2**34),
    "sde": ({"rule": R.SDE(sgd_step=0.1, loss_level=0.1)}, 2**33),
    "gradient_noise": ({"rule": R.SGD(gradient_noise=0.1)}, 2**32),
    "gradient_signs": ({"rule": R.SGD(gradient_noise=fs.GradientNoise(0.1, "rademacher"))}, 2**32),
    "inputs": ({"data": fs.data.Fresh(3, *TEACHER)}, 2**32),
    "inputs_sparse": ({"data": fs.data.Fresh(3, *TEACHER, inputs="sparse", density=0.5)}, 2**32),
}
UNDRAWN = {"order": ORDERS.PerNetwork(replace=False), "rule": R.GD()}


def request(name, steps, **changes):
    """The Run of a case with that many steps."""
    fields = CASES[name][0] if isinstance(name, str) else name
    return fs.Run(**({"model": M.DiagonalLinear(3, u0=0.5, v0=0.2), "data": problem(3), "rule": R.SGD(), "seed": 3,
                      "step_size": [0.01, 0.02, 0.03], "steps": steps, "dtype": "float64"} | fields | changes))


def last_steps(run, count):
    """The weights after the last `count` steps of a run, from its start."""
    plan = fs.plan(run)
    done = fresh(plan)
    done.t = run.steps - count
    return execute(plan, done).weights


@pytest.mark.parametrize("name", CASES)
def test_the_last_legal_steps_run_and_one_more_is_refused(name):
    most = CASES[name][1]
    ours, theirs = (last_steps(request(name, most, backend=backend), 7) for backend in ("cpu", "reference"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert not np.array_equal(ours, last_steps(request(name, most - 1, backend="cpu"), 7))
    with pytest.raises((fs.PlanError, fs.SpecError), match=f"steps: {most + 1} given"):
        fs.plan(request(name, most + 1))


@pytest.mark.parametrize("name", ("order", "distinct", "epochs", "label_noise", "gradient_noise", "inputs"))
def test_cards_run_the_last_legal_steps_too(name, a_card):
    cpu, cuda = (last_steps(request(name, CASES[name][1], backend=backend), 7) for backend in ("cpu", "cuda"))
    np.testing.assert_array_equal(cuda, cpu)


@pytest.mark.parametrize("name", ("distinct", "epochs", "label_noise"))
def test_triton_runs_the_last_legal_steps_too(name):
    pytest.importorskip("triton")
    cpu, triton = (last_steps(request(name, CASES[name][1], backend=backend), 7) for backend in ("cpu", "triton"))
    np.testing.assert_allclose(triton, cpu, rtol=1e-9)


def test_an_order_that_draws_nothing_has_no_limit():
    assert fs.plan(request(UNDRAWN, 2**34)).run.steps == 2**34
    assert fs.plan(request({"order": ORDERS.Reshuffle(), "rule": R.GD()}, 2**34)).run.steps == 2**34


ITEMS = [  # (fields, batch_size that is the last legal one)
    ({"data": fs.data.Fresh(5, M.DiagonalLinear(5), {"u": np.ones(5), "v": np.ones(5)}), "model": M.DiagonalLinear(5)},
     2**32 // 3),
    ({"data": fs.data.Fresh(3, *TEACHER, inputs="sparse")}, 2**32 // 3),
    ({"model": M.MLP(3, 2, outputs=2), "data": fs.Dataset(np.ones((4, 3)), np.ones((4, 2))), "noise": 0.1}, 2**31),
]


@pytest.mark.parametrize(("fields", "most"), ITEMS, ids=range(len(ITEMS)))
def test_samples_of_a_step_have_numbers_of_their_own(fields, most):
    noise = {"label_noise": fields["noise"]} if "noise" in fields else {}
    fields = {name: value for name, value in fields.items() if name != "noise"}
    with pytest.raises(fs.PlanError, match=f"rule.batch_size: .* expected at most {2**32}"):
        fs.plan(request(fields, 3, rule=R.SGD(batch_size=most + 1, **noise)))
    try:
        assert fs.plan(request(fields, 3, rule=R.SGD(batch_size=most, **noise))).batch == most
    except fs.PlanError as error:  # this machine's memory may end sooner
        assert "GiB" in str(error)


def test_models_larger_than_kernels_can_number_are_refused():
    with pytest.raises(fs.PlanError, match="P=2147811329 parameters, kernels number"):
        fs.plan(request({"model": M.MLP(3, (2**16, 2**15))}, 3))


def test_limits_are_those_of_the_kernels_text():
    header = (ROOT / "csrc" / "core" / "permutation.h").read_text()
    kernel = (ROOT / "kernels" / "draws.py").read_text()
    assert int(re.search(r"MOST_ROUNDS = (\d+)", header)[1]) == draws.MOST_ROUNDS
    each = int(re.search(r"key \* (\d+) \+ block", kernel)[1])
    assert each == draws.MOST_ROUNDS // 4 and draws.LIMITS["an order without replacement"][0] == 2**32 // each


@pytest.mark.parametrize("n", (5, 64, 65, 4000))
def test_a_permutations_last_key_is_a_key_of_its_own(n):
    ids, positions = np.array([3], np.uint32), np.arange(min(n, 50), dtype=np.uint32)
    for key in (0, PERMUTATIONS - 1):
        np.testing.assert_array_equal(native().permutation(7, ids, key, n, positions, 0),
                                      draws.permutation(7, ids, key, n, positions))
    used = [range(6 * key, 6 * key + 6) for key in (0, PERMUTATIONS - 1)]
    assert used[1][-1] < 2**32 and not set(used[0]) & set(used[1])
