"""Properties over requests that nobody wrote by hand: CPU equals reference, and no choice of speed moves a bit."""

from functools import cache

import numpy as np
from cases import DTYPES, LANES
from general_cases import samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tolerances import WEIGHTS

import fastsgd as fs
from fastsgd import orders

M, R, L = fs.models, fs.rules, fs.losses
T, NETWORKS = 5, 9
ONE = fs.Tuning(threads=1)
EXAMPLES = {"derandomize": True, "deadline": None, "database": None,
            "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
SMALL, FLAG = st.integers(1, 4), st.booleans()
# no "square": where it does not diverge it is a linear network, and derivatives of its products grow with the depth
SMOOTH = [name for name in M.activations.ACTIVATIONS if name != "square"]


@cache
def per_network(low, high):
    """A number in [low, high], or one for each network. Made once: a strategy is checked when it is first drawn."""
    number = st.floats(low, high).map(lambda x: x if x > 1e-30 else 0.0)  # what float32 can tell from 0
    return number | st.lists(number, min_size=NETWORKS, max_size=NETWORKS).map(np.array)


@st.composite
def models(draw):
    d, kind = draw(st.integers(1, 18)), draw(st.sampled_from("mmmmrduopa"))
    if kind == "r":
        return M.ReLU2(d, draw(st.integers(1, 19)), draw(FLAG), draw(FLAG), b1_scale=0.3)
    if kind in "du":
        return M.DiagonalLinear(d, u0=draw(per_network(0.1, 0.8)), v0=0.3)
    if kind == "o":
        return M.DiagonalProduct(d, draw(SMALL), 0.6)
    if kind == "p":
        return M.DiagonalPower(d, draw(SMALL), draw(FLAG), w0=0.6, z0=0.5)
    if kind == "a":
        return M.TiedAutoencoder(d, draw(SMALL), draw(FLAG), b_scale=0.2)
    widths = tuple(draw(st.lists(st.integers(1, 9), max_size=3)))
    names = [f"W{k + 1}" for k in range(len(widths) + 1)]
    scaling = draw(st.sampled_from(["standard", "ntk", "mean_field"]))
    return M.MLP(d, widths, outputs=draw(st.integers(1, 3)), activation=draw(st.sampled_from(SMOOTH)), scaling=scaling,
                 bias=tuple(draw(FLAG) for _ in names),
                 fixed=tuple(name for name in names[1:] if draw(st.integers(0, 5)) == 0), b_scale=0.3)


@st.composite
def rules(draw, noisy):
    kind = draw(st.sampled_from([R.SGD, R.SGD, R.GD, R.SAM, R.Adam]))
    maybe = st.none() | per_network(0.0, 0.5)
    fields = {"weight_decay": draw(st.just(0.0) | per_network(0, 0.3)), "average": draw(maybe),
              "normalised": draw(st.integers(0, 4)) == 0}
    noise = st.none() | st.builds(fs.GradientNoise, per_network(0, 0.2), st.sampled_from(["gaussian", "rademacher"]))
    fields["gradient_noise"] = draw(noise)
    if noisy:
        on = draw(st.sampled_from(["batch", "one"])) if kind is R.GD else "batch"
        fields["label_noise"] = draw(st.none() | st.builds(
            fs.LabelNoise, per_network(0, 0.4), st.sampled_from(["gaussian", "rademacher"]), st.just(on)))
    if kind is not R.GD:
        fields["batch_size"] = draw(st.integers(1, 5))
    if kind is R.Adam:
        fields |= {"decoupled": draw(FLAG), "beta1": draw(per_network(0, 0.9)), "epsilon": 1e-3}
    else:
        fields["momentum"] = draw(st.just(0.0) | per_network(0.1, 0.9))
        fields["nesterov"] = bool(np.any(fields["momentum"])) and draw(FLAG)
    if kind is R.SAM:
        fields |= {"rho": draw(per_network(0, 0.2)), "per_sample": draw(FLAG), "unit": draw(FLAG)}
    return kind(**fields)


@st.composite
def runs(draw, dtypes=DTYPES):
    model, dtype, rng = draw(models()), draw(st.sampled_from(dtypes)), np.random.default_rng(draw(st.integers(0, 99)))
    o = model.outputs
    losses = [L.Squared(), L.Squared(1.0, weights=rng.random(o) + 0.5)]
    losses += [L.CrossEntropy()] if o > 1 else [L.Logistic(), L.Hinge(0.7)]
    loss = draw(st.sampled_from(losses))
    n = draw(st.integers(1, 12))
    X = rng.standard_normal((n, model.d))
    y = {"logistic": np.sign(X[:, 0]), "hinge": np.sign(X[:, 0]), "cross_entropy": rng.integers(0, o, n)}.get(
        loss.name, rng.standard_normal((n, o) if o > 1 else n))
    data = fs.Dataset(X, y).astype(dtype)
    rule = draw(rules(noisy=loss.name == "squared"))
    order = draw(st.sampled_from([orders.PerNetwork(), orders.Common(3), orders.Reshuffle(), orders.Reshuffle(1)]
                                 + [orders.PerNetwork(False), orders.Common(2, False)] * (rule.batch(n) <= n)))
    if loss.name == "squared" and not rule.full and draw(st.integers(0, 3)) == 0:
        weights = {name: a[0] for name, a in model.unflatten(model.start(1, [0])).items()}
        data, order = fs.data.Fresh(model.d, model, {name: 0.5 * a for name, a in weights.items()}), None
        data = data.astype(dtype)
    return fs.Run(model, data, rule, np.linspace(0.002, 0.01, NETWORKS), T, order=order, loss=loss, dtype=dtype,
                  seed=draw(st.integers(0, 2**64 - 1)), save=fs.SaveAt(linear=2, params=True))


def everything(result):
    return result.saved_weights.tobytes(), result.lost.tobytes()


@settings(max_examples=50, **EXAMPLES)
@given(runs(("float64",)))
def test_cpu_equals_reference(run):
    got, want = fs.train(run.replace(backend="cpu"), tuning=ONE), fs.train(run.replace(backend="reference"))
    np.testing.assert_array_equal(got.lost, want.lost)
    first, last = (np.abs(want.saved_weights[:, s]).max(axis=1) for s in (0, -1))
    tame = want.survived & (last < 10 * first + 1)  # what explodes, as SAM of long steps may, enlarges rounding too
    error = np.abs(got.saved_weights - want.saved_weights)[tame].max(axis=(1, 2), initial=0)
    assert (error <= WEIGHTS["float64"] * np.maximum(first, last)[tame]).all()


@settings(max_examples=120, **EXAMPLES)
@given(runs(), st.permutations(range(NETWORKS)), st.integers(1, NETWORKS), st.integers(1, T), st.integers(1, 3))
def test_no_choice_moves_a_bit(run, ids, count, segment, threads):
    whole = fs.train(run, tuning=ONE)
    for choice in ({"lanes": 1, "team": 1}, {"lanes": LANES[run.dtype], "segment": segment}, {"threads": threads}):
        assert everything(fs.train(run, tuning=fs.Tuning(**({"threads": 1} | choice)))) == everything(whole), choice
    part = fs.train(run.replace(ids=ids[:count]), tuning=ONE)
    assert part.saved_weights.tobytes() == whole.saved_weights[ids[:count]].tobytes()


@settings(max_examples=20, **EXAMPLES)
@given(st.integers(1, 5), st.integers(1, T), st.sampled_from(DTYPES), st.integers(1, 40))
def test_streams_and_populations_of_any_size(batch, segment, dtype, N):
    rule = R.SGD(batch_size=batch, momentum=0.5)
    data = fs.data.Stream(5, lambda *asked: tuple(a.astype(dtype) for a in samples(*asked)))
    run = fs.Run(M.MLP(5, 3, activation="tanh"), data, rule, 0.01, T, networks=N, dtype=dtype)
    whole = fs.train(run, tuning=ONE)
    assert fs.train(run, tuning=fs.Tuning(threads=1, segment=segment)).weights.tobytes() == whole.weights.tobytes()
    larger = fs.train(run.replace(networks=N + 3), tuning=ONE)
    assert larger.weights[:N].tobytes() == whole.weights.tobytes()
