"""Graphs, their derivatives and their C++: equal to torch.func on a table of networks and on 200 random functions."""

import ctypes
import random
import subprocess

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiers import long
from traced_nets import LOSSES, NETS

from fastsgd.cuda.program import C_TYPES, source_folder
from fastsgd.native import native
from fastsgd.trace import check, graph, programs
from fastsgd.trace.compiler import KINDS, MACHINE, Library
from fastsgd.trace.graph import INPUT
from fastsgd.trace.interpreter import evaluate

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SAME = 1e-10
QUICK = ["-O0", "-DFS_HD=inline"]
COMPILED = 10  # of the random functions, one in so many: compilers take their time


def shaped(shapes):
    return {name: shape if isinstance(shape, tuple) else (shape,) for name, shape in shapes.items()}


def net(name):
    function, d, shapes = NETS[name]
    shapes = shaped(shapes)
    nodes, _ = programs.model_graph(function, shapes, d)
    return function, programs.model_program(nodes["f"], shapes, list(shapes), d)


def loss(name):
    function, outputs, labels = LOSSES[name]
    return function, programs.loss_program(programs.loss_graph(function, None, outputs, labels), outputs, labels)


def together(made, dtype, width, flags, folder):
    """Libraries of many programs, compiled as one unit."""
    unit = '#include "traced/cpu.h"\n'
    for k, program in enumerate(made):
        macro, names = KINDS[program.kind]
        unit += f"namespace {{ namespace n{k} {{ using namespace fs;\n{program.text}}} }}\n"
        for w in (1, width):
            words = [f"{name}_{w}" for name in names]
            unit += "".join(f"#define {word} {word}_{k}\n" for word in words)
            unit += f"{macro}(n{k}::{program.kind}, {C_TYPES[dtype]}, {w})\n"
            unit += "".join(f"#undef {word}\n" for word in words)
    (folder / "unit.cpp").write_text(unit)
    isa = native().isa
    command = ["g++", "-std=c++17", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden", "-w", *flags,
               *MACHINE[isa], f"-I{source_folder()}", str(folder / "unit.cpp"), "-o", str(folder / f"{dtype}.so")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]
    handle = ctypes.CDLL(str(folder / f"{dtype}.so"))
    return [Library(str(k), {name: tuple(ctypes.cast(getattr(handle, f"{name}_{w}_{k}"), ctypes.c_void_p).value
                                         for w in (1, width)) for name in KINDS[program.kind][1]}, 0.0, folder,
                    handle=handle) for k, program in enumerate(made)]


@pytest.mark.parametrize("name", NETS)
def test_the_graph_of_a_network_is_torchs(name):
    function, program = net(name)
    outcome = check.against_torch(program, lambda leaves: function(leaves, leaves[INPUT]))
    assert outcome.points >= 5 and outcome.worst < SAME and not program.unused


@pytest.mark.parametrize("name", LOSSES)
def test_the_graph_of_a_loss_is_torchs(name):
    function, program = loss(name)
    outcome = check.against_torch(program, lambda leaves: function(leaves["f"], leaves["y"]))
    assert outcome.points == 6 and outcome.worst < SAME


def test_a_graph_is_text_and_comes_back():
    rng = np.random.default_rng(0)
    for function, d, shapes in NETS.values():
        shapes = shaped(shapes)
        nodes, _ = programs.model_graph(function, shapes, d)
        text = graph.to_text(nodes)
        again = graph.from_text(text)
        assert graph.to_text(again) == text == graph.to_text(programs.model_graph(function, shapes, d)[0])
        leaves = {name: rng.standard_normal((3, 1, *shape)) for name, shape in shapes.items()}
        leaves[INPUT] = rng.standard_normal((5, d))
        (here,) = evaluate([again["f"]], leaves)
        (there,) = evaluate([again["f"]], {name: torch.from_numpy(a) for name, a in leaves.items()})
        assert here.shape[:2] == (3, 5)
        np.testing.assert_allclose(here, there.numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nodes":[["map",[],[0],"sin"]],"outputs":{"f":0}}',
                                  '{"nodes":[["leaf",[2],[],"w"],["view",[1],[0],[2]]],"outputs":{"f":1}}',
                                  '{"nodes":[["leaf",[2],[],"w"],["map",[2],[0],"system"]],"outputs":{"f":1}}',
                                  '{"nodes":[["leaf",[2],[],"w"],["sum",[2],[0],null]],"outputs":{"f":1}}',
                                  '{"nodes":[["leaf",[2],[],"w"],["cat",[3],[0],null]],"outputs":{"f":1}}',
                                  '{"nodes":[["leaf",[2],[],"w"]],"outputs":{"f":7}}',
                                  '{"nodes":[["leaf",[99999,99999],[],"w"]],"outputs":{"f":0}}'])
