"""A user's own models, losses and penalties in compiled code: right, the same bits however they run, kept in files."""

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from general_cases import CASES, FAMILIES, POINTS, TAUGHT, D, general, labelled
from test_bits import layouts
from tiers import some
from tolerances import WEIGHTS
from traced_nets import LOSSES, NETS

import fastsgd as fs
from fastsgd.native import native
from fastsgd.spec.kinds import kind_of

NETWORKS = 11
EACH = np.linspace(0.2, 0.4, NETWORKS)
NOISY = {"batch_size": 2, "momentum": 0.4, "label_noise": 0.1, "gradient_noise": 0.1, "average": 0.5}


def huber(h, y):
    return F.huber_loss(h, y, delta=0.5)


def sparse(p):
    return 1e-2 * p["W1"].abs().sum() + 0.1 * (p["W2"]**2).sum()


def sine(p, x):
    hidden = torch.sin(p["W1"] @ x + p["shift"] * p["b1"])
    return p["W2"] @ hidden, {"waves": hidden}


def sine_model(function=sine, **changes):
    """A sine network with a constant of each network, a start of each network, and a hidden layer that is named."""
    fields = {"d": D, "shapes": {"W1": (6, D), "b1": 6, "W2": 6},
              "start": {"W1": (0, 1), "b1": (0, 0.5), "W2": (0, EACH)},
              "constants": {"shift": np.linspace(0.5, 1, NETWORKS)}}
    return fs.models.Function(function, **(fields | changes))


def own(dtype="float64", **changes):
    model = changes.pop("model", None) or sine_model()
    fields = {"loss": fs.losses.Function(huber), "rule": fs.rules.SGD(penalty=sparse, **NOISY), "model": model}
    return general(fields, dtype, **changes)


def same(got, want, dtype="float64"):
    size = np.linalg.norm(want.saved_weights, axis=2).max(axis=1)
    error = np.linalg.norm(got.saved_weights - want.saved_weights, axis=2).max(axis=1) / size
    assert got.survived.all() and want.survived.all() and error.max() < WEIGHTS[dtype]
    for name in want.records:
        np.testing.assert_allclose(got.numpy(name), want.numpy(name), rtol=50 * WEIGHTS[dtype], atol=1e-9)


@pytest.mark.parametrize("dtype", ("float64", "float32"))
def test_model_loss_and_penalty_train_as_torch_says(optimized, dtype):
    metrics = [fs.metrics.TrainLoss(), fs.metrics.TestLoss(), fs.metrics.JacobianRank(), fs.metrics.FeatureSparsity(),
               fs.metrics.Sharpness()]
    run = own(dtype, metrics=metrics)
    got = fs.train(run)
    assert got.provenance["backend"] == "cpu"
    same(got, fs.train(run.replace(backend="reference")), dtype)
    np.testing.assert_array_equal(got.params["shift"][:, None], run.model.constants["shift"].astype(dtype)[:, None])
    plain = fs.train(run.replace(rule=fs.rules.SGD(**NOISY)))
    assert np.abs(plain.weights - got.weights).max() > 1e-4


def plainly(name, **fields):
    function, d, shapes = NETS[name]
    return {"model": fs.models.Function(function, d=d, shapes=shapes, start=dict.fromkeys(shapes, (0.1, 0.4)))} | fields


R, L = fs.rules, fs.losses.Function
TRAINED = {
    "attention": plainly("attention", rule=R.SAM(rho=0.1, per_sample=True, batch_size=2)),
    "gru": plainly("gru", rule=R.Adam(batch_size=3)),
    "two_outputs": plainly("two_outputs", loss=L(LOSSES["huber2"][0]), rule=R.GD(label_noise=0.1)),
    "conv": plainly("conv", loss=L(LOSSES["quantile"][0]), order=fs.orders.Reshuffle(), rule=R.SGD(batch_size=3)),
    "diagonal": plainly("diagonal", loss=fs.losses.Squared(1.0), rule=R.SGD(weight_decay=0.1, normalised=True)),
}


@pytest.mark.parametrize("name", TRAINED)
def test_rules_orders_and_losses_add_up_with_traced_networks(name):
    run = general(TRAINED[name], networks=NETWORKS)
    same(fs.train(run, tuning=fs.Tuning(threads=1)), fs.train(run.replace(backend="reference")))


