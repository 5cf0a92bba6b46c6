"""Jacobian ranks of torch modules are those of autograd's Jacobian, one backward a row; the module is left alone."""

import warnings
from copy import deepcopy

import numpy as np
import pytest
import torch
from test_modules import CASES, case, stored
from tolerances import METRIC
from torch import nn

import fastsgd as fs


def autograd_jacobian(model, x, names=None):
    """J [n M, P] by one backward for each row in evaluation mode: the definition."""
    model = deepcopy(model).eval()
    parameters = [p for k, p in model.named_parameters() if names is None or k in names]
    rows = []
    for example in x:
        out = model(example[None]).flatten()
        for value in out:
            grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            rows.append(torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten()
                                   for p, g in zip(parameters, grads, strict=True)]))
    return torch.stack(rows).double().numpy()


def agree(got, J, rtol):
    sigma = np.linalg.svd(J, compute_uv=False)
    np.testing.assert_allclose(got.singular_values, sigma, rtol=0, atol=METRIC * sigma[0])
    assert got.rank == (sigma > rtol * sigma[0]).sum()
    assert got.frobenius == pytest.approx(np.linalg.norm(J), rel=METRIC)
    assert (got.rows, got.columns) == J.shape


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rtol", [1e-8, 1e-2])
def test_rank_of_the_autograd_jacobian(name, rtol):
    model, x, _ = case(name, n=20, dtype=torch.float64)
    J = autograd_jacobian(model, x)
    agree(fs.modules.JacobianRank(model, rtol=rtol).over(x.split(6)), J, rtol)
    M = len(J) // len(x)
    agree(fs.modules.JacobianRank(model, rtol=rtol, output=M - 1, chunk_size=3).over(x), J[M - 1::M], rtol)
    drawn = np.random.default_rng([5, 1]).integers(M, size=20)
    picked = J[np.arange(20) * M + drawn]
    agree(fs.modules.JacobianRank(model, rtol=rtol, output="random", seed=5).over(x), picked, rtol)


def test_sampled_and_named_coordinates():
    model, x, _ = case("residual", n=20, dtype=torch.float64)
    J = autograd_jacobian(model, x)
    drawn = np.sort(np.random.default_rng([9, 0]).choice(J.shape[1], 31, replace=False))
    agree(fs.modules.JacobianRank(model, 1e-8, parameters=31, seed=9).over(x), J[:, drawn], 1e-8)
    agree(fs.modules.JacobianRank(model, 1e-8, parameters=J.shape[1]).over(x), J, 1e-8)
    names = ["0.weight", "5.bias"]
    agree(fs.modules.JacobianRank(model, 1e-8, parameters=names).over(x), autograd_jacobian(model, x, names), 1e-8)
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith("2."))
    frozen = [name for name, p in model.named_parameters() if p.requires_grad]
    agree(fs.modules.JacobianRank(model, 1e-8).over(x), autograd_jacobian(model, x, frozen), 1e-8)


def test_many_rows_are_folded_without_losing_small_singular_values():
    """50 times more rows than columns, singular values over 12 decades: a Gram matrix would lose those below 1e-8."""
    torch.manual_seed(0)
    model = nn.Linear(7, 1, bias=False).double()
    Q = torch.linalg.qr(torch.randn(350, 7, dtype=torch.float64)).Q
    V = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64)).Q
    sigma = torch.logspace(0, -12, 7, dtype=torch.float64)
    got = fs.modules.JacobianRank(model, rtol=1e-11).over((Q * sigma @ V.T).split(11))
    torch.testing.assert_close(got.singular_values, sigma, rtol=1e-3, atol=0)
    assert (got.rank, got.rows, got.columns) == (6, 350, 7)


def test_rank_leaves_the_model_alone():
    model, x, _ = case("residual", n=8)
    before = deepcopy(model.state_dict())
    model[2].bn1.eval()
    modes = [m.training for m in model.modules()]
    rank = fs.modules.JacobianRank(model, parameters=10, output="random")
    assert rank.over(x).singular_values.equal(rank.over(x).singular_values)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_tied_weights_and_dead_networks():
    tied = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    tied[2].weight = tied[0].weight
    x = torch.randn(6, 4, dtype=torch.float64)
    agree(fs.modules.JacobianRank(tied, 1e-9).over(x), autograd_jacobian(tied, x), 1e-9)
    dead = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 1, bias=False))
    for p in dead.parameters():
        nn.init.zeros_(p)
    assert fs.modules.JacobianRank(dead).over(torch.randn(3, 4)).rank == 0


class Branches(nn.Module):
    """A recurrent network whose forward looks at values, which vmap cannot."""

    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x):
        y = self.head(self.gru(x)[0][:, -1])
        return y if y.sum() > 0 else -y