def test_another_text_is_refused(text):
    with pytest.raises(ValueError, match="graph"):
        graph.from_text(text)


def test_compiled_code_computes_its_graph(tmp_path):
    """In float64; every library that a run uses, in test_own.py, is compared in both dtypes before it is used."""
    made, dtype = [net(name)[1] for name in NETS] + [loss(name)[1] for name in LOSSES], "float64"
    width = native().lanes[dtype]
    for program, library in zip(made, together(made, dtype, width, QUICK, tmp_path), strict=True):
        outcome = check.compiled(program, library, dtype, width)
        assert outcome.points >= 4 + 4 * width - 2


def test_a_fault_of_the_code_is_found(tmp_path):
    _, program = net("sine")
    program.text = program.text.replace("sin(", "cos(", 1)
    (library,) = together([program], "float64", native().lanes["float64"], QUICK, tmp_path)
    with pytest.raises(RuntimeError, match="compiled code differs"):
        check.compiled(program, library, "float64", native().lanes["float64"])


def test_no_parameter_moves_before_another_has_read_it(tmp_path):
    """The derivative by a has nothing of a or b in it but exp(b), which is kept; that by b reads a."""
    shapes, width = {"a": (), "b": ()}, native().lanes["float64"]
    nodes, _ = programs.model_graph(lambda p, x: p["a"] * torch.exp(p["b"]) * x[0], shapes, 1)
    program = programs.model_program(nodes["f"], shapes, list(shapes), 1)
    (library,) = together([program], "float64", width, QUICK, tmp_path)
    assert check.compiled(program, library, "float64", width).points


@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_elementary_functions_are_right_to_the_last_digits(dtype, tmp_path):
    def function(p, x):
        z = p["w"] * x
        return torch.stack([z.sin(), z.cos(), z.expm1(), z.abs().log1p(), z.floor(), z.trunc(), z.round()]).flatten()

    d = 50
    nodes, _ = programs.model_graph(function, {"w": (d,)}, d)
    program, width = programs.model_program(nodes["f"], {"w": (d,)}, ["w"], d), native().lanes[dtype]
    (library,) = together([program], dtype, width, QUICK, tmp_path)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((width, d)) * 10.0**rng.uniform(-6, 1.5, (width, d))
    leaves = {"w": np.ones((width, d)), INPUT: x.astype(dtype).astype(np.float64)}
    got, _ = check.Compiled(program, library, dtype, width)(leaves, np.ones((width, 7 * d)))
    want, _ = program.evaluate(leaves, np.ones((width, 7 * d)))
    np.testing.assert_allclose(got, want, rtol=3 * np.finfo(dtype).eps, atol=0)


# ---- random functions

UNARY = [torch.sin, torch.cos, torch.tanh, torch.sigmoid, torch.relu, torch.square, torch.abs, F.softplus, F.gelu,
         torch.neg, torch.erf, F.silu, F.elu, lambda a: torch.exp(-a * a), lambda a: torch.log1p(a.abs()),
         lambda a: torch.expm1(a.clamp(-2, 1)), lambda a: torch.sqrt(a.abs() + 0.1), lambda a: (a * a + 1).rsqrt(),
         lambda a: a**3, lambda a: F.leaky_relu(a, 0.2), lambda a: a / (1 + a.abs()), lambda a: F.hardtanh(a),
         lambda a: (a.abs() + 0.2)**1.7]
