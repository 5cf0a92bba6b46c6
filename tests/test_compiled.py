"""Time loops compiled for one run: the bits of the prebuilt ones, chosen where they pay, never in silence."""

import ctypes
import subprocess

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiers import some
from traced_nets import NETS

import fastsgd as fs
from fastsgd.backends import cpu
from fastsgd.cuda.program import source_folder
from fastsgd.errors import BackendUnavailable, PlanError
from fastsgd.lowering import compiled
from fastsgd.lowering.work import Work
from fastsgd.native import native
from fastsgd.trace import check, compiler, programs

M, R = fs.models, fs.rules
SGD = {"plain": R.SGD()}
RULES = SGD | {"momentum": R.SGD(momentum=0.7), "nesterov": R.SGD(momentum=0.7, nesterov=True, weight_decay=1e-2),
               "decay": R.SGD(weight_decay=1e-2), "adam": R.Adam(weight_decay=1e-2)}


def sine(p, x):
    return p["W2"] @ torch.sin(p["W1"] @ x + p["b1"])


def two(p, x):
    return p["W2"] @ torch.tanh(p["W1"] @ x)


SINE = M.Function(sine, d=2, shapes={"W1": (6, 2), "b1": 6, "W2": 6})
HUBER = fs.losses.Function(lambda h, y: F.huber_loss(h, y, delta=0.5))
CASES = {  # name: (model, rules, loss)
    "relu2 2-20-1": (M.ReLU2(2, 20, False, False), SGD, None),
    "relu2 1-70-1": (M.ReLU2(1, 70), SGD, None),
    "relu2 5-9-1": (M.ReLU2(5, 9), SGD, None),
    "relu2 logistic": (M.ReLU2(3, 5), SGD, fs.losses.Logistic()),
    "mlp": (M.MLP(5, (10, 10)), RULES, None),
    "mlp ntk": (M.MLP(3, (6, 3), activation="tanh", bias=False, scaling="ntk", fixed=("W1",)), SGD, None),
    "mlp 2 outputs": (M.MLP(4, (6,), outputs=2), SGD | {"momentum": RULES["momentum"]}, None),
    "classes": (M.MLP(4, (6,), outputs=3, activation="softplus"), {"adam": RULES["adam"]}, fs.losses.CrossEntropy()),
    "product": (M.DiagonalProduct(7, 3), SGD | {"momentum": RULES["momentum"]}, None),
    "power": (M.DiagonalPower(7, 3), SGD, None),
    "sine": (SINE, SGD | {"nesterov": RULES["nesterov"]}, HUBER),
    "traced outputs": (M.Function(two, d=3, shapes={"W1": (5, 3), "W2": (2, 5)}), SGD, None),
}


def request(name, rule="plain", dtype="float32", N=None, T=131, **changes):
    model, rules, loss = CASES[name]
    rng = np.random.default_rng(5)
    N, o = native().lanes[dtype] + 3 if N is None else N, model.outputs
    y = rng.standard_normal((14, o) if o > 1 else 14).astype(dtype)
    if isinstance(loss, fs.losses.Logistic):
        y = np.sign(y)
    if isinstance(loss, fs.losses.CrossEntropy):
        y = rng.integers(0, 3, 14)
    start = {key: (0.5 * rng.standard_normal((80, *shape))).astype(dtype)[:N] for key, shape in model.shapes().items()}
    fields = {"networks": N, "init": start, "seed": 3, "backend": "cpu", "dtype": dtype, "loss": loss} | changes
    return fs.Run(model, fs.Dataset(rng.standard_normal((14, model.d)).astype(dtype), y), rules[rule],
                  np.geomspace(1e-3, 5e-2, N), T, **fields)


def outcome(run, asked, **tuning):
    lanes = {"lanes": native().lanes[run.dtype], "team": 1}
    made = fs.plan(run, fs.Tuning(compiled=asked, **lanes, **tuning))
    assert made.tuning.compiled is asked
    result = fs.train(made)
    buffers = b"" if result.buffers is None else result.buffers.tobytes()
    return result.weights.tobytes(), buffers, result.lost.tobytes(), result


def same(run, **tuning):
    own, prebuilt = outcome(run, True, **tuning), outcome(run, False)
    assert own[:3] == prebuilt[:3]
    return own[3]


@pytest.mark.parametrize(("name", "rule"), some(
    [(name, rule) for name, (_, rules, _) in CASES.items() for rule in rules], 3))
def test_it_has_the_bits_of_the_prebuilt_loop(name, rule):
    result = same(request(name, rule))
    assert result.survived.all() and (result.weights != fs.plan(result.run).start).any(axis=1).all()


@pytest.mark.parametrize("name", ["relu2 2-20-1", "power", "traced outputs"])  # of each kind of loop one
def test_it_has_them_as_users_compile_it(optimized, name):
    same(request(name))


@pytest.mark.parametrize(("name", "rule"), some(
    [("mlp", "momentum"), ("relu2 2-20-1", "plain"), ("sine", "plain")], 3))