def test_modules_that_vmap_cannot_run():
    torch.manual_seed(0)
    model, x = Branches().double(), torch.randn(7, 6, 4, dtype=torch.float64)
    agree(fs.modules.JacobianRank(model, 1e-8, chunk_size=1).over(x), autograd_jacobian(model, x), 1e-8)
    with pytest.raises(fs.PlanError, match="chunk_size=1"):
        fs.modules.JacobianRank(model, 1e-8).over(x)


def test_attention_over_integer_inputs():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.Embedding(11, 8), layer, nn.Flatten(), nn.Linear(40, 3)).double()
    x = torch.randint(0, 11, (9, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch runs attention under vmap by a slow path, and says so
        agree(fs.modules.JacobianRank(model, 1e-8).over(x), autograd_jacobian(model, x), 1e-8)
    result = fs.modules.FeatureSparsity(model, ["1.linear1", "1"]).over(x)  # its fused path would skip linear1
    for name, phi in stored(model, x, list(result)).items():
        assert result[name].density == (phi > 0).mean()


def test_refusals_of_jacobian_rank():
    model, x, _ = case("mlp")
    rank = fs.modules.JacobianRank
    for bad, field in (({"rtol": -1e-3}, "rtol"), ({"rtol": 1.0}, "rtol"), ({"output": "sum"}, "output"),
                       ({"output": -1}, "output"), ({"output": True}, "output"), ({"seed": -1}, "seed"),
                       ({"parameters": 0}, "parameters"), ({"parameters": True}, "parameters"),
                       ({"parameters": []}, "parameters"), ({"chunk_size": 0}, "chunk_size")):
        with pytest.raises(fs.SpecError, match=field):
            rank(model, **bad)
    for bad, message in (({"parameters": 10**6}, "the model has 623"),
                         ({"parameters": ["0.wait"]}, "near it are '0.weight'")):
        with pytest.raises(fs.PlanError, match=message):
            rank(model, **bad)
    with pytest.raises(fs.PlanError, match=r"rtol: 1e-09 .* float64"):
        rank(model, rtol=1e-9).over(x)
    with pytest.raises(fs.PlanError, match="3 outputs"):
        rank(model, output=3).over(x)
    with pytest.raises(fs.PlanError, match="not finite"):
        rank(model).over(x * float("nan"))
    with pytest.raises(fs.SpecError, match="empty"):
        rank(model).over([])
    with pytest.raises(fs.PlanError, match="batch has shape"):
        rank(model).over(x[:0])
    with pytest.raises(fs.PlanError, match="requires a gradient"):
        rank(nn.ReLU())
    with pytest.raises(fs.PlanError, match="gives tuple"):
        rank(nn.LSTM(5, 2)).over(x)
    with pytest.raises(fs.PlanError, match="'1' normalises by the batch"):
        rank(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False))).over(x)


def test_matrices_that_are_too_large_are_refused_early(monkeypatch):
    model, x, _ = case("mlp")
    monkeypatch.setattr("fastsgd.modules.jacobian_rank.MATRIX", 8 * 623 * 100)
    with pytest.raises(fs.PlanError, match="draw coordinates"):
        fs.modules.JacobianRank(model).over(x)  # 180 rows of 623
    monkeypatch.setattr("fastsgd.modules.jacobian_rank.MATRIX", 8 * 20 * 100)
    assert fs.modules.JacobianRank(model, parameters=20).over(x).rows == 180  # folded, so never 100 rows of 20


def low_rank():
    """A model, inputs in a space of 3 dimensions, and the rank that its first weight alone has: at most 3 * 40."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 1))
    for p in (model[2].weight, model[2].bias, model[0].bias):
        p.requires_grad_(False)
    return model, torch.randn(400, 3) @ torch.randn(3, 20)


class OwnAutocast(nn.Module):
    """A module that computes in bfloat16 whatever is outside."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inner(x).float()


def test_precision_is_the_modules_own():
    """Rounding to 8 bits gives a full rank: autocast outside is off, one inside is refused."""
    model, x = low_rank()
    want = fs.modules.JacobianRank(model).over(x)
    assert want.rank <= 120
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for chunk in (None, 1):
            got = fs.modules.JacobianRank(model, chunk_size=chunk).over(x[:130])
            assert got.rank == fs.modules.JacobianRank(model).over(x[:130]).rank <= 120
        assert torch.is_autocast_enabled("cpu")
    with pytest.raises(fs.PlanError, match=r"0\.0001 is below the rounding unit 0\.0078 of torch\.bfloat16"):
        fs.modules.JacobianRank(OwnAutocast(model)).over(x)
    mixed = nn.Sequential(nn.Linear(20, 40), Cast(torch.bfloat16), nn.Linear(40, 1).to(torch.bfloat16))
    with pytest.raises(fs.PlanError, match="bfloat16"):  # the chosen coordinates are float32, what they pass is not
        fs.modules.JacobianRank(mixed, parameters=["0.weight"]).over(x)
    assert fs.modules.JacobianRank(mixed, rtol=0.1, parameters=["0.weight"]).over(x[:9]).rows == 9


