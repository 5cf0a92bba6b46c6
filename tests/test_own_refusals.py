"""What has no kernel is refused with the user's line, the operator and why; what is no model at all is no record."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from general_cases import general
from torch import nn

import fastsgd as fs
from fastsgd.trace import compiler

M = fs.models
SHAPES = {"W": (3, 4)}


class Sign(torch.autograd.Function):
    """A straight-through sign."""

    @staticmethod
    def forward(x):
        return x.sign()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g


def branch(p, x):
    z = (p["W"] @ x).sum()
    if z > 0:  # this line
        return z
    return -z


def in_place(p, x):
    z = p["W"] @ x
    z += 1  # this line
    return z.sum()


def filled(p, x):
    out = torch.zeros(2, dtype=x.dtype)
    out[0] = (p["W"] @ x).sum()  # this line
    return out.sum()


REFUSED = {  # name: (function, words of the error)
    "branch": (branch, "this line.*a number out of a tensor.*torch.where"),
    "item": (lambda p, x: (p["W"] @ x).sum() * (p["W"] @ x).sum().item(), "a number out of a tensor"),
    "float": (lambda p, x: (p["W"] @ x).sum() * float(x[0]), "a number out of a tensor"),
    "numpy": (lambda p, x: torch.from_numpy((p["W"] @ x).numpy()).sum(), "can't convert meta device"),
    "numpy_function": (lambda p, x: np.sin(p["W"] @ x).sum(), "can't convert meta device"),
    "tolist": (lambda p, x: x[0] * sum((p["W"] @ x).tolist()), "meta tensor"),
    "mask": (lambda p, x: x[x > 0].sum() + p["W"].sum(), "a mask makes a shape"),
    "in_place": (in_place, r"this line.*torch.add_: it changes a tensor in place"),
    "filled": (filled, r"this line.*it changes a tensor in place"),
    "inplace_relu": (lambda p, x: F.relu(p["W"] @ x, inplace=True).sum(), "in place"),
    "randn": (lambda p, x: (p["W"] @ x).sum() + torch.randn(()), "torch.randn: random numbers"),
    "dropout": (lambda p, x: F.dropout(p["W"] @ x).sum(), "random numbers"),
    "sort": (lambda p, x: (p["W"] @ x).sort().values[0], "torch.sort: it has no rule"),
    "topk": (lambda p, x: (p["W"] @ x).topk(2).values.sum(), "torch.topk: it has no rule"),
    "inverse": (lambda p, x: torch.linalg.inv(p["W"][:2, :2]).sum() + x.sum(), "torch.linalg_inv_ex: it has no rule"),
    "svd": (lambda p, x: torch.linalg.svdvals(p["W"]).sum() + x.sum(), "it has no rule"),
    "fft": (lambda p, x: torch.fft.fft(p["W"] @ x).real.sum(), "torch.fft_r2c: it has no rule"),
    "precision": (lambda p, x: (p["W"] @ x).float().sum(), "asks for a precision"),
    "atan2": (lambda p, x: torch.atan2(p["W"] @ x, x[:3]).sum(), "torch.atan2: it has no rule"),
    "padded_pool": (lambda p, x: F.max_pool1d((p["W"] @ x)[None], 2, padding=1).sum(), "with padding it has no rule"),
    "batch_norm": (lambda p, x: F.batch_norm((p["W"] @ x)[None], torch.zeros(3, dtype=x.dtype),
                                             torch.ones(3, dtype=x.dtype)).sum(), "batch norm"),
    "detach": (lambda p, x: (p["W"] @ x).detach().sum() * (p["W"] @ x).sum(),
               r"derivative with respect to 'W' is \S+ by torch.autograd and \S+ by what was traced"),
    "straight_through": (lambda p, x: Sign.apply(p["W"] @ x).sum(),
                         r"derivative with respect to 'W' is \S+ by torch.autograd and 0 by"),
    "nowhere_finite": (lambda p, x: (p["W"] @ x).sum() / 0, "finite at none"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_kernel_is_refused_and_said(name, nothing_runs):
    function, words = REFUSED[name]
    run = general({"model": M.Function(function, d=4, shapes=SHAPES)}, metrics=())
    with pytest.raises(fs.BackendUnavailable, match="(?s)" + words) as error:
        fs.plan(run.replace(backend="cpu"))
    assert "backend='reference' runs" in str(error.value) or name == "nowhere_finite"
    if "torch.autograd" not in words and name != "nowhere_finite":
        assert __file__ in str(error.value)
    with pytest.warns(fs.SlowBackendWarning, match="(?s)" + words):
        assert fs.plan(run).backend == "reference"


def test_the_reference_trains_what_has_no_kernel():
    model = M.Function(REFUSED["sort"][0], d=4, shapes=SHAPES, start={"W": (0, 1)})
    result = fs.train(general({"model": model}, backend="reference"))
    assert result.survived.all() and np.isfinite(result.numpy("test_loss")).all()


SPOILT = [
    ({"function": None}, "function"), ({"function": 3}, "function"), ({"d": 0}, "model.d"), ({"shapes": {}}, "shapes"),
    ({"shapes": {"W": (0, 4)}}, "shapes"), ({"shapes": {"W": "3"}}, "shapes"), ({"shapes": [("W", 3)]}, "shapes"),
    ({"shapes": {"(x)": 3}}, "taken"), ({"start": {"Q": (0, 1)}}, "start: names"), ({"start": {"W": 1.0}}, "start"),
    ({"start": {"W": (0, -1)}}, r"model\.start\.W"), ({"constants": {"c": 3.0}}, "constants"),
    ({"at": {"W": np.ones(3)}}, "at"), ({"graph": "{}"}, "graph"),
    ({"function": lambda p, x: None}, "function"), ({"function": lambda p, x: p["Q"] @ x}, "raised KeyError"),
    ({"function": lambda p, x: p["W"].T @ x}, "raised RuntimeError.*test_own_refusals"),
    ({"function": lambda p, x: p["W"] @ x[:, None]}, r"returned shape \[3, 1\]"),
]


@pytest.mark.parametrize(("changes", "words"), SPOILT, ids=range(len(SPOILT)))
def test_what_is_no_model(changes, words):
    fields = {"function": lambda p, x: (p["W"] @ x).sum(), "d": 4, "shapes": SHAPES} | changes
    with pytest.raises(fs.SpecError, match=words):
        M.Function(**fields)


def test_losses_and_penalties_that_are_none():
    for made in (lambda: fs.losses.Function(), lambda: fs.losses.Function(3), lambda: fs.rules.SGD(penalty=3),
                 lambda: fs.losses.Function(lambda h, y: h, factor=0), lambda: fs.losses.Function(graph="{}"),
                 lambda: fs.rules.Penalty(), lambda: M.from_module(3), lambda: M.from_module(torch.nn.Tanh())):
        with pytest.raises(fs.SpecError):
            made()
    for fields, words in (({"loss": fs.losses.Function(lambda h, y: torch.stack([h, y]))}, "expected one number"),
                          ({"loss": fs.losses.Function(lambda h, y: h.sort().values)}, "torch.sort"),
                          ({"rule": fs.rules.SGD(penalty=lambda p: p["u"])}, "expected one number"),
                          ({"rule": fs.rules.SGD(penalty=lambda p: p["u"].median())}, "torch.median")):
        with pytest.raises(fs.BackendUnavailable, match=words):
            fs.plan(general({"model": M.DiagonalLinear(5)} | fields, backend="cpu"))


def test_without_a_compiler_the_reference_runs_and_it_is_said(monkeypatch):
    monkeypatch.setenv("FASTSGD_CXX", "no-such-compiler")
    compiler.compiler.cache_clear()
    try:
        run = general({"model": M.Function(lambda p, x: (p["W"] @ x).sum(), d=4, shapes=SHAPES)}, metrics=())
        with pytest.warns(fs.SlowBackendWarning, match="no C\\+\\+ compiler .'no-such-compiler'"):
            assert fs.plan(run).backend == "reference"
    finally:
        compiler.compiler.cache_clear()


def test_a_library_is_made_once_and_a_damaged_one_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSGD_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "_LOADED", {})
    model = M.Function(lambda p, x: p["W"].sum() * x[0] * 1.25, d=4, shapes=SHAPES)
    run = general({"model": model}, metrics=())
    assert "compiled in" in fs.plan(run).explain()
    made = sorted((tmp_path / "traced").iterdir())
    assert {path.suffix for path in made} == {".so", ".hash", ".checked"}
    monkeypatch.setattr(compiler, "_LOADED", {})
    assert "compiled before" in fs.plan(run).explain()
    monkeypatch.setattr(compiler, "_LOADED", {})
    whole = next(path for path in made if path.suffix == ".so")
    data = whole.read_bytes()
    whole.unlink()
    whole.write_bytes(data[:-100])
    assert "compiled in" in fs.plan(run).explain() and whole.read_bytes() == data


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch):
    monkeypatch.setenv("FASTSGD_CACHE", "/proc/nowhere")
    monkeypatch.setattr(compiler, "_LOADED", {})
    model = M.Function(lambda p, x: p["W"].sum() * x[0] * 1.5, d=4, shapes=SHAPES)
    assert fs.plan(general({"model": model}, metrics=())).backend == "cpu"


@pytest.mark.parametrize(("module", "more", "message"), (
    (None, {}, "None given, expected a torch.nn.Module"),
    (nn.Linear, {}, "the class Linear given"),
    (nn.Linear(3, 1), {"start": "x"}, "start: str given"),
    (nn.Linear(3, 1), {"start": [1]}, "start: list given"),
    (nn.Linear(3, 1), {"d": 4}, r"called with one input \[4\]"),
    (nn.Linear(3, 1).requires_grad_(False), {}, "nothing to train"),
    (nn.Linear(3, 1, device="meta"), {}, "without values"),
    (nn.LazyLinear(1), {"d": 3}, "without values"),
    (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), {}, r"called with one input \[3\]"),
    (nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1)), {}, r"module\.eval\(\)"),
))
def test_modules_that_cannot_be_models_say_why(module, more, message):
    with pytest.raises(fs.SpecError, match=message):
        fs.models.from_module(module, **more)


def test_a_module_that_is_none_is_not_filled():
    model = fs.models.from_module(nn.Linear(3, 1))
    data = fs.Dataset(np.eye(3, dtype=np.float32), np.ones(3, np.float32))
    result = fs.train(model, data, rule=fs.rules.GD(), step_size=0.1, steps=1)
    for module, message in (("x", "str given"), (nn.Linear, "the class Linear given"), (nn.Linear(4, 1), "has shape")):
        with pytest.raises(fs.SpecError, match=message):
            result.to_module(0, module)