def test_a_penalty_and_a_loss_go_with_families_of_ours():
    for fields in ({"loss": fs.losses.Function(huber)}, {"rule": fs.rules.GD(penalty=lambda p: p["u"].abs().sum() / 9)},
                   {"rule": fs.rules.SGD(penalty=fs.rules.Penalty(lambda p: (p["u"] * p["v"]).sum()), batch_size=2)}):
        run = general({"model": fs.models.DiagonalLinear(D, u0=0.5, v0=0.2)} | fields)
        same(fs.train(run), fs.train(run.replace(backend="reference")))


def test_labels_of_several_numbers_and_classes():
    data = labelled(fs.models.MLP(3, 4), fs.losses.Squared())
    pairs = fs.Dataset(data.X, np.abs(np.stack([data.y, data.y + 1], axis=1)), data.X_test,
                       np.abs(np.stack([data.y_test, data.y_test], axis=1)))
    loss = fs.losses.Function(LOSSES["weighted"][0])
    run = general({"model": fs.models.MLP(3, 4), "data": pairs, "loss": loss})
    same(fs.train(run), fs.train(run.replace(backend="reference")))
    model = fs.models.MLP(D, 4, outputs=3)
    classes = labelled(model, fs.losses.CrossEntropy())
    fields = {"model": model, "data": classes, "rule": fs.rules.GD()}
    mine = fs.train(general(fields | {"loss": fs.losses.Function(LOSSES["cross_entropy"][0])}))
    same(mine, fs.train(general(fields | {"loss": fs.losses.CrossEntropy()})))


def test_ranks_and_spectra_of_traced_networks_are_those_of_the_definition():
    Q = fs.metrics
    metrics = [Q.JacobianRank(), Q.JacobianRank(rtol=1e-3, method="gram", name="gram"), Q.JacobianSpectrum(k=3),
               Q.JacobianRank(rtol=1e-7, method="jacobi", name="jacobi"), Q.JacobianRank(method="svd", name="svd")]
    for model in (sine_model(), TRAINED["two_outputs"]["model"]):
        loss = fs.losses.Squared()
        run = general({"model": model, "loss": loss, "rule": fs.rules.SGD(average=0.5)}, metrics=metrics)
        text = fs.plan(run).explain()
        assert "rank by 'gram'" in text and "spectrum by 'jacobi'" in text and "svd by 'svd'" in text
        same(fs.train(run), fs.train(run.replace(backend="reference", metrics=[
            Q.JacobianRank(), Q.JacobianRank(rtol=1e-3, name="gram"), Q.JacobianSpectrum(k=3),
            Q.JacobianRank(rtol=1e-7, name="jacobi"), Q.JacobianRank(name="svd")])))
    with pytest.raises(fs.PlanError, match="rtol is 0"):
        fs.plan(general({"model": sine_model()}, metrics=[Q.JacobianRank(rtol=0)]))


def test_teachers_are_traced_too():
    @dataclass(frozen=True, eq=False)
    class Teacher(fs.models.MLP):
        def forward(self, params, X):
            return super().forward(params, X)**2

    data = fs.data.Fresh(D, Teacher(D, 2, activation="erf", b_scale=0.5), TAUGHT)
    run = general({"model": fs.models.MLP(D, 4), "data": data, "rule": fs.rules.SGD(batch_size=2)})
    got = fs.train(run)
    assert got.provenance["backend"] == "cpu" and "teacher traced" in fs.plan(run).explain()
    same(got, fs.train(run.replace(backend="reference")))


# ---- twins of the families


def twin(model):
    """A subclass whose forward pass is its own as far as anybody can tell: it is traced."""
    kind = type(model)

    def forward(self, params, X):
        return kind.forward(self, params, X)

    made = object.__new__(type("Twin", (kind,), {"forward": forward, "__module__": __name__}))
    made.__dict__.update(vars(model))
    return made


ALIKE = ("identity", "abs", "sigmoid", "softplus", "relu", "linear", "mean_field")  # as others but for a word
TWINS = [name for name in FAMILIES if name not in ("product_16", *(f"mlp_{word}" for word in ALIKE))]


@pytest.mark.parametrize("name", some(TWINS))
def test_twins_of_every_family_train_as_the_family(name):
    fields = CASES[name] | {"model": twin(CASES[name]["model"])}
    assert kind_of(fields["model"]) is None
    run = general(fields, metrics=())
    plan = fs.plan(run)
    assert plan.backend == "cpu"
    same(fs.train(plan), fs.train(general(name, metrics=())))