class Cast(nn.Module):
    """A change of dtype as a module."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, x):
        return x.to(self.dtype)


def test_tf32_and_bfloat16_products_are_off_meanwhile():
    seen, model = [], nn.Sequential(nn.Linear(3, 2))
    kept = torch.backends.mkldnn.matmul
    if not hasattr(kept, "fp32_precision"):
        pytest.skip("torch 2.9 and later say this for each kind of operation")
    model.register_forward_pre_hook(lambda *_: seen.append(kept.fp32_precision))
    torch.set_float32_matmul_precision("medium")
    try:
        fs.modules.JacobianRank(model).over(torch.randn(5, 3))
        assert set(seen) == {"ieee"} and torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (40, 40), (1, 5), (5, 1)])
def test_singular_values_of_wide_and_tall_matrices(shape):
    torch.manual_seed(0)
    rows, columns = shape
    model = nn.Linear(columns, 1, bias=False).double()
    x = torch.randn(rows, columns, dtype=torch.float64) * torch.logspace(0, -9, columns, dtype=torch.float64)
    agree(fs.modules.JacobianRank(model, 1e-12).over(x.split(7)), x.numpy(), 1e-12)


class Counter(nn.Module):
    """Writes to a buffer in its forward, which a transform forbids."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return self.layer(x)


class Twice(torch.autograd.Function):
    """Doubles; written in the old form, which torch.func refuses."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g


class Old(nn.Module):
    """A model with an autograd function of the old form."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return Twice.apply(self.layer(x))


@pytest.mark.parametrize("make", [Counter, Old])
@pytest.mark.parametrize("output", ["all", "random", 1])
def test_what_chunk_size_one_promises(make, output):
    """The message that sends there is true: plain autograd runs whatever the model's own forward runs."""
    torch.manual_seed(0)
    model, x = make().double(), torch.randn(6, 4, dtype=torch.float64)
    with pytest.raises(fs.PlanError, match="chunk_size=1 does without"):
        fs.modules.JacobianRank(model, 1e-8, output=output).over(x)
    got = fs.modules.JacobianRank(model, 1e-8, output=output, chunk_size=1).over(x)
    scale = 2 if make is Old else 1
    plain = nn.Sequential(model.layer)
    want = fs.modules.JacobianRank(plain, 1e-8, output=output).over(x).singular_values
    torch.testing.assert_close(got.singular_values, scale * want, rtol=1e-12, atol=1e-13)
    if make is Counter:
        assert model.calls == 0, "the buffers are left alone"


def test_an_error_of_the_model_itself_is_not_sent_to_chunk_size_one():
    class Broken(nn.Linear):
        def forward(self, x):
            if torch.is_grad_enabled() and self.training is False and x.abs().sum() >= 0:
                raise ValueError("of its own")
            return super().forward(x)

    with pytest.raises(ValueError, match="of its own"):
        fs.modules.JacobianRank(Broken(3, 2)).over(torch.randn(40, 3))


def test_alone_and_together_are_the_same():
    model, x, _ = case("residual", n=12, dtype=torch.float64)
    together, alone = (fs.modules.JacobianRank(model, 1e-9, chunk_size=c).over(x) for c in (24, 1))
    torch.testing.assert_close(alone.singular_values, together.singular_values, rtol=0, atol=1e-13)


@pytest.mark.parametrize("chunk", [None, 1])
def test_inference_mode_and_no_grad(chunk):
    model, x, _ = case("conv", n=9)
    want = fs.modules.JacobianRank(model).over(x).singular_values
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            made = deepcopy(model)
            for m in (model, made):
                got = fs.modules.JacobianRank(m, chunk_size=chunk).over(x + 0).singular_values
                torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * float(want[0]))


def test_models_in_which_a_row_is_of_no_one_example():
    class Centred(nn.Linear):
        def forward(self, x):
            return super().forward(x - x.mean(dim=0))

    first = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
    for model, x in ((first, torch.randn(5, 9, 8)), (Centred(4, 2), torch.randn(6, 4))):
        with pytest.raises(fs.PlanError, match="two examples together"):
            fs.modules.JacobianRank(model).over(x)
