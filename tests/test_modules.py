"""Feature sparsity of torch modules is the paper's rule on stored activations, in less memory; no hook is left."""

import pickle
import runpy
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from forking import forked
from tolerances import METRIC
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastsgd as fs
from fastsgd.metrics.feature_sparsity import sparsity
from fastsgd.modules.passes import evaluating


class Residual(nn.Module):
    """A residual block with batch norm and dropout, whose output ReLU works in place."""

    def __init__(self, c):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c)
        self.conv2, self.bn2 = nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c)
        self.relu1, self.relu2, self.drop = nn.ReLU(), nn.ReLU(inplace=True), nn.Dropout(0.5)

    def forward(self, x):
        return self.relu2(x + self.bn2(self.conv2(self.drop(self.relu1(self.bn1(self.conv1(x)))))))


def mlp():
    return nn.Sequential(nn.Linear(5, 24), nn.ReLU(), nn.Linear(24, 17), nn.ReLU(), nn.Linear(17, 3))


def conv():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 4))


def residual():
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), Residual(3), *head)


CASES = {"mlp": (mlp, (5,), ["1", "3"]), "conv": (conv, (1, 6, 6), ["1", "2"]),
         "residual": (residual, (1, 6, 6), ["1", "2.relu1", "2", "3"])}


def case(name, n=60, dtype=torch.float32):
    """A model whose batch norms have seen data, inputs, and the layers to look at; repeated units for merging."""
    make, shape, layers = CASES[name]
    torch.manual_seed(3)
    model = make().to(dtype)
    first = model[0]
    with torch.no_grad():  # a copy, a scaled copy, and a unit that is never positive
        first.weight[1], first.bias[1] = first.weight[0], first.bias[0]
        first.weight[2], first.bias[2] = 2 * first.weight[0], 2 * first.bias[0] - 1e-3
        if name == "mlp":
            first.weight[3], first.bias[3] = 0, -1
            first.weight[4], first.bias[4] = 0, 0.3  # constant
    x = torch.randn(n, *shape, dtype=dtype)
    for _ in range(3):
        model(x)
    return model, x, layers


def stored(model, x, layers):
    """{layer: activations [n, U] float64} in evaluation mode, kept whole."""
    out, handles = {}, []
    for name in layers:
        handles.append(model.get_submodule(name).register_forward_hook(
            lambda m, a, y, name=name: out.__setitem__(name, y.detach().flatten(1).double().numpy().copy())))
    with evaluating(model), torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return out


