"""Rules against torch itself over settings drawn at random: torch.optim with parameter groups, torch's clipping."""

import numpy as np
import pytest
import torch
from general_cases import D, general
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastsgd as fs

M, R = fs.models, fs.rules
NET = M.MLP(D, (6, 4), activation="tanh", b_scale=0.3)
NAMES = tuple(NET.shapes())
T, STEP = 12, 0.05
EVERY = fs.SaveAt(linear=T + 1, params=True)
quick = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def per_parameter(numbers):
    """A number for all parameters, or numbers of some."""
    return numbers | st.dictionaries(st.sampled_from(NAMES), numbers, min_size=1)


def of(given, name, other):
    return given.get(name, other) if isinstance(given, dict) else given


def followed(rule, optimiser, clip_value=None, clip_norm=None, more=lambda name, p: 0.0, backend="cpu"):
    """Train with a rule and step for step with a torch optimiser of {name: parameter} on the same samples."""
    run = general({"model": NET, "rule": rule}, steps=T, networks=1, step_size=STEP, save=EVERY, backend=backend)
    got = fs.train(run).saved_weights[0]
    n, batch = run.data.n, rule.batch(run.data.n)
    order = np.tile(np.arange(n), (T, 1)) if rule.full else run.order.indices(run.seed, [0], 0, T, n, batch)[0]
    p = {name: torch.tensor(a.copy(), requires_grad=True) for name, a in NET.unflatten(got[0]).items()}
    optim, X, y = optimiser(p), torch.tensor(run.data.X), torch.tensor(run.data.y)
    for t in range(T):
        optim.zero_grad()
        loss = run.loss.value(NET.forward(p, X[order[t]]), y[order[t]]).mean()
        (loss + sum(more(name, a) for name, a in p.items())).backward()
        if clip_value is not None:
            torch.nn.utils.clip_grad_value_(p.values(), clip_value)
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(p.values(), clip_norm)
        optim.step()
        want = np.concatenate([a.detach().numpy().ravel() for a in p.values()])
        np.testing.assert_allclose(got[t + 1], want, rtol=1e-12, atol=1e-12)


@quick
@given(st.floats(0.1, 0.95), st.floats(0, 1), per_parameter(st.floats(0, 0.5)),
       st.dictionaries(st.sampled_from(NAMES), st.floats(0, 3)), st.none() | st.floats(0.01, 1),
       st.none() | st.floats(0.01, 2), st.integers(1, 6), st.booleans())
def test_sgd_with_groups_clipping_dampening(momentum, dampening, decay, scale, clip_value, clip_norm, batch, nesterov):
    dampening = 0.0 if nesterov else dampening
    rule = R.SGD(batch_size=batch, momentum=momentum, dampening=dampening, nesterov=nesterov, weight_decay=decay,
                 step_scale=scale or None, clip_value=clip_value, clip_norm=clip_norm)

    def optimiser(p):
        groups = [{"params": [a], "lr": STEP * scale.get(name, 1.0), "weight_decay": of(decay, name, 0.0)}
                  for name, a in p.items()]
        return torch.optim.SGD(groups, momentum=momentum, dampening=dampening, nesterov=nesterov)

    followed(rule, optimiser, clip_value, clip_norm)


@quick
@given(per_parameter(st.floats(0, 0.5)), st.dictionaries(st.sampled_from(NAMES), st.floats(0, 3)), st.booleans(),
       st.none() | st.floats(0.01, 1))
def test_adam_with_groups(decay, scale, decoupled, clip_norm):
    rule = R.Adam(batch_size=3, weight_decay=decay, decoupled=decoupled, step_scale=scale or None, clip_norm=clip_norm,
                  epsilon=1e-3)

    def optimiser(p):
        groups = [{"params": [a], "lr": STEP * scale.get(name, 1.0), "weight_decay": of(decay, name, 0.0)}
                  for name, a in p.items()]
        return (torch.optim.AdamW if decoupled else torch.optim.Adam)(groups, eps=1e-3)

    followed(rule, optimiser, clip_norm=clip_norm)


@quick
@given(st.floats(0, 0.9), st.floats(0.01, 0.5))
def test_decoupled_decay_of_sgd(momentum, decay):
    """torch.optim has it for Adam alone: the weights shrink by hand before its SGD steps."""
    class Decoupled(torch.optim.SGD):
        def step(self):
            with torch.no_grad():
                for group in self.param_groups:
                    for a in group["params"]:
                        a.mul_(1 - STEP * decay)
            super().step()

    followed(R.SGD(momentum=momentum, weight_decay=decay, decoupled=True),
             lambda p: Decoupled(p.values(), STEP, momentum=momentum))


@quick
@given(per_parameter(st.floats(0, 2)), st.booleans())
def test_localisation_is_a_penalty(gamma, moved):
    """Its gradient is that of (gamma / 2) ||w - w*||^2, found by torch."""
    at = {name: np.random.default_rng(len(name)).standard_normal(shape) for name, shape in NET.shapes().items()}
    start = NET.unflatten(NET.start(3, [0])[0])
    rule = R.GD(localisation=R.Localisation(gamma, at if moved else None), momentum=0.5, average=0.5)

    def more(name, a):
        return of(gamma, name, 0.0) / 2 * ((a - torch.tensor((at if moved else start)[name])) ** 2).sum()

    followed(rule, lambda p: torch.optim.SGD(p.values(), STEP, momentum=0.5), more=more)