def test_twins_whose_sums_follow_the_same_tree_have_the_same_bits():
    for model in (fs.models.MLP(D, 6, bias=False), fs.models.DiagonalProduct(D, 2, start_at=(0.4, 0.3))):
        for dtype in ("float32", "float64"):
            rule = fs.rules.SGD(momentum=0.3)
            ours, theirs = (fs.train(general({"model": m, "rule": rule}, dtype)) for m in (model, twin(model)))
            assert ours.saved_weights.tobytes() == theirs.saved_weights.tobytes()


# ---- bits


def bits(result):
    return result.saved_weights.tobytes(), *(result.numpy(name).tobytes() for name in result.records)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_no_choice_moves_a_bit(dtype, tmp_path):
    run = own(dtype)
    whole = fs.train(run, tuning=fs.Tuning(threads=1))
    for layout in layouts(dtype):
        if layout["team"] == 1:
            assert bits(fs.train(run, tuning=fs.Tuning(threads=1, **layout))) == bits(whole)
    for tuning in (fs.Tuning(segment=1), fs.Tuning(segment=5, threads=3, lanes=1)):
        assert bits(fs.train(run, tuning=tuning)) == bits(whole)
    for ids in ([0], [7, 3], list(range(5, NETWORKS))):
        part = fs.train(run.replace(ids=ids), tuning=fs.Tuning(threads=1))
        assert part.saved_weights.tobytes() == whole.saved_weights[ids].tobytes()


@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_any_number_of_networks_begins_with_the_same(dtype):
    model = sine_model(lambda p, x: p["W2"] @ torch.sin(p["W1"] @ x) + p["b1"].sum(), start={}, constants={})
    W = native().lanes[dtype]
    run = own(dtype, model=model, step_size=0.03, metrics=())
    most = fs.train(run.replace(networks=2 * W + 1))
    for N in range(1, 2 * W + 1):
        assert fs.train(run.replace(networks=N)).weights.tobytes() == most.weights[:N].tobytes()


def test_a_lost_network_is_not_felt_by_its_neighbours():
    steps = np.full(NETWORKS, 0.03)
    run = own(step_size=steps, metrics=())
    fine = fs.train(run)
    steps[4] = 1e200
    lost = fs.train(own(step_size=steps, metrics=()))
    others = np.arange(NETWORKS) != 4
    assert lost.lost[4] >= 0 and (lost.lost[others] < 0).all()
    assert lost.saved_weights[others].tobytes() == fine.saved_weights[others].tobytes()


# ---- files

ALONE = """
import sys
sys.modules["torch"] = None
import numpy as np, fastsgd as fs
result = fs.Result.load(sys.argv[1])
again = fs.train(result.run)
assert again.provenance["backend"] == "cpu" and again.saved_weights.tobytes() == result.saved_weights.tobytes()
for name in result.records:
    assert again.numpy(name).tobytes() == result.numpy(name).tobytes(), name
assert "its function is not here" in fs.plan(result.run).explain()
resumed = fs.resume(sys.argv[2])
assert resumed.saved_weights.tobytes() == result.saved_weights.tobytes()
"""


def test_results_and_checkpoints_need_neither_the_function_nor_torch(tmp_path):
    run = own(metrics=[fs.metrics.TrainLoss(), fs.metrics.FeatureSparsity()])
    result = fs.train(run, checkpoint=fs.Checkpoint(tmp_path / "c", every=0), tuning=fs.Tuning(segment=5))
    result.save(tmp_path / "r.npz")
    back = fs.Result.load(tmp_path / "r.npz")
    assert back.run.model.function is None and back.run.loss.graph == fs.plan(run).run.loss.graph
    X = run.data.X
    params = {name: a[0].numpy() for name, a in result.params.items()}
    np.testing.assert_allclose(back.run.model.forward(params, X), run.model.forward(params, X), rtol=1e-14)
    tensors = {name: torch.from_numpy(a) for name, a in params.items()}
    f = back.run.model.forward(tensors, torch.from_numpy(X.copy()))
    np.testing.assert_allclose(f, run.model.forward(params, X), rtol=1e-14)
    done = subprocess.run([sys.executable, "-c", ALONE, tmp_path / "r.npz", tmp_path / "c"], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-1500:]
    same(fs.train(back.run.replace(backend="reference")), fs.train(run.replace(backend="reference")))