def test_any_number_of_networks_any_cut_any_threads(name, rule):
    lanes = native().lanes["float32"]
    for N in (*range(1, lanes + 2), 2 * lanes - 1, 3 * lanes + 1):
        same(request(name, rule, N=N, T=66), threads=1 + N % 2, segment=29 + N)


@pytest.mark.parametrize("name", some(["mlp", "relu2 2-20-1", "sine"], 3))
def test_in_float64_and_in_any_order(name):
    for order in (None, fs.orders.Common(), fs.orders.Reshuffle(), fs.orders.PerNetwork(replace=False),
                  fs.orders.Replay(np.arange(131) % 14)):
        same(request(name, dtype="float64", order=order), segment=50)


@pytest.mark.parametrize("name", ["relu2 2-20-1", "mlp"])
def test_with_a_data_set_for_each_network(name):
    rng, N = np.random.default_rng(1), native().lanes["float32"] + 3
    run = request(name)
    data = fs.Dataset(rng.standard_normal((N, 9, run.model.d)).astype("f4"), rng.standard_normal((N, 9)).astype("f4"))
    same(run.replace(data=data))


@pytest.mark.parametrize(("name", "rule"), [("relu2 2-20-1", "plain"), ("mlp", "plain"), ("mlp", "momentum")])
def test_lost_networks_are_lost_at_the_same_step(name, rule):
    steps = np.geomspace(1e-3, 3.0, 27)
    result = same(request(name, rule, N=27, T=400).replace(step_size=steps))
    assert 3 < (result.lost >= 0).sum() < 27


def test_draws_of_a_later_step_are_those_of_a_longer_run():
    run = request("relu2 2-20-1", T=70)
    once = outcome(run.replace(steps=140), True)[3]
    again = fs.extend(outcome(run, True)[3], steps=140)
    assert once.weights.tobytes() == again.weights.tobytes()


@pytest.mark.parametrize(("changes", "why"), [
    ({"rule": R.SGD(batch_size=2)}, "one given sample a step"),
    ({"rule": R.GD()}, "one given sample a step"),
    ({"rule": R.SAM(rho=0.1)}, "one given sample a step"),
    ({"rule": R.SGD(label_noise=0.1)}, "one given sample a step"),
    ({"rule": R.SGD(average=0.9)}, "one given sample a step"),
    ({"rule": R.SGD(penalty=lambda p: p["W1"].abs().sum())}, "one given sample a step")])
def test_what_has_no_such_loop_is_refused(changes, why):
    run, lanes = request("relu2 2-20-1").replace(**changes), {"lanes": native().lanes["float32"], "team": 1}
    with pytest.raises(PlanError, match=f"tuning.compiled: True given, but .*{why}"):
        fs.plan(run, fs.Tuning(compiled=True, **lanes))
    assert f"the prebuilt time loop: a loop is compiled for {why}" in fs.plan(run, fs.Tuning(**lanes)).explain()


def test_other_layouts_families_and_backends_are_refused():
    with pytest.raises(PlanError, match="side by side"):
        fs.plan(request("relu2 2-20-1"), fs.Tuning(compiled=True, lanes=1, team=native().team["float32"]))
    diagonal = fs.Run(M.DiagonalLinear(3), fs.Dataset(np.ones((4, 3), "f4"), np.ones(4, "f4")), R.SGD(), 0.1, 5,
                      networks=16, backend="cpu")
    with pytest.raises(PlanError, match="known to the prebuilt loop"):
        fs.plan(diagonal, fs.Tuning(compiled=True, lanes=native().lanes["float32"], team=1))
    with pytest.raises(PlanError, match=r"tuning.compiled: True given, the backend 'reference' has no such choice"):
        fs.plan(request("mlp").replace(backend="reference"), fs.Tuning(compiled=True))
    fs.plan(request("mlp").replace(backend="reference"), fs.Tuning(compiled=False))
    with pytest.raises(fs.SpecError, match=r"tuning\.compiled"):
        fs.Tuning(compiled=1)


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(compiler, "_LOADED", {})


def test_the_plan_compiles_where_that_pays_and_says_so(own_cache):
    short, long = request("relu2 2-20-1", N=64, T=1000), request("relu2 2-20-1", N=64, T=10**9)
    assert fs.plan(short).tuning.compiled is None
    assert "the prebuilt time loop: too short a run" in fs.plan(short).explain()
    assert fs.plan(long, fs.Tuning(compiled=False)).tuning.compiled is False
    made = fs.plan(long)
    assert made.tuning.compiled is True
    assert "a time loop of its own, compiled in" in made.explain() and "it would save about" in made.explain()


def test_a_kept_loop_is_taken_at_once(own_cache, monkeypatch):
    work, module = Work(request("relu2 2-20-1", N=64, T=10**6)), native()
    middle = 1.0  # seconds: not enough to pay for the compiler
    pays, why = compiled.pays(work, module, middle)
    assert not pays and "compiling takes about" in why
    compiled.library(work, module)
    pays, why = compiled.pays(work, module, middle)
    assert pays and "is compiled already" in why
    monkeypatch.setattr(compiler, "_LOADED", {})
    assert compiled.library(work, module).seconds == 0