def sequential_rule(phi, tau):
    """(coefficient, alive, merged) by the paper's rule, taken literally: a unit goes if it correlates with any left."""
    alive = np.flatnonzero((phi > 0).any(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = np.abs(np.corrcoef(phi[:, alive].T).reshape(len(alive), len(alive)))
    rho[:, phi[:, alive].min(axis=0) == phi[:, alive].max(axis=0)] = np.nan
    left = list(range(len(alive)))
    for i in range(len(alive)):
        others = [j for j in left if j != i]
        if (rho[i, others] > tau).any():
            left = others
    kept = alive[left]
    return (phi[:, kept] > 0).sum() / phi.size, len(alive), len(alive) - len(kept)


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [0.5, 0.95, 1.0])
@pytest.mark.parametrize("batch", [60, 7, 1])
def test_sparsity_is_the_papers_rule_on_stored_activations(name, dtype, tau, batch):
    model, x, layers = case(name, dtype=dtype)
    result = fs.modules.FeatureSparsity(model, layers, tau=tau).over(x.split(batch))
    merged = 0
    for layer, phi in stored(model, x, layers).items():
        got, (coefficient, alive, gone) = result[layer], sequential_rule(phi, tau)
        assert (got.alive, got.merged) == (alive, gone)
        assert (got.samples, got.units) == phi.shape and got.sampled == got.units
        assert got.density == got.sampled_density == (phi > 0).mean()
        assert got.coefficient == coefficient
        if tau < 1:  # at tau = 1 the witness counts by rounding of |rho|
            assert got.coefficient == pytest.approx(sparsity(phi[None], tau, False)[0], abs=0, rel=METRIC)
        merged += gone
    assert merged > 0 or tau == 1


@pytest.mark.parametrize("tau", [0.5, 0.9])
def test_normalised_rows(tau):
    model, x, layers = case("mlp")
    x[0] = 0  # with a zero bias a row of zeros stays one
    with torch.no_grad():
        model[0].bias.zero_()
    result = fs.modules.FeatureSparsity(model, layers, tau=tau, normalise=True).over(x.split(16))
    for layer, phi in stored(model, x, layers).items():
        assert result[layer].coefficient == pytest.approx(sparsity(phi[None], tau, True)[0], rel=METRIC)
    plain = fs.modules.FeatureSparsity(model, layers, tau=tau).over(x)
    assert any(plain[k].merged != result[k].merged for k in layers)


def test_large_means_do_not_drown_the_correlation():
    """Two columns of deviation 1 on a mean of 1e7: uncentred float64 sums of squares would lose 14 of 16 digits."""
    torch.manual_seed(0)
    x = 1e7 + torch.randn(500, 2, dtype=torch.float64)
    x[:, 1] = x[:, 0] + 0.1 * torch.randn(500, dtype=torch.float64)
    rho = np.corrcoef(x.numpy().T)[0, 1]
    for tau, merged in ((rho - 1e-9, 1), (rho + 1e-9, 0)):
        result = fs.modules.FeatureSparsity(nn.Identity(), [""], tau=tau).over(x.split(7))
        assert result[""].merged == merged


def test_constant_columns_stay_whatever_their_mean_rounds_to():
    x = torch.full((49, 3), 0.1, dtype=torch.float64)  # a mean over 7 of 0.1 is not 0.1
    result = fs.modules.FeatureSparsity(nn.Identity(), [""], tau=0.1).over(x.split(7))
    assert result[""].merged == 0 and result[""].coefficient == 1


def test_units_that_are_never_positive_neither_stay_nor_stand_for_others():
    z = torch.randn(30, 1, dtype=torch.float64)
    result = fs.modules.FeatureSparsity(nn.Identity(), [""]).over(torch.cat([z - 50, z, z - 100], dim=1))[""]
    assert (result.alive, result.merged) == (1, 0)
    assert result.coefficient == result.density == int((z > 0).sum()) / 90


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_units_that_are_constant_but_for_rounding_stay(dtype):
    """Collinear units with scaled rows; in batches as well, and whatever the features' dtype is."""
    x = torch.linspace(0.1, 1, 200, dtype=torch.float64)[:, None] * torch.tensor([1, 2, 0.3, -1, 0.7, 1.9]).double()
    x = torch.relu(x).to(dtype)
    for batch in (200, 7):
        result = fs.modules.FeatureSparsity(nn.Identity(), [""], normalise=True).over(x.split(batch))[""]
        assert (result.alive, result.merged) == (5, 0)
        assert fs.modules.FeatureSparsity(nn.Identity(), [""]).over(x.split(batch))[""].merged == 4


@pytest.mark.parametrize("normalise", [True, False])
def test_scales_of_activations_do_not_matter(normalise):
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((60, 9)), 0)
    x[:, 5], x[:, 7], x[:, 3] = 3 * x[:, 2], x[:, 1], 0
    meter = fs.modules.FeatureSparsity(nn.Identity(), [""], tau=0.9, normalise=normalise)
    want = meter.over(torch.tensor(x))[""]
    assert want.merged == 2
    growing = 10.0 ** np.linspace(-300, 300, 60)[:, None]  # each batch larger than the last
    for scale in (1e-170, 1e-300, 1e200, 1e300, growing if normalise else np.where(np.arange(9) % 2, 1e-170, 1e200)):
        assert meter.over(torch.tensor(x * scale).split(7))[""] == want
    late = np.concatenate([np.zeros((7, 9)), x * 1e-170])
    assert meter.over(torch.tensor(late).split(7))[""].merged == 2