def test_modules_become_models_and_come_back():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(D, 6), torch.nn.GELU(), torch.nn.LayerNorm(6), torch.nn.Linear(6, 1))
    module[0].bias.requires_grad_(False)
    before = {name: a.clone() for name, a in module.named_parameters()}
    model = fs.models.from_module(module)
    assert model.outputs == 1 and set(model.shapes()) == {"0.weight", "2.weight", "2.bias", "3.weight", "3.bias"}
    run = general({"model": model}, "float32")
    result = fs.train(run)
    same(result, fs.train(run.replace(backend="reference")), "float32")
    made = result.to_module(3)
    f = made(torch.from_numpy(run.data.X)).detach().numpy()[:, 0]
    params = {name: a[3].numpy().astype(np.float64) for name, a in result.params.items()}
    np.testing.assert_allclose(f, model.forward(params, run.data.X.astype(np.float64)), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(a, before[name]) for name, a in module.named_parameters())
    drawn = fs.models.from_module(module, start={"0.weight": (0, 0.5)})
    start = drawn.unflatten(drawn.start(0, [0, 1]))
    assert (start["0.weight"][0] != start["0.weight"][1]).all() and (start["3.weight"][0] == start["3.weight"][1]).all()


def test_what_is_done_is_explained():
    model = fs.models.Function(lambda p, x: p["a"] @ torch.sin(p["W"] @ x), d=D,
                               shapes={"W": (6, D), "a": 6, "spare": 3})
    text = fs.plan(general({"model": model, "loss": fs.losses.Function(huber)})).explain()
    assert "model traced: 5 operations, equal to torch.autograd at " in text and "compiled" in text
    assert "nothing depends on spare" in text and "loss traced" in text
    assert POINTS == 7


# ---- cards


def test_a_card_has_the_same_bits(a_card):
    """The same text in the program of the general loop, by fibers where there is no card."""
    run = own("float32", metrics=[fs.metrics.TrainLoss()])
    here, there = fs.train(run), fs.train(run.replace(backend="cuda"))
    assert there.provenance["backend"] == "cuda" and bits(there)[0] == bits(here)[0]
    np.testing.assert_allclose(there.numpy("train_loss"), here.numpy("train_loss"), rtol=1e-12)
    assert "a thread a network" in fs.plan(run.replace(backend="cuda")).explain()
    with pytest.raises(fs.PlanError, match="a thread a network"):
        fs.plan(run.replace(backend="cuda"), fs.Tuning(team=32))


def test_a_penalty_of_a_family_on_a_card(a_card):
    model = fs.models.DiagonalLinear(D, u0=0.5, v0=0.2)
    rule = fs.rules.SGD(momentum=0.4, penalty=lambda p: 0.1 * (p["u"] * p["v"]).sum())
    run = general({"model": model, "rule": rule}, metrics=())
    here, there = fs.train(run), fs.train(run.replace(backend="cuda"))
    assert there.saved_weights.tobytes() == here.saved_weights.tobytes()
    assert np.abs(here.weights - fs.train(run.replace(rule=fs.rules.SGD(momentum=0.4))).weights).max() > 1e-4


def test_what_a_card_has_no_room_or_program_for_is_refused(a_card):
    wide = fs.models.Function(lambda p, x: p["W2"] @ torch.sin(p["W1"] @ x), d=D, shapes={"W1": (3000, D), "W2": 3000})
    with pytest.raises(fs.BackendUnavailable, match="holds at most 64 KiB"):
        fs.plan(general({"model": wide}, backend="cuda", metrics=()))


def test_a_first_function_does_not_wait_for_torchs_compiler():
    """Tracing, planning, checking and the reference import neither torch's compiler nor sympy, which take seconds."""
    text = """
import sys, torch, fastsgd as fs
def net(p, x):
    return p["a"] @ torch.relu(torch.nn.functional.layer_norm(p["W"] @ x, (8,)))
model = fs.models.Function(net, d=3, shapes={"W": (8, 3), "a": 8})
loss = fs.losses.Function(lambda f, y: torch.nn.functional.huber_loss(f, y))
data = fs.data.teacher_student(n=10, d=3, teacher_width=4, seed=0)
run = fs.Run(model, data, fs.rules.SGD(), 0.01, 10, networks=4, loss=loss, dtype="float64", backend="cpu")
fs.plan(run)
fs.train(run.replace(backend="reference", rule=fs.rules.SAM(rho=0.1, per_sample=True, penalty=lambda p: p["a"].sum())))
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"