def test_what_was_not_measured_to_gain_is_not_chosen():
    module = native()
    for name, gains in (("relu2 2-20-1", True), ("relu2 5-9-1", False)):
        pays, why = compiled.pays(Work(request(name)), module, 1e6)
        assert pays is gains and (gains or "nothing was measured" in why)


def test_without_a_compiler_it_is_prebuilt_and_said(monkeypatch):
    def none():
        raise BackendUnavailable("there is no C++ compiler")

    monkeypatch.setattr(compiler, "compiler", none)
    run = request("mlp", N=64, T=10**8)
    made = fs.plan(run)
    assert made.tuning.compiled is None and "the prebuilt time loop: there is no C++ compiler" in made.explain()
    with pytest.raises(BackendUnavailable, match="no C"):
        fs.plan(run, fs.Tuning(compiled=True))


def test_a_loop_with_other_bits_is_found(own_cache, monkeypatch):
    right = compiled.unit

    def wrong(work, module):
        return right(work, module).replace("2, 20, 0, 0", "2, 19, 0, 0")

    monkeypatch.setattr(compiled, "unit", wrong)
    with pytest.raises(BackendUnavailable, match="differs from the prebuilt one"):
        fs.plan(request("relu2 2-20-1"), fs.Tuning(compiled=True, lanes=native().lanes["float32"], team=1))


def test_a_loop_of_other_headers_is_refused():
    work, module = Work(request("relu2 2-20-1")), native()
    entries = dict(compiled.library(work, module).entries)
    entries["given"] = compiled.library(Work(request("mlp")), module).entries["given"]
    library = compiler.Library("", entries, 0.0, None)
    with pytest.raises(ValueError, match="not of one kind"):
        cpu._compare(work, module, library)


def test_a_step_in_one_sweep_is_derivatives_and_then_the_value(tmp_path):
    """Of every network of the table: parameters and value, bit by bit."""
    unit, sizes = '#include "traced/cpu.h"\n', []
    for k, (function, d, shapes) in enumerate(NETS.values()):
        shapes = {name: shape if isinstance(shape, tuple) else (shape,) for name, shape in shapes.items()}
        nodes, _ = programs.model_graph(function, shapes, d)
        program = programs.model_program(nodes["f"], shapes, list(shapes), d)
        sizes.append((program.layout.P, *program.sizes))
        unit += f"namespace {{ namespace n{k} {{ using namespace fs;\n{program.text}{program.sweep}}} }}\n" + f"""
FS_EXPORT void both_{k}(fs::Vec<float, 8>* w, fs::Vec<float, 8>* v, fs::Vec<float, 8>* x, fs::Vec<float, 8>* next,
                        fs::Vec<float, 8>* g, fs::Vec<float, 8>* f, fs::Vec<float, 8>* h) {{
  using Tm = fs::Team<float, 8, 1>;
  fs::Vec<float, 8> a[{program.rows + 1}], b[{program.rows + 1}];
  const n{k}::Model<Tm> model;
  const fs::Columns<Tm> at{{x}}, to{{next}};
  model.forward(w, at, a, f);
  n{k}::Sweep<Tm>::step(w, at, g, a, to, b, f);
  model.forward(v, at, a, h);
  model.vjp(v, at, g, a, fs::Accumulate<fs::Vec<float, 8>>{{v}});
  model.forward(v, to, a, h);
}}
"""
    (tmp_path / "unit.cpp").write_text(unit)
    made = tmp_path / "unit.so"
    command = ["g++", "-std=c++17", "-O0", "-DFS_HD=inline", "-ffp-contract=off", "-fPIC", "-shared", "-w",
               "-fvisibility=hidden", *compiler.MACHINE["v3"], f"-I{source_folder()}"]
    subprocess.run([*command, str(tmp_path / "unit.cpp"), "-o", str(made)], check=True)
    library, rng, swept = ctypes.CDLL(str(made)), np.random.default_rng(0), 0
    for k, (P, d, o) in enumerate(sizes):
        w, x, next_, g = (check._rows(0.7 * rng.standard_normal((8, size)), "float32") for size in (P, d, d, o))
        v, f, h = check._rows(w.T, "float32"), *(check._aligned((o, 8), "float32") for _ in range(2))
        getattr(library, f"both_{k}")(*(ctypes.c_void_p(a.ctypes.data) for a in (w, v, x, next_, g, f, h)))
        assert np.isfinite(w).all() and w.tobytes() == v.tobytes() and f.tobytes() == h.tobytes(), list(NETS)[k]
        swept += 1
    assert swept == len(NETS)
    assert "m1001 = w[" in programs_of("sine").sweep  # parameters do move where they are read


def programs_of(name):
    function, d, shapes = NETS[name]
    shapes = {name: shape if isinstance(shape, tuple) else (shape,) for name, shape in shapes.items()}
    return programs.model_program(programs.model_graph(function, shapes, d)[0]["f"], shapes, list(shapes), d)