def test_equal_numbers_of_parameters_have_the_bits_of_one_number():
    one = R.SGD(momentum=0.5, weight_decay=0.2, localisation=0.3, batch_size=2)
    each = R.SGD(momentum=0.5, weight_decay=dict.fromkeys(NAMES, 0.2), localisation=dict.fromkeys(NAMES, 0.3),
                 step_scale={"W1": 1}, batch_size=2)
    runs = [general({"model": NET, "rule": rule}) for rule in (one, each)]
    assert fs.train(runs[0]).weights.tobytes() == fs.train(runs[1]).weights.tobytes()


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e19, 1e30])
def test_clipping_by_norm_at_any_size(size):
    """In float32 the square of a gradient of 1e30 is infinite; its length is not."""
    model, data = M.MLP(2, (), bias=False), fs.Dataset(np.array([[3.0, 4.0]], "f4"), np.array([1.0], "f4") * 0)
    start = {"W1": np.array([[3.0, 4.0]], "f4") * np.float32(size / 125)}
    run = fs.Run(model, data, R.SGD(clip_norm=0.5), 1.0, 1, init=start)
    clipped = {}
    for backend in ("cpu", "reference"):
        clipped[backend] = (start["W1"] - fs.train(run.replace(backend=backend)).params["W1"].numpy()[0]).ravel()
    length = size / (size + 1e-6) if size < 0.5 else 0.5
    wanted = np.array([0.6, 0.8]) * (size if size < 0.5 else length)
    for got in clipped.values():
        if size < 1e6:  # what is left of a step of 0.5 from a weight of 1e28 is nothing
            np.testing.assert_allclose(got, wanted, rtol=2e-6)
        assert np.isfinite(got).all() and np.abs(got).max() < 1
    assert np.array_equal(clipped["cpu"] != 0, clipped["reference"] != 0)


def test_networks_have_their_own_numbers_alone_and_together():
    each = np.linspace(0.1, 0.9, 11)
    rule = R.SGD(momentum=each, dampening=each, clip_norm=each, clip_value=each, weight_decay={"W1": each},
                 step_scale={"b1": each}, localisation={"W2": each})
    whole = fs.train(general({"model": NET, "rule": rule}))
    part = fs.train(general({"model": NET, "rule": rule}, ids=[7, 2]))
    assert part.weights.tobytes() == whole.weights[[7, 2]].tobytes()
    k = 7
    one = R.SGD(momentum=each[k], dampening=each[k], clip_norm=each[k], clip_value=each[k],
                weight_decay={"W1": each[k]}, step_scale={"b1": each[k]}, localisation={"W2": each[k]})
    step = general({"model": NET}).step_size.base[k]
    alone = fs.train(general({"model": NET, "rule": one}, networks=1, keys=[k], step_size=fs.StepSize(step, 0.6, 2.0)))
    assert alone.weights.tobytes() == whole.weights[[k]].tobytes()


def polar(G, ns_coefficients=(3.4445, -4.7750, 2.0315), ns_steps=5, eps=1e-7):
    """What the iteration makes of a matrix, by its singular values: each goes through a polynomial."""
    a, b, c = ns_coefficients
    U, s, V = torch.linalg.svd(G, full_matrices=False)
    s = s / max(float(s.norm()), eps)
    for _ in range(ns_steps):
        s = a * s + b * s**3 + c * s**5
    return (U * s) @ V


@quick
@given(st.floats(0, 0.95), st.booleans(), st.floats(0, 0.3), st.sampled_from([0.2, 1.0]), st.integers(1, 6))
def test_muon(momentum, nesterov, decay, scale, batch):
    """torch.optim.Muon, whose iteration is in bfloat16, with the same function in float64; biases go by hand."""
    from torch.optim import _muon

    rule = R.Muon(batch_size=batch, momentum=momentum, nesterov=nesterov, weight_decay=decay,
                  step_scale={"b1": scale, "b2": scale, "b3": scale})

    class Both:
        def __init__(self, p):
            self.bias = {name: [a, torch.zeros_like(a)] for name, a in p.items() if a.ndim == 1}
            self.all = p
            self.matrices = torch.optim.Muon([a for a in p.values() if a.ndim == 2], lr=STEP, momentum=momentum,
                                             nesterov=nesterov, weight_decay=decay)

        def zero_grad(self):
            for a in self.all.values():
                a.grad = None

        def step(self):
            self.matrices.step()
            with torch.no_grad():
                for a, m in self.bias.values():
                    m.lerp_(a.grad, 1 - momentum)
                    a.mul_(1 - STEP * scale * decay).sub_(
                        STEP * scale * (a.grad.lerp(m, momentum) if nesterov else m))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_muon, "_zeropower_via_newtonschulz", polar)
        followed(rule, Both)


def test_muon_has_no_kernel_in_triton():
    pytest.importorskip("triton")
    from fastsgd.backends.triton.backend import _no_kernel
    from fastsgd.lowering.work import Work

    assert "looks at matrices" in _no_kernel(Work(general({"model": NET, "rule": R.Muon()})))


def test_muon_moves_by_the_direction_of_gradients_whose_squares_overflow():
    for dtype, size in (("float32", 1e25), ("float64", 1e200)):
        run = general({"model": NET, "rule": R.Muon(batch_size=None)}, dtype, networks=3, step_size=0.02, steps=1,
                      metrics=())
        large = run.replace(loss=fs.losses.Squared(size))
        start, small, got = (fs.train(one).weights for one in (run.replace(step_size=1e-30), run, large))
        at = slice(0, 6 * D)  # the first matrix
        assert np.abs(small - start)[:, at].max() > 1e-3
        np.testing.assert_allclose(got[:, at], small[:, at], rtol=0, atol=1e-5 if dtype == "float32" else 1e-12)
        witness = fs.train(large.replace(backend="reference")).weights
        np.testing.assert_allclose(got[:, at], witness[:, at], rtol=0, atol=1e-5 if dtype == "float32" else 1e-12)