@pytest.mark.parametrize("units", [1, 10, None])
def test_sampled_units(units):
    model, x, _ = case("mlp")
    phi = stored(model, x, ["1"])["1"]
    results = [fs.modules.FeatureSparsity(model, ["1"], units=units, seed=s).over(x)["1"] for s in (0, 0, 1, 2, 3)]
    assert results[0] == results[1]
    assert all(r.density == (phi > 0).mean() and r.units == 24 and r.sampled == (units or 24) for r in results)
    assert (len({r.sampled_density for r in results}) > 1) == (units is not None)
    chosen = np.sort(np.random.default_rng(0).choice(24, units or 24, replace=False))
    assert results[0].coefficient == sequential_rule(phi[:, chosen], 0.95)[0]


def test_within_a_training_loop_and_reset_between():
    model, x, layers = case("residual")
    meter = fs.modules.FeatureSparsity(model, layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.eval()  # so that the witness sees the activations that training sees
    densities = []
    for _ in range(2):
        want = stored(model, x, layers)
        with meter:
            model(x).square().sum().backward()
        optimizer.step()
        model(x)  # not counted
        result = meter.compute()
        assert all(result[k].density == (want[k] > 0).mean() and result[k].samples == len(x) for k in layers)
        densities.append(result["1"].density)
    assert hooks(model) == 0 and densities[0] != densities[1]


def test_low_precision_and_autocast():
    model, x, layers = case("mlp")
    with evaluating(model), torch.autocast("cpu", dtype=torch.bfloat16):
        result = fs.modules.FeatureSparsity(model, layers).over(x)
        phi = stored(model, x, layers)
    for k in layers:
        assert result[k].coefficient == sequential_rule(phi[k], 0.95)[0]
    half = deepcopy(model).to(torch.bfloat16)
    assert fs.modules.FeatureSparsity(half, layers).over(x.to(torch.bfloat16))["1"].merged >= 2


def test_loaders_and_devices_of_batches():
    model, x, layers = case("conv")
    data = TensorDataset(x, torch.zeros(len(x)))
    meter = fs.modules.FeatureSparsity(model, layers)
    want = meter.over(x)
    for loader in (DataLoader(data, 13), DataLoader(TensorDataset(x), 13), iter(x.split(20)), list(x.split(9)),
                   ({"image": x, "y": 0}["image"] for _ in range(1))):
        assert meter.over(loader) == want
    rank = fs.modules.JacobianRank(model)
    assert rank.over(DataLoader(data, 13)).singular_values.equal(rank.over(x.split(13)).singular_values)


class Awkward(nn.Module):
    """Calls a ReLU twice, returns a tuple from one layer, never calls another, and stops when told to."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.relu = nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU()
        self.unused, self.lstm, self.stop = nn.ReLU(), nn.LSTM(4, 4), False
        self.argmax, self.scalar = Call(lambda x: x.argmax(1)), Call(lambda x: x.mean())

    def forward(self, x):
        h = self.relu(self.first(x))
        if self.stop:
            raise RuntimeError("stopped")
        h = self.lstm(self.relu(self.second(h)))[0]
        self.argmax(h), self.scalar(h)
        return h


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


@pytest.mark.parametrize(("layers", "message"), [
    (["relu"], "'relu': called twice"), (["first", "unused"], "'unused': not called"),
    (["lstm"], "'lstm': gives tuple"),
    (["argmax"], "'argmax': gives torch.int64"), (["scalar"], r"'scalar': gives shape \[\]")])
def test_layers_that_cannot_be_counted(layers, message):
    model = Awkward()
    model.first.eval()
    modes = [m.training for m in model.modules()]
    with pytest.raises(fs.PlanError, match=message):
        fs.modules.FeatureSparsity(model, layers).over(torch.randn(6, 3))
    assert hooks(model) == 0 and [m.training for m in model.modules()] == modes


def test_hooks_go_and_modes_return_when_the_model_raises():
    model, x = Awkward(), torch.randn(6, 3)
    model.second.eval()
    modes = [m.training for m in model.modules()]
    meter = fs.modules.FeatureSparsity(model, ["first", "second"])
    model.stop = True
    with pytest.raises(RuntimeError, match="stopped"):
        meter.over(x)
    assert hooks(model) == 0 and [m.training for m in model.modules()] == modes
    with meter:
        with pytest.raises(RuntimeError, match="stopped"):
            model(x)
        with pytest.raises(fs.PlanError, match="did not finish"):
            meter.compute()
        model.stop = False
        with pytest.raises(fs.PlanError, match="did not finish"):
            model(x)
        meter.reset()
        model(x)
    assert meter.compute()["first"].samples == meter.over(x)["second"].samples == 6


def test_refusals_of_feature_sparsity():
    model, x, _ = case("mlp")
    sparse = fs.modules.FeatureSparsity
    with pytest.raises(fs.PlanError, match=r"no '2.relu'; near it are '2.relu2', '2.relu1'"):
        sparse(case("residual")[0], ["2.relu"])
    for bad, field in (({"layers": "1"}, "layers"), ({"layers": []}, "layers"), ({"layers": ["1", "1"]}, "layers"),
                       ({"tau": 0}, "tau"), ({"tau": 1.1}, "tau"), ({"tau": float("nan")}, "tau"),
                       ({"units": 0}, "units"), ({"seed": -1}, "seed"), ({"normalise": 1}, "normalise")):
        with pytest.raises(fs.SpecError, match=field):
            sparse(model, **{"layers": ["1"], **bad})
    with pytest.raises(fs.SpecError, match="function"):
        sparse(lambda x: x, ["1"])
    meter = sparse(model, ["1"])
    with pytest.raises(fs.SpecError, match="nothing was counted"):
        meter.over([])
    with pytest.raises(fs.SpecError, match="1 sample"):
        meter.over(x[:1])
    with pytest.raises(fs.PlanError, match=r"shape \[0, 24\]"):
        meter.over(x[:0])
    for value in (float("nan"), float("inf")):
        with pytest.raises(fs.PlanError, match=r"'1': .*not finite"):
            meter.over([x, torch.full((4, 5), value)])
    with pytest.raises(fs.PlanError, match="attached already"), meter:
        meter.attach()
    with meter, pytest.raises(fs.PlanError, match="outside a forward"):
        model[1](x)
    changing = sparse(nn.Sequential(nn.ReLU()), ["0"])
    with pytest.raises(fs.PlanError, match=r"5 units .* after 3"):
        changing.over([torch.ones(2, 3), torch.ones(2, 5)])


@pytest.mark.parametrize(("data", "message"), [
    ([{"image": 1}], "yields dict"), ({"x": 1}, "dict given"), (3, "int given"), ("abc", "str given"),
    (TensorDataset(torch.ones(2, 5)), "TensorDataset given"), ([np.ones((2, 5))], "yields ndarray"),
    ([({"image": 1}, 0)], "yields tuple of dict"), ([()], "yields tuple")])
def test_data_of_other_kinds(data, message):
    model, _, layers = case("mlp")
    for metric in (fs.modules.FeatureSparsity(model, layers), fs.modules.JacobianRank(model)):
        with pytest.raises(fs.SpecError, match=message):
            metric.over(data)


def test_copies_made_while_a_meter_is_attached_are_plain():
    model, x, layers = case("residual")
    meter = fs.modules.FeatureSparsity(model, layers)
    with meter:
        copies = [deepcopy(model), pickle.loads(pickle.dumps(model))]
        for copied in copies:
            copied.eval()(x)
        assert not meter._counts, "a copy counts nothing"
        model.eval()(x)
    assert meter.compute()["1"].samples == len(x)
    for copied in copies:
        torch.testing.assert_close(copied(x), model(x))
        assert fs.modules.FeatureSparsity(copied, layers).over(x) == fs.modules.FeatureSparsity(model, layers).over(x)


class Tokens(nn.Module):
    """Samples first outside, tokens flattened into the first axis inside."""

    def __init__(self):
        super().__init__()
        self.each, self.relu, self.head = nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.relu(self.each(x.flatten(0, 1))).view(len(x), -1, 6).mean(dim=1))


def test_layers_whose_first_axis_is_not_the_samples():
    torch.manual_seed(0)
    sparse, x = fs.modules.FeatureSparsity, torch.randn(5, 9, 8)  # [T, B, d] for the encoder, 9 examples
    for encoder in (nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0),
                    nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), 1,
                                          enable_nested_tensor=False)):
        layer = "linear1" if hasattr(encoder, "linear1") else "layers.0.linear1"
        with pytest.raises(fs.PlanError, match=f"'{layer}': .*has batch_first=False.*axis=1"):
            sparse(encoder, [layer]).over(x)
        got = sparse(encoder, [layer], axis=1).over(x)[layer]
        phi = stored(encoder, x, [layer])[layer].reshape(5, 9, 16).transpose(1, 0, 2).reshape(9, -1)
        assert (got.samples, got.units) == (9, 80) and got.density == (phi > 0).mean()
        assert got.coefficient == sequential_rule(phi, 0.95)[0]
        assert sparse(encoder, [layer], axis=0).over(x)[layer].samples == 5, "said by name"
    row = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), nn.Linear(8, 3))
    with pytest.raises(fs.PlanError, match="'1': 'the model' has batch_first=False"):
        sparse(row, ["1"]).over(x)
    assert sparse(row, ["1"], axis=1).over(x)["1"].samples == 9
    model = Tokens()
    with pytest.raises(fs.PlanError, match=r"'relu': gives \[45, 6\] for 5 samples; .*axis=0 to count each of the 45"):
        sparse(model, ["relu"]).over(x)
    assert sparse(model, ["relu"], axis=0).over(x)["relu"].samples == 45
    with pytest.raises(fs.PlanError, match="for 45 samples"):  # 45 tokens and 5 samples in one table
        sparse(model, ["relu", "head"], axis=0).over(x)
    with pytest.raises(fs.PlanError, match=r"shape \[45, 6\], expected \[..., samples, ...\] on axis 2"):
        sparse(model, ["relu"], axis=2).over(x)
    with pytest.raises(fs.SpecError, match="axis"):
        sparse(model, ["relu"], axis=-1)
    with sparse(model, ["head"]) as meter:
        model(x=x)  # by keyword
    assert meter.compute()["head"].samples == 5


@pytest.mark.parametrize("normalise", [False, True])
def test_counts_of_several_processes_are_merged(normalise):
    model, x, layers = case("residual")
    make = partial(fs.modules.FeatureSparsity, model, layers, units=40, normalise=normalise)
    want, parts = make(), [make() for _ in range(3)]
    whole = want.over(x)
    for meter, part in zip(parts, (x[:7], x[7:50], x[50:]), strict=True):
        meter.over(part)
    states = [pickle.loads(pickle.dumps(meter.counts())) for meter in parts]
    for first in (parts[0], make()):  # into one of them, or one that saw nothing
        for state in states[1:] if first is parts[0] else states:
            first.merge(state)
        assert first.compute() == whole and first.feature_rank() == want.feature_rank()
    first.merge(make().counts())  # a process without samples
    assert first.compute() == whole
    for other in (make(units=30), make(seed=1), make(normalise=not normalise)):
        other.over(x)
        with pytest.raises(fs.PlanError, match="the same layers, units, normalise and seed"):
            first.merge(other.counts())
    with pytest.raises(fs.PlanError, match="this meter has"):
        first.merge({"1": states[0]["1"]})
    assert first.compute() == whole, "a refusal changes nothing"


def test_merged_counts_of_other_scales():
    x = torch.rand(40, 3, dtype=torch.float64)
    meters = [fs.modules.FeatureSparsity(nn.Identity(), [""]) for _ in range(3)]
    scaled = torch.cat([x[:20] * 1e-200, x[20:] * 1e180])
    for meter, part in zip(meters, (scaled[:20], scaled[20:], scaled), strict=True):
        meter.over(part)
    meters[0].merge(meters[1].counts())
    assert meters[0].compute() == meters[2].compute()


def test_feature_rank_is_that_of_the_stored_activations():
    model, x, layers = case("mlp")
    meter = fs.modules.FeatureSparsity(model, layers)
    with pytest.raises(fs.SpecError, match="nothing was counted"):
        meter.feature_rank()
    meter.over(x.split(9))
    for share in (0.5, 0.99, 0.9999):
        for name, phi in stored(model, x, layers).items():
            sigma = np.linalg.svd(phi - phi.mean(axis=0), compute_uv=False) ** 2
            want = int(np.searchsorted(np.cumsum(sigma), share * sigma.sum())) + 1
            assert meter.feature_rank(share)[name] == want
    z = torch.randn(30, 1, dtype=torch.float64)
    flat = fs.modules.FeatureSparsity(nn.Identity(), [""])
    for data, rank in ((z * torch.tensor([1e200, 1e200], dtype=torch.float64), 1), (torch.ones(30, 2), 0)):
        flat.over(data)
        assert flat.feature_rank(1.0)[""] == rank
    with pytest.raises(fs.SpecError, match="share"):
        meter.feature_rank(0)


@pytest.mark.parametrize("first", [True, False])
def test_one_meter_in_inference_mode_and_out_of_it(first):
    model, x, layers = case("mlp")
    model.eval()
    want = fs.modules.FeatureSparsity(model, layers).over(x.split(20))
    with fs.modules.FeatureSparsity(model, layers) as meter:
        for k, batch in enumerate(x.split(20)):
            with torch.inference_mode(first == (k % 2 == 0)):
                model(batch)
    assert meter.compute() == want


def grown_by(batches):
    """MiB by which a pass over so many batches of 64 x 65536 activations grows a process of its own."""
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(4, 65536), nn.ReLU()).eval()

    def data(k):
        return (torch.randn(64, 4) for _ in range(k))

    def peak():
        lines = Path("/proc/self/status").read_text().splitlines()  # not ru_maxrss, which begins at the parent's size
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024

    with torch.no_grad():
        for x in data(3):
            model(x)
    before = peak()
    r = fs.modules.FeatureSparsity(model, ["1"]).over(data(batches))["1"]
    assert (r.samples, r.units, r.sampled) == (64 * batches, 65536, 1000)
    return peak() - before


def test_memory_stays_below_one_stored_layer():
    """Peak growth over a pass of 30 batches is that of a few; in a fork, which need not import torch."""
    assert forked(partial(grown_by, 30)) < 200, "MiB; the layer stored is 480"


def test_the_digits_example_runs(tmp_path, monkeypatch, capsys):
    for module in ("sklearn", "matplotlib"):
        pytest.importorskip(module)
    script = Path(__file__).parent.parent / "examples" / "digits_cnn.py"
    command = [script, "--quick", "--seeds", "1", "--epochs", "2", "--out", tmp_path / "figure.png"]
    monkeypatch.setattr("sys.argv", list(map(str, command)))
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor",
                        lambda *_, **__: ThreadPoolExecutor(1))  # its processes would each import torch again
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    assert all(label in printed for label in ("small: 0.02", "large: 0.2", "feature sparsity coefficient"))
    assert (tmp_path / "figure.png").stat().st_size > 10_000