AXIS = [lambda a, k: a.sum(k), lambda a, k: a.mean(k), lambda a, k: a.amax(k), lambda a, k: a.amin(k),
        lambda a, k: torch.softmax(a, k), lambda a, k: torch.log_softmax(a, k), lambda a, k: torch.logsumexp(a, k),
        lambda a, k: a.cumsum(k), lambda a, k: a.flip(k), lambda a, k: a.roll(1, k), lambda a, k: a.unsqueeze(k),
        lambda a, k: a.narrow(k, 0, (a.shape[k] + 1) // 2), lambda a, k: torch.cat([a, -a], k),
        lambda a, k: torch.stack([a, a * a], k), lambda a, k: a.max(k).values, lambda a, k: a.norm(dim=k),
        lambda a, k: (a - a.mean(k, keepdim=True)) / (a.var(k, keepdim=True, correction=0) + 1).sqrt(),
        lambda a, k: a.transpose(k, 0), lambda a, k: a.index_select(k, torch.tensor([a.shape[k] - 1, 0])),
        lambda a, k: a.unfold(k, (a.shape[k] + 1) // 2, 1), lambda a, k: a.tanh().prod(k)]
BINARY = [torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum, lambda a, b: a / (1 + b * b),
          lambda a, b: torch.where(a > b, a, 2 * b), lambda a, b: torch.logaddexp(a, b), lambda a, b: a.lerp(b, 0.3)]


def random_net(seed):
    """(function, d, shapes) of a program that draws its operators and shapes."""
    draw = random.Random(seed)
    d = draw.randint(1, 6)
    shapes = {f"p{k}": tuple(draw.randint(1, 5) for _ in range(draw.randint(0, 2))) for k in range(draw.randint(1, 3))}
    plan = [(draw.random(), draw.randrange(10**6), draw.randrange(10**6), draw.randrange(10**6))
            for _ in range(draw.randint(3, 9))]

    def function(p, x):
        pool = [*(p[name] for name in shapes), x]
        for kind, op, first, second in plan:
            a, b = pool[first % len(pool)], pool[second % len(pool)]
            if kind < 0.35:
                made = UNARY[op % len(UNARY)](a)
            elif kind < 0.6 and a.dim():
                made = AXIS[op % len(AXIS)](a, second % a.dim())
            elif kind < 0.75 and a.dim() == 2:
                made = a @ (b if b.dim() in (1, 2) and b.shape[0] == a.shape[1] else a.T)
            else:
                try:
                    np.broadcast_shapes(a.shape, b.shape)
                except ValueError:
                    b = b.sum()
                made = BINARY[op % len(BINARY)](a, b)
            if made.numel() <= 200:
                pool.append(made)
        return torch.stack([torch.tanh(0.1 * a).sum() for a in pool[-4:]]).sum() + sum(
            p[name].sum() * x[0] for name in shapes)

    return function, d, shapes


SEEDS = [range(100), long(range(100, 200))]


@pytest.mark.parametrize("seeds", SEEDS)
def test_random_functions_have_torchs_values_and_derivatives(seeds):
    for seed in seeds:
        function, d, shapes = random_net(seed)
        nodes, _ = programs.model_graph(function, shapes, d)
        program = programs.Program("Model", "", 0, nodes["f"], shapes, shapes | {INPUT: (d,)})
        outcome = check.against_torch(program, lambda leaves, f=function: f(leaves, leaves[INPUT]), count=1)
        assert outcome.worst < SAME, seed


@pytest.mark.parametrize("seeds", SEEDS)
def test_random_functions_compile_to_what_their_graphs_say(tmp_path, seeds):
    made, width = [], native().lanes["float64"]
    for function, d, shapes in map(random_net, seeds[::COMPILED]):
        nodes, _ = programs.model_graph(function, shapes, d)
        made.append(programs.model_program(nodes["f"], shapes, list(shapes), d))
    for program, library in zip(made, together(made, "float64", width, QUICK, tmp_path), strict=True):
        check.compiled(program, library, "float64", width)


# ---- what docs/own.md says is allowed: functions of a matrix W [4, 6] and a vector x [6]

ALLOWED = {
    **{name: (lambda W, x, name=name: getattr(torch, name)((W @ x).abs() + 0.3)) for name in (
        "neg abs sign square sqrt rsqrt reciprocal exp exp2 expm1 log log2 log10 log1p sin cos tan cosh tanh erf "
        "sigmoid floor ceil round trunc").split()},
    **{name: (lambda W, x, name=name: getattr(F, name)(W @ x)) for name in (
        "relu leaky_relu elu selu celu gelu silu mish softplus logsigmoid hardtanh relu6 softsign tanhshrink "
        "softshrink hardshrink").split()},
    "glu": lambda W, x: F.glu(W @ x), "threshold": lambda W, x: F.threshold(W @ x, 0.2, 0.1),
    "prelu": lambda W, x: F.prelu(W @ x, W[0, :1]), "gelu_tanh": lambda W, x: F.gelu(W @ x, approximate="tanh"),
    "powers": lambda W, x: W**2 + (W.abs() + 1)**-1.5 + W**7 + (x**2 + 1)**0.3 + 2**x,
    "lerp": lambda W, x: torch.lerp(x, x * x, 0.3) + torch.lerp(x, x * x, W[0]),
    "addc": lambda W, x: torch.addcmul(x, W, W, value=0.5) + torch.addcdiv(x, W, W * W + 1),
    "alpha": lambda W, x: torch.add(x, W, alpha=2) - torch.sub(x, W, alpha=3) + (1 - x) + 2 / (1 + x * x),
    "choices": lambda W, x: torch.where((W > 0) & ~(x > 0.5) | (W < -1), W, x).masked_fill(W > 1, 0.5),
    "extremes": lambda W, x: torch.maximum(W, x) + torch.minimum(W, x) + W.clamp(-0.5, 0.5) + W.clamp(min=0) + (
        W.clamp_max(0.3) + torch.clamp(W, max=0.2)),
    "views": lambda W, x: W.T[1:, ::2].permute(1, 0).flip(0).roll(1, 1) + W.reshape(2, 2, 6)[:, 0, :5],
    "pieces": lambda W, x: torch.cat([*W.split(2), x[None]]) + torch.stack([x] * 5) + F.pad(W, (0, 0, 0, 1)),
    "diagonals": lambda W, x: W.diagonal().sum() + torch.diag(x).sum(0) + x.unfold(0, 3, 2).sum() + W.tril().sum() + (
        W.triu(1).sum()),
    "known_indices": lambda W, x: W[:, torch.tensor([0, 3, 3])].sum(1) + W[torch.tensor([1, 1, 0, 2]),
                                                                        torch.tensor([0, 1, 1, 5])] + W[..., -1],
    "repeats": lambda W, x: x.repeat(2, 2).sum() + x.expand(4, 6) + x.repeat_interleave(2).reshape(2, 6).sum(0),
    "constants": lambda W, x: x * torch.arange(6.0) + torch.zeros_like(x) + torch.ones(6, device=x.device) + (
        torch.full_like(x, 0.3) + x.new_zeros(6) + torch.eye(6)[2]),
    "data_index": lambda W, x: W[(x[:2] > 0).long()].sum() + W.index_select(1, (x[:1].abs() > 1).long()).sum(),
    "sums": lambda W, x: W.sum() + W.mean(0, keepdim=True) + W.sum(1)[:, None] + W.prod(0) + W.cumsum(1),
    "largest": lambda W, x: W.amax(1) + W.amin(1) + W.max() + W.max(1).values + W.min(1)[0] + W.amax((0, 1)),
    "spread": lambda W, x: W.var(1) + W.std(1, correction=0) + W.var() + W.norm(dim=1) + W.norm(p=1) + (
        torch.linalg.vector_norm(W, float("inf")) + torch.linalg.norm(x)),
    "softmax": lambda W, x: W.softmax(1) + F.log_softmax(W, 0) + W.logsumexp(0) + F.softmin(W, 1),
    "products": lambda W, x: W @ W.T @ W + torch.outer(W @ x, x) + torch.einsum("ij,j,k->ik", W, x, x) + (
        torch.bmm(W[None], torch.eye(6, dtype=W.dtype)[None])[0] + F.linear(x, W.T @ W, x) + torch.dot(x, x)),
    "addmm": lambda W, x: torch.addmm(W @ W.T, W, W.T, beta=0.5, alpha=2) + torch.addmv(W @ x, W, x),
    "tensordot": lambda W, x: torch.tensordot(W, W, dims=([1], [1])) + torch.matmul(W[None], x)[0] + W.matmul(W.mT),
    "norms": lambda W, x: F.layer_norm(W, (6,)) + F.group_norm(W[None], 2, eps=1e-3)[0] + F.normalize(W, dim=1),
    "windows": lambda W, x: F.conv1d(W[None], W[:2, :4, None].expand(2, 4, 2), dilation=2, stride=2).sum() + (
        F.conv1d(W[None], W[:, None, :3], groups=4, padding=1).sum() + F.avg_pool1d(W[None], 2).sum() + F.max_pool1d(
            W[None], 3).sum() + F.conv2d(W[None, None], W[None, None, :2, :2], padding="same").sum() + F.avg_pool2d(
                W[None], 2).sum() + F.max_pool2d(W[None], 2).sum()),
    "attention": lambda W, x: F.scaled_dot_product_attention(W[None], W[None], W[None]).sum(),
    "losses": lambda W, x: F.mse_loss(x, W[0]) + F.l1_loss(x, W[1]) + F.huber_loss(x, W[2]) + F.smooth_l1_loss(
        x, W[0], beta=0.5) + F.binary_cross_entropy_with_logits(x, W[1].sigmoid()) + F.cross_entropy(
            W[0], torch.tensor(2)) + F.cross_entropy(W, torch.tensor([0, 1, 2, 5])),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_the_page_allows_is_taken(name):
    function, shapes = ALLOWED[name], {"W": (4, 6)}

    def net(p, x):
        return (torch.tanh(0.3 * function(p["W"], x))).sum() + p["W"].sum()

    nodes, _ = programs.model_graph(net, shapes, 6)
    program = programs.model_program(nodes["f"], shapes, ["W"], 6)
    assert check.against_torch(program, lambda leaves: net(leaves, leaves[INPUT])).worst < SAME
